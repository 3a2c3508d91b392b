use ringkit_config::Secret;
use ringkit_runtime::Meter;
use ringkit_testkit::Certs;

use super::*;

/// A member on loopback, of a cluster with a label.
fn loopback() -> MemberlistConfig {
    MemberlistConfig {
        node_name: "a".into(),
        randomize_node_name: false,
        bind_addr: vec!["127.0.0.1".into()],
        bind_port: 0,
        cluster_label: "test".into(),
        ..MemberlistConfig::default()
    }
}

fn prepared(config: MemberlistConfig) -> Result<Prepared, Error> {
    let (clock, _) = Clock::manual(5_000);
    prepare(&MemberlistOptions {
        config,
        zone: "z".into(),
        build: "b".into(),
        meter: Meter::disabled(),
        clock,
        proceed_after: None,
    })
}

fn refusal(config: MemberlistConfig) -> String {
    prepared(config).err().unwrap().to_string()
}

#[test]
fn what_is_configured_reaches_the_member() {
    let secs = Duration::from_secs;
    let config = MemberlistConfig {
        stream_timeout: secs(1),
        retransmit_factor: 2,
        pull_push_interval: secs(6),
        gossip_interval: secs(3),
        gossip_nodes: 5,
        compression_enabled: false,
        cluster_label_verification_disabled: true,
        cluster_label_accept: vec!["old".into()],
        join_members: vec!["127.0.0.1:1".into(), "dnssrv+gossip.example".into()],
        min_join_backoff: secs(7),
        max_join_backoff: secs(8),
        max_join_retries: 3,
        abort_if_cluster_join_fails: false,
        rejoin_interval: secs(9),
        leave_timeout: secs(10),
        packet_dial_timeout: secs(11),
        packet_write_timeout: secs(12),
        packet_read_timeout: secs(13),
        max_concurrent_connections: 14,
        packet_size: 1500,
        max_clock_skew: secs(15),
        tombstone_horizon: secs(160),
        max_members: 17,
        ..loopback()
    };
    let Prepared { driver, facts, keys_file } = prepared(config).unwrap();
    let node = &driver.config;
    assert_eq!((facts.name.as_str(), facts.transport), ("a", "udp"));
    assert!(keys_file.is_none() && driver.tls.is_none() && !driver.security.require_sealed);
    assert_eq!((node.name.as_str(), node.zone.as_str(), node.build.as_str()), ("a", "z", "b"));
    assert_eq!((node.label.as_str(), node.generation, node.packet_size), ("test", 5_000, 1500));
    assert_eq!(node.accepted_labels, ["old"]);
    assert!(!node.verify_label && !node.compress);
    assert_eq!((node.session_timeout, node.sync_interval, node.gossip_interval), (secs(1), secs(2), secs(3)));
    assert_eq!((node.gossip_nodes, node.swim.gossip_nodes, node.swim.gossip_period), (5, 5, secs(3)));
    assert_eq!((node.queue.retransmit_factor, node.swim.retransmit_factor), (2, 2));
    assert_eq!((node.join_backoff, node.leave_timeout), ((secs(7), secs(8)), secs(10)));
    assert_eq!((node.limits.max_clock_skew, node.limits.tombstone_horizon), (secs(15), secs(160)));
    assert_eq!((node.swim.max_members, node.peers.max_members), (17, 17));
    assert_eq!((driver.max_join_attempts, driver.abort_if_join_fails), (4, false));
    assert_eq!((driver.rejoin_interval, driver.resolve_interval), (secs(9), RESOLVE_INTERVAL));
    assert_eq!(
        (driver.dial_timeout, driver.write_timeout, driver.read_timeout),
        (secs(11), secs(12), secs(13))
    );
    assert_eq!(driver.max_connections, 14);
    assert_eq!((driver.bind, driver.advertise), (vec![SocketAddr::from(([127, 0, 0, 1], 0))], None));
    let seeds: Vec<String> = driver.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["127.0.0.1:1", "dnssrv+gossip.example"]);
}

