//! Metrics of a member, read when they are scraped. Names are Cortex's where it has the same thing, which are without `cortex_`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Histogram, Unit};
use ringkit_gossip::api::{Phase, Totals};
use ringkit_gossip::driver::{Counts, Handle};
use ringkit_runtime::{Collect, Families, Meter};

use super::observed::{Latest, Observed, Quarantined, Told};
use super::report::phase;
use super::views::Views;

const PHASES: [Phase; 7] = [
    Phase::Resolving,
    Phase::Joining,
    Phase::Active,
    Phase::Lonely,
    Phase::Leaving,
    Phase::Left,
    Phase::Failed,
];

/// How long beacons take.
pub(super) fn propagation(meter: &Meter) -> Histogram {
    meter.histogram(
        "memberlist_propagation_tracker_delay_seconds",
        Unit::Seconds,
        "Time that a beacon, which one member sends now and then, took to arrive here.",
    )
}

/// Reads what a member counts. Keeps it alive for as long as it is registered.
pub(super) struct Collector {
    pub(super) handle: Handle<Views>,
    pub(super) observed: Arc<Observed>,
}

impl Collect for Collector {
    fn collect(&self, out: &mut Families) {
        transport(out, self.handle.counts());
        let state = self.handle.state().borrow().clone();
        for each in PHASES {
            let is = f64::from(u8::from(each == state.phase));
            let help = "How far the member has got: 1 for the phase it is in.";
            out.gauge("memberlist_client_phase", help, &[("phase", phase(each))], is);
        }
        let mut flag = |name, help, is: bool| out.gauge(name, help, &[], f64::from(u8::from(is)));
        flag("memberlist_client_synced", "Whether what is stored reflects the cluster.", state.synced);
        flag(
            "memberlist_client_unsynced_proceeding",
            "Whether the cluster was not found, and reads and writes go on without it.",
            self.observed.goes_on_without(&state),
        );
        events(out, &self.observed.told());
        if let Some(latest) = self.observed.latest() {
            member(out, &latest);
        }
    }
}

/// What went through the sockets.
fn transport(out: &mut Families, counts: &Counts) {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let mut total = |name, help, counter: &AtomicU64| out.counter(name, help, &[], value(counter));
    total("memberlist_tcp_transport_packets_received_total", "Datagrams that came.", &counts.datagrams_in);
    total(
        "memberlist_tcp_transport_packets_received_bytes_total",
        "Bytes of datagrams that came.",
        &counts.datagram_bytes_in,
    );
    total("memberlist_tcp_transport_packets_sent_total", "Datagrams sent.", &counts.datagrams_out);
    total(
        "memberlist_tcp_transport_packets_sent_bytes_total",
        "Bytes of datagrams sent.",
        &counts.datagram_bytes_out,
    );
    total(
        "memberlist_tcp_transport_packets_sent_errors_total",
        "Datagrams that a socket refused to send.",
        &counts.datagram_errors,
    );
    total(
        "memberlist_tcp_transport_packets_received_errors_total",
        "Errors of sockets that datagrams come to, and connections for datagrams that broke.",
        &counts.receive_errors,
    );
    total(
        "memberlist_tcp_transport_packets_dropped_total",
        "Datagrams not sent because a socket or a queue was full, or a connection broke.",
        &counts.datagrams_dropped,
    );
    total("memberlist_tcp_transport_incoming_streams_total", "Streams that came in.", &counts.streams_in);
    total("memberlist_tcp_transport_outgoing_streams_total", "Streams opened.", &counts.streams_out);
    total(
        "memberlist_tcp_transport_incoming_stream_errors_total",
        "Connections that came in and broke, or with which no TLS connection came to be.",
        &counts.inbound_stream_errors,
    );
    total(
        "memberlist_tcp_transport_outgoing_stream_errors_total",
        "Connections that could not be opened, and that were opened here and broke.",
        &counts.outbound_stream_errors,
    );
    total(
        "memberlist_tcp_transport_received_bytes_total",
        "Bytes that came in streams.",
        &counts.stream_bytes_in,
    );
    total("memberlist_tcp_transport_sent_bytes_total", "Bytes sent in streams.", &counts.stream_bytes_out);
    total(
        "memberlist_tcp_transport_rejected_connections_total",
        "Connections closed at once because there were too many.",
        &counts.connections_rejected,
    );
    total(
        "memberlist_tcp_transport_unknown_connections_total",
        "Connections closed because they did not begin as those of members do.",
        &counts.unknown_connections,
    );
    total(
        "memberlist_tcp_transport_http_connections_total",
        "Connections closed because they spoke HTTP.",
        &counts.http_connections,
    );
    total(
        "memberlist_tcp_transport_tls_connections_total",
        "Connections closed because they spoke TLS, which is not enabled.",
        &counts.tls_connections,
    );
    out.gauge(
        "memberlist_tcp_transport_active_connections",
        "Connections that came in and are open.",
        &[],
        value(&counts.connections),
    );
}

