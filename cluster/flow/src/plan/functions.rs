//! The functions there are, what they take, and what they give.
//!
//! The table is what the planner goes by; docs/SQL.md lists the same functions.
//!
//! Invariant: no function reads a clock, a random number, or anything but its arguments.

use super::calls::FOLDS;
use super::expr::{Expr, Kind};
use super::patterns;
use crate::pattern::Pattern;
use crate::problem::{Position, Problem};
use crate::value::decimal::PRECISION_MAX;
use crate::value::format::{formatted, replacement};
use crate::value::json::Path;
use crate::value::{Type, Value};

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Function {
    Upper,
    Lower,
    Trim,
    TrimStart,
    TrimEnd,
    CharLength,
    Substring,
    Concat,
    Replace,
    Position,
    Left,
    Right,
    SplitIndex,
    StartsWith,
    RegexpReplace,
    RegexpExtract,
    RegexpLike,
    Abs,
    Sign,
    Floor,
    Ceil,
    Round,
    Truncate,
    Sqrt,
    Greatest,
    Least,
    Coalesce,
    NullIf,
    JsonValue,
    JsonQuery,
    JsonExists,
    Mask,
    KeyedHash,
    DateTrunc,
    Extract,
    DateFormat,
    EpochMs,
    FromEpochMs,
}

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Text,
    Whole,
    /// A whole number that is written out.
    WholeLiteral,
    Number,
    Double,
    Time,
    Json,
    Any,
    /// A text that is written out: of a path, of a unit, of how a time is shown, or of whatever comes.
    PathLiteral,
    UnitLiteral,
    /// A unit that a time can be cut off at.
    CutLiteral,
    TimeLiteral,
    TextLiteral,
    PatternLiteral,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Is(Type),
    /// The type of the first argument.
    First,
    /// The type that holds all arguments.
    Common,
    /// The type of the first argument, which is compared with the second as `=` does.
    Compared,
    /// The type of the first argument with as many digits behind the point as the second says.
    Digits,
}

struct Signature {
    name: &'static str,
    function: Function,
    takes: &'static [Takes],
    /// How many of the last ones may be left out.
    optional: usize,
    /// Whether the last one may come again and again.
    repeats: bool,
    gives: Gives,
}

const fn row(
    name: &'static str,
    function: Function,
    takes: &'static [Takes],
    gives: Gives,
) -> Signature {
    Signature { name, function, takes, optional: 0, repeats: false, gives }
}

const fn optional(signature: Signature) -> Signature {
    Signature { optional: 1, ..signature }
}

const fn repeated(signature: Signature) -> Signature {
    Signature { repeats: true, ..signature }
}

use Takes::{Any, Number, Text, Time, Whole};
const TEXT: Gives = Gives::Is(Type::Varchar);
const BIGINT: Gives = Gives::Is(Type::Bigint);
const BOOLEAN: Gives = Gives::Is(Type::Boolean);
const TIME: Gives = Gives::Is(Type::Timestamp);

