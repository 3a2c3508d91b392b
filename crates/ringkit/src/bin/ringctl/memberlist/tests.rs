use super::*;

fn page() -> Value {
    serde_json::json!({
        "SortedMembers": [],
        "Ringkit": {
            "name": "a", "addr": "10.0.0.1:7946", "label": "", "zone": "z1", "build": "", "transport": "udp",
            "phase": "active", "synced": true, "gave_up": false, "join_attempts": 2,
            "seeds": [
                {"seed": "dns+x:7946", "addrs": [], "error": "no such host", "lost_for_secs": null},
                {"seed": "10.0.0.2:7946", "addrs": ["10.0.0.2:7946"], "error": null, "lost_for_secs": 70},
                {"seed": "10.0.0.3:7946", "addrs": ["10.0.0.3:7946"], "error": null, "lost_for_secs": null},
            ],
            "members": [
                {"name": "a", "addr": "10.0.0.1:7946", "generation": 5, "zone": "z1", "build": "1", "state": "alive",
                 "rtt_ms": null, "clock_offset_ms": null, "own": true},
                {"name": "b", "addr": "10.0.0.2:7946", "generation": 17, "zone": "", "build": "1", "state": "suspect",
                 "rtt_ms": 0.31, "clock_offset_ms": -12, "own": false},
            ],
            "keys": [{"key": "collectors/ring", "codec": "ringDesc", "entries": 2, "registers": 6, "tombstones": 1,
                      "bytes": 900, "digest": "beef", "version": 9, "age_ms": 4200}],
            "queue": {"len": 3, "bytes": 100, "own": 1},
            "refused": {"forged": 1, "label": 7}, "quarantined": {},
            "propagation": {"count": 4, "p50_ms": 31.0, "p90_ms": 60.0, "p99_ms": 110.4},
            "own_clock": {"ahead_of": 2, "by_ms": 90000},
            "keyring": [{"id": "3f", "seals": true, "opened": 8}], "unopenable": 1,
        },
    })
}

#[test]
fn the_status_tells_what_is_amiss_and_leaves_out_what_is_not() {
    let text = in_words(&read("here", &page()).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "a at 10.0.0.1:7946, zone z1",
            "phase        active, synced; 2 failed rounds of joining",
            "seed         dns+x:7946 (): cannot be looked up: no such host",
            "seed         10.0.0.2:7946 (10.0.0.2:7946): no member for 70 s",
            "seed         10.0.0.3:7946 (10.0.0.3:7946): fine",
            "label        none",
            "transport    udp, sealed with key 3f",
            "members      2: 1 alive, 1 suspect",
            "queue        3 registers, 1 of them own, 100 bytes",
            "news takes   31 ms in the median, 110 ms at p99",
            "own clock    ahead of 2 other members by 90000 ms",
            "unopenable   1 came in sealed with a key that is not here",
            "refused      forged 1, label 7",
            "",
            "KEY              CODEC     ENTRIES  REGISTERS  TOMBSTONES  SIZE  CHANGED  DIGEST",
            "collectors/ring  ringDesc  2        6          1           900   4 s ago  beef",
        ]
    );
}

#[test]
fn the_status_tells_whether_clear_gossip_is_accepted() {
    let transport = |requires_sealed: Value| {
        let mut page = page();
        page["Ringkit"]["requires_sealed"] = requires_sealed;
        let text = in_words(&read("here", &page).unwrap());
        text.lines().find(|line| line.starts_with("transport")).unwrap().to_owned()
    };
    for strict in [Value::Null, true.into()] {
        assert_eq!(transport(strict), "transport    udp, sealed with key 3f");
    }
    let lenient = transport(false.into());
    assert_eq!(lenient, "transport    udp, sealed with key 3f; what is not sealed is still accepted");
}

#[test]
fn healing_tells_what_the_process_says() {
    assert_eq!(outcome(&serde_json::json!({"message": "Healed", "rewritten": 1})), "Healed");
    assert!(outcome(&serde_json::json!({})).contains("does not say"));
}

#[test]
fn members_are_listed_with_what_is_known_of_them() {
    let text = members_table(&read("here", &page()).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "NAME  ADDRESS        ZONE  BUILD  STATE    RTT  OFFSET  GENERATION",
            "a     10.0.0.1:7946  z1    1      alive    -    -       5",
            "b     10.0.0.2:7946        1      suspect  0.3  -12     17",
            "2: 1 alive, 1 suspect as a sees it",
        ]
    );
}

#[test]
fn a_page_of_another_program_is_named_and_one_of_another_version_is_read() {
    let error = read("http://x", &serde_json::json!({"Now": ""})).unwrap_err().to_string();
    assert_eq!(error, "http://x: this page comes from another program: it has no field `Ringkit`");
    let report = read("x", &serde_json::json!({"Ringkit": {"name": "a", "new": 1}})).unwrap();
    assert!(in_words(&report).starts_with("a at \nphase        , not synced: reads and writes wait;"));
}

#[test]
fn a_process_that_does_not_gossip_is_named_as_such() {
    let text = "http://x/memberlist: the answer is no JSON (expected value at line 1 column 1): This instance doesn't use memberlist.";
    let explained = explain("http://x", text.into()).to_string();
    assert_eq!(
        explained,
        "http://x: this process does not gossip: none of its rings is on `store: memberlist`"
    );
    assert!(explain("x", "x: status 404: 404 page not found".into()).to_string().contains("path prefix"));
    assert_eq!(explain("x", "x: connection refused".into()).to_string(), "x: connection refused");
}
