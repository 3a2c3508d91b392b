//! Rules of the workspace that no compiler checks: who may use whom, and what every crate and file has.
//!
//! Each rule collects everything that breaks it, so that one run tells all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod manifest;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use manifest::Manifest;
use tree::{Source, crates, read, root, sources};

/// Who may use whom, by folder. What is listed must be enough: arrows are not followed further.
const ARROWS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("proto", &[]),
    ("runtime", &[]),
    ("tsdb", &[]),
    ("gossip", &[]),
    ("grpc", &["proto", "runtime"]),
    ("kv", &["config", "gossip", "runtime"]),
    ("ring", &["kv", "config", "runtime"]),
    ("lifecycler", &["ring", "kv", "config", "runtime"]),
    ("server", &["ring", "kv", "config", "runtime", "grpc"]),
    ("ingester", ROLE),
    ("distributor", ROLE),
    ("store-gateway", ROLE),
    ("loadgen", &["proto"]),
    ("testkit", &["config", "runtime"]),
    ("xtask", &[]),
    // The face may use everything; `everything` stands for that.
    ("ringkit", &["everything"]),
];

/// Roles never use each other: they meet on the wire.
const ROLE: &[&str] = &["lifecycler", "server", "ring", "kv", "config", "runtime", "proto", "grpc", "tsdb"];

/// What tests may use beyond the arrows. Everybody may use `testkit`, except those it is built on.
const ARROWS_OF_TESTS: &[(&str, &[&str])] = &[
    // Replays the fuzzers' corpora against the public functions.
    ("testkit", &["proto", "tsdb", "ring", "kv", "grpc"]),
    // Rings are what gossip is for: its entries have parts, and its cost is measured with them.
    ("kv", &["ring"]),
];

const MAX_LINES: usize = 700;

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn manifests() -> BTreeMap<String, Manifest> {
    crates().into_iter().map(|folder| (folder.clone(), Manifest::read(&folder))).collect()
}

#[test]
fn crates_use_only_what_the_table_of_arrows_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut broken = Vec::new();
    for (folder, manifest) in manifests() {
        let Some(allowed) = allowed.get(folder.as_str()) else {
            broken.push(format!("crates/{folder} is not in the table"));
            continue;
        };
        let everything = allowed.contains(&"everything");
        let fits = |used: &String| everything || allowed.contains(&used.as_str());
        let of_tests =
            ARROWS_OF_TESTS.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, more)| more);
        let fits_tests = |used: &String| fits(used) || of_tests.contains(&used.as_str()) || used == "testkit";
        for used in manifest.uses(&["dependencies", "build-dependencies"]).iter().filter(|used| !fits(used)) {
            broken.push(format!("{folder} uses {used}"));
        }
        for used in manifest.uses(&["dev-dependencies"]).iter().filter(|used| !fits_tests(used)) {
            broken.push(format!("tests of {folder} use {used}"));
        }
    }
    assert_none(&broken, "arrows that the table does not allow");
}

#[test]
fn the_table_of_arrows_has_no_circle_and_names_only_crates_that_exist() {
    let folders: BTreeSet<String> = crates().into_iter().collect();
    let mut below: BTreeMap<&str, usize> = BTreeMap::new();
    // A crate's height is known once all it uses have one; a circle never gets any.
    while below.len() < ARROWS.len() {
        let before = below.len();
        for (name, uses) in ARROWS {
            let uses = uses.iter().filter(|used| **used != "everything");
            let heights: Option<Vec<usize>> = uses.map(|used| below.get(used).copied()).collect();
            if let Some(heights) = heights {
                below.insert(name, heights.into_iter().max().unwrap_or(0) + 1);
            }
        }
        assert!(below.len() > before, "a circle, or a name that is no crate, among {ARROWS:?}");
    }
    let missing: Vec<String> = ARROWS
        .iter()
        .filter(|(name, _)| !folders.contains(*name))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_none(&missing, "in the table, but not in the tree");
}

#[test]
fn every_manifest_has_a_description_and_the_shared_settings() {
    let mut broken = Vec::new();
    for (folder, manifest) in manifests() {
        if manifest.text("package", "description").is_none_or(|text| text.len() < 10) {
            broken.push(format!("crates/{folder}: no description"));
        }
        let expected = if matches!(folder.as_str(), "ringkit" | "xtask") {
            folder.clone()
        } else {
            format!("ringkit-{folder}")
        };
        if manifest.text("package", "name").as_deref() != Some(expected.as_str()) {
            broken.push(format!("crates/{folder}: the package is not called {expected}"));
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !manifest.is_inherited("package", key) {
                broken.push(format!("crates/{folder}: `{key}` is not the workspace's"));
            }
        }
        if manifest.value("lints", "workspace") != Some("true") {
            broken.push(format!("crates/{folder}: lints are not the workspace's"));
        }
        for name in manifest.not_inherited() {
            broken.push(format!("crates/{folder}: the version of `{name}` is not the workspace's"));
        }
    }
    assert_none(&broken, "manifests");
}

#[test]
fn no_crate_is_a_drawer_for_odds_and_ends() {
    let vague: BTreeSet<&str> = ["common", "utils", "util", "types", "helpers", "misc", "core"].into();
    let broken: Vec<String> = crates().into_iter().filter(|folder| vague.contains(folder.as_str())).collect();
    assert_none(&broken, "crates must be named after what they are");
}

#[test]
fn every_crate_says_at_the_top_what_it_is() {
    let is_root = |source: &Source| {
        source.path.ends_with("src/lib.rs")
            || source.path.ends_with("src/main.rs")
            || source.path.contains("/src/bin/") && source.path.ends_with("main.rs")
    };
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|source| is_root(source) && !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_none(&broken, "files that begin without `//!`");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none(&broken, "files of more than 700 lines");
}

#[test]
fn nothing_is_left_undone_or_unsafe() {
    // In pieces, so that this file does not break its own rule.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!"),
        concat!("unimplemented", "!"),
        concat!("Under ", "construction"),
        concat!("un", "safe {"),
        concat!("un", "safe fn"),
        concat!("un", "safe impl"),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    assert_none(&broken, "words that must not stand in a finished tree");
}

#[test]
fn errors_are_typed() {
    let catch_all = [concat!("any", "how"), "eyre"];
    let manifests = manifests();
    let uses = |manifest: &Manifest, name: &&str| manifest.names(&["dependencies"]).contains(*name);
    let broken: Vec<String> = manifests
        .iter()
        .filter(|(_, manifest)| catch_all.iter().any(|name| uses(manifest, name)))
        .map(|(folder, _)| format!("crates/{folder}"))
        .collect();
    assert_none(&broken, "crates with catch-all errors");
}

#[test]
fn the_readme_and_the_architecture_page_mention_every_crate() {
    let mut broken = Vec::new();
    for page in ["README.md", "ARCHITECTURE.md"] {
        let text = read(&root().join(page));
        for folder in crates() {
            let mentions = |end: char| text.contains(&format!("crates/{folder}{end}"));
            if ![')', '`', '/', ' ', '\n'].into_iter().any(mentions) {
                broken.push(format!("{page} does not mention crates/{folder}"));
            }
        }
    }
    assert_none(&broken, "pages");
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(&root().join(page));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") && !root().join(target).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert_none(&broken, "dead links");
}
