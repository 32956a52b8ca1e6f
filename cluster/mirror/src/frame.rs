//! How messages lie in the byte stream of a connection.
//!
//! ```text
//! greetings   length u32 | kind u8 | the message
//! then        length u32 | form u8 | ...
//!   form 0 to 2    messages of this priority:
//!                  number u64 | per message: length u32 | kind u8 | the message
//!   form 16 to 18  the same, compressed:
//!                  number u64 | bytes u32 | the messages as before, in an LZ4 frame
//!   form 3         a greeting that refuses: who has dialled does not like the welcome
//!   form 32        got u64
//!   form 33        nothing: the site has paused the link
//!   form 34        a part of one of the frames above, without its length
//!   form 35        the last part of it
//!   form 36, 37    the same of one that is urgent
//! ```
//!
//! `length` counts everything behind itself. The messages of a priority are numbered from 0 on through
//! all connections of the session; `number` is that of the first. `got` is how many bytes of frames have
//! come over this connection since the greeting.
//!
//! Other frames may stand between the parts of one, and those of one that is urgent between those of one that
//! is not, but no parts of two alike.
//!
//! Messages whose batches no producer has compressed are compressed together, if that makes them
//! less. `bytes` is how many bytes they are then again. Nothing else is: who sends it pays for each byte.
//!
//! Invariant: nothing is reserved for bytes that were only announced; what lies between two lengths is never longer
//! than 64 KiB, a frame in parts than 2 MiB, or 8 MiB if it is urgent, nor has it more than 1,024 messages.

use crate::message::{MESSAGES_MAX, Message, Refusal, priority, priority_number};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fulmar_host::net::{ReadHalf, WriteHalf};
use fulmar_host::time::{self, Duration};
use fulmar_types::limits::BATCH_BYTES_MAX;
use fulmar_types::link::Priority;
use fulmar_wire::batch::Compression;
use fulmar_wire::compression::{compress, decompress};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LENGTH_BYTES: usize = 4;

/// The longest frame, compressed or not: an offer, which `OFFER_BYTES_MAX` bounds, is the longest message.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// The longest frame that is not urgent: one batch, and what was taken before it.
const PARTED_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// What is longer comes in parts that are not.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// The kind of a greeting that refuses, so that it is no form of anything else.
const REFUSED: u8 = 3;
const GOT: u8 = 32;
const LEAVE: u8 = 33;
const PART: u8 = 34;
const LAST_PART: u8 = 35;
const URGENT_PART: u8 = 36;
const LAST_URGENT_PART: u8 = 37;

/// What a part has beside its bytes.
pub const PART_BYTES: usize = LENGTH_BYTES + 1;

/// What is added to the number of a priority if the messages are compressed.
const PACKED: u8 = 16;

/// LZ4 makes of telemetry in JSON a fifth, as zstd makes a sixth, at a twentieth of the time.
const CODEC: Compression = Compression::Lz4;

/// Less is not worth it.
const PACK_BYTES_MIN: usize = 256;

/// The place of the byte in a batch that names its codec, in its lowest three bits (Kafka, `attributes`
/// of the record batch, version 2).
const BATCH_CODEC_AT: usize = 22;

/// What lies between two lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Messages of one priority.
    Messages {
        /// The priority.
        lane: Priority,
        /// The number of the first.
        number: u64,
        /// In order.
        messages: Vec<Message>,
    },
    /// So many bytes have come over this connection.
    Got(u64),
    /// This site has paused the link.
    Leave,
    /// The other side has dialled, and does not like who welcomed it. It is sent as a greeting.
    Refused(Refusal),
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Puts a message with its length and kind in front.
///
/// # Errors
/// If it is over the limit.
fn put_message(out: &mut BytesMut, message: &Message) -> io::Result<()> {
    let (head, batch) = message.encode();
    let length = 1 + head.len() + batch.map_or(0, Bytes::len);
    if length > FRAME_BYTES_MAX {
        return Err(invalid("a message of a link is over the limit"));
    }
    out.reserve(LENGTH_BYTES + length);
    out.put_u32_le(u32::try_from(length).map_err(|_| invalid("a message is too long"))?);
    out.put_u8(message.kind());
    out.put_slice(&head);
    if let Some(batch) = batch {
        out.put_slice(batch);
    }
    Ok(())
}

/// Whether a message has a batch that nobody has compressed.
pub fn is_plain(message: &Message) -> bool {
    let Message::Batch(_, _, bytes) = message else { return false };
    bytes.get(BATCH_CODEC_AT).is_some_and(|attributes| attributes & 7 == 0)
}

