//! From the files of a runtime configuration to what they mean, every finding at once and with its place.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::de::DeserializeSeed as _;

use super::{MultiRuntimeConfig, RingSwitch, RuntimeConfig, RuntimeFile};
use crate::{
    IngesterInstanceLimits, KvStore, LimitsConfig, LoadError, Warning,
    check::{Values, check_entries},
    load::failed,
    problems::{Findings, Origin, Problem, Rules, nearest},
    schema::{Field, Over, Section, SectionShape, Shape, Tree},
    units::shown,
    yaml::{self, Entry, Kind, Mark, Node},
};

pub(super) const OVERRIDES: &str = "overrides";
pub(super) const MULTI: &str = "multi_kv_config";
pub(super) const PER_RING: &str = "per_ring";
pub(super) const INGESTER_LIMITS: &str = "ingester_limits";

/// The keys that mean something here.
const KEYS: [&str; 3] = [OVERRIDES, MULTI, INGESTER_LIMITS];
/// Cortex's other keys.
const CORTEX: [&str; 3] =
    ["ingester_stream_chunks_when_using_blocks", "hard_overrides", "api_allowed_limits"];

/// The blocks of the main configuration that are said again here.
const LIMITS: &str = "limits";
const INSTANCE_LIMITS: &str = "ingester.instance_limits";