const SIGNATURES: &[Signature] = &[
    row("UPPER", Function::Upper, &[Text], TEXT),
    row("LOWER", Function::Lower, &[Text], TEXT),
    row("TRIM", Function::Trim, &[Text], TEXT),
    row("LTRIM", Function::TrimStart, &[Text], TEXT),
    row("RTRIM", Function::TrimEnd, &[Text], TEXT),
    row("CHAR_LENGTH", Function::CharLength, &[Text], BIGINT),
    optional(row("SUBSTRING", Function::Substring, &[Text, Whole, Whole], TEXT)),
    repeated(row("CONCAT", Function::Concat, &[Any, Any], TEXT)),
    row("REPLACE", Function::Replace, &[Text, Text, Text], TEXT),
    row("POSITION", Function::Position, &[Text, Text], BIGINT),
    row("LEFT", Function::Left, &[Text, Whole], TEXT),
    row("RIGHT", Function::Right, &[Text, Whole], TEXT),
    row("SPLIT_INDEX", Function::SplitIndex, &[Text, Text, Whole], TEXT),
    row("STARTS_WITH", Function::StartsWith, &[Text, Text], BOOLEAN),
    row("REGEXP_REPLACE", Function::RegexpReplace, &[Text, Takes::PatternLiteral, Text], TEXT),
    optional(row(
        "REGEXP_EXTRACT",
        Function::RegexpExtract,
        &[Text, Takes::PatternLiteral, Whole],
        TEXT,
    )),
    row("REGEXP_LIKE", Function::RegexpLike, &[Text, Takes::PatternLiteral], BOOLEAN),
    row("ABS", Function::Abs, &[Number], Gives::First),
    row("SIGN", Function::Sign, &[Number], BIGINT),
    row("FLOOR", Function::Floor, &[Number], Gives::Digits),
    row("CEIL", Function::Ceil, &[Number], Gives::Digits),
    optional(row("ROUND", Function::Round, &[Number, Takes::WholeLiteral], Gives::Digits)),
    optional(row("TRUNCATE", Function::Truncate, &[Number, Takes::WholeLiteral], Gives::Digits)),
    row("SQRT", Function::Sqrt, &[Takes::Double], Gives::Is(Type::Double)),
    repeated(row("GREATEST", Function::Greatest, &[Any, Any], Gives::Common)),
    repeated(row("LEAST", Function::Least, &[Any, Any], Gives::Common)),
    repeated(row("COALESCE", Function::Coalesce, &[Any, Any], Gives::Common)),
    row("NULLIF", Function::NullIf, &[Any, Any], Gives::Compared),
    row("JSON_VALUE", Function::JsonValue, &[Takes::Json, Takes::PathLiteral], TEXT),
    row(
        "JSON_QUERY",
        Function::JsonQuery,
        &[Takes::Json, Takes::PathLiteral],
        Gives::Is(Type::Json),
    ),
    row("JSON_EXISTS", Function::JsonExists, &[Takes::Json, Takes::PathLiteral], BOOLEAN),
    optional(row("MASK", Function::Mask, &[Text, Whole], TEXT)),
    row("KEYED_HASH", Function::KeyedHash, &[Any, Takes::TextLiteral], TEXT),
    row("DATE_TRUNC", Function::DateTrunc, &[Takes::CutLiteral, Time], TIME),
    row("EXTRACT", Function::Extract, &[Takes::UnitLiteral, Time], BIGINT),
    row("DATE_FORMAT", Function::DateFormat, &[Time, Takes::TimeLiteral], TEXT),
    row("EPOCH_MS", Function::EpochMs, &[Time], BIGINT),
    row("FROM_EPOCH_MS", Function::FromEpochMs, &[Whole], TIME),
];

/// Other names of the same functions.
const ALIASES: &[(&str, &str)] = &[
    ("CHARACTER_LENGTH", "CHAR_LENGTH"),
    ("LENGTH", "CHAR_LENGTH"),
    ("SUBSTR", "SUBSTRING"),
    ("CEILING", "CEIL"),
    ("IFNULL", "COALESCE"),
    ("REGEXP", "REGEXP_LIKE"),
];

/// Units of `EXTRACT`.
const UNITS: &[&str] =
    &["MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "DOW", "DOY"];

/// So many of them are those of `DATE_TRUNC`: a day of the week is no time.
const CUTS: usize = 7;

/// What is computed as `%` is.
pub const MOD: &str = "MOD";

/// More than any name of a function has.
const NAME_BYTES: usize = 32;

/// The functions that somebody may have meant: those with the same first letter, the most similar first.
fn near(wanted: &str) -> Vec<&'static str> {
    let first = wanted.chars().next();
    let aggregates = FOLDS.iter().map(|(name, _)| *name);
    let names = SIGNATURES.iter().map(|signature| signature.name).chain(aggregates).chain([MOD]);
    let mut near: Vec<&str> = names.filter(|name| name.chars().next() == first).collect();
    near.sort_by_cached_key(|name| edits(wanted.as_bytes(), name.as_bytes()));
    near
}

