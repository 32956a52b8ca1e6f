//! Aggregates while their rows come in.
//!
//! Invariant: the result depends on the rows and their times, not on how they were batched; sums are
//! exact until they are read. `FIRST_VALUE` and `LAST_VALUE` go by event time, and among rows of one
//! time by the order in which they came.

use crate::eval::Failure;
use crate::plan::{Aggregate, Fold};
use crate::value::codec::{Codec, Malformed};
use crate::value::decimal::{Decimal, rounded_quotient};
use crate::value::double::ExactSum;
use crate::value::{Type, Value};

/// A whole number of 192 bits: no sum of 2^64 numbers of 128 bits is too large for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wide {
    high: i64,
    low: i128,
}

impl Wide {
    /// A number.
    fn of(number: i128) -> Self {
        Self { high: if number < 0 { -1 } else { 0 }, low: number }
    }

    fn add(&mut self, other: Self) {
        let (low, carry) = (self.low as u128).overflowing_add(other.low as u128);
        self.low = low as i128;
        self.high += other.high + i64::from(carry);
    }

    /// Divided by a number that is not zero, towards zero, with what is left over; `None` if 128 bits do not hold
    /// the quotient. A sum that they do not hold may have a mean that they do.
    fn divided(self, by: u64) -> Option<(i128, i128)> {
        let is_below = self.high < 0;
        let (high, low) = (self.high as u64, self.low as u128);
        let (high, low) = match is_below {
            true => ((!high).wrapping_add(u64::from(low == 0)), low.wrapping_neg()),
            false => (high, low),
        };
        let by = u128::from(by);
        // In steps of 64 bits, the highest first.
        let step = |rest: u128, digit: u64| {
            let of = (rest << 64) | u128::from(digit);
            (of / by, of % by)
        };
        let (top, rest) = step(0, high);
        let (middle, rest) = step(rest, (low >> 64) as u64);
        let (bottom, rest) = step(rest, low as u64);
        let quotient = (top == 0).then_some((middle << 64) | bottom)?;
        let (quotient, rest) = (i128::try_from(quotient).ok()?, i128::try_from(rest).ok()?);
        Some(if is_below { (-quotient, -rest) } else { (quotient, rest) })
    }

    /// The number, if 128 bits hold it.
    fn get(self) -> Option<i128> {
        (self == Self::of(self.low)).then_some(self.low)
    }
}

/// An aggregate that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folded {
    /// So many rows.
    Count(u64),
    /// Exact numbers: how many, and their sum in units of their scale.
    Exact(u64, Wide),
    /// Doubles: how many, and their sum.
    Doubles(u64, ExactSum),
    /// The smallest or largest value so far; NULL if there is none.
    Best(Value),
    /// The first or last value so far with its time.
    Timed(Option<(i64, Value)>),
}

impl Folded {
    /// Before the first row.
    pub fn new(aggregate: &Aggregate) -> Self {
        match aggregate.fold {
            Fold::Count => Self::Count(0),
            Fold::Min | Fold::Max => Self::Best(Value::Null),
            Fold::First | Fold::Last => Self::Timed(None),
            Fold::Sum | Fold::Avg if aggregate.of == Type::Double => {
                Self::Doubles(0, ExactSum::default())
            }
            Fold::Sum | Fold::Avg => Self::Exact(0, Wide::default()),
        }
    }

    /// Takes in the argument of a row. `COUNT(*)` gets one that is not NULL.
    pub fn add(&mut self, fold: Fold, value: Value, time: i64) {
        if value.is_null() {
            return;
        }
        match self {
            Self::Count(count) => *count += 1,
            Self::Exact(count, sum) => {
                *count += 1;
                sum.add(Wide::of(match value {
                    Value::Bigint(number) => number.into(),
                    Value::Decimal(number) => number.mantissa,
                    _ => 0,
                }));
            }
            Self::Doubles(count, sum) => {
                if let Value::Double(number) = value {
                    *count += 1;
                    sum.add(number);
                }
            }
            Self::Best(best) => {
                let better = match fold {
                    Fold::Min => value < *best,
                    _ => value > *best,
                };
                if best.is_null() || better {
                    *best = value;
                }
            }
            Self::Timed(known) => {
                let better = known.as_ref().is_none_or(|(at, _)| match fold {
                    Fold::First => time < *at,
                    _ => time >= *at,
                });
                if better {
                    *known = Some((time, value));
                }
            }
        }
    }

