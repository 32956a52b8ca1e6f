//! Identifiers and positions, each a type of its own.
//!
//! Invariant: a bare integer never stands for one of these across a function border, so that an
//! offset of a partition cannot be passed where an index of the Raft log is wanted.
//!
//! Never: generate an identifier here. Random ones come from the host (`fulmar-host`).

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// A node of a site: 1, 2 or 3 in a three-node site. Also its Kafka broker id.
    NodeId(u64)
}
number! {
    /// A Raft term (Ongaro 2014, section 3.4). Also the Kafka leader epoch.
    Term(u64)
}
number! {
    /// The index of an entry in the site's Raft log. The first entry has index 0.
    LogIndex(u64)
}
number! {
    /// The offset of a record in a Kafka partition. The first record has offset 0.
    Offset(u64)
}
number! {
    /// The index of a partition in its topic, from 0.
    PartitionIndex(u32)
}

impl LogIndex {
    /// The index after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Offset {
    /// This offset moved forward by `count` records.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// The place of an entry in the Raft log: its term and its index.
///
/// Ordered by term first, which is Raft's "at least as up-to-date" relation for last entries
/// (Ongaro 2014, section 3.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that proposed the entry.
    pub term: Term,
    /// The index of the entry.
    pub index: LogIndex,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// Sixteen bytes that are unique: the shared form of site, incarnation and topic identifiers.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The UUID with all bits zero, which Kafka uses for "no topic id".
    pub const NIL: Self = Self([0; 16]);

    /// A version 4 UUID (RFC 9562, section 5.4) out of 16 random bytes.
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Reads the hyphenated form. `None` if it is not 32 hexadecimal digits with hyphens between.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 16];
        let mut digits = text.bytes().filter(|b| *b != b'-');
        for byte in &mut bytes {
            let high = char::from(digits.next()?).to_digit(16)?;
            let low = char::from(digits.next()?).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! unique {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

unique! {
    /// A site: drawn once, when its three nodes initialise it together.
    SiteId
}
unique! {
    /// One life of a node's data directory: a wiped node that comes back has another incarnation.
    Incarnation
}
unique! {
    /// A topic. Stable for the life of the topic; a topic re-created under the same name has another.
    TopicId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_back_what_it_prints() {
        let uuid = Uuid::from_random([0xab; 16]);
        assert_eq!(uuid.to_string(), "abababab-abab-4bab-abab-abababababab");
        assert_eq!(Uuid::parse(&uuid.to_string()), Some(uuid));
        assert_eq!(Uuid::parse("abab"), None);
        assert_eq!(Uuid::parse(&format!("{uuid}0")), None);
        assert_eq!(Uuid::parse("zzababab-abab-4bab-abab-abababababab"), None);
    }

    #[test]
    fn positions_are_ordered_by_term_before_index() {
        let at = |term, index| LogPosition { term: Term(term), index: LogIndex(index) };
        assert!(at(2, 5) > at(1, 9));
        assert!(at(2, 5) < at(2, 6));
    }
}
