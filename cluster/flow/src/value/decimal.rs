//! Exact decimal numbers: an integer of at most 38 digits and where its point is.
//!
//! Invariants: no operation rounds unless its name or its comment says so; rounding is half away from
//! zero; what does not fit is `None`, never something else.

use std::cmp::Ordering;
use std::fmt;

/// The most digits of a number.
pub const PRECISION_MAX: u8 = 38;

/// Digits that a quotient or an average has behind the point, if its operands have fewer.
pub const QUOTIENT_SCALE: u8 = 6;

const POWERS: [i128; PRECISION_MAX as usize + 1] = {
    let mut powers = [1; PRECISION_MAX as usize + 1];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// `mantissa` / 10^`scale`.
///
/// Two numbers are equal only if their scales are; within a column they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal {
    /// All digits.
    pub mantissa: i128,
    /// How many of them are behind the point.
    pub scale: u8,
}

impl Decimal {
    /// A whole number.
    pub fn whole(number: i64) -> Self {
        Self { mantissa: number.into(), scale: 0 }
    }

    /// Whether it has at most so many digits.
    pub fn fits(self, precision: u8) -> bool {
        self.mantissa.unsigned_abs() < POWERS[usize::from(precision)].unsigned_abs()
    }

    fn checked(mantissa: i128, scale: u8) -> Option<Self> {
        Some(Self { mantissa, scale }).filter(|number| number.fits(PRECISION_MAX))
    }

    /// The same number with another scale; rounded if it gets fewer digits.
    pub fn rescale(self, scale: u8) -> Option<Self> {
        if scale >= self.scale {
            let power = POWERS.get(usize::from(scale - self.scale))?;
            return Self::checked(self.mantissa.checked_mul(*power)?, scale);
        }
        // With more than 38 digits fewer nothing is left of 38.
        let Some(power) = POWERS.get(usize::from(self.scale - scale)) else {
            return Some(Self { mantissa: 0, scale });
        };
        Self::checked(rounded_quotient(self.mantissa, *power)?, scale)
    }

    /// The same number with fewer digits, which are cut off and not rounded.
    pub fn truncate(self, scale: u8) -> Self {
        if scale >= self.scale {
            return self;
        }
        let power = POWERS.get(usize::from(self.scale - scale));
        Self { mantissa: power.map_or(0, |power| self.mantissa / power), scale }
    }

    /// The largest whole number that is not above.
    pub fn floor(self) -> Self {
        let power = POWERS[usize::from(self.scale)];
        Self { mantissa: self.mantissa.div_euclid(power), scale: 0 }
    }

    /// The sum, with the larger scale.
    pub fn add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let (left, right) = (self.rescale(scale)?, other.rescale(scale)?);
        Self::checked(left.mantissa.checked_add(right.mantissa)?, scale)
    }

    /// The number below zero.
    pub fn negate(self) -> Self {
        Self { mantissa: -self.mantissa, scale: self.scale }
    }

    /// The product, with the sum of the scales.
    pub fn multiply(self, other: Self) -> Option<Self> {
        let scale = self.scale.checked_add(other.scale).filter(|s| *s <= PRECISION_MAX)?;
        Self::checked(self.mantissa.checked_mul(other.mantissa)?, scale)
    }

    /// The quotient, rounded to a scale.
    pub fn divide(self, other: Self, scale: u8) -> Option<Self> {
        // (a / 10^s) / (b / 10^t) = a * 10^(t - s) / b
        let shift = i32::from(scale) + i32::from(other.scale) - i32::from(self.scale);
        let power = POWERS.get(shift.unsigned_abs() as usize)?;
        let (above, below) = if shift >= 0 {
            (self.mantissa.checked_mul(*power)?, other.mantissa)
        } else {
            (self.mantissa, other.mantissa.checked_mul(*power)?)
        };
        Self::checked(rounded_quotient(above, below)?, scale)
    }

    /// What is left of a division of whole numbers of times, with the sign of the dividend.
    pub fn remainder(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let (left, right) = (self.rescale(scale)?, other.rescale(scale)?);
        Self::checked(left.mantissa.checked_rem(right.mantissa)?, scale)
    }

    /// Which one is larger, whatever their scales are.
    pub fn compare(self, other: Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        // One of the two has that scale already. If the other one does not fit, it is beyond
        // everything that does.
        match (self.rescale(scale), other.rescale(scale)) {
            (Some(left), Some(right)) => left.mantissa.cmp(&right.mantissa),
            (None, _) => self.mantissa.cmp(&0),
            (_, None) => 0.cmp(&other.mantissa),
        }
    }

    /// The nearest double.
    pub fn to_double(self) -> f64 {
        // The digits decide, so that it is rounded once.
        self.to_string().parse().unwrap_or(0.0)
    }

    /// The decimal number that a double is written as, rounded to a scale.
    pub fn from_double(number: f64, scale: u8) -> Option<Self> {
        Self::parse(&number.to_string())?.rescale(scale)
    }

    /// Reads `-12.50` or `1.25e3`. The scale is the number of digits behind the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits.strip_prefix('+').unwrap_or(digits)),
        };
        let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && behind.is_empty() {
            return None;
        }
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(behind.bytes()) {
            let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
            mantissa = mantissa.checked_mul(10)?.checked_add(digit)?;
        }
        if negative {
            mantissa = -mantissa;
        }
        let scale = i32::try_from(behind.len()).ok()?.checked_sub(exponent)?;
        if scale < 0 {
            let power = POWERS.get(scale.unsigned_abs() as usize);
            let mantissa = if mantissa == 0 { 0 } else { mantissa.checked_mul(*power?)? };
            return Self::checked(mantissa, 0);
        }
        // Zeros at the end of a small number are no digits that anybody needs.
        let mut scale = scale;
        while scale > i32::from(PRECISION_MAX) && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
            if mantissa == 0 {
                scale = scale.min(i32::from(PRECISION_MAX));
            }
        }
        let scale = u8::try_from(scale).ok().filter(|scale| *scale <= PRECISION_MAX)?;
        Self::checked(mantissa, scale)
    }
}

