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

    /// The quotient, rounded to a scale; `None` if it does not fit, however large what lies in between is.
    pub fn divide(self, other: Self, scale: u8) -> Option<Self> {
        // (a / 10^s) / (b / 10^t) = a * 10^(t - s) / b
        let shift = i32::from(scale) + i32::from(other.scale) - i32::from(self.scale);
        let (above, below) = (self.mantissa.unsigned_abs(), other.mantissa.unsigned_abs());
        let power = |by: i32| POWERS.get(by.unsigned_abs() as usize).map(|p| p.unsigned_abs());
        let (mut quotient, mut rest, mut below) = (above.checked_div(below)?, above % below, below);
        if shift < 0 {
            // Below what 128 bits hold there is less than a third of one.
            let Some(wider) = power(shift).and_then(|power| below.checked_mul(power)) else {
                return Some(Self { mantissa: 0, scale });
            };
            (quotient, rest, below) = (above / wider, above % wider, wider);
        }
        for _ in 0..shift.max(0) {
            let (digit, left) = next_digit(rest, below);
            quotient = quotient.checked_mul(10)?.checked_add(digit)?;
            rest = left;
        }
        let quotient = quotient + u128::from(rest >= below - rest);
        let sign = if (self.mantissa < 0) == (other.mantissa < 0) { 1 } else { -1 };
        Self::checked(i128::try_from(quotient).ok()? * sign, scale)
    }

    /// What is left of a division of whole numbers of times, with the sign of the dividend.
    pub fn remainder(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let Some(below) = other.rescale(scale).map(|other| other.mantissa.unsigned_abs()) else {
            // More than all that has 38 digits, so it is not in there once.
            return Some(self);
        };
        let mut rest = self.mantissa.unsigned_abs().checked_rem(below)?;
        for _ in self.scale..scale {
            rest = next_digit(rest, below).1;
        }
        let sign = if self.mantissa < 0 { -1 } else { 1 };
        Self::checked(i128::try_from(rest).ok()? * sign, scale)
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
        Self::rounded(&number.to_string(), scale)
    }

    /// Reads a number of any length, as [`Self::parse`] does, rounded to a scale.
    pub fn rounded(text: &str, scale: u8) -> Option<Self> {
        if let Some(exact) = Self::parse(text) {
            return exact.rescale(scale);
        }
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, digits.strip_prefix('+').unwrap_or(digits)),
        };
        let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
        let all: Vec<u8> = whole.bytes().chain(behind.bytes()).collect();
        if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
            return None;
        }
        // How many of the digits are kept: those before the point, and `scale` behind it.
        let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
        let zeros = all.iter().take_while(|digit| **digit == b'0').count() as i64;
        let (mut mantissa, mut at) = (0i128, zeros.min(kept));
        while at < kept {
            let digit = usize::try_from(at).ok().and_then(|at| all.get(at));
            let digit = digit.map_or(0, |digit| i128::from(digit - b'0'));
            mantissa = mantissa.checked_mul(10)?.checked_add(digit)?;
            if mantissa == 0 {
                break;
            }
            at += 1;
        }
        let next = usize::try_from(kept).ok().and_then(|kept| all.get(kept));
        mantissa += i128::from(next.is_some_and(|digit| *digit >= b'5'));
        Self::checked(mantissa * sign, scale)
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

/// The next digit of a quotient, and what is left: of ten times the rest of a division, which would not fit.
fn next_digit(rest: u128, below: u128) -> (u128, u128) {
    let (mut digit, mut left) = (0, 0);
    for _ in 0..10 {
        left += rest;
        if left >= below {
            left -= below;
            digit += 1;
        }
    }
    (digit, left)
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
    fn what_fits_is_found_however_large_it_is_in_between() {
        let of = |text: &str, scale: u8| decimal(text).rescale(scale).expect("fits");
        let divided = |a: Decimal, b: Decimal, scale| a.divide(b, scale).map(|q| q.to_string());
        let zeros = "0".repeat(18);
        assert_eq!(divided(of("1000", 18), of("1", 18), 18), Some(format!("1000.{zeros}")));
        assert_eq!(
            divided(of("-2", 18), of("3000", 18), 18).as_deref(),
            Some("-0.000666666666666667")
        );
        let most = decimal(&"9".repeat(38));
        assert_eq!(divided(most, most, 37), Some(format!("1.{}", "0".repeat(37))));
        assert_eq!(divided(most, of("0.1", 1), 0), None);
        assert_eq!(divided(of("0.1", 38), most, 0).as_deref(), Some("0"));
        let rest = decimal(&"7".repeat(38)).remainder(of("0.5", 20)).expect("fits");
        assert_eq!(rest.rescale(1), Some(decimal("0.0")));
        assert_eq!(of("-0.7", 38).remainder(most), Some(of("-0.7", 38)));
    }

    #[test]
    fn numbers_of_any_length_are_rounded() {
        let rounded = |text: &str, scale| Decimal::rounded(text, scale).map(|d| d.to_string());
        assert_eq!(rounded("1.1102230246251565e-26", 2).as_deref(), Some("0.00"));
        assert_eq!(rounded("-5.1e-40", 39 - 1).as_deref(), Some(&*format!("0.{}", "0".repeat(38))));
        assert_eq!(
            rounded(&format!("0.{}6", "0".repeat(38)), 38),
            Some(format!("0.{}1", "0".repeat(37)))
        );
        assert_eq!(rounded(&format!("12.345{}", "1".repeat(40)), 2).as_deref(), Some("12.35"));
        assert_eq!(rounded(&format!("-12.3{}e1", "4".repeat(40)), 1).as_deref(), Some("-123.4"));
        assert_eq!(rounded("0e99999999", 1).as_deref(), Some("0.0"));
        assert_eq!(rounded("1e99999999", 1), None);
        assert_eq!(rounded("1e-99999999", 1).as_deref(), Some("0.0"));
        assert_eq!(rounded("1.x", 1), None);
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
        fn quotients_are_right(a in any::<i64>(), b in any::<i64>(), s in 0u8..12, t in 0u8..12, q in 0u8..9) {
            prop_assume!(b != 0);
            let (one, other) =
                (Decimal { mantissa: a.into(), scale: s }, Decimal { mantissa: b.into(), scale: t });
            let shift = i32::from(q) + i32::from(t) - i32::from(s);
            let power = POWERS[shift.unsigned_abs() as usize];
            let (a, b) = (i128::from(a), i128::from(b));
            let expected = if shift >= 0 {
                a.checked_mul(power).and_then(|a| rounded_quotient(a, b))
            } else {
                rounded_quotient(a, b * power)
            };
            if let Some(expected) = expected {
                prop_assert_eq!(one.divide(other, q).map(|q| q.mantissa), Some(expected));
            }
        }

        #[test]
        fn what_is_written_is_read(mantissa in any::<i64>(), scale in 0u8..30) {
            let number = Decimal { mantissa: mantissa.into(), scale };
            prop_assert_eq!(Decimal::parse(&number.to_string()), Some(number));
        }
    }
}