/// What happened since the start.
fn events(out: &mut Families, told: &Told) {
    for (reason, count) in &told.refused {
        let help = "Things from the network that were refused, by reason.";
        out.counter("memberlist_client_refused_total", help, &[("reason", *reason)], *count as f64);
    }
    for Quarantined { author, count } in told.quarantined.values() {
        let help =
            "Registers refused because the clock of their author is ahead, by the first authors they are of.";
        let labels = [("author", author.as_str())];
        out.counter("memberlist_client_quarantined_records_total", help, &labels, *count as f64);
    }
    let mut total = |name, help, count: u64| out.counter(name, help, &[], count as f64);
    let (attempts, successes, failures) = told.writes;
    total("memberlist_client_cas_attempt_total", "Attempted writes.", attempts);
    total("memberlist_client_cas_success_total", "Successful writes.", successes);
    total("memberlist_client_cas_failure_total", "Failed writes, those that lost a race included.", failures);
    total("memberlist_client_received_broadcasts_total", "Registers taken from other members.", told.taken.0);
    total(
        "memberlist_client_received_broadcasts_bytes_total",
        "Bytes of what registers taken from other members hold.",
        told.taken.1,
    );
    total(
        "memberlist_client_received_broadcasts_invalid_total",
        "Things from the network that were refused, for whatever reason.",
        told.refused.values().sum(),
    );
    total(
        "memberlist_client_quarantined_total",
        "Registers refused because the clock of their author is ahead.",
        told.quarantined.values().map(|refused| refused.count).sum::<u64>() + told.quarantined_others,
    );
    total(
        "memberlist_client_key_file_errors_total",
        "Times that the file with the keys of gossip changed and could not be used.",
        told.bad_key_files,
    );
    total("memberlist_propagation_tracker_beacons_received_total", "Beacons that came.", told.num_delays);
}

/// What the member has done since its start.
fn totals(out: &mut Families, totals: &Totals) {
    for (result, count) in [("done", totals.sessions_done), ("failed", totals.sessions_failed)] {
        let help = "Sessions in which all there is was compared with another member, whoever began them.";
        out.counter("memberlist_client_sync_sessions_total", help, &[("result", result)], count as f64);
    }
    for (equal, count) in [("true", totals.roots_equal), ("false", totals.roots_different)] {
        let help = "Digests of all there is that came from others, by whether they were equal to the own.";
        out.counter("memberlist_client_root_checks_total", help, &[("equal", equal)], count as f64);
    }
    out.counter(
        "memberlist_propagation_tracker_beacons_published_total",
        "Beacons that this member sent.",
        &[],
        totals.beacons as f64,
    );
}

/// How the member stood a moment ago.
fn member(out: &mut Families, latest: &Latest) {
    let Latest { status, queue, num_keys, keys, clock_ahead, unopenable, lost_seeds, .. } = latest;
    let mut gauge = |name, help, value: usize| out.gauge(name, help, &[], value as f64);
    gauge("memberlist_client_cluster_members_count", "Live members of the cluster.", status.members);
    gauge(
        "memberlist_client_cluster_node_health_score",
        "How unhealthy the member finds itself: 0 is best, 7 worst.",
        usize::try_from(status.score).unwrap_or(usize::MAX),
    );
    gauge(
        "memberlist_client_messages_in_broadcast_queue",
        "Registers that are still to be told to others.",
        queue.len,
    );
    gauge(
        "memberlist_client_messages_in_broadcast_queue_bytes",
        "Memory of the registers that are still to be told to others.",
        queue.bytes,
    );
    gauge("memberlist_client_kv_store_count", "Keys in the store.", *num_keys);
    gauge("memberlist_client_kv_store_registers", "Registers in the store.", status.registers);
    gauge("memberlist_client_kv_store_bytes", "Memory of the store, about.", status.bytes);
    gauge(
        "memberlist_client_seeds_not_members",
        "Addresses of seeds where nobody has been a member for a minute.",
        lost_seeds.len(),
    );
    gauge(
        "memberlist_client_join_attempts",
        "Rounds of asking seeds that came to nothing since the join began.",
        usize::try_from(status.join_attempts).unwrap_or(usize::MAX),
    );
    let clock_ahead_ms = clock_ahead.map_or(0, |(_, by_ms)| by_ms);
    out.gauge(
        "memberlist_client_clock_ahead_seconds",
        "How far this machine's clock is ahead of those of at least half of the members; 0 if it is not.",
        &[],
        clock_ahead_ms as f64 / 1e3,
    );
    totals(out, &status.totals);
    out.counter(
        "memberlist_client_messages_to_broadcast_dropped_total",
        "Registers of others that were not told on, because too many waited.",
        &[],
        queue.dropped as f64,
    );
    out.counter(
        "memberlist_client_unopenable_total",
        "Sealed datagrams and streams that no key opened.",
        &[],
        unopenable.0 as f64,
    );
    for key in keys {
        let mut gauge = |name, help, value: usize| {
            out.gauge(name, help, &[("key", key.key.as_str())], value as f64);
        };
        gauge(
            "memberlist_client_kv_store_value_tombstones",
            "Registers that say that something was removed, by key.",
            key.tombstones,
        );
        gauge("memberlist_client_kv_store_value_registers", "Registers by key.", key.registers);
        gauge("memberlist_client_kv_store_value_bytes", "Memory by key, about.", key.bytes);
    }
}
