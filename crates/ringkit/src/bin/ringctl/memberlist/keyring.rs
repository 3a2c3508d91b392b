//! `ringctl memberlist keyring …`: a new cluster key, and how far the change from one key to another has come.
//!
//! A key is changed in three steps, each at every process before the next: add the new one at the end, move it to the front,
//! remove the old one. The first key of all is introduced in another way: where there is no key yet, the end is the front.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng as _;
use rand::rngs::SysRng;

use super::advice::{Process, advise, not_asked, plain};
use super::{fetch, read, table};
use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, print};

/// Bytes of a generated key: what the cipher uses.
const KEY_BYTES: usize = 32;

pub(crate) const GENERATE: Command = Command {
    name: "memberlist keyring generate",
    positional: &[],
    about: "Prints a new key for `memberlist.encryption_keys`.",
    flags: &[],
    notes: "It is made of the operating system's randomness and kept nowhere.",
    run: generate,
};

pub(crate) const KEYRING: Command = Command {
    name: "memberlist keyring status",
    positional: &[],
    about: "Tells which process has and uses which cluster key, and how far a change of it has come.",
    flags: &[
        Flag { name: "url", value: "URL", help: "a process that gossips; repeat it for all of them" },
        Flag { name: "new", value: "ID", help: "the key that is being introduced [each in turn]" },
        Flag { name: "json", value: "", help: "the same as JSON" },
    ],
    notes: "A key's id is the beginning of a hash of it. To change the key: add the new one at the end of the keys of every process,\n\
            then move it to the front at every process, then remove the old one. Where there is no key yet, set\n\
            `require_encryption: false` together with the first one everywhere, and true when all have it.\n\
            All members count, also those that are down: what takes all of them is advised only if all were asked.\n\
            Exit status 1 if a process does not understand another one, a member was not asked, or keys share an id.",
    run: status,
};

fn generate(_: &Parsed) -> Result<u8, Failure> {
    let mut key = [0; KEY_BYTES];
    SysRng
        .try_fill_bytes(&mut key)
        .map_err(|cause| format!("the operating system gives no randomness: {cause}"))?;
    print(&format!("{}\n", STANDARD.encode(key)));
    Ok(OK)
}

fn status(args: &Parsed) -> Result<u8, Failure> {
    let urls = args.all("url");
    if urls.is_empty() {
        return Err(BadFlag::new("url", "is needed, once for each process").into());
    }
    let mut processes = Vec::new();
    for url in urls {
        let report = read(&url, &fetch(&url)?)?;
        processes.push(Process::new(url, &report));
    }
    let advice = advise(&processes, args.text("new").map(plain).as_deref());
    if args.has("json") {
        let json = serde_json::json!({
            "processes": processes, "not_asked": not_asked(&processes), "advice": advice.lines, "broken": advice.broken,
        });
        print(&format!("{json:#}\n"));
    } else {
        print(&processes_table(&processes));
        print(&format!("\n{}\n", advice.lines.join("\n")));
    }
    Ok(if advice.broken || advice.withheld { NOT_OK } else { OK })
}

fn processes_table(processes: &[Process]) -> String {
    let rows = processes.iter().map(|process| {
        let opens: Vec<String> =
            process.opens.iter().map(|(key, opened)| format!("{key} ({opened} opened)")).collect();
        [
            process.name.clone(),
            process.url.clone(),
            process.seals_with.clone().unwrap_or_else(|| "-".to_owned()),
            if opens.is_empty() { "-".to_owned() } else { opens.join(", ") },
            if process.requires_sealed { "refused" } else { "accepted" }.to_owned(),
            process.unopenable.to_string(),
        ]
    });
    table(["PROCESS", "URL", "SEALS WITH", "OPENS", "IN CLEAR", "UNOPENABLE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::{ClusterKey, Gossip};

    #[test]
    fn the_table_shows_each_keyring() {
        let process = |name: &str, ids: &[&str]| {
            let keyring = ids.iter().enumerate().map(|(at, id)| ClusterKey {
                id: (*id).to_owned(),
                seals: at == 0,
                opened: 3,
            });
            let report = Gossip { name: name.to_owned(), keyring: keyring.collect(), ..Gossip::default() };
            Process::new(format!("http://{name}"), &report)
        };
        let text = processes_table(&[process("a", &["0xAB", "22"]), process("b", &[])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a        http://a  ab          22 (3 opened), ab (3 opened)  refused   0");
        assert_eq!(lines[2], "b        http://b  -           -                             accepted  0");
    }
}
