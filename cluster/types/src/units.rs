//! Human durations and sizes, as they stand in configuration and scenario files.
//!
//! Invariants: what is printed reads back as the same value; a number without a unit is refused,
//! because "10" says nothing about seconds or milliseconds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Why a duration or a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The text does not begin with a number.
    #[error("`{0}` does not begin with a number")]
    NoNumber(String),
    /// The unit is missing.
    #[error("`{text}` needs a unit: one of {known}")]
    NoUnit {
        /// What was read.
        text: String,
        /// The units that are known.
        known: &'static str,
    },
    /// The unit is not known.
    #[error("`{unit}` in `{text}` is no unit: use one of {known}")]
    Unit {
        /// What was read.
        text: String,
        /// The part that is no unit.
        unit: String,
        /// The units that are known.
        known: &'static str,
    },
    /// The value does not fit.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
const DURATION_NAMES: &str = "ns, us, ms, s, min, h, d";

const SIZE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const SIZE_NAMES: &str = "B, KiB, MiB, GiB, TiB";

fn parse(text: &str, units: &[(&str, u64)], known: &'static str) -> Result<u64, UnitError> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() || number.starts_with('.') {
        return Err(UnitError::NoNumber(text.to_owned()));
    }
    let unit = unit.trim();
    let factor =
        units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(
            || match unit {
                "" => UnitError::NoUnit { text: text.to_owned(), known },
                unit => UnitError::Unit { text: text.to_owned(), unit: unit.to_owned(), known },
            },
        )?;
    let too_large = || UnitError::TooLarge(text.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value: u64 = whole.parse::<u64>().map_err(|_| too_large())?;
    value = value.checked_mul(factor).ok_or_else(too_large)?;
    // In integers, so that no float rounds it; what is below the smallest unit is dropped.
    let mut part: u128 = 0;
    let mut scale: u128 = 1;
    for digit in fraction.chars().take(18) {
        let digit = digit.to_digit(10).ok_or_else(|| UnitError::NoNumber(text.to_owned()))?;
        part = part * 10 + u128::from(digit);
        scale *= 10;
    }
    let part = u64::try_from(part * u128::from(factor) / scale).map_err(|_| too_large())?;
    value = value.checked_add(part).ok_or_else(too_large)?;
    Ok(value)
}

fn print(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .copied()
        .unwrap_or(units[0]);
    write!(f, "{}{name}", value / factor)
}

/// A length of time, written as `300ms`, `1.5s`, `7d`. Kept in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A duration of this many milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Reads `300ms`, `1.5s`, `7d`.
    ///
    /// # Errors
    /// If there is no number, no known unit, or the value does not fit.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        parse(text, DURATION_UNITS, DURATION_NAMES).map(|ns| Self(Duration::from_nanos(ns)))
    }

    /// Milliseconds, rounded down.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), DURATION_UNITS, f)
    }
}

/// A number of bytes, written as `64KiB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanSize(pub u64);

impl HumanSize {
    /// Reads `64KiB`, `1.5GiB`.
    ///
    /// # Errors
    /// If there is no number, no known unit, or the value does not fit.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        parse(text, SIZE_UNITS, SIZE_NAMES).map(Self)
    }
}

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0, SIZE_UNITS, f)
    }
}

macro_rules! as_text {
    ($name:ident, $expected:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
as_text!(HumanDuration, "a duration with its unit, as in \"100ms\"");
as_text!(HumanSize, "a size with its unit, as in \"64MiB\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        let ms = |text: &str| HumanDuration::parse(text).map(|d| d.0);
        assert_eq!(ms("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(ms("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(ms(" 7 d "), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(HumanDuration::from_millis(1500).to_string(), "1500ms");
        assert_eq!(HumanDuration::from_millis(2000).to_string(), "2s");
        assert_eq!(HumanDuration::default().to_string(), "0ns");
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        let error = HumanDuration::parse("10").expect_err("no unit");
        assert_eq!(error.to_string(), "`10` needs a unit: one of ns, us, ms, s, min, h, d");
        let error = HumanSize::parse("64MB").expect_err("not one of ours");
        assert_eq!(
            error.to_string(),
            "`MB` in `64MB` is no unit: use one of B, KiB, MiB, GiB, TiB"
        );
        assert!(HumanSize::parse("").is_err());
        assert!(HumanSize::parse(".5KiB").is_err());
    }

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(HumanSize::parse("1.5KiB"), Ok(HumanSize(1536)));
        assert_eq!(HumanSize(1536).to_string(), "1536B");
        assert_eq!(HumanSize(64 << 20).to_string(), "64MiB");
        assert!(HumanSize::parse("99999999999TiB").is_err());
    }
}
