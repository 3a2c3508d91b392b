use serde::Deserialize as _;
use serde_json::{Value, json};

use super::*;
use crate::migrate::page::{Page, Shard};

/// A ring in Consul that is mirrored to gossip, all well.
fn store() -> Value {
    json!({
        "now_ms": 10_000, "kv_name": "ingester-ring", "primary": "consul", "secondary": "memberlist", "mirror": true,
        "stores": [{"name": "consul", "up": true}, {"name": "memberlist", "up": true}],
        "switch": {"gate_open": true, "generation": 3},
        "keys": [{"key": "collectors/ring", "compared": true, "stores": [{"entries": 3}, {"entries": 3}],
                  "mismatched": {"num": 0, "ids": []}}],
    })
}

fn process(name: &str) -> Process {
    let page = json!({
        "generation": 3, "config_hash": "aaaaaaaaaaaaaaaa", "instances": [{"name": name, "target": "ingester"}],
        "stores": [store()],
        "rings": [{"ring": "ingester", "store": "multi", "multi": {"primary": "consul", "switch_gate": true}}],
    });
    let gossip = json!({
        "name": name, "label": "l", "phase": "active", "synced": true,
        "members": [{"name": "a", "state": "alive"}, {"name": "b", "state": "alive"}, {"name": "c", "state": "alive"}],
    });
    Process {
        url: format!("http://{name}"),
        name: name.to_owned(),
        page: Page::deserialize(&page).unwrap(),
        raw: page,
        gossip: Some(Gossip::deserialize(&gossip).unwrap()),
        ..Process::default()
    }
}

/// Processes a, b and c, of which b is made odd.
fn cluster(odd: impl FnOnce(&mut Process)) -> Cluster {
    let mut b = process("b");
    odd(&mut b);
    Cluster { processes: vec![process("a"), b, process("c")], silent: Vec::new() }
}

fn ring(process: &mut Process) -> &mut Store {
    &mut process.page.stores[0]
}

fn gossip_of(process: &mut Process) -> &mut Gossip {
    process.gossip.as_mut().unwrap()
}

#[track_caller]
fn says(reasons: &[Reason], expected: &[&str]) {
    let said: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(said, expected);
}

fn goal() -> Goal {
    Goal { generation: 3, hash: None, primary: "consul".into(), mirror: true }
}

#[test]
fn nothing_is_in_the_way_of_a_cluster_that_is_well() {
    let cluster = cluster(|_| ());
    let lists = [
        configuration(&cluster, "memberlist"),
        hashes(&cluster),
        primaries(&cluster),
        outages(&cluster, true),
        gossip(&cluster),
        contents(&cluster, None),
        waiting(&cluster),
        memberships(&cluster),
        notes(&cluster),
        short_of(&cluster, &goal()),
        file(&cluster, "f", "aaaaaaaaaaaaaaaa"),
    ];
    assert!(lists.iter().all(Vec::is_empty), "{lists:?}");
    assert!(cluster.mirrors() && !cluster.waits() && !cluster.gave_up());
    assert_eq!((cluster.generation(), cluster.primaries().len(), cluster.configured().len()), (3, 1, 1));
    // Nobody is there to disagree.
    let nobody = Cluster::default();
    assert!(hashes(&nobody).is_empty() && primaries(&nobody).is_empty() && gossip(&nobody).is_empty());
}

#[test]
fn processes_that_would_not_follow_are_named() {
    let alone = cluster(|b| {
        b.page.stores.clear();
        b.page.config_hash = None;
        b.page.rings[0].multi = None;
        b.page.rings[0].store = "consul".into();
    });
    says(
        &configuration(&alone, "memberlist"),
        &[
            "b: keeps no ring in two stores (`store: multi`)",
            "b: has no `runtime_config.file`, and would not hear of the migration",
            "b, ingester: is kept in consul alone, and would stay there",
        ],
    );
    let own = cluster(|b| b.page.runtime.per_ring.push("store-gateway".into()));
    says(
        &followers(&own),
        &["b, store-gateway: has a block of its own in `per_ring`, and would not follow: remove it"],
    );
    let elsewhere = cluster(|b| ring(b).secondary = "etcd".into());
    says(
        &configuration(&elsewhere, "memberlist"),
        &[
            "b, ingester-ring: is kept in consul and etcd, not in memberlist",
            "b, ingester-ring: has consul and etcd for its two stores, others have consul and memberlist",
        ],
    );
}

