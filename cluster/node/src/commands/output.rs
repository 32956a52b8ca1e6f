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

#[cfg(test)]
mod tests {
    use super::*;

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
