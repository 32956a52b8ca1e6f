//! From one type to another.

use crate::value::decimal::Decimal;
use crate::value::double::Double;
use crate::value::json::Json;
use crate::value::{Type, Value, time};
use std::sync::Arc;

/// `CAST`, or why it cannot be done.
pub fn cast(value: Value, of: Type) -> Result<Value, String> {
    let shown = |value: &Value| match value {
        Value::Varchar(text) => format!("`{}`", shorten(text)),
        other => other.to_string(),
    };
    let refuse = |value: &Value| format!("{} is no {of}", shown(value));
    let done = match (&value, of) {
        (Value::Null, _) => Some(Value::Null),
        (Value::Boolean(_), Type::Boolean)
        | (Value::Bigint(_), Type::Bigint)
        | (Value::Double(_), Type::Double)
        | (Value::Varchar(_), Type::Varchar)
        | (Value::Timestamp(_), Type::Timestamp)
        | (Value::Json(_), Type::Json) => return Ok(value),
        (_, Type::Varchar) => Some(Value::text(value.to_string())),
        (Value::Varchar(text), _) => parse(text.trim(), of)?,
        (Value::Bigint(number), Type::Decimal(..)) => decimal(Decimal::whole(*number), of),
        (Value::Bigint(number), Type::Double) => Double::new(*number as f64).map(Value::Double),
        (Value::Decimal(number), Type::Decimal(..)) => decimal(*number, of),
        (Value::Decimal(number), Type::Bigint) => whole(*number),
        (Value::Decimal(number), Type::Double) => {
            Double::new(number.to_double()).map(Value::Double)
        }
        (Value::Double(number), Type::Decimal(_, scale)) => {
            Decimal::from_double(number.get(), scale).and_then(|number| decimal(number, of))
        }
        (Value::Double(number), Type::Bigint) => {
            Decimal::from_double(number.get(), 0).and_then(whole)
        }
        _ => None,
    };
    done.ok_or_else(|| refuse(&value))
}

/// The first characters of a text, for messages. What a terminal would take as a command is escaped.
pub fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut chars = text.chars();
    let mut out = String::new();
    for c in chars.by_ref().take(CHARS_MAX) {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out + if chars.next().is_some() { "..." } else { "" }
}

fn decimal(number: Decimal, of: Type) -> Option<Value> {
    let (precision, scale) = of.digits()?;
    number.rescale(scale).filter(|number| number.fits(precision)).map(Value::Decimal)
}

fn whole(number: Decimal) -> Option<Value> {
    i64::try_from(number.rescale(0)?.mantissa).ok().map(Value::Bigint)
}

/// A text as a value.
fn parse(text: &str, of: Type) -> Result<Option<Value>, String> {
    Ok(match of {
        Type::Boolean if text.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
        Type::Boolean if text.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
        Type::Bigint => text.parse().ok().map(Value::Bigint),
        Type::Decimal(_, scale) => {
            Decimal::rounded(text, scale).and_then(|number| decimal(number, of))
        }
        // `inf` and `nan` are read by Rust, and are not finite.
        Type::Double => text.parse().ok().and_then(Double::new).map(Value::Double),
        Type::Timestamp => time::parse(text).map(Value::Timestamp),
        Type::Json => {
            let json = Json::parse(text).map_err(|error| {
                format!("no JSON: expected {} at byte {}", error.expected, error.at)
            })?;
            Some(Value::Json(Arc::new(json)))
        }
        _ => None,
    })
}

/// A member of a payload as the value of a column, or why it is none.
///
/// Only what JSON itself says counts: a number in quotes is a text. Digits that a DECIMAL has no room for
/// behind the point are rounded.
pub fn from_json(json: &Json, of: Type) -> Result<Value, String> {
    let value = match (json, of) {
        (Json::Null, _) => Some(Value::Null),
        (json, Type::Json) => Some(Value::Json(Arc::new(json.clone()))),
        (Json::Bool(value), Type::Boolean) => Some(Value::Boolean(*value)),
        (Json::String(text), Type::Varchar) => Some(Value::text(&**text)),
        (Json::String(text), Type::Timestamp) => time::parse(text).map(Value::Timestamp),
        (Json::Number(digits), Type::Timestamp) => {
            whole_number(digits).and_then(time::in_range).map(Value::Timestamp)
        }
        (Json::Number(digits), Type::Double) => {
            digits.parse().ok().and_then(Double::new).map(Value::Double)
        }
        (Json::Number(digits), Type::Decimal(_, scale)) => {
            Decimal::rounded(digits, scale).and_then(|number| decimal(number, of))
        }
        (Json::Number(digits), Type::Bigint) => whole_number(digits).map(Value::Bigint),
        _ => None,
    };
    value.ok_or_else(|| format!("{} is no {of}", shorten(&json.text())))
}

/// A whole number: `3.0` and `1e3` are some, `3.5` is none.
fn whole_number(digits: &str) -> Option<i64> {
    digits.parse().ok().or_else(|| {
        let number = Decimal::parse(digits)?;
        let is_whole = number.truncate(0).compare(number).is_eq();
        i64::try_from(number.rescale(0).filter(|_| is_whole)?.mantissa).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However many digits it has.
        #[test]
        fn a_number_of_a_payload_is_what_its_text_is_cast_to(
            digits in "-?(0|[1-9][0-9]{0,39})([.][0-9]{1,40})?(0{0,40}|[.]0{1,40})(e-?[0-9]{1,2})?",
            (precision, scale) in (1u8..=38).prop_flat_map(|precision| (Just(precision), 0..=precision)),
        ) {
            let Ok(Json::Number(number)) = Json::parse(&digits) else { return Ok(()) };
            let of = Type::Decimal(precision, scale);
            let cast = cast(Value::text(&*number), of).ok();
            prop_assert_eq!(from_json(&Json::Number(number), of).ok(), cast);
        }
    }

    #[test]
    fn digits_that_say_nothing_change_nothing() {
        let read = |digits: &str| from_json(&Json::Number(digits.into()), Type::Decimal(38, 10));
        let short = read("12345678901234567890.1234567890");
        assert_eq!(
            short.as_ref().map(ToString::to_string),
            Ok("12345678901234567890.1234567890".to_owned())
        );
        assert_eq!(read("12345678901234567890.123456789000000000000000000000"), short);
        assert_eq!(read(&format!("12345678901234567890.12345678904{}", "9".repeat(60))), short);
    }
}
