//! [`Options`]: how one instance lives in one ring, and where that stands in the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringkit_config::{AutoDuration, Config, ReadinessCheck, TokensFileOnCorrupt, TokensGeneratorStrategy};
use ringkit_ring::{SpreadMinimizing, State};

use crate::address::{self, Wanted};
use crate::delegate::{Delegate, Delegates, InstanceRegister, LeaveOnStopping, TokensPersistency};
use crate::error::Error;
use crate::forget::AutoForget;
use crate::tokens_file::OnCorrupt;

/// How one instance lives in one ring.
#[derive(Clone, Debug)]
pub struct Options {
    /// Metric label: `ingester`, `distributor` or `store-gateway`.
    pub name: &'static str,
    /// Ring key, without the store's prefix.
    pub key: String,
    /// Id of this instance; unique within the ring.
    pub id: String,
    /// `host:port` that others dial.
    pub addr: String,
    /// Failure domain; empty = none.
    pub zone: String,
    /// How many tokens to own.
    pub num_tokens: usize,
    /// How they are chosen.
    pub token_choice: TokenChoice,
    /// How often the entry is refreshed. Zero = never.
    pub heartbeat_period: Duration,
    /// After which age of its heartbeat an instance counts as unhealthy. Zero = never.
    pub heartbeat_timeout: Duration,
    /// How long to watch for others who chose the same tokens.
    pub observe_period: AutoDuration,
    /// How long to wait before choosing tokens.
    pub join_after: AutoDuration,
    /// How long an instance must have been ready before it says so.
    pub min_ready_duration: Duration,
    /// How long to stay after leaving, counted from the moment the entry is LEAVING.
    pub final_sleep: Duration,
    /// Where tokens survive a restart.
    pub tokens_file_path: Option<PathBuf>,
    /// Whether the entry is removed at the end. [`crate::Handle::set_unregister_on_shutdown`] changes it.
    pub unregister_on_shutdown: bool,
    /// What to do when the tokens file cannot be read.
    pub on_corrupt: OnCorrupt,
    /// Whose health readiness asks for.
    pub readiness_check: ReadinessCheck,
    /// When others are removed from the ring; `None` = never, unless a delegate wants it.
    pub auto_forget: Option<AutoForget>,
    /// Whether metrics have the names that Cortex gives those of a basic lifecycler.
    pub basic_metrics: bool,
    /// Who decides instead of the rules of an ingester; with any of them, [`Options::join_as`], [`Options::auto_join`] and
    /// [`Options::tokens_file_path`] mean nothing.
    pub delegates: Delegates,
    /// Whether to join without waiting for [`crate::Handle::join`].
    pub auto_join: bool,
    /// From where the registration time of a new entry comes.
    pub registered_at: RegisteredAt,
    /// The state that joining ends in: ACTIVE, or JOINING for a member that becomes ACTIVE when it says so.
    pub join_as: State,
}

/// How an instance chooses its tokens.
#[derive(Clone, Debug)]
pub enum TokenChoice {
    /// At random.
    Random,
    /// Where they even out the zone best, one instance of the zone after the other.
    MinimizeSpread,
    /// Where the number in the instance's name puts them, in turn if so asked for: up to 512, whatever
    /// [`Options::num_tokens`] says. It does not go together with a tokens file. Cortex has no key for it.
    SpreadMinimizing(Arc<SpreadMinimizing>),
}

impl From<TokensGeneratorStrategy> for TokenChoice {
    fn from(configured: TokensGeneratorStrategy) -> Self {
        match configured {
            TokensGeneratorStrategy::Random => Self::Random,
            TokensGeneratorStrategy::MinimizeSpread => Self::MinimizeSpread,
        }
    }
}

/// From where the registration time of a new entry comes. An entry that the ring already holds keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisteredAt {
    /// The moment of registration.
    Now,
    /// This time, in Unix seconds.
    Known(i64),
}

