//! Computing expressions.
//!
//! | module | what |
//! |---|---|
//! | [`convert`] | `CAST`, and JSON as values of columns |
//! | [`functions`] | what the functions do |
//!
//! Logic has three values: what is compared with NULL is neither TRUE nor FALSE. `AND` and `OR` look at
//! their left side first, and at the right side only if it can still decide.
//!
//! Invariant: an error is a [`Failure`] with its place; nothing overflows, and no value is invented.

pub mod convert;
pub mod functions;

use crate::plan::expr::{Arithmetic, Comparison, Expr, Kind};
use crate::problem::Position;
use crate::value::decimal::Decimal;
use crate::value::double::Double;
use crate::value::{Type, Value, time};
use std::cmp::Ordering;
use std::fmt;

/// Why an expression has no value for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The place of the expression in the file.
    pub at: Position,
    /// What went wrong.
    pub reason: String,
}

impl Failure {
    /// At a place.
    pub fn new(at: Position, reason: impl Into<String>) -> Self {
        Self { at, reason: reason.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.reason)
    }
}

/// The value of an expression for a row.
pub fn eval(expr: &Expr, row: &[Value]) -> Result<Value, Failure> {
    Ok(match &expr.kind {
        Kind::Column(index) => row[*index].clone(),
        Kind::Literal(value) => value.clone(),
        Kind::Not(inner) => match eval(inner, row)? {
            Value::Boolean(value) => Value::Boolean(!value),
            _ => Value::Null,
        },
        Kind::And(left, right) => logic(left, right, row, false)?,
        Kind::Or(left, right) => logic(left, right, row, true)?,
        Kind::Compare(comparison, left, right) => {
            let (left, right) = (eval(left, row)?, eval(right, row)?);
            let order = compare(&left, &right);
            order.map_or(Value::Null, |order| Value::Boolean(holds(*comparison, order)))
        }
        Kind::Arithmetic(operation, left, right) => {
            let (left, right) = (eval(left, row)?, eval(right, row)?);
            arithmetic(*operation, &left, &right, expr)?
        }
        Kind::Negate(inner) => match eval(inner, row)? {
            Value::Bigint(number) => Value::Bigint(
                number.checked_neg().ok_or_else(|| Failure::new(expr.at, "BIGINT overflows"))?,
            ),
            Value::Decimal(number) => Value::Decimal(number.negate()),
            Value::Double(number) => double(-number.get(), expr.at)?,
            _ => Value::Null,
        },
        Kind::Shift(inner, by_ms) => match eval(inner, row)? {
            Value::Timestamp(ms) => {
                let ms = ms.checked_add(*by_ms).and_then(time::in_range);
                Value::Timestamp(ms.ok_or_else(|| {
                    Failure::new(expr.at, "the time is outside of the years 1 to 9999")
                })?)
            }
            _ => Value::Null,
        },
        Kind::IsNull(inner) => Value::Boolean(eval(inner, row)?.is_null()),
        Kind::Is(inner, wanted) => Value::Boolean(eval(inner, row)? == Value::Boolean(*wanted)),
        Kind::Same(left, right) => {
            let (left, right) = (eval(left, row)?, eval(right, row)?);
            let both_null = left.is_null() && right.is_null();
            Value::Boolean(both_null || compare(&left, &right).is_some_and(Ordering::is_eq))
        }
        Kind::In(inner, list) => is_in(&eval(inner, row)?, list, row)?,
        Kind::Like(inner, like) => match eval(inner, row)? {
            Value::Varchar(text) => {
                Value::Boolean(like.fits(&text).map_err(|reason| Failure::new(expr.at, reason))?)
            }
            _ => Value::Null,
        },
        Kind::Case(whens, otherwise) => {
            for (condition, result) in whens {
                if eval(condition, row)?.is_true() {
                    return eval(result, row);
                }
            }
            eval(otherwise, row)?
        }
        Kind::CaseOf(operand, whens, otherwise) => case_of(operand, whens, otherwise, row)?,
        Kind::Between(operand, low, high) => between(operand, low, high, row)?,
        Kind::Cast(inner, is_try) => match convert::cast(eval(inner, row)?, expr.of) {
            Ok(value) => value,
            Err(_) if *is_try => Value::Null,
            Err(reason) => return Err(Failure::new(expr.at, reason)),
        },
        Kind::Call(function, arguments, pattern) => {
            functions::call(*function, arguments, pattern.as_ref(), (expr, row))?
        }
    })
}

/// `AND` is decided by FALSE, `OR` by TRUE.
fn logic(left: &Expr, right: &Expr, row: &[Value], decides: bool) -> Result<Value, Failure> {
    let left = eval(left, row)?;
    if left == Value::Boolean(decides) {
        return Ok(left);
    }
    let right = eval(right, row)?;
    Ok(if right == Value::Boolean(decides) || left == right || right.is_null() {
        right
    } else {
        // The left side is NULL, or both are what does not decide.
        left
    })
}

