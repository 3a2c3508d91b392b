use serde::Deserialize as _;

use super::page::{Page, Process};
use super::*;
use crate::args::{self, Outcome};
use crate::gossip::Gossip;

fn parsed(line: &str) -> Parsed {
    let line: Vec<String> = format!("migrate start {line}").split_whitespace().map(str::to_owned).collect();
    match args::parse(const { &[START] }, &line) {
        Outcome::Run(_, parsed) => parsed,
        Outcome::Help(text) | Outcome::Wrong(text) => panic!("{text}"),
    }
}

fn process(name: &str, hash: &str, gate_open: bool) -> Process {
    let switch = if gate_open {
        json!({ "gate_open": true, "generation": 3 })
    } else {
        json!({ "gate_reasons": {"skew": "late", "queue": "busy"}, "generation": 3, "blocked": {"queue": "busy"},
                "wanted_primary": "memberlist" })
    };
    let page = json!({
        "generation": 3, "config_hash": hash, "instances": [{"name": name, "target": "ingester"}],
        "rings": [{"ring": "ingester", "store": "multi", "multi": {"primary": "consul", "switch_gate": false}}],
        "stores": [{
            "now_ms": 100_000, "kv_name": "ingester-ring", "primary": "consul", "secondary": "memberlist", "mirror": true,
            "read_mode": "union", "secondary_counts": gate_open, "switch": switch,
            "stores": [{"name": "consul", "up": true}, {"name": "memberlist", "up": true}],
            "keys": [{
                "key": "ring", "queue_length": 2, "lag_secs": 0.3, "compared": gate_open,
                "stores": [{"entries": 3, "missing": {"num": 0}}, {"entries": 2, "missing": {"num": 1, "ids": ["x"]}}],
                "mismatched": {"num": 0}, "foreign": {"num": 4}, "skew_secs": 5, "last_reconcile_ms": 88_000,
            }],
        }],
    });
    let gossip = json!({
        "name": name, "label": "l", "synced": true,
        "members": [{"name": "a", "state": "alive"}, {"name": "b", "state": "alive"}],
    });
    Process {
        name: name.to_owned(),
        url: format!("http://{name}"),
        page: Page::deserialize(&page).unwrap(),
        raw: page,
        gossip: Some(Gossip::deserialize(gossip).unwrap()),
        ..Process::default()
    }
}

fn cluster(hash: &str, gate_open: bool) -> Cluster {
    Cluster {
        processes: vec![process("a", "0123456789abcdef", true), process("b", hash, gate_open)],
        silent: Vec::new(),
    }
}

#[test]
fn the_table_has_a_row_for_each_ring_of_each_process() {
    let cluster = cluster("fedcba9876543210", false);
    let text = show::status(&cluster, &[Reason::general("something")]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "PROCESS  RING           PRIMARY  MIRROR         READS        GEN  ENTRIES  QUEUE  LAG    MISSING  RELAYED  DIFFER  FOREIGN  SKEW  RECONCILED  GATE",
            "a        ingester-ring  consul   to memberlist  both         3    3/2      2      0.3 s  0/1      0/0      0       4        5 s   12 s ago    open",
            "b        ingester-ring  consul   to memberlist  primary yet  3    ?        2      0.3 s  ?        ?        ?       ?        ?     12 s ago    memberlist waits: queue",
            "runtime configuration 0123456789ab in a",
            "runtime configuration fedcba987654 in b",
            "something",
        ]
    );
    let fine = show::status(&self::cluster("0123456789abcdef", true), &[]);
    assert!(fine.ends_with("runtime configuration 0123456789ab everywhere\nnothing is amiss\n"), "{fine}");
    let mut alone = process("c", "x", true);
    alone.page.stores.clear();
    let alone =
        Cluster { processes: vec![alone], silent: vec![Silent { who: "w".into(), problem: "p".into() }] };
    let text = show::status(&alone, &[]);
    assert!(text.contains("c        none in two stores\n"), "{text}");
    assert!(text.ends_with("cannot be asked: w: p\n"), "{text}");
}

