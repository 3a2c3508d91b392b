//! The two configurations of the migration guide, word for word.

use std::time::Duration;

use ringkit_config::{AutoDuration, KvStore, Origin, RingName};

use crate::{good, warnings};

const FIRST: &str = r#"
ring:
  store: memberlist
memberlist:
  abort_if_join_fails: false
  bind_port: 7946
  join_members: ["gossip-ring.ns.svc.cluster.local:7946"]
ingester:
  lifecycler:
    join_after: 60s
    heartbeat_period: 5s
    ring:
      kvstore:
        store: multi
        multi:
          mirror_enabled: true
          primary: consul
          secondary: memberlist
        consul:
          host: "consul.example:8500"
"#;

const SECOND: &str = "
ingester:
  lifecycler:
    join_after: 60s
    heartbeat_period: 5s
    ring:
      kvstore:
        store: memberlist
";

#[test]
fn the_first_fragment_means_what_it_says() {
    let loaded = good(FIRST);
    let config = &loaded.config;
    assert_eq!(config.ring.store, Some(KvStore::Memberlist));
    assert!(!config.memberlist.abort_if_cluster_join_fails);
    assert_eq!(config.memberlist.bind_port, 7946);
    assert_eq!(config.memberlist.join_members, ["gossip-ring.ns.svc.cluster.local:7946"]);
    let lifecycler = &config.ingester.lifecycler;
    assert_eq!(lifecycler.join_after, AutoDuration::After(Duration::from_secs(60)));
    assert_eq!(lifecycler.heartbeat_period, Duration::from_secs(5));
    assert_eq!(lifecycler.ring.kvstore.store, KvStore::Multi);
    assert!(lifecycler.ring.kvstore.multi.mirror_enabled);
}

#[test]
fn the_first_fragment_puts_every_ring_on_the_same_multi_store_and_says_so() {
    let loaded = good(FIRST);
    for ring in RingName::ALL {
        let kvstore = loaded.config.kv(ring);
        assert_eq!(kvstore.store, KvStore::Multi, "{ring:?}");
        assert_eq!(kvstore.multi.primary, Some(KvStore::Consul), "{ring:?}");
        assert_eq!(kvstore.multi.secondary, Some(KvStore::Memberlist), "{ring:?}");
        assert!(kvstore.multi.mirror_enabled, "{ring:?}");
        assert_eq!(kvstore.consul.host, "consul.example:8500", "{ring:?}");
    }
    let told = warnings(&loaded);
    for ring in ["distributor.ring.kvstore.store", "store_gateway.sharding_ring.kvstore.store"] {
        assert!(told.iter().any(|line| line.contains(ring) && line.contains("multi")), "{told:#?}");
    }
    // A value taken from elsewhere says from where.
    let origin = loaded.origins.of("distributor.ring.kvstore.consul.host");
    let Origin::Inherited { from, origin } = origin else { panic!("{origin:?}") };
    assert_eq!(from, "ingester.lifecycler.ring.kvstore.consul.host");
    assert!(matches!(*origin, Origin::File { line: 20, .. }), "{origin:?}");
}

#[test]
fn the_second_fragment_puts_every_ring_on_memberlist() {
    let loaded = good(SECOND);
    for ring in RingName::ALL {
        assert_eq!(loaded.config.kv(ring).store, KvStore::Memberlist, "{ring:?}");
    }
    assert_eq!(loaded.config.ingester.lifecycler.join_after, AutoDuration::After(Duration::from_secs(60)));
}

#[test]
fn both_fragments_as_two_files_give_the_end_of_the_migration() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.yaml"), dir.path().join("second.yaml"));
    std::fs::write(&first, FIRST).unwrap();
    std::fs::write(&second, SECOND).unwrap();
    let loaded = crate::with(&format!("-config.file={},{}", first.display(), second.display()), &[]).unwrap();
    for ring in RingName::ALL {
        assert_eq!(loaded.config.kv(ring).store, KvStore::Memberlist, "{ring:?}");
    }
}
