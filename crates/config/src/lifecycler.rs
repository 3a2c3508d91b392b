//! How an ingester joins its ring, keeps its entry fresh, and leaves.

use std::time::Duration;

use crate::{
    problems::Rules,
    ring::RingConfig,
    schema::section,
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
        /// Zone of this instance.
        pub availability_zone: String, "availability-zone";
        /// Remove the entry from the ring at shutdown.
        pub unregister_on_shutdown: bool = true, "unregister-on-shutdown";
        /// Ready only while all members of the ring are healthy, until ready once.
        pub readiness_check_ring_health: bool = true, "readiness-check-ring-health";
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
        rules.require(!id.is_empty(), "id", "is empty: an instance needs a name that no other has");
        rules.require(
            !address.is_empty() || !interface_names.is_empty(),
            "interface_names",
            "is empty, and `address` too: there is nothing to advertise",
        );
    }
}
