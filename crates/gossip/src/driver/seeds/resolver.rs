//! Looks names of seeds up: [`Resolver`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::proto::{ProtoError, ProtoErrorKind};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, Name, ResolveError, TokioResolver};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::{Resolved, Seed, Target};

/// How long looking one name up may take, with all that can be appended to it and all name servers.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one name server may take. Asking twice, or another one, must fit into [`LOOKUP_TIMEOUT`].
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a name server that does not answer is asked again.
const RETRIES: usize = 1;
/// Names looked up at the same time.
const MAX_LOOKUPS: usize = 32;
/// Hosts of one service that are looked up, best priority first: a seed has to lead to some members, not to all.
pub(super) const MAX_TARGETS: usize = 64;
/// How often the name of a service may be an alias.
const MAX_ALIASES: usize = 8;

/// Looks up what seeds mean, in `/etc/hosts` and at the name servers of `/etc/resolv.conf`. Remembers nothing: both files are
/// read anew each time, no answer is older than the call, and what was known before is handed in.
///
/// Other sources that a system may have (NIS, mDNS, those of systemd) are not asked.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// `None` = the system's.
    pub(super) setup: Option<Arc<Setup>>,
    pub(super) timeout: Duration,
}

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: ResolverConfig,
    pub(super) options: ResolverOpts,
    pub(super) hosts: Hosts,
    /// Why there are no name servers.
    pub(super) broken: Option<String>,
}

impl Setup {
    /// The system's. Names in `/etc/hosts` are found whatever may be wrong with the rest. Blocks for two small files.
    fn of_system() -> Self {
        let hosts = Hosts::from_system().unwrap_or_default();
        match read_system_conf() {
            Ok((config, options)) => Self { config, options, hosts, broken: None },
            Err(cause) => {
                let broken = Some(format!("/etc/resolv.conf: {}", explain(&cause)));
                Self { config: ResolverConfig::new(), options: ResolverOpts::default(), hosts, broken }
            }
        }
    }

