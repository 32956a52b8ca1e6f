//! Values as bytes, for state and its keys.
//!
//! ```text
//! values    count u32 | per value: kind u8 | what the kind has
//! kind      0 null        nothing
//!           1 boolean     u8, 0 or 1
//!           2 bigint      i64
//!           3 decimal     mantissa i128 | scale u8
//!           4 double      bits u64
//!           5 varchar     bytes
//!           6 timestamp   ms i64
//!           7 json        bytes, the text
//! bytes     len u32 | so many bytes
//! ```
//!
//! All numbers are little-endian. Invariant: whatever the bytes are, reading ends in values or in an
//! error, and allocates no more than there are bytes.

use super::decimal::Decimal;
use super::double::Double;
use super::json::Json;
use super::{Value, time};
use std::sync::Arc;

/// Bytes that are not what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a list or a text weighs besides what is in it.
pub const LIST_WEIGHT: usize = 24;

/// What a value weighs besides what it points to.
const VALUE_WEIGHT: usize = 32;

/// Something that is kept in the state.
pub trait Codec: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes it off the front.
    fn read(from: &mut &[u8]) -> Result<Self, Malformed>;

    /// About how many bytes it takes in memory: the same on every machine, and cheap.
    fn weight(&self) -> usize;

    /// As bytes of its own.
    fn bytes(&self) -> Vec<u8> {
        // No less than it takes, most of the time.
        let mut out = Vec::with_capacity(self.weight());
        self.put(&mut out);
        out
    }

    /// Out of bytes of its own.
    fn whole(mut from: &[u8]) -> Result<Self, Malformed> {
        let value = Self::read(&mut from)?;
        if from.is_empty() { Ok(value) } else { Err(Malformed) }
    }
}

fn array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = from.split_first_chunk::<N>().ok_or(Malformed)?;
    *from = rest;
    Ok(*head)
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Codec for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
                array(from).map(Self::from_le_bytes)
            }

            fn weight(&self) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

numbers!(u8, u32, u64, i64, i128);

impl<T: Codec> Codec for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|element| element.put(out));
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::read(from)?;
        // Every element has a byte at least, so the input bounds what is collected.
        let mut elements = Vec::new();
        for _ in 0..count {
            if from.is_empty() {
                return Err(Malformed);
            }
            elements.push(T::read(from)?);
        }
        Ok(elements)
    }

    fn weight(&self) -> usize {
        LIST_WEIGHT + self.iter().map(Codec::weight).sum::<usize>()
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok((A::read(from)?, B::read(from)?))
    }

    fn weight(&self) -> usize {
        self.0.weight() + self.1.weight()
    }
}

impl<T: Codec> Codec for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(self.is_some()).put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        match u8::read(from)? {
            0 => Ok(None),
            1 => T::read(from).map(Some),
            _ => Err(Malformed),
        }
    }

    fn weight(&self) -> usize {
        8 + self.as_ref().map_or(0, Codec::weight)
    }
}

impl Codec for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let len = u32::read(from)? as usize;
        let (text, rest) = from.split_at_checked(len).ok_or(Malformed)?;
        *from = rest;
        str::from_utf8(text).map(Self::from).map_err(|_| Malformed)
    }

    fn weight(&self) -> usize {
        LIST_WEIGHT + self.len()
    }
}

impl Codec for Value {
    fn put(&self, out: &mut Vec<u8>) {
        self.rank().put(out);
        match self {
            Self::Null => {}
            Self::Boolean(value) => u8::from(*value).put(out),
            Self::Bigint(value) | Self::Timestamp(value) => value.put(out),
            Self::Decimal(value) => {
                value.mantissa.put(out);
                value.scale.put(out);
            }
            Self::Double(value) => value.get().to_bits().put(out),
            Self::Varchar(text) => text.put(out),
            Self::Json(value) => Arc::<str>::from(value.text()).put(out),
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let value = match u8::read(from)? {
            0 => Self::Null,
            1 => match u8::read(from)? {
                0 => Self::Boolean(false),
                1 => Self::Boolean(true),
                _ => return Err(Malformed),
            },
            2 => Self::Bigint(i64::read(from)?),
            3 => {
                let value = Decimal { mantissa: i128::read(from)?, scale: u8::read(from)? };
                let is_number =
                    value.scale <= super::PRECISION_MAX && value.fits(super::PRECISION_MAX);
                Self::Decimal(Some(value).filter(|_| is_number).ok_or(Malformed)?)
            }
            4 => Self::Double(Double::new(f64::from_bits(u64::read(from)?)).ok_or(Malformed)?),
            5 => Self::Varchar(Arc::read(from)?),
            6 => Self::Timestamp(time::in_range(i64::read(from)?).ok_or(Malformed)?),
            7 => {
                let text = Arc::<str>::read(from)?;
                Self::Json(Arc::new(Json::parse(&text).map_err(|_| Malformed)?))
            }
            _ => return Err(Malformed),
        };
        Ok(value)
    }

    fn weight(&self) -> usize {
        VALUE_WEIGHT
            + match self {
                Self::Varchar(text) => text.weight(),
                Self::Json(value) => value.weight(),
                _ => 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Bigint),
            (any::<i64>(), 0u8..20).prop_map(|(mantissa, scale)| {
                Value::Decimal(Decimal { mantissa: mantissa.into(), scale })
            }),
            any::<f64>().prop_filter_map("finite", |n| Double::new(n).map(Value::Double)),
            any::<String>().prop_map(Value::text),
            (time::MIN_MS..=time::MAX_MS).prop_map(Value::Timestamp),
            any::<String>().prop_map(|t| Value::Json(Arc::new(Json::String(t.into())))),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back(values in prop::collection::vec(value(), 0..6)) {
            prop_assert_eq!(Vec::<Value>::whole(&values.bytes()), Ok(values));
        }

        #[test]
        fn any_bytes_end_in_values_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(values) = Vec::<Value>::whole(&bytes) {
                prop_assert_eq!(Vec::<Value>::whole(&values.bytes()), Ok(values));
            }
        }
    }
}