/// The order of two values of one type, or of two exact numbers. `None` if one of them is NULL.
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    let exact = |value: &Value| match value {
        Value::Bigint(number) => Some(Decimal::whole(*number)),
        Value::Decimal(number) => Some(*number),
        _ => None,
    };
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Decimal(_), _) | (_, Value::Decimal(_)) => {
            Some(exact(left)?.compare(exact(right)?))
        }
        _ => Some(left.cmp(right)),
    }
}

fn holds(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

/// A value in the type in which it is compared with another expression.
fn meeting(value: &Value, of: &Expr, other: &Expr) -> Result<Value, Failure> {
    // Exact numbers are compared as they are.
    if of.of == other.of || (of.of.digits().is_some() && other.of.digits().is_some()) {
        return Ok(value.clone());
    }
    convert::cast(value.clone(), other.of).map_err(|reason| Failure::new(of.at, reason))
}

/// The result of the first that is equal.
fn case_of(
    operand: &Expr,
    whens: &[(Expr, Expr)],
    otherwise: &Expr,
    row: &[Value],
) -> Result<Value, Failure> {
    let value = eval(operand, row)?;
    for (when, result) in whens {
        let order = compare(&meeting(&value, operand, when)?, &eval(when, row)?);
        if order.is_some_and(Ordering::is_eq) {
            return eval(result, row);
        }
    }
    eval(otherwise, row)
}

/// As `>= AND <=`: the upper end is looked at only if it can still decide.
fn between(operand: &Expr, low: &Expr, high: &Expr, row: &[Value]) -> Result<Value, Failure> {
    let value = eval(operand, row)?;
    let above = compare(&meeting(&value, operand, low)?, &eval(low, row)?).map(Ordering::is_ge);
    if above == Some(false) {
        return Ok(Value::Boolean(false));
    }
    let below = compare(&meeting(&value, operand, high)?, &eval(high, row)?).map(Ordering::is_le);
    Ok(match (above, below) {
        (_, Some(false)) => Value::Boolean(false),
        (Some(true), Some(true)) => Value::Boolean(true),
        _ => Value::Null,
    })
}

fn is_in(value: &Value, list: &[Expr], row: &[Value]) -> Result<Value, Failure> {
    let mut unknown = false;
    for element in list {
        match compare(value, &eval(element, row)?) {
            Some(order) if order.is_eq() => return Ok(Value::Boolean(true)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Boolean(false) })
}

/// A double, if it is finite.
pub fn double(number: f64, at: Position) -> Result<Value, Failure> {
    let number = Double::new(number);
    number.map(Value::Double).ok_or_else(|| Failure::new(at, "DOUBLE is not finite"))
}

fn arithmetic(
    operation: Arithmetic,
    left: &Value,
    right: &Value,
    expr: &Expr,
) -> Result<Value, Failure> {
    let at = expr.at;
    let by_zero = || Failure::new(at, "division by zero");
    let divides = matches!(operation, Arithmetic::Divide | Arithmetic::Remainder);
    match (left, right) {
        (Value::Bigint(left), Value::Bigint(right)) => {
            if divides && *right == 0 {
                return Err(by_zero());
            }
            let number = match operation {
                Arithmetic::Add => left.checked_add(*right),
                Arithmetic::Subtract => left.checked_sub(*right),
                Arithmetic::Multiply => left.checked_mul(*right),
                Arithmetic::Divide => left.checked_div(*right),
                Arithmetic::Remainder => Some(left.wrapping_rem(*right)),
            };
            number.map(Value::Bigint).ok_or_else(|| Failure::new(at, "BIGINT overflows"))
        }
        (Value::Decimal(left), Value::Decimal(right)) => {
            if divides && right.mantissa == 0 {
                return Err(by_zero());
            }
            let Type::Decimal(precision, scale) = expr.of else {
                return Err(Failure::new(at, format!("a DECIMAL is no {}", expr.of)));
            };
            let number = match operation {
                Arithmetic::Add => left.add(*right),
                Arithmetic::Subtract => left.add(right.negate()),
                Arithmetic::Multiply => left.multiply(*right),
                Arithmetic::Divide => left.divide(*right, scale),
                Arithmetic::Remainder => left.remainder(*right),
            };
            let number = number.and_then(|n: Decimal| n.rescale(scale));
            let number = number.filter(|number| number.fits(precision));
            let number = number.map(Value::Decimal);
            number.ok_or_else(|| Failure::new(at, format!("{} overflows", expr.of)))
        }
        (Value::Double(left), Value::Double(right)) => {
            let (left, right) = (left.get(), right.get());
            if divides && right == 0.0 {
                return Err(by_zero());
            }
            let number = match operation {
                Arithmetic::Add => left + right,
                Arithmetic::Subtract => left - right,
                Arithmetic::Multiply => left * right,
                Arithmetic::Divide => left / right,
                // Exact by definition, so the same everywhere.
                Arithmetic::Remainder => left % right,
            };
            double(number, at)
        }
        _ => Ok(Value::Null),
    }
}
