//! Where a cluster lives: its directory, its files, and the command line of each process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringkit_config::{Config, RuntimeConfig, RuntimeFile};
use ringkit_testkit::ProcessBuilder;
use ringkit_testkit::ports::free_port;
use tempfile::TempDir;

use crate::stores::{Member, program};

const DISTRIBUTORS: usize = 2;
const GATEWAYS: usize = 2;

/// The file that every process reads first: what has nothing to do with stores.
const COMMON: &str = "config.yaml";
/// The runtime configuration, if the files that come after name it.
const RUNTIME: &str = "runtime.yaml";

/// How fast things go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) heartbeat: Duration,
    /// After it an instance counts as dead.
    pub(super) timeout: Duration,
    pub(super) min_ready: Duration,
    /// `None` = as soon as the store is synced.
    pub(super) join_after: Option<Duration>,
    pub(super) reconcile: Duration,
    /// How often the runtime configuration is read.
    pub(super) reload: Duration,
    /// After it a process does without its primary store.
    pub(super) start_timeout: Duration,
    /// How long a store is away.
    pub(super) outage: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

impl Timing {
    /// For the ordinary tests.
    pub(super) const SCALED: Self = Self {
        heartbeat: SECOND,
        timeout: Duration::from_secs(12),
        min_ready: SECOND,
        join_after: None,
        reconcile: Duration::from_secs(2),
        reload: Duration::from_millis(500),
        start_timeout: Duration::from_secs(2),
        outage: Duration::from_secs(4),
    };
    /// Cortex's defaults, and how long operators wait.
    pub(super) const REAL: Self = Self {
        heartbeat: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        min_ready: Duration::from_secs(15),
        join_after: Some(Duration::from_secs(5)),
        reconcile: Duration::from_secs(30),
        reload: Duration::from_secs(10),
        start_timeout: Duration::from_secs(10),
        outage: Duration::from_secs(100),
    };

    /// Within what a process is ready.
    pub(super) fn ready_within(&self) -> Duration {
        self.join_after.unwrap_or_default() + self.min_ready + self.start_timeout + Duration::from_secs(60)
    }

    /// Within what a change of the runtime configuration has become true.
    pub(super) fn settled_within(&self) -> Duration {
        self.reload + 3 * self.reconcile + 2 * self.heartbeat + Duration::from_secs(30)
    }
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Distributor,
    Ingester,
    StoreGateway,
}

impl Role {
    /// Its program, and what names begin with.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Distributor => "distributor",
            Self::Ingester => "ingester",
            Self::StoreGateway => "store-gateway",
        }
    }

    /// The page of the ring that it is in.
    pub(super) fn ring(self) -> &'static str {
        match self {
            Self::Distributor => "/distributor/ring",
            Self::Ingester => "/ingester/ring",
            Self::StoreGateway => "/store-gateway/ring",
        }
    }

    /// The pages of the rings that it follows.
    pub(super) fn views(self) -> &'static [&'static str] {
        match self {
            Self::Distributor => &["/ingester/ring", "/distributor/ring"],
            Self::Ingester => &["/ingester/ring"],
            Self::StoreGateway => &["/store-gateway/ring"],
        }
    }
}

