//! Frames: the length prefix and the headers around every request and response.
//!
//! ```text
//! request   int32 length | int16 api_key | int16 api_version | int32 correlation_id
//!           | string client_id (nullable, classic) | [tagged fields] | body
//! response  int32 length | int32 correlation_id | [tagged fields] | body
//! ```
//!
//! The tagged fields are there in flexible versions of an API (request header v2, response header
//! v1), except that the response of ApiVersions never has them: a client that reads it does not
//! know yet what the broker speaks (KIP-511).
//!
//! Invariants: a frame is handed out whole or not at all; a length is checked before it is
//! believed; what fails to encode leaves its buffer as it was.
//!
//! Never: wait, or read from anywhere; bytes come in a `BytesMut` and leave as `Bytes`.

use crate::message::{Message, RequestMessage};
use crate::primitives::{DecodeError, EncodeError, Frame, Reader, Writer};
use crate::{ApiKey, ApiVersionsResponse};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length prefix.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of a request header before the client id; every request has them.
pub const REQUEST_HEADER_BYTES_MIN: usize = 8;

/// Why a stream cannot be cut into frames. There is no way to find the next frame after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("a frame of {0} bytes")]
    Negative(i32),
    /// The frame is longer than the receiver allows.
    #[error("a frame of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLong {
        /// Bytes that the frame claims.
        bytes: usize,
        /// Bytes that the receiver allows.
        bytes_max: usize,
    },
}

/// Cuts a stream of bytes into frames.
#[derive(Clone, Copy, Debug)]
pub struct FrameSplitter {
    frame_bytes_max: usize,
}

impl FrameSplitter {
    /// A splitter that refuses frames of more than `frame_bytes_max` bytes (prefix not counted).
    pub const fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max }
    }

    /// Takes the next frame, without its length, from the front of `buffer`. `None` asks for more
    /// bytes; [`Self::missing_bytes`] says how many.
    ///
    /// The frame shares the buffer's memory.
    ///
    /// # Errors
    /// A length that is negative or above the maximum: the connection is of no use any more.
    pub fn split(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(frame_bytes) = self.frame_bytes(buffer)? else { return Ok(None) };
        if buffer.len() - LENGTH_BYTES < frame_bytes {
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        Ok(Some(buffer.split_to(frame_bytes).freeze()))
    }

    /// Bytes that `buffer` lacks until [`Self::split`] finds a frame in it; 0 if there is one.
    ///
    /// It is bounded by the maximum, yet it is what the peer claims: who reserves all of it at
    /// once gives every silent connection that much memory.
    ///
    /// # Errors
    /// As [`Self::split`].
    pub fn missing_bytes(&self, buffer: &BytesMut) -> Result<usize, FrameError> {
        let wanted = LENGTH_BYTES + self.frame_bytes(buffer)?.unwrap_or(0);
        Ok(wanted.saturating_sub(buffer.len()))
    }

    /// The length that the next frame claims, without its prefix; `None` if that is not there yet.
    ///
    /// # Errors
    /// As [`Self::split`].
    pub fn frame_bytes(&self, buffer: &BytesMut) -> Result<Option<usize>, FrameError> {
        let Some(length) = buffer.first_chunk() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let bytes = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.frame_bytes_max });
        }
        Ok(Some(bytes))
    }
}

/// The header of a request that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which API the body belongs to.
    pub api_key: ApiKey,
    /// The version of the body, and of the response.
    pub api_version: i16,
    /// Chosen by the client, returned in the response.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<String>,
}

/// Why a request has no answer: the connection is closed, as Kafka does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// An API, or a version of it, that is not served and was not offered for serving.
    #[error("api key {api_key} version {api_version} is not served")]
    Unsupported {
        /// The API.
        api_key: i16,
        /// The version.
        api_version: i16,
    },
    /// The bytes are not a request header.
    #[error("not a request header: {0}")]
    Malformed(#[from] DecodeError),
}

