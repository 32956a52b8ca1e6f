//! Values with a unit, and ranges of them.
//!
//! Invariants: everything is kept as an integer (parts per million, nanoseconds, records per
//! thousand seconds), so that what is drawn prints and reads back as the same value on every
//! machine; a range includes both ends and never runs backwards.

use crate::prng::Prng;
use fulmar_types::units::{HumanDuration, HumanSize};
use std::fmt;
use std::time::Duration;

/// A value that a scenario may give as a range.
pub trait Quantity: Copy + Ord + fmt::Debug + fmt::Display + Sized {
    /// What it is and how it is written, for error messages.
    const EXPECTED: &'static str;
    /// Round numbers, largest first: a value is drawn in the largest step that fits the range, so
    /// that a drawn scenario is readable.
    const STEPS: &'static [i64];
    /// Whether a TOML number stands for it, or only a string with a unit.
    const BARE: bool;

    /// Reads the text of one value.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    fn parse(text: &str) -> Result<Self, String>;
    /// The value as a number of its smallest unit.
    fn to_ticks(self) -> i64;
    /// The value of so many smallest units. Only called for ticks between those of two values.
    fn from_ticks(ticks: i64) -> Self;
}

/// A range of values, both ends included, or one value where the ends are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    low: T,
    high: T,
}

impl<T: Quantity> Span<T> {
    /// The range from `low` to `high`; `None` if it would run backwards.
    pub fn new(low: T, high: T) -> Option<Self> {
        (low <= high).then_some(Self { low, high })
    }

    /// One value.
    pub fn fixed(value: T) -> Self {
        Self { low: value, high: value }
    }

    /// The smallest value.
    pub fn low(&self) -> T {
        self.low
    }

    /// The largest value.
    pub fn high(&self) -> T {
        self.high
    }

    /// One value out of the range, each step equally likely.
    pub fn pick(&self, prng: &mut Prng) -> T {
        let (low, high) = (self.low.to_ticks(), self.high.to_ticks());
        let step = T::STEPS
            .iter()
            .copied()
            .find(|step| low % step == 0 && high % step == 0 && (high - low) / step >= 10)
            .unwrap_or(1);
        let steps = high.abs_diff(low) / step.unsigned_abs();
        let picked = i64::try_from(prng.between(0, steps)).expect("within the range");
        T::from_ticks(low + picked * step)
    }

    /// Reads `5s` or `1ms..30ms`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((low, high)) = text.split_once("..") else {
            return T::parse(text).map(Self::fixed);
        };
        let (low, high) = (T::parse(low.trim())?, T::parse(high.trim())?);
        Self::new(low, high).ok_or_else(|| format!("the range `{text}` runs backwards"))
    }
}

impl<T: Quantity> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            return write!(f, "{}", self.low);
        }
        write!(f, "{}..{}", self.low, self.high)
    }
}

/// Values that differ from one use to the next: every message, flush or record takes another.
///
/// Unlike a [`Span`] it stays a range in a drawn scenario. Which value is taken when comes out of
/// the streams, whose seed the drawn scenario keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix<T> {
    span: Span<T>,
}

impl<T: Quantity> Mix<T> {
    /// All values of a range, each equally likely.
    pub fn of(span: Span<T>) -> Self {
        Self { span }
    }

    /// Always this value.
    pub fn fixed(value: T) -> Self {
        Self { span: Span::fixed(value) }
    }

    /// A part of a range: one run is fast and even, another slow and uneven.
    pub fn within(span: Span<T>, prng: &mut Prng) -> Self {
        let low = span.pick(prng);
        let high = Span { low, high: span.high }.pick(prng);
        Self { span: Span { low, high } }
    }

    /// The values.
    pub fn span(&self) -> Span<T> {
        self.span
    }

    /// The next value.
    pub fn sample(&self, prng: &mut Prng) -> T {
        let (low, high) = (self.span.low.to_ticks(), self.span.high.to_ticks());
        let above = i64::try_from(prng.between(0, high.abs_diff(low))).unwrap_or(0);
        T::from_ticks(low + above)
    }
}

