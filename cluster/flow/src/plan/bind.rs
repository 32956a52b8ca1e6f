//! From parsed expressions to typed ones.
//!
//! Invariant: a type error is found here, with its place, and not when a row comes.

use super::effort::spend;
use super::expr::{Arithmetic, Comparison, Expr, Kind};
use super::functions;
use super::numbers::{arithmetic, cast};
use super::patterns;
use super::written::{begin, data_type, interval, literal};
use super::{Aggregate, Column, Role};
use crate::like::Like;
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::{Type, Value, time};
use sqlparser::ast::{
    BinaryOperator, CastKind, Expr as Parsed, Ident, InTarget, TrimWhereField, UnaryOperator,
};

/// How deep an expression may be, chains of operators included.
const DEPTH_MAX: usize = 64;

/// How much more a pattern takes than another part of an expression.
const PATTERN_EFFORT: usize = 10;

/// So many columns of a scope are looked through, or bytes of a text copied, as fast as one part is looked at.
const SHARE: usize = 16;

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
    pub(super) depth: usize,
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
        // What stands behind a GROUP BY is looked at once for each of the expressions that it is part of, since
        // any of them may be a key.
        spend(1, || begin(parsed))?;
        self.depth += 1;
        let bound = match self.key(parsed) {
            Some(key) => Ok(key),
            None => self.expression(parsed),
        };
        self.depth -= 1;
        if bound.as_ref().is_ok_and(Expr::has_pattern) {
            spend(PATTERN_EFFORT, || begin(parsed))?;
        }
        bound
    }

    /// An expression over one row, whatever stands in the `GROUP BY`.
    pub(super) fn alone(&mut self, parsed: &Parsed) -> Result<Expr, Problem> {
        Binder { scope: self.scope, grouped: None, depth: self.depth }.bind(parsed)
    }

    /// A whole expression that stands in the `GROUP BY`.
    fn key(&mut self, parsed: &Parsed) -> Option<Expr> {
        self.grouped.as_ref()?;
        let bound = self.alone(parsed).ok()?;
        let grouped = self.grouped.as_ref()?;
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
            Parsed::Value(value) => {
                let bound = literal(&value.value, at)?;
                if let Kind::Literal(Value::Varchar(text)) = &bound.kind {
                    spend(text.len() / SHARE, || at)?;
                }
                Ok(bound)
            }
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
                let operand = self.bind(expr)?;
                let low = self.meeting(&operand, low, at)?;
                let high = self.meeting(&operand, high, at)?;
                let kind = Kind::Between(Box::new(operand), Box::new(low), Box::new(high));
                Ok(negate_if(*negated, boolean(kind, at)))
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
        spend(self.scope.columns.len() / SHARE, || at)?;
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
                // Behind a GROUP BY this is made for every operator around it.
                spend(self.scope.columns.len(), || at)?;
                let known = self.scope.columns.iter().map(|(of, c)| format!("{of}.{}", c.name));
                let known: Vec<String> = known.collect();
                let expected = match known.is_empty() {
                    true => "no column".to_owned(),
                    false => format!("one of {}", known.join(", ")),
                };
                Err(Problem::expected(at, format!("`{shown}`"), expected))
            }
            several => {
                spend(several.len(), || at)?;
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
        let of = comparable(left.of, right.of, at)?;
        let has_room = of.has_room_for(left.of) && of.has_room_for(right.of);
        let meet = |side: Expr| Box::new(if has_room { side.into_type(of) } else { side });
        Ok((meet(left), meet(right)))
    }

    /// What an expression is compared with that is bound already, in the type in which they meet.
    fn meeting(&mut self, operand: &Expr, other: &Parsed, at: Position) -> Result<Expr, Problem> {
        let other = self.bind(other)?;
        let of = comparable(operand.of, other.of, at)?;
        let has_room = of.has_room_for(operand.of) && of.has_room_for(other.of);
        Ok(if has_room { other.into_type(of) } else { other })
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
        let has_room = list.iter().chain([&expr]).all(|element| of.has_room_for(element.of));
        let meet = |element: Expr| if has_room { element.into_type(of) } else { element };
        let list = list.into_iter().map(meet).collect();
        Ok(negate_if(negated, boolean(Kind::In(Box::new(meet(expr)), list), at)))
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
        let like = Like::new(text, patterns::compile)
            .map_err(|why| Problem::new(pattern.at, format!("a pattern cannot be used: {why}")))?;
        let at = expr.at;
        Ok(negate_if(negated, boolean(Kind::Like(Box::new(expr), like), at)))
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
        // Bound once, however many values it is compared with: of CASEs in each other there would be as many
        // as the product of their lengths.
        let operand = operand.map(|operand| self.bind(operand)).transpose()?;
        for when in conditions {
            let condition = match &operand {
                Some(operand) => self.meeting(operand, &when.condition, begin(&when.condition))?,
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
        let otherwise = Box::new(otherwise.into_type(of));
        let kind = match operand {
            Some(operand) => Kind::CaseOf(Box::new(operand), whens, otherwise),
            None => Kind::Case(whens, otherwise),
        };
        Ok(Expr { kind, of, at })
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

/// The type in which two values are compared. Exact numbers for which that has no room are compared as they are.
fn comparable(left: Type, right: Type, at: Position) -> Result<Type, Problem> {
    left.common(right).filter(|of| of.is_ordered()).ok_or_else(|| {
        let found = format!("{left} and {right}");
        Problem::expected(at, found, "two values of one type that can be compared")
    })
}

fn boolean(kind: Kind, at: Position) -> Expr {
    Expr { kind, of: Type::Boolean, at }
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    let at = expr.at;
    if negated { boolean(Kind::Not(Box::new(expr)), at) } else { expr }
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