/// Half away from zero.
pub fn rounded_quotient(above: i128, below: i128) -> Option<i128> {
    let quotient = above.checked_div(below)?;
    let rest = above.checked_rem(below)?.unsigned_abs();
    let below_abs = below.unsigned_abs();
    if rest >= below_abs - rest {
        let away = if (above < 0) == (below < 0) { 1 } else { -1 };
        return quotient.checked_add(away).filter(|_| rest != 0);
    }
    Some(quotient)
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let scale = usize::from(self.scale);
        let digits = format!("{:0width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, behind) = digits.split_at(digits.len() - scale);
        match behind {
            "" => write!(f, "{sign}{whole}"),
            _ => write!(f, "{sign}{whole}.{behind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).expect("a number")
    }

    #[test]
    fn numbers_are_read_and_written() {
        for text in ["0", "-1", "12.50", "-0.05", "0.000"] {
            assert_eq!(decimal(text).to_string(), text);
        }
        assert_eq!(decimal("1.25e3").to_string(), "1250");
        assert_eq!(decimal("1.25e-1").to_string(), "0.125");
        assert_eq!(decimal("+.5").to_string(), "0.5");
        for text in ["", ".", "-", "1.2.3", "1e", "0x1", "1e99999", "9".repeat(39).as_str()] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        assert_eq!(Decimal::parse("0e99").map(|d| d.mantissa), Some(0));
        assert_eq!(Decimal::parse("1e-38").map(|d| d.scale), Some(38));
        assert_eq!(Decimal::parse("1e-39"), None);
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let rounded = |text: &str| decimal(text).rescale(0).expect("fits").to_string();
        assert_eq!(
            ["0.5", "-0.5", "0.49", "1.5", "-2.5"].map(rounded),
            ["1", "-1", "0", "2", "-3"]
        );
        assert_eq!(decimal("-1.29").truncate(1).to_string(), "-1.2");
        assert_eq!(decimal("-1.2").floor().to_string(), "-2");
        assert_eq!(decimal("1").divide(decimal("3"), 6).expect("fits").to_string(), "0.333333");
        assert_eq!(decimal("2").divide(decimal("3"), 6).expect("fits").to_string(), "0.666667");
        assert_eq!(decimal("1").divide(decimal("0"), 6), None);
        assert_eq!(decimal("7.5").remainder(decimal("-2")).expect("fits").to_string(), "1.5");
    }

    #[test]
    fn what_does_not_fit_is_nothing() {
        let most = decimal(&"9".repeat(38));
        assert_eq!(most.add(decimal("1")), None);
        assert_eq!(most.multiply(decimal("10")), None);
        assert_eq!(most.rescale(1), None);
        assert_eq!(most.compare(decimal("0.5")), Ordering::Greater);
        assert_eq!(decimal("0.5").compare(most.negate()), Ordering::Greater);
        assert_eq!(decimal("1.50").compare(decimal("1.5")), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(mut numbers in prop::collection::vec(any::<i64>(), 1..9)) {
            let sum = |numbers: &[i64]| {
                numbers.iter().try_fold(Decimal::whole(0), |sum, n| {
                    sum.add(Decimal { mantissa: (*n).into(), scale: n.unsigned_abs() as u8 % 9 })
                })
            };
            let forwards = sum(&numbers).map(|s| s.rescale(9));
            numbers.reverse();
            prop_assert_eq!(forwards, sum(&numbers).map(|s| s.rescale(9)));
        }

        #[test]
        fn what_is_written_is_read(mantissa in any::<i64>(), scale in 0u8..30) {
            let number = Decimal { mantissa: mantissa.into(), scale };
            prop_assert_eq!(Decimal::parse(&number.to_string()), Some(number));
        }
    }
}
