//! What must hold for arbitrary bytes, whoever sent them: no panic, no memory beyond what the input justifies, and answers
//! that agree with each other. Used by the fuzz targets and by the test that replays their corpora.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use ringkit_kv::Codec as _;
use ringkit_proto::{SeriesView, WalkError, cortexpb};
use ringkit_ring::{Desc, RingCodec};
use ringkit_tsdb::{XorChunk, log, xor};

mod lookups;

pub use lookups::ring_lookup;

/// Bodies that claim to be larger are refused before they are decoded, as the services do.
const MAX_DECODED_BYTES: usize = 1 << 20;

/// One encoded series: the walker accepts exactly what prost accepts (groups aside) and reads the same from it.
pub fn series(bytes: &[u8]) {
    let decoded = cortexpb::TimeSeries::decode(Bytes::copy_from_slice(bytes));
    let (view, decoded) = match (SeriesView::parse(bytes), decoded) {
        (Ok(view), Ok(decoded)) => (view, decoded),
        // Groups: prost skips unknown ones.
        (Err(WalkError::Key(_)), Ok(_)) | (Err(_), Err(_)) => return,
        (Ok(_), Err(error)) => panic!("the walker accepts what prost refuses: {error}"),
        (Err(error), Ok(_)) => panic!("the walker refuses what prost accepts: {error}"),
    };
    let labels: Vec<_> = decoded.labels.iter().map(|label| (&label.name[..], &label.value[..])).collect();
    assert_eq!(view.labels().collect::<Vec<_>>(), labels);
    let samples = decoded.samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
    assert!(view.samples().map(|(t, value)| (t, value.to_bits())).eq(samples));
    assert_eq!((view.num_labels(), view.num_samples()), (decoded.labels.len(), decoded.samples.len()));
    assert_eq!(
        (view.num_exemplars(), view.num_histograms()),
        (decoded.exemplars.len(), decoded.histograms.len())
    );
}

/// The body of a remote write.
pub fn write_request(bytes: &[u8]) {
    body(bytes);
    // Behind the compression.
    if let Ok(compressed) = snap::raw::Encoder::new().compress_vec(bytes) {
        body(&compressed);
    }
}

fn body(bytes: &[u8]) {
    let Ok(claimed) = snap::raw::decompress_len(bytes) else { return };
    if claimed > MAX_DECODED_BYTES {
        return;
    }
    let Ok(body) = snap::raw::Decoder::new().decompress_vec(bytes) else { return };
    let Ok(request) = cortexpb::WriteRequest::decode(Bytes::from(body)) else { return };
    for one in &request.timeseries {
        series(one);
    }
}

/// A segment of the write-ahead log: whole records come out, then the end or one error, at the place where it is.
pub fn log(bytes: &[u8]) {
    segment(bytes);
    // The checksum keeps most bytes from getting further: give them a true one, too.
    let mut framed = Vec::with_capacity(bytes.len() + 8);
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    framed.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    framed.extend_from_slice(bytes);
    segment(&framed);
}

fn segment(bytes: &[u8]) {
    let mut reader = log::Reader::new(bytes);
    let mut records = 0;
    while let Some(record) = reader.next() {
        match record {
            Ok(record) => {
                records += 1;
                each_part(record);
            }
            Err(error) => {
                assert_eq!(error.offset(), reader.offset());
                assert!(reader.next().is_none(), "a reader goes on after an error");
            }
        }
    }
    assert!(reader.offset() <= bytes.len());
    // What was read whole is a whole log.
    let whole = log::Reader::new(&bytes[..reader.offset()]);
    assert_eq!(
        whole.map(|record| record.map(drop)).collect::<Result<Vec<_>, _>>().map(|all| all.len()),
        Ok(records)
    );
}

fn each_part(record: log::Record<'_>) {
    match record {
        log::Record::Series { labels, .. } => drop(labels.collect::<Vec<_>>()),
        log::Record::Samples(samples) => drop(samples.collect::<Vec<_>>()),
        log::Record::Chunk { data, .. } => chunk(data),
        _ => {}
    }
}

/// An XOR chunk: as many samples as announced or an error; encoded again, the same samples come out.
pub fn chunk(bytes: &[u8]) {
    let announced = xor::iter(bytes).announced();
    let samples: Vec<_> = xor::iter(bytes).collect();
    assert!(samples.len() <= announced.max(1));
    let taken_up = XorChunk::from_bytes(bytes);
    let Ok(samples) = samples.into_iter().collect::<Result<Vec<_>, _>>() else {
        assert!(taken_up.is_err());
        return;
    };
    let bits =
        |samples: &[(i64, f64)]| samples.iter().map(|(t, value)| (*t, value.to_bits())).collect::<Vec<_>>();
    let read = |chunk: &[u8]| bits(&xor::iter(chunk).collect::<Result<Vec<_>, _>>().unwrap_or_default());
    assert_eq!(samples.len(), announced);
    let mut again = XorChunk::new();
    for (t, value) in &samples {
        assert!(again.append(*t, *value).is_ok());
    }
    assert_eq!(read(again.bytes()), bits(&samples));
    // Taken up and continued, the old samples stay and the new one is there.
    let Ok(mut continued) = taken_up else { panic!("a chunk that can be read cannot be continued") };
    if continued.append(7, 1.5).is_ok() {
        let mut expected = bits(&samples);
        expected.push((7, 1.5_f64.to_bits()));
        assert_eq!(read(continued.bytes()), expected);
    }
}

/// A stored ring: split into entries and joined again it stays what it is.
pub fn ring(bytes: &[u8]) {
    stored_ring(bytes);
    // Behind the compression.
    if let Ok(compressed) = snap::raw::Encoder::new().compress_vec(bytes) {
        stored_ring(&compressed);
    }
}

fn stored_ring(stored: &[u8]) {
    let desc = Desc::decode(stored);
    let Ok(entries) = RingCodec.split(stored) else {
        assert!(desc.is_err(), "decoded as a whole, but not into entries");
        return;
    };
    let joined = RingCodec.join(&entries);
    let again: BTreeMap<_, _> = RingCodec.split(&joined).unwrap_or_default();
    assert_eq!(again, entries);
    let all_fine = entries.iter().all(|(id, entry)| RingCodec.check_entry(id, entry).is_ok());
    if let Ok(desc) = desc {
        assert!(all_fine, "decoded as a whole, but an entry is refused");
        assert_eq!(Desc::decode(&desc.encode()).as_ref(), Ok(&desc));
    }
}
