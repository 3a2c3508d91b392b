//! The stored form, and tokens for newcomers.

use ringkit_ring::{Desc, TokenGenerator};

use crate::common::rings::{Zone, ring};
use crate::common::{Goal, Row, go_codec, go_rand, go_ring, timed};

/// The whole ring encoded and decoded.
pub(crate) fn codec(instances: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (names, tokens, recorded) in [
        (["encode", "decode"], 128, [[160_000, 1_800_000, 27_000_000], [170_000, 2_100_000, 15_000_000]]),
        (["encode, 512 tokens", "decode, 512 tokens"], 512, [[0; 3]; 2]),
    ] {
        let desc = ring(instances, tokens, Zone::Healthy);
        let plain = go_codec::owned(&desc);
        let (stored, their_stored) = (desc.encode(), go_codec::encode(&plain));
        assert_eq!(Desc::decode(&their_stored).as_ref(), Ok(&desc), "both arms mean the same");
        assert_eq!(go_codec::decode(&stored).as_ref(), Some(&plain), "both arms mean the same");
        let ours = timed(move || desc.encode());
        let go = timed(move || go_codec::encode(&plain));
        rows.push(Row::new(names[0], instances, Goal::OneIn(3), ours).against(go).recorded(recorded[0]));
        let ours = timed(move || Desc::decode(&stored));
        let go = timed(move || go_codec::decode(&their_stored));
        rows.push(Row::new(names[1], instances, Goal::OneIn(3), ours).against(go).recorded(recorded[1]));
    }
    rows
}

/// Tokens for one more instance.
pub(crate) fn tokens(instances: usize) -> Vec<Row> {
    let desc = ring(instances, 128, Zone::Healthy);
    let entries = go_ring::entries(&desc);
    let mut generator = TokenGenerator::random(Some(3));
    let ours = timed(move || generator.generate(128, &desc));
    let go = timed(move || go_rand::generate_tokens(128, &go_ring::all_tokens(&entries), 3));
    let row = Row::new("random tokens for one instance", instances, Goal::OneIn(10), ours).against(go);
    vec![row.recorded([1_300_000, 18_000_000, 0])]
}
