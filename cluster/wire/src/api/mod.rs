//! The APIs that are spoken: one file each, and the table of their versions.
//!
//! *Served* is what the decoders accept; *advertised* is what ApiVersions says. They differ where
//! a client draws wrong conclusions from the truth: librdkafka stops compressing if Produce does
//! not start at version 0 (KAFKA-18659), although no client that matters sends versions 0 to 2.
//!
//! Invariants: whatever is advertised above the served minimum works in full. The minimums are
//! those of Kafka 4.0 (KIP-896) and never rise: librdkafka 2.0 cannot fetch from a broker whose
//! range for Fetch starts at 12.
//!
//! Never: advertise an API whose handler is missing. Clients use telemetry (71) or
//! DescribeTopicPartitions (75) as soon as they see them.

use crate::frame::RequestHeader;
use crate::message::{Message, RequestMessage};
use crate::primitives::{DecodeError, EncodeError, Field, Form, Frame, Reader, Writer};
use bytes::Bytes;
use std::fmt;
use std::ops::RangeInclusive;

mod alter_configs;
mod api_versions;
mod create_topics;
mod delete_topics;
mod describe_configs;
mod fetch;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod produce;

pub use alter_configs::*;
pub use api_versions::*;
pub use create_topics::*;
pub use delete_topics::*;
pub use describe_configs::*;
pub use fetch::*;
pub use init_producer_id::*;
pub use list_offsets::*;
pub use metadata::*;
pub use produce::*;

/// The versions of one API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The API.
    pub api: ApiKey,
    /// The versions that ApiVersions names.
    pub advertised: RangeInclusive<i16>,
    /// The versions that can be read and written.
    pub served: RangeInclusive<i16>,
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub flexible_from: i16,
}

macro_rules! apis {
    ($(
        $(#[doc = $doc:literal])*
        $Api:ident = $key:literal, advertised $advertised:expr, served $served:expr,
        flexible from $flexible:literal, $Request:ident => $Response:ident;
    )*) => {
        /// An API of the protocol, by its key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[doc = $doc])* $Api = $key,)*
        }

        /// Every API, in the order of the keys.
        pub const SUPPORTED: &[ApiRange] = &[$(ApiRange {
            api: ApiKey::$Api,
            advertised: $advertised,
            served: $served,
            flexible_from: $flexible,
        },)*];

        impl ApiKey {
            /// The API with this key, if it is one of ours.
            pub const fn from_code(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$Api),)*
                    _ => None,
                }
            }

            /// Its versions.
            pub const fn range(self) -> &'static ApiRange {
                let mut at = 0;
                while SUPPORTED[at].api as i16 != self as i16 {
                    at += 1;
                }
                &SUPPORTED[at]
            }
        }

        /// A request of any API.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[doc = $doc])* $Api($Request),)*
        }

        impl Request {
            /// Reads the body that [`crate::frame::Incoming::parse`] found.
            ///
            /// # Errors
            /// Bytes that are not the request that the header announced.
            pub fn decode(header: &RequestHeader, body: Bytes) -> Result<Self, DecodeError> {
                let version = header.api_version;
                match header.api_key {
                    $(ApiKey::$Api => $Request::decode(body, version).map(Self::$Api),)*
                }
            }

            /// The API of the request.
            pub const fn api(&self) -> ApiKey {
                match self { $(Self::$Api(_) => ApiKey::$Api,)* }
            }
        }

        /// A response of any API.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Response {
            $($(#[doc = $doc])* $Api($Response),)*
        }

        impl Response {
            /// Reads the body that [`crate::frame::response_body`] found.
            ///
            /// # Errors
            /// Bytes that are not the response in this version.
            pub fn decode(api: ApiKey, version: i16, body: Bytes) -> Result<Self, DecodeError> {
                match api {
                    $(ApiKey::$Api => $Response::decode(body, version).map(Self::$Api),)*
                }
            }

            /// The API of the response.
            pub const fn api(&self) -> ApiKey {
                match self { $(Self::$Api(_) => ApiKey::$Api,)* }
            }

            /// The response as a frame ([`crate::frame::encode_response`]).
            ///
            /// # Errors
            /// The response cannot be written in `version`.
            pub fn encode(&self, correlation_id: i32, version: i16) -> Result<Frame, EncodeError> {
                match self {
                    $(Self::$Api(m) => crate::frame::encode_response(correlation_id, version, m),)*
                }
            }
        }

        $(
            body!($Request, $Api);
            body!($Response, $Api);

            impl RequestMessage for $Request {
                type Response = $Response;
            }

            impl From<$Request> for Request {
                fn from(request: $Request) -> Self {
                    Self::$Api(request)
                }
            }

            impl From<$Response> for Response {
                fn from(response: $Response) -> Self {
                    Self::$Api(response)
                }
            }
        )*
    };
}