#[test]
fn the_odd_one_out_is_named_whatever_its_stores_are_called() {
    let other = cluster(|b| {
        b.page.config_hash = Some("bbbbbbbbbbbbbbbb".into());
        ring(b).kv_name = "ingester-lifecycler".into();
        ring(b).primary = "memberlist".into();
        ring(b).secondary = "consul".into();
    });
    says(&hashes(&other), &["b: runs with the runtime configuration bbbbbbbbbbbb, others with aaaaaaaaaaaa"]);
    says(&primaries(&other), &["b, ingester-lifecycler: has memberlist for its primary, others have consul"]);
    assert!(configuration(&other, "memberlist").is_empty(), "the pair is the same");
    says(
        &file(&other, "f.yaml", "aaaaaaaaaaaaaaaa"),
        &["b: runs with the runtime configuration bbbbbbbbbbbb, but f.yaml is aaaaaaaaaaaa here"],
    );
}

#[test]
fn gossip_that_is_no_cluster_is_told_by_its_cause() {
    let split = cluster(|b| {
        let gossip = gossip_of(b);
        gossip.label = "other".into();
        gossip.synced = false;
        gossip.phase = "joining".into();
        gossip.members.retain(|member| member.name == "b");
        gossip.seeds = serde_json::from_value(json!([
            {"seed": "x:1", "error": "no such host"},
            {"seed": "y:1", "addrs": ["1.2.3.4:1"], "lost_for_secs": 7},
            {"seed": "z:1"},
            {"seed": "fine:1", "addrs": ["1.2.3.5:1"]},
        ]))
        .unwrap();
        gossip.quarantined.insert("a".into(), 4);
    });
    says(
        &gossip(&split),
        &[
            "b: has the cluster label `other`, others have `l`",
            "b: has not joined its gossip cluster: it is joining",
            "b: its seed `x:1` cannot be looked up: no such host",
            "b: its seed `y:1` is nobody, for 7 s now",
            "b: its seed `z:1` has no address",
            "b: refused what `a` wrote, whose clock is ahead",
            "b: does not see as living members of gossip: a, c",
        ],
    );
    let unlabelled = cluster(|b| gossip_of(b).label.clear());
    says(
        &gossip(&unlabelled),
        &["b: has no `memberlist.cluster_label`: another cluster could join this one"],
    );
    let ahead = cluster(|b| {
        gossip_of(b).own_clock = serde_json::from_value(json!({"ahead_of": 2, "by_ms": 600_000})).unwrap();
    });
    says(&gossip(&ahead), &["b: its clock is ahead of those of 2 others, by 600000 ms"]);
    let deaf = cluster(|b| b.gossip = None);
    says(&gossip(&deaf), &["b: does not gossip"]);
    // Where no ring is on gossip, it is nobody's business.
    let mut unused = cluster(|b| gossip_of(b).label.clear());
    for process in &mut unused.processes {
        ring(process).secondary = "etcd".into();
    }
    assert!(gossip(&unused).is_empty());
}

#[test]
fn what_the_stores_lack_is_said_in_the_words_of_the_process() {
    let odd = cluster(|b| {
        let store = ring(b);
        store.switch.gate_open = false;
        store
            .switch
            .gate_reasons
            .insert("missing".into(), "2 entries are missing in memberlist: x, y".into());
        store.keys[0].mismatched = serde_json::from_value(json!({"num": 7, "ids": ["i1", "i2"]})).unwrap();
    });
    says(
        &contents(&odd, Some("memberlist")),
        &[
            "b, ingester-ring: 2 entries are missing in memberlist: x, y",
            "b, ingester-ring: 7 entries of `collectors/ring` differ between the stores: i1, i2, …",
        ],
    );
    assert!(contents(&odd, Some("consul")).is_empty(), "all are there already");
    let off = cluster(|b| ring(b).mirror = false);
    says(&contents(&off, Some("consul")), &["b, ingester-ring: is not mirrored"]);
    assert!(!off.mirrors() && !off.mirrors_nothing());
    let down = cluster(|b| {
        ring(b).stores[1].up = false;
        ring(b).stores[1].down_secs = Some(9);
        ring(b).stores[1].cause = Some("refused".into());
    });
    says(&outages(&down, false), &["b, ingester-ring: memberlist has not answered for 9 s: refused"]);
    // The old store may go once nothing is mirrored to it.
    let mut over = down;
    ring(&mut over.processes[1]).mirror = false;
    assert_eq!((outages(&over, false).len(), outages(&over, true).len()), (0, 1));
}

