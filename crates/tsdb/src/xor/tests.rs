use proptest::prelude::*;

use super::*;
use crate::STALE_NAN_BITS;

/// Collects bits as text, so that expected chunks can be written down as the format describes them.
struct Bits(String);

impl Bits {
    fn push(mut self, bits: &str) -> Self {
        self.0.extend(bits.chars().filter(|bit| matches!(bit, '0' | '1')));
        self
    }

    fn number(self, value: u64, len: usize) -> Self {
        let text = format!("{value:064b}");
        self.push(&text[64 - len..])
    }

    fn bytes(self) -> Vec<u8> {
        let mut text = self.0;
        text.extend(std::iter::repeat_n('0', (8 - text.len() % 8) % 8));
        text.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }
}

fn bits(header: &[u8]) -> Bits {
    header.iter().fold(Bits(String::new()), |bits, byte| bits.number(u64::from(*byte), 8))
}

fn chunk(samples: &[(i64, f64)]) -> XorChunk {
    let mut chunk = XorChunk::new();
    for &(time, value) in samples {
        chunk.append(time, value).unwrap();
    }
    chunk
}

fn read(bytes: &[u8]) -> Result<Vec<(i64, u64)>, Error> {
    iter(bytes).map(|sample| sample.map(|(time, value)| (time, value.to_bits()))).collect()
}

#[test]
fn an_empty_chunk_is_two_zero_bytes() {
    assert_eq!(XorChunk::new().bytes(), [0, 0]);
    assert_eq!(read(&[0, 0]), Ok(vec![]));
    assert_eq!(XorChunk::new().min_time(), None);
}

