//! Gossip.

use std::time::Duration;

use crate::{
    problems::Rules,
    schema::section,
    units::{Secret, choice},
};

choice! {
    /// How gossip travels that may get lost. What may not goes over TCP in any case.
    pub enum PacketTransport {
        /// Over TCP if TLS is used and nothing is sealed, so that nothing leaves in clear; else by UDP.
        Auto = "auto",
        /// By UDP.
        Udp = "udp",
        /// Over TCP, where UDP is blocked.
        Tcp = "tcp",
    }
}

choice! {
    /// The language of gossip.
    pub enum Dialect {
        /// That of ringkit.
        Native = "native",
    }
    not { "hashicorp" => "is the language of Cortex, which ringkit does not speak yet: all members of a cluster must be ringkit's" }
}

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
        /// Use TLS for all streams. Datagrams then go over streams too, unless they are sealed: see `packet_transport`.
        pub tls_enabled: bool = false, "tls-enabled";
        /// Certificate file (PEM) of this member, shown to those who connect.
        pub tls_cert_path: String, "tls-cert-path";
        /// Key file (PEM) of this member.
        pub tls_key_path: String, "tls-key-path";
        /// CA certificates file (PEM) by which others are verified; the system's if empty.
        pub tls_ca_path: String, "tls-ca-path";
        /// Name expected in a member's certificate; its address if empty.
        pub tls_server_name: String, "tls-server-name";
        /// Do not verify a member's certificate.
        pub tls_insecure_skip_verify: bool = false, "tls-insecure-skip-verify";
        /// Language of gossip: native. All members must speak the same.
        pub dialect: Dialect, "dialect";
        /// Largest datagram, in bytes: 600 to 65507. All of it must fit through every network between members.
        pub packet_size: usize = 1400, "packet-size";
        /// How datagrams travel: udp, tcp, or auto, which is tcp if TLS is used without encryption keys.
        pub packet_transport: PacketTransport, "packet-transport";
        /// Keys that gossip is sealed with, base64 of 16, 24 or 32 bytes each: the first seals, all of them open.
        pub encryption_keys: Vec<Secret>, "encryption-keys";
        /// File with such keys, one per line, which is read again when it changes. Instead of `encryption_keys`.
        pub encryption_keys_file: String, "encryption-keys-file";
        /// Refuse what is not sealed, if there are keys. False while sealing is being introduced.
        pub require_encryption: bool = true, "require-encryption";
        /// How far ahead of this member's clock an entry of another may be; what is further ahead is refused.
        pub max_clock_skew: Duration = Duration::from_secs(60), "max-clock-skew";
        /// How long removed entries are remembered: longer than any member is cut off and then comes back with what it has.
        pub tombstone_horizon: Duration = Duration::from_secs(24 * 60 * 60), "tombstone-horizon";
        /// Directory in which a member keeps the number of its life, for machines whose clock may jump back over a restart; none if empty.
        pub state_dir: String, "state-dir";
        /// Most members of a cluster.
        pub max_members: usize = 20_000, "max-members";
        /// Other labels that are understood beside `cluster_label`, to change it.
        pub cluster_label_accept: Vec<String>, "cluster-label-accept";
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
            tls_cert_path,
            tls_key_path,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
            dialect: _,
            packet_size,
            packet_transport: _,
            encryption_keys,
            encryption_keys_file,
            require_encryption: _,
            max_clock_skew,
            tombstone_horizon,
            state_dir: _,
            max_members,
            cluster_label_accept,
        } = self;
        rules.require(cluster_label.len() <= LONGEST_LABEL, "cluster_label", "is longer than 255 bytes");
        rules.require(
            cluster_label_accept.iter().all(|label| label.len() <= LONGEST_LABEL),
            "cluster_label_accept",
            "has a label that is longer than 255 bytes",
        );
        rules.require(
            min_join_backoff <= max_join_backoff,
            "min_join_backoff",
            "is longer than `max_join_backoff`",
        );
        rules.require(!used || !gossip_interval.is_zero(), "gossip_interval", "must be longer than 0");
        rules.require(
            tls_cert_path.is_empty() == tls_key_path.is_empty(),
            "tls_cert_path",
            "goes with `tls_key_path`: give both or neither",
        );
        rules.require(
            !tls_enabled || !tls_cert_path.is_empty(),
            "tls_cert_path",
            "is empty: with `tls_enabled` every member shows a certificate to those who connect",
        );
        rules.require((600..=65_507).contains(packet_size), "packet_size", "must be 600 to 65507 bytes");
        rules.require(
            encryption_keys.is_empty() || encryption_keys_file.is_empty(),
            "encryption_keys_file",
            "is set beside `encryption_keys`: use one of them",
        );
        rules.require(!max_clock_skew.is_zero(), "max_clock_skew", "must be longer than 0");
        rules.require(
            *tombstone_horizon >= Duration::from_secs(60),
            "tombstone_horizon",
            "must be 1m at least: removed entries would come back",
        );
        rules.require(*max_members >= 2, "max_members", "must be 2 at least");
        rules.advise(
            !used || !join_members.is_empty(),
            "join_members",
            "is empty, but a ring is on memberlist: this process stays alone unless others join it",
        );
    }
}
