//! Bytes on the network, without I/O: Kafka frames and messages, record batches.
//!
//! ```text
//! socket --BytesMut--> frame::FrameSplitter --Bytes--> frame::Incoming --> api::Request
//! socket <--[Bytes]--- primitives::Frame <------ frame::encode_response <-- api::*Response
//!
//! frame        length prefix, request and response headers
//! api          the APIs: their versions (`SUPPORTED`), one file of messages each
//! message      the macro by which a message is declared, and the traits of messages
//! primitives   bounded reading, infallible writing, errors of both
//! records      record bytes in shared pieces
//! batch        record batches: validate, place, read, build
//! compression  the codecs of record batches, for whoever has to look into one
//! error_code   Kafka's error codes
//! ```
//!
//! Invariants:
//! - Bytes from outside end in a value or an error. No panic, and no allocation whose size was
//!   read from the wire and not bounded first ([`primitives::Reader::elements`]).
//! - A decoded message takes at most five times the memory of its frame and 1 MiB.
//! - Record bytes are never copied on the way in, and in a Fetch response not on the way out.
//! - A batch is never re-encoded on its way through a site: the producer's bytes are what its consumers get.
//!
//! Never: a socket, a clock, a task. Never a dependency on a code generator or on the
//! `kafka-protocol` crate outside the tests, where it is the other side of the comparison.
//!
//! A broker's round:
//!
//! ```
//! use bytes::BytesMut;
//! use fulmar_wire::frame::{FrameSplitter, Incoming, encode_request};
//! use fulmar_wire::{ApiVersionsRequest, ApiVersionsResponse, Request, Response};
//!
//! let mut socket = BytesMut::new();
//! encode_request(&mut socket, &ApiVersionsRequest::default(), 3, 7, Some("kcat"))?;
//!
//! let frame = FrameSplitter::new(1 << 20).split(&mut socket)?.expect("a whole frame is there");
//! let Incoming::Request(header, body) = Incoming::parse(frame)? else { unreachable!() };
//! let answer: Response = match Request::decode(&header, body)? {
//!     Request::ApiVersions(_) => ApiVersionsResponse::advertised().into(),
//!     other => unreachable!("{other:?}"),
//! };
//! let frame = answer.encode(header.correlation_id, header.api_version)?;
//! assert_eq!(frame.chunks().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod api;
pub mod batch;
pub mod compression;
pub mod error_code;
pub mod frame;
pub mod message;
pub mod primitives;
mod records;

pub use api::*;
pub use error_code::ErrorCode;
pub use message::{Message, RequestMessage};
pub use primitives::{DecodeError, EncodeError, Frame, STRING_BYTES_MAX};
pub use records::Records;
