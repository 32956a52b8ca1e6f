//! What is written in an expression as it stands: types, intervals, numbers and other values, and where they
//! begin.

use super::expr::Expr;
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::decimal::{Decimal, PRECISION_MAX};
use crate::value::double::Double;
use crate::value::{Type, Value, time};
use sqlparser::ast::{
    CastKind, DataType, DateTimeField, ExactNumberInfo, Expr as Parsed, Spanned, TimezoneInfo,
    Value as Written,
};

/// Where a part of a query begins.
pub fn place(parsed: &impl Spanned) -> Position {
    position(parsed.span().start)
}

/// Where an expression begins: where its leftmost part does. A chain of operators is as deep as it is long,
/// so it is walked down and not recursed into.
pub fn begin(parsed: &Parsed) -> Position {
    let mut leftmost = parsed;
    loop {
        leftmost = match leftmost {
            Parsed::BinaryOp { left, .. }
            | Parsed::AnyOp { left, .. }
            | Parsed::AllOp { left, .. }
            | Parsed::IsDistinctFrom(left, _)
            | Parsed::IsNotDistinctFrom(left, _) => left,
            Parsed::IsFalse(expr)
            | Parsed::IsNotFalse(expr)
            | Parsed::IsTrue(expr)
            | Parsed::IsNotTrue(expr)
            | Parsed::IsNull(expr)
            | Parsed::IsNotNull(expr)
            | Parsed::IsUnknown(expr)
            | Parsed::IsNotUnknown(expr)
            | Parsed::IsJson { expr, .. }
            | Parsed::IsNormalized { expr, .. }
            | Parsed::In { expr, .. }
            | Parsed::Between { expr, .. }
            | Parsed::Like { expr, .. }
            | Parsed::ILike { expr, .. }
            | Parsed::SimilarTo { expr, .. }
            | Parsed::RLike { expr, .. }
            | Parsed::Collate { expr, .. }
            | Parsed::Cast { kind: CastKind::DoubleColon, expr, .. } => expr,
            Parsed::AtTimeZone { timestamp, .. } => timestamp,
            Parsed::JsonAccess { value, .. } => value,
            Parsed::CompoundFieldAccess { root, .. } => root,
            other => return place(other),
        };
    }
}

/// A type as it was written.
pub fn data_type(written: &DataType, at: Position) -> Result<Type, Problem> {
    let refuse = || {
        let expected = "BOOLEAN, BIGINT, DECIMAL(precision, scale), DOUBLE, VARCHAR, TIMESTAMP(3) or \
                        JSON";
        Problem::expected(at, format!("`{written}`"), expected)
    };
    let digits = || {
        let expected = format!(
            "DECIMAL(precision, scale) of 1 to {PRECISION_MAX} digits, at most all of them behind the point"
        );
        Problem::expected(at, format!("`{written}`"), expected)
    };
    Ok(match written {
        DataType::Boolean | DataType::Bool => Type::Boolean,
        DataType::BigInt(None) => Type::Bigint,
        DataType::Double(ExactNumberInfo::None) => Type::Double,
        DataType::Varchar(None) => Type::Varchar,
        DataType::JSON => Type::Json,
        DataType::Timestamp(None | Some(3), TimezoneInfo::None) => Type::Timestamp,
        DataType::Decimal(ExactNumberInfo::Precision(precision)) => {
            decimal(*precision, 0).ok_or_else(digits)?
        }
        DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale)) => {
            decimal(*precision, *scale).ok_or_else(digits)?
        }
        _ => return Err(refuse()),
    })
}

fn decimal(precision: u64, scale: i64) -> Option<Type> {
    let precision = u8::try_from(precision).ok().filter(|p| (1..=PRECISION_MAX).contains(p))?;
    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= precision)?;
    Some(Type::Decimal(precision, scale))
}

/// The milliseconds of an `INTERVAL`.
pub fn interval(parsed: &Parsed) -> Result<i64, Problem> {
    let at = begin(parsed);
    let expected = "an interval like INTERVAL '10' SECOND";
    let Parsed::Interval(interval) = parsed else {
        return Err(Problem::expected(at, format!("`{parsed}`"), expected));
    };
    let refuse = || Problem::expected(at, format!("`{parsed}`"), expected);
    let digits = match &*interval.value {
        Parsed::Value(value) => match &value.value {
            Written::SingleQuotedString(text) | Written::Number(text, _) => text.clone(),
            _ => return Err(refuse()),
        },
        _ => return Err(refuse()),
    };
    let unit_ms = match interval.leading_field {
        Some(DateTimeField::Millisecond | DateTimeField::Milliseconds) => 1,
        Some(DateTimeField::Second | DateTimeField::Seconds) => 1_000,
        Some(DateTimeField::Minute | DateTimeField::Minutes) => 60_000,
        Some(DateTimeField::Hour | DateTimeField::Hours) => 3_600_000,
        Some(DateTimeField::Day | DateTimeField::Days) => time::DAY_MS,
        _ => return Err(refuse()),
    };
    if interval.last_field.is_some() || interval.leading_precision.is_some() {
        return Err(refuse());
    }
    let number = digits.trim().parse::<i64>().ok().filter(|number| *number >= 0);
    let ms = number.and_then(|number| number.checked_mul(unit_ms));
    // Ten thousand years; more would leave the calendar.
    ms.filter(|ms| *ms <= time::MAX_MS).ok_or_else(refuse)
}

/// A value.
pub fn literal(written: &Written, at: Position) -> Result<Expr, Problem> {
    let (value, of) = match written {
        Written::Null => (Value::Null, Type::Null),
        Written::Boolean(value) => (Value::Boolean(*value), Type::Boolean),
        Written::SingleQuotedString(text) => (Value::text(text.as_str()), Type::Varchar),
        Written::Number(digits, false) => return number(digits, at),
        _ => {
            let expected = "a number, a text in single quotes, TRUE, FALSE or NULL";
            return Err(Problem::expected(at, format!("`{written}`"), expected));
        }
    };
    Ok(Expr::literal(value, of, at))
}

/// As in Flink: whole numbers are BIGINT, those with a point DECIMAL, those with an exponent DOUBLE.
fn number(digits: &str, at: Position) -> Result<Expr, Problem> {
    let refuse = || Problem::expected(at, format!("`{digits}`"), "a number of at most 38 digits");
    if digits.contains(['e', 'E']) {
        let number = digits.parse().ok().and_then(Double::new).ok_or_else(refuse)?;
        return Ok(Expr::literal(Value::Double(number), Type::Double, at));
    }
    if let Ok(number) = digits.parse::<i64>() {
        return Ok(Expr::literal(Value::Bigint(number), Type::Bigint, at));
    }
    let number = Decimal::parse(digits).ok_or_else(refuse)?;
    let count = number.mantissa.unsigned_abs().to_string().len() as u8;
    let of = Type::Decimal(count.max(number.scale).max(1), number.scale);
    Ok(Expr::literal(Value::Decimal(number), of, at))
}
