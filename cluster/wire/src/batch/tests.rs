//! The rules of batches, one by one.

use super::*;
use crate::compression::decompress;

fn two_records() -> BytesMut {
    let mut builder = BatchBuilder::new();
    builder
        .push(1_000, Some(b"k"), Some(b"v"), &[(b"h", None), (b"h", Some(b"\xff"))])
        .expect("fits");
    builder.push(900, None, None, &[]).expect("fits");
    builder.build().expect("not empty").into()
}

/// The batch with `change` made to its bytes, and the checksum made right again.
fn changed(change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut batch = two_records();
    change(&mut batch);
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn refusal(change: impl FnOnce(&mut [u8])) -> BatchError {
    Batch::from_producer(changed(change), 1_000).expect_err("a rule is broken")
}

fn set<const N: usize>(at: usize, value: [u8; N]) -> impl FnOnce(&mut [u8]) {
    move |batch| batch[at..at + N].copy_from_slice(&value)
}

#[test]
fn what_a_client_builds_is_what_it_reads() {
    let mut builder = BatchBuilder::new().producer(9, 2, i32::MAX).transactional();
    assert_eq!(builder.batch_bytes(), HEADER_BYTES);
    builder
        .push(1_000, Some(b"k"), Some(b"v"), &[(b"h", None), (b"h", Some(b"\xff"))])
        .expect("fits");
    builder.push(900, None, None, &[]).expect("fits");
    assert_eq!(builder.record_count(), 2);
    let bytes = builder.build().expect("not empty");
    let batch = Batch::from_producer(bytes.clone(), bytes.len()).expect("valid");

    let header = batch.header();
    assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 1_000));
    assert!(header.attributes.is_transactional());
    let stamp = ProducerStamp {
        producer_id: 9,
        producer_epoch: 2,
        base_sequence: i32::MAX,
        last_sequence: 0,
    };
    assert_eq!(header.producer(), Some(stamp));
    let records: Vec<_> = batch.records().expect("plain").map(|r| r.expect("whole")).collect();
    let header = |value: Option<&'static [u8]>| Header {
        key: Bytes::from_static(b"h"),
        value: value.map(Bytes::from_static),
    };
    assert_eq!(
        records,
        [
            Record {
                offset: 0,
                timestamp: 1_000,
                key: Some(Bytes::from_static(b"k")),
                value: Some(Bytes::from_static(b"v")),
                headers: vec![header(None), header(Some(b"\xff"))],
            },
            Record { offset: 1, timestamp: 900, key: None, value: None, headers: vec![] },
        ]
    );
    assert!(BatchBuilder::new().build().is_none());
}

#[test]
fn a_timestamp_too_far_from_the_first_is_refused() {
    let mut builder = BatchBuilder::new();
    builder.push(i64::MAX, None, None, &[]).expect("fits");
    let before = builder.batch_bytes();
    assert_eq!(builder.push(-2, None, None, &[]), Err(BuildError::Timestamp));
    assert_eq!((builder.batch_bytes(), builder.record_count()), (before, 1));
}

#[test]
fn the_rules_for_a_producer() {
    assert!(Batch::from_producer(changed(|_| ()), 1_000).is_ok());
    let count =
        |record_count, last_offset_delta| BatchError::Count { record_count, last_offset_delta };
    assert_eq!(refusal(set(57, 0i32.to_be_bytes())), count(0, 1));
    assert_eq!(refusal(set(57, 3i32.to_be_bytes())), count(3, 1));
    assert_eq!(refusal(set(57, i32::MIN.to_be_bytes())), count(i32::MIN, 1));
    assert_eq!(refusal(set(23, 0i32.to_be_bytes())), count(2, 0));
    for magic in [0, 1, 3] {
        assert_eq!(refusal(set(16, [magic])), BatchError::Magic(magic.cast_signed()));
    }
    for bits in [1 << 3, 1 << 5, 1 << 6, 1 << 7, i16::MIN, 1 << 3 | 1] {
        assert_eq!(refusal(set(21, bits.to_be_bytes())), BatchError::Attributes(bits));
    }
    for codec in 5..=7u8 {
        assert_eq!(refusal(set(22, [codec])), BatchError::Codec(codec));
    }
    let is_producer = |error| matches!(error, BatchError::Producer { .. });
    assert!(is_producer(refusal(set(43, (-2i64).to_be_bytes()))));
    assert!(is_producer(refusal(set(43, 5i64.to_be_bytes()))), "epoch and sequence are -1");
    assert!(is_producer(refusal(set(21, (1i16 << 4).to_be_bytes()))), "a transaction of nobody");
}

