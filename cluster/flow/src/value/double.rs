//! Doubles that give the same bits on every machine, and sums of them that do not depend on the order.
//!
//! Addition, subtraction, multiplication, division and the square root are fixed by IEEE 754 to the
//! last bit, and so is reading and writing them; nothing else is used. A result that is not finite is
//! an error, so a [`Double`] is never infinite, no number, or minus zero, and has a total order.
//!
//! A sum is kept exactly, as a whole number of 2^-1074ths in steps of 32 bits, and is rounded once when it
//! is read. So a sum is the same whatever order, batch or subtask its parts came in.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Double(f64);

impl Double {
    /// `None` if it is not finite.
    pub fn new(number: f64) -> Option<Self> {
        // Minus zero equals zero, and would be written differently.
        number.is_finite().then_some(Self(number + 0.0))
    }

    /// As a plain number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Double {}

impl PartialOrd for Double {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Double {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Bits of one step of a sum.
const STEP_BITS: u32 = 32;

/// About what a step takes in a tree, in bytes.
const STEP_WEIGHT: usize = 20;

/// Steps by their place, each one counts 2^(32 * place - 1074); all are within 1 to 2^32 - 1.
type Steps = BTreeMap<u32, u32>;

/// An exact sum: what is above zero and what is below, each for itself, so that equal sums of the
/// same numbers have equal steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    above: Steps,
    below: Steps,
}

/// Adds to a step and carries upwards.
fn carry(steps: &mut Steps, place: u32, number: u32) {
    let (mut place, mut number) = (place, number);
    while number != 0 {
        let sum = u64::from(steps.get(&place).copied().unwrap_or_default()) + u64::from(number);
        match sum as u32 {
            0 => steps.remove(&place),
            low => steps.insert(place, low),
        };
        place += 1;
        number = (sum >> STEP_BITS) as u32;
    }
}

/// What is left of the larger sum without the smaller one.
fn difference(larger: &Steps, smaller: &Steps) -> Steps {
    let mut steps = Steps::new();
    let mut borrowed = 0;
    let top = larger.keys().next_back().copied().unwrap_or_default();
    for place in 0..=top {
        let of = |steps: &Steps| i64::from(steps.get(&place).copied().unwrap_or_default());
        let step = of(larger) - of(smaller) - borrowed;
        borrowed = i64::from(step < 0);
        let step = (step + (borrowed << STEP_BITS)) as u32;
        if step != 0 {
            steps.insert(place, step);
        }
    }
    assert_eq!(borrowed, 0, "the smaller sum was the larger one");
    steps
}

/// Steps that a mean has below those of its sum.
const MEAN_STEPS: u32 = 3;

/// A sum divided by a number that is not zero, with more steps below; what is left over is a bit in the lowest one, far
/// below all that a double keeps.
fn quotient(steps: &Steps, by: u64) -> Steps {
    let (mut out, mut rest) = (Steps::new(), 0u128);
    let top = steps.keys().next_back().copied().unwrap_or_default() + MEAN_STEPS;
    for place in (0..=top).rev() {
        let step = place.checked_sub(MEAN_STEPS).and_then(|place| steps.get(&place));
        rest = (rest << STEP_BITS) | u128::from(step.copied().unwrap_or_default());
        let digit = (rest / u128::from(by)) as u32;
        rest %= u128::from(by);
        let digit = if place == 0 && rest > 0 { digit | 1 } else { digit };
        if digit != 0 {
            out.insert(place, digit);
        }
    }
    out
}

/// A sum above zero, whose places begin so much further below, rounded to the nearest double, ties to even; infinite if
/// it is too large.
fn rounded(steps: &Steps, below_zero: u32) -> f64 {
    let Some((top, highest)) = steps.last_key_value().map(|(place, step)| (*place, *step)) else {
        return 0.0;
    };
    let step = |below: u32| {
        let place = top.checked_sub(below);
        u128::from(place.and_then(|place| steps.get(&place)).copied().unwrap_or_default())
    };
    // Three steps hold any mantissa; below them it only matters whether there is anything.
    let wide = (u128::from(highest) << 64) | (step(1) << 32) | step(2);
    let is_more = steps.keys().next().is_some_and(|lowest| lowest + 2 < top);
    // `wide` counts 2^base.
    let base = (i64::from(top) - 2 - i64::from(below_zero)) * i64::from(STEP_BITS) - 1074;
    let bits = 128 - wide.leading_zeros();
    // A number near zero keeps fewer bits than 53.
    let drop = i64::from(bits.saturating_sub(53)).max(-1074 - base).max(0) as u32;
    if drop > bits {
        // Less than half of the smallest number.
        return 0.0;
    }
    let (mut kept, rest) = (wide >> drop, wide & ((1 << drop) - 1));
    let half = if drop == 0 { 0 } else { 1 << (drop - 1) };
    if drop > 0 && (rest > half || (rest == half && (is_more || kept & 1 == 1))) {
        kept += 1;
    }
    scaled(kept as u64, base + i64::from(drop))
}

impl ExactSum {
    /// Adds a number.
    pub fn add(&mut self, number: Double) {
        let bits = number.0.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as u32;
        let fraction = bits & ((1 << 52) - 1);
        // A number is `mantissa` * 2^(shift - 1074).
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | (1 << 52), exponent - 1) };
        let wide = u128::from(mantissa) << (shift % STEP_BITS);
        let steps = if number.0 < 0.0 { &mut self.below } else { &mut self.above };
        for part in 0..3 {
            carry(steps, shift / STEP_BITS + part, (wide >> (STEP_BITS * part)) as u32);
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        for (place, step) in &other.above {
            carry(&mut self.above, *place, *step);
        }
        for (place, step) in &other.below {
            carry(&mut self.below, *place, *step);
        }
    }

