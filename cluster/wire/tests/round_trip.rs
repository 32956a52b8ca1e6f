//! Every message survives writing and reading in every version that is served.

mod common;

use bytes::{Bytes, BytesMut};
use common::Gen;
use fulmar_wire::frame::{self, FrameSplitter, Incoming};
use fulmar_wire::{DecodeError, EncodeError, Message, Request, RequestMessage, Response};
use proptest::prelude::*;
use std::fmt::Debug;

fn survives<M: Message + PartialEq + Debug>(seed: u64, sample: fn(&mut Gen, i16) -> M) {
    for version in M::API.range().served.clone() {
        let message = sample(&mut Gen(seed), version);
        let body = message.to_bytes(version).expect("a sample fits its version");
        assert_eq!(M::decode(body.clone(), version), Ok(message), "{} v{version}", M::API);
        for cut in 0..body.len() {
            let cut = body.slice(..cut);
            assert!(M::decode(cut, version).is_err(), "{} v{version} accepted a part", M::API);
        }
        let longer: Bytes = [&body[..], &[0]].concat().into();
        assert_eq!(M::decode(longer, version), Err(DecodeError::TrailingBytes(1)));
    }
    let served = M::API.range().served.clone();
    for version in [served.start() - 1, served.end() + 1, i16::MIN, i16::MAX] {
        let api = M::API;
        let message = sample(&mut Gen(seed), *served.end());
        assert_eq!(
            message.to_bytes(version),
            Err(EncodeError::UnsupportedVersion { api, version })
        );
        let error = M::decode(Bytes::new(), version).expect_err("not served");
        assert_eq!(error, DecodeError::UnsupportedVersion { api, version });
    }
}

macro_rules! survive {
    ($($Message:ident, $sample:ident;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(96))]
            $(#[test]
            fn $sample(seed: u64) {
                survives::<fulmar_wire::$Message>(seed, common::$sample);
            })*
        }
    };
}

for_each_message!(survive);

fn request_frame_survives<R: RequestMessage + Into<Request>>(
    seed: u64,
    sample: fn(&mut Gen, i16) -> R,
) {
    for version in R::API.range().served.clone() {
        let mut g = Gen(seed);
        let (correlation_id, client_id) = (g.i32(), g.option(Gen::text));
        let mut out = BytesMut::from(&b"kept"[..]);
        let request = sample(&mut g, version);
        let client = client_id.as_deref();
        frame::encode_request(&mut out, &request, version, correlation_id, client)
            .expect("a sample fits its version");

        assert_eq!(out.split_to(4), "kept");
        let frame = FrameSplitter::new(out.len()).split(&mut out).expect("in order");
        let incoming = Incoming::parse(frame.expect("whole")).expect("a header");
        let Incoming::Request(header, body) = incoming else { panic!("{incoming:?}") };
        assert_eq!(header.api_key, R::API);
        assert_eq!(header.api_version, version);
        assert_eq!(header.correlation_id, correlation_id);
        assert_eq!(header.client_id, client_id);
        let decoded = Request::decode(&header, body).expect("a body");
        assert!(out.is_empty());
        assert_eq!(decoded.api(), R::API);
        assert_eq!(decoded, request.into());
    }
}

fn response_frame_survives<M: Message + Into<Response>>(seed: u64, sample: fn(&mut Gen, i16) -> M) {
    for version in M::API.range().served.clone() {
        let mut g = Gen(seed);
        let correlation_id = g.i32();
        let response: Response = sample(&mut g, version).into();
        let frame = response.encode(correlation_id, version).expect("a sample fits its version");
        assert!(frame.chunks().iter().all(|chunk| !chunk.is_empty()));
        let mut bytes = BytesMut::from(frame.to_bytes());
        assert_eq!(bytes.len(), frame.len());

        let splitter = FrameSplitter::new(bytes.len());
        let frame = splitter.split(&mut bytes).expect("in order").expect("whole");
        assert_eq!(frame::correlation_id(&frame), Ok(correlation_id));
        let body = frame::response_body(frame, M::API, version).expect("a header");
        let decoded = Response::decode(M::API, version, body).expect("a body");
        assert_eq!(decoded.api(), M::API);
        assert_eq!(decoded, response);
    }
}

proptest! {
    #[test]
    fn request_frames(seed: u64) {
        request_frame_survives(seed, common::produce_request);
        request_frame_survives(seed, common::fetch_request);
        request_frame_survives(seed, common::list_offsets_request);
        request_frame_survives(seed, common::metadata_request);
        request_frame_survives(seed, common::api_versions_request);
        request_frame_survives(seed, common::create_topics_request);
        request_frame_survives(seed, common::delete_topics_request);
        request_frame_survives(seed, common::init_producer_id_request);
    }

    #[test]
    fn response_frames(seed: u64) {
        response_frame_survives(seed, common::produce_response);
        response_frame_survives(seed, common::fetch_response);
        response_frame_survives(seed, common::list_offsets_response);
        response_frame_survives(seed, common::metadata_response);
        response_frame_survives(seed, common::api_versions_response);
        response_frame_survives(seed, common::create_topics_response);
        response_frame_survives(seed, common::delete_topics_response);
        response_frame_survives(seed, common::init_producer_id_response);
    }
}
