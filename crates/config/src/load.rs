//! From arguments, files and environment to a [`Config`].

use std::{collections::BTreeMap, io::Read, sync::Arc};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use crate::{
    Config,
    args::{self, Args, Ask},
    check::{Values, check_document},
    env,
    problems::{Findings, LoadError, Origin, Problem, Rules, Warning},
    schema::{Section, Tree, leaves},
    stores::{Resolved, Source},
    yaml,
};

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// What is odd about it, but no reason not to run.
    pub warnings: Vec<Warning>,
    /// Where each value that is no default came from.
    pub origins: Origins,
    /// Files that were read, as they were named.
    pub files: Vec<String>,
    /// What to print instead of running, or before it.
    pub ask: Option<Ask>,
    /// Arguments that are no flags.
    pub rest: Vec<String>,
}

/// Where values came from, by dotted path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value at a dotted path came from.
    pub fn of(&self, path: &str) -> Origin {
        self.0.get(path).cloned().unwrap_or_default()
    }

    /// Whether a value was given at the path or below it.
    pub fn given(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.0.keys().any(|key| key == path || key.starts_with(&below))
    }

    /// Where a rule about `path` points: the value itself, or else the first value below it.
    fn near(&self, path: &str) -> Origin {
        let below = format!("{path}.");
        self.0
            .get(path)
            .or_else(|| {
                self.0
                    .range(below.clone()..)
                    .next()
                    .filter(|(key, _)| key.starts_with(&below))
                    .map(|(_, o)| o)
            })
            .cloned()
            .unwrap_or_default()
    }
}

impl Loaded {
    /// Every key with its value and where it came from: `key: value  # file:line | env RINGKIT_X | flag -x | default`.
    pub fn origins_yaml(&self) -> String {
        struct Behind<'a>(&'a Origins);
        impl yaml::Notes for Behind<'_> {
            fn behind(&self, path: &str) -> Option<String> {
                let leaf = leaves().iter().any(|(leaf, ..)| leaf == path);
                leaf.then(|| self.0.of(path).brief())
            }
        }
        yaml::write(&self.config.tree(), &Behind(&self.origins))
    }
}

/// One source of values, as figment sees it.
struct Layer {
    name: &'static str,
    values: Values,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (path, (value, _)) in &self.values {
            put(&mut root, path, value.clone().into_figment());
        }
        Ok(Profile::Default.collect(root))
    }
}

fn put(dict: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            dict.insert(path.to_owned(), value);
        }
        Some((head, tail)) => {
            let below = dict.entry(head.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, below) = below {
                put(below, tail, value);
            }
        }
    }
}

/// The built-in values.
struct Defaults;

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        match Config::default().tree().into_figment() {
            Value::Dict(_, dict) => Ok(Profile::Default.collect(dict)),
            _ => Ok(Map::new()),
        }
    }
}

/// Loads from the arguments after the program's name and from the environment's variables.
///
/// Layers, the later winning: defaults, files (`-config.file`), `RINGKIT_` variables, flags. Flags of lists append.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, LoadError> {
    let env: BTreeMap<String, String> = env.into_iter().collect();
    let mut findings = Findings::default();
    let args = args::parse(args, &mut findings);
    if let Some(Ask::Help | Ask::Version | Ask::Modules) = args.ask {
        findings = Findings::default();
        let args = Args { ask: args.ask, rest: args.rest, ..Args::default() };
        return finish(args, Vec::new(), findings);
    }
    let flag_findings = std::mem::take(&mut findings);
    let usage = !flag_findings.errors.is_empty();
    let mut layers = Vec::new();
    for file in &args.files {
        let name: Arc<str> = file.as_str().into();
        match read_file(file) {
            Ok(text) => {
                let text = if args.expand_env { env::expand(&text, &env) } else { text };
                layers.push(file_layer(&name, &text, args.expand_env, &mut findings));
            }
            Err(message) => findings.error(&Origin::Default, "", format!("{file}: {message}")),
        }
    }
    layers.push(Layer { name: "environment", values: env::values(&env, &mut findings) });
    findings.errors.extend(flag_findings.errors);
    findings.warnings.extend(flag_findings.warnings);
    finish(args, layers, findings).map_err(|error| LoadError { usage, ..error })
}

/// Loads from this process's arguments and environment. What is not Unicode in them is replaced.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load_process() -> Result<Loaded, LoadError> {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    load(args, std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
}

/// Loads from the text of one file over the defaults; environment and flags are not looked at.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn parse_yaml(file_name: &str, text: &str) -> Result<Loaded, LoadError> {
    let mut findings = Findings::default();
    let layer = file_layer(&file_name.into(), text, false, &mut findings);
    finish(Args { files: vec![file_name.to_owned()], ..Args::default() }, vec![layer], findings)
}

