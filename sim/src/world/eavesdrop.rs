//! What can be read of the bytes that cross between sites, whatever is compressed in them.
//!
//! ```text
//! bytes as they are --+
//! frames, undone  ----+--> tokens
//! batches, undone ----+
//! ```
//!
//! The layouts are taken from docs/design/mirror.md and not from the code that writes them: whoever
//! listens at the line has nothing else.
//!
//! With the batches it is also known which records of which topic left when, whatever becomes of them at the
//! other site.
//!
//! Of a frame that broke off its beginning is undone when all is over; of a batch in it that a producer has compressed, and
//! that is not whole, nothing.
//!
//! Invariants: a token that lies across two writes is found as well; of one that might cross for a while,
//! it is known when it left last.

use super::torn;
use crate::net::Ear;
use bytes::Bytes;
use fulmar_types::{Offset, PartitionIndex, Uuid};
use fulmar_wire::batch::{Batch, Compression};
use fulmar_wire::compression::decompress;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a token begins that must not cross.
pub(super) const CANARY: &str = "CANARY-";

/// The same where only digits can stand. Nothing that is random has them by chance.
pub(super) const DIGITS: &str = "404004000404";

/// How one begins that may.
pub(super) const MARKER: &str = "MARKER-";

/// How one begins that may until the rule withholds it.
pub(super) const LAPSING: &str = "LAPSES-";

/// Digits of a token behind that.
pub(super) const TOKEN_DIGITS: usize = 12;

/// What a frame or a batch may become.
const PLAIN_BYTES_MAX: usize = 32 << 20;

const MESSAGE_BATCH: u8 = 6;

/// Bytes of a topic, and of a partition behind it.
const TOPIC_BYTES: usize = 16;
const PARTITION_BYTES: usize = 4;

/// Bytes of a batch message between its kind and the batch: topic, partition, offset, tag.
const BATCH_PLACE_BYTES: usize = TOPIC_BYTES + PARTITION_BYTES + 8 + 16;

/// In the form of a frame: its messages are compressed.
const PACKED_FORM: u8 = 16;

/// The form of a frame that has no messages.
const GOT_FORM: u8 = 32;

/// The forms of a part of a frame, and of the last one.
const PART_FORM: u8 = 34;
const LAST_PART_FORM: u8 = 35;

/// The same of a frame that is urgent, which may come between those.
const URGENT_PART_FORM: u8 = 36;
const LAST_URGENT_PART_FORM: u8 = 37;

/// What is listened for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct For {
    pub(super) tokens: bool,
    pub(super) departures: bool,
}

/// Records that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// The topic at the site that they left.
    pub(super) topic: Uuid,
    pub(super) partition: PartitionIndex,
    /// The offset of the first, and the one behind the last.
    pub(super) offsets: (Offset, Offset),
    /// When the last byte of them left.
    pub(super) left_ns: u64,
}

/// What was heard.
#[derive(Default)]
struct Heard {
    what: For,
    departures: Vec<Departure>,
    /// Canaries, with where they were found.
    canaries: BTreeMap<String, &'static str>,
    markers: BTreeSet<String>,
    /// When each of them left last.
    lapsing: BTreeMap<String, u64>,
    lines: BTreeMap<u64, Line>,
    /// When the bytes left that are looked at.
    now_ns: u64,
}

/// One side of one connection.
#[derive(Default)]
struct Line {
    /// The end of what was looked at as it is.
    tail: Vec<u8>,
    /// What is not a whole frame yet.
    rest: Vec<u8>,
    /// The parts of a frame that have come, and of one that is urgent.
    parts: [Vec<u8>; 2],
    is_greeted: bool,
    /// When the last byte left.
    left_ns: u64,
}

/// The one who listens.
#[derive(Clone, Default)]
pub(super) struct Eavesdropper(Arc<Mutex<Heard>>);

impl Eavesdropper {
    /// One who listens for something.
    pub(super) fn new(what: For) -> Self {
        Self(Arc::new(Mutex::new(Heard { what, ..Heard::default() })))
    }

