//! [`Report`]: what happened step by step, as tables and as JSON.

use std::fmt::Write as _;

use ringkit_ring::{Balance, EntryId, Movement, Snapshot};
use serde::Serialize;

use super::model::{Change, Done, Model, Who};
use crate::Failure;

/// The steps so far.
pub(crate) struct Report {
    origin: String,
    first: Snapshot,
    last: Snapshot,
    steps: Vec<Step>,
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
    steps: &'a [Step],
    /// From the first ring to the last at once, if there are steps between.
    overall: Option<Moved>,
}

impl Report {
    pub(crate) fn new(model: &Model, ring: Snapshot) -> Self {
        let mut report =
            Self { origin: model.origin.clone(), first: ring.clone(), last: ring.clone(), steps: Vec::new() };
        let still = Movement::between(&ring, &ring);
        report.push("start".to_owned(), Done::default(), &ring, &still);
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
        self.push(name, done, &ring, &movement);
        self.last = ring;
    }

    fn push(&mut self, change: String, done: Done, ring: &Snapshot, movement: &Movement) {
        self.steps.push(Step {
            change,
            joined: done.joined,
            left: done.left,
            instances: ring.instances().len(),
            zones: ring.zones().len(),
            tokens: ring.tokens().len(),
            replicas_per_key: movement.mean_replicas().1,
            fewest_replicas_per_key: movement.fewest_replicas().1,
            movement: (!self.steps.is_empty()).then(|| movement.into()),
            replicas: movement.balance().into(),
            token_ranges: Balance::of_ranges(ring).into(),
        });
    }

    /// From the first ring to the last, if that took more than one step.
    fn overall(&self) -> Option<Moved> {
        (self.steps.len() > 2).then(|| (&Movement::between(&self.first, &self.last)).into())
    }

    pub(crate) fn json(&self) -> Result<String, Failure> {
        let options = self.first.options();
        let json = Json {
            ring: &self.origin,
            replication_factor: options.replication_factor,
            zone_awareness_enabled: options.zone_awareness_enabled,
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
        text += "CHANGED keys have other replicas than before. MOVED is the data to copy, of all replicas; IDEAL the same in a perfectly even ring.\n\
                 AT RISK are keys of which newcomers alone make a quorum: too much at once. COPIES are replicas per key.\n\n";
        text += &self.balances();
        text += "Most and least that an instance has, over the mean, and the coefficient of variation: of replicas, and of the ranges before its tokens";
        text += if options.zone_awareness_enabled { " within its zone.\n" } else { ".\n" };
        text
    }

    fn movements(&self) -> String {
        let header = [
            "STEP",
            "INSTANCES",
            "ZONES",
            "TOKENS",
            "COPIES",
            "CHANGED",
            "MOVED",
            "IDEAL",
            "AT RISK",
            "GIVE",
            "TAKE",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let moved = |moved: &Moved| {
            let shares =
                [moved.changed_share, moved.moved_share, moved.even_moved_share, moved.newcomer_quorum_share];
            shares.map(percent).into_iter().chain([moved.givers.to_string(), moved.takers.to_string()])
        };
        for step in &self.steps {
            let mut row = vec![
                step.change.clone(),
                step.instances.to_string(),
                step.zones.to_string(),
                step.tokens.to_string(),
                copies(step),
            ];
            row.extend(step.movement.iter().flat_map(moved));
            rows.push(row);
        }
        if let Some(overall) = self.overall() {
            let mut row = vec!["all in one step".to_owned()];
            row.extend(std::iter::repeat_n(String::new(), 4).chain(moved(&overall)));
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

impl From<&Movement> for Moved {
    fn from(movement: &Movement) -> Self {
        Self {
            changed_share: movement.changed(),
            moved_share: movement.moved(),
            even_moved_share: movement.even_moved(),
            least_moved_share: movement.least_moved(),
            newcomer_quorum_share: movement.newcomer_quorum(),
            givers: movement.givers(),
            takers: movement.takers(),
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