fn duration_of(ticks: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ticks).expect("a duration is not negative"))
}

const DURATION_STEPS: &[i64] = &[1_000_000, 1_000];

impl Quantity for HumanDuration {
    const EXPECTED: &'static str = "a duration such as \"5s\" or a range \"1ms..30ms\"";
    const STEPS: &'static [i64] = DURATION_STEPS;
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let duration = Self::parse(text).map_err(|error| error.to_string())?;
        match i64::try_from(duration.0.as_nanos()) {
            Ok(_) => Ok(duration),
            Err(_) => Err(format!("`{text}` is too long")),
        }
    }
    fn to_ticks(self) -> i64 {
        i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX)
    }
    fn from_ticks(ticks: i64) -> Self {
        Self(duration_of(ticks))
    }
}

impl Quantity for HumanSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\" or a range \"1KiB..64KiB\"";
    const STEPS: &'static [i64] = &[1 << 20, 1 << 10];
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let size = Self::parse(text).map_err(|error| error.to_string())?;
        match i64::try_from(size.0) {
            Ok(_) => Ok(size),
            Err(_) => Err(format!("`{text}` is too large")),
        }
    }
    fn to_ticks(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
    fn from_ticks(ticks: i64) -> Self {
        Self(u64::try_from(ticks).expect("a size is not negative"))
    }
}

/// A duration forwards or backwards: `-30s`, `250ms`. What a wall clock is wrong by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockShift {
    ns: i64,
}

impl ClockShift {
    /// Nanoseconds, negative for backwards.
    pub fn as_nanos(self) -> i64 {
        self.ns
    }
}

impl fmt::Display for ClockShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.ns < 0 { "-" } else { "" };
        write!(f, "{sign}{}", HumanDuration(Duration::from_nanos(self.ns.unsigned_abs())))
    }
}

impl Quantity for ClockShift {
    const EXPECTED: &'static str = "a duration with a sign such as \"-5s\" or a range \"-5s..5s\"";
    const STEPS: &'static [i64] = DURATION_STEPS;
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let (sign, digits) = match text.trim().strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let ns = <HumanDuration as Quantity>::parse(digits)?.to_ticks();
        // Centuries would overflow when two clocks are compared, and no test needs them.
        if ns > i64::MAX / 4 {
            return Err(format!("`{text}` is too long"));
        }
        Ok(Self { ns: sign * ns })
    }
    fn to_ticks(self) -> i64 {
        self.ns
    }
    fn from_ticks(ticks: i64) -> Self {
        Self { ns: ticks }
    }
}

/// A decimal number as a whole number of `1 / scale`, without rounding.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.trim_end_matches('0');
    let both = [whole, fraction];
    if whole.is_empty() || !both.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let unit = 10u64.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let part = if digits.is_empty() { 0 } else { digits.parse::<u64>().ok()? };
    if !scale.is_multiple_of(unit) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part * (scale / unit))
}

/// Prints what [`decimal`] reads.
fn print_decimal(value: u64, scale: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digits = scale.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / scale, value % scale);
    f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
}

/// A probability, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability {
    ppm: u32,
}

impl Probability {
    /// What never happens.
    pub const NEVER: Self = Self { ppm: 0 };

    /// What always happens.
    pub const CERTAIN: Self = Self { ppm: 1_000_000 };

    /// A probability of so many millionths; `None` above one million.
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (ppm <= 1_000_000).then_some(Self { ppm })
    }

    /// Parts per million, for [`Prng::chance`].
    pub fn ppm(self) -> u32 {
        self.ppm
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_decimal(u64::from(self.ppm), 1_000_000, f)
    }
}

impl Quantity for Probability {
    const EXPECTED: &'static str = "a probability such as 0.05 or a range \"0..0.02\"";
    const STEPS: &'static [i64] = &[10_000, 1_000, 100];
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        decimal(text, 1_000_000)
            .and_then(|ppm| u32::try_from(ppm).ok())
            .and_then(Self::from_ppm)
            .ok_or_else(|| format!("`{text}` is not from 0 to 1 with at most 6 decimals"))
    }
    fn to_ticks(self) -> i64 {
        i64::from(self.ppm)
    }
    fn from_ticks(ticks: i64) -> Self {
        let ppm = u32::try_from(ticks).ok().and_then(Self::from_ppm);
        ppm.expect("between two probabilities")
    }
}

