//! Batches that the clients of a pipeline compress, and some of them that nobody can read.
//!
//! A site never looks into a compressed batch when it takes it, so whatever is in it has to be dealt with by who reads it. A
//! pipeline makes *one* bad record of a batch that cannot be read to its end: at its first offset, with the batch as payload.
//! Where the harness reads a topic itself it makes the same of such a batch, from its drawing and not by the code
//! of the pipelines.
//!
//! Never: a batch that the site would refuse; what is wrong lies inside of what is compressed, or is how many records the header
//! says that there are.

use super::foreign::request;
use bytes::Bytes;
use fulmar_client::{Cluster, Fetched, ReadRecord, TopicPartition, WriteRecord};
use fulmar_host::time;
use fulmar_types::Offset;
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::{Batch, BatchBuilder, BatchHeader, Compression, HEADER_BYTES};
use fulmar_wire::compression::compress;
use std::time::Duration;

/// Behind the length of a batch its bytes are counted.
const LENGTH_END: usize = 12;

/// From here on the checksum covers a batch.
const CRC_START: usize = 21;

/// The base offset and the leader epoch in a batch are its site's; here are those that it comes with.
const BASE_OFFSET: std::ops::Range<usize> = 0..8;
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    /// Something stands behind the records.
    Surplus,
    /// There are more records than the header says.
    TooFewSaid,
    /// There are fewer.
    TooManySaid,
    /// The last record ends too early.
    CutOff,
    /// What is compressed is cut off.
    Torn,
}

impl Damage {
    pub(super) const ALL: [Self; 5] =
        [Self::Surplus, Self::TooFewSaid, Self::TooManySaid, Self::CutOff, Self::Torn];
}

/// A batch of at least two records, as a producer without a producer id sends it.
pub(super) fn packed(records: &[WriteRecord], codec: Compression, damage: Option<Damage>) -> Bytes {
    assert!(records.len() >= 2, "a batch of which one record can be hidden");
    let mut batch = BatchBuilder::new();
    for WriteRecord { timestamp_ms, key, value, .. } in records {
        let pushed = batch.push(*timestamp_ms, key.as_deref(), value.as_deref(), &[]);
        pushed.expect("a few small records");
    }
    let plain = batch.build().expect("it has records");
    let (header, inside) = plain.split_at(HEADER_BYTES);
    let (mut inside, mut count) = (inside.to_vec(), records.len() as i32);
    match damage {
        Some(Damage::Surplus) => inside.push(0),
        Some(Damage::TooFewSaid) => count -= 1,
        Some(Damage::TooManySaid) => count += 1,
        Some(Damage::CutOff) => inside.truncate(inside.len() - 1),
        Some(Damage::Torn) | None => {}
    }
    let mut compressed = compress(codec, &inside).to_vec();
    if let Some(Damage::Torn) = damage {
        compressed.truncate(compressed.len() / 2);
    }
    let mut bytes = [header, &compressed].concat();
    let length = (bytes.len() - LENGTH_END) as i32;
    bytes[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    bytes[CRC_START..23].copy_from_slice(&(codec as i16).to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// A batch as it was sent, wherever a site has put it.
fn as_sent(batch: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[BASE_OFFSET].fill(0);
    bytes[LEADER_EPOCH].fill(0xff);
    bytes.into()
}

/// What a batch is that cannot be read: at its first offset a record with the batch as payload, and nothing at the
/// others.
pub(super) fn unreadable(batch: &[u8], base: Offset) -> Vec<ReadRecord> {
    let header = BatchHeader::read(batch).expect("a batch");
    let count = u64::from(header.last_offset_delta.unsigned_abs()) + 1;
    let at = |number: u64| ReadRecord {
        offset: base.plus(number),
        timestamp_ms: 0,
        key: None,
        value: (number == 0).then(|| as_sent(batch)),
        headers: Vec::new(),
    };
    (0..count).map(at).collect()
}

/// Whether nothing is at this offset, since it is one of a batch that cannot be read.
pub(super) fn is_nothing(record: &ReadRecord) -> bool {
    record.key.is_none() && record.value.is_none()
}

/// The records of a batch from an offset on.
///
/// # Errors
/// If it is one that nobody compressed, and damaged all the same.
pub(super) fn records(fetched: &Fetched, batch: &Batch) -> Option<Vec<ReadRecord>> {
    let batches = vec![batch.clone()];
    let alone = Fetched { batches, ..Fetched { batches: Vec::new(), ..*fetched } };
    if let Ok(records) = alone.records() {
        return Some(records);
    }
    let base = u64::try_from(batch.header().base_offset).ok()?;
    let mut records = unreadable(batch.bytes(), Offset(base));
    records.retain(|record| record.offset >= fetched.offset);
    (batch.compression() != Compression::None).then_some(records)
}

/// Sends a batch once. Where it is, if somebody said so.
pub(super) async fn send(
    cluster: &Cluster,
    to: &TopicPartition,
    batch: Bytes,
    within: Duration,
) -> Option<Offset> {
    let leader = cluster.leader(to, time::now() + within).await.ok()?;
    let answer = leader.connection.call(&request(to, Some(batch)), within).await;
    let base = answer.ok().and_then(|answer| {
        let mut partitions = answer.responses.iter().flat_map(|of| &of.partition_responses);
        let of = partitions.next().filter(|of| of.error_code == ErrorCode::None)?;
        u64::try_from(of.base_offset).ok()
    });
    if base.is_none() {
        cluster.forget_leader(to, leader.epoch);
    }
    base.map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::batch::RecordIter;
    use fulmar_wire::compression::decompress;

    fn is_readable(batch: &Bytes) -> bool {
        let batch = Batch::from_producer(batch.clone(), 1 << 20).expect("a site takes it");
        let plain = decompress(batch.compression(), &batch.record_bytes(), 1 << 20);
        plain.is_ok_and(|plain| RecordIter::over(batch.header(), plain).all(|of| of.is_ok()))
    }

    #[test]
    fn a_site_takes_what_nobody_can_read() {
        let record = |at: i64| WriteRecord {
            timestamp_ms: at,
            key: Some("dev-1".into()),
            value: Some(Bytes::from(format!("{{\"k\":\"dev-1\",\"v\":7,\"at\":{at}}}"))),
            headers: Vec::new(),
        };
        let records = [record(5), record(70), record(6)];
        for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
            for count in 2..=records.len() {
                assert!(is_readable(&packed(&records[..count], codec, None)), "{codec:?}");
                for damage in Damage::ALL {
                    let batch = packed(&records[..count], codec, Some(damage));
                    assert!(!is_readable(&batch), "{codec:?} {damage:?}");
                    let made = unreadable(&batch, Offset(7));
                    assert_eq!(made[0].value.as_ref(), Some(&batch), "{codec:?} {damage:?}");
                }
            }
        }
    }
}
