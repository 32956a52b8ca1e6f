//! Record batches, version 2: validated, placed, read and built, and re-encoded only by [`Rewriting`].
//!
//! ```text
//!  0  int64   base_offset             outside the checksum: the broker sets it
//!  8  int32   batch_length            bytes after this field
//! 12  int32   partition_leader_epoch  outside the checksum: the broker sets it
//! 16  int8    magic                   2
//! 17  uint32  crc                     CRC32C of everything from 21 to the end
//! 21  int16   attributes              see [`Attributes`]
//! 23  int32   last_offset_delta       at least record_count - 1, and just that from a producer
//! 27  int64   base_timestamp          ms since 1970, of the first record; -1 for none
//! 35  int64   max_timestamp           ms since 1970; -1 if the producer left it unset
//! 43  int64   producer_id             -1 for a producer that is not idempotent
//! 51  int16   producer_epoch
//! 53  int32   base_sequence           of the first record; wraps to 0 after i32::MAX
//! 57  int32   record_count
//! 61  records                         compressed together, or see `record`
//! ```
//!
//! Invariants: a [`Batch`] holds exactly one batch whose checksum was right when it was made. The
//! producer's bytes are kept as they are, compression included, so header keys that are repeated
//! or not UTF-8 survive.
//!
//! Never: decompress (a few KB can become 500 MB), or trust a count or a length inside.

use bytes::{Bytes, BytesMut};
use fulmar_types::{Offset, Term};
use std::ops::RangeInclusive;

mod blob;
mod build;
mod record;
mod rewrite;
#[cfg(test)]
mod tests;

pub use blob::Batches;
pub use build::{BatchBuilder, BuildError, empty_batch};
pub use record::{Header, Record, RecordError, RecordIter};
pub use rewrite::{Closing, Rewriting, rewritten};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// Bytes of a batch that `batch_length` does not count.
pub const LENGTH_END: usize = 12;

/// The timestamp of a record that has none, and of a `max_timestamp` that was left unset.
pub const NO_TIMESTAMP: i64 = -1;

/// The producer id of a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;

const EPOCH_AT: usize = 12;
const EPOCH_END: usize = 16;
const MAGIC_AT: usize = 16;
const CRC_START: usize = 21;
const MAGIC: i8 = 2;

/// Why bytes are not a batch, or not one that a producer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header announces.
    #[error("a batch of {needed} bytes is cut off after {remaining}")]
    Truncated {
        /// Bytes that the batch needs.
        needed: usize,
        /// Bytes that are there.
        remaining: usize,
    },
    /// The length in the header cannot hold a header, or more follows the one batch.
    #[error("a batch length of {0}")]
    Length(i32),
    /// A message format that is not version 2.
    #[error("magic {0}: only record batches (magic 2) are accepted")]
    Magic(i8),
    /// The checksum does not match.
    #[error("the checksum is {found:#010x} and the batch says {expected:#010x}")]
    Checksum {
        /// What the batch says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// Larger than the receiver accepts.
    #[error("a batch of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
        /// Bytes that are accepted.
        bytes_max: usize,
    },
    /// No records, or a count that the last offset delta contradicts.
    #[error("{record_count} records with a last offset delta of {last_offset_delta}")]
    Count {
        /// Records according to the header.
        record_count: i32,
        /// The offset of the last record, relative to the first.
        last_offset_delta: i32,
    },
    /// Attribute bits that a producer must not set (control, LogAppendTime, reserved ones).
    #[error("attributes {0:#06x} are not a producer's")]
    Attributes(i16),
    /// A compression codec that does not exist.
    #[error("compression codec {0} does not exist")]
    Codec(u8),
    /// An identity that no producer has: a negative epoch or sequence, or a transaction without
    /// a producer id.
    #[error("producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    Producer {
        /// The producer id.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i16,
        /// The sequence number of the first record.
        base_sequence: i32,
    },
    /// A record inside an uncompressed batch is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard; clients that speak Produce below 7 or Fetch below 10 cannot read it.
    Zstd = 4,
}

