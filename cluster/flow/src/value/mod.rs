//! Values, their types, and how they are written.
//!
//! | module | what |
//! |---|---|
//! | [`decimal`] | exact numbers |
//! | [`double`] | doubles that are the same everywhere, exact sums of them |
//! | [`time`] | points in time |
//! | [`json`] | payloads |
//! | [`codec`] | values in the state |
//!
//! Invariant: no value depends on the machine, and values of one type have one total order.

pub mod codec;
pub mod decimal;
pub mod double;
pub mod format;
pub mod json;
pub mod time;

use decimal::{Decimal, PRECISION_MAX};
use double::Double;
use json::Json;
use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::sync::Arc;

/// What a column or an expression may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The type of a bare `NULL`; it becomes whatever is needed.
    Null,
    /// True or false.
    Boolean,
    /// Whole numbers of 64 bits.
    Bigint,
    /// Exact numbers: so many digits, so many of them behind the point.
    Decimal(u8, u8),
    /// IEEE 754 doubles, finite ones only.
    Double,
    /// Text.
    Varchar,
    /// Points in time, in milliseconds.
    Timestamp,
    /// Anything in JSON.
    Json,
}

impl Type {
    /// Whether it is one of the three kinds of numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Bigint | Self::Decimal(..) | Self::Double)
    }

    /// Digits and scale, of exact numbers.
    pub fn digits(self) -> Option<(u8, u8)> {
        match self {
            Self::Bigint => Some((19, 0)),
            Self::Decimal(precision, scale) => Some((precision, scale)),
            _ => None,
        }
    }

    /// The type that holds the values of both, if there is one.
    pub fn common(self, other: Self) -> Option<Self> {
        if self == other || other == Self::Null {
            return Some(self);
        }
        if self == Self::Null {
            return Some(other);
        }
        if !self.is_number() || !other.is_number() {
            return None;
        }
        let (Some((p1, s1)), Some((p2, s2))) = (self.digits(), other.digits()) else {
            return Some(Self::Double);
        };
        let scale = s1.max(s2);
        Some(Self::Decimal((p1 - s1).max(p2 - s2).saturating_add(scale).min(PRECISION_MAX), scale))
    }

    /// Whether it holds all digits that a number of another exact type may have.
    pub fn has_room_for(self, other: Self) -> bool {
        match (self.digits(), other.digits()) {
            (Some((precision, scale)), Some((p, s))) => scale >= s && precision - scale >= p - s,
            _ => true,
        }
    }

    /// Whether its values can be compared with each other.
    pub fn is_ordered(self) -> bool {
        self != Self::Json
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Bigint => f.write_str("BIGINT"),
            Self::Decimal(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Varchar => f.write_str("VARCHAR"),
            Self::Timestamp => f.write_str("TIMESTAMP(3)"),
            Self::Json => f.write_str("JSON"),
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing is known.
    Null,
    /// Of a BOOLEAN.
    Boolean(bool),
    /// Of a BIGINT.
    Bigint(i64),
    /// Of a DECIMAL; the scale is that of the type.
    Decimal(Decimal),
    /// Of a DOUBLE.
    Double(Double),
    /// Of a VARCHAR.
    Varchar(Arc<str>),
    /// Of a TIMESTAMP, in milliseconds since 1970.
    Timestamp(i64),
    /// Of a JSON column.
    Json(Arc<Json>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Varchar(text.into())
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is TRUE, and not FALSE or NULL.
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Boolean(true))
    }

    /// As a member of an output record.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Varchar(text) => json::write_text(text, out),
            Self::Timestamp(ms) => json::write_text(&time::format(*ms), out),
            Self::Json(value) => value.write(out),
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Boolean(_) => 1,
            Self::Bigint(_) => 2,
            Self::Decimal(_) => 3,
            Self::Double(_) => 4,
            Self::Varchar(_) => 5,
            Self::Timestamp(_) => 6,
            Self::Json(_) => 7,
        }
    }
}

/// As `CAST(... AS VARCHAR)` gives it; NULL is written as `NULL`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(value) => value.fmt(f),
            Self::Bigint(value) => value.fmt(f),
            Self::Decimal(value) => value.fmt(f),
            // The shortest digits that are read as this number; with a point or an exponent, so that
            // it is known for what it is.
            Self::Double(value) => write!(f, "{:?}", value.get()),
            Self::Varchar(text) => f.write_str(text),
            Self::Timestamp(ms) => f.write_str(&time::format(*ms)),
            Self::Json(value) => f.write_str(&value.text()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order in the state. Within a type it is the order of the values; NULL comes first.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Boolean(left), Self::Boolean(right)) => left.cmp(right),
            (Self::Bigint(left), Self::Bigint(right)) => left.cmp(right),
            (Self::Decimal(left), Self::Decimal(right)) => {
                left.compare(*right).then(left.cmp(right))
            }
            (Self::Double(left), Self::Double(right)) => left.cmp(right),
            (Self::Varchar(left), Self::Varchar(right)) => left.cmp(right),
            (Self::Timestamp(left), Self::Timestamp(right)) => left.cmp(right),
            (Self::Json(left), Self::Json(right)) => left.text().cmp(&right.text()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}
