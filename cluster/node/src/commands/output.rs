//! Words and numbers for people.
//!
//! Invariant: writing never panics. Whoever reads our output may stop reading.

use fulmar_host::time::Duration;
use std::fmt::Display;
use std::io::Write;

/// Prints a line of data.
pub fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Prints a message about trouble.
pub fn complain(message: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "fulmar: {message}");
}

/// Prints what somebody should look at though nothing went wrong.
pub fn remark(message: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "note: {message}");
}

/// A text that somebody else has written. What a terminal would take as a command is escaped.
pub fn escaped(text: &str) -> String {
    let plain = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(plain).collect()
}

/// Prints progress.
pub fn note(what: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "          {what}");
}

/// A number with a comma after every third digit.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds with one decimal, or two below ten seconds.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.1} s") }
}

/// `one record`, `2 records`.
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{} {noun}s", grouped(number)),
    }
}

/// A time in ms since 1970 as a date and a time of day (UTC), to the second.
pub fn utc(ms: u64) -> String {
    moment(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// The same of a time that may be before 1970.
pub fn moment(ms: i64) -> String {
    let (days, second) = (ms.div_euclid(86_400_000), ms.div_euclid(1_000).rem_euclid(86_400));
    // Counted in years that begin in March, of which the last month is the one with a leap day, and in
    // cycles of 400 of them, which all have the same days.
    let day = days + 719_468;
    let (cycle, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + 400 * cycle + next_year;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        let shown = [0, 951_826_499_000, 951_868_800_000, 1_767_225_600_000, 4_107_542_399_999];
        let expected = [
            "1970-01-01 00:00:00Z",
            "2000-02-29 12:14:59Z",
            "2000-03-01 00:00:00Z",
            "2026-01-01 00:00:00Z",
            "2100-02-28 23:59:59Z",
        ];
        assert_eq!(shown.map(utc), expected);
        assert_eq!(moment(-1), "1969-12-31 23:59:59Z");
        assert_eq!(moment(-62_135_596_800_000), "1-01-01 00:00:00Z");
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 999, 1_000, 65_536, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "65,536", "1,234,567"]);
        assert_eq!(count(1, "record"), "1 record");
        assert_eq!(count(2_000, "record"), "2,000 records");
        assert_eq!(seconds(Duration::from_millis(9_876)), "9.88 s");
        assert_eq!(seconds(Duration::from_millis(12_345)), "12.3 s");
    }
}