impl Compression {
    /// All that there are.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}

/// The attributes of a batch.
///
/// ```text
/// bit  0..2         3              4              5        6               7..15
///      compression  LogAppendTime  transactional  control  delete horizon  reserved
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::Codec`].
    pub const fn compression(self) -> Result<Compression, BatchError> {
        match self.0 & Self::CODEC {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::Codec(other as u8)),
        }
    }

    /// Whether the timestamps are those of the append, all equal to the batch's maximum.
    pub const fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker of the broker and not data.
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }
}

/// The producer of an idempotent batch and the place of the batch in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerStamp {
    /// The producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// The sequence number of the last record.
    pub last_sequence: i32,
}

/// The sequence number `count` records after `sequence`: after `i32::MAX` comes 0.
pub const fn sequence_after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// The header of a batch, as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// The leader epoch in which the batch was appended.
    pub partition_leader_epoch: i32,
    /// The format.
    pub magic: i8,
    /// The checksum.
    pub crc: u32,
    /// Compression and flags.
    pub attributes: Attributes,
    /// The offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// The timestamp that those of the records are relative to.
    pub base_timestamp: i64,
    /// The highest timestamp, or [`NO_TIMESTAMP`].
    pub max_timestamp: i64,
    /// The producer id, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// The number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, and checks only that it is there in full.
    ///
    /// # Errors
    /// [`BatchError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let header: &[u8; HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or(BatchError::Truncated { needed: HEADER_BYTES, remaining: bytes.len() })?;
        Ok(Self {
            base_offset: i64::from_be_bytes(at(header, 0)),
            batch_length: i32::from_be_bytes(at(header, 8)),
            partition_leader_epoch: i32::from_be_bytes(at(header, EPOCH_AT)),
            magic: i8::from_be_bytes(at(header, MAGIC_AT)),
            crc: u32::from_be_bytes(at(header, 17)),
            attributes: Attributes(i16::from_be_bytes(at(header, CRC_START))),
            last_offset_delta: i32::from_be_bytes(at(header, 23)),
            base_timestamp: i64::from_be_bytes(at(header, 27)),
            max_timestamp: i64::from_be_bytes(at(header, 35)),
            producer_id: i64::from_be_bytes(at(header, 43)),
            producer_epoch: i16::from_be_bytes(at(header, 51)),
            base_sequence: i32::from_be_bytes(at(header, 53)),
            record_count: i32::from_be_bytes(at(header, 57)),
        })
    }

    /// Bytes of the whole batch.
    ///
    /// # Errors
    /// [`BatchError::Length`] if the length cannot hold a header.
    pub fn batch_bytes(&self) -> Result<usize, BatchError> {
        let after = usize::try_from(self.batch_length).ok();
        let whole = after.and_then(|after| after.checked_add(LENGTH_END));
        whole.filter(|whole| *whole >= HEADER_BYTES).ok_or(BatchError::Length(self.batch_length))
    }

    /// The offsets of the first and the last record.
    pub fn offsets(&self) -> RangeInclusive<i64> {
        self.base_offset..=self.base_offset.saturating_add(self.last_offset_delta.into())
    }

    /// The highest timestamp of the records, for lookups by time; [`NO_TIMESTAMP`] without any.
    ///
    /// Clients leave the header's field unset (Sarama) or put the last record's timestamp there
    /// (kafka-go), so the records are walked, as Kafka does. Those of a compressed batch cannot be:
    /// if the field is unset, it is taken that none of them is later than `appended_ms`, when the
    /// batch was appended. A value that is too high costs a lookup time, one that is too low would
    /// make it miss records.
    pub fn max_timestamp_of(&self, record_bytes: Bytes, appended_ms: i64) -> i64 {
        let from_records = match RecordIter::new(self, record_bytes) {
            Ok(records) => records.map_while(Result::ok).map(|record| record.timestamp).max(),
            Err(_) if self.max_timestamp < 0 => Some(self.base_timestamp.max(appended_ms)),
            Err(_) => None,
        };
        from_records.unwrap_or(NO_TIMESTAMP).max(self.max_timestamp).max(NO_TIMESTAMP)
    }

    /// Who produced the batch; `None` if the producer is not idempotent.
    pub fn producer(&self) -> Option<ProducerStamp> {
        (self.producer_id != NO_PRODUCER_ID).then(|| ProducerStamp {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            last_sequence: sequence_after(self.base_sequence, self.last_offset_delta),
        })
    }

