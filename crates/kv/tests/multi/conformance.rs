//! The contract of a store, kept by two of them.

use std::sync::Arc;

use ringkit_config::{KvStore, MirrorMode, MultiConfig, ReadMode};
use ringkit_kv::conformance::{Traits, all};
use ringkit_kv::multi::{Child, Control, MultiOptions};
use ringkit_kv::{InMemory, Multi, Store};
use ringkit_runtime::{Clock, Meter};

use crate::world::config;

fn multi(config: MultiConfig, second: Arc<dyn Store>) -> Arc<dyn Store> {
    let options = MultiOptions {
        config,
        kv_name: "test".into(),
        control: Control::default(),
        meter: Meter::disabled(),
        clock: Clock::system(),
    };
    let first = Child::new(KvStore::Inmemory, Arc::new(InMemory::default()));
    Arc::new(Multi::start(first, Child::new(KvStore::Memberlist, second), options).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_in_memory_conform_however_they_are_mirrored_and_read() {
    for mirror_enabled in [true, false] {
        for mirror_mode in [MirrorMode::Async, MirrorMode::Sync] {
            for read_mode in [ReadMode::Auto, ReadMode::Primary, ReadMode::Union] {
                let config = MultiConfig { mirror_enabled, mirror_mode, read_mode, ..config() };
                all(&multi(config, Arc::new(InMemory::default())), Traits::default()).await;
            }
        }
    }
}

#[cfg(feature = "memberlist")]
mod gossip {
    use ringkit_config::MemberlistConfig;
    use ringkit_kv::conformance::Counters;
    use ringkit_kv::memberlist::{Memberlist, MemberlistOptions};
    use ringkit_kv::{Change, Key, Precondition, Value as _};

    use super::*;

    fn member() -> Memberlist {
        let config = MemberlistConfig {
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            ..MemberlistConfig::default()
        };
        let options = MemberlistOptions {
            config,
            zone: String::new(),
            build: String::new(),
            meter: Meter::disabled(),
            clock: Clock::system(),
            proceed_after: None,
        };
        Memberlist::start(&options).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn memory_and_gossip_conform() {
        all(&multi(config(), Arc::new(member())), Traits::default()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_member_knows_what_was_brought_to_it_and_what_was_removed() {
        let member = member();
        let key = Key::new("ring", Counters::codec());
        let brought = |id: &str, count: u64| Change {
            relayed: [id.into()].into(),
            ..Change::upsert(id, Counters::encode_entry(&count))
        };
        for change in [brought("a", 1), brought("b", 1), Change::upsert("c", Counters::encode_entry(&1))] {
            member.apply(&key, change, Precondition::None).await.unwrap();
        }
        let standing = member.standing().unwrap();
        assert!(standing.joined && standing.num_others == 0, "{standing:?}");
        member.apply(&key, Change::remove("b"), Precondition::None).await.unwrap();
        let traces = member.traces(&key).await.unwrap();
        assert_eq!(traces.relayed, ["a".into()].into());
        assert!(traces.removed.len() == 1 && traces.removed.contains_key("b"), "{traces:?}");
        // What is there already was not brought, and once the owner writes, it has.
        member.apply(&key, brought("c", 1), Precondition::None).await.unwrap();
        let written = Change::upsert("a", Counters::encode_entry(&2));
        member.apply(&key, written, Precondition::None).await.unwrap();
        assert!(member.traces(&key).await.unwrap().relayed.is_empty());
        member.apply(&key, brought("c", 2), Precondition::None).await.unwrap();
        assert_eq!(member.traces(&key).await.unwrap().relayed, ["c".into()].into());
    }
}