/// Puts messages as they are, or compressed if they may be and become less.
fn put_messages(out: &mut BytesMut, (lane, number): (Priority, u64), plain: &[u8], may_pack: bool) {
    let packed = (may_pack && plain.len() >= PACK_BYTES_MIN && plain.len() <= FRAME_BYTES_MAX)
        .then(|| compress(CODEC, plain))
        .filter(|packed| packed.len() + plain.len() / 16 < plain.len());
    let form = priority_number(lane);
    match packed.zip(u32::try_from(plain.len()).ok()) {
        Some((packed, bytes)) => {
            out.put_u8(PACKED + form);
            out.put_u64_le(number);
            out.put_u32_le(bytes);
            out.put_slice(&packed);
        }
        None => {
            out.put_u8(form);
            out.put_u64_le(number);
            out.put_slice(plain);
        }
    }
}

/// Undoes the compression of messages.
fn unpacked(mut bytes: Bytes) -> io::Result<Bytes> {
    let short = || invalid("a frame of a link ends too early");
    let length = bytes.try_get_u32_le().map_err(|_| short())? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(invalid("a frame of a link would become too long"));
    }
    let plain = decompress(CODEC, &bytes, length)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if plain.len() == length { Ok(plain) } else { Err(short()) }
}

/// The bytes of a frame.
///
/// # Errors
/// If it is over the limit.
pub fn encode(frame: &Frame) -> io::Result<Bytes> {
    let mut out = BytesMut::new();
    out.put_u32_le(0);
    match frame {
        Frame::Messages { lane, number, messages } => {
            let mut plain = BytesMut::new();
            messages.iter().try_for_each(|message| put_message(&mut plain, message))?;
            put_messages(&mut out, (*lane, *number), &plain, messages.iter().all(is_plain));
        }
        Frame::Got(bytes) => {
            out.put_u8(GOT);
            out.put_u64_le(*bytes);
        }
        Frame::Leave => out.put_u8(LEAVE),
        Frame::Refused(reason) => {
            out.put_u8(REFUSED);
            out.put_slice(&Message::Refused(*reason).encode().0);
        }
    }
    let length = out.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(invalid("a frame of a link is over the limit"));
    }
    let length = u32::try_from(length).map_err(|_| invalid("a frame is too long"))?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(out.freeze())
}

/// Cuts the bytes of a frame of a priority into parts with so many bytes each.
pub fn parts(frame: &Bytes, lane: Priority, part_bytes: usize) -> impl Iterator<Item = Bytes> {
    let is_urgent = lane == Priority::Urgent;
    let forms = if is_urgent { [URGENT_PART, LAST_URGENT_PART] } else { [PART, LAST_PART] };
    let body = frame.get(LENGTH_BYTES..).unwrap_or_default();
    let chunk_bytes = part_bytes.saturating_sub(PART_BYTES).max(1);
    let last = body.len().div_ceil(chunk_bytes).saturating_sub(1);
    body.chunks(chunk_bytes).enumerate().map(move |(at, chunk)| {
        let mut part = BytesMut::with_capacity(PART_BYTES + chunk.len());
        part.put_u32_le(u32::try_from(1 + chunk.len()).expect("a part of a frame that is bounded"));
        part.put_u8(forms[usize::from(at == last)]);
        part.put_slice(chunk);
        part.freeze()
    })
}

/// Reads a frame without its length.
///
/// # Errors
/// If the bytes are not one.
pub fn decode(mut bytes: Bytes) -> io::Result<Frame> {
    let short = || invalid("a frame of a link ends too early");
    match bytes.try_get_u8().map_err(|_| short())? {
        GOT => {
            let got = bytes.try_get_u64_le().map_err(|_| short())?;
            if bytes.is_empty() { Ok(Frame::Got(got)) } else { Err(short()) }
        }
        LEAVE if bytes.is_empty() => Ok(Frame::Leave),
        REFUSED => match Message::decode(REFUSED, &bytes) {
            Ok(Message::Refused(reason)) => Ok(Frame::Refused(reason)),
            _ => Err(short()),
        },
        form => {
            let is_packed = form & PACKED != 0;
            let lane = priority(form & !PACKED);
            let lane = lane.map_err(|_| invalid("a frame of a link has no such form"))?;
            let number = bytes.try_get_u64_le().map_err(|_| short())?;
            let bytes = if is_packed { unpacked(bytes)? } else { bytes };
            let messages = messages(bytes)?;
            // A few bytes of anything else might become much work.
            if is_packed && !messages.iter().all(is_plain) {
                return Err(invalid(
                    "a compressed frame of a link has something else than batches",
                ));
            }
            Ok(Frame::Messages { lane, number, messages })
        }
    }
}

