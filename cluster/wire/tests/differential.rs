//! Our codec against the `kafka-protocol` crate, which is generated from Kafka's own schemas:
//! every message and every version that is served, in both directions.

mod common;
#[path = "differential/theirs.rs"]
mod theirs;

use bytes::{Bytes, BytesMut};
use common::Gen;
use fulmar_wire::batch::{Batch, Batches, Header, Record};
use fulmar_wire::frame::{self, Incoming};
use fulmar_wire::{ErrorCode, Message, RequestMessage, SUPPORTED};
use kafka_protocol::messages as kp;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};
use kafka_protocol::records as kr;
use proptest::prelude::*;
use std::fmt::Debug;
use theirs::Theirs;

/// A tag that no version of Kafka defines.
const UNKNOWN_TAG: i32 = 77_777;

fn agrees<O, T>(seed: u64, sample: fn(&mut Gen, i16) -> O, add_unknown_tag: fn(&mut T))
where
    O: Message + PartialEq + Debug,
    T: Theirs<O> + Decodable + Encodable + Clone + Debug,
{
    for version in O::API.range().served.clone() {
        let context = format!("{} v{version} seed {seed}", O::API);
        let ours = sample(&mut Gen(seed), version);
        let bytes = ours.to_bytes(version).expect("a sample fits its version");

        // Ours to theirs: they read from our bytes what we wrote into them.
        let mut rest = bytes.clone();
        let mut theirs = T::decode(&mut rest, version).expect(&context);
        assert!(rest.is_empty(), "{context}: they left {rest:?}");
        assert_eq!(theirs.clone().ours(), ours, "{context}");

        // Theirs to ours: the same bytes, and with a tag that we do not know the same message.
        let mut encoded = BytesMut::new();
        theirs.encode(&mut encoded, version).expect(&context);
        assert_eq!(encoded, bytes, "{context}");
        if O::API.is_flexible(version) {
            add_unknown_tag(&mut theirs);
            let mut tagged = BytesMut::new();
            theirs.encode(&mut tagged, version).expect(&context);
            assert_ne!(tagged, bytes, "{context}");
            encoded = tagged;
        }
        assert_eq!(O::decode(encoded.freeze(), version), Ok(ours), "{context}");
    }
}

macro_rules! agree {
    ($($Message:ident, $sample:ident;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(256))]
            $(#[test]
            fn $sample(seed: u64) {
                agrees::<fulmar_wire::$Message, kp::$Message>(seed, common::$sample, |theirs| {
                    theirs.unknown_tagged_fields.insert(UNKNOWN_TAG, Bytes::from_static(b"?"));
                });
            })*
        }
    };
}

for_each_message!(agree);

#[test]
fn features_in_a_response_to_api_versions_are_skipped() {
    let key = kp::api_versions_response::SupportedFeatureKey::default();
    let theirs = kp::ApiVersionsResponse::default()
        .with_finalized_features_epoch(7)
        .with_zk_migration_ready(true)
        .with_supported_features(vec![key.with_name("metadata.version".into())]);
    let mut bytes = BytesMut::new();
    theirs.encode(&mut bytes, 3).expect("valid");
    let ours = fulmar_wire::ApiVersionsResponse::decode(bytes.freeze(), 3);
    assert_eq!(ours, Ok(Default::default()));
}

#[test]
fn headers_agree_in_every_version() {
    for range in SUPPORTED {
        let theirs = kp::ApiKey::try_from(range.api.code()).expect("a key of Kafka");
        for version in range.served.clone() {
            let (api, context) = (range.api, format!("{} v{version}", range.api));
            for client_id in [None, Some(""), Some("kcat")] {
                let mut bytes = BytesMut::new();
                let header = kp::RequestHeader::default()
                    .with_request_api_key(api.code())
                    .with_request_api_version(version)
                    .with_correlation_id(-5)
                    .with_client_id(client_id.map(StrBytes::from_static_str));
                header.encode(&mut bytes, theirs.request_header_version(version)).expect("valid");
                bytes.extend_from_slice(b"body");
                let incoming = Incoming::parse(bytes.freeze()).expect(&context);
                let Incoming::Request(header, body) = incoming else { panic!("{context}") };
                assert_eq!((header.api_key, header.api_version), (api, version));
                assert_eq!((header.correlation_id, header.client_id.as_deref()), (-5, client_id));
                assert_eq!(body, "body", "{context}");
            }

            let mut bytes = BytesMut::new();
            let header = kp::ResponseHeader::default().with_correlation_id(9);
            header.encode(&mut bytes, theirs.response_header_version(version)).expect("valid");
            bytes.extend_from_slice(b"body");
            let bytes = bytes.freeze();
            assert_eq!(frame::correlation_id(&bytes), Ok(9));
            assert_eq!(frame::response_body(bytes, api, version).expect(&context), "body");
        }
    }
}

