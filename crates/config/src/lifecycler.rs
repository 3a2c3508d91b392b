//! How an ingester joins its ring, keeps its entry fresh, and leaves.

use std::time::Duration;

use crate::{
    problems::Rules,
    ring::RingConfig,
    schema::{Kind, Leaf, Raw, Tree, section},
    units::{AutoDuration, Hostname, choice, hostname},
    validate::heartbeats,
};

choice! {
    /// How tokens are drawn.
    pub enum TokensGeneratorStrategy {
        /// At random.
        Random = "random",
        /// Where they even out the ring best.
        MinimizeSpread = "minimize-spread",
    }
    other "invalid token generator strategy"
}

choice! {
    /// What becomes of an instance whose tokens file cannot be read.
    pub enum TokensFileOnCorrupt {
        /// It goes on with the copy of the version before, else as `ring`.
        Previous = "previous",
        /// It goes on with the tokens that the ring has for it, else with new ones.
        Ring = "ring",
        /// It draws new tokens.
        Regenerate = "regenerate",
        /// It does not start.
        Fail = "fail",
    }
}

/// Whose health an instance waits for before it says for the first time that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadinessCheck {
    /// Its own only; Cortex's `false`.
    Own,
    /// That of its zone.
    Zone,
    /// That of the whole ring; Cortex's `true`.
    #[default]
    Ring,
}

impl Leaf for ReadinessCheck {
    fn kind() -> Kind {
        bool::kind()
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        if let Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text) = raw {
            match text.to_ascii_lowercase().as_str() {
                "self" => return Ok(Self::Own),
                "zone" => return Ok(Self::Zone),
                "ring" => return Ok(Self::Ring),
                _ => (),
            }
        }
        let whole = bool::parse(raw, notes)
            .map_err(|wrong| wrong.replacen("expected ", "expected `self`, `zone`, `ring`, ", 1))?;
        Ok(if whole { Self::Ring } else { Self::Own })
    }
    fn render(&self) -> Tree {
        match self {
            Self::Own => Tree::Bool(false),
            Self::Zone => Tree::Str("zone".into()),
            Self::Ring => Tree::Bool(true),
        }
    }
    fn schema() -> serde_json::Value {
        serde_json::json!({"anyOf": [{"type": "boolean"}, {"enum": ["self", "zone", "ring"]}]})
    }
}

/// Bounds what instances are forgotten by themselves.
pub(crate) fn check_auto_forget(
    delay: Duration,
    heartbeat_timeout: Duration,
    min_healthy_fraction: f64,
    rules: &mut Rules<'_>,
) {
    rules.require(
        delay.is_zero() || delay > heartbeat_timeout,
        "auto_forget_delay",
        "must be longer than the heartbeat timeout, or 0: others must have had the time to count an instance as dead",
    );
    rules.require(
        delay.is_zero() || !heartbeat_timeout.is_zero(),
        "auto_forget_delay",
        "does not go with a heartbeat timeout of 0, by which nobody is ever dead",
    );
    rules.require(
        (0.0..=1.0).contains(&min_healthy_fraction),
        "auto_forget_min_healthy_fraction",
        "must be between 0 and 1",
    );
}

/// The most tokens that an instance may own. Its entry, at up to 5 bytes per token, then takes 320 KiB, so that even alone
/// it fits into the 512 KiB that Consul stores under a key.
pub const MAX_NUM_TOKENS: usize = 65_536;

/// Interfaces whose address an instance advertises when none is given.
pub(crate) fn interfaces() -> Vec<String> {
    vec!["eth0".into(), "en0".into()]
}