    fn locked(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything to listen for.
    pub(super) fn listens(&self) -> bool {
        let what = self.locked().what;
        what.tokens || what.departures
    }

    /// What left of a topic within some time, and could be read at the other side.
    pub(super) fn departed(
        &self,
        topics: &BTreeSet<Uuid>,
        within: impl Fn(u64) -> bool,
    ) -> Option<Departure> {
        let heard = self.locked();
        let mut of_topics = heard.departures.iter().filter(|one| topics.contains(&one.topic));
        of_topics.find(|one| within(one.left_ns)).copied()
    }

    /// How many batches were heard to leave.
    pub(super) fn departures(&self) -> u64 {
        self.locked().departures.len() as u64
    }

    /// Looks at what is not whole, and will not be.
    pub(super) fn over(&self) {
        let mut heard = self.locked();
        for (line, at) in std::mem::take(&mut heard.lines) {
            heard.now_ns = at.left_ns;
            heard.torn(&at);
            heard.lines.insert(line, at);
        }
    }

    /// A token that must not have crossed, and where it was found.
    pub(super) fn canary(&self) -> Option<(String, &'static str)> {
        self.locked().canaries.first_key_value().map(|(token, place)| (token.clone(), *place))
    }

    /// When a token that might cross for a while left last, if it did.
    pub(super) fn left_ns(&self, lapsing: &str) -> Option<u64> {
        self.locked().lapsing.get(lapsing).copied()
    }

    /// How many tokens crossed that may.
    pub(super) fn markers(&self) -> u64 {
        self.locked().markers.len() as u64
    }
}

impl Ear for Eavesdropper {
    fn hears(&self, line: u64, bytes: &[u8], left_ns: u64) {
        let mut heard = self.locked();
        heard.now_ns = left_ns;
        let mut at = heard.lines.remove(&line).unwrap_or_default();
        at.tail.extend_from_slice(bytes);
        heard.look(&at.tail, "as it is");
        let keep = (DIGITS.len() + TOKEN_DIGITS).min(at.tail.len());
        at.tail.drain(..at.tail.len() - keep);
        at.rest.extend_from_slice(bytes);
        at.left_ns = left_ns;
        while let Some(frame) = split(&mut at.rest) {
            // The first one is a greeting, and has no records.
            if at.is_greeted {
                heard.part_or_frame(&mut at.parts, &frame);
            }
            at.is_greeted = true;
        }
        heard.lines.insert(line, at);
    }
}

/// What lies between two lengths, if it is there.
fn split(rest: &mut Vec<u8>) -> Option<Bytes> {
    let (len, _) = rest.split_first_chunk::<4>()?;
    let end = 4 + u32::from_le_bytes(*len) as usize;
    if rest.len() < end {
        return None;
    }
    let frame = Bytes::copy_from_slice(&rest[4..end]);
    rest.drain(..end);
    Some(frame)
}

impl Heard {
    fn part_or_frame(&mut self, parts: &mut [Vec<u8>; 2], frame: &Bytes) {
        let Some((of, is_last)) = part(frame) else { return self.frame(frame) };
        parts[of].extend_from_slice(&frame[1..]);
        if is_last {
            let whole = Bytes::from(std::mem::take(&mut parts[of]));
            self.look(&whole, "in a frame in parts");
            self.frame(&whole);
        }
    }

    /// The beginnings of frames that broke off.
    fn torn(&mut self, line: &Line) {
        if !line.is_greeted {
            return;
        }
        let rest = line.rest.get(4..).unwrap_or_default();
        let mut begun = line.parts.clone();
        match part(rest) {
            Some((of, _)) => begun[of].extend_from_slice(&rest[1..]),
            None => self.begun(rest),
        }
        begun.iter().for_each(|frame| self.begun(frame));
    }

    /// The beginning of a frame.
    fn begun(&mut self, frame: &[u8]) {
        let messages = match frame.first() {
            Some(form) if (PACKED_FORM..GOT_FORM).contains(form) => {
                let packed = frame.get(13..).unwrap_or_default();
                torn::undone(packed, PLAIN_BYTES_MAX)
            }
            _ => frame.get(9..).unwrap_or_default().to_vec(),
        };
        self.look(&messages, "in a frame that broke off");
        self.messages(messages);
    }

