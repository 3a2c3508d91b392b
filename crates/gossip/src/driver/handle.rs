//! [`Handle`]: a running member, from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::actor::{Actor, Job};
use super::bind::{Bound, advertised, bind};
use super::counts::Counts;
use super::datagrams::Sockets;
use super::joining::{Joining, Seeking};
use super::listener::Listening;
use super::machine::{Machine, Net};
use super::options::Options;
use super::packets::Lanes;
use super::places::{LANES_PER_CONNECTION, Places};
use super::seeds::{Resolved, Resolver};
use super::shared::{Incoming, MAX_INCOMING, Remarks, Shared};
use super::streams::Streams;
use super::{Access, Closed, Observer, StartError, State};
use crate::api::Phase;
use crate::member::Member;
use crate::time::Now;

/// How many calls wait for their turn. More wait until they may.
const MAX_JOBS: usize = 256;
/// However often seeds are to be looked up, they are not looked up without a pause.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// How much longer than the member wants to take for its leave it is waited for, and then for its last words.
const LEAVE_MARGIN: Duration = Duration::from_secs(1);

/// A running member. Clones are cheap and lead to the same member. When the last one is dropped it ends at once, as if it was
/// killed: to be remembered as one that left, it must [leave](Handle::leave).
pub struct Handle<O> {
    inner: Arc<Inner<O>>,
}

impl<O> Clone for Handle<O> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<O> {
    jobs: mpsc::Sender<Job<O>>,
    state: watch::Receiver<State>,
    seeds: watch::Receiver<Vec<Resolved>>,
    counts: Arc<Counts>,
    bound: Vec<SocketAddr>,
    addr: SocketAddr,
    leave_timeout: Duration,
    left: OnceCell<LeaveReport>,
    /// Whether the others were told that the member leaves.
    told: Arc<AtomicBool>,
    /// Every task of the member has a receiver.
    running: watch::Sender<()>,
    /// Owns all other tasks.
    actor: AbortHandle,
}

impl<O> Drop for Inner<O> {
    fn drop(&mut self) {
        self.actor.abort();
    }
}

/// How a member left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaveReport {
    /// Whether somebody else was told, or there was nobody. If not, the others take it for dead after a while.
    pub told: bool,
    /// How long it took.
    pub took: Duration,
}