    /// One name server, and no hosts file.
    pub(super) fn of_server(server: SocketAddr) -> Self {
        let servers = [Protocol::Udp, Protocol::Tcp].map(|protocol| NameServerConfig::new(server, protocol));
        Self {
            config: ResolverConfig::from_parts(None, Vec::new(), servers.to_vec()),
            options: ResolverOpts::default(),
            hosts: Hosts::default(),
            broken: None,
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// Asks whom the system asks. A system that cannot look names up is an error of each seed that has one, later.
    pub fn new() -> Self {
        Self { setup: None, timeout: LOOKUP_TIMEOUT }
    }

    /// Asks this name server only, over UDP and, if an answer is too long for that, TCP.
    pub fn with_server(server: SocketAddr) -> Self {
        Self { setup: Some(Arc::new(Setup::of_server(server))), timeout: LOOKUP_TIMEOUT }
    }

    /// Looks all seeds up at once; the answers come in the order of the seeds. `previous` is what the last call returned.
    ///
    /// A name that does not exist is an answer without addresses. If a lookup fails and nothing is found, the addresses are
    /// those of `previous`, and so is their time. A host of which IPv4 or IPv6 addresses were found has not failed. What turns
    /// up, vanishes and fails is logged when it changes.
    ///
    /// Ends within [`LOOKUP_TIMEOUT`] for hosts, and within three times that for a service; beyond 32 names they wait for each
    /// other. Dropping the future drops the lookups and changes nothing.
    pub async fn resolve(&self, seeds: &[Seed], previous: &[Resolved]) -> Vec<Resolved> {
        let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
        let mut lookups = JoinSet::new();
        let mut round = None;
        for (index, seed) in seeds.iter().enumerate() {
            if let Target::Addr(addr) = seed.target {
                answers.insert(index, Answer { addrs: BTreeSet::from([addr]), error: None });
                continue;
            }
            let round = Arc::clone(round.get_or_insert_with(|| Arc::new(self.round())));
            let target = seed.target.clone();
            lookups.spawn(async move { (index, round.answer(target).await) });
        }
        while let Some(done) = lookups.join_next().await {
            // One that panicked has no answer.
            answers.extend(done.ok());
        }
        let now = Instant::now();
        let resolved = seeds.iter().enumerate().map(|(index, seed)| {
            let known = previous.iter().find(|resolved| resolved.seed == *seed);
            let answer = answers.remove(&index).unwrap_or_else(|| Answer::failed("the lookup panicked"));
            let resolved = answer.of(seed, known, now);
            log_change(known, &resolved);
            resolved
        });
        resolved.collect()
    }

    fn round(&self) -> Round {
        let setup = self.setup.clone().unwrap_or_else(|| Arc::new(Setup::of_system()));
        let provider = TokioConnectionProvider::default();
        let mut builder = TokioResolver::builder_with_config(setup.config.clone(), provider);
        let options = builder.options_mut();
        *options = setup.options.clone();
        options.timeout = options.timeout.clamp(Duration::from_secs(1), SERVER_TIMEOUT);
        options.attempts = options.attempts.min(RETRIES);
        // That is done here, as the library asks name servers for the other kind of address.
        options.use_hosts_file = ResolveHosts::Never;
        let lookups = Semaphore::new(MAX_LOOKUPS);
        Round { dns: builder.build(), setup, timeout: self.timeout, lookups }
    }
}

/// Says what an operator would want to know, once.
fn log_change(before: Option<&Resolved>, now: &Resolved) {
    let (seed, addrs) = (&now.seed, &now.addrs);
    if let Some(error) = &now.error
        && before.is_none_or(|before| before.error.is_none())
    {
        warn!(%seed, %error, addresses = addrs.len(), "a seed cannot be looked up: what was known is kept");
    }
    if before.is_none_or(|before| before.addrs != *addrs) {
        if addrs.is_empty() && now.error.is_none() {
            warn!(%seed, "a seed has no address");
        } else {
            debug!(%seed, ?addrs, "a seed has other addresses");
        }
    }
}

/// What looking one seed up came to.
#[derive(Debug, Default)]
struct Answer {
    /// IPv4 is sorted before IPv6.
    addrs: BTreeSet<SocketAddr>,
    error: Option<String>,
}

impl Answer {
    fn failed(error: impl Into<String>) -> Self {
        Self { addrs: BTreeSet::new(), error: Some(error.into()) }
    }

    /// Takes in what a host came to. Only the first error is told.
    fn add(&mut self, host: Result<Vec<IpAddr>, String>, port: u16) {
        match host {
            Ok(ips) => self.addrs.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port))),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn of(self, seed: &Seed, known: Option<&Resolved>, now: Instant) -> Resolved {
        let Self { addrs, error } = self;
        match known {
            Some(known) if error.is_some() && addrs.is_empty() => Resolved { error, ..known.clone() },
            _ => Resolved { seed: seed.clone(), addrs: addrs.into_iter().collect(), error, at: now },
        }
    }
}

/// One call of [`Resolver::resolve`].
struct Round {
    dns: TokioResolver,
    setup: Arc<Setup>,
    timeout: Duration,
    lookups: Semaphore,
}

impl Round {
    async fn answer(self: Arc<Self>, target: Target) -> Answer {
        let mut answer = Answer::default();
        match target {
            Target::Addr(addr) => {
                answer.addrs.insert(addr);
            }
            Target::Host { name, port } => answer.add(self.host(&name).await, port),
            Target::Service { name, port } => match self.service(&name).await {
                Ok(targets) => self.add_targets(&mut answer, targets, port).await,
                Err(error) => answer.error = Some(error),
            },
        }
        answer
    }

    /// Looks up the hosts that offer a service.
    async fn add_targets(self: Arc<Self>, answer: &mut Answer, mut targets: Vec<SRV>, port: Option<u16>) {
        // The root means that the service is not offered here (RFC 2782), and nobody listens at port 0.
        targets.retain(|target| !target.target().is_root() && port.unwrap_or(target.port()) != 0);
        targets.sort_by_key(SRV::priority);
        if targets.len() > MAX_TARGETS {
            answer.error = Some(format!("only {MAX_TARGETS} of {} hosts are looked up", targets.len()));
            targets.truncate(MAX_TARGETS);
        }
        let mut lookups = JoinSet::new();
        for target in targets {
            let (round, port) = (Arc::clone(&self), port.unwrap_or(target.port()));
            lookups.spawn(async move { (round.host(target.target()).await, port) });
        }
        while let Some(done) = lookups.join_next().await {
            match done {
                Ok((host, port)) => answer.add(host, port),
                Err(cause) => answer.add(Err(cause.to_string()), 0),
            }
        }
    }

