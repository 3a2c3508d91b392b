//! The command line: Cortex's flags, and every key as a flag by its dotted path.

use std::{collections::HashMap, sync::OnceLock};

use crate::{
    cortex::{CortexFlag, Names},
    problems::{Findings, Origin, nearest},
    schema::{LeafShape, Raw, Tree, leaves},
};

/// What a process is asked to print instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `-help`: the flags.
    Help,
    /// `-version`.
    Version,
    /// `-modules`: what `-target` may name.
    Modules,
    /// `-print.config`: the effective configuration, before running.
    PrintConfig,
}

/// The command line, taken apart.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) files: Vec<String>,
    pub(crate) expand_env: bool,
    pub(crate) ask: Option<Ask>,
    /// Values in order, each with its path, whether it appends, and the flag as it was written.
    pub(crate) values: Vec<(String, bool, Tree, Origin)>,
    pub(crate) rest: Vec<String>,
}

/// Flags that are no keys: name, whether it stands alone, one line of help.
pub(crate) const SPECIAL: &[(&str, bool, &str)] = &[
    ("config.file", false, "Configuration file; repeatable or separated by commas, the later wins."),
    (
        "config.expand-env",
        true,
        "Replace $VAR, ${VAR} and ${VAR:default} in the file by environment variables.",
    ),
    ("print.config", true, "Print the effective configuration, then run."),
    ("modules", true, "Print what -target may name, and exit."),
    ("version", true, "Print the version, and exit."),
    ("help", true, "Print this, and exit."),
    ("h", true, "Print this, and exit."),
    ("memberlist.transport-debug", true, "Accepted for Cortex's sake; has no effect."),
];

type Flags = HashMap<String, usize>;

/// All flags: Cortex's names first, then dotted paths in kebab case where they are free.
fn flags() -> &'static Flags {
    static FLAGS: OnceLock<Flags> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let mut flags = Flags::new();
        for (index, (_, field, _)) in leaves().iter().enumerate() {
            flags.entry(field.flag.clone()).or_insert(index);
        }
        for (index, (path, ..)) in leaves().iter().enumerate() {
            flags.entry(path.replace('_', "-")).or_insert(index);
        }
        flags
    })
}

/// Takes the arguments after the program's name apart.
pub(crate) fn parse(args: impl IntoIterator<Item = String>, findings: &mut Findings) -> Args {
    let mut out = Args::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        match name {
            Some("") if arg == "--" => {
                out.rest.extend(args);
                break;
            }
            // As in Cortex, flags end at the first argument that is none.
            None | Some("") => {
                out.rest.push(arg);
                out.rest.extend(args);
                break;
            }
            Some(name) => {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (name.to_owned(), None),
                };
                let dashes = &arg[..arg.len() - arg.trim_start_matches('-').len()];
                let flag = Flag { written: format!("{dashes}{name}"), name, value };
                out.take(flag, &mut args, findings);
            }
        }
    }
    out
}

struct Flag {
    /// With its dashes, without its value.
    written: String,
    name: String,
    value: Option<String>,
}

impl Flag {
    fn origin(&self) -> Origin {
        Origin::Flag(self.written.clone())
    }

    /// The value, from behind `=` or from the next argument.
    fn valued(
        &mut self,
        stands_alone: bool,
        rest: &mut impl Iterator<Item = String>,
        findings: &mut Findings,
    ) -> Option<String> {
        let value = self.value.take();
        let value = value.or_else(|| if stands_alone { Some("true".to_owned()) } else { rest.next() });
        if value.is_none() {
            findings.error(&self.origin(), "", "a value is missing");
        }
        value
    }
}

impl Args {
    fn take(&mut self, mut flag: Flag, rest: &mut impl Iterator<Item = String>, findings: &mut Findings) {
        if let Some((name, stands_alone, _)) = SPECIAL.iter().find(|(name, ..)| *name == flag.name) {
            if let Some(value) = flag.valued(*stands_alone, rest, findings) {
                self.special(name, &value, &flag.origin(), findings);
            }
            return;
        }
        if let Some((path, _, leaf)) = flags().get(&flag.name).and_then(|index| leaves().get(*index)) {
            let origin = flag.origin();
            if let Some(value) = flag.valued(leaf.kind.stands_alone, rest, findings) {
                self.value(path, leaf, value, &origin, findings);
            }
            return;
        }
        let origin = flag.origin();
        match Names::get().flag(&flag.name) {
            Some(known) => {
                flag.valued(known == CortexFlag::Switch, rest, findings);
                findings.warn(
                    &origin,
                    "",
                    "this flag is Cortex's; ringkit does not implement it and ignores it",
                );
            }
            None => {
                let names = flags().keys().map(String::as_str).chain(SPECIAL.iter().map(|(name, ..)| *name));
                let hint = nearest(&flag.name, names).map(|name| format!(" (did you mean `-{name}`?)"));
                findings.error(&origin, "", format!("unknown flag{}", hint.unwrap_or_default()));
            }
        }
    }

    fn value(
        &mut self,
        path: &str,
        leaf: &LeafShape,
        value: String,
        origin: &Origin,
        findings: &mut Findings,
    ) {
        let mut notes = Vec::new();
        match (leaf.check)(&Raw::Text(value), &mut notes) {
            Ok(value) => self.values.push((path.to_owned(), leaf.kind.appends, value, origin.clone())),
            Err(message) => findings.error(origin, path, message),
        }
        for note in notes {
            findings.warn(origin, path, note);
        }
    }

    fn special(&mut self, name: &str, value: &str, origin: &Origin, findings: &mut Findings) {
        if name == "config.file" {
            self.files
                .extend(value.split(',').map(str::trim).filter(|file| !file.is_empty()).map(str::to_owned));
            return;
        }
        let on = match <bool as crate::schema::Leaf>::parse(&Raw::Text(value.to_owned()), &mut Vec::new()) {
            Ok(on) => on,
            Err(message) => return findings.error(origin, "", message),
        };
        let ask = match name {
            "config.expand-env" => {
                self.expand_env = on;
                None
            }
            "help" | "h" => Some(Ask::Help),
            "version" => Some(Ask::Version),
            "modules" => Some(Ask::Modules),
            "print.config" => Some(Ask::PrintConfig),
            _ => None,
        };
        // What is asked for first wins, except that printing the configuration yields to the rest.
        if on && ask.is_some() && matches!(self.ask, None | Some(Ask::PrintConfig)) {
            self.ask = ask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_cortexs_flag_and_by_its_path() {
        for (index, (path, field, _)) in leaves().iter().enumerate() {
            assert_eq!(flags().get(&field.flag), Some(&index), "-{} for {path}", field.flag);
            // The one path that is Cortex's flag of another key.
            if path != "ring.store" {
                assert_eq!(flags().get(&path.replace('_', "-")), Some(&index), "--{path}");
            }
        }
    }

    #[test]
    fn no_flag_of_ours_is_listed_as_one_that_we_do_not_have() {
        for name in flags().keys() {
            assert_eq!(Names::get().flag(name), None, "{name}");
        }
        for (path, ..) in leaves() {
            assert!(!Names::get().has_path(path), "{path}");
        }
    }
}
