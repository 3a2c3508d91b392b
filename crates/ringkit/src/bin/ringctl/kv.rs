//! `ringctl kv …`, and `ringctl ring watch | forget`: rings as a store holds them, without asking any process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use ringkit_config::Layout;
use ringkit_kv::{Client, Codec, Decision, DecodeError, EntryId, Key, Value as _, View};
use ringkit_ring::{Desc, InstanceDesc};

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::store::{Which, layout, open, rings, store_flags};
use crate::{Failure, NOT_OK, OK, block_on, complain, print};

pub(crate) const LIST: Command = Command {
    name: "kv list",
    positional: &[],
    about: "Lists the keys of a store below a prefix.",
    flags: store_flags!(),
    notes: "",
    run: list,
};

pub(crate) const GET: Command = Command {
    name: "kv get",
    positional: &["KEY"],
    about: "Prints the ring under a key of a store.",
    flags: store_flags!(Flag {
        name: "format",
        value: "NAME",
        help: "table, json or raw (the stored bytes) [table]"
    }),
    notes: "",
    run: get,
};

pub(crate) const DIFF: Command = Command {
    name: "kv diff",
    positional: &["KEY"],
    about: "Compares a ring in two stores.",
    flags: store_flags!(two;),
    notes: "Exit status 1 when they differ.",
    run: diff,
};

pub(crate) const COPY: Command = Command {
    name: "kv copy",
    positional: &["KEY"],
    about: "Copies the entries of a ring from one store to another.",
    flags: store_flags!(two; Flag { name: "force", value: "", help: "overwrite entries that are newer there" }),
    notes: "Entries that only the second store has stay as they are.",
    run: copy,
};

pub(crate) const DELETE: Command = Command {
    name: "kv delete",
    positional: &["KEY"],
    about: "Deletes a key of a store.",
    flags: store_flags!(Flag { name: "yes", value: "", help: "do not ask" }),
    notes: "",
    run: delete,
};

pub(crate) const WATCH: Command = Command {
    name: "ring watch",
    positional: &["KEY"],
    about: "Prints what changes in a ring, as a store tells it.",
    flags: store_flags!(Flag { name: "for", value: "DURATION", help: "end after this long" }),
    notes: "The key of the ingesters' ring is `ring`.",
    run: watch,
};

pub(crate) const FORGET: Command = Command {
    name: "ring forget",
    positional: &["KEY", "ID"],
    about: "Removes an instance from a ring in a store.",
    flags: store_flags!(),
    notes: "An instance that is alive comes back with its next heartbeat.",
    run: forget,
};

/// Any value, taken as it is.
struct Whole;

impl Codec for Whole {
    fn id(&self) -> &'static str {
        "whole"
    }

    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        Ok(BTreeMap::from([(EntryId::default(), Bytes::copy_from_slice(stored))]))
    }

    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        entries.values().next().cloned().unwrap_or_default()
    }

    fn check_entry(&self, _id: &str, _entry: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }
}

fn key(args: &Parsed) -> &str {
    args.positional.first().map_or("", String::as_str)
}

fn list(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let names = block_on(async { Ok(store.list("").await?) })?;
    for name in names {
        print(&format!("{name}\n"));
    }
    Ok(OK)
}

fn get(args: &Parsed) -> Result<u8, Failure> {
    match args.text("format").unwrap_or("table") {
        "raw" => raw(args),
        "json" => {
            let view = block_on(existing(args, &rings(args, Which::First)?))?;
            print(&format!("{:#}\n", json(&view.value)));
            Ok(OK)
        }
        "table" => {
            let view = block_on(existing(args, &rings(args, Which::First)?))?;
            print(&table(&view.value));
            Ok(OK)
        }
        other => Err(BadFlag::new("format", format!("`{other}` is none of table, json, raw")).into()),
    }
}

async fn existing(args: &Parsed, client: &Client<Desc>) -> Result<View<Desc>, Failure> {
    let view = client
        .get(key(args))
        .await
        .map_err(|error| format!("{error}; what is no ring can be looked at with `kv get --format raw`"))?;
    Ok(view.ok_or_else(|| absent(args))?)
}

fn absent(args: &Parsed) -> String {
    format!("there is no key `{}`; `ringctl kv list` shows those that there are", key(args))
}