/// How often something happens: `200/s`, `0.5/s`. At most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    per_1000_s: u32,
}

impl Rate {
    /// How often it happens in a thousand seconds.
    pub fn per_1000_s(self) -> u64 {
        u64::from(self.per_1000_s)
    }

    /// The mean time between two, rounded down to nanoseconds.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(1_000_000_000_000 / u64::from(self.per_1000_s))
    }

    /// How often it happens in this time, rounded down.
    pub fn times_in(self, time: Duration) -> u64 {
        let times = u128::from(self.per_1000_s) * time.as_nanos() / 1_000_000_000_000;
        u64::try_from(times).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_decimal(u64::from(self.per_1000_s), 1_000, f)?;
        f.write_str("/s")
    }
}

impl Quantity for Rate {
    const EXPECTED: &'static str = "a rate such as \"200/s\" or a range \"50/s..200/s\"";
    const STEPS: &'static [i64] = &[1_000, 100];
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let number = text
            .strip_suffix("/s")
            .ok_or_else(|| format!("`{text}` needs to end in `/s`, as in \"200/s\""))?;
        decimal(number.trim_end(), 1_000)
            .and_then(|rate| u32::try_from(rate).ok())
            .filter(|rate| *rate > 0)
            .map(|per_1000_s| Self { per_1000_s })
            .ok_or_else(|| format!("`{text}` is not from 0.001/s to 4000000/s"))
    }
    fn to_ticks(self) -> i64 {
        i64::from(self.per_1000_s)
    }
    fn from_ticks(ticks: i64) -> Self {
        Self { per_1000_s: u32::try_from(ticks).expect("between two rates") }
    }
}

/// How much passes in a second: `2Mbit/s`, `512kbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth {
    bits_per_s: u64,
}

/// The units of a bandwidth, largest first. They are decimal, as whoever sells a line counts.
const BANDWIDTH_UNITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

impl Bandwidth {
    /// Bits in a second.
    pub fn bits_per_s(self) -> u64 {
        self.bits_per_s
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = BANDWIDTH_UNITS.iter().find(|(_, unit)| self.bits_per_s.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("bit/s", 1));
        write!(f, "{}{name}", self.bits_per_s / unit)
    }
}

impl Quantity for Bandwidth {
    const EXPECTED: &'static str =
        "a bandwidth such as \"2Mbit/s\" or a range \"1Mbit/s..10Mbit/s\"";
    const STEPS: &'static [i64] = &[1_000_000, 100_000, 1_000];
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let named = BANDWIDTH_UNITS.iter().find_map(|(name, unit)| {
            text.strip_suffix(name).map(|number| (number.trim_end(), *unit))
        });
        let (number, unit) = named
            .ok_or_else(|| format!("`{text}` needs a unit: bit/s, kbit/s, Mbit/s or Gbit/s"))?;
        decimal(number, unit)
            .filter(|bits| (1..=1_000_000_000_000).contains(bits))
            .map(|bits_per_s| Self { bits_per_s })
            .ok_or_else(|| format!("`{text}` is not from 1bit/s to 1000Gbit/s"))
    }
    fn to_ticks(self) -> i64 {
        i64::try_from(self.bits_per_s).expect("within its limits")
    }
    fn from_ticks(ticks: i64) -> Self {
        Self { bits_per_s: u64::try_from(ticks).expect("between two bandwidths") }
    }
}

/// A number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    count: u32,
}

impl Count {
    /// So many.
    pub const fn of(count: u32) -> Self {
        Self { count }
    }

    /// The plain number.
    pub fn get(self) -> u32 {
        self.count
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count.fmt(f)
    }
}

