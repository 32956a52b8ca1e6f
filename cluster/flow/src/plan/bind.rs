//! From parsed expressions to typed ones.
//!
//! Invariant: a type error is found here, with its place, and not when a row comes.

use super::expr::{Arithmetic, Comparison, Expr, Kind, Pattern};
use super::functions;
use super::{Aggregate, Column, Fold, Role};
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::decimal::{Decimal, PRECISION_MAX, QUOTIENT_SCALE};
use crate::value::double::Double;
use crate::value::{Type, Value, time};
use regex::RegexBuilder;
use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, ExactNumberInfo,
    Expr as Parsed, Function as Called, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    InTarget, Spanned, TimezoneInfo, TrimWhereField, UnaryOperator, Value as Written,
};

/// How deep an expression may be, chains of operators included.
const DEPTH_MAX: usize = 64;

/// The columns that an expression may use.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The name of the relation, and the column.
    pub columns: Vec<(String, Column)>,
}

/// What is known while the columns behind a `GROUP BY` are read.
#[derive(Debug)]
pub struct Grouped {
    /// What stands in the `GROUP BY`.
    pub keys: Vec<Expr>,
    /// The aggregate functions that were found so far.
    pub aggregates: Vec<Aggregate>,
}

/// Reads expressions over a scope.
#[derive(Debug)]
pub struct Binder<'a> {
    /// The columns.
    pub scope: &'a Scope,
    /// Behind a `GROUP BY`.
    pub grouped: Option<&'a mut Grouped>,
    depth: usize,
}

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
    Ok(match written {
        DataType::Boolean | DataType::Bool => Type::Boolean,
        DataType::BigInt(None) => Type::Bigint,
        DataType::Double(ExactNumberInfo::None) => Type::Double,
        DataType::Varchar(None) => Type::Varchar,
        DataType::JSON => Type::Json,
        DataType::Timestamp(None | Some(3), TimezoneInfo::None) => Type::Timestamp,
        DataType::Decimal(ExactNumberInfo::Precision(precision)) => {
            decimal(*precision, 0).ok_or_else(refuse)?
        }
        DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale)) => {
            decimal(*precision, *scale).ok_or_else(refuse)?
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

impl<'a> Binder<'a> {
    /// Over the columns of a scope.
    pub fn new(scope: &'a Scope) -> Self {
        Self { scope, grouped: None, depth: 0 }
    }

    /// Over the groups of a scope.
    pub fn grouped(scope: &'a Scope, grouped: &'a mut Grouped) -> Self {
        Self { scope, grouped: Some(grouped), depth: 0 }
    }

    /// A condition.
    pub fn condition(&mut self, parsed: &Parsed) -> Result<Expr, Problem> {
        let expr = self.bind(parsed)?;
        match expr.of {
            Type::Boolean | Type::Null => Ok(expr.into_type(Type::Boolean)),
            of => Err(Problem::expected(expr.at, of, "a condition, of type BOOLEAN")),
        }
    }

    /// An expression.
    pub fn bind(&mut self, parsed: &Parsed) -> Result<Expr, Problem> {
        if self.depth >= DEPTH_MAX {
            let expected = format!("at most {DEPTH_MAX} operators in each other");
            return Err(Problem::expected(begin(parsed), "a deep expression", expected));
        }
        self.depth += 1;
        let bound = match self.key(parsed) {
            Some(key) => Ok(key),
            None => self.expression(parsed),
        };
        self.depth -= 1;
        bound
    }

    /// A whole expression that stands in the `GROUP BY`.
    fn key(&self, parsed: &Parsed) -> Option<Expr> {
        let grouped = self.grouped.as_ref()?;
        let bound = Binder { scope: self.scope, grouped: None, depth: self.depth };
        let bound = { bound }.bind(parsed).ok()?;
        let index = grouped.keys.iter().position(|key| *key == bound)?;
        Some(Expr::column(index, bound.of, bound.at))
    }

    fn expression(&mut self, parsed: &Parsed) -> Result<Expr, Problem> {
        let at = begin(parsed);
        match parsed {
            Parsed::Nested(inner) => self.bind(inner),
            Parsed::Identifier(name) => self.column(None, name),
            Parsed::CompoundIdentifier(names) => match names.as_slice() {
                [relation, name] => self.column(Some(relation), name),
                _ => Err(Problem::expected(at, format!("`{parsed}`"), "relation.column")),
            },
            Parsed::Value(value) => literal(&value.value, at),
            Parsed::TypedString(typed) => {
                let of = data_type(&typed.data_type, at)?;
                let text = typed.value.value.clone().into_string();
                let ms = text.as_deref().and_then(time::parse).filter(|_| of == Type::Timestamp);
                let ms = ms.ok_or_else(|| {
                    let expected = "a time like TIMESTAMP '2026-01-31 12:00:00'";
                    Problem::expected(at, format!("`{parsed}`"), expected)
                })?;
                Ok(Expr::literal(Value::Timestamp(ms), of, at))
            }
            Parsed::UnaryOp { op, expr } => self.unary(*op, expr, at),
            Parsed::BinaryOp { left, op, right } => self.binary(left, op, right, at),
            Parsed::Between { expr, negated, low, high } => {
                let below = self.compare(Comparison::GreaterOrEqual, expr, low, at)?;
                let above = self.compare(Comparison::LessOrEqual, expr, high, at)?;
                let both = Kind::And(Box::new(below), Box::new(above));
                Ok(negate_if(*negated, boolean(both, at)))
            }
            Parsed::IsNull(inner) => self.is_null(inner, false, at),
            Parsed::IsNotNull(inner) => self.is_null(inner, true, at),
            Parsed::IsUnknown(inner) => self.is_null(inner, false, at),
            Parsed::IsNotUnknown(inner) => self.is_null(inner, true, at),
            Parsed::IsTrue(inner) => self.is(inner, true, false, at),
            Parsed::IsNotTrue(inner) => self.is(inner, true, true, at),
            Parsed::IsFalse(inner) => self.is(inner, false, false, at),
            Parsed::IsNotFalse(inner) => self.is(inner, false, true, at),
            Parsed::IsDistinctFrom(left, right) => self.same(left, right, true, at),
            Parsed::IsNotDistinctFrom(left, right) => self.same(left, right, false, at),
            Parsed::In { expr, target: InTarget::List(list), negated, global: false } => {
                self.in_list(expr, list, *negated, at)
            }
            Parsed::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, pattern, *negated)
            }
            Parsed::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), at)
            }
            Parsed::Cast { kind, expr, data_type: of, format: None } => {
                let of = data_type(of, at)?;
                let inner = self.bind(expr)?;
                cast(inner, of, matches!(kind, CastKind::TryCast | CastKind::SafeCast), at)
            }
            _ => self.special(parsed, at),
        }
    }

    /// Functions that have a grammar of their own.
    fn special(&mut self, parsed: &Parsed, at: Position) -> Result<Expr, Problem> {
        match parsed {
            Parsed::Function(called) => self.function(called, at),
            Parsed::Ceil { expr, field } => self.rounding("CEIL", expr, field, at),
            Parsed::Floor { expr, field } => self.rounding("FLOOR", expr, field, at),
            Parsed::Position { expr, r#in } => {
                let arguments = vec![self.bind(expr)?, self.bind(r#in)?];
                functions::call("POSITION", arguments, at)
            }
            Parsed::Substring { expr, substring_from, substring_for, .. } => {
                let mut arguments = vec![self.bind(expr)?];
                match substring_from {
                    Some(from) => arguments.push(self.bind(from)?),
                    None => arguments.push(Expr::literal(Value::Bigint(1), Type::Bigint, at)),
                }
                if let Some(count) = substring_for {
                    arguments.push(self.bind(count)?);
                }
                functions::call("SUBSTRING", arguments, at)
            }
            Parsed::Trim { trim_where, trim_what: None, expr, trim_characters: None } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "TRIM",
                    Some(TrimWhereField::Leading) => "LTRIM",
                    Some(TrimWhereField::Trailing) => "RTRIM",
                };
                let arguments = vec![self.bind(expr)?];
                functions::call(name, arguments, at)
            }
            Parsed::Extract { field, expr, .. } => {
                let unit = Expr::literal(Value::text(field.to_string()), Type::Varchar, at);
                let arguments = vec![unit, self.bind(expr)?];
                functions::call("EXTRACT", arguments, at)
            }
            _ => {
                let expected = "an expression of docs/SQL.md";
                Err(Problem::expected(at, format!("`{parsed}`"), expected))
            }
        }
    }

    fn column(&self, relation: Option<&Ident>, name: &Ident) -> Result<Expr, Problem> {
        let at = position(name.span.start);
        let is_meant = |(of, column): &(String, Column)| {
            column.name == name.value && relation.is_none_or(|relation| *of == relation.value)
        };
        let columns = self.scope.columns.iter();
        let found: Vec<usize> =
            columns.enumerate().filter(|(_, c)| is_meant(c)).map(|(index, _)| index).collect();
        let shown =
            relation.map_or_else(|| name.value.clone(), |r| format!("{}.{}", r.value, name));
        match found.as_slice() {
            [index] if self.grouped.is_none() => {
                Ok(Expr::column(*index, self.scope.columns[*index].1.of, at))
            }
            [_] => {
                let expected = "an aggregate function or a column of the GROUP BY";
                Err(Problem::expected(at, format!("`{shown}`"), expected))
            }
            [] => {
                let known = self.scope.columns.iter().map(|(of, c)| format!("{of}.{}", c.name));
                let known: Vec<String> = known.collect();
                let expected = match known.is_empty() {
                    true => "no column".to_owned(),
                    false => format!("one of {}", known.join(", ")),
                };
                Err(Problem::expected(at, format!("`{shown}`"), expected))
            }
            several => {
                let of = several.iter().map(|i| format!("{}.{}", self.scope.columns[*i].0, name));
                let expected = of.collect::<Vec<_>>().join(" or ");
                Err(Problem::expected(at, format!("`{shown}`"), expected))
            }
        }
    }

    fn unary(&mut self, op: UnaryOperator, expr: &Parsed, at: Position) -> Result<Expr, Problem> {
        match op {
            UnaryOperator::Not => {
                let inner = self.condition(expr)?;
                Ok(boolean(Kind::Not(Box::new(inner)), at))
            }
            UnaryOperator::Minus | UnaryOperator::Plus => {
                let inner = self.bind(expr)?;
                if !inner.of.is_number() {
                    return Err(Problem::expected(inner.at, inner.of, "a number"));
                }
                let of = inner.of;
                let is_minus = op == UnaryOperator::Minus;
                Ok(match &inner.kind {
                    _ if !is_minus => inner,
                    Kind::Literal(Value::Bigint(n)) => Expr::literal(Value::Bigint(-n), of, at),
                    Kind::Literal(Value::Decimal(n)) => {
                        Expr::literal(Value::Decimal(n.negate()), of, at)
                    }
                    _ => Expr { kind: Kind::Negate(Box::new(inner)), of, at },
                })
            }
            _ => Err(Problem::expected(at, format!("`{op}`"), "NOT, `-` or `+`")),
        }
    }

    fn binary(
        &mut self,
        left: &Parsed,
        op: &BinaryOperator,
        right: &Parsed,
        at: Position,
    ) -> Result<Expr, Problem> {
        match op {
            BinaryOperator::And | BinaryOperator::Or => {
                let left = Box::new(self.condition(left)?);
                let right = Box::new(self.condition(right)?);
                let is_and = *op == BinaryOperator::And;
                let kind = if is_and { Kind::And(left, right) } else { Kind::Or(left, right) };
                Ok(boolean(kind, at))
            }
            BinaryOperator::Eq => self.compare(Comparison::Equal, left, right, at),
            BinaryOperator::NotEq => self.compare(Comparison::NotEqual, left, right, at),
            BinaryOperator::Lt => self.compare(Comparison::Less, left, right, at),
            BinaryOperator::LtEq => self.compare(Comparison::LessOrEqual, left, right, at),
            BinaryOperator::Gt => self.compare(Comparison::Greater, left, right, at),
            BinaryOperator::GtEq => self.compare(Comparison::GreaterOrEqual, left, right, at),
            BinaryOperator::StringConcat => {
                let arguments = vec![self.bind(left)?, self.bind(right)?];
                functions::call("CONCAT", arguments, at)
            }
            BinaryOperator::Plus => self.arithmetic(Arithmetic::Add, left, right, at),
            BinaryOperator::Minus => self.arithmetic(Arithmetic::Subtract, left, right, at),
            BinaryOperator::Multiply => self.arithmetic(Arithmetic::Multiply, left, right, at),
            BinaryOperator::Divide => self.arithmetic(Arithmetic::Divide, left, right, at),
            BinaryOperator::Modulo => self.arithmetic(Arithmetic::Remainder, left, right, at),
            _ => {
                let expected = "AND, OR, a comparison, `||`, `+`, `-`, `*`, `/` or `%`";
                Err(Problem::expected(at, format!("`{op}`"), expected))
            }
        }
    }

    fn pair(
        &mut self,
        left: &Parsed,
        right: &Parsed,
        at: Position,
    ) -> Result<(Box<Expr>, Box<Expr>), Problem> {
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        let of = left.of.common(right.of).filter(|of| of.is_ordered());
        let of = of.ok_or_else(|| {
            let found = format!("{} and {}", left.of, right.of);
            Problem::expected(at, found, "two values of one type that can be compared")
        })?;
        Ok((Box::new(left.into_type(of)), Box::new(right.into_type(of))))
    }

    fn compare(
        &mut self,
        comparison: Comparison,
        left: &Parsed,
        right: &Parsed,
        at: Position,
    ) -> Result<Expr, Problem> {
        let (left, right) = self.pair(left, right, at)?;
        Ok(boolean(Kind::Compare(comparison, left, right), at))
    }

    fn same(
        &mut self,
        left: &Parsed,
        right: &Parsed,
        negated: bool,
        at: Position,
    ) -> Result<Expr, Problem> {
        let (left, right) = self.pair(left, right, at)?;
        Ok(negate_if(negated, boolean(Kind::Same(left, right), at)))
    }

    fn is_null(&mut self, inner: &Parsed, negated: bool, at: Position) -> Result<Expr, Problem> {
        let inner = Box::new(self.bind(inner)?);
        Ok(negate_if(negated, boolean(Kind::IsNull(inner), at)))
    }

    fn is(
        &mut self,
        e: &Parsed,
        wanted: bool,
        negated: bool,
        at: Position,
    ) -> Result<Expr, Problem> {
        let inner = Box::new(self.condition(e)?);
        Ok(negate_if(negated, boolean(Kind::Is(inner, wanted), at)))
    }

    fn in_list(
        &mut self,
        expr: &Parsed,
        list: &[Parsed],
        negated: bool,
        at: Position,
    ) -> Result<Expr, Problem> {
        let expr = self.bind(expr)?;
        let list: Vec<Expr> = list.iter().map(|e| self.bind(e)).collect::<Result<_, _>>()?;
        let mut of = expr.of;
        for element in &list {
            of = of.common(element.of).filter(|of| of.is_ordered()).ok_or_else(|| {
                Problem::expected(element.at, element.of, format!("a value like {}", expr.of))
            })?;
        }
        let list = list.into_iter().map(|element| element.into_type(of)).collect();
        Ok(negate_if(negated, boolean(Kind::In(Box::new(expr.into_type(of)), list), at)))
    }

    fn like(&mut self, expr: &Parsed, pattern: &Parsed, negated: bool) -> Result<Expr, Problem> {
        let expr = self.bind(expr)?;
        let pattern = self.bind(pattern)?;
        if expr.of != Type::Varchar {
            return Err(Problem::expected(expr.at, expr.of, "VARCHAR"));
        }
        let Kind::Literal(Value::Varchar(text)) = &pattern.kind else {
            return Err(Problem::expected(pattern.at, pattern.of, "a pattern, in quotes"));
        };
        let mut regex = String::from("^");
        for c in text.chars() {
            match c {
                '%' => regex.push_str(".*"),
                '_' => regex.push('.'),
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        regex.push('$');
        let compiled = RegexBuilder::new(&regex).dot_matches_new_line(true).build();
        let compiled = compiled
            .map_err(|_| Problem::expected(pattern.at, "a very long pattern", "a shorter one"))?;
        let at = expr.at;
        Ok(negate_if(negated, boolean(Kind::Like(Box::new(expr), Pattern(compiled)), at)))
    }

    fn case(
        &mut self,
        operand: Option<&Parsed>,
        conditions: &[sqlparser::ast::CaseWhen],
        otherwise: Option<&Parsed>,
        at: Position,
    ) -> Result<Expr, Problem> {
        let mut whens = Vec::new();
        let mut of = Type::Null;
        for when in conditions {
            let condition = match operand {
                Some(operand) => {
                    let at = begin(&when.condition);
                    self.compare(Comparison::Equal, operand, &when.condition, at)?
                }
                None => self.condition(&when.condition)?,
            };
            whens.push((condition, self.bind(&when.result)?));
        }
        let otherwise = match otherwise {
            Some(otherwise) => self.bind(otherwise)?,
            None => Expr::literal(Value::Null, Type::Null, at),
        };
        for result in whens.iter().map(|(_, result)| result).chain([&otherwise]) {
            of = of.common(result.of).ok_or_else(|| {
                Problem::expected(result.at, result.of, format!("{of}, as the results before"))
            })?;
        }
        let whens = whens.into_iter().map(|(c, result)| (c, result.into_type(of))).collect();
        Ok(Expr { kind: Kind::Case(whens, Box::new(otherwise.into_type(of))), of, at })
    }

    fn rounding(
        &mut self,
        name: &str,
        expr: &Parsed,
        field: &CeilFloorKind,
        at: Position,
    ) -> Result<Expr, Problem> {
        if !matches!(field, CeilFloorKind::DateTimeField(DateTimeField::NoDateTime)) {
            let found = format!("{name} with a second argument");
            return Err(Problem::expected(at, found, "one argument; see DATE_TRUNC and ROUND"));
        }
        let arguments = vec![self.bind(expr)?];
        functions::call(name, arguments, at)
    }

    fn function(&mut self, called: &Called, at: Position) -> Result<Expr, Problem> {
        let name = called.name.to_string();
        let refuse = |what: &str| {
            Err(Problem::expected(at, format!("{name} with {what}"), "arguments and nothing else"))
        };
        if called.over.is_some() {
            return refuse("OVER");
        }
        if called.filter.is_some() || called.null_treatment.is_some() {
            return refuse("FILTER or a rule for NULL");
        }
        if !called.within_group.is_empty() || called.parameters != FunctionArguments::None {
            return refuse("an order or parameters");
        }
        let FunctionArguments::List(list) = &called.args else {
            return refuse("no list of arguments");
        };
        if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return refuse("DISTINCT or another clause");
        }
        if let Some(fold) = fold(&name) {
            return self.aggregate(fold, &name, &list.args, at);
        }
        let mut arguments = Vec::new();
        for argument in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
                return refuse(&format!("`{argument}`"));
            };
            arguments.push(self.bind(argument)?);
        }
        if name.eq_ignore_ascii_case("MOD") && arguments.len() == 2 {
            let right = arguments.pop();
            let left = arguments.pop();
            if let (Some(left), Some(right)) = (left, right) {
                return arithmetic(Arithmetic::Remainder, left, right, at);
            }
        }
        functions::call(&name, arguments, at)
    }

    fn aggregate(
        &mut self,
        fold: Fold,
        name: &str,
        arguments: &[FunctionArg],
        at: Position,
    ) -> Result<Expr, Problem> {
        let Some(grouped) = self.grouped.as_mut() else {
            let expected = "an expression over one row; aggregates stand in SELECT and HAVING, not in \
                            each other";
            return Err(Problem::expected(at, format!("the aggregate {name}"), expected));
        };
        let argument = match arguments {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if fold == Fold::Count => None,
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => Some(
                Binder { scope: self.scope, grouped: None, depth: self.depth }.bind(argument)?,
            ),
            _ => {
                let expected =
                    if fold == Fold::Count { "`*` or one argument" } else { "one argument" };
                return Err(Problem::expected(at, format!("the arguments of {name}"), expected));
            }
        };
        let of = argument.as_ref().map_or(Ok(Type::Bigint), |argument| folded(fold, argument))?;
        let aggregate = Aggregate { fold, argument, of, at };
        let is_known = |known: &Aggregate| {
            known.fold == aggregate.fold && known.argument == aggregate.argument
        };
        let index = grouped.aggregates.iter().position(is_known).unwrap_or_else(|| {
            grouped.aggregates.push(aggregate);
            grouped.aggregates.len() - 1
        });
        Ok(Expr::column(grouped.keys.len() + index, of, at))
    }

    fn arithmetic(
        &mut self,
        operation: Arithmetic,
        left: &Parsed,
        right: &Parsed,
        at: Position,
    ) -> Result<Expr, Problem> {
        if matches!(right, Parsed::Interval(_)) {
            let ms = interval(right)?;
            let inner = self.bind(left)?;
            if inner.of != Type::Timestamp {
                return Err(Problem::expected(
                    inner.at,
                    inner.of,
                    "TIMESTAMP(3) before an INTERVAL",
                ));
            }
            let ms = match operation {
                Arithmetic::Add => ms,
                Arithmetic::Subtract => -ms,
                _ => return Err(Problem::expected(at, "an INTERVAL", "`+` or `-` before it")),
            };
            return Ok(Expr { kind: Kind::Shift(Box::new(inner), ms), of: Type::Timestamp, at });
        }
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        arithmetic(operation, left, right, at)
    }
}