fn messages(mut bytes: Bytes) -> io::Result<Vec<Message>> {
    let whole = bytes.len();
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let short = || invalid("a message of a link ends too early");
        let length = bytes.try_get_u32_le().map_err(|_| short())? as usize;
        if length == 0 || length > bytes.len() || messages.len() == MESSAGES_MAX {
            return Err(short());
        }
        let mut message = bytes.split_to(length);
        let kind = message.get_u8();
        let read = Message::decode(kind, &message)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        messages.push(match read {
            // A small batch that waits does not keep a large frame.
            Message::Batch(part, mark, batch) if batch.len() < whole / 2 => {
                Message::Batch(part, mark, Bytes::copy_from_slice(&batch))
            }
            other => other,
        });
    }
    if messages.is_empty() { Err(invalid("a frame without messages")) } else { Ok(messages) }
}

/// Writes a message of a greeting, and sends it.
///
/// # Errors
/// If the connection broke, or the message is over the limit.
pub async fn greet(writer: &mut WriteHalf, message: &Message) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    put_message(&mut bytes, message)?;
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// What comes from the other side.
pub struct Frames {
    reader: ReadHalf,
    buffer: BytesMut,
    /// What has come of a frame that comes in parts, and of one that is urgent.
    parts: [BytesMut; 2],
}

impl Frames {
    /// Those of a connection.
    pub fn new(reader: ReadHalf) -> Self {
        Self { reader, buffer: BytesMut::new(), parts: Default::default() }
    }

    /// The message of a greeting; `None` if the other side has closed the connection before it.
    ///
    /// # Errors
    /// If the connection broke, or what came is none, or longer than `bytes_max`.
    pub async fn greeting(
        &mut self,
        bytes_max: usize,
        silence_max: Duration,
    ) -> io::Result<Option<Message>> {
        let Some(mut frame) = self.cut(bytes_max, silence_max).await? else { return Ok(None) };
        let kind = frame.get_u8();
        let message = Message::decode(kind, &frame);
        message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The next frame and how many bytes have come, without a frame if that was a part of one that goes
    /// on; `None` if the other side has closed the connection between two. It may take long to come
    /// over a slow line, but not without a byte for `silence_max`.
    ///
    /// # Errors
    /// If the connection broke or nothing came for so long, or what came is no frame.
    pub async fn next(
        &mut self,
        silence_max: Duration,
    ) -> io::Result<Option<(Option<Frame>, u64)>> {
        let Some(mut frame) = self.cut(PIECE_BYTES_MAX, silence_max).await? else {
            let between = self.parts.iter().all(BytesMut::is_empty);
            return if between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        };
        let bytes = (LENGTH_BYTES + frame.len()) as u64;
        let form = frame.first().copied().unwrap_or_default();
        let (parts, most) = match form {
            PART | LAST_PART => (&mut self.parts[0], PARTED_BYTES_MAX),
            URGENT_PART | LAST_URGENT_PART => (&mut self.parts[1], FRAME_BYTES_MAX),
            _ => return Ok(Some((Some(decode(frame)?), bytes))),
        };
        frame.advance(1);
        if parts.len() + frame.len() > most {
            return Err(invalid("the parts of a frame of a link are over the limit"));
        }
        parts.extend_from_slice(&frame);
        if form == PART || form == URGENT_PART {
            return Ok(Some((None, bytes)));
        }
        let whole = std::mem::take(parts).freeze();
        Ok(Some((Some(decode(whole)?), bytes)))
    }

    /// The bytes of the next frame, at least one.
    async fn cut(&mut self, bytes_max: usize, silence_max: Duration) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = u32::from_le_bytes(*length) as usize;
                if length == 0 || length > bytes_max {
                    return Err(invalid("a frame of a link has an impossible length"));
                }
                if self.buffer.len() >= LENGTH_BYTES + length {
                    self.buffer.advance(LENGTH_BYTES);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            self.buffer.reserve(READ_BYTES);
            let read = time::timeout(silence_max, self.reader.read_buf(&mut self.buffer)).await;
            let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            if read == 0 {
                let between = self.buffer.is_empty();
                return if between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Mark, Part};
    use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(2) };
        let mark = Mark { offset: Offset(3), tag: [4; 16] };
        let batch = |bytes: &'static [u8]| Message::Batch(part, mark, Bytes::from_static(bytes));
        vec![
            Frame::Got(7),
            Frame::Leave,
            Frame::Messages {
                lane: Priority::Urgent,
                number: 9,
                messages: vec![Message::Room(Priority::Bulk, 5), Message::Has(part, mark)],
            },
            Frame::Messages {
                lane: Priority::Bulk,
                number: 0,
                messages: vec![batch(b"some bytes"), batch(b""), batch(b"more bytes")],
            },
        ]
    }