macro_rules! body {
    ($Body:ident, $Api:ident) => {
        impl Message for $Body {
            const API: ApiKey = ApiKey::$Api;

            fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError> {
                decode_body(Self::API, body, version)
            }

            fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
                encode_body(Self::API, self, w, version)
            }
        }
    };
}

fn decode_body<T: Field>(api: ApiKey, body: Bytes, version: i16) -> Result<T, DecodeError> {
    if !api.serves(version) {
        return Err(DecodeError::UnsupportedVersion { api, version });
    }
    let body = if api == ApiKey::Metadata { without_long_null(body, version) } else { body };
    let mut r = Reader::new(body);
    let message = T::read(&mut r, Form::message(version, api.is_flexible(version)))?;
    r.finish()?;
    Ok(message)
}

/// librdkafka, up to 2.16 at least, asks for all topics in flexible versions with four zeros for a
/// null that is one (its issue 5049). Kafka reads the rest as what it is not, and ignores what is
/// left over. No message of ours begins with four zeros and is as long.
fn without_long_null(body: Bytes, version: i16) -> Bytes {
    // The four zeros, two flags (three up to version 10), and no tagged fields.
    let is_long = match version {
        9 | 10 => body.len() == 8,
        11.. => body.len() == 7,
        _ => false,
    };
    if is_long && body.starts_with(&[0; 4]) { body.slice(3..) } else { body }
}

fn encode_body<T: Field>(
    api: ApiKey,
    message: &T,
    w: &mut Writer,
    version: i16,
) -> Result<(), EncodeError> {
    if !api.serves(version) {
        return Err(EncodeError::UnsupportedVersion { api, version });
    }
    message.write(w, Form::message(version, api.is_flexible(version)))
}