/// After how many heartbeat timeouts a store-gateway is forgotten, as in Cortex.
const AUTO_FORGET_TIMEOUTS: u32 = 10;
/// Tokens of a store-gateway, which Cortex does not let one choose.
const STORE_GATEWAY_TOKENS: usize = 512;

impl Options {
    /// An ingester as configured under `ingester.lifecycler`, whose gRPC server listens on `grpc`.
    ///
    /// It joins when told by [`crate::Handle::join`].
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the key at fault.
    pub fn ingester(config: &Config, grpc: SocketAddr) -> Result<Self, Error> {
        let lifecycler = &config.ingester.lifecycler;
        let wanted = Wanted {
            address: &lifecycler.address,
            address_key: "ingester.lifecycler.address",
            port: lifecycler.port,
            interfaces: &lifecycler.interface_names,
            interfaces_key: "ingester.lifecycler.interface_names",
        };
        let path = &lifecycler.tokens_file_path;
        Ok(Self {
            name: "ingester",
            key: "ring".into(),
            id: checked_id("ingester.lifecycler.id", &lifecycler.id)?,
            addr: address::advertised(&wanted, grpc),
            zone: lifecycler.availability_zone.clone(),
            num_tokens: lifecycler.num_tokens,
            token_choice: lifecycler.tokens_generator_strategy.into(),
            heartbeat_period: lifecycler.heartbeat_period,
            heartbeat_timeout: lifecycler.ring.heartbeat_timeout,
            observe_period: lifecycler.observe_period,
            join_after: lifecycler.join_after,
            min_ready_duration: lifecycler.min_ready_duration,
            final_sleep: lifecycler.final_sleep,
            tokens_file_path: (!path.is_empty()).then(|| path.into()),
            unregister_on_shutdown: lifecycler.unregister_on_shutdown,
            on_corrupt: lifecycler.tokens_file_on_corrupt.into(),
            readiness_check: lifecycler.readiness_check_ring_health,
            auto_forget: auto_forget(
                lifecycler.auto_forget_delay,
                lifecycler.auto_forget_min_healthy_fraction,
            ),
            basic_metrics: false,
            delegates: Delegates::default(),
            auto_join: false,
            registered_at: RegisteredAt::Now,
            join_as: State::Active,
        })
    }

    /// A distributor as configured under `distributor.ring`, whose gRPC server listens on `grpc`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the key at fault.
    pub fn distributor(config: &Config, grpc: SocketAddr) -> Result<Self, Error> {
        let ring = &config.distributor.ring;
        let wanted = Wanted {
            address: &ring.instance_addr,
            address_key: "distributor.ring.instance_addr",
            port: ring.instance_port,
            interfaces: &ring.instance_interface_names,
            interfaces_key: "distributor.ring.instance_interface_names",
        };
        Ok(Self {
            name: "distributor",
            key: "distributor".into(),
            id: checked_id("distributor.ring.instance_id", &ring.instance_id)?,
            addr: address::advertised(&wanted, grpc),
            zone: String::new(),
            num_tokens: 1,
            token_choice: TokenChoice::Random,
            heartbeat_period: ring.heartbeat_period,
            heartbeat_timeout: ring.heartbeat_timeout,
            observe_period: AutoDuration::After(Duration::ZERO),
            join_after: AutoDuration::After(Duration::ZERO),
            min_ready_duration: Duration::ZERO,
            final_sleep: Duration::ZERO,
            tokens_file_path: None,
            unregister_on_shutdown: true,
            on_corrupt: OnCorrupt::Ring,
            readiness_check: ReadinessCheck::Own,
            auto_forget: auto_forget(ring.auto_forget_delay, ring.auto_forget_min_healthy_fraction),
            // Cortex runs its larger lifecycler here, and names its metrics so.
            basic_metrics: false,
            delegates: Delegates::new([
                Arc::new(InstanceRegister(State::Active)) as Arc<dyn Delegate>,
                Arc::new(LeaveOnStopping),
            ]),
            auto_join: true,
            registered_at: RegisteredAt::Now,
            join_as: State::Active,
        })
    }

