//! What the functions do.
//!
//! Unless said otherwise a function of NULL is NULL. Positions in texts count characters, from 1.

use super::{Failure, compare, double, eval, meeting};
use crate::pattern::Pattern;
use crate::plan::expr::Expr;
use crate::plan::functions::Function;
use crate::value::Value;
use crate::value::decimal::Decimal;
use crate::value::format::{self, Piece, replacement};
use crate::value::json::{Json, Path};
use crate::value::time::{self, Civil};
use std::sync::Arc;

/// The longest text that a function may make, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Calls a function for a row.
pub fn call(
    function: Function,
    arguments: &[Expr],
    pattern: Option<&Pattern>,
    (expr, row): (&Expr, &[Value]),
) -> Result<Value, Failure> {
    // This one does not look further than it must.
    if function == Function::Coalesce {
        for argument in arguments {
            let value = eval(argument, row)?;
            if !value.is_null() {
                return Ok(value);
            }
        }
        return Ok(Value::Null);
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(eval(argument, row)?);
    }
    if function == Function::NullIf {
        let met = meeting(&values[0], &arguments[0], &arguments[1])?;
        let same = compare(&met, &values[1]).is_some_and(|order| order.is_eq());
        return Ok(if same { Value::Null } else { values.swap_remove(0) });
    }
    if values.iter().any(Value::is_null) {
        return Ok(Value::Null);
    }
    if text_len(function, &values) > Some(TEXT_BYTES_MAX) {
        return Err(too_long(expr));
    }
    let value = match (function, pattern) {
        (
            Function::RegexpReplace | Function::RegexpExtract | Function::RegexpLike,
            Some(pattern),
        ) => pattern_function(function, pattern, &values, expr)?,
        (
            Function::Abs
            | Function::Sign
            | Function::Floor
            | Function::Ceil
            | Function::Round
            | Function::Truncate
            | Function::Sqrt,
            _,
        ) => number_function(function, &values, expr)?,
        (
            Function::DateTrunc
            | Function::Extract
            | Function::DateFormat
            | Function::EpochMs
            | Function::FromEpochMs,
            _,
        ) => time_function(function, &values, expr)?,
        (Function::JsonValue | Function::JsonQuery | Function::JsonExists, _) => {
            json_function(function, &values)
        }
        (Function::Greatest, _) => values.iter().max().cloned(),
        (Function::Least, _) => values.iter().min().cloned(),
        _ => text_function(function, &values),
    };
    // The planner has seen to it that every argument has its type.
    let value = value.ok_or_else(|| Failure::new(expr.at, "an argument has another type"))?;
    match &value {
        Value::Varchar(text) if text.len() > TEXT_BYTES_MAX => Err(too_long(expr)),
        _ => Ok(value),
    }
}

fn too_long(expr: &Expr) -> Failure {
    Failure::new(expr.at, "the text is longer than 1 MiB")
}

fn text(values: &[Value], at: usize) -> Option<&str> {
    match values.get(at) {
        Some(Value::Varchar(text)) => Some(text),
        _ => None,
    }
}

fn whole(values: &[Value], at: usize) -> Option<i64> {
    match values.get(at) {
        Some(Value::Bigint(number)) => Some(*number),
        _ => None,
    }
}

