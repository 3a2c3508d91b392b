use serde_json::Value;

use super::*;
use crate::args::{Outcome, parse};

fn simulated(line: &str) -> Result<Report, String> {
    let words: Vec<String> = format!("ring simulate {line}").split_whitespace().map(str::to_owned).collect();
    match parse(crate::COMMANDS, &words) {
        Outcome::Run(_, parsed) => simulate(&parsed).map_err(|failure| failure.to_string()),
        Outcome::Help(text) | Outcome::Wrong(text) => Err(text),
    }
}

fn json(line: &str) -> Value {
    serde_json::from_str(&simulated(line).unwrap().json().unwrap()).unwrap()
}

fn texts(steps: &Value, field: &str) -> Vec<String> {
    steps.as_array().unwrap().iter().map(|step| step[field].to_string().replace('"', "")).collect()
}

#[test]
fn steps_are_done_in_the_order_in_which_they_are_given() {
    let report = json(
        "--instances 6 --zones 3 --zone-awareness --tokens 8 --join 2 --leave-zone zone-c --join-zone zone-x:2 --leave 1 --leave ingester-zone-b-0,ingester-zone-a-0",
    );
    let steps = &report["steps"];
    assert_eq!(
        texts(steps, "change"),
        ["start", "join 2", "leave zone-c (2)", "join zone-x (2)", "leave ingester-zone-b-2", "leave 2"]
    );
    assert_eq!(texts(steps, "instances"), ["6", "8", "6", "8", "7", "5"]);
    assert_eq!(texts(steps, "zones"), ["3", "3", "2", "3", "3", "3"]);
    assert_eq!(texts(steps, "tokens"), ["48", "64", "48", "64", "56", "40"]);
    assert_eq!(steps[1]["joined"].to_string(), r#"["ingester-zone-a-2","ingester-zone-b-2"]"#);
    assert_eq!(steps[5]["left"].to_string(), r#"["ingester-zone-b-0","ingester-zone-a-0"]"#);
}

#[test]
fn one_by_one_makes_a_step_of_each_instance_and_the_last_line_compares_with_all_at_once() {
    let report = json("--instances 9 --zones 3 --zone-awareness --join 2 --leave-zone zone-b --one-by-one");
    assert_eq!(
        texts(&report["steps"], "change"),
        [
            "start",
            "join ingester-zone-a-3",
            "join ingester-zone-b-3",
            "leave ingester-zone-b-0",
            "leave ingester-zone-b-1",
            "leave ingester-zone-b-2",
            "leave ingester-zone-b-3",
        ]
    );
    let moved = |value: &Value| value["moved_share"].as_f64().unwrap();
    let sum: f64 = report["steps"].as_array().unwrap()[1..].iter().map(|step| moved(&step["movement"])).sum();
    let at_once = moved(&report["overall"]);
    assert!(at_once > 1.0 / 3.0 && at_once < sum, "{at_once} of {sum}");
}

#[test]
fn numbers_are_those_of_the_whole_circle() {
    let report = json("--instances 1 --join 1 --join 1 --join 1");
    let steps = &report["steps"];
    assert!(steps[0]["movement"].is_null());
    assert_eq!(texts(steps, "replicas_per_key"), ["1.0", "2.0", "3.0", "3.0"]);
    let movement = &steps[1]["movement"];
    assert_eq!(
        (movement["changed_share"].as_f64(), movement["moved_share"].as_f64()),
        (Some(1.0), Some(0.5))
    );
    assert_eq!((movement["givers"].as_u64(), movement["takers"].as_u64()), (Some(0), Some(1)));
    let balance = &steps[2]["replicas"];
    assert_eq!(balance["max_over_mean"].as_f64(), Some(1.0));
    assert_eq!(steps[3]["movement"]["even_moved_share"].as_f64(), Some(0.25));
    let again = json("--instances 1 --join 1 --join 1 --join 1");
    assert_eq!(report, again, "the same seed gives the same ring");
    assert_ne!(report, json("--instances 1 --join 1 --join 1 --join 1 --seed 2"));
}

#[test]
fn a_ring_page_is_taken_as_it_is_and_who_joins_is_like_the_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let shard = |id: &str, zone: &str, state: &str, tokens: &str| {
        format!(
            r#"{{"id":"{id}","state":"{state}","address":"x","timestamp":"t","registered_timestamp":"","zone":"{zone}","tokens":{tokens}}}"#
        )
    };
    let shards = [
        shard("i-9", "x", "ACTIVE", "[0,2147483648]"),
        shard("i-10", "x", "Unhealthy", "[1073741824,3221225472]"),
        shard("other", "y", "JOINING", "null"),
    ];
    std::fs::write(file.path(), format!(r#"{{"shards":[{}],"now":"n"}}"#, shards.join(","))).unwrap();
    let file = file.path().display();
    let report = json(&format!("--file {file} --replication-factor 1 --leave i-9 --join-zone x:1 --join 1"));
    let steps = &report["steps"];
    assert_eq!(texts(steps, "change"), ["start", "leave i-9", "join i-11", "join other-1"]);
    assert_eq!(texts(steps, "tokens"), ["4", "2", "4", "6"]);
    assert_eq!(steps[1]["movement"]["moved_share"].as_f64(), Some(0.5));
    let wrong = simulated(&format!("--file {file} --zones 2")).err().unwrap();
    assert_eq!(wrong, "--zones: goes with --instances only");
}

#[test]
fn every_mistake_names_its_flag() {
    for (line, words) in [
        ("", "--instances: this, --url or --file is needed"),
        ("--instances 3 --url x", "--url: cannot be combined with --instances"),
        ("--instances three", "--instances: `three`"),
        ("--instances 3 --tokens 0", "--tokens: must be at least 1"),
        ("--instances 1_000_000 --tokens 512", "--instances: the ring would have more than"),
        ("--instances 3 --generator even", "--generator: `even` is unknown: use random, minimize-spread or"),
        (
            "--instances 9 --zones 9 --generator spread-minimizing",
            "--instances: spread-minimizing knows at most 8",
        ),
        (
            "--instances 9 --generator spread-minimizing --tokens 513",
            "--tokens: `spread-minimizing` gives at most 512",
        ),
        ("--instances 3 --join 0", "--join: `0` is no number"),
        ("--instances 3 --join 1_000_000", "--join: the ring would have more than"),
        ("--instances 3 --join-zone x", "--join-zone: `x`: write NAME:N"),
        ("--instances 3 --leave 3", "--leave: nobody would be left: there are 3"),
        ("--instances 3 --leave 4 --one-by-one", "--leave: nobody would be left"),
        ("--instances 3 --leave a,b", "--leave: there is no instance `a`"),
        ("--instances 3 --leave-zone x", "--leave-zone: there is no zone `x`; there are `zone-a`"),
        ("--instances 3 --leave-zone x --one-by-one", "--leave-zone: there is no zone `x`"),
        ("--instances 3 --leave-zone zone-a", "--leave-zone: nobody would be left"),
        ("--instances 3 --shard-size 0", "--shard-size: must be at least 1"),
        ("--instances 3 --tenants 9", "--tenants: goes with --shard-size only"),
        ("--file /nonexistent/file", "/nonexistent/file: No such file"),
    ] {
        let problem = simulated(line).err().unwrap_or_default();
        assert!(problem.contains(words), "{line}: {problem}");
    }
}

#[test]
fn tables_are_aligned_and_explain_themselves() {
    let text =
        simulated("--instances 30 --zones 3 --zone-awareness --join 1 --leave-zone zone-c").unwrap().table();
    assert!(text.starts_with(
        "Ring: hypothetical, 128 tokens each, random, seed 1; replication factor 3, zone-aware."
    ));
    let lines: Vec<&str> = text.lines().collect();
    let header = lines.iter().position(|line| line.starts_with("STEP")).unwrap();
    for step in &lines[header + 2..header + 4] {
        assert_eq!(step.len(), lines[header].len(), "{text}");
    }
    assert!(lines[header + 3].starts_with("leave zone-c (10)"), "{text}");
    for column in
        lines[header].split_whitespace().filter(|word| ["CHANGED", "MOVED", "IDEAL", "COPIES"].contains(word))
    {
        assert!(text.matches(column).count() > 1, "{column} is not explained");
    }
}

#[test]
fn generators_that_mind_the_spread_make_the_ring_more_even() {
    let variation = |generator: &str, step: usize| {
        let line = format!("--instances 15 --zones 3 --zone-awareness --join 3 --generator {generator}");
        json(&line)["steps"][step]["token_ranges"]["coefficient_of_variation"].as_f64().unwrap()
    };
    for step in [0, 1] {
        let [random, minimize, fixed] =
            ["random", "minimize-spread", "spread-minimizing"].map(|generator| variation(generator, step));
        assert!(random > 0.05 && minimize < random / 2.0 && fixed < 0.002, "{random} {minimize} {fixed}");
    }
    let report = json("--instances 3 --generator spread-minimizing");
    assert_eq!(texts(&report["steps"], "tokens"), ["1536"]);
}

#[test]
fn shards_of_tenants_are_told_when_asked_for() {
    let line = "--instances 30 --zones 3 --zone-awareness --join 1 --leave-zone zone-c";
    let report = json(&format!("{line} --shard-size 6 --tenants 200"));
    let steps = &report["steps"];
    let number = |step: usize, field: &str| steps[step]["movement"][field].as_f64().unwrap();
    // The new instance is in about two of eleven shards, and one of six members there.
    assert!((0.08..0.3).contains(&number(1, "shards_changed_share")));
    assert!((number(1, "shard_members_new_share") * 6.0 - number(1, "shards_changed_share")).abs() < 1e-9);
    assert_eq!((number(1, "most_new_members_of_a_shard"), number(2, "shards_changed_share")), (1.0, 1.0));
    let text = simulated(&format!("{line} --shard-size 6 --tenants 200")).unwrap().table();
    assert!(text.contains("SHARDS") && text.contains("200 tenants' shards of 6"), "{text}");
    assert!(json(line)["steps"][1]["movement"]["shards_changed_share"].is_null());
}

#[test]
fn thousands_of_instances_join_and_leave_without_taking_the_square_of_their_time() {
    let report = json("--instances 2000 --zones 3 --tokens 4 --zone-awareness --join 2000 --leave 2000");
    assert_eq!(texts(&report["steps"], "instances"), ["2000", "4000", "2000"]);
    let moved = report["steps"][1]["movement"]["moved_share"].as_f64().unwrap();
    assert!((moved - 0.5).abs() < 0.1, "{moved}");
    // Who came is gone again.
    assert_eq!(report["overall"]["changed_share"].as_f64(), Some(0.0));
}