    /// A store-gateway as configured under `store_gateway.sharding_ring`, whose gRPC server listens on `grpc`.
    ///
    /// It registers as JOINING and becomes ACTIVE by [`crate::Handle::activate`].
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the key at fault.
    pub fn store_gateway(config: &Config, grpc: SocketAddr) -> Result<Self, Error> {
        let ring = &config.store_gateway.sharding_ring;
        let wanted = Wanted {
            address: &ring.instance_addr,
            address_key: "store_gateway.sharding_ring.instance_addr",
            port: ring.instance_port,
            interfaces: &ring.instance_interface_names,
            interfaces_key: "store_gateway.sharding_ring.instance_interface_names",
        };
        let path = &ring.tokens_file_path;
        let mut delegates: Vec<Arc<dyn Delegate>> = vec![Arc::new(InstanceRegister(State::Joining))];
        if !path.is_empty() {
            let on_corrupt = ring.tokens_file_on_corrupt.into();
            delegates.push(Arc::new(TokensPersistency::new(path, State::Joining, on_corrupt)));
        }
        delegates.push(Arc::new(LeaveOnStopping));
        Ok(Self {
            name: "store-gateway",
            key: "store-gateway".into(),
            id: checked_id("store_gateway.sharding_ring.instance_id", &ring.instance_id)?,
            addr: address::advertised(&wanted, grpc),
            zone: ring.instance_availability_zone.clone(),
            num_tokens: STORE_GATEWAY_TOKENS,
            token_choice: TokenChoice::Random,
            heartbeat_period: ring.heartbeat_period,
            heartbeat_timeout: ring.heartbeat_timeout,
            observe_period: AutoDuration::Auto,
            join_after: AutoDuration::Auto,
            min_ready_duration: Duration::ZERO,
            final_sleep: ring.final_sleep,
            tokens_file_path: None,
            unregister_on_shutdown: !ring.keep_instance_in_the_ring_on_shutdown,
            on_corrupt: OnCorrupt::Ring,
            readiness_check: ReadinessCheck::Own,
            auto_forget: auto_forget(
                ring.auto_forget_delay.given().unwrap_or(ring.heartbeat_timeout * AUTO_FORGET_TIMEOUTS),
                ring.auto_forget_min_healthy_fraction,
            ),
            basic_metrics: true,
            delegates: Delegates::new(delegates),
            auto_join: true,
            registered_at: RegisteredAt::Now,
            join_as: State::Joining,
        })
    }
}

impl Options {
    /// An instance of a service of one's own: called `id` in the ring under `key`, reached at `addr`, with `num_tokens`
    /// tokens, whose life `delegates` decide. It beats every 15 seconds and is dead after a minute without; every field may be
    /// changed before it is started.
    ///
    /// `name` is the metric label.
    pub fn basic(
        name: &'static str,
        key: impl Into<String>,
        id: impl Into<String>,
        addr: impl Into<String>,
        num_tokens: usize,
        delegates: Delegates,
    ) -> Self {
        Self {
            name,
            key: key.into(),
            id: id.into(),
            addr: addr.into(),
            zone: String::new(),
            num_tokens,
            token_choice: TokenChoice::Random,
            heartbeat_period: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(60),
            observe_period: AutoDuration::Auto,
            join_after: AutoDuration::Auto,
            min_ready_duration: Duration::ZERO,
            final_sleep: Duration::ZERO,
            tokens_file_path: None,
            unregister_on_shutdown: true,
            on_corrupt: OnCorrupt::Previous,
            readiness_check: ReadinessCheck::Own,
            auto_forget: None,
            basic_metrics: true,
            delegates,
            auto_join: true,
            registered_at: RegisteredAt::Now,
            join_as: State::Active,
        }
    }
}

fn auto_forget(after: Duration, min_healthy_fraction: f64) -> Option<AutoForget> {
    (!after.is_zero()).then_some(AutoForget { after, min_healthy_fraction })
}