    fn frame(&mut self, frame: &Bytes) {
        let messages = match frame.first() {
            Some(form) if *form >= GOT_FORM => return,
            Some(form) if *form >= PACKED_FORM => {
                let packed = frame.slice(frame.len().min(13)..);
                let Ok(plain) = decompress(Compression::Lz4, &packed, PLAIN_BYTES_MAX) else {
                    return;
                };
                self.look(&plain, "in a compressed frame");
                plain
            }
            _ => frame.slice(frame.len().min(9)..),
        };
        self.messages(messages.to_vec());
    }

    fn messages(&mut self, mut rest: Vec<u8>) {
        while let Some(message) = split(&mut rest) {
            if message.first() == Some(&MESSAGE_BATCH) && message.len() > 1 + BATCH_PLACE_BYTES {
                self.batch(&message);
            }
        }
    }

    fn batch(&mut self, message: &Bytes) {
        let (place, bytes) = (message.slice(1..), message.slice(1 + BATCH_PLACE_BYTES..));
        let Ok(batch) = Batch::parse(bytes) else { return };
        if self.what.departures {
            self.departures.extend(departure(&place, &batch, self.now_ns));
        }
        if !self.what.tokens {
            return;
        }
        let plain = decompress(batch.compression(), &batch.record_bytes(), PLAIN_BYTES_MAX);
        if let Ok(plain) = plain {
            self.look(&plain, "in a batch");
        }
    }

