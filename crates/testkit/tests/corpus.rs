//! Replays the fuzzers' corpora, and seeded mutations of them, through the checks that the fuzz targets use.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that cannot go on says where"
)]

use std::fs;

use bytes::Bytes;
use prost::Message as _;
use ringkit_proto::cortexpb::{Exemplar, LabelPair, Sample, TimeSeries, WriteRequest};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_tsdb::{XorChunk, log};

#[path = "../../../fuzz/src/checks.rs"]
mod checks;
#[path = "corpus/replay.rs"]
mod replay;

use replay::{DEAR, corpus, replay, replay_some};

#[test]
fn series_hold_for_the_corpus() {
    replay("series", checks::series);
}

#[test]
fn write_requests_hold_for_the_corpus() {
    replay("write_request", checks::write_request);
}

#[test]
fn logs_hold_for_the_corpus() {
    replay("log", checks::log);
}

#[test]
fn chunks_hold_for_the_corpus() {
    replay("chunk", checks::chunk);
}

#[test]
fn rings_hold_for_the_corpus() {
    replay("ring", checks::ring);
}

#[test]
fn ring_lookups_hold_for_the_corpus() {
    replay_some("ring_lookup", checks::ring_lookup, DEAR);
}

/// Where the seeds came from. Run it after adding one: `cargo test -p ringkit-testkit --test corpus -- --ignored`.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_the_seeds() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    };
    let label =
        |name: &'static str, value: &'static str| LabelPair { name: name.into(), value: value.into() };
    let sample = |timestamp_ms, value| Sample { timestamp_ms, value };
    let plain = TimeSeries {
        labels: vec![label("__name__", "up"), label("job", "a")],
        samples: vec![
            sample(1_700_000_000_000, 1.0),
            sample(1_700_000_015_000, f64::from_bits(0x7ff0_0000_0000_0002)),
        ],
        ..TimeSeries::default()
    };
    let odd = TimeSeries {
        labels: vec![label("z", ""), label("a", "1"), label("a", "2")],
        samples: vec![sample(-1, f64::INFINITY), sample(0, -0.0)],
        exemplars: vec![Exemplar { labels: vec![label("trace", "x")], value: 2.0, timestamp_ms: 5 }],
        histograms: vec![Bytes::from_static(&[8, 1])],
    };
    put("series", "plain", &plain.encode_to_vec());
    put("series", "odd", &odd.encode_to_vec());
    put("series", "empty", &[]);
    // Field 9 as a varint, then a label with its name twice, then a group.
    put("series", "unknown_field", &[9 << 3, 5]);
    put("series", "name_twice", &[1 << 3 | 2, 6, 10, 1, b'a', 10, 1, b'b']);
    put("series", "group", &[9 << 3 | 3, 9 << 3 | 4]);

    let request = |series: &[&TimeSeries]| {
        let timeseries = series.iter().map(|series| series.encode_to_vec().into()).collect();
        let request = WriteRequest { timeseries, ..WriteRequest::default() };
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
    };
    put("write_request", "two_series", &request(&[&plain, &odd]));
    put(
        "write_request",
        "bare",
        &snap::raw::Decoder::new().decompress_vec(&request(&[&plain, &odd])).unwrap(),
    );
    put("write_request", "none", &request(&[]));
    put("write_request", "claims_4_gib", &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    put("write_request", "claims_more_than_it_has", &[0x40, 0, b'x']);

    let mut chunk = XorChunk::new();
    put("chunk", "empty", chunk.bytes());
    for (t, value) in
        [(1000, 1.0), (2000, 1.0), (3001, 2.5), (2500, f64::NAN), (i64::MAX, f64::MIN), (i64::MIN, -0.0)]
    {
        chunk.append(t, value).unwrap();
        put("chunk", &format!("{}_samples", chunk.num_samples()), chunk.bytes());
    }
    put("chunk", "claims_65535_samples", &[0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut long = XorChunk::new();
    for i in 0..120_u32 {
        long.append(i64::from(i) * 15_000 + i64::from(i % 7), f64::from(i * i) / 3.0).unwrap();
    }
    put("chunk", "120_samples", long.bytes());

    let mut segment = Vec::new();
    log::put_series(&mut segment, 1, "team-a", [(&b"__name__"[..], &b"up"[..]), (b"job", b"a")].into_iter())
        .unwrap();
    log::put_samples(&mut segment, [(1, 1000, 1.5), (1, 2000, f64::NAN)].into_iter()).unwrap();
    log::put_chunk(&mut segment, 1, chunk.bytes()).unwrap();
    log::put_tenant_removed(&mut segment, "team-a").unwrap();
    put("log", "every_kind", &segment);
    put("log", "torn", &segment[..segment.len() - 3]);
    let mut flipped = segment.clone();
    flipped[12] ^= 1;
    put("log", "flipped_bit", &flipped);
    // Contents without their frame, which the check puts around them.
    for (name, end) in [("series_content", 40), ("whole_content", segment.len())] {
        put("log", name, &segment[8..end.min(segment.len())]);
    }

    let instance = |addr: &str, state, tokens: Vec<u32>| InstanceDesc {
        addr: addr.into(),
        timestamp: 1_700_000_000,
        state,
        tokens: tokens.into(),
        zone: "a".into(),
        registered_timestamp: 1_600_000_000,
        ..InstanceDesc::default()
    };
    let mut desc = Desc::new();
    put("ring", "empty", &desc.encode());
    desc.insert("i1", instance("10.0.0.1:9095", State::Active, vec![1, 1 << 31, u32::MAX]));
    desc.insert("i2", instance("", State::Left, vec![]));
    desc.insert("i3", instance("10.0.0.3:9095", State::Unknown(77), vec![5]));
    let stored = desc.encode();
    put("ring", "three", &stored);
    put("ring", "three_bare", &snap::raw::Decoder::new().decompress_vec(&stored).unwrap());
    // Ways to ask: options, operation, time, length of the first ring, key; then this ring and a later one.
    let bare = |desc: &Desc| snap::raw::Decoder::new().decompress_vec(&desc.encode()).unwrap();
    let zones = ["a", "b", "", "a", "c"];
    let owner = |n: u32, at: i64| InstanceDesc {
        zone: zones[n as usize % 5].into(),
        timestamp: at,
        ..instance(&format!("{n}:1"), State::from_i32(n as i32 % 7), vec![n * 7, 10, u32::MAX - n, n])
    };
    let some = |from: u32, to: u32, at: i64| -> Desc {
        (from..to).map(|n| (format!("i{n}"), owner(n, at))).collect()
    };
    let active: Desc = (0..6u32)
        .map(|n| {
            (
                format!("i{n}"),
                InstanceDesc { state: State::Active, tokens: vec![n * 100].into(), ..owner(n, 100) },
            )
        })
        .collect();
    let ask = |name: &str, head: [u8; 3], key: u32, first: &Desc, second: &Desc| {
        let (first, second) = (bare(first), bare(second));
        let split = u16::try_from(first.len()).unwrap().to_le_bytes();
        put("ring_lookup", name, &[&head[..], &split, &key.to_le_bytes(), &[3], &first, &second].concat());
    };
    ask("healthy", [3, 0, 0], 250, &active, &active);
    ask("zones", [3 | 8, 0, 0], 250, &active, &some(2, 8, 101));
    ask("states", [3 | 8, 2, 0], 9, &some(0, 7, 100), &some(0, 7, 160));
    ask("ignore_unhealthy", [2 | 16, 0, 1], 9, &some(0, 9, 100), &active);
    ask("excluded", [5 | 8 | 64, 2, 0], u32::MAX, &some(0, 9, 100), &some(3, 12, 99));
    ask("dskit", [3 | 8 | 128, 17, 0], 9, &some(0, 7, 100), &some(2, 9, 160));
    ask("fixes", [3 | 8, 0, 1 | 16 | 32], 9, &some(0, 9, 150), &some(2, 9, 160));
    ask("joins", [1 | 32, 3, 0], 0, &Desc::new(), &active);
    ask("all_leave", [4, 1, 2], 0, &active, &Desc::new());
    put("ring", "unsorted_tokens", &[10, 12, 10, 1, b'i', 18, 7, 50, 2, 9, 3, 16, 1, 24]);
}
