//! Replays the fuzzers' corpora of what comes to members, and seeded mutations of them, through the checks that the fuzz targets
//! use.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that cannot go on says where"
)]

#[allow(dead_code, reason = "some of it is for those who make seeds")]
#[path = "../../../fuzz/src/gossip.rs"]
mod gossip;
#[path = "../../testkit/tests/corpus/replay.rs"]
mod replay;

use replay::{DEAR, replay, replay_some};

#[test]
fn members_stand_the_corpus_of_datagrams() {
    replay_some("gossip_datagram", gossip::datagram, DEAR);
}

#[test]
fn members_stand_the_corpus_of_streams() {
    replay_some("gossip_stream", gossip::stream, DEAR);
}

#[test]
fn members_who_seal_stand_the_corpus_of_what_is_sealed() {
    replay_some("gossip_seal", gossip::seal, DEAR);
}

#[test]
fn records_hold_for_the_corpus() {
    replay("gossip_record", gossip::record);
}