/// A request frame whose header was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request for [`crate::Request::decode`].
    Request(RequestHeader, Bytes),
    /// An ApiVersions request of a version that is not served. The rest of its frame has a form
    /// that we do not know; the answer is [`unsupported_api_versions`].
    UnknownApiVersions {
        /// To be returned in the response.
        correlation_id: i32,
    },
}

impl Incoming {
    /// Reads the header of a request frame (without its length).
    ///
    /// # Errors
    /// Bytes that are no header, or a request that is not served.
    pub fn parse(frame: Bytes) -> Result<Self, HeaderError> {
        let mut r = Reader::new(frame);
        let (api_key, api_version, correlation_id) = (r.int16()?, r.int16()?, r.int32()?);
        let unsupported = HeaderError::Unsupported { api_key, api_version };
        let api_key = ApiKey::from_code(api_key).ok_or(unsupported.clone())?;
        if !api_key.serves(api_version) {
            return match api_key {
                ApiKey::ApiVersions => Ok(Self::UnknownApiVersions { correlation_id }),
                _ => Err(unsupported),
            };
        }
        // KIP-482 left the client id classic, so that the header before it never changes.
        let client_id = r.string_len(false)?.map(|len| r.text(len)).transpose()?;
        if api_key.is_flexible(api_version) {
            r.skip_tagged_fields()?;
        }
        let header = RequestHeader { api_key, api_version, correlation_id, client_id };
        Ok(Self::Request(header, r.into_rest()))
    }
}

/// The answer to an ApiVersions request of an unknown version: version 0 and error 35, which every
/// client falls back from (KIP-511).
///
/// # Errors
/// None in practice; the signature is that of every encoder.
pub fn unsupported_api_versions(correlation_id: i32) -> Result<Frame, EncodeError> {
    encode_response(correlation_id, 0, &ApiVersionsResponse::unsupported_version())
}