fn boolean(kind: Kind, at: Position) -> Expr {
    Expr { kind, of: Type::Boolean, at }
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    let at = expr.at;
    if negated { boolean(Kind::Not(Box::new(expr)), at) } else { expr }
}

/// Of numbers; the type of the result has room for it where 38 digits have.
fn arithmetic(
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

fn literal(written: &Written, at: Position) -> Result<Expr, Problem> {
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

fn cast(inner: Expr, of: Type, is_try: bool, at: Position) -> Result<Expr, Problem> {
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

/// The aggregate function of a name.
fn fold(name: &str) -> Option<Fold> {
    let folds = [
        ("COUNT", Fold::Count),
        ("SUM", Fold::Sum),
        ("MIN", Fold::Min),
        ("MAX", Fold::Max),
        ("AVG", Fold::Avg),
        ("FIRST_VALUE", Fold::First),
        ("LAST_VALUE", Fold::Last),
    ];
    folds.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, fold)| *fold)
}

/// The type of an aggregate.
fn folded(fold: Fold, argument: &Expr) -> Result<Type, Problem> {
    let of = argument.of;
    let refuse = |expected: &str| Err(Problem::expected(argument.at, of, expected));
    match (fold, of) {
        (Fold::Count, _) => Ok(Type::Bigint),
        (_, Type::Null) => refuse("a value with a type"),
        (Fold::First | Fold::Last, of) => Ok(of),
        (Fold::Min | Fold::Max, of) if of.is_ordered() => Ok(of),
        (Fold::Min | Fold::Max, _) => refuse("a value that can be compared"),
        (Fold::Sum | Fold::Avg, Type::Double) => Ok(Type::Double),
        (Fold::Sum, of) if of.is_number() => {
            Ok(Type::Decimal(PRECISION_MAX, of.digits().map_or(0, |(_, scale)| scale)))
        }
        (Fold::Avg, of) if of.is_number() => {
            let scale = of.digits().map_or(0, |(_, scale)| scale);
            Ok(Type::Decimal(PRECISION_MAX, scale.max(QUOTIENT_SCALE)))
        }
        _ => refuse("a number"),
    }
}

impl Scope {
    /// The columns of one relation.
    pub fn of(relation: &str, columns: &[Column]) -> Self {
        Self { columns: columns.iter().map(|c| (relation.to_owned(), c.clone())).collect() }
    }

    /// Where the window of a row is written, if it is.
    pub fn window(&self) -> Option<(usize, usize)> {
        let find = |role| self.columns.iter().position(|(_, column)| column.role == role);
        Some((find(Role::WindowStart)?, find(Role::WindowEnd)?))
    }
}