fn they_read_the_frame_of<R: RequestMessage>(sample: fn(&mut Gen, i16) -> R) {
    for version in R::API.range().served.clone() {
        let mut frame = BytesMut::new();
        let request = sample(&mut Gen(1), version);
        frame::encode_request(&mut frame, &request, version, 11, Some("fulmar")).expect("valid");
        let mut rest = frame.split_off(frame::LENGTH_BYTES).freeze();
        assert_eq!(frame.as_ref(), (rest.len() as u32).to_be_bytes());
        let header = decode_request_header_from_buffer(&mut rest).expect("a header");
        assert_eq!(header.request_api_key, R::API.code());
        assert_eq!(header.request_api_version, version);
        assert_eq!(header.correlation_id, 11);
        assert_eq!(header.client_id.as_deref(), Some("fulmar"));
        assert_eq!(Ok(rest), request.to_bytes(version));
    }
}

#[test]
fn they_read_our_request_frames() {
    they_read_the_frame_of(common::produce_request);
    they_read_the_frame_of(common::fetch_request);
    they_read_the_frame_of(common::list_offsets_request);
    they_read_the_frame_of(common::metadata_request);
    they_read_the_frame_of(common::api_versions_request);
    they_read_the_frame_of(common::create_topics_request);
    they_read_the_frame_of(common::delete_topics_request);
    they_read_the_frame_of(common::init_producer_id_request);
    they_read_the_frame_of(common::describe_configs_request);
    they_read_the_frame_of(common::alter_configs_request);
    they_read_the_frame_of(common::incremental_alter_configs_request);
}

#[test]
fn error_codes_agree() {
    for code in ErrorCode::LISTED.iter().filter(|code| !code.is_none()) {
        let theirs = kafka_protocol::ResponseError::try_from_code(code.code()).expect("an error");
        assert_eq!(format!("{theirs:?}"), format!("{code:?}"));
        assert_eq!(theirs.is_retriable(), code.is_retriable(), "{code}");
    }
}

proptest! {
    #[test]
    fn they_read_our_batches(seed: u64) {
        let mut g = Gen(seed);
        // They refuse keys that are not UTF-8 and keep only the last of equal ones.
        let blob: Bytes =
            (0..3).flat_map(|_| g.batch_with_header_keys(|g| g.text().into_bytes())).collect();
        let ours: Vec<Batch> = Batches::new(blob.clone()).map(|b| b.expect("ours")).collect();
        prop_assert_eq!(ours.len(), 3);
        let theirs = kr::RecordBatchDecoder::decode_all(&mut blob.clone()).expect("valid");
        for (ours, theirs) in ours.iter().zip(theirs) {
            let records: Vec<Record> =
                ours.records().expect("plain").map(|r| r.expect("whole")).collect();
            prop_assert_eq!(records.len(), theirs.records.len());
            for (ours, theirs) in records.iter().zip(theirs.records) {
                prop_assert_eq!(ours.offset, theirs.offset);
                prop_assert_eq!(ours.timestamp, theirs.timestamp);
                prop_assert_eq!(&ours.key, &theirs.key);
                prop_assert_eq!(&ours.value, &theirs.value);
                for header in &ours.headers {
                    let key = StrBytes::from_utf8(header.key.clone()).expect("text");
                    let last = ours.headers.iter().rfind(|h| h.key == header.key);
                    let theirs = theirs.headers.get(&key).expect("the key is there");
                    prop_assert_eq!(last.map(|h| &h.value), Some(theirs));
                }
            }
        }
    }

    #[test]
    fn we_read_their_batches(seed: u64, count in 1usize..20, base_offset in 0i64..1 << 40) {
        let mut g = Gen(seed);
        let records: Vec<kr::Record> = (0..count).map(|at| their_record(&mut g, base_offset, at)).collect();
        let mut bytes = BytesMut::new();
        let options = kr::RecordEncodeOptions { version: 2, compression: kr::Compression::None };
        kr::RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("valid");
        let batch = Batch::from_producer(bytes.freeze(), usize::MAX).expect("one batch");
        let max = records.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(batch.max_timestamp(-1)), max);
        let stamp = batch.header().producer().expect("idempotent");
        prop_assert_eq!((stamp.producer_id, stamp.producer_epoch), (42, 3));
        let ours: Vec<Record> = batch.records().expect("plain").map(|r| r.expect("whole")).collect();
        for (ours, theirs) in ours.iter().zip(&records) {
            prop_assert_eq!(ours.offset, theirs.offset);
            prop_assert_eq!(ours.timestamp, theirs.timestamp);
            prop_assert_eq!(&ours.key, &theirs.key);
            prop_assert_eq!(&ours.value, &theirs.value);
            let headers: Vec<Header> = theirs.headers.iter().map(|(key, value)| Header {
                key: key.clone().into_bytes(),
                value: value.clone(),
            }).collect();
            prop_assert_eq!(&ours.headers, &headers);
        }
        prop_assert_eq!(ours.len(), records.len());
    }
}

fn their_record(g: &mut Gen, base_offset: i64, at: usize) -> kr::Record {
    kr::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: 42,
        producer_epoch: 3,
        timestamp_type: kr::TimestampType::Creation,
        offset: base_offset + at as i64,
        sequence: 100 + at as i32,
        timestamp: 1_700_000_000_000 + g.below(1 << 20) as i64,
        key: g.option(|g| g.bytes(9).into()),
        value: g.option(|g| g.bytes(200).into()),
        headers: g
            .vec(|g| (StrBytes::from(g.text()), g.option(|g| g.bytes(3).into())))
            .into_iter()
            .collect(),
    }
}
