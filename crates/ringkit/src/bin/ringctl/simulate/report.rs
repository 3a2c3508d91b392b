//! [`Report`]: what happened step by step, as tables and as JSON.

use std::fmt::Write as _;

use ringkit_ring::{Balance, EntryId, Movement, ShardMovement, Snapshot};
use serde::Serialize;

use super::model::{Change, Done, Model, Who};
use crate::Failure;

/// The steps so far.
pub(crate) struct Report {
    origin: String,
    tenants: Option<Tenants>,
    first: Snapshot,
    last: Snapshot,
    steps: Vec<Step>,
}

/// Whose shards are looked at: so many tenants.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Tenants {
    pub(crate) number: usize,
    pub(crate) shard_size: i64,
}

/// One step; the first is the ring as it was. Shares are 0 to 1.
#[derive(Debug, Serialize)]
struct Step {
    change: String,
    joined: Vec<EntryId>,
    left: Vec<EntryId>,
    instances: usize,
    zones: usize,
    tokens: usize,
    replicas_per_key: f64,
    fewest_replicas_per_key: usize,
    movement: Option<Moved>,
    replicas: Evenness,
    token_ranges: Evenness,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Moved {
    changed_share: f64,
    moved_share: f64,
    even_moved_share: f64,
    least_moved_share: f64,
    newcomer_quorum_share: f64,
    givers: usize,
    takers: usize,
    #[serde(flatten)]
    shards: Option<ShardsMoved>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct ShardsMoved {
    shards_changed_share: f64,
    shard_members_new_share: f64,
    most_new_members_of_a_shard: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Evenness {
    max_over_mean: f64,
    min_over_mean: f64,
    coefficient_of_variation: f64,
}

/// Everything, as written with `--json`.
#[derive(Serialize)]
struct Json<'a> {
    ring: &'a str,
    replication_factor: usize,
    zone_awareness_enabled: bool,
    tenants: Option<Tenants>,
    steps: &'a [Step],
    /// From the first ring to the last at once, if there are steps between.
    overall: Option<Moved>,
}

impl Report {
    pub(crate) fn new(model: &Model, ring: Snapshot, tenants: Option<Tenants>) -> Self {
        let (first, last) = (ring.clone(), ring);
        let mut report = Self { origin: model.origin.clone(), tenants, first, last, steps: Vec::new() };
        let still = Movement::between(&report.first, &report.first);
        report.push("start".to_owned(), Done::default(), &still, None);
        report
    }

    pub(crate) fn add(&mut self, change: &Change, done: Done, ring: Snapshot) {
        let movement = Movement::between(&self.last, &ring);
        let name = match (change, &done.joined[..], &done.left[..]) {
            (Change::Leave(Who::Zone(zone)), _, left) => format!("leave {zone} ({})", left.len()),
            (Change::Join { .. }, [only], _) => format!("join {only}"),
            (Change::Join { zone: Some(zone), .. }, joined, _) => format!("join {zone} ({})", joined.len()),
            (Change::Join { zone: None, .. }, joined, _) => format!("join {}", joined.len()),
            (Change::Leave(_), _, [only]) => format!("leave {only}"),
            (Change::Leave(_), _, left) => format!("leave {}", left.len()),
        };
        let moved = self.moved(&movement, &self.last, &ring);
        self.last = ring;
        self.push(name, done, &movement, Some(moved));
    }

    fn push(&mut self, change: String, done: Done, movement: &Movement, moved: Option<Moved>) {
        let ring = &self.last;
        self.steps.push(Step {
            change,
            joined: done.joined,
            left: done.left,
            instances: ring.instances().len(),
            zones: ring.zones().len(),
            tokens: ring.tokens().len(),
            replicas_per_key: movement.mean_replicas().1,
            fewest_replicas_per_key: movement.fewest_replicas().1,
            movement: moved,
            replicas: movement.balance().into(),
            token_ranges: Balance::of_ranges(ring).into(),
        });
    }

    fn moved(&self, movement: &Movement, before: &Snapshot, after: &Snapshot) -> Moved {
        let shards = self.tenants.map(|Tenants { number, shard_size }| {
            let tenants = (1..=number).map(|tenant| format!("tenant-{tenant}"));
            ShardMovement::between(before, after, tenants, shard_size).into()
        });
        Moved {
            changed_share: movement.changed(),
            moved_share: movement.moved(),
            even_moved_share: movement.even_moved(),
            least_moved_share: movement.least_moved(),
            newcomer_quorum_share: movement.newcomer_quorum(),
            givers: movement.givers(),
            takers: movement.takers(),
            shards,
        }
    }

    /// From the first ring to the last, if that took more than one step.
    fn overall(&self) -> Option<Moved> {
        let measure = || self.moved(&Movement::between(&self.first, &self.last), &self.first, &self.last);
        (self.steps.len() > 2).then(measure)
    }

    pub(crate) fn json(&self) -> Result<String, Failure> {
        let options = self.first.options();
        let json = Json {
            ring: &self.origin,
            replication_factor: options.replication_factor,
            zone_awareness_enabled: options.zone_awareness_enabled,
            tenants: self.tenants,
            steps: &self.steps,
            overall: self.overall(),
        };
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }

    pub(crate) fn table(&self) -> String {
        let options = self.first.options();
        let zones = match (options.zone_awareness_enabled, self.first.zones().len()) {
            (true, _) => "zone-aware",
            (false, 0 | 1) => "not zone-aware",
            (false, _) => "zones ignored (see --zone-awareness)",
        };
        let mut text =
            format!("Ring: {}; replication factor {}, {zones}.\n\n", self.origin, options.replication_factor);
        text += &self.movements();
        text += "COPIES: replicas per key. CHANGED: keys with other replicas than before. MOVED: data to copy, of all replicas (IDEAL: in a perfectly even ring).\n\
                 AT RISK: keys of which newcomers alone make a quorum, so that reads can miss data. GIVE, TAKE: instances that do.\n";
        if let Some(Tenants { number, shard_size }) = self.tenants {
            let _ = writeln!(
                text,
                "SHARDS: those with other members than before, of {number} tenants' shards of {shard_size}. NEW: members that are new to theirs, of all."
            );
        }
        text += "\n";
        text += &self.balances();
        text += "Most and least that an instance has, over the mean, and the coefficient of variation: of replicas, and of the ranges before its tokens";
        text += if options.zone_awareness_enabled { " within its zone.\n" } else { ".\n" };
        text
    }

    fn movements(&self) -> String {
        const HEADER: &str =
            "STEP,INSTANCES,ZONES,TOKENS,COPIES,CHANGED,MOVED,IDEAL,AT RISK,GIVE,TAKE,SHARDS,NEW";
        let columns = if self.tenants.is_some() { 13 } else { 11 };
        let mut rows = vec![HEADER.split(',').take(columns).map(str::to_owned).collect()];
        for step in &self.steps {
            let mut row = vec![
                step.change.clone(),
                step.instances.to_string(),
                step.zones.to_string(),
                step.tokens.to_string(),
                copies(step),
            ];
            row.extend(step.movement.iter().flat_map(Moved::cells));
            rows.push(row);
        }
        if let Some(overall) = self.overall() {
            let mut row = vec!["all in one step".to_owned()];
            row.extend(std::iter::repeat_n(String::new(), 4).chain(overall.cells()));
            rows.push(row);
        }
        aligned(&rows)
    }

    fn balances(&self) -> String {
        let header = ["STEP", "REPLICAS MAX", "MIN", "CV", "RANGES MAX", "MIN", "CV"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for step in &self.steps {
            let mut row = vec![step.change.clone()];
            for evenness in [step.replicas, step.token_ranges] {
                row.push(format!("{:.2}", evenness.max_over_mean));
                row.push(format!("{:.2}", evenness.min_over_mean));
                row.push(percent(evenness.coefficient_of_variation));
            }
            rows.push(row);
        }
        aligned(&rows)
    }
}

impl Moved {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            percent(self.changed_share),
            percent(self.moved_share),
            percent(self.even_moved_share),
            percent(self.newcomer_quorum_share),
            self.givers.to_string(),
            self.takers.to_string(),
        ];
        if let Some(shards) = &self.shards {
            cells.extend([percent(shards.shards_changed_share), percent(shards.shard_members_new_share)]);
        }
        cells
    }
}

impl From<ShardMovement> for ShardsMoved {
    fn from(movement: ShardMovement) -> Self {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Self {
            shards_changed_share: share(movement.changed, movement.tenants),
            shard_members_new_share: share(movement.joined, movement.members),
            most_new_members_of_a_shard: movement.most_joined,
        }
    }
}

impl From<Balance> for Evenness {
    fn from(balance: Balance) -> Self {
        let Balance { max_over_mean, min_over_mean, variation } = balance;
        Self { max_over_mean, min_over_mean, coefficient_of_variation: variation }
    }
}

/// The mean, and the least where that is less.
fn copies(step: &Step) -> String {
    let (mean, fewest) = (step.replicas_per_key, step.fewest_replicas_per_key);
    if mean > fewest as f64 { format!("{mean:.2} (min {fewest})") } else { fewest.to_string() }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.1 => "<0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// Columns side by side: the first to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
