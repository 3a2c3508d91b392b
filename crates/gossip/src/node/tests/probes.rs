//! Members that no datagram reaches are asked over streams.

use super::*;
use crate::swim::{MemberState, State};
use crate::wire::MemberEntry;

fn state(net: &Net, of: u8, on: u8) -> State {
    let members = net.node(of).members();
    members.iter().find(|member| member.id == net.node(on).id()).unwrap().state
}

/// The answer that is made up for the membership engine would leave it suspected, if it told what was known before.
#[test]
fn who_answers_over_a_stream_refutes_what_it_is_suspected_of() {
    let mut net = Net::cluster(2);
    net.deaf.insert(addr(2));
    let suspect = MemberState { id: net.node(2).id(), incarnation: 0, state: State::Suspect };
    let now = net.now(addr(1));
    let node = net.nodes.get_mut(&addr(1)).unwrap();
    node.swim.apply(now, [suspect], &mut SwimOut::default());
    assert_eq!(state(&net, 1, 2), State::Suspect);
    net.run(secs(10));
    assert_eq!(state(&net, 1, 2), State::Alive);
    assert_eq!(net.node(1).swim.export().find(|member| member.id == suspect.id).unwrap().incarnation, 1);
}

#[test]
fn suspicions_of_others_are_told_in_sessions_only() {
    let mut net = Net::cluster(3);
    let hello = Frame::Hello {
        version: VERSION,
        label: SmolStr::default(),
        node: net.node(2).id(),
        name: "m2".into(),
        build: SmolStr::default(),
        settled: true,
    };
    let about = MemberEntry { node: net.node(3).id(), incarnation: 0, state: 1 };
    let id = StreamId(1_000_000);
    net.give(1, Given::Opened(id, addr(2)));
    for frame in [hello, Frame::Members(vec![about])] {
        let bytes = frame.encode().unwrap();
        let first: &[u8] = if matches!(frame, Frame::Hello { .. }) { &[MAGIC] } else { &[] };
        net.give(1, Given::Data(id, [first, &bytes[..]].concat().into()));
    }
    assert!(net.refused(1, "out_of_turn"));
    assert_eq!(state(&net, 1, 3), State::Alive);
}