#[test]
fn the_same_is_told_to_programs_with_each_page_as_it_came() {
    let json = show::json(&cluster("0123456789abcdef", true), &[Reason::general("why")]);
    assert_eq!(json["processes"][1]["multikv"]["stores"][0]["keys"][0]["key"], "ring");
    assert_eq!(
        (&json["processes"][0]["name"], &json["processes"][0]["url"]),
        (&json!("a"), &json!("http://a"))
    );
    assert_eq!(json["reasons"], json!([{"process": null, "ring": null, "why": "why"}]));
    assert_eq!(json["silent"], json!([]));
}

#[test]
fn a_status_is_red_as_soon_as_anything_is_amiss() {
    assert!(amiss(&cluster("0123456789abcdef", true)).is_empty());
    let said: Vec<String> =
        amiss(&cluster("fedcba9876543210", false)).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "b: runs with the runtime configuration fedcba987654, others with 0123456789ab",
            "b, ingester-ring: what is asked for waits: busy",
            "b, ingester-ring: busy",
            "b, ingester-ring: late",
        ]
    );
    assert_eq!((code(&[], &[]), code(&[Reason::general("")], &[])), (OK, NOT_OK));
    let silent = [Silent { who: String::new(), problem: String::new() }];
    assert_eq!((code(&[], &silent), code(&[Reason::general("")], &silent)), (SILENT, SILENT));
}

#[test]
fn a_plan_says_what_each_step_will_write() {
    let change =
        |primary, mirror_enabled, generation| Change { primary, mirror_enabled, generation, force: false };
    let mut plan = Plan {
        to: KvStore::Memberlist,
        cluster: cluster("0123456789abcdef", true),
        reasons: Vec::new(),
        notes: vec![Reason::general("mind this")],
        steps: vec![
            ("start", "mirrors", change(KvStore::Consul, true, 4)),
            ("switch", "switches", change(KvStore::Memberlist, true, 5)),
        ],
    };
    let words = in_words(&plan);
    for part in [
        "note: mind this\n",
        "\n1. ringctl migrate start --to memberlist: mirrors\nmulti_kv_config:\n  primary: consul\n",
        "\n2. ringctl migrate switch --to memberlist: switches\nmulti_kv_config:\n  primary: memberlist\n",
        "  generation: 5\n",
        "ringctl migrate abort\n",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    plan.reasons.push(Reason::general("no"));
    assert!(!in_words(&plan).contains("ringctl migrate"), "what is refused is not explained");
}

#[test]
fn what_came_of_a_step_is_told_to_people() {
    let change = Change { primary: KvStore::Consul, mirror_enabled: true, generation: 1, force: false };
    let printed = End { said: vec!["Do it.".into()], change: Some(change.clone()), ..End::default() };
    assert_eq!(outcome(&printed), format!("# Do it.\n{}", change.yaml()));
    assert_eq!(objections("start", &printed), "");
    let late = End { written: true, reasons: vec![Reason::general("no")], ..printed };
    assert_eq!(outcome(&late), "Do it.\n");
    assert_eq!(objections("start", &late), "ringctl migrate start: asked for, but not done yet:\n  no\n");
    let silent = vec![Silent { who: "w".into(), problem: "p".into() }];
    let refused = End { reasons: vec![Reason::general("no")], silent, ..End::default() };
    assert_eq!(
        objections("switch", &refused),
        "ringctl migrate switch: refused:\n  no\nringctl migrate switch: cannot be asked:\n  w: p\n"
    );
}

#[test]
fn a_wrong_command_line_is_told_by_its_flag() {
    for (line, part) in [
        ("--to etcd", "--url: is needed"),
        ("--url nonsense", "--url: "),
        ("--url http://a --member https://b", "--member: "),
        ("--url http://a --to multi", "--to: `multi` is no store"),
        ("--url http://a --to zookeeper", "--to: `zookeeper` is no store"),
        ("--url http://a --http-port many", "--http-port: "),
        ("--url http://a --timeout 5", "--timeout: "),
        ("--url http://a --runtime-config ,", "--runtime-config: names no file"),
    ] {
        let error = options(&parsed(line)).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    let given = options(&parsed("--url http://a:1/ --url http://b --timeout 5s --json")).unwrap();
    assert_eq!((given.timeout, given.quiet, given.force), (Duration::from_secs(5), true, false));
    assert_eq!(target(&given).unwrap_err().to_string(), "--to: is needed: the store to move to");
    let default = options(&parsed("--url http://a --to memberlist")).unwrap();
    assert_eq!((default.timeout, target(&default).unwrap()), (TIMEOUT, KvStore::Memberlist));
}
