use bytes::Bytes;
use metrics::Histogram;
use ringkit_gossip::api::{Command, Config, Input, Output};

use super::*;
use crate::codec::DecodeError;

/// `state tokens beat` in three parts, of which the first names the tokens that belong to it.
struct Parts;

impl Codec for Parts {
    fn id(&self) -> &'static str {
        "parts"
    }

    fn split(&self, _: &[u8]) -> Result<BTreeMap<SmolStr, Bytes>, DecodeError> {
        Ok(BTreeMap::new())
    }

    fn join(&self, _: &BTreeMap<SmolStr, Bytes>) -> Bytes {
        Bytes::new()
    }

    fn check_entry(&self, _: &str, _: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn unite(&self, _: &str, facets: &Facets) -> Result<Option<Bytes>, DecodeError> {
        let text =
            |facet: &Option<Bytes>| facet.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let [Some(first), tokens, beat] = facets.each_ref().map(text) else { return Ok(None) };
        let (state, wanted) = first.split_once('/').ok_or_else(|| DecodeError::new("no parts"))?;
        match (tokens, beat) {
            (Some(tokens), Some(beat)) if tokens == wanted => {
                Ok(Some(format!("{state} {tokens} {beat}").into()))
            }
            _ => Ok(None),
        }
    }
}

fn key() -> Key {
    Key::new("k", &Parts)
}

/// A member without others, and its views.
struct Alone {
    node: Node,
    views: Views,
    now: Now,
}

type Write = (&'static str, u8, Option<&'static str>);

impl Alone {
    fn new() -> Self {
        let mut alone = Self {
            node: node(),
            views: Views::new(Arc::new(Observed::new(Histogram::noop(), 0))),
            now: Now { mono: Duration::from_secs(1), wall_ms: 1_000_000 },
        };
        alone.feed(Input::Seeds(&[]));
        assert!(alone.node.is_settled());
        alone
    }

    fn feed(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        self.node.handle(self.now, input, &mut out);
        for output in out {
            if let Output::Event(Event::Changed { key, entries }) = output {
                self.views.changed(&self.node, self.now, &key, &entries);
            }
        }
    }

    fn write(&mut self, writes: &[Write]) {
        let change = |(id, facet, body): &Write| {
            (Place::new(*id, *facet), body.map(|body| Bytes::from_static(body.as_bytes())))
        };
        let changes = writes.iter().map(change).collect();
        self.feed(Input::Command(Command::Upsert { key: "k".into(), changes }));
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
    }

    fn stored(&self) -> Option<Stored> {
        self.views.open(&self.node, self.now, &key()).unwrap()
    }

    fn version(&self) -> u64 {
        self.stored().unwrap().version
    }

    /// Whether a write of this entry that builds on the view at this version may be done.
    fn may_write(&self, id: &str, version: u64) -> bool {
        [Change::upsert(id, "x"), Change::remove(id)]
            .iter()
            .all(|change| self.views.is_as_it_was(self.node.store(), "k", change, version))
    }

    fn shown(&self) -> Vec<(String, String)> {
        let stored = self.stored().unwrap();
        let text = |(id, entry): (&SmolStr, &EntryBytes)| {
            (id.to_string(), String::from_utf8_lossy(&entry.bytes).into_owned())
        };
        stored.entries.iter().map(text).collect()
    }

    fn seen(&self, id: &str) -> Instant {
        self.stored().unwrap().entries[id].seen.unwrap()
    }
}

fn node() -> Node {
    let config = Config::new("a", "127.0.0.1:7946".parse().unwrap(), 1);
    Node::new(config, 1, Now { mono: Duration::from_secs(1), wall_ms: 1_000_000 }).unwrap()
}

fn entries(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|(id, entry)| ((*id).to_owned(), (*entry).to_owned())).collect()
}

const WHOLE: [Write; 3] = [("i", 0, Some("up/t")), ("i", 1, Some("t")), ("i", 2, Some("1"))];

