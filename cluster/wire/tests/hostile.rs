//! Lengths and counts that lie: each is refused at once, for a few bytes of memory.
//!
//! Several of these abort a process that uses the `kafka-protocol` crate, because it reserves
//! room for as many elements as the wire claims.

#[path = "common/memory.rs"]
mod memory;

use bytes::{BufMut, Bytes, BytesMut};
use fulmar_wire::batch::{Batch, BatchError, Batches, RecordError};
use fulmar_wire::frame::{FrameError, FrameSplitter, HeaderError, Incoming};
use fulmar_wire::primitives::{ELEMENT_MEMORY_BYTES_FREE, ELEMENT_MEMORY_BYTES_PER_BYTE};
use fulmar_wire::{
    ApiKey, CreateTopicsRequest, DecodeError, DeleteTopicsRequest, FetchRequest, Message,
    MetadataRequest, MetadataResponse, ProduceRequest,
};
use memory::peak_bytes;

/// What a refusal may cost.
const REFUSAL_BYTES_MAX: usize = 512;

fn refused<M: Message + std::fmt::Debug>(body: &[u8], version: i16) -> DecodeError {
    let body = Bytes::copy_from_slice(body);
    let (result, peak) = peak_bytes(|| M::decode(body, version));
    assert!(peak <= REFUSAL_BYTES_MAX, "{peak} bytes of memory for a refusal");
    result.expect_err("hostile")
}

#[test]
fn metadata_v1_array_bomb_of_four_bytes() {
    let error = refused::<MetadataRequest>(&i32::MAX.to_be_bytes(), 1);
    assert_eq!(error, DecodeError::CountTooLarge { count: i32::MAX as usize, remaining: 0 });
}

#[test]
fn metadata_v12_array_bomb_of_five_bytes() {
    let error = refused::<MetadataRequest>(&[0xff, 0xff, 0xff, 0xff, 0x0f], 12);
    assert_eq!(error, DecodeError::CountTooLarge { count: u32::MAX as usize - 1, remaining: 0 });
}

#[test]
fn array_bomb_inside_an_array() {
    let mut body = BytesMut::new();
    body.put_i16(-1);
    body.put_i16(-1);
    body.put_i32(1_000);
    body.put_i32(1);
    body.put_i16(1);
    body.put_u8(b't');
    body.put_i32(i32::MAX);
    let error = refused::<ProduceRequest>(&body, 3);
    assert_eq!(error, DecodeError::CountTooLarge { count: i32::MAX as usize, remaining: 0 });
}

#[test]
fn every_count_that_the_rest_of_the_frame_cannot_hold() {
    // Twelve bytes hold two topics of six bytes at least (name and partitions), not three.
    for (count, holds) in [(2, true), (3, false)] {
        let mut body = BytesMut::new();
        body.put_slice(&[0xff; 4]);
        body.put_bytes(0, 13);
        body.put_i32(count);
        body.put_bytes(0, 12);
        let result = FetchRequest::decode(body.freeze(), 4);
        assert_eq!(result.is_ok(), holds, "{count} topics: {result:?}");
    }
}

#[test]
fn string_and_record_lengths_beyond_the_frame() {
    let error = refused::<MetadataRequest>(&[0, 0, 0, 1, 0x7f, 0xff, b'a'], 1);
    assert_eq!(error, DecodeError::Truncated { needed: 0x7fff, remaining: 1 });
    let error = refused::<MetadataRequest>(&[0, 0, 0, 1, 0xff, 0xfe, b'a'], 1);
    assert_eq!(error, DecodeError::NegativeLength(-2));
    let mut body = BytesMut::new();
    body.put_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 2, b't', 2]);
    body.put_i32(0);
    body.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
    let error = refused::<ProduceRequest>(&body, 9);
    assert!(matches!(error, DecodeError::Truncated { .. }), "{error:?}");
}