/// In milliseconds, as configurations have it.
pub(super) fn ms(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Where a cluster lives.
pub(super) struct Site {
    dir: TempDir,
    pub(super) timing: Timing,
    num_ingesters: usize,
    /// Where each process gossips; kept over restarts.
    gossip: BTreeMap<String, SocketAddr>,
    /// What processes read after [`COMMON`]: the later wins.
    files: Vec<PathBuf>,
    /// Flags of all processes.
    flags: Vec<String>,
    /// Flags of one process.
    own_flags: BTreeMap<String, Vec<String>>,
}

impl Site {
    pub(super) fn new(timing: Timing, num_ingesters: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(COMMON), common(&timing)).unwrap();
        let join_after = timing.join_after.map_or("auto".to_owned(), ms);
        let mut site = Self {
            dir,
            timing,
            num_ingesters,
            gossip: BTreeMap::new(),
            files: Vec::new(),
            // Over what the guide's files say of it.
            flags: vec![
                format!("-ingester.lifecycler.heartbeat-period={}", ms(timing.heartbeat)),
                format!("-ingester.lifecycler.join-after={join_after}"),
            ],
            own_flags: BTreeMap::new(),
        };
        for (name, _) in site.processes() {
            site.gossip.insert(name, SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        }
        site.write_runtime("multi_kv_config: {generation: 1}\n");
        site
    }

    /// Name and role of every process.
    pub(super) fn processes(&self) -> Vec<(String, Role)> {
        let numbers = [
            (Role::Ingester, self.num_ingesters),
            (Role::Distributor, DISTRIBUTORS),
            (Role::StoreGateway, GATEWAYS),
        ];
        let named = numbers.into_iter().flat_map(|(role, number)| {
            (1..=number).map(move |number| (format!("{}-{number}", role.program()), role))
        });
        named.collect()
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where all processes gossip.
    pub(super) fn seeds(&self) -> Vec<String> {
        self.gossip.values().map(ToString::to_string).collect()
    }

    /// Processes that start from now on read these files, name and text, the later wins.
    pub(super) fn configure(&mut self, files: &[(&str, &str)]) {
        self.files = files.iter().map(|(name, text)| self.write(name, text)).collect();
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// One more flag of every process that starts from now on.
    pub(super) fn flag(&mut self, flag: String) {
        self.flags.push(flag);
    }

    /// One more flag of one process, from its next start on.
    pub(super) fn own_flag(&mut self, name: &str, flag: &str) {
        self.own_flags.entry(name.to_owned()).or_default().push(flag.to_owned());
    }

    /// The command line of a process, behind the file that all have.
    pub(super) fn flags(&self, name: &str, role: Role) -> Vec<String> {
        let number = name.rsplit('-').next().and_then(|number| number.parse::<usize>().ok()).unwrap();
        let zone = format!("zone-{}", ["a", "b", "c"][(number - 1) % 3]);
        let mut flags: Vec<String> =
            self.files.iter().map(|file| format!("-config.file={}", file.display())).collect();
        let port = self.gossip.get(name).map_or(0, SocketAddr::port);
        flags.extend([
            format!("-memberlist.nodename={name}"),
            "-memberlist.randomize-node-name=false".to_owned(),
            "-memberlist.bind-addr=127.0.0.1".to_owned(),
            format!("-memberlist.bind-port={port}"),
        ]);
        match role {
            Role::Distributor => flags.push(format!("-distributor.ring.instance-id={name}")),
            Role::Ingester => {
                flags.extend(Member::ingester_flags(self.path(), number));
                flags.push(format!("-ingester.lifecycler.availability-zone={zone}"));
            }
            Role::StoreGateway => flags.extend([
                format!("-store-gateway.sharding-ring.instance-id={name}"),
                format!("-store-gateway.sharding-ring.instance-availability-zone={zone}"),
            ]),
        }
        flags.extend(self.flags.iter().cloned());
        flags.extend(self.own_flags.get(name).into_iter().flatten().cloned());
        flags
    }

    /// The file that all processes read first.
    pub(super) fn common(&self) -> PathBuf {
        self.path().join(COMMON)
    }

    /// Starts a process; it need not be ready.
    pub(super) async fn launch(&self, name: &str, role: Role) -> Member {
        let builder = ProcessBuilder::new(name, program(role.program()));
        Member::launch(builder, self.path(), &self.flags(name, role)).await
    }

    /// The runtime configuration.
    pub(super) fn runtime(&self) -> PathBuf {
        self.path().join(RUNTIME)
    }

    /// Replaces the runtime configuration, at once as a whole.
    pub(super) fn write_runtime(&self, text: &str) {
        self.replace(RUNTIME, text);
    }

    /// Replaces a file, at once as a whole.
    pub(super) fn replace(&self, name: &str, text: &str) {
        let new = self.write("new", text);
        std::fs::rename(new, self.path().join(name)).unwrap();
    }

    /// Asks for a step by hand, as those do who deploy by Git: the primary store, and whether to mirror.
    pub(super) fn ask(&self, primary: &str, mirror: bool) {
        let generation = self.generation() + 1;
        self.write_runtime(&format!(
            "multi_kv_config:\n  primary: {primary}\n  mirror_enabled: {mirror}\n  generation: {generation}\n"
        ));
    }

    /// The generation of the runtime configuration.
    fn generation(&self) -> u64 {
        let bytes = std::fs::read(self.runtime()).unwrap();
        let file = RuntimeFile { name: RUNTIME, bytes: &bytes };
        let (runtime, _) = RuntimeConfig::new(&Config::default()).read(&[file]).unwrap();
        runtime.multi_kv_config.generation
    }
}

fn common(timing: &Timing) -> String {
    let (heartbeat, timeout, min_ready) = (ms(timing.heartbeat), ms(timing.timeout), ms(timing.min_ready));
    let beats = format!("heartbeat_period: {heartbeat}, heartbeat_timeout: {timeout}");
    format!(
        "auth_enabled: false\n\
         server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0}}\n\
         limits: {{ingestion_rate: 1e7, ingestion_burst_size: 10000000}}\n\
         distributor: {{shard_by_all_labels: true, ring: {{instance_addr: 127.0.0.1, {beats}}}}}\n\
         store_gateway: {{sharding_enabled: true, sharding_ring: {{instance_addr: 127.0.0.1, {beats}, \
         zone_awareness_enabled: true, wait_stability_min_duration: 0s}}}}\n\
         ingester: {{lifecycler: {{address: 127.0.0.1, final_sleep: 0s, min_ready_duration: {min_ready}, \
         ring: {{replication_factor: 3, zone_awareness_enabled: true, heartbeat_timeout: {timeout}}}}}}}\n\
         memberlist: {{min_join_backoff: 200ms}}\n"
    )
}