/// How many bytes have to be changed, put in, left out, or exchanged with their neighbour, to make one of the
/// other. What is long is cut: names of functions are not.
fn edits(one: &[u8], other: &[u8]) -> usize {
    let one = &one[..one.len().min(NAME_BYTES)];
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = last[j] + usize::from(a != b);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            let is_swap = i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b;
            if is_swap {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

/// A function of one row.
#[derive(Clone, Copy)]
pub struct Known(&'static Signature);

/// The function of a name.
pub fn known(name: &str, at: Position) -> Result<Known, Problem> {
    let wanted = name.to_ascii_uppercase();
    let known = ALIASES.iter().find(|(alias, _)| *alias == wanted).map_or(&*wanted, |(_, is)| is);
    let found = SIGNATURES.iter().find(|signature| signature.name == known);
    found.map(Known).ok_or_else(|| {
        let expected = match near(&wanted).as_slice() {
            [] => "a function of docs/SQL.md".to_owned(),
            near => format!("a function of docs/SQL.md, like {}", near.join(", ")),
        };
        Problem::expected(at, format!("the function `{name}`"), expected)
    })
}

/// A call of a function by its name, if that and the arguments are right.
pub fn call(name: &str, arguments: Vec<Expr>, at: Position) -> Result<Expr, Problem> {
    called(known(name, at)?, arguments, at)
}

/// A call of a function, if the arguments are right.
pub fn called(
    Known(signature): Known,
    arguments: Vec<Expr>,
    at: Position,
) -> Result<Expr, Problem> {
    let known = signature.name;
    let count = arguments.len();
    let (least, most) = (signature.takes.len() - signature.optional, signature.takes.len());
    if count < least || (count > most && !signature.repeats) {
        let plural = if least == 1 { "" } else { "s" };
        let expected = match (signature.repeats, least == most) {
            (true, _) => format!("{least} or more"),
            (false, true) => format!("{least} argument{plural}"),
            (false, false) => format!("{least} to {most}"),
        };
        return Err(Problem::expected(at, format!("{count} arguments of {known}"), expected));
    }
    let mut pattern = None;
    let mut given = Vec::new();
    for (index, argument) in arguments.into_iter().enumerate() {
        let takes = signature.takes[index.min(most - 1)];
        if takes == Takes::PatternLiteral {
            pattern = Some(compile(&argument)?);
        } else {
            given.push(fit(argument, takes)?);
        }
    }
    if let Some(pattern) = &pattern {
        check_groups(signature.function, pattern.groups(), given.get(1))?;
    }
    let of = result(signature, &mut given, at)?;
    Ok(Expr { kind: Kind::Call(signature.function, given, pattern), of, at })
}

/// A group that is written out is one of the pattern.
fn check_groups(function: Function, groups: usize, argument: Option<&Expr>) -> Result<(), Problem> {
    let Some(Expr { kind: Kind::Literal(value), at, .. }) = argument else { return Ok(()) };
    match (function, value) {
        (Function::RegexpReplace, Value::Varchar(by)) => {
            replacement(by, groups).map(|_| ()).map_err(|why| Problem::new(*at, why))
        }
        (Function::RegexpExtract, Value::Bigint(group))
            if !usize::try_from(*group).is_ok_and(|group| group < groups) =>
        {
            let expected = format!("a number from 0 to {}, the groups of the pattern", groups - 1);
            Err(Problem::expected(*at, format!("the group {group}"), expected))
        }
        _ => Ok(()),
    }
}

/// The text of an argument that is written out.
fn literal(argument: &Expr, expected: &str) -> Result<String, Problem> {
    match &argument.kind {
        Kind::Literal(Value::Varchar(text)) => Ok(text.to_string()),
        _ => Err(Problem::expected(argument.at, argument.of, format!("{expected}, in quotes"))),
    }
}

fn compile(argument: &Expr) -> Result<Pattern, Problem> {
    let text = literal(argument, "a regular expression")?;
    patterns::compile(&text).map_err(|why| {
        Problem::new(argument.at, format!("`{text}` is no regular expression: {why}"))
    })
}

fn fit(argument: Expr, takes: Takes) -> Result<Expr, Problem> {
    let at = argument.at;
    let of = argument.of;
    let refuse = |expected: &str| Err(Problem::expected(at, of, expected));
    let wanted = match takes {
        Takes::Any => return Ok(argument),
        Takes::Number if of.is_number() || of == Type::Null => {
            let of = if of == Type::Null { Type::Bigint } else { of };
            return Ok(argument.into_type(of));
        }
        Takes::Number => return refuse("a number"),
        Takes::Double if of.is_number() => return Ok(argument.into_type(Type::Double)),
        Takes::Double => Type::Double,
        Takes::Text => Type::Varchar,
        Takes::Whole => Type::Bigint,
        Takes::Time => Type::Timestamp,
        Takes::Json => Type::Json,
        Takes::WholeLiteral => match &argument.kind {
            Kind::Literal(Value::Bigint(digits)) if (0..=38).contains(digits) => {
                return Ok(argument);
            }
            _ => return refuse("a number of digits from 0 to 38, written out"),
        },
        Takes::TimeLiteral => {
            let text = literal(&argument, "a pattern of a time")?;
            return match formatted(&text, 0) {
                Ok(_) => Ok(argument),
                Err(why) => Err(Problem::new(at, format!("`{text}`: {why}"))),
            };
        }
        Takes::TextLiteral => return literal(&argument, "a text").map(|_| argument),
        Takes::PathLiteral => {
            let text = literal(&argument, "a path")?;
            return match Path::parse(&text) {
                Some(_) => Ok(argument),
                None => {
                    Err(Problem::expected(at, format!("`{text}`"), "a path like $.motor.speed[0]"))
                }
            };
        }
        Takes::UnitLiteral | Takes::CutLiteral => {
            let text = literal(&argument, "a unit")?.to_ascii_uppercase();
            let units = if takes == Takes::CutLiteral { &UNITS[..CUTS] } else { UNITS };
            if units.contains(&text.as_str()) {
                return Ok(Expr::literal(Value::text(text), Type::Varchar, at));
            }
            let expected = format!("one of {}", units.join(", "));
            return Err(Problem::expected(at, format!("`{text}`"), expected));
        }
        Takes::PatternLiteral => return Ok(argument),
    };
    if of != wanted && of != Type::Null {
        return refuse(&wanted.to_string());
    }
    Ok(argument.into_type(wanted))
}

fn result(signature: &Signature, given: &mut Vec<Expr>, at: Position) -> Result<Type, Problem> {
    match signature.gives {
        Gives::Is(of) => Ok(of),
        Gives::First => Ok(given[0].of),
        Gives::Common | Gives::Compared => {
            let common = given.iter().try_fold(Type::Null, |of, argument| of.common(argument.of));
            let types: Vec<String> = given.iter().map(|a| a.of.to_string()).collect();
            let of =
                common.filter(|of| of.is_ordered() || signature.function == Function::Coalesce);
            let Some(of) = of else {
                return Err(Problem::expected(at, types.join(" and "), "values of one type"));
            };
            // Exact numbers are compared as they are, and may not fit into each other's type.
            let are_exact = given.iter().all(|argument| argument.of.digits().is_some());
            let keeps = |(index, argument): (usize, &Expr)| {
                let is_first = index == 0 && argument.of != Type::Null;
                signature.gives == Gives::Compared && (are_exact || is_first)
            };
            let keeps: Vec<bool> = given.iter().enumerate().map(keeps).collect();
            let into = |(argument, keeps): (Expr, bool)| {
                if keeps { argument } else { argument.into_type(of) }
            };
            *given = given.drain(..).zip(keeps).map(into).collect();
            Ok(if signature.gives == Gives::Compared { given[0].of } else { of })
        }
        Gives::Digits => {
            let digits = match given.get(1).map(|argument| &argument.kind) {
                Some(Kind::Literal(Value::Bigint(digits))) => *digits as u8,
                _ => 0,
            };
            Ok(match given[0].of {
                Type::Decimal(precision, scale) => {
                    let scale = scale.min(digits);
                    // Rounding up may need one more digit in front.
                    let front = precision - given[0].of.digits().map_or(0, |(_, s)| s);
                    Type::Decimal((front + scale + 1).min(PRECISION_MAX), scale)
                }
                of => of,
            })
        }
    }
}
