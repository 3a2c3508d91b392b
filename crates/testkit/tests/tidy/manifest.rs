//! As much of TOML as manifests in this workspace use: sections, and one `key = value` per line.

use std::collections::BTreeSet;

use crate::tree::{read, root};

const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(crate) struct Manifest {
    /// Section, key, value.
    entries: Vec<(String, String, String)>,
}

impl Manifest {
    pub(crate) fn read(folder: &str) -> Self {
        Self::parse(&read(&root().join("crates").join(folder).join("Cargo.toml")))
    }

    fn parse(text: &str) -> Self {
        let (mut section, mut entries) = (String::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_matches(['[', ']']).to_owned();
                // `[dependencies.x]` and `[target.'cfg(…)'.dependencies]` would not be seen by the rules.
                assert!(!section.contains('.'), "write `{section}` as a line of its table");
            } else if let Some((key, value)) = line.split_once('=') {
                entries.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Self { entries }
    }

    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.entries.iter().find(|(s, k, _)| s == section && k == key).map(|(_, _, value)| value.as_str())
    }

    /// A value that is a string, without its quotes.
    pub(crate) fn text(&self, section: &str, key: &str) -> Option<String> {
        self.value(section, key).map(|value| value.trim_matches('"').to_owned())
    }

    /// Whether `key.workspace = true` stands in the section.
    pub(crate) fn is_inherited(&self, section: &str, key: &str) -> bool {
        self.value(section, &format!("{key}.workspace")) == Some("true")
    }

    /// Names of what is used, by sections.
    pub(crate) fn names(&self, sections: &[&str]) -> BTreeSet<String> {
        let inside = self.entries.iter().filter(|(section, _, _)| sections.contains(&section.as_str()));
        inside.map(|(_, key, _)| key.split('.').next().unwrap().to_owned()).collect()
    }

    /// Folders of our crates that are used, by sections.
    pub(crate) fn uses(&self, sections: &[&str]) -> BTreeSet<String> {
        let ours = |name: String| match name.as_str() {
            "ringkit" | "xtask" => Some(name),
            _ => name.strip_prefix("ringkit-").map(str::to_owned),
        };
        self.names(sections).into_iter().filter_map(ours).collect()
    }

    /// Dependencies with a version of their own.
    pub(crate) fn not_inherited(&self) -> Vec<String> {
        let inside = self.entries.iter().filter(|(section, _, _)| DEPENDENCIES.contains(&section.as_str()));
        let own = inside
            .filter(|(_, key, value)| !key.ends_with(".workspace") && !value.contains("workspace = true"));
        own.map(|(_, key, _)| key.clone()).collect()
    }
}

#[test]
fn manifests_are_read_as_cargo_reads_them() {
    let manifest = Manifest::parse(
        "[package]\nname = \"ringkit-x\" \nedition.workspace = true\n\n# [dev-dependencies]\n[dependencies]\n\
         ringkit-kv.workspace = true\nringkit-ring = { workspace = true, features = [\"a\"] }\nserde = \"1\"\n\
         [dev-dependencies]\nringkit.workspace = true\n[[bin]]\nname = \"y\"\n",
    );
    assert_eq!(manifest.text("package", "name").as_deref(), Some("ringkit-x"));
    assert!(manifest.is_inherited("package", "edition") && !manifest.is_inherited("package", "name"));
    assert_eq!(manifest.uses(&["dependencies"]).into_iter().collect::<Vec<_>>(), ["kv", "ring"]);
    assert_eq!(manifest.uses(&["dev-dependencies"]).into_iter().collect::<Vec<_>>(), ["ringkit"]);
    assert_eq!(manifest.not_inherited(), ["serde"]);
}