    #[test]
    fn every_frame_reads_back_and_none_ends_early() {
        for frame in frames() {
            let bytes = encode(&frame).expect("it is short");
            let (length, body) = bytes.split_at(LENGTH_BYTES);
            assert_eq!(
                u32::from_le_bytes(length.try_into().expect("four bytes")),
                body.len() as u32
            );
            let body = Bytes::copy_from_slice(body);
            assert_eq!(decode(body.clone()).expect("it was written here"), frame);
            for end in 0..body.len() {
                let other = decode(body.slice(..end));
                assert_ne!(other.ok(), Some(frame.clone()), "{end}");
            }
        }
    }

    #[test]
    fn a_frame_has_some_messages_and_not_too_many() {
        let frame = |count| {
            let messages = vec![Message::Room(Priority::Normal, 1); count];
            let frame = Frame::Messages { lane: Priority::Normal, number: 0, messages };
            let bytes = encode(&frame).expect("it is short");
            decode(bytes.slice(LENGTH_BYTES..))
        };
        assert!(frame(MESSAGES_MAX).is_ok());
        assert!(frame(MESSAGES_MAX + 1).is_err());
        assert!(frame(0).is_err());
    }

    /// Batches with a codec, that are what telemetry is.
    fn telemetry(codec: u8, batches: usize) -> Frame {
        let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(2) };
        let batch = |at: usize| {
            let mark = Mark { offset: Offset(at as u64), tag: [4; 16] };
            let mut bytes = vec![0; 61];
            bytes[BATCH_CODEC_AT] = codec;
            bytes.extend(
                format!(r#"{{"device":"press-{:03}","temp":{}}}"#, at % 7, at % 90).bytes(),
            );
            Message::Batch(part, mark, Bytes::from(bytes))
        };
        let messages = (0..batches).map(batch).collect();
        Frame::Messages { lane: Priority::Normal, number: 7, messages }
    }

    #[test]
    fn batches_that_nobody_has_compressed_are_compressed_together() {
        let frame = telemetry(0, 100);
        let packed = encode(&frame).expect("it is short");
        let plain = encode(&telemetry(2, 100)).expect("it is short");
        assert!(packed.len() * 3 < plain.len(), "{} of {}", packed.len(), plain.len());
        assert_eq!(packed[LENGTH_BYTES], PACKED + 1);
        assert_eq!(plain[LENGTH_BYTES], 1, "snappy stays as it is");
        assert_eq!(decode(packed.slice(LENGTH_BYTES..)).expect("it was written here"), frame);
        assert_eq!(encode(&telemetry(0, 1)).expect("it is short")[LENGTH_BYTES], 1, "not worth it");
    }

    /// What is read of some bytes until they end or are refused.
    fn read(bytes: Vec<u8>) -> (Vec<Frame>, u64, io::Result<()>) {
        let mut read = Frames::new(Box::new(io::Cursor::new(bytes)));
        let (mut frames, mut count) = (Vec::new(), 0);
        fulmar_host::task::block_on(async {
            loop {
                match read.next(Duration::from_secs(1)).await {
                    Ok(Some((frame, bytes))) => {
                        frames.extend(frame);
                        count += bytes;
                    }
                    Ok(None) => return (frames, count, Ok(())),
                    Err(error) => return (frames, count, Err(error)),
                }
            }
        })
    }

    #[test]
    fn a_frame_in_parts_is_whole_again_and_others_go_between() {
        let (long, got) = (telemetry(2, 100), encode(&Frame::Got(7)).expect("it is short"));
        let bytes = encode(&long).expect("it is short");
        for part_bytes in [1, 100, 724, 1 << 20] {
            let mut line = Vec::new();
            for part in parts(&bytes, Priority::Normal, part_bytes) {
                assert!(part.len() <= part_bytes.max(PART_BYTES + 1));
                line.extend([got.clone(), part].concat());
            }
            let whole = line.len();
            let (mut frames, count, end) = read(line.clone());
            assert_eq!((frames.pop(), count), (Some(long.clone()), whole as u64));
            assert!(end.is_ok() && frames.iter().all(|frame| *frame == Frame::Got(7)));
            line.truncate(whole - 1);
            let (frames, _, end) = read(line);
            assert!(end.is_err() && !frames.contains(&long));
        }
        let nested: Vec<u8> = parts(&bytes, Priority::Bulk, 100).take(1).flatten().collect();
        assert!(read(nested.clone()).2.is_err(), "it ends between two parts");
        let nested: Vec<u8> = parts(&nested.into(), Priority::Bulk, 1 << 10).flatten().collect();
        assert!(read(nested).2.is_err(), "no parts of parts");
    }