fn read_file(file: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let bound = yaml::MAX_BYTES as u64 + 1;
    std::fs::File::open(file)
        .and_then(|opened| opened.take(bound).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read this file: {error}"))?;
    String::from_utf8(bytes)
        .map_err(|error| format!("this file is not UTF-8, from byte {} on", error.utf8_error().valid_up_to()))
}

fn file_layer(file: &Arc<str>, text: &str, expanded: bool, findings: &mut Findings) -> Layer {
    let values = check_document(file, &yaml::read(text), findings);
    if !expanded {
        for (path, (value, origin)) in &values {
            if matches!(value, Tree::Str(text) if text.contains("${")) {
                let message = "`${…}` is replaced by an environment variable only with -config.expand-env";
                findings.warn(origin, path, message);
            }
        }
    }
    Layer { name: "file", values }
}

/// Merges the layers, settles the stores, checks the rules.
fn finish(args: Args, layers: Vec<Layer>, mut findings: Findings) -> Result<Loaded, LoadError> {
    let mut origins = Origins::default();
    let mut figment = Figment::from(Defaults);
    for layer in layers {
        origins.0.extend(layer.values.iter().map(|(path, (_, origin))| (path.clone(), origin.clone())));
        figment = figment.merge(layer);
    }
    for (path, appends, value, origin) in args.values {
        origins.0.insert(path.clone(), origin.clone());
        let layer = Layer { name: "flag", values: Values::from([(path, (value, origin))]) };
        figment = if appends { figment.admerge(layer) } else { figment.merge(layer) };
    }
    let mut config: Config = match figment.extract() {
        Ok(config) => config,
        Err(error) => {
            // Every value was checked before, so this is a fault of the schema; still, say which value.
            let path = error.path.join(".");
            findings.error(&origins.of(&path), path, error.kind.to_string());
            return Err(failed(findings));
        }
    };
    mark_own(&mut config, &origins);
    let mut rules = Findings::default();
    let given = config.tree();
    let resolved = config.settle_stores(&mut rules);
    inherit_origins(&given, &config.tree(), &resolved, &mut origins);
    config.validate(&mut Rules::new(&mut rules));
    advise_on_ignored(&config, &origins, &mut rules);
    adopt(rules, &origins, &mut findings);
    if !findings.errors.is_empty() {
        return Err(failed(findings));
    }
    let warnings = findings.warnings.into_iter().map(Warning).collect();
    Ok(Loaded { config, warnings, origins, files: args.files, ask: args.ask, rest: args.rest })
}

pub(crate) fn failed(findings: Findings) -> LoadError {
    LoadError {
        problems: findings.errors,
        warnings: findings.warnings.into_iter().map(Warning).collect(),
        usage: false,
    }
}

/// Remembers which parts of the `kvstore` blocks were given.
fn mark_own(config: &mut Config, origins: &Origins) {
    for ring in crate::RingName::ALL {
        let path = ring.kvstore_path();
        let given = |key: &str| origins.given(&format!("{path}.{key}"));
        config.kvstore_mut(ring).own = crate::Own {
            store: given("store"),
            layout: given("layout"),
            consul: given("consul"),
            etcd: given("etcd"),
            multi: given("multi"),
        };
    }
    let given = |key: &str| origins.given(&format!("ring.kvstore.{key}"));
    config.ring.kvstore.own = crate::Own {
        store: false,
        layout: given("layout"),
        consul: given("consul"),
        etcd: given("etcd"),
        multi: given("multi"),
    };
}

/// Values that a ring took from elsewhere came from there.
fn inherit_origins(
    given: &Tree,
    settled: &Tree,
    resolved: &[(crate::RingName, Resolved)],
    origins: &mut Origins,
) {
    for (ring, resolved) in resolved {
        let parts = [
            ("store", resolved.store),
            ("layout", resolved.layout),
            ("consul", resolved.consul),
            ("etcd", resolved.etcd),
            ("multi", resolved.multi),
        ];
        for (part, source) in parts {
            let from = match source {
                Source::Own | Source::Default => continue,
                Source::Ring if part == "store" => "ring.store".to_owned(),
                Source::Ring => format!("ring.kvstore.{part}"),
                Source::Ingester => format!("{}.{part}", crate::RingName::Ingester.kvstore_path()),
            };
            let to = format!("{}.{part}", ring.kvstore_path());
            for (path, ..) in leaves() {
                let Some(rest) =
                    path.strip_prefix(&to).filter(|rest| rest.is_empty() || rest.starts_with('.'))
                else {
                    continue;
                };
                if given.at(path) != settled.at(path) {
                    let from = format!("{from}{rest}");
                    let origin = match origins.of(&from) {
                        Origin::Inherited { from, origin } => Origin::Inherited { from, origin },
                        origin => Origin::Inherited { from, origin: Box::new(origin) },
                    };
                    origins.0.insert(path.clone(), origin);
                }
            }
        }
    }
}

/// What was said but has no effect.
fn advise_on_ignored(config: &Config, origins: &Origins, rules: &mut Findings) {
    let (tree, defaults) = (config.tree(), Config::default().tree());
    for (path, field, _) in leaves() {
        if field.unused && origins.given(path) && tree.at(path) != defaults.at(path) {
            rules.warn(&Origin::Default, path, "is not implemented yet: it has no effect");
        }
    }
    let by_all = "distributor.shard_by_all_labels";
    if origins.given(by_all) && !config.distributor.shard_by_all_labels {
        let message = "ringkit always places a series by all its labels: false has no effect. Go distributors and \
                       queriers on the same ring must have it true";
        rules.warn(&Origin::Default, by_all, message);
    }
}

/// Takes over what the rules found, with places; not what only follows from a value that could not be read.
fn adopt(rules: Findings, origins: &Origins, findings: &mut Findings) {
    // What a ring took from another key is wrong there; what is odd about the taking is odd here.
    let at_source = |problem: Problem| match origins.near(&problem.path) {
        Origin::Inherited { from, origin } => Problem { origin: *origin, path: from, ..problem },
        origin => Problem { origin, ..problem },
    };
    let here = |problem: Problem| Problem { origin: origins.near(&problem.path), ..problem };
    let broken: Vec<String> = findings.errors.iter().map(|problem| problem.path.clone()).collect();
    let follows = |problem: &Problem| {
        broken.iter().any(|path| {
            !path.is_empty() && (*path == problem.path || path.starts_with(&format!("{}.", problem.path)))
        })
    };
    let errors: Vec<_> =
        rules.errors.into_iter().filter(|problem| !follows(problem)).map(at_source).collect();
    findings.errors.extend(errors);
    findings.warnings.extend(rules.warnings.into_iter().map(here));
}