    /// The rules for what every batch has, whoever wrote it. Offsets may lack their records, as what
    /// Kafka has compacted does.
    fn check_form(&self) -> Result<(), BatchError> {
        let Self { record_count, last_offset_delta, .. } = *self;
        if record_count < 0 || last_offset_delta < (record_count - 1).max(0) {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        self.attributes.compression().map(|_| ())
    }

    /// A producer leaves no offset without a record.
    fn check_dense(&self) -> Result<(), BatchError> {
        let Self { record_count, last_offset_delta, .. } = *self;
        if last_offset_delta != record_count - 1 {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        Ok(())
    }

    /// The rules for what a producer may say.
    fn check_producer(&self) -> Result<(), BatchError> {
        let Self { record_count, last_offset_delta, .. } = *self;
        if record_count < 1 {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        let Attributes(bits) = self.attributes;
        if bits & !(Attributes::CODEC | Attributes::TRANSACTIONAL) != 0 {
            return Err(BatchError::Attributes(bits));
        }
        let Self { producer_id, producer_epoch, base_sequence, .. } = *self;
        let known = producer_id >= 0 && producer_epoch >= 0 && base_sequence >= 0;
        let anonymous = producer_id == NO_PRODUCER_ID && !self.attributes.is_transactional();
        if !known && !anonymous {
            return Err(BatchError::Producer { producer_id, producer_epoch, base_sequence });
        }
        Ok(())
    }
}

/// `N` bytes of the header; every call names a field that lies inside it.
const fn at<const N: usize>(header: &[u8; HEADER_BYTES], start: usize) -> [u8; N] {
    let mut field = [0; N];
    let mut index = 0;
    while index < N {
        field[index] = header[start + index];
        index += 1;
    }
    field
}

/// One batch with a valid header and checksum, in shared bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes bytes that must be exactly one batch with a right checksum. For batches that were
    /// validated when they were appended.
    ///
    /// # Errors
    /// What is wrong with the length, the format, the checksum, the count or the codec.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::read(&bytes)?;
        let (needed, remaining) = (header.batch_bytes()?, bytes.len());
        if remaining < needed {
            return Err(BatchError::Truncated { needed, remaining });
        }
        if remaining > needed {
            return Err(BatchError::Length(header.batch_length));
        }
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        let found = crc32c::crc32c(&bytes[CRC_START..]);
        if found != header.crc {
            return Err(BatchError::Checksum { expected: header.crc, found });
        }
        header.check_form()?;
        Ok(Self { header, bytes })
    }

    /// Takes what a producer sent for one partition: exactly one batch of at most `bytes_max`
    /// bytes, with nothing in it that only a broker may write.
    ///
    /// The records of an uncompressed batch are walked once, as Kafka does, because a batch whose
    /// inside is damaged would stop every consumer of the partition. Compressed records are not
    /// looked at.
    ///
    /// # Errors
    /// As [`Self::parse`], and what is wrong with the size, the attributes, the producer's
    /// identity or a record.
    pub fn from_producer(bytes: Bytes, bytes_max: usize) -> Result<Self, BatchError> {
        let batch = Self::from_origin(bytes, bytes_max)?;
        batch.header.check_dense()?;
        Ok(batch)
    }

    /// The same for a batch that another site has taken from a producer, and from which records may be
    /// missing since.
    ///
    /// # Errors
    /// As [`Self::from_producer`].
    pub fn from_origin(bytes: Bytes, bytes_max: usize) -> Result<Self, BatchError> {
        if bytes.len() > bytes_max {
            return Err(BatchError::TooLarge { bytes: bytes.len(), bytes_max });
        }
        // Older formats have another layout, so the magic is looked at before the length: the
        // sender is then told of its format and not of damage.
        if let Some(magic) = bytes.get(MAGIC_AT)
            && i8::from_be_bytes([*magic]) != MAGIC
        {
            return Err(BatchError::Magic(i8::from_be_bytes([*magic])));
        }
        let batch = Self::parse(bytes)?;
        let BatchHeader { record_count, last_offset_delta, .. } = batch.header;
        if record_count < 1 {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        batch.header.check_producer()?;
        if batch.compression() == Compression::None {
            batch.records()?.try_for_each(|record| record.map(drop))?;
        }
        Ok(batch)
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, owned.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records, compressed or not.
    pub fn record_bytes(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Compression {
        self.header.attributes.compression().expect("checked when the batch was made")
    }

    /// The number of records, at least 1.
    pub fn record_count(&self) -> u32 {
        self.header.record_count.cast_unsigned()
    }

    /// The records one by one.
    ///
    /// # Errors
    /// [`RecordError::Compressed`]: decompress [`Self::record_bytes`] first, with a limit.
    pub fn records(&self) -> Result<RecordIter, RecordError> {
        RecordIter::new(&self.header, self.record_bytes())
    }

    /// As [`BatchHeader::max_timestamp_of`].
    pub fn max_timestamp(&self, appended_ms: i64) -> i64 {
        self.header.max_timestamp_of(self.record_bytes(), appended_ms)
    }

    /// The batch with a base offset and a leader epoch, in two pieces: a header of its own, and
    /// the rest, shared. The checksum does not cover what is changed.
    pub fn placed(&self, base_offset: Offset, leader_epoch: Term) -> [Bytes; 2] {
        let mut header = BytesMut::from(&self.bytes[..HEADER_BYTES]);
        place(&mut header, base_offset, leader_epoch);
        [header.freeze(), self.record_bytes()]
    }
}

/// Sets the base offset and the leader epoch of the batch at the front of `batch`, in place. The
/// checksum does not cover them.
///
/// # Panics
/// If `batch` is no batch, or a number is beyond what Kafka's fields hold. Both are ours, so it
/// would be a bug.
pub fn place(batch: &mut [u8], base_offset: Offset, leader_epoch: Term) {
    assert!(batch.len() >= HEADER_BYTES, "{} bytes are no batch", batch.len());
    let base_offset = i64::try_from(base_offset.get()).expect("offsets stay below 2^63");
    let leader_epoch = i32::try_from(leader_epoch.get()).expect("terms stay below 2^31");
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[EPOCH_AT..EPOCH_END].copy_from_slice(&leader_epoch.to_be_bytes());
}
