//! `ringctl kv …`, and `ringctl ring watch` and `forget`: rings as a store holds them, without asking any process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ringkit_config::Layout;
use ringkit_kv::{Client, Codec, Decision, DecodeError, EntryId, Key, Store, Value as _, View};
use ringkit_ring::{Desc, InstanceDesc};

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::store::{Which, explain, layout, limited, open, rings, rings_on, store_flags};
use crate::{Failure, NOT_OK, OK, block_on, complain, print, ring};

pub(crate) const LIST: Command = Command {
    name: "kv list",
    positional: &[],
    about: "Lists the keys of a store below a prefix.",
    flags: store_flags!(),
    notes: "Keys are printed without the prefix, as the other commands want them.",
    run: list,
};

pub(crate) const GET: Command = Command {
    name: "kv get",
    positional: &["KEY"],
    about: "Prints the ring under a key of a store.",
    flags: store_flags!(Flag {
        name: "format",
        value: "NAME",
        help: "table, json or raw (the stored bytes, of any value) [table]"
    }),
    notes: "With the layout per_instance, raw is what the layout single would store.",
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
    notes: "Entries that only the second store has stay as they are. If any entry is newer there, nothing is written.",
    run: copy,
};

pub(crate) const DELETE: Command = Command {
    name: "kv delete",
    positional: &["KEY"],
    about: "Deletes a key of a store.",
    flags: store_flags!(Flag { name: "yes", value: "", help: "do not ask" }),
    notes: "Without --yes, the key must be typed once more on standard input.",
    run: delete,
};

pub(crate) const WATCH: Command = Command {
    name: "ring watch",
    positional: &[],
    about: "Prints what changes in a ring, as a store tells it.",
    flags: store_flags!(
        ring::RING,
        Flag { name: "for", value: "DURATION", help: "end after this long; otherwise with Ctrl-C" },
    ),
    notes: "It begins with all entries that there are.",
    run: watch,
};