impl<O: Observer> Handle<O> {
    /// Listens, and starts a member on the tokio runtime that this is called on.
    ///
    /// # Errors
    ///
    /// [`StartError`] if it cannot listen, cannot be reached, or cannot work as it is configured. That the cluster is not found is
    /// told later, by [`state`](Self::state).
    ///
    /// # Panics
    ///
    /// If the runtime has no network or no time.
    pub fn start(options: Options, observer: O) -> Result<Self, StartError> {
        let Options {
            mut config,
            bind: addrs,
            advertise,
            seeds,
            resolve_interval,
            rejoin_interval,
            transport,
            tls,
            security,
            dial_timeout,
            read_timeout,
            write_timeout,
            max_connections,
            max_join_attempts,
            abort_if_join_fails,
            wall,
        } = options;
        let runtime = runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let Bound { addrs: bound, tcp, udp } = bind(&addrs, transport)?;
        let addr = advertised(advertise, &bound)?;
        config.addr = addr;
        config.rejoin_interval = rejoin_interval;
        let leave_timeout = config.leave_timeout;
        let span = tracing::info_span!("gossip", member = %config.name);
        let (sockets, listeners) = register(addr, udp, tcp)?;

        let (incoming, incoming_queue) = mpsc::channel(MAX_INCOMING);
        let (jobs, jobs_queue) = mpsc::channel(MAX_JOBS);
        let (state_out, state) = watch::channel(State {
            phase: Phase::Resolving,
            synced: false,
            gave_up: false,
            members: 1,
            failure: None,
        });
        let (resolved_out, resolved) = watch::channel(Vec::new());
        let start = Instant::now();
        let now = Now { mono: Duration::ZERO, wall_ms: wall.now_ms() };
        let member = Member::new(config, security, rand::random(), now)?;
        let max_connections = max_connections.max(1);
        let counts = Arc::new(Counts::default());
        let (running, still_running) = watch::channel(());
        let shared = Arc::new(Shared {
            counts: Arc::clone(&counts),
            incoming,
            tls,
            dial_timeout,
            read_timeout,
            write_timeout,
            places: Arc::new(Places::new(max_connections)),
            remarks: Remarks::default(),
            last_inbound: AtomicU64::new(0),
            _running: still_running,
        });

        let mut others = JoinSet::new();
        if seeds.is_empty() {
            // The queue is new, and has room.
            let _ = shared.incoming.try_send(Incoming::Seeds(Vec::new()));
        } else {
            let rejoin_interval = if rejoin_interval.is_zero() { Duration::MAX } else { rejoin_interval };
            let seeking = Seeking {
                seeds,
                own: addr,
                bound: bound.clone(),
                resolver: Resolver::new(),
                interval: resolve_interval.min(rejoin_interval).max(SHORTEST_INTERVAL),
                resolved: resolved_out,
                state: state.clone(),
                shared: Arc::clone(&shared),
            };
            others.spawn_on(seeking.run().instrument(span.clone()), &runtime);
        }
        for listener in listeners {
            let listening = Listening { listener, shared: Arc::clone(&shared) };
            others.spawn_on(listening.run().instrument(span.clone()), &runtime);
        }
        let max_lanes = max_connections.saturating_mul(LANES_PER_CONNECTION);
        let lanes = Lanes::new(addr, max_lanes);
        let net = Net { sockets, lanes, transport, streams: Streams::default(), shared };
        let joining = Joining::new(addr, max_join_attempts, abort_if_join_fails, resolved.clone());
        let told = Arc::new(AtomicBool::new(false));
        let machine = Machine::new(member, (start, wall), net, joining, state_out, Arc::clone(&told));
        let actor = Actor::new(observer, machine, jobs_queue, incoming_queue);
        let actor = runtime.spawn(actor.run(others).instrument(span)).abort_handle();
        let (seeds, left) = (resolved, OnceCell::new());
        let inner =
            Inner { jobs, state, seeds, counts, bound, addr, leave_timeout, left, told, running, actor };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Does something on the member's task, between two things that the member does, and returns what came of it.
    ///
    /// Cancel safe in so far as it is done in full or not at all; which of the two, is not known.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the member has ended, be it because of this.
    pub async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Access<'_, O>) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (answer, answered) = oneshot::channel();
        let job: Job<O> = Box::new(move |access: &mut Access<'_, O>| {
            // Whoever asked may have gone.
            let _ = answer.send(f(access));
        });
        self.inner.jobs.send(job).await.map_err(|_| Closed)?;
        answered.await.map_err(|_| Closed)
    }

    /// How the member stands. What is seen last remains when it has ended.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.clone()
    }

    /// What went through its sockets.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// What the last look for the seeds found.
    pub fn seeds(&self) -> watch::Receiver<Vec<Resolved>> {
        self.inner.seeds.clone()
    }

    /// Where it listens.
    pub fn bound(&self) -> &[SocketAddr] {
        &self.inner.bound
    }

    /// Where others reach it.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// Tells the others that this member leaves, and ends it. That takes twice as long as
    /// [configured](crate::api::Config::leave_timeout) and three seconds more, at most. Later calls, on whatever clone, wait for
    /// the first and return the same.
    ///
    /// Cancel safe: another call goes on waiting.
    pub async fn leave(&self) -> LeaveReport {
        *self.inner.left.get_or_init(|| self.take_leave()).await
    }

    /// Ends the member as SIGKILL would: the others are told nothing. See [`ended`](Self::ended) for when its ports are free.
    pub fn abort(&self) {
        self.inner.actor.abort();
    }

    /// Waits until the member has ended, for whatever reason, and its sockets are closed, so that its ports are free.
    ///
    /// Cancel safe.
    pub async fn ended(&self) {
        self.inner.running.closed().await;
    }

    async fn take_leave(&self) -> LeaveReport {
        let began = Instant::now();
        let mut state = self.inner.state.clone();
        let said = async {
            let asked = self.call(|access| {
                access.leave();
            });
            if asked.await.is_ok() {
                // An error says that it is over, too.
                let _ = state.wait_for(|state| matches!(state.phase, Phase::Left | Phase::Failed)).await;
            }
        };
        // Late or not, this is the end.
        let _ = timeout(self.inner.leave_timeout.saturating_mul(2).saturating_add(LEAVE_MARGIN), said).await;
        // It ends by itself, once its last datagrams are sent.
        let _ = timeout(LEAVE_MARGIN + LEAVE_MARGIN, self.ended()).await;
        self.inner.actor.abort();
        let told = self.inner.told.load(Ordering::Relaxed);
        LeaveReport { told, took: began.elapsed() }
    }
}

/// Has the runtime watch sockets.
fn register(
    addr: SocketAddr,
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
) -> Result<(Sockets, Vec<TcpListener>), StartError> {
    let failed = |protocol| move |source| StartError::Bind { addr, protocol, source };
    let sockets = Sockets::new(udp).map_err(failed("UDP"))?;
    let listeners = tcp.into_iter().map(TcpListener::from_std).collect::<Result<Vec<_>, _>>();
    Ok((sockets, listeners.map_err(failed("TCP"))?))
}
