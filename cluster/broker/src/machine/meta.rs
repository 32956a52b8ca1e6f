//! What belongs to no topic: entry time, the age of the site, the counters that hand out numbers, and the fences.
//!
//! Invariants: entry time and age never go back, whatever the leaders' clocks did; a stream number and a
//! producer id are handed out once in the life of a site; a fence never falls.
//!
//! Never: read a clock. The only time here is the one that a leader wrote into an entry.

use super::codec::{CodecError, Reader, Writer};
use super::outcome::Refusal;
use super::producers::ProducerId;
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_store::entry::{EntryHeader, RuleSecret};
use fulmar_types::Uuid;

/// Names that can be fenced at one time; a site has a handful of links and pipelines.
pub const FENCES_MAX: usize = 1_024;

/// The ids of a site begin at one of 2^40 places, which are 2^22 apart. That is no bound on how many
/// it hands out.
const FIRST_PRODUCER_SHIFT: u32 = 22;

/// The longest name of a fence, in bytes.
pub const FENCE_NAME_BYTES_MAX: usize = 249;

/// The numbers of a site. There is one of it.
///
/// ```text
/// wall_ms u64 | next_stream u32 | first_producer u64 | next_producer u64 |
/// producers_before_deletion u64 | age_ms u64 | has secret u8 = 1 | secret [u8; 32], or u8 = 0
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The time of the last entry, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The stream that the next partition gets.
    pub next_stream: u32,
    /// The first producer id that was handed out.
    pub first_producer: u64,
    /// The producer id that is handed out next; 0 if none was yet.
    pub next_producer: u64,
    /// Producer ids below this one may have written to a deleted topic whose name is not kept any
    /// more, and may go on with their sequence numbers in one of the same name.
    pub producers_before_deletion: u64,
    /// How long the site had existed at the last entry, in milliseconds.
    pub age_ms: u64,
    /// The key of hashes in place of values, since the site has had a rule.
    pub rule_secret: Option<RuleSecret>,
}

impl Element for Meta {
    type Key = ();
    const SEED: u64 = 4;
    const BYTES_MIN: usize = 45;

    fn key(&self) {}

    fn encode(&self, out: &mut Writer) {
        out.u64(self.wall_ms);
        out.u32(self.next_stream);
        out.u64(self.first_producer);
        out.u64(self.next_producer);
        out.u64(self.producers_before_deletion);
        out.u64(self.age_ms);
        out.u8(u8::from(self.rule_secret.is_some()));
        if let Some(secret) = &self.rule_secret {
            out.raw(&secret.0);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            wall_ms: input.u64()?,
            next_stream: input.u32()?,
            first_producer: input.u64()?,
            next_producer: input.u64()?,
            producers_before_deletion: input.u64()?,
            age_ms: input.u64()?,
            rule_secret: match input.u8()? {
                0 => None,
                1 => Some(RuleSecret(input.array()?)),
                _ => return Err(CodecError::Tag),
            },
        })
    }
}

impl Table<Meta> {
    /// The table of a new site.
    pub fn new_site() -> Self {
        let mut table = Self::default();
        table.put(Meta::default());
        table
    }

    /// The numbers.
    pub fn current(&self) -> &Meta {
        self.get(&()).expect("a site always has its numbers")
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Meta) -> T) -> T {
        self.modify(&(), change).expect("a site always has its numbers")
    }

    /// Takes note of when an entry was proposed, and returns its time and the age of the site, both
    /// made monotonic.
    pub fn advance(&mut self, header: EntryHeader) -> (u64, u64) {
        self.change(|meta| {
            meta.wall_ms = meta.wall_ms.max(header.wall_ms);
            meta.age_ms = meta.age_ms.max(header.age_ms);
            (meta.wall_ms, meta.age_ms)
        })
    }

    /// Hands out streams for the partitions of a topic: the first of them. `None` once all 2^32
    /// are used up.
    pub fn take_streams(&mut self, partitions: u32) -> Option<StreamId> {
        self.change(|meta| {
            let first = meta.next_stream;
            meta.next_stream = first.checked_add(partitions)?;
            Some(StreamId(first))
        })
    }

    /// Hands out a producer id. The first request of a site draws where its ids begin, so that a
    /// client which still has an id of another site, or of this one before it was set up anew, is
    /// not taken for a producer of this one.
    pub fn take_producer(&mut self, request: Uuid) -> ProducerId {
        self.change(|meta| {
            if meta.next_producer == 0 {
                let [a, b, c, d, e, ..] = request.0;
                let first = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) << FIRST_PRODUCER_SHIFT;
                (meta.first_producer, meta.next_producer) = (first, first);
            }
            let id = i64::try_from(meta.next_producer).expect("2^62 producers never come");
            meta.next_producer += 1;
            ProducerId(id)
        })
    }

    /// Whether an id was handed out by this site.
    pub fn has_handed_out(&self, producer: ProducerId) -> bool {
        let meta = self.current();
        let id = u64::try_from(producer.0);
        id.is_ok_and(|id| (meta.first_producer..meta.next_producer).contains(&id))
    }

    /// The key of hashes in place of values: what the first rule of the site has brought, for as long as
    /// the site lives, so that equal values become equal hashes whenever they leave.
    pub fn rule_secret(&mut self, drawn: RuleSecret) -> RuleSecret {
        self.change(|meta| *meta.rule_secret.get_or_insert(drawn))
    }

    /// Takes note that the name of a deleted topic is not kept any more, to which producers below
    /// an id may have written.
    pub fn forget_deleted_name(&mut self, producers_below: u64) {
        self.change(|meta| {
            let before = meta.producers_before_deletion;
            meta.producers_before_deletion = before.max(producers_below);
        });
    }
}

