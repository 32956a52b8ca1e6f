//! Stored batches become records.
//!
//! The site never looks into compressed batches when they are produced, so what is in them may be damaged,
//! or far larger than it looks, or say that it holds two thousand million records. A batch that cannot be
//! read to its end becomes *one* record that says so and carries the bytes as they came: it goes where bad
//! records go, and never stops the others behind it. That is all that becomes of such a batch: what could be
//! read of it is in those bytes, and nothing of it is anywhere twice.
//!
//! Invariant: the offsets of the records ascend, from that of the batch up to the last one that its header
//! names, whatever is in it. So they never lie where the next batch begins.

use super::record::Record;
use bytes::Bytes;
use fulmar_host::planted;
use fulmar_types::Plant;
use fulmar_wire::batch::{self, Batch, BatchHeader, Compression, RecordIter};
use fulmar_wire::compression::decompress;
use std::sync::Arc;

/// What the records of a batch may be when they are not compressed.
const PLAIN_BYTES_MAX: usize = 32 << 20;

/// The records of a stored batch whose first offset is this one.
pub fn records(partition: u32, base_offset: i64, stored: &Bytes) -> Vec<Arc<Record>> {
    read(partition, base_offset, stored).unwrap_or_else(|why| {
        let broken = Record {
            partition,
            offset: base_offset,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            value: Some(stored.clone()),
            damage: Some(why.into()),
            is_retried: false,
        };
        vec![Arc::new(broken)]
    })
}

fn read(partition: u32, base_offset: i64, stored: &Bytes) -> Result<Vec<Arc<Record>>, String> {
    let batch = Batch::parse(stored.clone());
    let batch = batch.map_err(|error| format!("a batch that is none: {error}"))?;
    // What is stored has the place that the log gave it, whatever the header says.
    let header = BatchHeader { base_offset, ..*batch.header() };
    if header.attributes.is_control() {
        return Ok(Vec::new());
    }
    let plain = match batch.compression() {
        Compression::None => Ok(batch.record_bytes()),
        compression => decompress(compression, &batch.record_bytes(), PLAIN_BYTES_MAX),
    };
    let plain = plain.map_err(|error| format!("a batch that cannot be read: {error}"))?;
    let records = RecordIter::over(&header, plain);
    let records = records.map(|record| record.map(|record| Arc::new(of(partition, record))));
    if planted(Plant::DamagedBatchHalfRead) {
        return Ok(records.map_while(Result::ok).collect());
    }
    let records: Result<Vec<_>, _> = records.collect();
    records.map_err(|error| format!("a batch that is damaged: {error}"))
}