#[test]
fn who_has_not_followed_is_told_with_what_it_waits_for() {
    let late = cluster(|b| ring(b).switch.generation = 2);
    says(&short_of(&late, &goal()), &["b, ingester-ring: has taken over generation 2 and not yet 3"]);
    let wanted = Goal { primary: "memberlist".into(), ..goal() };
    let mut waits = cluster(|b| {
        ring(b).switch.wanted_primary = Some("memberlist".into());
        ring(b).switch.blocked.insert("queue".into(), "3 changes are on their way".into());
    });
    for process in waits.processes.iter_mut().filter(|process| process.name != "b") {
        ring(process).primary = "memberlist".into();
    }
    says(
        &short_of(&waits, &wanted),
        &["b, ingester-ring: its primary is still consul: 3 changes are on their way"],
    );
    says(&waiting(&waits), &["b, ingester-ring: what is asked for waits: 3 changes are on their way"]);
    assert!(waits.waits());
    let over = cluster(|b| ring(b).mirror = false);
    says(
        &short_of(&over, &Goal { mirror: false, ..goal() }),
        &["a, ingester-ring: is still mirrored", "c, ingester-ring: is still mirrored"],
    );
    says(&short_of(&over, &goal()), &["b, ingester-ring: is not mirrored yet"]);
    // A file that was not read explains all else.
    let unread = Goal { hash: Some("cccccccccccccccc".into()), generation: 9, ..goal() };
    let unread = short_of(&late, &unread);
    assert_eq!(unread.len(), 3);
    assert!(
        unread[1]
            .why
            .contains("runs with the runtime configuration aaaaaaaaaaaa and has not read cccccccccccc")
    );
    let given_up = cluster(|b| ring(b).switch.given_up = true);
    assert!(given_up.gave_up() && waiting(&given_up)[0].why.starts_with("gave up"));
}

#[test]
fn who_sees_others_in_a_ring_is_named() {
    let shard = |id: &str, state: &str| Shard { id: id.into(), state: state.into(), ..Shard::default() };
    let mut odd = cluster(|_| ());
    for process in &mut odd.processes {
        process.views.insert("ingester", vec![shard("i1", "ACTIVE"), shard("old", "LEFT")]);
    }
    assert!(memberships(&odd).is_empty());
    odd.processes[1].views.insert("ingester", vec![shard("i2", "ACTIVE")]);
    says(
        &memberships(&odd),
        &["b, ingester: sees other instances than most: i1 is missing, i2 is there besides"],
    );
}

#[test]
fn what_is_risky_is_noted() {
    let risky = cluster(|b| {
        b.page.rings[0].multi.as_mut().unwrap().switch_gate = false;
        b.page.rings[0].multi.as_mut().unwrap().read_mode = "primary".into();
    });
    says(
        &notes(&risky),
        &[
            "b, ingester: switches at once, whatever the other store may lack (`switch_gate: false`)",
            "b, ingester: reads its primary alone while it is mirrored (`read_mode: primary`)",
        ],
    );
}

#[test]
fn of_what_there_is_as_much_of_the_first_counts() {
    assert_eq!(most_common(["b", "a", "b", "a"].into_iter()), Some("a"));
    assert_eq!(most_common(["b", "a", "b"].into_iter()), Some("b"));
    assert_eq!(most_common(std::iter::empty::<&str>()), None);
}
