//! What comes out of an epoch, as record batches by topic and partition.
//!
//! A record with a key goes to the partition that Kafka's default partitioner would take. One without
//! goes, with all others of its epoch, to a partition that follows from the number of the epoch.
//!
//! Invariant: the same records and the same numbers give the same bytes in the same order.

use super::record::Written;
use bytes::Bytes;
use fulmar_wire::batch::BatchBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a record takes in a batch besides key, payload and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// What a header takes besides its name and value, at most.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// A batch for a partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputBatch {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The batch, with base offset 0.
    pub batch: Bytes,
    /// How many records it has.
    pub records: u32,
}

/// How outputs are cut and spread.
#[derive(Clone, Copy, Debug)]
pub struct Cutting<'a> {
    /// The number of partitions of each topic; 1 if it is not there.
    pub partitions: &'a BTreeMap<String, u32>,
    /// The number of the epoch.
    pub epoch: u64,
    /// Bytes of a batch, if it has more than one record.
    pub batch_bytes_max: usize,
}

/// Makes batches of the records of an epoch, one after the other: an epoch may have hundreds of thousands, so
/// others can be let in between.
#[derive(Debug)]
pub struct Cutter<'a> {
    cutting: Cutting<'a>,
    places: BTreeMap<(Arc<str>, u32), Place>,
    hasher: blake3::Hasher,
}

/// A partition of a topic.
#[derive(Debug, Default)]
struct Place {
    full: Vec<(Bytes, u32)>,
    open: BatchBuilder,
}

impl Place {
    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        let records = open.record_count();
        self.full.extend(open.build().map(|batch| (batch, records)));
    }
}

impl<'a> Cutter<'a> {
    /// Without a record.
    pub fn new(cutting: Cutting<'a>) -> Self {
        Self { cutting, places: BTreeMap::new(), hasher: blake3::Hasher::new() }
    }

    /// The next record.
    pub fn push(&mut self, record: &Written) {
        hash(&mut self.hasher, record);
        let count = self.cutting.partitions.get(&*record.topic).copied().unwrap_or(1).max(1);
        let partition = match &record.key {
            Some(key) => (murmur2(key) & 0x7fff_ffff) % count,
            None => (self.cutting.epoch % u64::from(count)) as u32,
        };
        let place = self.places.entry((Arc::clone(&record.topic), partition)).or_default();
        let is_full = place.open.batch_bytes() + bytes_of(record) > self.cutting.batch_bytes_max;
        if is_full || !push(&mut place.open, record) {
            place.close();
            // A batch takes any first record: no text of ours comes near to 2 GiB.
            push(&mut place.open, record);
        }
    }

    /// A digest of the records in their order, for comparing what came out once with what comes out again. It
    /// says nothing of partitions: a topic that was deleted may be there again with another number of them.
    pub fn digest(&self) -> [u8; 16] {
        *self.hasher.finalize().as_bytes().first_chunk().expect("a digest has 32 bytes")
    }

    /// The batches: by topic and partition, each in the order in which its records came out.
    pub fn batches(self) -> impl Iterator<Item = OutputBatch> + Send {
        self.places.into_iter().flat_map(|((topic, partition), mut place)| {
            place.close();
            let full = place.full.into_iter();
            full.map(move |(batch, records)| {
                let topic = Arc::clone(&topic);
                OutputBatch { topic, partition, batch, records }
            })
        })
    }
}

/// Appends a record. `false` if it does not fit, as its time is too far from that of the first one.
fn push(batch: &mut BatchBuilder, record: &Written) -> bool {
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        record.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
    batch.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers).is_ok()
}

/// About how long a record is in a batch, and no less.
pub fn bytes_of(record: &Written) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + len(value) + HEADER_OVERHEAD_BYTES);
    RECORD_OVERHEAD_BYTES + len(&record.key) + len(&record.value) + headers.sum::<usize>()
}

/// A bad or late record, or as much of it as fits into a batch: with the headers that say where it came
/// from it may be longer than what came. A header says how long the payload was.
pub fn fitting(mut record: Written, bytes_max: usize) -> Written {
    let over = |record: &Written| bytes_of(record).saturating_sub(bytes_max);
    if over(&record) == 0 {
        return record;
    }
    let len = record.value.as_ref().map_or(0, Bytes::len);
    record.headers.push(("fulmar.cut".into(), Some(Bytes::from(len.to_string()))));
    let left = len.saturating_sub(over(&record));
    // A copy, so that the rest is not kept.
    record.value = record.value.map(|value| Bytes::copy_from_slice(&value[..left]));
    if over(&record) > 0 {
        record.key = None;
        record.headers.retain(|(name, _)| name.starts_with("fulmar."));
    }
    record
}