section! {
    /// How an ingester joins its ring, keeps its entry fresh, and leaves.
    pub struct LifecyclerConfig {
        /// The ingester ring.
        pub ring: RingConfig, "/";
        /// Tokens this instance owns: more tokens even out the load and grow the stored ring.
        pub num_tokens: usize = 128, "num-tokens";
        /// How tokens are drawn: random, or minimize-spread, which evens out each zone with every join.
        pub tokens_generator_strategy: TokensGeneratorStrategy, "tokens-generator-strategy";
        /// Time between two refreshes of this instance's entry; 0 switches heartbeats off.
        pub heartbeat_period: Duration = Duration::from_secs(5), "heartbeat-period";
        /// Wait after drawing tokens for others to have drawn the same; auto means until the store is synced (Cortex: 0s).
        pub observe_period: AutoDuration, "observe-period";
        /// Wait before joining, for a hand-over or the store; auto means until the store is synced (Cortex: 0s).
        pub join_after: AutoDuration, "join-after";
        /// Time between being ready and saying so.
        pub min_ready_duration: Duration = Duration::from_secs(15), "min-ready-duration";
        /// Network interfaces whose address is advertised, in order of preference.
        pub interface_names: Vec<String> = interfaces(), "lifecycler.interface";
        /// Time to stay up after leaving, so that the last metrics are scraped.
        pub final_sleep: Duration = Duration::from_secs(30), "final-sleep";
        /// File that keeps the tokens over a restart; empty means none.
        pub tokens_file_path: String, "tokens-file-path";
        /// What to do if that file cannot be read: previous (use its last copy, else as ring), ring (use the tokens that the ring
        /// has for this instance, else new ones), regenerate (draw new ones) or fail (do not start).
        pub tokens_file_on_corrupt: TokensFileOnCorrupt, "tokens-file-on-corrupt";
        /// Zone of this instance.
        pub availability_zone: String, "availability-zone";
        /// Remove the entry from the ring at shutdown.
        pub unregister_on_shutdown: bool = true, "unregister-on-shutdown";
        /// Whose health this instance waits for before it is ready for the first time: self (or false), zone, or ring (or true).
        pub readiness_check_ring_health: ReadinessCheck, "readiness-check-ring-health";
        /// Remove other instances from the ring that have not been heard of for this long; 0 means never.
        pub auto_forget_delay: Duration = Duration::ZERO, "auto-forget-delay";
        /// Remove nobody while less than this part of the ring is healthy.
        pub auto_forget_min_healthy_fraction: f64 = 0.5, "auto-forget-min-healthy-fraction";
        /// Address to advertise; empty means that of the first interface found.
        pub address: String, "lifecycler.addr";
        /// Port to advertise; 0 means the gRPC listener's.
        pub port: u16 = 0, "lifecycler.port";
        /// Name in the ring, which must be unique; this machine's name if not given.
        pub id: String as Hostname = hostname(), "lifecycler.ID";
    }
}

impl LifecyclerConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            ring,
            num_tokens,
            tokens_generator_strategy: _,
            heartbeat_period,
            observe_period: _,
            join_after: _,
            min_ready_duration: _,
            interface_names,
            final_sleep: _,
            tokens_file_path: _,
            tokens_file_on_corrupt: _,
            auto_forget_delay,
            auto_forget_min_healthy_fraction,
            availability_zone,
            unregister_on_shutdown: _,
            readiness_check_ring_health: _,
            address,
            port: _,
            id,
        } = self;
        ring.validate(&mut rules.below("ring"));
        heartbeats(*heartbeat_period, ring.heartbeat_timeout, rules);
        rules.require(
            *num_tokens <= MAX_NUM_TOKENS,
            "num_tokens",
            &format!("is above {MAX_NUM_TOKENS}: one instance's entry would not fit into a key of Consul"),
        );
        rules.advise(*num_tokens > 0, "num_tokens", "without tokens this instance owns nothing");
        rules.advise(
            !ring.zone_awareness_enabled || !availability_zone.is_empty(),
            "availability_zone",
            "is empty, but the ring is zone-aware: all instances without a zone count as one zone",
        );
        check_auto_forget(
            *auto_forget_delay,
            ring.heartbeat_timeout,
            *auto_forget_min_healthy_fraction,
            rules,
        );
        rules.require(!id.is_empty(), "id", "is empty: an instance needs a name that no other has");
        rules.require(
            !address.is_empty() || !interface_names.is_empty(),
            "interface_names",
            "is empty, and `address` too: there is nothing to advertise",
        );
    }
}
