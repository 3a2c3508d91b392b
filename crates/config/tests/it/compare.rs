//! A configuration against the one that a process runs with.

use ringkit_config::Comparison;

use crate::good;

fn compare(running: &str, wanted: &str) -> Comparison {
    good(wanted).compare(&good(running).config.to_yaml()).unwrap()
}

fn told(comparison: &Comparison) -> Vec<String> {
    let line = |difference: &ringkit_config::Difference| {
        let running = difference.running.as_deref().unwrap_or("absent");
        format!("{}: {} {running} -> {}", difference.origin, difference.path, difference.wanted)
    };
    comparison.differences.iter().map(line).collect()
}

#[test]
fn the_same_configuration_does_not_differ_however_it_is_written() {
    for text in [
        "",
        "distributor: {remote_timeout: 90s}\nmemberlist: {join_members: [a, b]}\nlimits: {ingestion_rate: 1e6}",
    ] {
        let same = compare(text, text);
        assert_eq!(same, Comparison::default());
    }
    let other_words =
        good("distributor: {remote_timeout: 1m30s}").compare("distributor: {remote_timeout: 90s}").unwrap();
    assert!(other_words.differences.iter().all(|difference| difference.path != "distributor.remote_timeout"));
}

#[test]
fn what_differs_is_told_with_both_values_and_its_place() {
    let comparison =
        compare("limits: {ingestion_rate: 5}\nauth_enabled: false", "limits:\n  ingestion_rate: 6\n");
    assert_eq!(
        told(&comparison),
        ["default: auth_enabled false -> true", "test.yaml:2:19: limits.ingestion_rate 5 -> 6"]
    );
}

#[test]
fn what_depends_on_the_start_counts_only_if_it_is_given() {
    let running = good("target: ingester\ningester: {lifecycler: {id: elsewhere}}").config.to_yaml();
    assert!(good("").compare(&running).unwrap().differences.is_empty());
    let comparison = good("target: all\ningester: {lifecycler: {id: here}}").compare(&running).unwrap();
    assert_eq!(
        told(&comparison),
        ["test.yaml:1:9: target ingester -> all", "test.yaml:2:29: ingester.lifecycler.id elsewhere -> here"]
    );
}

#[test]
fn secrets_cannot_be_compared_and_one_that_is_new_is_a_difference() {
    let with = "ingester: {lifecycler: {ring: {kvstore: {consul: {acl_token: hush}}}}}";
    let comparison = compare(with, with);
    let path = "ingester.lifecycler.ring.kvstore.consul.acl_token".to_owned();
    assert!(comparison.differences.is_empty() && comparison.secrets.contains(&path), "{comparison:?}");
    let comparison = compare("", with);
    assert!(comparison.differences.iter().any(|difference| difference.path == path), "{comparison:?}");
}

#[test]
fn keys_of_another_version_are_told() {
    let mut page = good("").config.to_yaml();
    page.push_str("news: {a: 1}\n");
    let page = page.replace("auth_enabled: true\n", "");
    let comparison = good("").compare(&page).unwrap();
    assert_eq!(comparison.unknown, ["news"]);
    assert!(comparison.differences.is_empty(), "a key that is not there has its default: {comparison:?}");
    let comparison = good("auth_enabled: false").compare(&page).unwrap();
    assert_eq!(told(&comparison), ["test.yaml:1:15: auth_enabled absent -> false"]);
}

#[test]
fn a_page_that_is_no_configuration_is_refused() {
    for page in ["", "- a", "<html>: [", "text"] {
        assert!(good("").compare(page).is_err(), "{page}");
    }
}