#[tokio::test(start_paused = true)]
async fn a_view_begins_with_what_is_there_and_follows_it() {
    let mut alone = Alone::new();
    assert_eq!(alone.stored(), None);
    alone.write(&WHOLE);
    assert_eq!(alone.shown(), entries(&[("i", "up t 1")]));
    let first = alone.version();
    alone.write(&[("j", 0, Some("down/u")), ("j", 1, Some("u")), ("j", 2, Some("2"))]);
    assert_eq!(alone.shown(), entries(&[("i", "up t 1"), ("j", "down u 2")]));
    assert_eq!(alone.version(), first + 1, "one write is one change");
    alone.write(&[("i", 0, None), ("i", 1, None), ("i", 2, None)]);
    assert_eq!(alone.shown(), entries(&[("j", "down u 2")]));

    // Another one is opened when everything is there already.
    let (later, shown) = (Views::new(Arc::clone(&alone.views.observed)), alone.shown());
    alone.views = later;
    assert_eq!(alone.shown(), shown);
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_belong_together_are_not_shown() {
    let mut alone = Alone::new();
    alone.stored();
    alone.write(&[("i", 0, Some("up/t"))]);
    assert!(alone.shown().is_empty(), "it is there, but nothing is known of it");
    alone.write(&WHOLE[1..]);
    assert_eq!(alone.shown(), entries(&[("i", "up t 1")]));
    let version = alone.version();
    alone.write(&[("i", 0, Some("up/v"))]);
    let moved = (entries(&[("i", "up t 1")]), version + 1);
    assert_eq!((alone.shown(), alone.version()), moved, "what is shown is not all that is known");
    alone.write(&[("i", 1, Some("v"))]);
    assert_eq!(alone.shown(), entries(&[("i", "up v 1")]));
    alone.write(&[("i", 0, Some("nonsense"))]);
    assert_eq!(alone.shown(), entries(&[("i", "nonsense")]), "for its reader to refuse");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_tells_when_its_owner_was_heard() {
    let mut alone = Alone::new();
    alone.write(&WHOLE);
    alone.stored();
    let (first, version) = (alone.seen("i"), alone.version());
    alone.pass(Duration::from_millis(1_500));
    let key = SmolStr::new("k");
    alone.views.changed(&alone.node, alone.now, &key, &[]);
    assert_eq!((alone.seen("i"), alone.version()), (first, version), "nothing happened but that time passed");
    alone.write(&[("i", 2, Some("1"))]);
    assert_eq!(alone.seen("i"), first + Duration::from_millis(1_500));
    assert_eq!(alone.version(), version + 1, "the same bytes, heard later");
    assert_eq!(alone.shown(), entries(&[("i", "up t 1")]));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_there_for_its_entries_or_for_its_marker() {
    let mut alone = Alone::new();
    alone.write(&WHOLE);
    assert!(alone.stored().is_some() && is_present(alone.node.store(), "k"));
    alone.write(&[("i", 0, None), ("i", 1, None), ("i", 2, None), ("", 3, Some(""))]);
    assert!(alone.shown().is_empty());
    alone.write(&[("", 3, None)]);
    assert!(alone.stored().is_none() && !is_present(alone.node.store(), "k"));
    let gone = alone.views.state.lock().version;
    alone.write(&WHOLE);
    assert!(alone.version() > gone, "no version is there twice");
}

#[tokio::test(start_paused = true)]
async fn a_view_of_nothing_goes_when_nobody_watches_it() {
    let mut alone = Alone::new();
    let mut watch = alone.views.watch(&alone.node, alone.now, &key()).unwrap();
    assert_eq!(watch.changed().await, Some(None));
    alone.views.forget_unused("k");
    alone.write(&WHOLE);
    assert_eq!(watch.changed().await.unwrap().unwrap().entries.len(), 1);
    drop(watch);
    assert!(alone.views.codec("k").is_some(), "it holds something");
    alone.write(&[("i", 0, None), ("i", 1, None), ("i", 2, None)]);
    let watch = alone.views.watch(&alone.node, alone.now, &key()).unwrap();
    drop(watch);
    assert!(alone.views.codec("k").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_others_remove_is_forgotten_when_nobody_watches_it() {
    let mut alone = Alone::new();
    alone.write(&WHOLE);
    assert!(alone.stored().is_some() && alone.views.codec("k").is_some());
    alone.write(&[("i", 0, None), ("i", 1, None), ("i", 2, None)]);
    assert!(alone.views.codec("k").is_none());
}

#[tokio::test(start_paused = true)]
async fn who_builds_on_an_old_look_is_in_the_way_only_of_what_it_names() {
    let mut alone = Alone::new();
    assert!(!alone.may_write("i", 0), "the key is not there");
    alone.stored();
    alone.write(&WHOLE);
    alone.write(&[("j", 0, Some("up/u")), ("j", 1, Some("u")), ("j", 2, Some("1"))]);
    let looked_at = alone.version();
    assert!(["i", "j", "new"].iter().all(|id| alone.may_write(id, looked_at)));
    assert!(!alone.may_write("i", looked_at + 1), "nobody has seen that yet");

    alone.pass(Duration::from_secs(1));
    alone.write(&[("j", 2, Some("2"))]);
    assert!(alone.version() > looked_at);
    assert_eq!(["i", "j", "new"].map(|id| alone.may_write(id, looked_at)), [true, false, true]);
    assert!(alone.may_write("j", alone.version()));

    // That an entry is gone may matter to whatever was to be written.
    let looked_at = alone.version();
    alone.write(&[("j", 0, None), ("j", 1, None), ("j", 2, None)]);
    assert_eq!(["i", "j"].map(|id| alone.may_write(id, looked_at)), [false, false]);
    assert!(alone.may_write("j", alone.version()));

    // While parts of it are to come, nobody has seen what is there.
    let looked_at = alone.version();
    alone.write(&[("i", 0, Some("up/v"))]);
    assert!(!alone.may_write("i", looked_at) && !alone.may_write("i", alone.version()));
    alone.write(&[("i", 1, Some("v"))]);
    assert!(!alone.may_write("i", looked_at) && alone.may_write("i", alone.version()));

    // Another key under the same name.
    let looked_at = alone.version();
    alone.write(&[("i", 0, None), ("i", 1, None), ("i", 2, None)]);
    alone.stored();
    alone.write(&WHOLE);
    assert_eq!(["i", "new"].map(|id| alone.may_write(id, looked_at)), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_in_one_way() {
    let alone = Alone::new();
    let _watch = alone.views.watch(&alone.node, alone.now, &key()).unwrap();
    let other = Key::new("k", &crate::codec::StringCodec);
    let error = alone.views.open(&alone.node, alone.now, &other).unwrap_err().to_string();
    assert!(error.contains("`parts`") && error.contains("`string`"), "{error}");
}