fn of(partition: u32, record: batch::Record) -> Record {
    // A name that is no text stays readable; what is computed of headers says so on its own.
    let name = |name: &[u8]| -> Arc<str> { String::from_utf8_lossy(name).into() };
    Record {
        partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key,
        headers: record.headers.into_iter().map(|h| (name(&h.key), h.value)).collect(),
        value: record.value,
        damage: None,
        is_retried: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::engine::Engine;
    use fulmar_wire::batch::{BatchBuilder, HEADER_BYTES};
    use fulmar_wire::compression::compress;
    use proptest::prelude::*;

    fn stored(codec: Compression, count: usize) -> Bytes {
        let mut batch = BatchBuilder::new().compressed(codec);
        for number in 0..count {
            let value = format!("{{\"number\": {number}}}");
            let headers: [(&[u8], Option<&[u8]>); 1] = [(b"h", Some(b"v"))];
            batch
                .push(1_000 + number as i64, Some(b"key"), Some(value.as_bytes()), &headers)
                .expect("it is short");
        }
        batch.build().expect("it has records")
    }

    #[test]
    fn every_codec_is_read() {
        for codec in Compression::ALL {
            let records = records(3, 70, &stored(codec, 20));
            assert_eq!(records.len(), 20, "{codec:?}");
            for (number, record) in records.iter().enumerate() {
                assert_eq!((record.partition, record.offset), (3, 70 + number as i64));
                assert_eq!(record.timestamp, 1_000 + number as i64);
                assert_eq!(record.damage, None);
            }
        }
    }

    /// With a right checksum, as a producer can make one.
    fn sealed(mut bytes: Vec<u8>) -> Bytes {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes.into()
    }

    #[test]
    fn a_damaged_batch_is_one_record_however_many_it_says_it_has() {
        let mut bytes = stored(Compression::Zstd, 20).to_vec();
        bytes.truncate(61);
        bytes.extend([0xff; 30]);
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        let stored = sealed(bytes);
        let records = records(0, 5, &stored);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].offset, 5);
        assert_eq!(records[0].value.as_ref(), Some(&stored));
        assert!(records[0].damage.is_some());
    }

    /// A record as it stands in a batch, with an offset of its own.
    fn record(delta: i32, value: &[u8]) -> Vec<u8> {
        let varint = |number: i32, out: &mut Vec<u8>| {
            let mut left = ((number << 1) ^ (number >> 31)).cast_unsigned();
            while left >= 0x80 {
                out.push(left as u8 | 0x80);
                left >>= 7;
            }
            out.push(left as u8);
        };
        let mut body = vec![0, 0];
        varint(delta, &mut body);
        varint(-1, &mut body);
        varint(value.len() as i32, &mut body);
        body.extend(value);
        body.push(0);
        let mut out = Vec::new();
        varint(body.len() as i32, &mut out);
        out.extend(body);
        out
    }

    /// A compressed batch that says that it has so many records, whatever is in it; the header has an offset
    /// of its own, too.
    fn claiming(count: i32, base_offset: i64, plain: &[u8]) -> Bytes {
        let mut bytes = stored(Compression::Gzip, 1)[..HEADER_BYTES].to_vec();
        bytes.extend(compress(Compression::Gzip, plain));
        let length = (bytes.len() - 12) as i32;
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        sealed(bytes)
    }

    #[test]
    fn a_batch_with_something_behind_its_records_is_one_record() {
        let two = [record(0, b"{}"), record(1, b"{}")].concat();
        assert_eq!(records(0, 5, &claiming(2, i64::MIN, &two)).len(), 2);
        let longer = [two.as_slice(), &[0]].concat();
        for (count, plain) in [(2, &longer), (1, &two), (3, &two)] {
            let batch = claiming(count, 0, plain);
            let records = records(0, 5, &batch);
            assert_eq!(records.len(), 1, "{count}");
            assert_eq!((records[0].offset, records[0].value.as_ref()), (5, Some(&batch)));
            assert!(records[0].damage.is_some());
        }
    }

    #[test]
    fn a_pipeline_reads_on_behind_a_batch_with_something_behind_its_records() {
        let plan = crate::plan(
            "CREATE STREAM s (v BIGINT) FROM TOPIC t ON ERROR DEAD LETTER bad;
             INSERT INTO TOPIC o SELECT v FROM s;",
        );
        let mut engine = Engine::new(plan.expect("a plan").into(), &[("t".to_owned(), 1)].into());
        let two = [record(0, b"{}"), record(1, b"{}")].concat();
        let longer = claiming(2, 0, &[two.as_slice(), &[0]].concat());
        for (base, batch) in [(0, &longer), (2, &longer), (4, &claiming(2, 0, &two))] {
            engine.batch("t", &records(0, base, batch)).expect("it goes on");
        }
        let written = engine.end_epoch(1, false).expect("it goes on");
        let dead = written.iter().filter(|one| &*one.topic == "bad");
        assert!(dead.clone().all(|one| one.value.as_ref() == Some(&longer)));
        assert_eq!((dead.count(), written.len()), (2, 4));
        let (.., fates) = engine.fates().next().expect("a reader");
        assert_eq!((fates.read, fates.passed, fates.dead_lettered), (4, 2, 2));
    }

    #[test]
    fn what_is_kept_of_a_record_does_not_keep_its_batch() {
        let file =
            "CREATE STREAM s (v BIGINT PATH '$.number', at TIMESTAMP(3) METADATA FROM 'timestamp',
               k VARCHAR METADATA FROM 'key', h JSON METADATA FROM 'headers', w JSON PATH '$')
               FROM TOPIC t WATERMARK at - INTERVAL '1' DAY ON ERROR DEAD LETTER bad LATE DROP;
             CREATE TABLE d (id VARCHAR PRIMARY KEY METADATA FROM 'key', w JSON PATH '$')
               FROM TOPIC u ON ERROR DROP;
             INSERT INTO TOPIC a SELECT s.v AS v, d.w AS w FROM s LEFT JOIN d ON s.k = d.id;
             INSERT INTO TOPIC b SELECT k, FIRST_VALUE(w) AS f, MAX(v) AS m, LAST_VALUE(h) AS h
               FROM TUMBLE(s, INTERVAL '1' HOUR) GROUP BY k, window_start, window_end;
             INSERT INTO TOPIC c SELECT l.w AS w, r.h AS h FROM TUMBLE(s, INTERVAL '1' HOUR) AS l
               JOIN TUMBLE(s, INTERVAL '1' HOUR) AS r ON l.k = r.k AND l.v = r.v
               AND l.window_start = r.window_start AND l.window_end = r.window_end;";
        let plan = crate::plan(file).expect("a plan");
        let topics = [("t".to_owned(), 1), ("u".to_owned(), 1)].into();
        let mut engine = Engine::new(plan.into(), &topics);
        let batch = stored(Compression::None, 20);
        for topic in ["t", "u"] {
            engine.batch(topic, &records(0, 0, &batch)).expect("no record is bad");
        }
        assert_eq!(engine.end_epoch(1, false).expect("no result is bad"), []);
        assert!(engine.fates().all(|(.., fates)| fates.read == 20 && fates.held > 0));
        assert!(batch.is_unique(), "a part of the batch is still there");
    }

    fn plain() -> impl Strategy<Value = Vec<u8>> {
        let whole = (-1i32..6, prop::collection::vec(any::<u8>(), 0..4));
        let whole = whole.prop_map(|(delta, value)| record(delta, &value));
        // Deltas as they should be, mostly.
        let dense = (0usize..5).prop_map(|count| {
            let records = (0..count).flat_map(|delta| record(delta as i32, b"{}"));
            records.collect::<Vec<u8>>()
        });
        let any = prop::collection::vec(any::<u8>(), 0..6);
        let parts = prop_oneof![2 => whole, 1 => any.clone()];
        let parts = prop::collection::vec(parts, 0..5).prop_map(|parts| parts.concat());
        let longer = (dense.clone(), any).prop_map(|(dense, rest)| [dense, rest].concat());
        prop_oneof![dense, parts, longer]
    }

    proptest! {
        #[test]
        fn batches_one_behind_the_other_are_records_in_order_each_in_its_batch(
            batches in prop::collection::vec((1i32..6, any::<i64>(), plain()), 1..6),
        ) {
            let (mut base, mut all) = (7i64, Vec::new());
            for (count, said, plain) in batches {
                let batch = claiming(count, said, &plain);
                let records = records(0, base, &batch);
                let within = base..base + i64::from(count);
                prop_assert!(records.iter().all(|record| within.contains(&record.offset)));
                let is_read = records.iter().all(|record| record.damage.is_none());
                if is_read {
                    prop_assert_eq!(records.len(), count as usize);
                } else {
                    prop_assert_eq!(records.len(), 1);
                    prop_assert_eq!(records[0].value.as_ref(), Some(&batch));
                }
                all.extend(records.iter().map(|record| record.offset));
                base = within.end;
            }
            prop_assert!(all.is_sorted_by(|one, other| one < other));
        }

        #[test]
        fn any_bytes_are_records_in_order(
            codec in prop::sample::select(Compression::ALL.to_vec()),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
        ) {
            let mut bytes = stored(codec, 20).to_vec();
            let at = 61 + at.index(bytes.len() - 61);
            bytes[at] ^= with;
            let records = records(0, 5, &sealed(bytes));
            prop_assert!(!records.is_empty());
            prop_assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
        }
    }
}