#[test]
fn the_first_sample_is_a_signed_varint_and_eight_bytes() {
    // Zigzag of 1000 is 2000 = 0x7d0, in groups of seven bits: 0x50, 0x0f. 1.0 is 0x3ff0….
    assert_eq!(chunk(&[(1000, 1.0)]).bytes(), [0, 1, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    // Zigzag of -1 is 1.
    assert_eq!(chunk(&[(-1, 0.0)]).bytes(), [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_second_sample_is_an_unsigned_varint_and_a_difference_of_values() {
    let first = [0, 2, 0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    // A difference of 15000 = 0x3a98: 0x98, 0x75. An equal value is a single 0 bit.
    let equal = bits(&first).number(0x98, 8).number(0x75, 8).push("0").bytes();
    assert_eq!(chunk(&[(0, 1.0), (15_000, 1.0)]).bytes(), equal);
    // 1.0 ^ 2.0 = 0x7ff0…: 1 leading zero, 52 trailing, 11 significant ones.
    let other = bits(&first).number(0x98, 8).number(0x75, 8).push("11 00001 001011 11111111111").bytes();
    assert_eq!(chunk(&[(0, 1.0), (15_000, 2.0)]).bytes(), other);
}

#[test]
fn changes_of_the_difference_take_the_smallest_size_that_holds_them() {
    for (change, expected) in [
        (0_i64, "0".to_owned()),
        (1, format!("10 {:014b}", 1)),
        (-1, format!("10 {:014b}", (1 << 14) - 1)),
        (8192, format!("10 {:014b}", 8192)),
        (-8191, format!("10 {:014b}", 8193)),
        (-8192, format!("110 {:017b}", (1 << 17) - 8192)),
        (8193, format!("110 {:017b}", 8193)),
        (65_536, format!("110 {:017b}", 65_536)),
        (65_537, format!("1110 {:020b}", 65_537)),
        (-65_536, format!("1110 {:020b}", (1 << 20) - 65_536)),
        (524_288, format!("1110 {:020b}", 524_288)),
        (524_289, format!("1111 {:064b}", 524_289)),
        (-524_288, format!("1111 {:064b}", -524_288_i64)),
    ] {
        // The difference is 1,000,000 (0xf4240: 0xc0 0x84 0x3d) first, then changes.
        let start = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0x84, 0x3d];
        let expected = bits(&start).push("0").push(&expected).push("0").bytes();
        let chunk = chunk(&[(0, 0.0), (1_000_000, 0.0), (2_000_000 + change, 0.0)]);
        assert_eq!(chunk.bytes(), expected, "{change}");
        assert_eq!(read(chunk.bytes()).unwrap()[2].0, 2_000_000 + change);
    }
}

#[test]
fn values_reuse_the_window_only_if_their_difference_fits_into_it() {
    let value = f64::from_bits;
    let start = [0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let chunk = chunk(&[
        (0, value(0)),
        (1, value(0xff00)), // 48 leading zeros count as 31, 8 trailing: 25 significant bits
        (2, value(0xff00 ^ 0x0100)), // fits
        (3, value(0xff00 ^ 0x0101)), // bit 0 lies outside: a new window
    ]);
    let expected = bits(&start)
        .push("11 11111 011001")
        .number(0xff, 25)
        .push("0 10")
        .number(1, 25)
        .push("0 11 11111 100001")
        .number(1, 33)
        .bytes();
    assert_eq!(chunk.bytes(), expected);
}

#[test]
fn a_window_of_all_bits_is_written_as_length_zero() {
    let chunk = chunk(&[(0, f64::from_bits(0)), (0, f64::from_bits(u64::MAX >> 1 | 1 << 63))]);
    let expected =
        bits(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).push("11 00000 000000").number(u64::MAX, 64).bytes();
    assert_eq!(chunk.bytes(), expected);
    assert_eq!(read(chunk.bytes()).unwrap()[1].1, u64::MAX);
}

#[test]
fn a_reused_window_before_any_window_means_all_bits() {
    // Prometheus writes this when it continues a chunk of one sample.
    let bytes = bits(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]).push("10").number(0xabcd, 64).bytes();
    assert_eq!(read(&bytes), Ok(vec![(0, 0), (5, 0xabcd)]));
}

#[test]
fn staleness_markers_keep_their_bits() {
    let stale = f64::from_bits(STALE_NAN_BITS);
    let other = f64::from_bits(0xfff8_0000_0000_0123);
    let chunk = chunk(&[(0, 1.0), (1, stale), (2, other), (3, stale)]);
    let values: Vec<_> = read(chunk.bytes()).unwrap().into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [1.0_f64.to_bits(), STALE_NAN_BITS, 0xfff8_0000_0000_0123, STALE_NAN_BITS]);
}

#[test]
fn a_chunk_is_full_at_65535_samples_and_stays_as_it_is() {
    let mut chunk = XorChunk::new();
    for time in 0..65_535 {
        chunk.append(time, 0.0).unwrap();
    }
    let before = chunk.bytes().to_vec();
    assert_eq!(chunk.append(65_535, 1.0), Err(Full));
    assert_eq!(chunk.bytes(), before);
    assert_eq!(chunk.iter().count(), 65_535);
}

#[test]
fn a_window_wider_than_a_value_is_corrupt() {
    let bytes = bits(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]).push("11 11111 111111").number(0, 64).bytes();
    assert_eq!(read(&bytes), Err(Error::Corrupt { sample: 2 }));
}

#[test]
fn a_header_without_samples_behind_it_is_truncated() {
    assert_eq!(read(&[]), Err(Error::Truncated { sample: 1 }));
    assert_eq!(read(&[0xff, 0xff, 0]), Err(Error::Truncated { sample: 1 }));
    assert!(iter(&[0xff, 0xff, 0]).size_hint().1.unwrap() < 10);
}

#[test]
fn chunks_are_those_of_prometheus_byte_by_byte() {
    let vectors = include_str!("../../tests/vectors/xor_chunks.txt");
    let chunks: Vec<_> = vectors.split("\nchunk ").skip(1).collect();
    assert_eq!(chunks.len(), 4);
    for vector in chunks {
        let mut lines = vector.lines();
        let hex = lines.next().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let samples: Vec<(i64, u64)> = lines
            .map(|line| {
                let (time, value) = line.split_once(' ').unwrap();
                (time.parse().unwrap(), u64::from_str_radix(value, 16).unwrap())
            })
            .collect();
        assert_eq!(read(&bytes).as_ref(), Ok(&samples));
        let values: Vec<_> = samples.iter().map(|&(time, value)| (time, f64::from_bits(value))).collect();
        let chunk = chunk(&values);
        // This version leaves an empty byte behind a chunk that ends with a whole byte; later ones do not.
        let spare = usize::from(bytes.len() > chunk.bytes().len());
        assert_eq!([chunk.bytes(), &[0][..spare]].concat(), bytes);
    }
}

/// Regular and irregular times, extreme ones, and values near each other and far apart.
fn samples() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let time = prop_oneof![
        0..100_000_i64,
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
        1_600_000_000_000..1_600_000_100_000_i64,
    ];
    let value = prop_oneof![
        any::<u64>(),
        (0..100_u32).prop_map(|value| f64::from(value).to_bits()),
        Just(STALE_NAN_BITS),
        Just(0),
    ];
    prop::collection::vec((time, value), 0..200)
}

proptest! {
    #[test]
    fn samples_come_back_as_they_went_in(samples in samples()) {
        let values: Vec<_> = samples.iter().map(|&(time, value)| (time, f64::from_bits(value))).collect();
        let chunk = chunk(&values);
        prop_assert_eq!(chunk.num_samples(), samples.len());
        prop_assert_eq!(chunk.min_time(), samples.iter().map(|sample| sample.0).min());
        prop_assert_eq!(chunk.max_time(), samples.iter().map(|sample| sample.0).max());
        prop_assert_eq!(read(chunk.bytes()), Ok(samples));
    }

    #[test]
    fn a_chunk_taken_up_again_continues_as_if_never_put_down(samples in samples(), cut in 0..200_usize) {
        let values: Vec<_> = samples.iter().map(|&(time, value)| (time, f64::from_bits(value))).collect();
        let (before, after) = values.split_at(cut.min(values.len()));
        let mut stored = chunk(before).bytes().to_vec();
        stored.extend([0xaa; 3]);
        let mut resumed = XorChunk::from_bytes(&stored).unwrap();
        for &(time, value) in after {
            resumed.append(time, value).unwrap();
        }
        let whole = chunk(&values);
        prop_assert_eq!(resumed.bytes(), whole.bytes());
        prop_assert_eq!(resumed.min_time(), whole.min_time());
        prop_assert_eq!(resumed.max_time(), whole.max_time());
    }

    #[test]
    fn a_shortened_chunk_is_an_error(samples in samples(), cut in any::<prop::sample::Index>()) {
        prop_assume!(!samples.is_empty());
        let values: Vec<_> = samples.iter().map(|&(time, value)| (time, f64::from_bits(value))).collect();
        let whole = chunk(&values);
        let short = &whole.bytes()[..cut.index(whole.bytes().len())];
        prop_assert!(read(short).is_err() || short == [0, 0]);
    }

    #[test]
    fn arbitrary_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let num_read = iter(&bytes).count();
        prop_assert!(num_read <= bytes.len() * 4 + 1);
        if let Ok(mut chunk) = XorChunk::from_bytes(&bytes) {
            let before = read(chunk.bytes()).unwrap();
            if chunk.append(7, 7.0).is_ok() {
                let after = read(chunk.bytes()).unwrap();
                prop_assert_eq!(&after[..before.len()], &before[..]);
                prop_assert_eq!(after[before.len()], (7, 7.0_f64.to_bits()));
            }
        }
    }
}