#[test]
fn a_batch_may_lack_records_and_no_producer_sends_one_that_does() {
    for offsets in [1, 5, 1 << 30] {
        let bytes = empty_batch(offsets);
        let batch = Batch::parse(bytes.clone()).expect("a batch");
        assert_eq!(*batch.header().offsets().end(), i64::from(offsets) - 1);
        assert_eq!(batch.records().expect("not compressed").count(), 0);
        let count = batch.header().last_offset_delta;
        let refused = BatchError::Count { record_count: 0, last_offset_delta: count };
        assert_eq!(Batch::from_producer(bytes, 1_000), Err(refused));
    }
    assert!(Batch::parse(changed(set(23, 7i32.to_be_bytes()))).is_ok(), "two records of eight");
}

#[test]
fn damage_anywhere_under_the_checksum_is_seen() {
    let valid = two_records();
    for at in CRC_START - 4..valid.len() {
        let mut batch = valid.clone();
        batch[at] ^= 0x10;
        let error = Batch::parse(batch.freeze()).expect_err("damaged");
        assert!(matches!(error, BatchError::Checksum { .. }), "byte {at}: {error:?}");
    }
}

#[test]
fn exactly_one_batch_of_a_size() {
    let one = two_records().freeze();
    let two: Bytes = [&one[..], &one[..]].concat().into();
    assert_eq!(Batch::from_producer(two, 1_000), Err(BatchError::Length(one.len() as i32 - 12)));
    let (bytes, bytes_max) = (one.len(), one.len() - 1);
    let too_large = BatchError::TooLarge { bytes, bytes_max };
    assert_eq!(Batch::from_producer(one.clone(), bytes_max), Err(too_large));
    let cut = Batch::from_producer(one.slice(..bytes - 1), bytes);
    assert_eq!(cut, Err(BatchError::Truncated { needed: bytes, remaining: bytes - 1 }));
    let empty = BatchError::Truncated { needed: HEADER_BYTES, remaining: 0 };
    assert_eq!(Batch::from_producer(Bytes::new(), bytes), Err(empty));
}

