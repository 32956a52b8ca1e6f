//! Stored batches become records.
//!
//! The site never looks into compressed batches when they are produced, so what is in them may be damaged,
//! or far larger than it looks, or say that it holds two thousand million records. Whatever cannot be
//! read becomes one record that says so and carries the bytes as they came: it goes where bad records go,
//! and never stops the others behind it.

use super::record::Record;
use bytes::Bytes;
use fulmar_wire::batch::{self, Batch, Compression};
use fulmar_wire::compression::decompress;
use std::sync::Arc;

/// What the records of a batch may be when they are not compressed.
const PLAIN_BYTES_MAX: usize = 32 << 20;

/// The records of a stored batch whose first offset is this one.
pub fn records(partition: u32, base_offset: i64, stored: &Bytes) -> Vec<Arc<Record>> {
    let broken = |offset: i64, why: String| {
        Arc::new(Record {
            partition,
            offset,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            value: Some(stored.clone()),
            damage: Some(why.into()),
            is_retried: false,
        })
    };
    let batch = match Batch::parse(stored.clone()) {
        Ok(batch) => batch,
        Err(error) => return vec![broken(base_offset, format!("a batch that is none: {error}"))],
    };
    let header = batch.header();
    if header.attributes.is_control() {
        return Vec::new();
    }
    let plain = match batch.compression() {
        Compression::None => Ok(batch.record_bytes()),
        compression => decompress(compression, &batch.record_bytes(), PLAIN_BYTES_MAX),
    };
    let plain = match plain {
        Ok(plain) => plain,
        Err(error) => {
            return vec![broken(base_offset, format!("a batch that cannot be read: {error}"))];
        }
    };
    // What is stored has the place that the log gave it, whatever the header says.
    let moved = base_offset - header.base_offset;
    let mut records = Vec::new();
    let mut next = base_offset;
    for record in batch::RecordIter::over(header, plain) {
        match record {
            Ok(record) => {
                let record = of(partition, record, moved);
                next = record.offset + 1;
                records.push(Arc::new(record));
            }
            Err(error) => records.push(broken(next, format!("a batch that is damaged: {error}"))),
        }
    }
    records
}

fn of(partition: u32, record: batch::Record, moved: i64) -> Record {
    // A name that is no text stays readable; what is computed of headers says so on its own.
    let name = |name: &[u8]| -> Arc<str> { String::from_utf8_lossy(name).into() };
    Record {
        partition,
        offset: record.offset + moved,
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
    use fulmar_wire::batch::BatchBuilder;
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

    proptest! {
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