#[test]
fn a_name_is_this_machines_unless_given_and_may_have_a_random_end() {
    let random = MemberlistConfig { randomize_node_name: true, ..loopback() };
    let [one, other] = [(); 2].map(|()| prepared(random.clone()).unwrap().facts.name);
    let (name, end) = one.rsplit_once('-').unwrap();
    assert_eq!((name, end.len()), ("a", 8));
    assert!(end.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(one, other);
    let unnamed = MemberlistConfig { node_name: String::new(), ..loopback() };
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    assert_eq!(prepared(unnamed).unwrap().facts.name, host);
}

#[test]
fn the_advertised_port_belongs_to_the_advertised_address() {
    let advertised = |addr: &str| {
        let config = MemberlistConfig { advertise_addr: addr.into(), advertise_port: 80, ..loopback() };
        prepared(config).unwrap().driver.advertise
    };
    assert_eq!(advertised("10.0.0.1"), Some(SocketAddr::from(([10, 0, 0, 1], 80))));
    assert_eq!(advertised(""), None, "where it listens");
    let all = MemberlistConfig { bind_addr: Vec::new(), bind_port: 7, ..loopback() };
    match prepared(all) {
        Ok(Prepared { driver, .. }) => {
            assert_eq!(driver.bind, [SocketAddr::from(([0, 0, 0, 0], 7))]);
            let advertised = driver.advertise.unwrap();
            assert!(advertised.port() == 0 && !advertised.ip().is_unspecified());
        }
        // A machine without a private address.
        Err(error) => assert!(error.to_string().contains("`memberlist.advertise_addr`"), "{error}"),
    }
}

#[test]
fn datagrams_do_not_leave_in_clear_where_tls_was_asked_for() {
    let certs = Certs::new(&["127.0.0.1"]).unwrap();
    let path = |name: &str| certs.path(name).display().to_string();
    let tls = MemberlistConfig {
        tls_enabled: true,
        tls_cert_path: path("server.pem"),
        tls_key_path: path("server.key"),
        tls_ca_path: path("ca.pem"),
        ..loopback()
    };
    let keys = vec![Secret::new("MDEyMzQ1Njc4OWFiY2RlZg==")];
    let sealed = MemberlistConfig { encryption_keys: keys, ..tls.clone() };
    let forced = MemberlistConfig { packet_transport: PacketTransport::Tcp, ..loopback() };
    let careless = MemberlistConfig { packet_transport: PacketTransport::Udp, ..tls.clone() };
    for (config, transport, name) in [
        (loopback(), Transport::Udp, "udp"),
        (tls, Transport::Tcp, "tls"),
        (careless, Transport::Tcp, "tls"),
        (sealed.clone(), Transport::Udp, "udp+tls"),
        (forced, Transport::Tcp, "tcp"),
    ] {
        let Prepared { driver, facts, .. } = prepared(config).unwrap();
        assert_eq!((driver.transport, facts.transport), (transport, name));
    }
    assert!(prepared(sealed.clone()).unwrap().driver.security.require_sealed);
    let lenient = MemberlistConfig { require_encryption: false, ..sealed };
    assert!(!prepared(lenient).unwrap().driver.security.require_sealed);
}

#[test]
fn a_life_is_later_than_the_last_one_whatever_the_clock_says() {
    let dir = std::env::temp_dir().join(format!("ringkit-state-{:016x}", rand::random::<u64>()));
    let config = MemberlistConfig { state_dir: dir.display().to_string(), ..loopback() };
    let life = |now_ms| generation(&config, &Clock::manual(now_ms).0).unwrap();
    assert_eq!([life(1_000), life(1_000), life(10), life(2_000)], [1_000, 1_001, 1_002, 2_000]);
    std::fs::write(dir.join(GENERATION_FILE), "nonsense").unwrap();
    assert_eq!(life(3_000), 3_000);
    // As long as that may be from a clock which was right.
    for (last, next) in [(3_999 + MAX_AHEAD_MS, 4_000 + MAX_AHEAD_MS), (4_000 + MAX_AHEAD_MS, 4_000)] {
        std::fs::write(dir.join(GENERATION_FILE), last.to_string()).unwrap();
        assert_eq!(life(4_000), next);
    }
    let not_a_dir =
        MemberlistConfig { state_dir: dir.join(GENERATION_FILE).display().to_string(), ..loopback() };
    let error = refusal(not_a_dir);
    assert!(error.contains("state_dir"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_cannot_be_used_is_named() {
    let key = || vec![Secret::new("MDEyMzQ1Njc4OWFiY2RlZg==")];
    for (config, key, detail) in [
        (MemberlistConfig { bind_addr: vec!["localhost".into()], ..loopback() }, "bind_addr", "localhost"),
        (MemberlistConfig { advertise_addr: "me".into(), ..loopback() }, "advertise_addr", "me"),
        (MemberlistConfig { join_members: vec!["a:b:c".into()], ..loopback() }, "join_members", "a:b:c"),
        (
            MemberlistConfig { pull_push_interval: Duration::ZERO, ..loopback() },
            "pull_push_interval",
            "repaired",
        ),
        (
            MemberlistConfig { encryption_keys_file: "/none".into(), ..loopback() },
            "encryption_keys_file",
            "/none",
        ),
        (
            MemberlistConfig { encryption_keys: key(), encryption_keys_file: "/none".into(), ..loopback() },
            "encryption_keys_file",
            "one of them",
        ),
        (MemberlistConfig { tls_enabled: true, ..loopback() }, "tls_cert_path", "tls_enabled"),
    ] {
        let error = refusal(config);
        let begin = format!("cannot use memberlist: `{key}` ");
        assert!(error.starts_with(&begin) && error.contains(detail), "{error}");
    }
}