impl From<TokensFileOnCorrupt> for OnCorrupt {
    fn from(configured: TokensFileOnCorrupt) -> Self {
        match configured {
            TokensFileOnCorrupt::Previous => Self::Previous,
            TokensFileOnCorrupt::Ring => Self::Ring,
            TokensFileOnCorrupt::Regenerate => Self::Regenerate,
            TokensFileOnCorrupt::Fail => Self::Fail,
        }
    }
}

fn checked_id(key: &'static str, id: &str) -> Result<String, Error> {
    if id.is_empty() {
        let problem = "the instance needs an id and this machine has no host name: set it".to_owned();
        return Err(Error::Config { key, problem });
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRPC: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9095);

    #[test]
    fn an_ingester_is_described_by_its_lifecycler_block() {
        let mut config = Config::default();
        config.ingester.lifecycler.id = "ingester-1".into();
        config.ingester.lifecycler.availability_zone = "zone-a".into();
        config.ingester.lifecycler.tokens_file_path = "/data/tokens".into();
        let options = Options::ingester(&config, GRPC).unwrap();
        assert_eq!(
            (&*options.id, &*options.zone, &*options.addr),
            ("ingester-1", "zone-a", "127.0.0.1:9095")
        );
        assert_eq!((options.name, &*options.key, options.num_tokens), ("ingester", "ring", 128));
        assert_eq!(options.tokens_file_path, Some("/data/tokens".into()));
        assert!(!options.auto_join, "it joins after its data is there");
    }

    #[test]
    fn an_ingester_chooses_its_tokens_as_configured_however_that_is_spelt() {
        for (text, expected) in [
            ("random", "Random"),
            ("minimize-spread", "MinimizeSpread"),
            ("Minimize-SPREAD", "MinimizeSpread"),
        ] {
            let mut config = Config::default();
            config.ingester.lifecycler.tokens_generator_strategy =
                serde_json::from_value(text.into()).unwrap();
            let choice = Options::ingester(&config, GRPC).unwrap().token_choice;
            assert_eq!(format!("{choice:?}"), expected);
        }
        let wrong = serde_json::from_value::<TokensGeneratorStrategy>("even".into()).unwrap_err().to_string();
        assert!(wrong.contains("invalid token generator strategy"), "{wrong}");
    }

    #[test]
    fn a_distributor_has_one_token_and_waits_for_nothing() {
        let mut config = Config::default();
        config.distributor.ring.instance_id = "d".into();
        config.distributor.ring.instance_addr = "10.0.0.1".into();
        config.distributor.ring.instance_port = 7;
        let options = Options::distributor(&config, GRPC).unwrap();
        assert_eq!((options.num_tokens, &*options.addr, &*options.key), (1, "10.0.0.1:7", "distributor"));
        assert!(options.auto_join && options.unregister_on_shutdown && options.final_sleep.is_zero());
    }

    #[test]
    fn a_store_gateway_joins_as_joining() {
        let mut config = Config::default();
        config.store_gateway.sharding_ring.instance_id = "s".into();
        config.store_gateway.sharding_ring.keep_instance_in_the_ring_on_shutdown = true;
        let options = Options::store_gateway(&config, GRPC).unwrap();
        assert_eq!((options.num_tokens, options.join_as), (512, State::Joining));
        assert!(!options.delegates.is_empty() && options.auto_forget.is_some());
        assert_eq!((options.key.as_str(), options.unregister_on_shutdown), ("store-gateway", false));
    }

    #[test]
    fn the_most_tokens_that_can_be_configured_are_the_most_that_are_given() {
        assert_eq!(ringkit_config::MAX_NUM_TOKENS, ringkit_ring::TokenStrategy::MAX_TOKENS);
    }

    #[test]
    fn an_instance_without_an_id_is_refused_by_key() {
        let mut config = Config::default();
        config.ingester.lifecycler.id = String::new();
        let error = Options::ingester(&config, GRPC).unwrap_err().to_string();
        assert!(error.starts_with("ingester.lifecycler.id: "), "{error}");
    }
}