impl Quantity for Count {
    const EXPECTED: &'static str = "a number such as 3 or a range \"1..10\"";
    const STEPS: &'static [i64] = &[];
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self::of).map_err(|_| format!("`{text}` is not a number from 0 up"))
    }
    fn to_ticks(self) -> i64 {
        i64::from(self.count)
    }
    fn from_ticks(ticks: i64) -> Self {
        Self::of(u32::try_from(ticks).expect("between two counts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text<T: Quantity>(text: &str) -> Result<String, String> {
        Span::<T>::parse(text).map(|span| span.to_string())
    }

    #[test]
    fn values_and_ranges_read_and_print() {
        assert_eq!(text::<HumanDuration>("1ms .. 30ms"), Ok("1ms..30ms".to_owned()));
        assert_eq!(text::<HumanDuration>("1.5s"), Ok("1500ms".to_owned()));
        assert_eq!(text::<HumanSize>("1KiB..64KiB"), Ok("1KiB..64KiB".to_owned()));
        assert_eq!(text::<ClockShift>("-5s..5s"), Ok("-5s..5s".to_owned()));
        assert_eq!(text::<Probability>("0..0.02"), Ok("0..0.02".to_owned()));
        assert_eq!(text::<Probability>("1.0"), Ok("1".to_owned()));
        assert_eq!(text::<Rate>("0.5/s..200/s"), Ok("0.5/s..200/s".to_owned()));
        assert_eq!(text::<Count>("1..10"), Ok("1..10".to_owned()));
        assert_eq!(text::<Bandwidth>("1.5Mbit/s"), Ok("1500kbit/s".to_owned()));
        assert_eq!(text::<Bandwidth>("9600bit/s..2Gbit/s"), Ok("9600bit/s..2Gbit/s".to_owned()));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert!(text::<HumanDuration>("30ms..1ms").is_err_and(|e| e.contains("backwards")));
        assert!(text::<HumanDuration>("1..30ms").is_err_and(|e| e.contains("needs a unit")));
        assert!(text::<HumanDuration>("500000000h").is_err());
        assert!(text::<Probability>("1.1").is_err());
        assert!(text::<Probability>("0.0000001").is_err());
        assert!(text::<Probability>(".5").is_err());
        assert!(text::<Rate>("0/s").is_err());
        assert!(text::<Rate>("200").is_err_and(|e| e.contains("/s")));
        assert!(text::<Count>("-1").is_err());
        assert!(text::<Bandwidth>("2").is_err_and(|e| e.contains("needs a unit")));
        assert!(text::<Bandwidth>("0Mbit/s").is_err());
        assert!(text::<Bandwidth>("0.0001kbit/s").is_err());
        assert!(text::<Count>("99999999999").is_err());
    }

    #[test]
    fn a_rate_gives_times_and_intervals() {
        let rate = <Rate as Quantity>::parse("200/s").expect("a rate");
        assert_eq!(rate.interval(), Duration::from_millis(5));
        assert_eq!(rate.times_in(Duration::from_secs(60)), 12_000);
    }

    fn stays<T: Quantity>(low: i64, high: i64, seed: u64) {
        let span = Span::new(T::from_ticks(low), T::from_ticks(high)).expect("forwards");
        let picked = span.pick(&mut Prng::new(seed, "test"));
        assert!(span.low() <= picked && picked <= span.high());
        assert_eq!(T::parse(&picked.to_string()), Ok(picked));
        assert_eq!(Span::<T>::parse(&span.to_string()), Ok(span));
    }

    proptest! {
        #[test]
        fn what_is_drawn_lies_in_the_range_and_reads_back(
            low in 0..1_000_000i64, width in 0..1_000_000i64, seed: u64,
        ) {
            let high = low + width;
            stays::<HumanDuration>(low * 1_000, high * 1_000, seed);
            stays::<HumanDuration>(low, high, seed);
            stays::<HumanSize>(low, high, seed);
            stays::<ClockShift>(low - 500_000, high - 500_000, seed);
            stays::<Probability>(low / 2, high / 2, seed);
            stays::<Rate>(low + 1, high + 1, seed);
            stays::<Count>(low, high, seed);
            stays::<Bandwidth>(low + 1, high * 1_000 + 1, seed);
        }
    }
}