/// Reads files over `base`, which nothing was said over yet.
pub(super) fn read(
    base: RuntimeConfig,
    files: &[RuntimeFile<'_>],
) -> Result<(RuntimeConfig, Vec<Warning>), LoadError> {
    let mut reader = Reader::new();
    for file in files {
        reader.file(file);
    }
    let Reader { shapes, said, mut findings } = reader;
    let config = said.over(base, &shapes, &mut findings);
    if !findings.errors.is_empty() {
        return Err(failed(findings));
    }
    Ok((config, findings.warnings.into_iter().map(Warning).collect()))
}

/// What may stand in each kind of block.
struct Shapes {
    limits: SectionShape,
    multi: SectionShape,
    ring: SectionShape,
    instance_limits: SectionShape,
}

/// What the files say, before it means anything. Values stand under the path that their block has in a configuration.
#[derive(Default)]
struct Said {
    /// By tenant, with where it was named first.
    tenants: BTreeMap<String, (Origin, Values)>,
    multi: Values,
    rings: BTreeMap<String, Values>,
    instance_limits: Option<Values>,
}

struct Reader {
    shapes: Shapes,
    said: Said,
    findings: Findings,
}

impl Reader {
    fn new() -> Self {
        let mut multi = MultiRuntimeConfig::section("");
        // Read apart from the others, but a key that may be meant.
        multi.fields.push(Field {
            name: PER_RING,
            doc: String::new(),
            flag: String::new(),
            unused: false,
            shape: Shape::Section(RingSwitch::section("")),
        });
        let shapes = Shapes {
            limits: LimitsConfig::section(""),
            multi,
            ring: RingSwitch::section(""),
            instance_limits: IngesterInstanceLimits::section(""),
        };
        Self { shapes, said: Said::default(), findings: Findings::default() }
    }

    fn file(&mut self, file: &RuntimeFile<'_>) {
        let name: Arc<str> = file.name.into();
        let text = match std::str::from_utf8(file.bytes) {
            Ok(text) => text,
            Err(error) => {
                let from = error.valid_up_to();
                let message = format!("{name}: this file is not UTF-8, from byte {from} on");
                return self.findings.error(&Origin::Default, "", message);
            }
        };
        let document = yaml::read(text);
        for (mark, message) in &document.errors {
            self.findings.error(&place(&name, *mark), "", message.clone());
        }
        if let Some(mark) = document.second {
            let message = "the provided runtime configuration contains multiple documents";
            self.findings.error(&place(&name, mark), "", message);
        }
        if let Some(root) = &document.root {
            for entry in entries(&name, root, "", &mut self.findings) {
                self.key(&name, entry);
            }
        }
    }

    fn key(&mut self, file: &Arc<str>, entry: &Entry) {
        let origin = place(file, entry.mark);
        match entry.key.as_str() {
            OVERRIDES => self.overrides(file, &entry.value),
            MULTI => self.multi(file, &entry.value),
            INGESTER_LIMITS => self.instance_limits(file, &entry.value),
            key if CORTEX.contains(&key) => {
                let message = "this key is Cortex's; ringkit does not implement it and ignores it";
                self.findings.warn(&origin, key, message);
            }
            key => {
                let hint = nearest(key, KEYS.into_iter().chain(CORTEX));
                let hint = hint.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
                self.findings.error(&origin, key, format!("unknown key{hint}"));
            }
        }
    }

    fn overrides(&mut self, file: &Arc<str>, value: &Node) {
        let Self { shapes, said, findings } = self;
        for tenant in entries(file, value, OVERRIDES, findings) {
            // As in Cortex: a tenant without a block is one without overrides.
            if tenant.value.is_empty() {
                continue;
            }
            let path = format!("{OVERRIDES}.{}", tenant.key);
            let limits = entries(file, &tenant.value, &path, findings);
            let values = block(file, limits, &shapes.limits, LIMITS, &path, findings);
            let first = || (place(file, tenant.mark), Values::new());
            said.tenants.entry(tenant.key.clone()).or_insert_with(first).1.extend(values);
        }
    }

    fn multi(&mut self, file: &Arc<str>, value: &Node) {
        let Self { shapes, said, findings } = self;
        let found = entries(file, value, MULTI, findings);
        let keys = found.iter().filter(|entry| entry.key != PER_RING);
        said.multi.extend(block(file, keys, &shapes.multi, MULTI, MULTI, findings));
        // A key that occurs twice is an error already, and only the first is kept.
        let Some(rings) = found.iter().find(|entry| entry.key == PER_RING) else { return };
        for ring in entries(file, &rings.value, &format!("{MULTI}.{PER_RING}"), findings) {
            let path = format!("{MULTI}.{PER_RING}.{}", ring.key);
            let switch = entries(file, &ring.value, &path, findings);
            let values = block(file, switch, &shapes.ring, MULTI, &path, findings);
            said.rings.entry(ring.key.clone()).or_default().extend(values);
        }
    }

    fn instance_limits(&mut self, file: &Arc<str>, value: &Node) {
        if value.is_empty() {
            return;
        }
        let Self { shapes, said, findings } = self;
        let limits = entries(file, value, INGESTER_LIMITS, findings);
        let values = block(file, limits, &shapes.instance_limits, INSTANCE_LIMITS, INGESTER_LIMITS, findings);
        said.instance_limits.get_or_insert_default().extend(values);
    }
}

fn place(file: &Arc<str>, mark: Mark) -> Origin {
    Origin::File { file: Arc::clone(file), line: mark.line, column: mark.column }
}

/// The entries of a block; none of an empty one.
fn entries<'a>(file: &Arc<str>, node: &'a Node, path: &str, findings: &mut Findings) -> &'a [Entry] {
    match &node.kind {
        Kind::Map(entries) => entries,
        _ if node.is_empty() => &[],
        _ => {
            let message = format!("expected a block of keys, found {}", shown(&node.to_raw()));
            findings.error(&place(file, node.mark), path, message);
            &[]
        }
    }
}

/// The values of a block that is checked as the one at `under`, and whose findings are told as those of `path`.
fn block<'a>(
    file: &Arc<str>,
    entries: impl IntoIterator<Item = &'a Entry>,
    shape: &SectionShape,
    under: &str,
    path: &str,
    findings: &mut Findings,
) -> Values {
    let mut own = Findings::default();
    let values = check_entries(file, entries, shape, under, &mut own);
    for (key, (value, origin)) in &values {
        if matches!(value, Tree::Str(text) if text.contains("${")) {
            let message = "`${…}` stands for itself: a runtime configuration knows no environment variables";
            own.warn(origin, key, message);
        }
    }
    retell(own, under, path, findings);
    values
}

/// Adds findings about the block at `under` as findings about the one at `path`.
fn retell(own: Findings, under: &str, path: &str, findings: &mut Findings) {
    let rename = |problem: Problem| {
        let path = format!("{path}{}", problem.path.strip_prefix(under).unwrap_or_default());
        Problem { path, ..problem }
    };
    findings.errors.extend(own.errors.into_iter().map(rename));
    findings.warnings.extend(own.warnings.into_iter().map(rename));
}