/// The greatest number that anybody has used a name with (a fencing token, Kleppmann 2016).
///
/// ```text
/// name len u32, UTF-8 | number u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceMark {
    /// What is fenced.
    pub name: String,
    /// The greatest number so far.
    pub number: u64,
}

impl Element for FenceMark {
    type Key = String;
    const SEED: u64 = 5;
    const BYTES_MIN: usize = 12;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.name);
        out.u64(self.number);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { name: input.text()?, number: input.u64()? })
    }
}

impl Table<FenceMark> {
    /// Whether a unit with this number may take effect.
    ///
    /// # Errors
    /// [`Refusal::Fenced`] if a greater number was used, [`Refusal::LimitReached`] if the name is
    /// new and there is no room for it.
    pub fn check(&self, name: &str, number: u64) -> Result<(), Refusal> {
        match self.get(&name.to_owned()) {
            Some(mark) if mark.number > number => Err(Refusal::Fenced { number: mark.number }),
            Some(_) => Ok(()),
            None if self.len() >= FENCES_MAX || name.len() > FENCE_NAME_BYTES_MAX => {
                Err(Refusal::LimitReached)
            }
            None => Ok(()),
        }
    }

    /// Raises the number of a name, after [`Table::check`].
    pub fn raise(&mut self, name: String, number: u64) {
        let before = self.put(FenceMark { name, number });
        assert!(before.is_none_or(|mark| mark.number <= number), "a fence never falls");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_numbers_are_handed_out_once() {
        let mut meta = Table::new_site();
        let at = |wall_ms, age_ms| EntryHeader { wall_ms, age_ms, claim: 0 };
        assert_eq!(meta.advance(at(1_000, 5)), (1_000, 5));
        assert_eq!(meta.advance(at(400, 6)), (1_000, 6));
        assert_eq!(meta.advance(at(1_001, 3)), (1_001, 6));
        assert_eq!(meta.take_streams(3), Some(StreamId(0)));
        assert_eq!(meta.take_streams(1), Some(StreamId(3)));
        assert_eq!(meta.take_streams(u32::MAX), None);
        assert_eq!(meta.take_streams(1), Some(StreamId(4)));
        assert!(!meta.has_handed_out(ProducerId(0)));
        let first = meta.take_producer(Uuid([0xff; 16]));
        assert_eq!(first, ProducerId(((1 << 40) - 1) << 22));
        assert_eq!(meta.take_producer(Uuid::NIL), ProducerId(first.0 + 1));
        assert!(meta.has_handed_out(first) && meta.has_handed_out(ProducerId(first.0 + 1)));
        for other in [-1, 0, first.0 - 1, first.0 + 2, i64::MAX] {
            assert!(!meta.has_handed_out(ProducerId(other)), "{other}");
        }
    }

    #[test]
    fn a_fence_refuses_smaller_numbers() {
        let mut fences = Table::<FenceMark>::default();
        assert_eq!(fences.check("link", 3), Ok(()));
        fences.raise("link".to_owned(), 3);
        assert_eq!(fences.check("link", 3), Ok(()));
        assert_eq!(fences.check("link", 2), Err(Refusal::Fenced { number: 3 }));
    }
}