fn raw(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let codec: &'static dyn Codec =
        if layout(args, Which::First)? == Layout::Single { &Whole } else { Desc::codec() };
    let stored = block_on(async { Ok(store.get(&Key::new(key(args), codec)).await?) })?;
    let stored = stored.ok_or_else(|| absent(args))?;
    let entries = stored.entries.iter().map(|(id, entry)| (id.clone(), entry.bytes.clone())).collect();
    std::io::stdout().write_all(&codec.join(&entries))?;
    Ok(OK)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn line(id: &str, instance: &InstanceDesc) -> String {
    let state = format!("{:?}", instance.state).to_uppercase();
    let age = format!("{}s", now() - instance.timestamp);
    let (address, zone, tokens) = (&instance.addr, &instance.zone, instance.tokens.len());
    format!("{id:<24} {state:<9} {address:<24} {zone:<12} {tokens:>6} {age:>10}\n")
}

/// The ring as a table.
pub(crate) fn table(ring: &Desc) -> String {
    let mut table = format!(
        "{:<24} {:<9} {:<24} {:<12} {:>6} {:>10}\n",
        "ID", "STATE", "ADDRESS", "ZONE", "TOKENS", "HEARTBEAT"
    );
    for (id, instance) in ring.entries() {
        table += &line(id, instance);
    }
    table
}

fn json(ring: &Desc) -> serde_json::Value {
    let instance = |(id, instance): (&EntryId, &std::sync::Arc<InstanceDesc>)| {
        let tokens: Vec<u32> = instance.tokens.iter().copied().collect();
        let state = format!("{:?}", instance.state).to_uppercase();
        let fields = serde_json::json!({
            "address": instance.addr.to_string(),
            "state": state,
            "zone": instance.zone.to_string(),
            "timestamp": instance.timestamp,
            "tokens": tokens,
        });
        (id.to_string(), fields)
    };
    ring.entries().iter().map(instance).collect::<serde_json::Map<_, _>>().into()
}

/// Both sides of a ring; an absent key is an empty ring.
fn both(args: &Parsed) -> Result<(Desc, Desc), Failure> {
    let (first, second) = (rings(args, Which::First)?, rings(args, Which::Second)?);
    let read = |view: Option<View<Desc>>| view.map_or_else(Desc::default, |view| Desc::clone(&view.value));
    block_on(async { Ok((read(first.get(key(args)).await?), read(second.get(key(args)).await?))) })
}

fn diff(args: &Parsed) -> Result<u8, Failure> {
    let (first, second) = both(args)?;
    let ids: BTreeSet<&EntryId> = first.entries().keys().chain(second.entries().keys()).collect();
    let (mut found, mut skew) = (String::new(), 0);
    for id in &ids {
        let _ = match (first.entries().get(id), second.entries().get(id)) {
            (Some(_), None) => writeln!(found, "{id}: missing in the second store"),
            (None, Some(_)) => writeln!(found, "{id}: missing in the first store"),
            (Some(one), Some(other)) => {
                let apart = (one.timestamp - other.timestamp).abs();
                skew = skew.max(apart);
                match one == other {
                    true => Ok(()),
                    false => writeln!(found, "{id}: differs; heartbeats {apart} s apart"),
                }
            }
            (None, None) => Ok(()),
        };
    }
    print(&found);
    print(&format!("{} entries, largest skew {skew} s\n", ids.len()));
    Ok(if found.is_empty() { OK } else { NOT_OK })
}

fn copy(args: &Parsed) -> Result<u8, Failure> {
    let (first, second) = (rings(args, Which::First)?, rings(args, Which::Second)?);
    let (written, of) = block_on(async {
        let from = existing(args, &first).await?;
        let copied = second.cas(key(args), |there| {
            let mut entries =
                there.map_or_else(|| Desc::default().entries().clone(), |ring| ring.entries().clone());
            let mut copied = 0;
            for (id, entry) in from.value.entries() {
                match entries.get(id) {
                    Some(known) if known.timestamp > entry.timestamp && !args.has("force") => {
                        let problem = format!("the entry `{id}` is newer there; --force overwrites it");
                        return Decision::Abort(problem.into());
                    }
                    Some(known) if known == entry => (),
                    _ => {
                        entries.insert(id.clone(), entry.clone());
                        copied += 1;
                    }
                }
            }
            Decision::Write(Desc::from_entries(entries), copied)
        });
        Ok((copied.await?.result, from.value.entries().len()))
    })?;
    print(&format!("{written} of {of} entries written\n"));
    Ok(OK)
}

fn delete(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let name = key(args);
    if !args.has("yes") {
        complain(&format!("type the key `{name}` to delete it: "));
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed)?;
        if typed.trim() != name {
            return Err(format!("`{name}` was not deleted: what was typed is something else").into());
        }
    }
    block_on(async { Ok(store.delete(&Key::new(name, &Whole)).await?) })?;
    print(&format!("{name} is deleted\n"));
    Ok(OK)
}

fn watch(args: &Parsed) -> Result<u8, Failure> {
    let client = rings(args, Which::First)?;
    let until = args.duration("for")?;
    block_on(async {
        let mut watch = client.watch(key(args)).await?;
        let follow = async {
            while let Some(update) = watch.next().await {
                for id in &update.changed {
                    if let Some(instance) = update.value.as_ref().and_then(|ring| ring.entries().get(id)) {
                        print(&line(id, instance));
                    }
                }
                for id in &update.removed {
                    print(&format!("{id:<24} gone\n"));
                }
            }
        };
        match until {
            Some(until) => drop(tokio::time::timeout(until, follow).await),
            None => follow.await,
        }
        Ok(OK)
    })
}

fn forget(args: &Parsed) -> Result<u8, Failure> {
    let client = rings(args, Which::First)?;
    let id = args.positional.get(1).map_or("", String::as_str);
    block_on(async {
        let view = existing(args, &client).await?;
        if view.value.entries().get(id).is_none() {
            return Err(format!("`{}` has no instance `{id}`", key(args)).into());
        }
        Ok(client.remove_own(key(args), id).await?)
    })?;
    print(&format!("{id} is forgotten\n"));
    Ok(OK)
}