    /// The sum, rounded once. `None` if that is not finite.
    pub fn get(&self) -> Option<Double> {
        self.rounded(|steps| rounded(&steps, 0))
    }

    /// The mean of so many numbers, rounded once: it is finite, however large their sum is.
    pub fn mean(&self, count: u64) -> Option<Double> {
        self.rounded(|steps| rounded(&quotient(&steps, count.max(1)), MEAN_STEPS))
    }

    fn rounded(&self, rounded: impl Fn(Steps) -> f64) -> Option<Double> {
        let is_above = self.above.iter().rev().cmp(self.below.iter().rev()) != Ordering::Less;
        let number = if is_above {
            rounded(difference(&self.above, &self.below))
        } else {
            -rounded(difference(&self.below, &self.above))
        };
        Double::new(number)
    }

    /// About what it takes in memory, in bytes: numbers of one size stay within a few steps, numbers of all sizes
    /// have up to 66 of them on each side.
    pub fn weight(&self) -> usize {
        // Leaves of a tree are half full at least.
        40 + STEP_WEIGHT * (self.above.len() + self.below.len())
    }

    /// Its steps, for storing: first those above zero, then those below.
    pub fn steps(&self) -> [Vec<(u32, u32)>; 2] {
        [&self.above, &self.below].map(|steps| steps.iter().map(|(p, s)| (*p, *s)).collect())
    }

    /// A sum out of stored steps.
    pub fn from_steps([above, below]: [Vec<(u32, u32)>; 2]) -> Self {
        let mut sum = Self::default();
        above.into_iter().for_each(|(place, step)| carry(&mut sum.above, place, step));
        below.into_iter().for_each(|(place, step)| carry(&mut sum.below, place, step));
        sum
    }
}

/// `mantissa` * 2^`exponent` for a mantissa of at most 53 bits and a result that is exact or infinite.
fn scaled(mantissa: u64, exponent: i64) -> f64 {
    let mut number = mantissa as f64;
    let mut exponent = exponent;
    // Powers of two are exact as long as nothing falls below the smallest number, which the caller
    // has made sure of; the steps keep each factor finite.
    while exponent > 0 && number.is_finite() {
        let step = exponent.min(1000);
        number *= f64::from_bits(((1023 + step) as u64) << 52);
        exponent -= step;
    }
    while exponent < 0 && number != 0.0 {
        let step = exponent.max(-1000);
        number *= f64::from_bits(((1023 + step) as u64) << 52);
        exponent -= step;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(numbers: &[f64]) -> Option<f64> {
        let mut sum = ExactSum::default();
        for number in numbers {
            sum.add(Double::new(*number).expect("finite"));
        }
        sum.get().map(Double::get)
    }

    #[test]
    fn sums_are_exact() {
        assert_eq!(sum(&[]), Some(0.0));
        assert_eq!(sum(&[0.1; 10]), Some(1.0));
        assert_eq!(sum(&[1e308, 1.0, -1e308]), Some(1.0));
        assert_eq!(sum(&[1e16, 1.0, 1.0, -1e16]), Some(2.0));
        assert_eq!(sum(&[-1e16, -1.0, -1.0, 1e16]), Some(-2.0));
        assert_eq!(sum(&[f64::MAX, f64::MAX]), None);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), Some(f64::MAX));
        let tiny = f64::from_bits(1);
        assert_eq!(sum(&[tiny, tiny]), Some(f64::from_bits(2)));
        assert_eq!(sum(&[1.0, tiny, -1.0]), Some(tiny));
        assert_eq!(sum(&[-1.0, tiny]), Some(-1.0));
    }