#[test]
fn the_inside_of_an_uncompressed_batch() {
    let first_record = HEADER_BYTES;
    let delta = refusal(set(first_record + 3, [4]));
    assert_eq!(delta, RecordError::OffsetDelta { index: 0, offset_delta: 2 }.into());
    let length = refusal(set(first_record, [2]));
    assert_eq!(length, RecordError::Damaged { index: 0 }.into());
    let both = |batch: &mut [u8]| {
        batch[57..61].copy_from_slice(&1i32.to_be_bytes());
        batch[23..27].copy_from_slice(&0i32.to_be_bytes());
    };
    assert_eq!(refusal(both), RecordError::TrailingBytes(8).into());
    // Compressed bytes are not looked at: the codec's id is all that is known of them.
    let gzip = changed(set(first_record, [2]));
    let gzip = {
        let mut gzip = BytesMut::from(gzip);
        gzip[22] = 1;
        let crc = crc32c::crc32c(&gzip[CRC_START..]);
        gzip[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Batch::from_producer(gzip.freeze(), 1_000).expect("valid as far as can be seen")
    };
    assert_eq!(gzip.compression(), Compression::Gzip);
    assert!(matches!(gzip.records(), Err(RecordError::Compressed(Compression::Gzip))));
}

#[test]
fn numbers_in_records_that_overflow_are_damage() {
    let far = changed(|batch| {
        set(27, i64::MIN.to_be_bytes())(batch);
    });
    let far = Batch::from_producer(far, 1_000);
    assert_eq!(far, Err(RecordError::Damaged { index: 1 }.into()));
    let mut last = two_records();
    last[..8].copy_from_slice(&i64::MAX.to_be_bytes());
    let last = Batch::parse(last.freeze()).expect("the base offset is not under the checksum");
    assert_eq!(*last.header().offsets().end(), i64::MAX);
    assert_eq!(last.records().expect("plain").filter(Result::is_err).count(), 1);
}

/// The rule for a `max_timestamp` that the producer left unset, as Sarama does.
#[test]
fn an_unset_maximum_of_timestamps() {
    let unset = || set(35, NO_TIMESTAMP.to_be_bytes());
    let parsed = |bytes| Batch::parse(bytes).expect("valid");
    assert_eq!(parsed(changed(|_| ())).max_timestamp(5_000), 1_000);
    // Not compressed: the records say it (the second one is the lower one here).
    assert_eq!(parsed(changed(unset())).max_timestamp(5_000), 1_000);
    let lower_base = changed(|batch| {
        unset()(batch);
        batch[HEADER_BYTES + 2] = 20; // timestamp_delta of the first record: 10
    });
    assert_eq!(parsed(lower_base).max_timestamp(5_000), 1_010);
    // Compressed: when it was appended, or the base timestamp if that is later.
    let compressed = changed(|batch| {
        unset()(batch);
        batch[22] = 4;
    });
    let compressed = parsed(compressed);
    assert_eq!((compressed.max_timestamp(5_000), compressed.max_timestamp(900)), (5_000, 1_000));
    // No timestamps at all.
    let none = changed(|batch| {
        unset()(batch);
        set(27, i64::from(-7).to_be_bytes())(batch);
        batch[22] = 4;
    });
    assert_eq!(parsed(none).max_timestamp(NO_TIMESTAMP), NO_TIMESTAMP);
}

#[test]
fn a_maximum_of_timestamps_that_is_not_the_maximum() {
    let max = |at| {
        let batch = changed(set(35, i64::to_be_bytes(at)));
        Batch::from_producer(batch, 1_000).expect("accepted, as Kafka does").max_timestamp(5_000)
    };
    assert_eq!((max(999), max(2_000)), (1_000, 2_000));
}

#[test]
fn log_append_time_is_the_time_of_every_record() {
    let stamped = changed(|batch| {
        batch[22] = 1 << 3;
        set(35, 5_000i64.to_be_bytes())(batch);
    });
    let stamped = Batch::parse(stamped).expect("a broker may write it");
    assert!(stamped.header().attributes.is_log_append_time());
    let times = stamped.records().expect("plain").map(|r| r.expect("whole").timestamp);
    assert_eq!(times.collect::<Vec<_>>(), [5_000, 5_000]);
}

#[test]
fn placing_a_batch_leaves_its_checksum_right_and_its_records_shared() {
    let mut bytes = two_records();
    let batch = Batch::parse(bytes.clone().freeze()).expect("valid");
    let [header, records] = batch.placed(Offset(41), Term(7));
    assert_eq!(header.len(), HEADER_BYTES);
    assert_eq!(records.as_ptr(), batch.record_bytes().as_ptr());
    place(&mut bytes, Offset(41), Term(7));
    assert_eq!([&header[..], &records[..]].concat(), bytes);

    let placed = Batch::parse(bytes.freeze()).expect("the checksum does not cover it");
    assert_eq!(placed.header().offsets(), 41..=42);
    assert_eq!(placed.header().partition_leader_epoch, 7);
    let offsets = placed.records().expect("plain").map(|r| r.expect("whole").offset);
    assert_eq!(offsets.collect::<Vec<_>>(), [41, 42]);
}

#[test]
fn sequence_numbers_wrap_to_zero() {
    assert_eq!(sequence_after(0, 1), 1);
    assert_eq!(sequence_after(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX, i32::MAX), i32::MAX - 1);
}

#[test]
fn a_blob_ends_before_the_batch_that_is_cut_off() {
    let one = two_records().freeze();
    let blob: Bytes = [&one[..], &one[..]].concat().into();
    for end in 0..=blob.len() {
        let mut batches = Batches::new(blob.slice(..end));
        let whole = batches.by_ref().inspect(|batch| assert!(batch.is_ok())).count();
        assert_eq!(whole, end / one.len());
        assert_eq!(batches.rest().len(), end % one.len());
    }
    let mut damaged = BytesMut::from(&blob[..]);
    damaged[one.len() - 1] ^= 1;
    let mut batches = Batches::new(damaged.freeze());
    assert!(matches!(batches.next(), Some(Err(BatchError::Checksum { .. }))));
    assert!(batches.next().is_none(), "nothing is trusted behind damage");
}

/// What is left out leaves no time behind, and what is left keeps its own.
#[test]
fn the_header_of_a_batch_follows_from_the_records_that_are_left() {
    let times = [1_000, 7_000, 6_500, 9_000];
    for codec in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut whole = BatchBuilder::new().compressed(codec);
        for at in times {
            whole.push(at, Some(b"k"), Some(b"v"), &[]).expect("it is small");
        }
        let whole = Batch::parse(whole.build().expect("it has records")).expect("valid");
        let plain = decompress(whole.compression(), &whole.record_bytes(), 1_000).expect("whole");
        let of = |batch: &Batch, plain| -> Vec<Record> {
            let records = RecordIter::over(batch.header(), plain);
            records.map(|record| record.expect("whole")).collect()
        };
        let all = of(&whole, plain.clone());
        let left = rewritten(&whole, &all[1..3]).expect("it fits");
        let left = Batch::parse(left).expect("valid");
        let header = left.header();
        assert_eq!((header.base_timestamp, header.max_timestamp), (7_000, 7_000), "{codec:?}");
        assert_eq!((header.base_offset, header.last_offset_delta, header.record_count), (0, 3, 2));
        let plain = decompress(left.compression(), &left.record_bytes(), 1_000).expect("whole");
        let kept: Vec<_> = of(&left, plain).iter().map(|of| (of.offset, of.timestamp)).collect();
        assert_eq!(kept, [(1, 7_000), (2, 6_500)]);
        assert_eq!(rewritten(&whole, &all).expect("it fits"), whole.bytes(), "{codec:?}");
    }
}