    /// Takes in what was made of other rows, which came later and are of other times.
    pub fn merge(&mut self, fold: Fold, other: Self) {
        match (&mut *self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Exact(count, sum), Self::Exact(more, other)) => {
                *count += more;
                sum.add(other);
            }
            (Self::Doubles(count, sum), Self::Doubles(more, other)) => {
                *count += more;
                sum.merge(&other);
            }
            (_, Self::Best(value)) => self.add(fold, value, 0),
            (_, Self::Timed(Some((time, value)))) => self.add(fold, value, time),
            _ => {}
        }
    }

    /// The result.
    pub fn get(&self, aggregate: &Aggregate) -> Result<Value, Failure> {
        let scale = aggregate.argument.as_ref().and_then(|a| a.of.digits()).map_or(0, |(_, s)| s);
        let overflow = || Failure::new(aggregate.at, format!("{} overflows", aggregate.of));
        Ok(match self {
            Self::Count(count) => Value::Bigint(i64::try_from(*count).map_err(|_| overflow())?),
            Self::Exact(0, _) | Self::Doubles(0, _) | Self::Timed(None) => Value::Null,
            Self::Exact(count, sum) => {
                let number = match (aggregate.fold, aggregate.of) {
                    (Fold::Avg, Type::Decimal(_, of)) => mean(*sum, *count, of - scale)
                        .map(|mantissa| Decimal { mantissa, scale: of }),
                    _ => sum.get().map(|mantissa| Decimal { mantissa, scale }),
                };
                let number = number.filter(|n| n.fits(crate::value::decimal::PRECISION_MAX));
                Value::Decimal(number.ok_or_else(overflow)?)
            }
            Self::Doubles(count, sum) => {
                let number = match aggregate.fold {
                    Fold::Avg => sum.mean(*count),
                    _ => sum.get(),
                };
                Value::Double(number.ok_or_else(overflow)?)
            }
            Self::Best(value) | Self::Timed(Some((_, value))) => value.clone(),
        })
    }
}

/// With so many digits more; the whole part is divided first, so that it does not overflow.
fn mean(sum: Wide, count: u64, digits: u8) -> Option<i128> {
    let power = 10i128.checked_pow(digits.into())?;
    let (whole, rest) = sum.divided(count)?;
    let behind = rounded_quotient(rest.checked_mul(power)?, count.into())?;
    whole.checked_mul(power)?.checked_add(behind)
}

/// ```text
/// folded    0 | u64                                    count
///           1 | count u64 | high i64 | low i128        sum of exact numbers
///           2 | count u64 | steps above | steps below  sum of doubles; steps: u32 of (u32, u32)
///           3 | value                                  smallest or largest
///           4 | there u8: 0, or 1, i64 and a value     first or last
/// ```
impl Codec for Folded {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(count) => {
                0u8.put(out);
                count.put(out);
            }
            Self::Exact(count, sum) => {
                1u8.put(out);
                count.put(out);
                sum.high.put(out);
                sum.low.put(out);
            }
            Self::Doubles(count, sum) => {
                2u8.put(out);
                count.put(out);
                sum.steps().iter().for_each(|steps| steps.put(out));
            }
            Self::Best(value) => {
                3u8.put(out);
                value.put(out);
            }
            Self::Timed(known) => {
                4u8.put(out);
                known.put(out);
            }
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(match u8::read(from)? {
            0 => Self::Count(u64::read(from)?),
            1 => {
                let count = u64::read(from)?;
                Self::Exact(count, Wide { high: i64::read(from)?, low: i128::read(from)? })
            }
            2 => {
                let count = u64::read(from)?;
                let steps = [Vec::read(from)?, Vec::read(from)?];
                // A double has places up to 65; 2^64 of them carry two further.
                let is_sum = steps.iter().flatten().all(|(place, _): &(u32, u32)| *place < 80);
                let sum = is_sum.then(|| ExactSum::from_steps(steps)).ok_or(Malformed)?;
                Self::Doubles(count, sum)
            }
            3 => Self::Best(Value::read(from)?),
            4 => Self::Timed(Option::read(from)?),
            _ => return Err(Malformed),
        })
    }

    fn weight(&self) -> usize {
        match self {
            Self::Count(_) | Self::Exact(..) => 40,
            Self::Doubles(_, sum) => 80 + sum.weight(),
            Self::Best(value) => 40 + value.weight(),
            Self::Timed(known) => 40 + known.weight(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wide_numbers_are_divided_towards_zero(
            numbers in prop::collection::vec(any::<i128>(), 1..6),
            by in 1u64..,
        ) {
            let mut sum = Wide::default();
            numbers.iter().for_each(|number| sum.add(Wide::of(*number)));
            if let Some((quotient, rest)) = sum.divided(by) {
                prop_assert!(rest.unsigned_abs() < by.into());
                prop_assert!(rest == 0 || (rest < 0) == (sum.high < 0));
                // Back again, by adding what it is made of.
                let (high, low) = (quotient >> 64, quotient & i128::from(u64::MAX));
                let mut again = Wide::of(rest);
                let product = low as u128 * u128::from(by);
                again.add(Wide { high: 0, low: product as i128 });
                let product = high * i128::from(by);
                again.add(Wide { high: (product >> 64) as i64, low: product << 64 });
                prop_assert_eq!(again, sum);
            } else {
                prop_assert!(sum.get().is_none_or(|sum| sum == i128::MIN), "128 bits hold it");
            }
        }
    }
}