/// Appends a request frame to `out`.
///
/// # Errors
/// The request cannot be written in `api_version`; `out` is then as it was.
pub fn encode_request<R: RequestMessage>(
    out: &mut BytesMut,
    request: &R,
    api_version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let mut w = Writer::copying(std::mem::take(out));
    let result = write_request(&mut w, request, (api_version, correlation_id), client_id)
        .and_then(|()| close_frame(&mut w, start));
    *out = w.into_bytes();
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_request<R: RequestMessage>(
    w: &mut Writer,
    request: &R,
    (api_version, correlation_id): (i16, i32),
    client_id: Option<&str>,
) -> Result<(), EncodeError> {
    w.int32(0);
    w.int16(R::API.code());
    w.int16(api_version);
    w.int32(correlation_id);
    w.string_len(client_id.map(str::len), false)?;
    w.slice(client_id.unwrap_or("").as_bytes());
    if R::API.is_flexible(api_version) {
        w.uvarint(0);
    }
    request.encode(w, api_version)
}

/// A response frame. Long records in it are shared, not copied.
///
/// # Errors
/// The response cannot be written in `api_version`.
pub fn encode_response<M: Message>(
    correlation_id: i32,
    api_version: i16,
    response: &M,
) -> Result<Frame, EncodeError> {
    let mut w = Writer::splicing();
    w.int32(0);
    w.int32(correlation_id);
    if M::API.response_header_is_flexible(api_version) {
        w.uvarint(0);
    }
    response.encode(&mut w, api_version)?;
    close_frame(&mut w, 0)?;
    Ok(w.into_frame())
}

fn close_frame(w: &mut Writer, start: usize) -> Result<(), EncodeError> {
    let bytes = w.len() - start - LENGTH_BYTES;
    let length = i32::try_from(bytes).map_err(|_| EncodeError::TooLong(bytes))?;
    w.patch_int32(start, length);
    Ok(())
}

/// The correlation id of a response frame (without its length), by which the client finds the
/// request that it answers.
///
/// # Errors
/// A frame of fewer than four bytes.
pub fn correlation_id(frame: &Bytes) -> Result<i32, DecodeError> {
    Reader::new(frame.clone()).int32()
}

/// The body of a response frame (without its length), for [`Message::decode`].
///
/// # Errors
/// Bytes that are no response header.
pub fn response_body(
    frame: Bytes,
    api_key: ApiKey,
    api_version: i16,
) -> Result<Bytes, DecodeError> {
    let mut r = Reader::new(frame);
    r.int32()?;
    if api_key.response_header_is_flexible(api_version) {
        r.skip_tagged_fields()?;
    }
    Ok(r.into_rest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, FetchResponse, MetadataRequest, MetadataRequestTopic, Records};

    #[test]
    fn a_stream_is_cut_the_same_whatever_the_pieces_are() {
        let splitter = FrameSplitter::new(8);
        let stream = [&[0, 0, 0, 3][..], b"abc", &[0; 4], &[0, 0, 0, 8], b"12345678"].concat();
        for piece_bytes in 1..=stream.len() {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for piece in stream.chunks(piece_bytes) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = splitter.split(&mut buffer).expect("in order") {
                    frames.push(frame);
                }
                assert!(splitter.missing_bytes(&buffer).expect("in order") > 0);
            }
            assert_eq!(frames, [&b"abc"[..], b"", b"12345678"]);
            assert_eq!(splitter.missing_bytes(&buffer), Ok(4));
        }
    }

    #[test]
    fn the_missing_bytes_are_those_of_the_frame() {
        let splitter = FrameSplitter::new(100);
        let missing = |bytes: &[u8]| splitter.missing_bytes(&BytesMut::from(bytes));
        assert_eq!(missing(&[]), Ok(4));
        assert_eq!(missing(&[0]), Ok(3));
        assert_eq!(missing(&[0, 0, 0, 9]), Ok(9));
        assert_eq!(missing(&[0, 0, 0, 2, 1, 1, 1]), Ok(0));
        assert_eq!(missing(&[0xff; 4]), Err(FrameError::Negative(-1)));
    }

    #[test]
    fn a_request_that_fails_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let by_id = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic::default()]),
            ..MetadataRequest::default()
        };
        let error = encode_request(&mut out, &by_id, 9, 1, None).expect_err("no null names");
        assert_eq!(error, EncodeError::Null { field: "name", version: 9 });
        assert_eq!(out, "before");
        let client_id = "c".repeat(1 << 15);
        let error = encode_request(&mut out, &by_id, 12, 1, Some(&client_id));
        assert_eq!(error, Err(EncodeError::TooLong(1 << 15)));
        assert_eq!(out, "before");
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
        let frame = unsupported_api_versions(5).expect("valid").to_bytes();
        let expected = [0, 0, 0, 16, 0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3];
        assert_eq!(frame[..], expected);
        let body = response_body(frame.slice(4..), ApiKey::ApiVersions, 3).expect("a header");
        let answer = ApiVersionsResponse::decode_answer(body, 3).expect("in version 0");
        assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion);
        assert_eq!(answer.versions_of(ApiKey::ApiVersions), Some(0..=3));
        assert_eq!(answer.versions_of(ApiKey::Fetch), None);
    }

    #[test]
    fn the_records_of_a_fetch_response_are_shared_with_the_log() {
        let log = Bytes::from(vec![7; 10_000]);
        let mut response = FetchResponse::default();
        let data = crate::FetchPartitionData {
            records: Some(Records::from_iter([log.slice(..4_000), log.slice(4_000..)])),
            ..Default::default()
        };
        let topic = crate::FetchableTopicResponse { topic: "t".into(), partitions: vec![data] };
        response.responses = vec![topic];
        let frame = encode_response(1, 12, &response).expect("valid");
        let shared = frame.chunks().iter().filter(|c| log.as_ptr_range().contains(&c.as_ptr()));
        assert_eq!(shared.map(Bytes::len).sum::<usize>(), 10_000);
        assert_eq!(frame.chunks().len(), 4);
    }
}
