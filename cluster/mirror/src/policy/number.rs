//! Numbers of JSON, rounded as they are written: in decimal, whatever their size.
//!
//! Invariant: the same text gives the same text on every machine; no floating point is involved.

/// How far an exponent may reach. What goes beyond is no measurement of anything.
const EXPONENT_MAX: i32 = 64;

/// Digits of a number, at most.
const DIGITS_MAX: usize = 1_000;

/// A number of JSON to so many digits behind the point, or before it if that is negative; halves go away
/// from zero. `None` if it is too large for that.
pub(super) fn rounded(text: &str, digits: i8) -> Option<String> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut all: Vec<u8> = whole.bytes().chain(behind.bytes()).map(|digit| digit - b'0').collect();
    let is_small = (-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent);
    if !is_small || all.len() > DIGITS_MAX {
        return None;
    }
    // `all` stands for a whole number times ten to the power of -scale.
    let mut scale = i32::try_from(behind.len()).ok()? - exponent;
    while scale < 0 {
        all.push(0);
        scale += 1;
    }
    let cut = usize::try_from(scale - i32::from(digits)).unwrap_or(0);
    if cut > 0 {
        scale -= i32::try_from(cut).ok()?;
        let goes_up = cut <= all.len() && all[all.len() - cut] >= 5;
        all.truncate(all.len().saturating_sub(cut));
        if goes_up {
            increment(&mut all);
        }
    }
    Some(written(is_negative, all, scale))
}

fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < 9 {
            *digit += 1;
            return;
        }
        *digit = 0;
    }
    digits.insert(0, 1);
}

/// The digits times ten to the power of -scale.
fn written(is_negative: bool, mut digits: Vec<u8>, mut scale: i32) -> String {
    while scale < 0 {
        digits.push(0);
        scale += 1;
    }
    let behind = usize::try_from(scale).unwrap_or(0);
    while digits.len() <= behind {
        digits.insert(0, 0);
    }
    let leading = digits.iter().take(digits.len() - behind - 1).take_while(|digit| **digit == 0);
    let leading = leading.count();
    digits.drain(..leading);
    let is_zero = digits.iter().all(|digit| *digit == 0);
    let mut text = String::new();
    if is_negative && !is_zero {
        text.push('-');
    }
    let point = digits.len() - behind;
    for (at, digit) in digits.iter().enumerate() {
        if at == point {
            text.push('.');
        }
        text.push(char::from(b'0' + digit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_rounded_in_decimal() {
        for (text, digits, expected) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("52.520008", 1, "52.5"),
            ("9.99", 1, "10.0"),
            ("3", 2, "3"),
            ("2.10", 2, "2.10"),
            ("1234", -2, "1200"),
            ("1250", -2, "1300"),
            ("49", -2, "0"),
            ("50", -2, "100"),
            ("4", -2, "0"),
            ("-0.004", 2, "0.00"),
            ("1.5e3", -3, "2000"),
            ("15e-1", 0, "2"),
            ("1E+2", 0, "100"),
            ("12345678901234567890.5", 0, "12345678901234567891"),
            ("0.00001", 3, "0.000"),
        ] {
            assert_eq!(rounded(text, digits).as_deref(), Some(expected), "{text} to {digits}");
        }
        for text in ["1e65", "1e-65", "1e-2147483648", "1e2147483647"] {
            assert_eq!(rounded(text, 0), None, "{text}");
        }
        assert_eq!(rounded("1e99999999999", 0), None);
    }

    proptest! {
        #[test]
        fn a_rounded_number_is_near_and_is_json(
            text in "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,8})?([eE][+-]?[0-9])?", digits in -9i8..9
        ) {
            let number: f64 = text.parse().expect("it is a number");
            let written = rounded(&text, digits).expect("it is small");
            serde_json::from_str::<serde_json::Value>(&written).expect("it is JSON");
            let after: f64 = written.parse().expect("it is a number");
            let step = 10f64.powi(-i32::from(digits));
            // What is exact here is not in floating point.
            let slack = step * 1e-6 + number.abs() * 1e-12;
            prop_assert!((after - number).abs() <= step * 0.5 + slack, "{text} -> {written}");
        }
    }
}