impl Said {
    fn over(self, mut config: RuntimeConfig, shapes: &Shapes, findings: &mut Findings) -> RuntimeConfig {
        // What is odd about the main configuration was said at the start.
        let known = broken(&config.limits).warnings;
        for (tenant, (origin, values)) in self.tenants {
            let mut limits = LimitsConfig::clone(&config.limits);
            apply(&mut limits, LIMITS, &values, findings);
            let mut rules = broken(&limits);
            rules.warnings.retain(|warning| !known.contains(warning));
            advise_on_unused(&shapes.limits, &config.limits, &values, &mut rules);
            locate(&mut rules, &values, &origin);
            retell(rules, LIMITS, &format!("{OVERRIDES}.{tenant}"), findings);
            config.overrides.insert(tenant, Arc::new(limits));
        }
        let multi = &mut config.multi_kv_config;
        apply(multi, MULTI, &self.multi, findings);
        no_multi(multi.primary, &self.multi, MULTI, findings);
        for (ring, values) in self.rings {
            let mut switch = RingSwitch::default();
            apply(&mut switch, MULTI, &values, findings);
            no_multi(switch.primary, &values, &format!("{MULTI}.{PER_RING}.{ring}"), findings);
            multi.per_ring.insert(ring, switch);
        }
        if let Some(values) = self.instance_limits {
            let mut limits = config.instance_limits.clone();
            apply(&mut limits, INSTANCE_LIMITS, &values, findings);
            let mut rules = Findings::default();
            limits.validate(&mut Rules::new(&mut rules).below(INSTANCE_LIMITS));
            locate(&mut rules, &values, &Origin::Default);
            retell(rules, INSTANCE_LIMITS, INGESTER_LIMITS, findings);
            config.ingester_limits = Some(limits);
        }
        config
    }
}

/// The rules that limits break.
fn broken(limits: &LimitsConfig) -> Findings {
    let mut findings = Findings::default();
    limits.validate(&mut Rules::new(&mut findings).below(LIMITS));
    findings
}

/// What a tenant sets that differs and has no effect.
fn advise_on_unused(shape: &SectionShape, base: &LimitsConfig, values: &Values, rules: &mut Findings) {
    let base = base.tree();
    for field in shape.fields.iter().filter(|field| field.unused) {
        let path = format!("{LIMITS}.{}", field.name);
        let Some((value, _)) = values.get(&path) else { continue };
        if base.get(field.name) != Some(value) {
            rules.warn(&Origin::Default, path, "is not implemented yet: it has no effect");
        }
    }
}

/// Fills in where broken rules come from: the value itself, or else `fallback`.
fn locate(rules: &mut Findings, values: &Values, fallback: &Origin) {
    for problem in rules.errors.iter_mut().chain(&mut rules.warnings) {
        problem.origin = values.get(&problem.path).map_or(fallback, |(_, origin)| origin).clone();
    }
}

/// Two stores are not one of two stores.
fn no_multi(primary: Option<KvStore>, values: &Values, path: &str, findings: &mut Findings) {
    if primary == Some(KvStore::Multi)
        && let Some((_, origin)) = values.get(&format!("{MULTI}.primary"))
    {
        findings.error(origin, format!("{path}.primary"), "cannot be multi itself");
    }
}

/// Writes values, which stand under `under`, over a section.
fn apply<T: Section>(section: &mut T, under: &str, values: &Values, findings: &mut Findings) {
    let key = |path: &str| path.strip_prefix(under)?.strip_prefix('.').map(|key| Cow::Owned(key.to_owned()));
    let entries = values.iter().filter_map(|(path, (value, _))| Some((key(path)?, value.clone()))).collect();
    let applied = serde_json::to_value(Tree::Map(entries)).and_then(|map| Over(section).deserialize(map));
    if let Err(error) = applied {
        // Every value was checked before, so this is a fault of the schema; still, say so.
        findings.error(&Origin::Default, under, error.to_string());
    }
}