fn hash(hasher: &mut blake3::Hasher, one: &Written) {
    let text = |hasher: &mut blake3::Hasher, bytes: Option<&[u8]>| {
        let len = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hasher.update(&len.to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    text(hasher, Some(one.topic.as_bytes()));
    hasher.update(&one.timestamp.to_le_bytes());
    text(hasher, one.key.as_deref());
    hasher.update(&(one.headers.len() as u64).to_le_bytes());
    for (name, value) in &one.headers {
        text(hasher, Some(name.as_bytes()));
        text(hasher, value.as_deref());
    }
    text(hasher, one.value.as_deref());
}

/// MurmurHash2 of 32 bits with the seed of Kafka's default partitioner.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let word = word.try_into().map_or(0, u32::from_le_bytes).wrapping_mul(MIX);
        let word = (word ^ (word >> 24)).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ word;
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0u32, |word, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(MIX);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::batch::Batch;
    use proptest::prelude::*;

    #[test]
    fn keys_are_spread_as_kafka_does() {
        // The values that Kafka's own test of its partitioner has.
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key).cast_signed(), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    fn cut(written: &[Written], cutting: Cutting<'_>) -> (Vec<OutputBatch>, [u8; 16]) {
        let mut cutter = Cutter::new(cutting);
        written.iter().for_each(|one| cutter.push(one));
        let digest = cutter.digest();
        (cutter.batches().collect(), digest)
    }

    fn written(number: usize, key: Option<u8>, bytes: usize) -> Written {
        Written {
            topic: if number.is_multiple_of(3) { "b".into() } else { "a".into() },
            timestamp: number as i64,
            key: key.map(|key| Bytes::from(vec![key])),
            headers: vec![("name".into(), Some(Bytes::from(vec![7; bytes % 9])))],
            value: Some(Bytes::from(vec![number as u8; bytes])),
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let mut long = written(1, Some(1), 900);
        assert_eq!(fitting(long.clone(), 2_000), long);
        let cut = fitting(long.clone(), 500);
        assert!(bytes_of(&cut) <= 500);
        assert_eq!(cut.headers.last(), Some(&("fulmar.cut".into(), Some("900".into()))));
        assert!(cut.key.is_some());
        long.key = Some(vec![1; 1_000].into());
        let cut = fitting(long, 500);
        assert!(bytes_of(&cut) <= 500);
        assert_eq!(cut.key, None);
    }

    proptest! {
        #[test]
        fn batches_hold_every_record_in_order(
            records in prop::collection::vec((prop::option::of(0u8..5), 0usize..400), 0..60),
            batch_bytes_max in 100usize..2_000,
            epoch in any::<u64>(),
        ) {
            let written: Vec<Written> = records.iter().enumerate()
                .map(|(number, (key, bytes))| written(number, *key, *bytes)).collect();
            let partitions = [("a".to_owned(), 3), ("b".to_owned(), 1)].into();
            let cutting = Cutting { partitions: &partitions, epoch, batch_bytes_max };
            let (out, digest) = cut(&written, cutting);
            let mut came: BTreeMap<(Arc<str>, u32), Vec<i64>> = BTreeMap::new();
            for batch in &out {
                let parsed = Batch::from_producer(batch.batch.clone(), usize::MAX).expect("valid");
                let times: Vec<i64> = parsed.records().expect("not compressed")
                    .map(|record| record.expect("whole").timestamp).collect();
                prop_assert_eq!(times.len(), batch.records as usize);
                prop_assert!(times.len() == 1 || batch.batch.len() <= batch_bytes_max);
                came.entry((batch.topic.clone(), batch.partition)).or_default().extend(times);
            }
            prop_assert_eq!(came.values().map(Vec::len).sum::<usize>(), written.len());
            for times in came.values() {
                prop_assert!(times.is_sorted(), "in the order in which they came out");
            }
            for one in written.iter().filter(|one| one.key.is_some()) {
                let at: Vec<&(Arc<str>, u32)> = came.iter()
                    .filter(|(place, times)| place.0 == one.topic && times.contains(&one.timestamp))
                    .map(|(place, _)| place).collect();
                let others = written.iter()
                    .filter(|other| other.key == one.key && other.topic == one.topic);
                for other in others {
                    prop_assert!(came[at[0]].contains(&other.timestamp), "a key has one partition");
                }
            }
            prop_assert_eq!((out, digest), cut(&written, cutting));
            let mut other = written.clone();
            if let Some(one) = other.last_mut() {
                one.key = one.key.is_none().then(Bytes::new);
                prop_assert_ne!(digest, cut(&other, cutting).1);
            }
        }
    }
}