    fn look(&mut self, bytes: &[u8], place: &'static str) {
        if !self.what.tokens {
            return;
        }
        for token in [CANARY, DIGITS].into_iter().flat_map(|kind| tokens(bytes, kind)) {
            self.canaries.entry(token).or_insert(place);
        }
        self.markers.extend(tokens(bytes, MARKER));
        for token in tokens(bytes, LAPSING) {
            let left_ns = self.lapsing.entry(token).or_default();
            *left_ns = self.now_ns.max(*left_ns);
        }
    }
}

/// Of which frame something is a part, and whether it is the last one.
fn part(frame: &[u8]) -> Option<(usize, bool)> {
    match *frame.first()? {
        PART_FORM => Some((0, false)),
        LAST_PART_FORM => Some((0, true)),
        URGENT_PART_FORM => Some((1, false)),
        LAST_URGENT_PART_FORM => Some((1, true)),
        _ => None,
    }
}

/// What a batch says of records that leave.
fn departure(place: &[u8], batch: &Batch, left_ns: u64) -> Option<Departure> {
    let (topic, rest) = place.split_first_chunk::<TOPIC_BYTES>()?;
    let (partition, rest) = rest.split_first_chunk::<PARTITION_BYTES>()?;
    let first = u64::from_le_bytes(*rest.first_chunk()?);
    let count = u64::try_from(batch.header().last_offset_delta).ok()? + 1;
    Some(Departure {
        topic: Uuid(*topic),
        partition: PartitionIndex(u32::from_le_bytes(*partition)),
        offsets: (Offset(first), Offset(first.checked_add(count)?)),
        left_ns,
    })
}

/// The whole tokens in some bytes.
fn tokens(bytes: &[u8], kind: &str) -> Vec<String> {
    let whole = kind.len() + TOKEN_DIGITS;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == kind.as_bytes()[0]) {
        let token = &bytes[from + at..];
        if token.starts_with(kind.as_bytes()) && token.len() >= whole {
            found.push(String::from_utf8_lossy(&token[..whole]).into_owned());
        }
        from += at + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::batch::BatchBuilder;
    use fulmar_wire::compression::compress;

    fn framed(bytes: &[u8]) -> Vec<u8> {
        let len = u32::try_from(bytes.len()).expect("it is short");
        [&len.to_le_bytes(), bytes].concat()
    }

    #[test]
    fn a_token_is_found_in_a_frame_that_broke_off() {
        let filling = "some telemetry, ".repeat(40);
        let value = format!("CANARY-0123456789ab {filling}");
        let mut batch = BatchBuilder::new();
        batch.push(1, None, Some(value.as_bytes()), &[]).expect("it fits");
        let batch = batch.build().expect("it has a record");
        let messages = framed(&[&[6; 1][..], &[0; BATCH_PLACE_BYTES], &batch].concat());
        // What stands before it makes of the token a copy, and no text of its own.
        let doubled = [messages.clone(), messages].concat();
        let frame = [&[16; 13][..], &compress(Compression::Lz4, &doubled)].concat();
        let whole = framed(&frame);
        let parts = framed(&[&[PART_FORM], &frame[..frame.len() - 3]].concat());
        for line in [&whole[..whole.len() - 3], &parts[..], &parts[..parts.len() - 1]] {
            let ear = Eavesdropper::new(For { tokens: true, departures: false });
            let line = [framed(b"\x01hello"), line.to_vec()].concat();
            line.chunks(9).for_each(|bytes| ear.hears(3, bytes, 7));
            ear.locked().canaries.clear();
            ear.over();
            assert!(ear.canary().is_some(), "what is undone has it");
        }
    }

    #[test]
    fn what_rounding_hides_is_found_across_writes() {
        let ear = Eavesdropper::new(For { tokens: true, departures: false });
        let number = format!("7.1{DIGITS}123456789012");
        number.as_bytes().chunks(1).for_each(|bytes| ear.hears(3, bytes, 7));
        let (token, _) = ear.canary().expect("it crossed");
        assert_eq!(token, number[3..]);
    }

    #[test]
    fn a_token_is_found_whatever_it_is_wrapped_in() {
        for codec in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for packed in [false, true] {
                let mut batch = BatchBuilder::new().compressed(codec);
                let value = b"CANARY-0123456789ab MARKER-ba9876543210 LAPSES-000000000000";
                batch.push(1, None, Some(value), &[]).expect("it fits");
                let batch = batch.build().expect("it has a record");
                let (topic, partition, offset) = ([9; 16], 2_u32, 40_u64);
                let place = [&topic[..], &partition.to_le_bytes(), &offset.to_le_bytes(), &[0; 16]];
                let message = [&[6; 1][..], &place.concat(), &batch].concat();
                let messages = framed(&message);
                let frame = match packed {
                    true => [&[16; 13][..], &compress(Compression::Lz4, &messages)].concat(),
                    false => [&[0; 9][..], &messages].concat(),
                };
                let whole = framed(&frame);
                let cut = frame.len() / 2;
                let parts = [
                    framed(&[&[PART_FORM], &frame[..cut]].concat()),
                    framed(&[GOT_FORM; 9]),
                    framed(&[&[LAST_PART_FORM], &frame[cut..]].concat()),
                ];
                let wholes = [1, 7, 1_000].map(|step| (whole.clone(), step));
                let in_parts = [1, 7, 1_000].map(|step| (parts.concat(), step));
                for (frames, step) in wholes.into_iter().chain(in_parts) {
                    let line = [framed(b"\x01hello"), frames].concat();
                    let ear = Eavesdropper::new(For { tokens: true, departures: true });
                    line.chunks(step).for_each(|bytes| ear.hears(3, bytes, 7));
                    let (token, _) = ear.canary().expect("it crossed");
                    assert_eq!(token, "CANARY-0123456789ab");
                    assert_eq!(ear.markers(), 1, "{codec:?} {packed} {step}");
                    assert_eq!(ear.left_ns("LAPSES-000000000000"), Some(7));
                    let departure = Departure {
                        topic: Uuid(topic),
                        partition: PartitionIndex(partition),
                        offsets: (Offset(40), Offset(41)),
                        left_ns: 7,
                    };
                    let topics = BTreeSet::from([Uuid(topic)]);
                    assert_eq!(ear.departed(&topics, |at| at == 7), Some(departure));
                    assert_eq!(ear.departed(&topics, |at| at > 7), None);
                }
            }
        }
    }
}
