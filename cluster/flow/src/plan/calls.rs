//! Calls of functions and of aggregates.

use super::bind::Binder;
use super::expr::{Arithmetic, Expr};
use super::numbers::arithmetic;
use super::{Aggregate, Fold, functions};
use crate::problem::{Position, Problem};
use crate::value::Type;
use crate::value::decimal::{PRECISION_MAX, QUOTIENT_SCALE};
use sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr as Parsed, Function as Called, FunctionArg, FunctionArgExpr,
    FunctionArguments,
};

impl Binder<'_> {
    /// A function that rounds, whose grammar has room for more than that.
    pub(super) fn rounding(
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

    /// Any other function.
    pub(super) fn function(&mut self, called: &Called, at: Position) -> Result<Expr, Problem> {
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
        // Before its arguments are looked at: behind a GROUP BY those of an aggregate with a slip in its name would
        // be told to be no columns of the group.
        let is_mod = name.eq_ignore_ascii_case(functions::MOD);
        let known = if is_mod { None } else { Some(functions::known(&name, at)?) };
        let mut arguments = Vec::new();
        for argument in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
                return refuse(&format!("`{argument}`"));
            };
            arguments.push(self.bind(argument)?);
        }
        match known {
            Some(known) => functions::called(known, arguments, at),
            None => remainder(arguments, at),
        }
    }

    fn aggregate(
        &mut self,
        fold: Fold,
        name: &str,
        arguments: &[FunctionArg],
        at: Position,
    ) -> Result<Expr, Problem> {
        if self.grouped.is_none() {
            let expected = "an expression over one row; aggregates stand in SELECT and HAVING, not in \
                            each other";
            return Err(Problem::expected(at, format!("the aggregate {name}"), expected));
        }
        let argument = match arguments {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if fold == Fold::Count => None,
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => Some(self.alone(argument)?),
            _ => {
                let expected =
                    if fold == Fold::Count { "`*` or one argument" } else { "one argument" };
                return Err(Problem::expected(at, format!("the arguments of {name}"), expected));
            }
        };
        let of = argument.as_ref().map_or(Ok(Type::Bigint), |argument| folded(fold, argument))?;
        let grouped = self.grouped.as_mut().expect("an aggregate stands behind a GROUP BY");
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
}

/// The aggregate functions, by name.
pub(super) const FOLDS: &[(&str, Fold)] = &[
    ("COUNT", Fold::Count),
    ("SUM", Fold::Sum),
    ("MIN", Fold::Min),
    ("MAX", Fold::Max),
    ("AVG", Fold::Avg),
    ("FIRST_VALUE", Fold::First),
    ("LAST_VALUE", Fold::Last),
];

/// The aggregate function of a name.
pub(super) fn fold(name: &str) -> Option<Fold> {
    FOLDS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, fold)| *fold)
}

/// `MOD`.
fn remainder(arguments: Vec<Expr>, at: Position) -> Result<Expr, Problem> {
    let count = arguments.len();
    let Ok([left, right]) = <[Expr; 2]>::try_from(arguments) else {
        let found = format!("{count} arguments of {}", functions::MOD);
        return Err(Problem::expected(at, found, "2 arguments"));
    };
    arithmetic(Arithmetic::Remainder, left, right, at)
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