/// A count of characters; what is below zero is none.
fn count(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

fn text_function(function: Function, values: &[Value]) -> Option<Value> {
    let first = || text(values, 0);
    Some(match function {
        Function::Upper => Value::text(first()?.to_uppercase()),
        Function::Lower => Value::text(first()?.to_lowercase()),
        Function::Trim => Value::text(first()?.trim_matches(' ')),
        Function::TrimStart => Value::text(first()?.trim_start_matches(' ')),
        Function::TrimEnd => Value::text(first()?.trim_end_matches(' ')),
        Function::CharLength => Value::Bigint(first()?.chars().count() as i64),
        Function::Substring => substring(first()?, whole(values, 1)?, whole(values, 2)),
        Function::Concat => Value::text(values.iter().map(ToString::to_string).collect::<String>()),
        Function::Replace => replace(first()?, text(values, 1)?, text(values, 2)?),
        Function::Position => {
            let (part, of) = (first()?, text(values, 1)?);
            let at = of.find(part).map_or(0, |at| of[..at].chars().count() + 1);
            Value::Bigint(at as i64)
        }
        Function::Left => {
            Value::text(first()?.chars().take(count(whole(values, 1)?)).collect::<String>())
        }
        Function::Right => {
            let skip = first()?.chars().count().saturating_sub(count(whole(values, 1)?));
            Value::text(first()?.chars().skip(skip).collect::<String>())
        }
        Function::SplitIndex => {
            let (separator, at) = (text(values, 1)?, whole(values, 2)?);
            let part = usize::try_from(at).ok().and_then(|at| first()?.split(separator).nth(at));
            part.map_or(Value::Null, Value::text)
        }
        Function::StartsWith => Value::Boolean(first()?.starts_with(text(values, 1)?)),
        Function::Mask => mask(first()?, values.get(1).map_or(Some(0), |_| whole(values, 1))?),
        Function::KeyedHash => keyed_hash(&values[0], text(values, 1)?),
        _ => return None,
    })
}

/// As in standard SQL: a start before the text takes away from the length.
fn substring(of: &str, from: i64, length: Option<i64>) -> Value {
    let end = length.map_or(i64::MAX, |length| from.saturating_add(length.max(0)));
    let start = from.max(1);
    let taken = count(end.saturating_sub(start));
    Value::text(of.chars().skip(count(start - 1)).take(taken).collect::<String>())
}

/// The bytes of a text that may be longer than those that it is made of. Known before it is made, so that a short
/// record cannot fill the memory.
fn text_len(function: Function, values: &[Value]) -> Option<usize> {
    match function {
        Function::Replace => {
            let (of, part, by) = (text(values, 0)?, text(values, 1)?, text(values, 2)?);
            let found = if part.is_empty() { 0 } else { of.matches(part).count() };
            Some(of.len() - found * part.len() + found.saturating_mul(by.len()))
        }
        // Numbers and times are short; a JSON is no longer than what it was read from.
        Function::Concat => values
            .iter()
            .try_fold(0usize, |len, value| {
                let more = match value {
                    Value::Varchar(text) => text.len(),
                    _ => value.to_string().len(),
                };
                let len = len.saturating_add(more);
                // Enough to know.
                if len > TEXT_BYTES_MAX { None } else { Some(len) }
            })
            .or(Some(usize::MAX)),
        _ => None,
    }
}

fn replace(of: &str, part: &str, by: &str) -> Value {
    if part.is_empty() { Value::text(of) } else { Value::text(of.replace(part, by)) }
}

/// Letters and digits become `*`, apart from the last few characters; so do the marks that belong to letters
/// and say how they are spoken, and everything else that is no space and no ASCII.
fn mask(of: &str, keeps: i64) -> Value {
    let masked = of.chars().count().saturating_sub(count(keeps));
    let hides = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    let mask = |(at, c): (usize, char)| if at < masked && hides(c) { '*' } else { c };
    Value::text(of.chars().enumerate().map(mask).collect::<String>())
}

/// 128 bits of BLAKE3, keyed, of the value as text.
fn keyed_hash(value: &Value, key: &str) -> Value {
    let key = blake3::derive_key("fulmar 2026 KEYED_HASH of a pipeline", key.as_bytes());
    let hash = blake3::keyed_hash(&key, value.to_string().as_bytes());
    Value::text(&hash.to_hex()[..32])
}

fn pattern_function(
    function: Function,
    pattern: &Pattern,
    values: &[Value],
    expr: &Expr,
) -> Result<Option<Value>, Failure> {
    let Some(of) = text(values, 0) else { return Ok(None) };
    let groups = pattern.groups();
    let slow = |reason: String| Failure::new(expr.at, reason);
    Ok(match function {
        Function::RegexpLike => Some(Value::Boolean(pattern.is_in(of).map_err(slow)?)),
        Function::RegexpExtract => {
            let group = values.get(1).map_or(Some(0), |_| whole(values, 1));
            let group = group.and_then(|group| usize::try_from(group).ok());
            let group = group.filter(|group| *group < groups).ok_or_else(|| {
                Failure::new(expr.at, format!("the pattern has no such group, but {}", groups - 1))
            })?;
            let found = pattern.find(of).map_err(slow)?;
            let found = found.and_then(|found| found.get(group));
            Some(found.map_or(Value::Null, |found| Value::text(found.as_str())))
        }
        _ => {
            let Some(by) = text(values, 1) else { return Ok(None) };
            let by = replacement(by, groups).map_err(|why| Failure::new(expr.at, why))?;
            let replaced = replaced(pattern, of, &by).map_err(slow)?;
            Some(Value::text(replaced.ok_or_else(|| too_long(expr))?))
        }
    })
}

/// A text with all that a pattern finds replaced. `None` if it is too long, before it is in memory.
fn replaced(pattern: &Pattern, of: &str, by: &[Piece<'_>]) -> Result<Option<String>, String> {
    let (mut out, mut last) = (String::new(), 0);
    let mut put = |piece: &str| {
        let fits = out.len() + piece.len() <= TEXT_BYTES_MAX;
        if fits {
            out.push_str(piece);
        }
        fits
    };
    let mut fits = true;
    pattern.each(of, |found| {
        let Some(whole) = found.get(0) else { return false };
        fits &= put(&of[last..whole.start()]);
        for piece in by {
            fits &= match piece {
                Piece::Text(text) => put(text),
                Piece::Group(group) => put(found.get(*group).map_or("", |group| group.as_str())),
            };
        }
        last = whole.end();
        fits
    })?;
    fits &= put(&of[last..]);
    Ok(fits.then_some(out))
}

fn number_function(
    function: Function,
    values: &[Value],
    expr: &Expr,
) -> Result<Option<Value>, Failure> {
    let digits = whole(values, 1).unwrap_or(0).clamp(0, 38) as u8;
    let overflow = || Failure::new(expr.at, format!("{} overflows", expr.of));
    Ok(Some(match (&values[0], function) {
        (Value::Bigint(number), Function::Abs) => {
            Value::Bigint(number.checked_abs().ok_or_else(overflow)?)
        }
        (Value::Bigint(number), Function::Sign) => Value::Bigint(number.signum()),
        (Value::Bigint(number), _) => Value::Bigint(*number),
        (Value::Decimal(number), Function::Abs) => {
            Value::Decimal(Decimal { mantissa: number.mantissa.abs(), ..*number })
        }
        (Value::Decimal(number), Function::Sign) => Value::Bigint(number.mantissa.signum() as i64),
        (Value::Decimal(number), Function::Floor) => Value::Decimal(number.floor()),
        (Value::Decimal(number), Function::Ceil) => {
            Value::Decimal(number.negate().floor().negate())
        }
        (Value::Decimal(number), Function::Truncate) => Value::Decimal(number.truncate(digits)),
        (Value::Decimal(number), _) if digits >= number.scale => Value::Decimal(*number),
        (Value::Decimal(number), _) => Value::Decimal(number.rescale(digits).ok_or_else(overflow)?),
        (Value::Double(number), function) => {
            let number = number.get();
            match function {
                Function::Abs => double(number.abs(), expr.at)?,
                Function::Sign => Value::Bigint(i64::from(number > 0.0) - i64::from(number < 0.0)),
                Function::Floor => double(number.floor(), expr.at)?,
                Function::Ceil => double(number.ceil(), expr.at)?,
                Function::Sqrt if number < 0.0 => {
                    return Err(Failure::new(expr.at, "the square root of a negative number"));
                }
                Function::Sqrt => double(number.sqrt(), expr.at)?,
                function => rounded(function, number, digits, expr)?,
            }
        }
        _ => return Ok(None),
    }))
}

/// A double rounded by the digits that it is written with.
fn rounded(function: Function, number: f64, digits: u8, expr: &Expr) -> Result<Value, Failure> {
    let written = number.to_string();
    let Some(exact) = Decimal::parse(&written) else {
        // A large one has no digits behind the point. A small one has more than 38, and those behind the last
        // that is kept decide how it is rounded, or are left out.
        if number.abs() >= 1.0 {
            return double(number, expr.at);
        }
        let kept = match (function, written.find('.')) {
            (Function::Truncate, Some(point)) => written.get(..=point + usize::from(digits)),
            _ => None,
        };
        let exact = Decimal::rounded(kept.unwrap_or(&written), digits);
        return double(exact.map_or(number, Decimal::to_double), expr.at);
    };
    if digits >= exact.scale {
        return double(number, expr.at);
    }
    let exact = match function {
        Function::Truncate => Some(exact.truncate(digits)),
        _ => exact.rescale(digits),
    };
    double(exact.map_or(number, Decimal::to_double), expr.at)
}

fn time_function(
    function: Function,
    values: &[Value],
    expr: &Expr,
) -> Result<Option<Value>, Failure> {
    Ok(Some(match (function, values) {
        (Function::EpochMs, [Value::Timestamp(ms)]) => Value::Bigint(*ms),
        (Function::FromEpochMs, [Value::Bigint(ms)]) => {
            let ms = time::in_range(*ms);
            Value::Timestamp(ms.ok_or_else(|| {
                Failure::new(expr.at, "the time is outside of the years 1 to 9999")
            })?)
        }
        (Function::DateTrunc, [Value::Varchar(unit), Value::Timestamp(ms)]) => {
            Value::Timestamp(truncated(unit, *ms))
        }
        (Function::Extract, [Value::Varchar(unit), Value::Timestamp(ms)]) => {
            Value::Bigint(extracted(unit, *ms))
        }
        (Function::DateFormat, [Value::Timestamp(ms), Value::Varchar(pattern)]) => {
            let text = format::formatted(pattern, *ms);
            Value::text(text.map_err(|why| Failure::new(expr.at, why))?)
        }
        _ => return Ok(None),
    }))
}

fn truncated(unit: &str, ms: i64) -> i64 {
    let civil = time::civil(ms);
    let down = |of: i64| ms - ms.rem_euclid(of);
    match unit {
        "SECOND" => down(1_000),
        "MINUTE" => down(60_000),
        "HOUR" => down(3_600_000),
        "MONTH" => time::point(Civil { day: 1, ms: 0, ..civil }).unwrap_or(ms),
        "YEAR" => time::point(Civil { month: 1, day: 1, ms: 0, ..civil }).unwrap_or(ms),
        "DAY" => down(time::DAY_MS),
        _ => ms,
    }
}

fn extracted(unit: &str, ms: i64) -> i64 {
    let civil = time::civil(ms);
    match unit {
        "YEAR" => civil.year,
        "MONTH" => civil.month,
        "DAY" => civil.day,
        "HOUR" => civil.ms / 3_600_000,
        "MINUTE" => civil.ms / 60_000 % 60,
        "SECOND" => civil.ms / 1_000 % 60,
        "DOW" => time::day_of_week(ms),
        "DOY" => time::day_of_year(ms),
        _ => civil.ms % 1_000,
    }
}

fn json_function(function: Function, values: &[Value]) -> Option<Value> {
    let (Value::Json(json), path) = (values.first()?, text(values, 1)?) else { return None };
    let found = json.at(&Path::parse(path)?);
    Some(match function {
        Function::JsonExists => Value::Boolean(found.is_some()),
        Function::JsonQuery => {
            found.map_or(Value::Null, |json| Value::Json(Arc::new(json.clone())))
        }
        // A single value as text; what is no single value has none.
        _ => match found {
            Some(Json::String(text)) => Value::text(&**text),
            Some(Json::Number(digits)) => Value::text(&**digits),
            Some(Json::Bool(value)) => Value::text(value.to_string()),
            _ => Value::Null,
        },
    })
}