    /// All addresses of a host, none if it does not exist. One kind of address is enough: there are name servers that never
    /// answer when they are asked for IPv6.
    async fn host(&self, name: &Name) -> Result<Vec<IpAddr>, String> {
        let known = self.in_hosts_file(name);
        if !known.is_empty() {
            return Ok(known);
        }
        // It is never closed.
        let _permit = self.lookups.acquire().await;
        let deadline = Instant::now() + self.timeout;
        let mut problem = None;
        for name in self.candidates(name) {
            let (v4, v6) = tokio::join!(
                self.ask(&name, RecordType::A, deadline),
                self.ask(&name, RecordType::AAAA, deadline)
            );
            let mut found = Vec::new();
            for answer in [v4, v6] {
                match answer {
                    Ok(records) => found.extend(records.iter().filter_map(RData::ip_addr)),
                    Err(error) => {
                        problem.get_or_insert(error);
                    }
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        problem.map_or(Ok(Vec::new()), Err)
    }

    /// The hosts that offer a service, none if it does not exist.
    async fn service(&self, name: &Name) -> Result<Vec<SRV>, String> {
        // It is never closed.
        let _permit = self.lookups.acquire().await;
        let deadline = Instant::now() + self.timeout;
        let mut problem = None;
        for name in self.candidates(name) {
            match self.service_or_alias(name, deadline).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => return Ok(found),
                Err(error) => {
                    problem.get_or_insert(error);
                }
            }
        }
        problem.map_or(Ok(Vec::new()), Err)
    }

    /// The library follows aliases of hosts, but loses services behind them.
    async fn service_or_alias(&self, mut name: Name, deadline: Instant) -> Result<Vec<SRV>, String> {
        for _ in 0..MAX_ALIASES {
            let records = self.ask(&name, RecordType::SRV, deadline).await?;
            let service = |record| if let RData::SRV(service) = record { Some(service) } else { None };
            let found: Vec<SRV> = records.into_iter().filter_map(service).collect();
            if !found.is_empty() {
                return Ok(found);
            }
            let records = self.ask(&name, RecordType::CNAME, deadline).await?;
            let alias = |record| if let RData::CNAME(CNAME(name)) = record { Some(name) } else { None };
            match records.into_iter().find_map(alias) {
                Some(other) => name = other,
                None => break,
            }
        }
        Ok(Vec::new())
    }

    /// Asks for records of one type. None, and no error, if the name does not exist or has none of them.
    async fn ask(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Vec<RData>, String> {
        let why = match timeout_at(deadline, self.dns.lookup(name.clone(), kind)).await {
            Ok(Ok(lookup)) => return Ok(lookup.into_iter().collect()),
            Ok(Err(cause)) if is_negative(&cause) => return Ok(Vec::new()),
            // There is nobody to be asked then.
            Ok(Err(cause)) => self.setup.broken.clone().unwrap_or_else(|| explain(&cause)),
            Err(_) => "no answer in time".to_owned(),
        };
        Err(format!("{kind} of {name}: {why}"))
    }

    fn in_hosts_file(&self, name: &Name) -> Vec<IpAddr> {
        let find = |kind| self.setup.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(find);
        found.flatten().filter_map(|record| record.ip_addr()).collect()
    }

    /// What a name may mean, in full, in the order in which it is tried. The library would do that too, but if the last of them
    /// does not exist, it forgets that another could not be looked up.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        if name.is_fqdn() {
            return vec![name.clone()];
        }
        let Setup { config, options, .. } = &*self.setup;
        let domains = match config.search() {
            [] => config.domain().map(std::slice::from_ref).unwrap_or_default(),
            domains => domains,
        };
        // One that would be too long cannot exist.
        let mut names: Vec<Name> =
            domains.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let mut whole = name.clone();
        whole.set_fqdn(true);
        let num_dots = usize::from(name.num_labels()).saturating_sub(1);
        let first = num_dots >= options.ndots || name.is_localhost();
        names.retain(|name| *name != whole);
        names.insert(if first { 0 } else { names.len() }, whole);
        names
    }
}

/// Whether a name server said that there is no such record, and not that it does not know.
fn is_negative(cause: &ResolveError) -> bool {
    let kind = cause.proto().map(ProtoError::kind);
    let Some(ProtoErrorKind::NoRecordsFound { response_code, .. }) = kind else { return false };
    matches!(response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The library's own words name data structures.
fn explain(cause: &ResolveError) -> String {
    match cause.proto().map(ProtoError::kind) {
        Some(ProtoErrorKind::NoRecordsFound { response_code, .. }) => {
            format!("the name server says: {response_code}")
        }
        Some(ProtoErrorKind::Timeout) => "no answer in time".to_owned(),
        Some(ProtoErrorKind::Io(cause)) => cause.to_string(),
        Some(kind) => kind.to_string(),
        None => cause.to_string(),
    }
}