#[test]
fn null_where_the_version_has_none() {
    let error = refused::<MetadataRequest>(&(-1i32).to_be_bytes(), 0);
    assert_eq!(error, DecodeError::Null { field: "topics", version: 0 });
    let error = refused::<DeleteTopicsRequest>(&(-1i32).to_be_bytes(), 1);
    assert_eq!(error, DecodeError::Null { field: "topic_names", version: 1 });
    let error = refused::<CreateTopicsRequest>(&[0], 5);
    assert_eq!(error, DecodeError::Null { field: "topics", version: 5 });
}

#[test]
fn tag_bombs() {
    let many = [1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let long = [1, 1, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for body in [many, long] {
        let error = refused::<fulmar_wire::ApiVersionsRequest>(&body[1..], 3);
        assert!(matches!(error, DecodeError::Truncated { .. }), "{error:?}");
    }
}

/// One byte on the wire, 24 in memory, each: the densest array that there is.
#[test]
fn a_frame_of_empty_names() {
    let body = |names: usize| {
        let mut body = BytesMut::new();
        let mut count = names + 1;
        while count >= 0x80 {
            body.put_u8(count as u8 | 0x80);
            count >>= 7;
        }
        body.put_u8(count as u8);
        body.put_bytes(1, names);
        body.put_bytes(0, 5);
        body.freeze()
    };
    let few = body(20_000);
    let (decoded, peak) = peak_bytes(|| DeleteTopicsRequest::decode(few.clone(), 4));
    assert_eq!(decoded.expect("within the free memory").topic_names.len(), 20_000);
    assert!(peak < ELEMENT_MEMORY_BYTES_FREE + ELEMENT_MEMORY_BYTES_PER_BYTE * few.len());

    let error = refused::<DeleteTopicsRequest>(&body(8 << 20), 4);
    assert_eq!(error, DecodeError::TooMuchMemory);
}

/// Partitions without replicas take 18 bytes on the wire and 88 in memory; no topic has many.
#[test]
fn many_arrays_that_are_small_by_themselves() {
    let body = |topics: u8| {
        let mut body = BytesMut::new();
        body.put_i32(0);
        body.put_slice(&[1, 0]);
        body.put_i32(0);
        body.put_u8(topics + 1);
        for _ in 0..topics {
            body.put_slice(&[0, 0, 1, 0, 0xe9, 0x07]); // 1000 partitions
            for _ in 0..1_000 {
                body.put_bytes(0, 14);
                body.put_slice(&[1, 1, 1, 0]);
            }
            body.put_bytes(0, 5);
        }
        body.put_bytes(0, 5);
        body.freeze()
    };
    let few = MetadataResponse::decode(body(60), 9).expect("within the free memory");
    assert_eq!(few.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 60_000);
    let many = body(100);
    let bound = ELEMENT_MEMORY_BYTES_FREE + ELEMENT_MEMORY_BYTES_PER_BYTE * many.len();
    let (result, peak) = peak_bytes(|| MetadataResponse::decode(many, 9));
    assert_eq!(result, Err(DecodeError::TooMuchMemory));
    assert!(peak <= bound, "{peak} bytes of memory, {bound} allowed");
}

#[test]
fn request_headers_that_are_no_headers() {
    for len in 0..8 {
        let error = Incoming::parse(Bytes::from(vec![0; len])).expect_err("too short");
        assert!(matches!(error, HeaderError::Malformed(_)), "{len}: {error:?}");
    }
    let mut frame = vec![0, 3, 0, 1, 0, 0, 0, 9, 0x7f, 0xff];
    let error = Incoming::parse(frame.clone().into()).expect_err("the client id is cut off");
    assert!(matches!(error, HeaderError::Malformed(DecodeError::Truncated { .. })));
    frame[8..].copy_from_slice(&[0, 1]);
    frame.push(0xff);
    let error = Incoming::parse(frame.into()).expect_err("the client id is not text");
    assert_eq!(error, HeaderError::Malformed(DecodeError::NotUtf8));
}

#[test]
fn requests_that_are_not_served() {
    let parse = |key: i16, version: i16| {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_i16(-1);
        Incoming::parse(frame.freeze())
    };
    // Produce 0 is advertised for librdkafka's sake and served to nobody.
    for (key, version) in [(0, 0), (0, 10), (1, 3), (3, -1), (71, 0), (75, 0), (-1, 0)] {
        let unsupported = HeaderError::Unsupported { api_key: key, api_version: version };
        assert_eq!(parse(key, version), Err(unsupported));
    }
    for version in [4, 5, 99, i16::MAX, -1] {
        let unknown = Incoming::UnknownApiVersions { correlation_id: 77 };
        assert_eq!(parse(ApiKey::ApiVersions.code(), version), Ok(unknown));
    }
}

#[test]
fn frame_lengths() {
    let splitter = FrameSplitter::new(1_000);
    let split = |bytes: &[u8]| splitter.split(&mut BytesMut::from(bytes));
    assert_eq!(split(&(-1i32).to_be_bytes()), Err(FrameError::Negative(-1)));
    let too_long = FrameError::TooLong { bytes: 1_001, bytes_max: 1_000 };
    assert_eq!(split(&1_001i32.to_be_bytes()), Err(too_long));
    assert_eq!(split(&1_000i32.to_be_bytes()), Ok(None));
    assert_eq!(split(&[0, 0, 0]), Ok(None));
    let http = FrameError::TooLong { bytes: 0x4745_5420, bytes_max: 1_000 };
    assert_eq!(split(b"GET / HTTP/1.1"), Err(http));
}

/// A batch with these records and a right checksum.
fn batch(record_count: i32, records: &[u8]) -> Bytes {
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(49 + records.len() as i32);
    batch.put_i32(0);
    batch.put_u8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(record_count.wrapping_sub(1));
    batch.put_i64(0);
    batch.put_i64(0);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(record_count);
    batch.put_slice(records);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn refused_batch(bytes: Bytes) -> BatchError {
    let (result, peak) = peak_bytes(|| Batch::from_producer(bytes, usize::MAX));
    assert!(peak <= REFUSAL_BYTES_MAX, "{peak} bytes of memory for a refusal");
    result.expect_err("hostile")
}

#[test]
fn record_count_bomb_of_seventy_bytes() {
    let error = refused_batch(batch(i32::MAX, &[0; 9]));
    assert_eq!(error, BatchError::Record(RecordError::Damaged { index: 0 }));
}

#[test]
fn header_count_bomb() {
    // length 11, attributes, timestamp, offset, null key, null value, 2^31 - 1 headers
    let record = [22, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0];
    let error = refused_batch(batch(1, &record));
    assert_eq!(error, BatchError::Record(RecordError::Damaged { index: 0 }));
}

#[test]
fn record_lengths_that_lie() {
    for record in [
        &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0][..], // 2 GiB
        &[1, 0, 0, 0, 1, 1, 0],                 // -1
        &[12, 0, 0, 0, 0xfe, 0xff, 0x03],       // a key beyond its record
        &[14, 0, 0, 0, 1, 1, 0, 0],             // more than the record's fields
        &[12, 0, 0, 0, 1, 1, 1],                // -1 headers
    ] {
        let error = refused_batch(batch(1, record));
        assert_eq!(error, BatchError::Record(RecordError::Damaged { index: 0 }), "{record:?}");
    }
}

#[test]
fn a_batch_length_that_lies() {
    let valid = batch(1, &[12, 0, 0, 0, 1, 1, 0]);
    assert!(Batch::from_producer(valid.clone(), usize::MAX).is_ok());
    for (length, error) in [
        (-1, BatchError::Length(-1)),
        (48, BatchError::Length(48)),
        (i32::MIN, BatchError::Length(i32::MIN)),
        (49, BatchError::Length(49)),
        (i32::MAX, BatchError::Truncated { needed: i32::MAX as usize + 12, remaining: 68 }),
    ] {
        let mut bytes = BytesMut::from(&valid[..]);
        bytes[8..12].copy_from_slice(&i32::to_be_bytes(length));
        let bytes = bytes.freeze();
        assert_eq!(Batch::from_producer(bytes.clone(), usize::MAX), Err(error));
        assert!(Batches::new(bytes).all(|batch| batch.is_err()), "length {length}");
    }
}