    #[test]
    fn parts_of_what_is_urgent_go_between_those_of_the_others() {
        let (long, urgent) = (telemetry(2, 100), telemetry(3, 40));
        let [mut each, mut between] =
            [(&long, Priority::Normal), (&urgent, Priority::Urgent)].map(|(frame, lane)| {
                parts(&encode(frame).expect("it is short"), lane, 300).collect::<Vec<_>>()
            });
        each.reverse();
        between.reverse();
        let mut line = Vec::new();
        while !each.is_empty() {
            line.extend(each.pop().into_iter().chain(between.pop()).flatten());
        }
        assert!(between.is_empty());
        let (frames, count, end) = read(line.clone());
        assert_eq!((frames, count), (vec![urgent, long], line.len() as u64));
        assert!(end.is_ok());
    }

    #[test]
    fn what_is_long_has_to_come_in_parts() {
        let frame = encode(&telemetry(2, 1_000)).expect("it is short");
        assert!(frame.len() > PIECE_BYTES_MAX);
        assert!(read(frame.to_vec()).2.is_err());
        let parted: Vec<u8> = parts(&frame, Priority::Urgent, PIECE_BYTES_MAX).flatten().collect();
        assert_eq!(read(parted).0.len(), 1);
    }

    #[test]
    fn only_batches_come_compressed() {
        let mut plain = BytesMut::new();
        for _ in 0..40 {
            put_message(&mut plain, &Message::Room(Priority::Bulk, 7)).expect("it is short");
        }
        let mut frame = BytesMut::new();
        put_messages(&mut frame, (Priority::Urgent, 0), &plain, true);
        assert_eq!(frame[0], PACKED);
        assert!(decode(frame.freeze()).is_err());
    }

    #[test]
    fn parts_without_end_are_refused() {
        for (form, most) in [(PART, PARTED_BYTES_MAX), (URGENT_PART, FRAME_BYTES_MAX)] {
            let part = [&[0, 0, 1, 0, form][..], &vec![0; (64 << 10) - 1]].concat();
            let (frames, count, end) = read(part.repeat(most / (64 << 10) + 2));
            assert!(frames.is_empty() && end.is_err());
            assert!(count <= (most + (65 << 10)) as u64);
        }
    }

    #[test]
    fn what_would_become_too_long_is_refused() {
        let mut frame = BytesMut::new();
        frame.put_u8(PACKED);
        frame.put_u64_le(0);
        let head = frame.clone();
        let bomb = compress(CODEC, &vec![0; 1 << 20]);
        for (announced, is_refused_at_once) in [(1u32 << 19, false), (u32::MAX, true)] {
            let mut frame = head.clone();
            frame.put_u32_le(announced);
            frame.put_slice(&bomb);
            let error = decode(frame.freeze()).expect_err("it becomes more").to_string();
            assert_eq!(error.contains("would become too long"), is_refused_at_once, "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // What is compressed can be written in several ways.
            prop_assume!(bytes.first().is_none_or(|form| form & PACKED == 0));
            if let Ok(frame) = decode(bytes.clone().into()) {
                let again = encode(&frame).expect("it is short");
                prop_assert_eq!(again.slice(LENGTH_BYTES..).to_vec(), bytes);
            }
        }

        #[test]
        fn a_damaged_frame_is_another_or_an_error(at in 0usize..3, byte in 0usize..200, by in 1u8..) {
            let mut bytes = encode(&frames()[at]).expect("it is short").slice(LENGTH_BYTES..).to_vec();
            let place = byte % bytes.len();
            bytes[place] ^= by;
            prop_assume!(bytes[0] & PACKED == 0);
            if let Ok(frame) = decode(bytes.clone().into()) {
                let again = encode(&frame).expect("it is short");
                prop_assert_eq!(again.slice(LENGTH_BYTES..).to_vec(), bytes);
            }
        }
    }
}
