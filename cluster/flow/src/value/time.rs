//! Points in time: milliseconds since 1970, in UTC, as people write them.
//!
//! Invariant: the years are 1 to 9999, so that every point has one form with four digits.

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// The first millisecond of the year 1.
pub const MIN_MS: i64 = -62_135_596_800_000;

/// The last millisecond of the year 9999.
pub const MAX_MS: i64 = 253_402_300_799_999;

/// A point in time by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// 1 to 9999.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// Within the day.
    pub ms: i64,
}

/// Days since 1970 of a date, by the algorithm of the Gregorian calendar with years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Takes a point in time apart.
pub fn civil(ms: i64) -> Civil {
    let shifted = ms.div_euclid(DAY_MS) + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = years + era * 400 + i64::from(month <= 2);
    Civil { year, month, day, ms: ms.rem_euclid(DAY_MS) }
}

/// A point in time out of its parts. `None` if there is no such date.
pub fn point(civil: Civil) -> Option<i64> {
    let Civil { year, month, day, ms } = civil;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_date = (1..=9999).contains(&year) && (1..=12).contains(&month);
    let is_day = (1..=last).contains(&day) && (0..DAY_MS).contains(&ms);
    (is_date && is_day).then(|| days(year, month, day) * DAY_MS + ms)
}

/// 1 for Monday to 7 for Sunday.
pub fn day_of_week(ms: i64) -> i64 {
    // The first day of 1970 was a Thursday.
    (ms.div_euclid(DAY_MS) + 3).rem_euclid(7) + 1
}

/// 1 for the first day of the year.
pub fn day_of_year(ms: i64) -> i64 {
    let civil = civil(ms);
    days(civil.year, civil.month, civil.day) - days(civil.year, 1, 1) + 1
}

/// Whether it can be written.
pub fn in_range(ms: i64) -> Option<i64> {
    (MIN_MS..=MAX_MS).contains(&ms).then_some(ms)
}

/// As `2026-01-31T12:00:00.000Z`.
pub fn format(ms: i64) -> String {
    let Civil { year, month, day, ms } = civil(ms);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let fraction = ms % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// A number of so many digits at the start of a text, and the rest.
fn digits(text: &str, count: usize) -> Option<(i64, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_number)?, rest))
}

/// Reads `2026-01-31T12:00:00.000Z`, with a space in place of the `T`, with fewer or more digits of a
/// second (beyond milliseconds they are cut off), an offset like `+02:00`, or none of them; a date
/// alone is its first moment.
pub fn parse(text: &str) -> Option<i64> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    if rest.is_empty() {
        return point(Civil { year, month, day, ms: 0 });
    }
    let (hour, rest) = digits(rest.strip_prefix(['T', ' '])?, 2)?;
    let (minute, mut rest) = digits(rest.strip_prefix(':')?, 2)?;
    let mut second = 0;
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix(':') {
        (second, rest) = digits(after, 2)?;
        if let Some(after) = rest.strip_prefix(['.', ',']) {
            let count = after.bytes().take_while(u8::is_ascii_digit).count();
            let padded: String = after[..count].chars().chain("000".chars()).take(3).collect();
            fraction = padded.parse().ok().filter(|_| count > 0)?;
            rest = &after[count..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let ms = ((hour * 60 + minute) * 60 + second) * 1_000 + fraction;
    let local = point(Civil { year, month, day, ms })?;
    in_range(local - offset_ms(rest)?)
}

/// How far a clock is ahead of UTC.
fn offset_ms(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1) {
        None => return Some(0),
        Some(("Z" | "z", "")) => return Some(0),
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':').unwrap_or(rest), 2)?;
    let is_offset = hours <= 18 && minutes <= 59 && rest.is_empty();
    is_offset.then_some(sign * (hours * 60 + minutes) * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn points_in_time_are_read_and_written() {
        let read = |text: &str| parse(text).map(format);
        let written = Some("2024-02-29T10:00:00.250Z".to_owned());
        for text in [
            "2024-02-29T10:00:00.25Z",
            "2024-02-29 10:00:00.2509",
            "2024-02-29T12:00:00.250+02:00",
            "2024-02-29T04:30:00.250-0530",
        ] {
            assert_eq!(read(text), written, "{text}");
        }
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("1970-01-01T00:01"), Some(60_000));
        assert_eq!(read("0001-01-01"), Some(format(MIN_MS)));
        assert_eq!(read("9999-12-31T23:59:59.999Z"), Some(format(MAX_MS)));
        for text in [
            "",
            "2024",
            "2023-02-29",
            "2024-13-01",
            "2024-02-29T",
            "2024-02-29T24:00:00Z",
            "2024-02-29T10:00:00.Z",
            "2024-02-29T10:00:00x",
            "24-02-29",
            "2024-02-29T10:00:00+9",
            "+024-02-29",
            "0001-01-01T00:00:00+01:00",
            "２０２４-02-29",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(day_of_week(0), 4);
        assert_eq!(day_of_year(parse("2024-12-31").expect("a date")), 366);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in MIN_MS..=MAX_MS) {
            prop_assert_eq!(parse(&format(ms)), Some(ms));
            prop_assert_eq!(point(civil(ms)), Some(ms));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
