use super::*;

fn change() -> Change {
    Change { primary: KvStore::Memberlist, mirror_enabled: true, generation: 8, force: false }
}

#[track_caller]
fn becomes(before: &str, after: &str) {
    assert_eq!(edit(before, &change()).unwrap_or_else(|why| panic!("{why}: {before}")), after);
}

#[track_caller]
fn refused(before: &str, part: &str) {
    let why = edit(before, &change()).unwrap_err();
    assert!(why.contains(part), "{part} is not in: {why}");
}

const BLOCK_ALONE: &str =
    "multi_kv_config:\n  primary: memberlist\n  mirror_enabled: true\n  generation: 8\n";

#[test]
fn a_block_is_added_where_there_is_none() {
    becomes("", BLOCK_ALONE);
    becomes("# mine\n", &format!("# mine\n\n{BLOCK_ALONE}"));
    becomes("---\n", &format!("---\n{BLOCK_ALONE}"));
    let overrides = "overrides:\n  t: {ingestion_rate: 5} # fast";
    becomes(overrides, &format!("{overrides}\n\n{BLOCK_ALONE}"));
    becomes("overrides: {}\n\n...\n", &format!("overrides: {{}}\n\n{BLOCK_ALONE}...\n"));
}

#[test]
fn the_block_alone_is_changed_and_all_else_stays_as_it_is() {
    becomes(
        "# Head.\noverrides:\n  # Of t.\n  t:\n    ingestion_rate: 5\n\n# Where.\nmulti_kv_config: # a move\n  # The store.\n  \
         primary: 'consul'   # it's the old one\n\n  generation: 7\n# Tail.\n\ningester_limits: {max_series: 3}\n",
        "# Head.\noverrides:\n  # Of t.\n  t:\n    ingestion_rate: 5\n\n# Where.\nmulti_kv_config: # a move\n  # The store.\n  \
         primary: memberlist   # it's the old one\n\n  generation: 8\n  mirror_enabled: true\n# Tail.\n\ningester_limits: \
         {max_series: 3}\n",
    );
    // Deeper, shallower, quoted, at the end without a line end.
    becomes(
        "\"multi_kv_config\" :\n      \"primary\": consul\n      mirror_enabled:",
        "\"multi_kv_config\":\n      \"primary\": memberlist\n      mirror_enabled: true\n      generation: 8\n",
    );
    becomes("multi_kv_config:\noverrides: {}\n", &format!("{BLOCK_ALONE}overrides: {{}}\n"));
    becomes("multi_kv_config:\n  # nothing yet\n", &BLOCK_ALONE.replacen('\n', "\n  # nothing yet\n", 1));
}

#[test]
fn a_switch_that_was_forced_is_not_forced_for_ever() {
    becomes(
        "multi_kv_config:\n  force: true # once\n  generation: 7\n",
        "multi_kv_config:\n  force: false # once\n  generation: 8\n  primary: memberlist\n  mirror_enabled: true\n",
    );
    let forced = Change { force: true, ..change() };
    assert_eq!(edit("", &forced).unwrap(), format!("{BLOCK_ALONE}  force: true\n"));
    assert_eq!(forced.yaml(), format!("{BLOCK_ALONE}  force: true\n"));
    assert_eq!(change().yaml(), BLOCK_ALONE);
}

#[test]
fn a_block_in_braces_gets_lines() {
    becomes("multi_kv_config: {generation: 1}\n", BLOCK_ALONE);
    becomes("multi_kv_config: null # none\n", &BLOCK_ALONE.replacen(':', ": # none", 1));
    becomes(
        "multi_kv_config: { # here\n  primary: '}', # no\n  generation: 7\n} # there\noverrides: {}\n",
        &format!("{}overrides: {{}}\n", BLOCK_ALONE.replacen(':', ": # here", 1)),
    );
}

#[test]
fn json_stays_json() {
    let text =
        r#"{"overrides": {"t": {"ingestion_rate": 5}}, "multi_kv_config": {"generation": 1, "force": true}}"#;
    let edited = edit(text, &change()).unwrap();
    let json: Value = serde_json::from_str(&edited).unwrap();
    let expected = serde_json::json!({
        "overrides": {"t": {"ingestion_rate": 5}},
        "multi_kv_config": {"generation": 8, "force": false, "primary": "memberlist", "mirror_enabled": true},
    });
    assert_eq!(json, expected);
    let added: Value = serde_json::from_str(&edit("{}", &change()).unwrap()).unwrap();
    assert_eq!(added["multi_kv_config"]["generation"], 8);
    refused("{overrides: {}}", "all of it stands in braces, and it is no JSON");
}

#[test]
fn line_ends_stay_as_they_are() {
    becomes(
        "overrides: {}\r\nmulti_kv_config:\r\n  generation: 7\r\n",
        &format!(
            "overrides: {{}}\r\n{}",
            "multi_kv_config:\n  generation: 8\n  primary: memberlist\n  mirror_enabled: true\n"
                .replace('\n', "\r\n")
        ),
    );
    becomes(
        "\u{feff}multi_kv_config:\n  generation: 7\n  primary: consul\n  mirror_enabled: false\n",
        "\u{feff}multi_kv_config:\n  generation: 8\n  primary: memberlist\n  mirror_enabled: true\n",
    );
}

#[test]
fn what_cannot_be_changed_safely_is_left_to_its_owner() {
    refused("multi_kv_config:\n  generation: 1\nmulti_kv_config:\n  generation: 2\n", "more than once");
    refused("multi_kv_config: &anchor\n  generation: 1\n", "is no block of keys");
    refused("multi_kv_config: 5\n", "is no block of keys");
    refused("multi_kv_config:\n  primary:\n    consul\n  generation: 1\n", "takes more than a line");
    refused("multi_kv_config: {generation: 1\n", "are not closed");
    refused("multi_kv_config: {generation: 1} more\n", "stands behind the braces");
    refused("null\n", "could not be read");
    refused("multi_kv_config:\n  generation: 1\n  primery: consul\n", "did you mean `primary`");
}

#[test]
fn rings_with_a_block_of_their_own_keep_it() {
    becomes(
        "multi_kv_config:\n  per_ring:\n    r:\n      primary: consul\n  generation: 1\n",
        "multi_kv_config:\n  per_ring:\n    r:\n      primary: consul\n  generation: 8\n  primary: memberlist\n  mirror_enabled: true\n",
    );
}

#[test]
fn what_tenants_may_do_is_not_judged_here() {
    // Odd for the defaults; the processes may have others.
    let text = "overrides: {t: {ingestion_rate: -1}}\n";
    becomes(text, &format!("{text}\n{BLOCK_ALONE}"));
    assert!(has_block(BLOCK_ALONE) && has_block("{\"multi_kv_config\": {}}"));
    assert!(!has_block("overrides: {multi_kv_config: 1}\n") && !has_block("# multi_kv_config:\n"));
}