pub(crate) const FORGET: Command = Command {
    name: "ring forget",
    positional: &["ID"],
    about: "Removes an instance from a ring in a store.",
    flags: store_flags!(ring::RING),
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

/// The argument that is no flag.
fn key(args: &Parsed) -> &str {
    args.positional.first().map_or("", String::as_str)
}

fn list(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    for name in block_on(limited(args, Which::First, store.list("")))? {
        print(&format!("{name}\n"));
    }
    Ok(OK)
}

fn get(args: &Parsed) -> Result<u8, Failure> {
    let show = match args.text("format").unwrap_or("table") {
        "raw" => return raw(args),
        "json" => json_text,
        "table" => table,
        other => {
            return Err(BadFlag::new("format", format!("`{other}` is none of table, json, raw")).into());
        }
    };
    let client = rings(args, Which::First)?;
    let view = block_on(existing(args, Which::First, &client, key(args)))?;
    print(&show(&view.value));
    Ok(OK)
}

/// The ring under `key`, which must be there.
pub(crate) async fn existing(
    args: &Parsed,
    which: Which,
    client: &Client<Desc>,
    key: &str,
) -> Result<View<Desc>, Failure> {
    match client.get(key).await {
        Ok(Some(view)) => Ok(view),
        Ok(None) => Err(absent(args, which, key)),
        Err(error) => Err(explain(args, which, error)),
    }
}

fn absent(args: &Parsed, which: Which, key: &str) -> Failure {
    let layout = match layout(args, which) {
        Ok(layout) => layout,
        Err(failure) => return failure,
    };
    format!("there is no key `{key}` in the layout {layout}; `ringctl kv list` shows those that there are")
        .into()
}

fn raw(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let codec: &'static dyn Codec =
        if layout(args, Which::First)? == Layout::Single { &Whole } else { Desc::codec() };
    let stored = block_on(limited(args, Which::First, store.get(&Key::new(key(args), codec))))?;
    let stored = stored.ok_or_else(|| absent(args, Which::First, key(args)))?;
    let entries = stored.entries.iter().map(|(id, entry)| (id.clone(), entry.bytes.clone())).collect();
    let mut out = std::io::stdout();
    out.write_all(&codec.join(&entries))
        .and_then(|()| out.flush())
        .map_err(|cause| format!("cannot write to standard output: {cause}"))?;
    Ok(OK)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const COLUMNS: [&str; 6] = ["ID", "STATE", "ADDRESS", "ZONE", "TOKENS", "HEARTBEAT AGE"];

/// One entry, in the order of [`COLUMNS`]. A heartbeat from the future has a negative age.
fn cells(id: &str, instance: &InstanceDesc, now: i64) -> [String; 6] {
    [
        id.to_owned(),
        instance.state.to_string(),
        instance.addr.to_string(),
        instance.zone.to_string(),
        instance.tokens.len().to_string(),
        format!("{}s", now.saturating_sub(instance.timestamp)),
    ]
}

fn row(cells: &[String; 6], widths: [usize; 6]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
}

/// The ring as a table.
pub(crate) fn table(ring: &Desc) -> String {
    let now = now();
    let entries = ring.iter().map(|(id, instance)| cells(id, instance, now));
    let rows: Vec<_> = std::iter::once(COLUMNS.map(str::to_owned)).chain(entries).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = std::array::from_fn(width);
    rows.iter().map(|cells| row(cells, widths)).collect()
}

/// The ring as JSON: an object of entries by id.
pub(crate) fn json_text(ring: &Desc) -> String {
    let instance = |(id, instance): (&EntryId, &Arc<InstanceDesc>)| {
        let fields = serde_json::json!({
            "address": instance.addr.as_str(),
            "state": instance.state.to_string(),
            "zone": instance.zone.as_str(),
            "timestamp": instance.timestamp,
            "registered_timestamp": instance.registered_timestamp,
            "read_only": instance.is_read_only(),
            "tokens": &instance.tokens[..],
        });
        (id.to_string(), fields)
    };
    let ring: serde_json::Value = ring.iter().map(instance).collect::<serde_json::Map<_, _>>().into();
    format!("{ring:#}\n")
}

/// What of an entry differs from another under the same id, heartbeats apart.
fn differences(one: &InstanceDesc, other: &InstanceDesc) -> Vec<&'static str> {
    let fields = [
        ("state", one.state != other.state),
        ("address", one.addr != other.addr),
        ("zone", one.zone != other.zone),
        ("tokens", one.tokens != other.tokens),
    ];
    let mut found: Vec<_> = fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    let like_other = InstanceDesc {
        state: other.state,
        addr: other.addr.clone(),
        zone: other.zone.clone(),
        tokens: other.tokens.clone(),
        timestamp: other.timestamp,
        ..one.clone()
    };
    if like_other != *other {
        found.push("other fields");
    }
    found
}

/// Writes a line for each entry that is not the same in both rings; returns the largest distance of two heartbeats.
fn compare(first: &Desc, second: &Desc, found: &mut String) -> (usize, u64) {
    let ids: BTreeSet<&EntryId> = first.entries().keys().chain(second.entries().keys()).collect();
    let mut skew = 0;
    for id in &ids {
        let line = match (first.get(id), second.get(id)) {
            (Some(one), Some(other)) if one == other => continue,
            (Some(one), Some(other)) => {
                let apart = one.timestamp.abs_diff(other.timestamp);
                skew = skew.max(apart);
                match differences(one, other).as_slice() {
                    [] => format!("heartbeats are {apart} s apart"),
                    fields => format!("differs in {}; heartbeats are {apart} s apart", fields.join(", ")),
                }
            }
            (Some(_), None) => "missing in the second store".to_owned(),
            (None, _) => "missing in the first store".to_owned(),
        };
        let _ = writeln!(found, "{id}: {line}");
    }
    (ids.len(), skew)
}

fn diff(args: &Parsed) -> Result<u8, Failure> {
    let (one, other) = (rings(args, Which::First)?, rings(args, Which::Second)?);
    let read = async |client: &Client<Desc>, which| {
        client.get(key(args)).await.map_err(|error| explain(args, which, error))
    };
    let (first, second) =
        block_on(async { Ok((read(&one, Which::First).await?, read(&other, Which::Second).await?)) })?;
    // A misspelt key is in neither; that is not the same as two equal rings.
    if first.is_none() && second.is_none() {
        return Err(format!("there is no key `{}` in either store", key(args)).into());
    }
    let ring = |view: Option<View<Desc>>| view.map_or_else(Arc::default, |view| view.value);
    let mut found = String::new();
    let (entries, skew) = compare(&ring(first), &ring(second), &mut found);
    print(&found);
    print(&format!("{entries} entries, largest skew {skew} s\n"));
    Ok(if found.is_empty() { OK } else { NOT_OK })
}

/// What of `from` is to be written over `there`, and the ids of entries that are newer there.
fn merged(from: &Desc, there: Option<&Desc>) -> (Desc, Vec<EntryId>, Vec<EntryId>) {
    let mut ring = there.cloned().unwrap_or_default();
    let (mut written, mut newer) = (Vec::new(), Vec::new());
    for (id, entry) in from {
        match ring.get(id) {
            Some(known) if known == entry => continue,
            Some(known) if known.timestamp > entry.timestamp => newer.push(id.clone()),
            _ => (),
        }
        ring.insert(id.clone(), Arc::clone(entry));
        written.push(id.clone());
    }
    (ring, written, newer)
}

fn copy(args: &Parsed) -> Result<u8, Failure> {
    let (first, second) = (rings(args, Which::First)?, rings(args, Which::Second)?);
    let force = args.has("force");
    let (written, newer, all) = block_on(async {
        let from = existing(args, Which::First, &first, key(args)).await?;
        let copied = second.cas(key(args), |there| {
            let (ring, written, newer) = merged(&from.value, there);
            if newer.is_empty() || force {
                Decision::Write(ring, (written, Vec::new()))
            } else {
                Decision::Keep((Vec::new(), newer))
            }
        });
        let (written, newer) = copied.await.map_err(|error| explain(args, Which::Second, error))?.result;
        Ok((written, newer, from.value.len()))
    })?;
    if !newer.is_empty() {
        let problem = "nothing was written, for these entries are newer in the second store";
        return Err(format!("{problem}: {}; --force overwrites them", newer.join(", ")).into());
    }
    for id in &written {
        print(&format!("{id}\n"));
    }
    print(&format!("{} of {all} entries written\n", written.len()));
    Ok(OK)
}

fn delete(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let name = key(args);
    let there = Key::new(name, &Whole);
    // One runtime for both calls: a connection to etcd does not outlive the one in which it was made.
    block_on(async {
        // Reading it first refuses the wrong layout, in which only a part of the value would be deleted.
        if limited(args, Which::First, store.get(&there)).await?.is_none() {
            return Err(absent(args, Which::First, name));
        }
        if !args.has("yes") {
            confirm(name)?;
        }
        limited(args, Which::First, store.delete(&there)).await
    })?;
    print(&format!("{name} is deleted\n"));
    Ok(OK)
}

/// Has the key typed once more on standard input.
fn confirm(name: &str) -> Result<(), Failure> {
    complain(&format!("type the key `{name}` to delete it: "));
    let mut typed = String::new();
    std::io::stdin()
        .read_line(&mut typed)
        .map_err(|cause| format!("cannot read standard input: {cause}; --yes deletes without asking"))?;
    if typed.trim_end_matches(['\r', '\n']) == name {
        return Ok(());
    }
    let problem = format!("`{name}` was not deleted: what was typed is something else");
    Err(format!("{problem}; --yes deletes without asking").into())
}

fn watch(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let until = args.duration("for")?;
    let name = ring::key(args);
    block_on(async {
        // A watch waits for a store that does not answer, and for a value that it can read; a read says what is wrong.
        let found = limited(args, Which::First, store.get(&Key::new(name, Desc::codec()))).await?;
        if found.is_none() {
            complain(&format!("there is no key `{name}` yet\n"));
        }
        let follow = follow(store, name);
        match until {
            Some(until) => tokio::time::timeout(until, follow).await.unwrap_or(Ok(()))?,
            None => follow.await?,
        }
        Ok(OK)
    })
}

/// Prints a line for each entry that changes or goes, and tells when the store no longer answers.
async fn follow(store: Arc<dyn Store>, name: &str) -> Result<(), Failure> {
    // Wide enough for most; what is longer shifts its own line only.
    const WIDTHS: [usize; 6] = [24, 8, 22, 12, 6, 4];
    let mut trouble = store.trouble();
    let mut watch = rings_on(store).watch(name).await?;
    let mut troubled = false;
    loop {
        tokio::select! {
            update = watch.next() => {
                let Some(update) = update else { return Ok(()) };
                let now = now();
                for id in &update.changed {
                    if let Some(instance) = update.value.as_ref().and_then(|ring| ring.get(id)) {
                        print(&row(&cells(id, instance, now), WIDTHS));
                    }
                }
                for id in &update.removed {
                    print(&format!("{id:<24}  gone\n"));
                }
            }
            Ok(()) = trouble.changed() => {
                let is = trouble.borrow_and_update().clone();
                match &is {
                    Some(trouble) if !troubled => complain(&format!("{}\n", trouble.cause)),
                    None if troubled => complain("the store answers again\n"),
                    _ => (),
                }
                troubled = is.is_some();
            }
        }
    }
}

fn forget(args: &Parsed) -> Result<u8, Failure> {
    let store = open(args, Which::First)?;
    let (name, id) = (ring::key(args), key(args));
    block_on(async {
        // Entries are not decoded: one that cannot be read can still be forgotten.
        let found = limited(args, Which::First, store.get(&Key::new(name, Desc::codec()))).await?;
        let found = found.ok_or_else(|| absent(args, Which::First, name))?;
        if !found.entries.contains_key(id) {
            let problem = format!("the ring `{name}` has no instance `{id}`");
            return Err(format!("{problem}; `ringctl ring show` lists those that it has").into());
        }
        let client = rings_on(store);
        client.remove_own(name, id).await.map_err(|error| explain(args, Which::First, error))
    })?;
    print(&format!("{id} is forgotten\n"));
    Ok(OK)
}
