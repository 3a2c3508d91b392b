//! Gossip.

use std::time::Duration;

use crate::{ingester::NO_TLS, problems::Rules, schema::section};

section! {
    /// Gossip among the processes themselves.
    pub struct MemberlistConfig {
        /// Name of this member; this machine's name if empty.
        pub node_name: String, "nodename";
        /// Add a random suffix to the name.
        pub randomize_node_name: bool = true, "randomize-node-name";
        /// Longest time for a stream.
        pub stream_timeout: Duration = Duration::from_secs(10), "stream-timeout";
        /// How often a message is passed on, times the logarithm of the number of members.
        pub retransmit_factor: usize = 4, "retransmit-factor";
        /// Time between two exchanges of the full state.
        pub pull_push_interval: Duration = Duration::from_secs(30), "pullpush-interval";
        /// Time between two rounds of gossip.
        pub gossip_interval: Duration = Duration::from_millis(200), "gossip-interval";
        /// Members that a round goes to.
        pub gossip_nodes: usize = 3, "gossip-nodes";
        /// How long gossip still goes to a dead member.
        pub gossip_to_dead_nodes_time: Duration = Duration::from_secs(30), "gossip-to-dead-nodes-time";
        /// How long after its death a member's name may not be taken from another address.
        pub dead_node_reclaim_time: Duration = Duration::ZERO, "dead-node-reclaim-time";
        /// Compress messages.
        pub compression_enabled: bool = true, "compression-enabled";
        /// Address to advertise; found by the interfaces if empty.
        pub advertise_addr: String, "advertise-addr";
        /// Port to advertise.
        pub advertise_port: u16 = 7946, "advertise-port";
        /// Name that all members of a cluster share, at most 255 bytes.
        pub cluster_label: String, "cluster-label";
        /// Accept members with another label, to introduce one.
        pub cluster_label_verification_disabled: bool = false, "cluster-label-verification-disabled";
        /// Members to join: host:port, or dns+, dnssrv+, dnssrvnoa+ names.
        pub join_members: Vec<String>, "join";
        /// Least wait between attempts to join.
        pub min_join_backoff: Duration = Duration::from_secs(1), "min-join-backoff";
        /// Longest wait between attempts to join.
        pub max_join_backoff: Duration = Duration::from_secs(60), "max-join-backoff";
        /// Attempts to join.
        pub max_join_retries: usize = 10, "max-join-retries";
        /// End the process if it cannot join. Also read as `abort_if_join_fails`.
        pub abort_if_cluster_join_fails: bool = true, "abort-if-join-fails";
        /// Time between two attempts to join again, to heal a split; 0 means never.
        pub rejoin_interval: Duration = Duration::ZERO, "rejoin-interval";
        /// How long an instance that left stays known as such.
        pub left_ingesters_timeout: Duration = Duration::from_secs(300), "left-ingesters-timeout";
        /// How long a removed entry stays known as such.
        pub tombstone_timeout: Duration = Duration::from_secs(300), "tombstone-timeout";
        /// Longest wait at shutdown for the others to hear of it.
        pub leave_timeout: Duration = Duration::from_secs(5), "leave-timeout";
        /// Bytes of messages kept for the status page, sent and received each; 0 means none.
        pub message_history_buffer_bytes: usize = 0, "message-history-buffer-bytes";
        /// Addresses to listen on; all if empty.
        pub bind_addr: Vec<String>, "bind-addr";
        /// Port to listen on, UDP and TCP.
        pub bind_port: u16 = 7946, "bind-port";
        /// Longest wait for a connection.
        pub packet_dial_timeout: Duration = Duration::from_secs(5), "packet-dial-timeout";
        /// Longest time to write a packet.
        pub packet_write_timeout: Duration = Duration::from_secs(5), "packet-write-timeout";
        /// Longest time to read a packet.
        pub packet_read_timeout: Duration = Duration::from_secs(5), "packet-read-timeout";
        /// Largest packet, in bytes.
        pub max_packet_size: usize = 1_048_576, "max-packet-size";
        /// Most connections at once.
        pub max_concurrent_connections: usize = 100, "max-concurrent-connections";
        /// Use TLS (not built yet: an error if true).
        pub tls_enabled: bool = false, "tls-enabled";
        /// Certificate file (PEM).
        pub tls_cert_path: String, "tls-cert-path", unused;
        /// Key file (PEM).
        pub tls_key_path: String, "tls-key-path", unused;
        /// CA certificates file (PEM).
        pub tls_ca_path: String, "tls-ca-path", unused;
        /// Name expected in a member's certificate.
        pub tls_server_name: String, "tls-server-name", unused;
        /// Do not verify a member's certificate.
        pub tls_insecure_skip_verify: bool = false, "tls-insecure-skip-verify", unused;
    }
}

impl MemberlistConfig {
    pub(crate) fn validate(&self, used: bool, rules: &mut Rules<'_>) {
        const LONGEST_LABEL: usize = 255;
        let Self {
            node_name: _,
            randomize_node_name: _,
            stream_timeout: _,
            retransmit_factor: _,
            pull_push_interval: _,
            gossip_interval,
            gossip_nodes: _,
            gossip_to_dead_nodes_time: _,
            dead_node_reclaim_time: _,
            compression_enabled: _,
            advertise_addr: _,
            advertise_port: _,
            cluster_label,
            cluster_label_verification_disabled: _,
            join_members,
            min_join_backoff,
            max_join_backoff,
            max_join_retries: _,
            abort_if_cluster_join_fails: _,
            rejoin_interval: _,
            left_ingesters_timeout: _,
            tombstone_timeout: _,
            leave_timeout: _,
            message_history_buffer_bytes: _,
            bind_addr: _,
            bind_port: _,
            packet_dial_timeout: _,
            packet_write_timeout: _,
            packet_read_timeout: _,
            max_packet_size: _,
            max_concurrent_connections: _,
            tls_enabled,
            tls_cert_path: _,
            tls_key_path: _,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
        } = self;
        rules.require(cluster_label.len() <= LONGEST_LABEL, "cluster_label", "is longer than 255 bytes");
        rules.require(
            min_join_backoff <= max_join_backoff,
            "min_join_backoff",
            "is longer than `max_join_backoff`",
        );
        rules.require(!used || !gossip_interval.is_zero(), "gossip_interval", "must be longer than 0");
        rules.require(!tls_enabled, "tls_enabled", NO_TLS);
        rules.advise(
            !used || !join_members.is_empty(),
            "join_members",
            "is empty, but a ring is on memberlist: this process stays alone unless others join it",
        );
    }
}
