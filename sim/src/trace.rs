//! What is remembered of a run: a hash over everything that happened, in the order in which it
//! happened. Two runs with equal hashes were the same run.
//!
//! Whatever moves feeds the trace: every message with its bytes and both its times, every write to
//! a disk, every applied state, and now and then the position of a generator, which gives away a
//! number that was drawn and had no effect yet.
//!
//! Invariants: a record is framed by its length, so that no two sequences of records look alike to
//! the hash. Flipping one bit or moving one time by a nanosecond changes it. Feeding draws no
//! random number and takes no simulated time.
//!
//! ```text
//! one record, as it is hashed (little endian)
//! +------+---------+-------+-------+--------+-------+-------+
//! | kind | machine | at ns | place | detail | len   | bytes |
//! | u8   | u64     | u64   | u64   | u64    | u64   | len   |
//! +------+---------+-------+-------+--------+-------+-------+
//! ```

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// What a record is about, and what its `place` and `detail` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A segment of a connection was sent: the time it will arrive, and the connection.
    Message = 1,
    /// A step of a connection without bytes: the time it will arrive, and the connection.
    Control = 2,
    /// Bytes were written to a file: the file, and the offset.
    DiskWrite = 3,
    /// A flush ended, or a file changed its length: the file, and the length.
    DiskFlush = 4,
    /// A name was created, renamed or removed: the file; the bytes are the name.
    DiskName = 5,
    /// Power was lost, a process ended, a fault fired: free for the reporter.
    Fault = 6,
    /// A timer of the harness fired.
    Timer = 7,
    /// A state after an entry was applied: the index and nothing; the bytes are its hash.
    State = 8,
    /// The position of a generator: its next number.
    Generator = 9,
    /// Anything else: free for the reporter.
    Other = 10,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is about.
    pub kind: Kind,
    /// The number of the machine; 0 is the harness.
    pub machine: u64,
    /// When, in nanoseconds since the simulation began.
    pub at_ns: u64,
    /// Where; see [`Kind`].
    pub place: u64,
    /// More; see [`Kind`].
    pub detail: u64,
    /// The bytes that moved.
    pub bytes: &'a [u8],
}

/// Who takes note of what happens.
pub trait TraceSink: Send + Sync {
    /// Takes note of a record.
    fn record(&self, record: &Record<'_>);
}

/// Takes note of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceSink for NoTrace {
    fn record(&self, _: &Record<'_>) {}
}

/// The hash of a run so far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceDigest(pub u128);

impl fmt::Display for TraceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes every record, with the 128-bit form of XXH3 over the whole sequence.
#[derive(Default)]
pub struct TraceHash {
    chain: Mutex<Chain>,
}

#[derive(Default)]
struct Chain {
    hash: Xxh3,
    records: u64,
}

impl TraceHash {
    fn chain(&self) -> MutexGuard<'_, Chain> {
        // A panic elsewhere must not hide the hash of the run that led to it.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of everything so far. The sequence can go on afterwards.
    pub fn digest(&self) -> TraceDigest {
        TraceDigest(self.chain().hash.digest128())
    }

    /// How many records there were.
    pub fn records(&self) -> u64 {
        self.chain().records
    }

    /// Feeds a timer of a node, or of a client, that fired.
    pub fn timer(&self, at_ns: u64) {
        let kind = Kind::Timer;
        self.record(&Record { kind, machine: 0, at_ns, place: 0, detail: 0, bytes: &[] });
    }

    /// Feeds the state of a machine after it applied the entry with this index.
    pub fn state(&self, machine: u64, at_ns: u64, index: u64, hash: u128) {
        let bytes = &hash.to_le_bytes();
        let kind = Kind::State;
        self.record(&Record { kind, machine, at_ns, place: index, detail: 0, bytes });
    }

    /// Feeds the position of a generator, which its next number stands for.
    pub fn generator(&self, at_ns: u64, next: u64) {
        let kind = Kind::Generator;
        self.record(&Record { kind, machine: 0, at_ns, place: next, detail: 0, bytes: &[] });
    }
}

impl TraceSink for TraceHash {
    fn record(&self, record: &Record<'_>) {
        let mut header = [0; 41];
        header[0] = record.kind as u8;
        let numbers =
            [record.machine, record.at_ns, record.place, record.detail, record.bytes.len() as u64];
        for (field, number) in header[1..].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let mut chain = self.chain();
        chain.hash.update(&header);
        chain.hash.update(record.bytes);
        chain.records += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Record<'static> = Record {
        kind: Kind::Message,
        machine: 3,
        at_ns: 1_000_000_007,
        place: 5,
        detail: 9,
        bytes: b"some bytes that moved",
    };

    fn digest(records: &[Record<'_>]) -> TraceDigest {
        let trace = TraceHash::default();
        for record in records {
            trace.record(record);
        }
        assert_eq!(trace.records(), records.len() as u64);
        trace.digest()
    }

    #[test]
    fn equal_sequences_have_equal_hashes() {
        assert_eq!(digest(&[SAMPLE, SAMPLE]), digest(&[SAMPLE, SAMPLE]));
        assert_ne!(digest(&[SAMPLE, SAMPLE]), digest(&[SAMPLE]));
        assert_ne!(digest(&[]), digest(&[SAMPLE]));
        assert_eq!(digest(&[]).to_string().len(), 32);
    }

    #[test]
    fn any_flipped_bit_changes_the_hash() {
        let mut long = vec![7; 3_000];
        let whole = digest(&[SAMPLE, Record { bytes: &long, ..SAMPLE }, SAMPLE]);
        for at in [0, 1, 255, 256, 1_023, 1_024, 2_999] {
            for bit in 0..8 {
                long[at] ^= 1 << bit;
                let flipped = digest(&[SAMPLE, Record { bytes: &long, ..SAMPLE }, SAMPLE]);
                assert_ne!(flipped, whole, "bit {bit} of byte {at}");
                long[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn any_other_number_changes_the_hash() {
        let others = [
            Record { at_ns: SAMPLE.at_ns + 1, ..SAMPLE },
            Record { kind: Kind::Control, ..SAMPLE },
            Record { machine: 4, ..SAMPLE },
            Record { place: 6, ..SAMPLE },
            Record { detail: 8, ..SAMPLE },
        ];
        for other in others {
            assert_ne!(digest(&[SAMPLE, other]), digest(&[SAMPLE, SAMPLE]), "{other:?}");
            assert_ne!(digest(&[SAMPLE, other]), digest(&[other, SAMPLE]), "order matters");
        }
    }

    #[test]
    fn the_border_between_two_records_counts() {
        let split = |at| {
            let (left, right) = SAMPLE.bytes.split_at(at);
            digest(&[Record { bytes: left, ..SAMPLE }, Record { bytes: right, ..SAMPLE }])
        };
        assert_ne!(split(4), split(5));
    }

    #[test]
    fn timers_states_and_generators_count() {
        let trace = TraceHash::default();
        let mut seen = vec![trace.digest()];
        trace.timer(2);
        seen.push(trace.digest());
        trace.state(1, 2, 3, 4);
        seen.push(trace.digest());
        trace.generator(2, 3);
        seen.push(trace.digest());
        let mut distinct = seen.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seen.len());
    }
}