    fn mean(numbers: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        for number in numbers {
            sum.add(Double::new(*number).expect("finite"));
        }
        sum.mean(numbers.len() as u64).expect("a mean is finite").get()
    }

    #[test]
    fn means_are_rounded_once_however_large_the_sum_is() {
        assert_eq!(mean(&[1.7e308, 1.7e308]), 1.7e308);
        assert_eq!(mean(&[-f64::MAX; 5]), -f64::MAX);
        assert_eq!(mean(&[1.0, 2.0, 2.0]), 5.0 / 3.0);
        assert_eq!(mean(&[0.1, 0.2, 0.3]), 0.2);
        let tiny = f64::from_bits(1);
        assert_eq!(mean(&[tiny, 0.0]), 0.0, "half of it, and even");
        assert_eq!(mean(&[tiny, tiny, 0.0]), tiny);
        assert_eq!(mean(&[tiny, 0.0, 0.0]), 0.0);
        assert_eq!(mean(&[tiny, tiny, tiny, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0.0);
    }

    proptest! {
        #[test]
        fn the_mean_of_equal_numbers_is_that_number(a in any::<u64>(), count in 1usize..200) {
            let a = f64::from_bits(a);
            prop_assume!(a.is_finite());
            prop_assert_eq!(mean(&vec![a; count]), a + 0.0);
        }

        #[test]
        fn the_mean_of_few_bits_is_as_the_machine_divides(
            numbers in prop::collection::vec(-100_000i32..100_000, 1..20),
        ) {
            let sum: i64 = numbers.iter().map(|n| i64::from(*n)).sum();
            let numbers: Vec<f64> = numbers.iter().map(|n| f64::from(*n)).collect();
            prop_assert_eq!(mean(&numbers), sum as f64 / numbers.len() as f64 + 0.0);
        }

        #[test]
        fn one_or_two_numbers_are_added_as_the_machine_does(a in any::<u64>(), b in any::<u64>()) {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(sum(&[a]), Some(a + 0.0));
            let expected = Some(a + b + 0.0).filter(|sum| sum.is_finite());
            prop_assert_eq!(sum(&[a, b]), expected);
        }

        #[test]
        fn near_numbers_too(a in -1000i32..1000, b in -1000i32..1000, e in -60i32..60) {
            let (a, b) = (f64::from(a) * 2f64.powi(e), f64::from(b));
            prop_assert_eq!(sum(&[a, b]), Some(a + b + 0.0));
        }

        #[test]
        fn the_order_and_the_grouping_do_not_matter(
            numbers in prop::collection::vec(any::<f64>(), 0..20), cut in 0usize..20,
        ) {
            let numbers: Vec<Double> = numbers.into_iter().filter_map(Double::new).collect();
            let mut forwards = ExactSum::default();
            numbers.iter().for_each(|n| forwards.add(*n));
            let (left, right) = numbers.split_at(cut.min(numbers.len()));
            let (mut a, mut b) = (ExactSum::default(), ExactSum::default());
            left.iter().rev().for_each(|n| a.add(*n));
            right.iter().rev().for_each(|n| b.add(*n));
            b.merge(&a);
            prop_assert_eq!(&forwards, &b);
            prop_assert_eq!(forwards.get(), b.get());
            prop_assert_eq!(ExactSum::from_steps(b.steps()), b);
        }
    }
}
