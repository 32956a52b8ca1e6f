//! ApiVersions (key 18): the first request of almost every connection.
//!
//! The features of version 3 are not declared on purpose: as tags they would be skipped by who
//! does not know them, yet librdkafka up to 2.1 cannot read a response with more than one tag.

use crate::ErrorCode;
use crate::api::{ApiKey, SUPPORTED};
use crate::message::{Message, message};
use crate::primitives::DecodeError;
use bytes::Bytes;
use std::ops::RangeInclusive;

message! {
    /// Asks which APIs, in which versions, the broker speaks.
    pub struct ApiVersionsRequest {
        /// The name of the client library.
        [3..] client_software_name: String, ignorable;
        /// The version of the client library.
        [3..] client_software_version: String, ignorable;
    }

    /// The versions of all APIs of the broker.
    pub struct ApiVersionsResponse {
        /// Error 35 if the request's version is not known; the response is then of version 0.
        [0..] error_code: ErrorCode;
        /// The APIs.
        [0..] api_keys: Vec<ApiVersion>;
        /// How long the broker held the request back to enforce a quota.
        [1..] throttle_time_ms: i32, ignorable;
    }

    /// The versions of one API.
    pub struct ApiVersion {
        /// The key of the API.
        [0..] api_key: i16;
        /// The lowest version.
        [0..] min_version: i16;
        /// The highest version.
        [0..] max_version: i16;
    }
}

impl ApiVersionsResponse {
    /// The answer of our broker: what the table advertises.
    pub fn advertised() -> Self {
        Self { api_keys: SUPPORTED.iter().map(ApiVersion::of).collect(), ..Self::default() }
    }

    /// The answer to a version that is not served, which names the versions of ApiVersions alone
    /// (KIP-511). It is sent in version 0.
    pub fn unsupported_version() -> Self {
        Self {
            error_code: ErrorCode::UnsupportedVersion,
            api_keys: vec![ApiVersion::of(ApiKey::ApiVersions.range())],
            ..Self::default()
        }
    }

    /// Reads an answer to a request of `version`, which may be the version 0 answer of a broker
    /// that does not know that version.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn decode_answer(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        let refused = body.starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
        Self::decode(body, if refused { 0 } else { version })
    }

    /// The versions of an API according to the broker.
    pub fn versions_of(&self, api: ApiKey) -> Option<RangeInclusive<i16>> {
        let found = self.api_keys.iter().find(|found| found.api_key == api.code())?;
        Some(found.min_version..=found.max_version)
    }
}

impl ApiVersion {
    fn of(range: &super::ApiRange) -> Self {
        Self {
            api_key: range.api.code(),
            min_version: *range.advertised.start(),
            max_version: *range.advertised.end(),
        }
    }
}
