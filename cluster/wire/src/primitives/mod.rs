//! The primitive types of the Kafka protocol: bounded reading, infallible writing.
//!
//! ```text
//! type              classic versions               flexible versions (KIP-482)
//! int8..int64       big endian                     big endian
//! boolean           1 byte, 0 is false             1 byte, 0 is false
//! uuid              16 bytes                       16 bytes
//! string            int16 n   | n bytes of UTF-8   uvarint n+1 | n bytes of UTF-8
//! bytes, records    int32 n   | n bytes            uvarint n+1 | n bytes
//! array             int32 n   | n elements         uvarint n+1 | n elements
//! null of the three n = -1                         uvarint 0
//! struct            its fields                     its fields | tagged fields
//! tagged fields     -                              uvarint k | k x (uvarint tag | uvarint n | n bytes)
//! ```
//!
//! Invariants: a reader never looks beyond its bytes, and allocates nothing whose size it read
//! from the wire before that size was bounded by the bytes that remain. Whatever the input is, the
//! result is a value or an error.
//!
//! Never: a panic that bytes from outside can reach; a copy of record bytes.

mod field;
mod reader;
mod writer;

pub(crate) use field::{Field, Form};
pub use reader::{
    ELEMENT_MEMORY_BYTES_FREE, ELEMENT_MEMORY_BYTES_PER_BYTE, Reader, STRING_BYTES_MAX,
};
pub use writer::{Frame, Writer};

use crate::ApiKey;

/// Why bytes are not the message that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value reaches beyond the end of the message.
    #[error("{needed} bytes are needed where {remaining} remain")]
    Truncated {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that were left.
        remaining: usize,
    },
    /// An array claims more elements than the rest of the message can hold.
    #[error("an array of {count} elements cannot lie in {remaining} bytes")]
    CountTooLarge {
        /// Elements according to the wire.
        count: usize,
        /// Bytes that were left.
        remaining: usize,
    },
    /// The arrays of the message would take too much memory for a frame of its size
    /// ([`ELEMENT_MEMORY_BYTES_PER_BYTE`]).
    #[error("the arrays of the message take too much memory for its size")]
    TooMuchMemory,
    /// A length is negative and is not the -1 of a null.
    #[error("a length of {0}")]
    NegativeLength(i64),
    /// A null where the message's version has none.
    #[error("null in the field {field}, which cannot be null in version {version}")]
    Null {
        /// The field.
        field: &'static str,
        /// The version of the message.
        version: i16,
    },
    /// A variable-length number has more bits than its type.
    #[error("a variable-length number that does not fit {0} bits")]
    VarintTooLong(u32),
    /// A string is longer than Kafka allows.
    #[error("a string of {0} bytes; {STRING_BYTES_MAX} are allowed")]
    StringTooLong(usize),
    /// A string is not UTF-8.
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// The message does not exist in this version here.
    #[error("{api} version {version} is not served")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version that was asked for.
        version: i16,
    },
    /// The message ended before its bytes did.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
}

/// Why a message cannot be written in a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message does not exist in this version here.
    #[error("{api} version {version} is not served")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version that was asked for.
        version: i16,
    },
    /// A field has a value that must not be dropped, and the version has no room for it.
    #[error("the field {field} is set and does not exist in version {version}")]
    NotInVersion {
        /// The field.
        field: &'static str,
        /// The version of the message.
        version: i16,
    },
    /// A field is null and the version has no null for it.
    #[error("null in the field {field}, which cannot be null in version {version}")]
    Null {
        /// The field.
        field: &'static str,
        /// The version of the message.
        version: i16,
    },
    /// A string, an array or the frame itself has more bytes than its length can say.
    #[error("{0} bytes or elements are more than a length on the wire can say")]
    TooLong(usize),
}