apis! {
    /// Appends record batches.
    Produce = 0, advertised 0..=9, served 3..=9, flexible from 9,
        ProduceRequest => ProduceResponse;
    /// Reads record batches, waiting for them if asked to.
    Fetch = 1, advertised 4..=12, served 4..=12, flexible from 12,
        FetchRequest => FetchResponse;
    /// Finds an offset by time, or the first or last one.
    ListOffsets = 2, advertised 1..=7, served 1..=7, flexible from 6,
        ListOffsetsRequest => ListOffsetsResponse;
    /// Describes brokers, topics and partitions.
    Metadata = 3, advertised 0..=12, served 0..=12, flexible from 9,
        MetadataRequest => MetadataResponse;
    /// Names the APIs and versions of the broker.
    ApiVersions = 18, advertised 0..=3, served 0..=3, flexible from 3,
        ApiVersionsRequest => ApiVersionsResponse;
    /// Creates topics.
    CreateTopics = 19, advertised 2..=7, served 2..=7, flexible from 5,
        CreateTopicsRequest => CreateTopicsResponse;
    /// Deletes topics.
    DeleteTopics = 20, advertised 1..=6, served 1..=6, flexible from 4,
        DeleteTopicsRequest => DeleteTopicsResponse;
    /// Hands out a producer id, which duplicate detection needs.
    InitProducerId = 22, advertised 0..=4, served 0..=4, flexible from 2,
        InitProducerIdRequest => InitProducerIdResponse;
    /// Tells the settings of topics.
    DescribeConfigs = 32, advertised 1..=4, served 1..=4, flexible from 4,
        DescribeConfigsRequest => DescribeConfigsResponse;
    /// Replaces all settings of topics.
    AlterConfigs = 33, advertised 0..=2, served 0..=2, flexible from 2,
        AlterConfigsRequest => AlterConfigsResponse;
    /// Changes some settings of topics.
    IncrementalAlterConfigs = 44, advertised 0..=1, served 0..=1, flexible from 1,
        IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether requests and responses of this version can be read and written.
    pub const fn serves(self, version: i16) -> bool {
        let served = &self.range().served;
        *served.start() <= version && version <= *served.end()
    }

    /// Whether this version has compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.range().flexible_from
    }

    /// Whether the response header of this version has tagged fields.
    pub const fn response_header_is_flexible(self, version: i16) -> bool {
        self.is_flexible(version) && !matches!(self, Self::ApiVersions)
    }

    /// The highest version that we and a peer with this range both know: what a client sends.
    pub fn negotiate(self, peer: RangeInclusive<i16>) -> Option<i16> {
        let served = &self.range().served;
        let highest = *served.end().min(peer.end());
        (highest >= *served.start() && peer.contains(&highest)).then_some(highest)
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_advertises_what_is_served() {
        assert!(SUPPORTED.is_sorted_by_key(|range| range.api));
        for range in SUPPORTED {
            assert_eq!(ApiKey::from_code(range.api.code()), Some(range.api));
            assert_eq!(range.api.range(), range);
            assert_eq!(range.advertised.end(), range.served.end(), "{}", range.api);
            let hidden = range.served.start() - range.advertised.start();
            assert_eq!(hidden, if range.api == ApiKey::Produce { 3 } else { 0 });
        }
        assert_eq!(ApiKey::from_code(71), None, "telemetry would be used at once");
        assert_eq!(ApiKey::from_code(75), None, "and so would DescribeTopicPartitions");
    }

    /// librdkafka compresses only if Produce starts at 0, and fetches only with version 11 or
    /// lower; rskafka fetches with exactly 4. The floors are Kafka 4.0's and never rise.
    #[test]
    fn the_floors_are_those_that_clients_need() {
        let floor = |api: ApiKey| *api.range().advertised.start();
        assert_eq!(floor(ApiKey::Produce), 0);
        assert_eq!(floor(ApiKey::Fetch), 4);
        assert_eq!(floor(ApiKey::ListOffsets), 1);
        assert_eq!(floor(ApiKey::Metadata), 0);
        assert_eq!(floor(ApiKey::ApiVersions), 0);
        assert_eq!(floor(ApiKey::CreateTopics), 2);
        assert_eq!(floor(ApiKey::DeleteTopics), 1);
        assert_eq!(floor(ApiKey::InitProducerId), 0);
        assert_eq!(floor(ApiKey::DescribeConfigs), 1);
        assert_eq!(floor(ApiKey::AlterConfigs), 0);
        assert_eq!(floor(ApiKey::IncrementalAlterConfigs), 0);
    }

    #[test]
    fn a_client_sends_the_highest_common_version() {
        assert_eq!(ApiKey::Produce.negotiate(0..=13), Some(9));
        assert_eq!(ApiKey::Produce.negotiate(0..=7), Some(7));
        assert_eq!(ApiKey::Produce.negotiate(0..=2), None);
        assert_eq!(ApiKey::Fetch.negotiate(13..=18), None);
        let (min, max) = (12, 11);
        assert_eq!(ApiKey::Fetch.negotiate(min..=max), None);
    }

    #[test]
    fn the_response_header_of_api_versions_never_has_tags() {
        assert!(ApiKey::ApiVersions.is_flexible(3));
        assert!(!ApiKey::ApiVersions.response_header_is_flexible(3));
        assert!(ApiKey::Metadata.response_header_is_flexible(9));
        assert!(!ApiKey::Metadata.response_header_is_flexible(8));
    }

    #[test]
    fn a_value_that_the_version_lacks_is_refused_unless_it_may_be_ignored() {
        let by_id = DeleteTopicsRequest {
            topics: vec![DeleteTopicState::default()],
            ..DeleteTopicsRequest::default()
        };
        let error = EncodeError::NotInVersion { field: "topics", version: 5 };
        assert_eq!(by_id.to_bytes(5), Err(error));
        assert!(by_id.to_bytes(6).is_ok());
        let throttled = ApiVersionsResponse { throttle_time_ms: 1, ..Default::default() };
        let in_version_0 = throttled.to_bytes(0).expect("dropped");
        assert_eq!(ApiVersionsResponse::decode(in_version_0, 0), Ok(Default::default()));
    }

    #[test]
    fn librdkafka_asks_for_all_topics_with_a_long_null() {
        let body = |bytes: &'static [u8]| Bytes::from_static(bytes);
        for (version, bytes) in [(12, &[0, 0, 0, 0, 1, 0, 0][..]), (9, &[0, 0, 0, 0, 1, 0, 0, 0])] {
            let request = MetadataRequest::decode(body(bytes), version).expect("all topics");
            assert!(request.is_for_all_topics(version) && request.allow_auto_topic_creation);
        }
        let longer = MetadataRequest::decode(body(&[0, 0, 0, 0, 1, 0, 0, 0]), 12);
        assert_eq!(longer, Err(DecodeError::TrailingBytes(4)));
        let classic = MetadataRequest::decode(body(&[255, 255, 255, 255, 1, 0]), 4);
        assert_eq!(classic, Err(DecodeError::TrailingBytes(1)));
    }

    #[test]
    fn all_topics_are_asked_for_by_null_and_in_version_0_by_an_empty_array() {
        let asks = |topics, version| {
            MetadataRequest { topics, ..Default::default() }.is_for_all_topics(version)
        };
        assert!(asks(None, 1) && asks(Some(vec![]), 0));
        assert!(!asks(Some(vec![]), 1));
        assert!(!asks(Some(vec![MetadataRequestTopic::default()]), 0));
    }

    #[test]
    fn tagged_fields_are_written_only_if_they_say_something() {
        let plain = FetchPartitionData::default();
        let mut moved = plain.clone();
        moved.current_leader = LeaderIdAndEpoch { leader_id: 2, leader_epoch: 7 };
        let body = |data: FetchPartitionData| {
            let topic = FetchableTopicResponse { topic: "t".into(), partitions: vec![data] };
            let response = FetchResponse { responses: vec![topic], ..Default::default() };
            response.to_bytes(12).expect("valid")
        };
        // tag, length, leader id, leader epoch, no tags inside
        assert_eq!(body(moved).len(), body(plain).len() + 1 + 1 + 4 + 4 + 1);
    }
}
