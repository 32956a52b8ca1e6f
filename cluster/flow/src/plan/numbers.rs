//! The types of what is computed of numbers, and of what is cast.

use super::expr::{Arithmetic, Expr, Kind};
use crate::problem::{Position, Problem};
use crate::value::Type;
use crate::value::decimal::{PRECISION_MAX, QUOTIENT_SCALE};

/// Of numbers; the type of the result has room for it where 38 digits have.
pub fn arithmetic(
    operation: Arithmetic,
    left: Expr,
    right: Expr,
    at: Position,
) -> Result<Expr, Problem> {
    let fitting = |of: Type| if of == Type::Null { Type::Bigint } else { of };
    let (one, other) = (fitting(left.of), fitting(right.of));
    for (side, of) in [(&left, one), (&right, other)] {
        if !of.is_number() {
            return Err(Problem::expected(side.at, of, "a number"));
        }
    }
    let (Some((p1, s1)), Some((p2, s2))) = (one.digits(), other.digits()) else {
        let sides = [left, right].map(|side| Box::new(side.into_type(Type::Double)));
        let [left, right] = sides;
        return Ok(Expr { kind: Kind::Arithmetic(operation, left, right), of: Type::Double, at });
    };
    let scale = s1.max(s2);
    let whole = (p1 - s1).max(p2 - s2);
    let both_whole = one == Type::Bigint && other == Type::Bigint;
    let decimal = |precision: u8, scale: u8| {
        let too_fine = || {
            let found =
                format!("{one} and {other}, whose product has {scale} digits behind the point");
            Problem::expected(at, found, "at most 38 digits; CAST to a smaller scale before")
        };
        if scale > PRECISION_MAX {
            Err(too_fine())
        } else {
            Ok(Type::Decimal(precision.min(PRECISION_MAX), scale))
        }
    };
    let of = match operation {
        Arithmetic::Add | Arithmetic::Subtract | Arithmetic::Multiply | Arithmetic::Remainder
            if both_whole =>
        {
            Type::Bigint
        }
        Arithmetic::Add | Arithmetic::Subtract => decimal(whole + scale + 1, scale)?,
        Arithmetic::Multiply => decimal(p1 + p2, s1 + s2)?,
        // The quotient of whole numbers is not cut off.
        Arithmetic::Divide => {
            decimal(p1 - s1 + s2 + scale.max(QUOTIENT_SCALE), scale.max(QUOTIENT_SCALE))?
        }
        Arithmetic::Remainder => decimal(whole + scale, scale)?,
    };
    // The operands keep their own scales; a whole number is one without digits behind the point.
    let widen = |side: Expr, of: Type| match of {
        Type::Bigint if !both_whole || operation == Arithmetic::Divide => {
            side.into_type(Type::Decimal(19, 0))
        }
        of => side.into_type(of),
    };
    let (left, right) = (Box::new(widen(left, one)), Box::new(widen(right, other)));
    Ok(Expr { kind: Kind::Arithmetic(operation, left, right), of, at })
}

/// A CAST or TRY_CAST, if there is one between the types.
pub fn cast(inner: Expr, of: Type, is_try: bool, at: Position) -> Result<Expr, Problem> {
    let from = inner.of;
    let is_possible = from == of
        || match (from, of) {
            (Type::Null, _) | (_, Type::Varchar) | (Type::Varchar, _) => true,
            (from, of) => from.is_number() && of.is_number(),
        };
    if !is_possible {
        return Err(Problem::expected(
            at,
            format!("a CAST from {from} to {of}"),
            "types that convert",
        ));
    }
    Ok(Expr { kind: Kind::Cast(Box::new(inner), is_try), of, at })
}
