//! Expressions with types, as they are computed.

use super::functions::Function;
use crate::like::Like;
use crate::pattern::Pattern;
use crate::problem::Position;
use crate::value::{Type, Value};

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// How two numbers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

/// What an expression does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A column of the row.
    Column(usize),
    /// A value.
    Literal(Value),
    /// `NOT`
    Not(Box<Expr>),
    /// `AND`
    And(Box<Expr>, Box<Expr>),
    /// `OR`
    Or(Box<Expr>, Box<Expr>),
    /// Both sides have one type.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// Of numbers of one kind.
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// A number below zero.
    Negate(Box<Expr>),
    /// A point in time, moved by milliseconds.
    Shift(Box<Expr>, i64),
    /// `IS NULL`
    IsNull(Box<Expr>),
    /// `IS TRUE` or `IS FALSE`
    Is(Box<Expr>, bool),
    /// `IS NOT DISTINCT FROM`
    Same(Box<Expr>, Box<Expr>),
    /// `IN`
    In(Box<Expr>, Vec<Expr>),
    /// `LIKE`
    Like(Box<Expr>, Like),
    /// Conditions with results, and the result if none holds.
    Case(Vec<(Expr, Expr)>, Box<Expr>),
    /// What is looked at once, what it may be equal to (each of the type in which the two are compared) with
    /// results, and the result if it is none of them.
    CaseOf(Box<Expr>, Vec<(Expr, Expr)>, Box<Expr>),
    /// What is looked at once, and the least and the most that it may be, likewise.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    /// To the type of the expression; a value that cannot is an error, or NULL.
    Cast(Box<Expr>, bool),
    /// A function. Its pattern is not among the arguments.
    Call(Function, Vec<Expr>, Option<Pattern>),
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it does.
    pub kind: Kind,
    /// What it gives.
    pub of: Type,
    /// Where it stands.
    pub at: Position,
}

/// Wherever it stands.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.of == other.of && self.kind == other.kind
    }
}

impl Expr {
    /// A value.
    pub fn literal(value: Value, of: Type, at: Position) -> Self {
        Self { kind: Kind::Literal(value), of, at }
    }

    /// A column.
    pub fn column(index: usize, of: Type, at: Position) -> Self {
        Self { kind: Kind::Column(index), of, at }
    }

    /// The same value as another type, into which it always fits or which says so when it does not.
    pub fn into_type(self, of: Type) -> Self {
        if self.of == of {
            return self;
        }
        let at = self.at;
        match self.kind {
            Kind::Literal(Value::Null) => Self { kind: self.kind, of, at },
            _ => Self { kind: Kind::Cast(Box::new(self), false), of, at },
        }
    }

    /// Whether it has a pattern, apart from its parts.
    pub fn has_pattern(&self) -> bool {
        matches!(self.kind, Kind::Like(_, Like::Pattern(_)) | Kind::Call(_, _, Some(_)))
    }

    /// Whether there may be a row for which it has no value.
    pub fn may_fail(&self) -> bool {
        let mut may_fail = match &self.kind {
            Kind::Arithmetic(..) | Kind::Negate(_) | Kind::Shift(..) | Kind::Call(..) => true,
            Kind::Cast(_, is_try) => !is_try,
            // A text may be too long for the pattern.
            Kind::Like(_, like) => matches!(like, Like::Pattern(_)),
            // Their values may be cast where they meet.
            Kind::CaseOf(..) | Kind::Between(..) => true,
            _ => false,
        };
        self.parts(&mut |part| may_fail |= part.may_fail());
        may_fail
    }

    /// How much of a plan it takes: a part is 1, and a pattern, which may need 1 MiB, far more.
    pub fn effort(&self) -> usize {
        let mut effort = if self.has_pattern() { 1_000 } else { 1 };
        self.parts(&mut |part| effort += part.effort());
        effort
    }

    /// Calls something with every column.
    pub fn columns(&self, found: &mut impl FnMut(usize)) {
        if let Kind::Column(index) = self.kind {
            found(index);
        }
        self.parts(&mut |part| part.columns(&mut *found));
    }

    /// The parts of a condition that all have to hold.
    pub fn conjuncts(self, parts: &mut Vec<Self>) {
        match self.kind {
            Kind::And(left, right) => {
                left.conjuncts(parts);
                right.conjuncts(parts);
            }
            _ => parts.push(self),
        }
    }

    /// One condition out of parts that all have to hold.
    pub fn all(parts: Vec<Self>) -> Option<Self> {
        parts.into_iter().reduce(|left, right| {
            let at = left.at;
            Self { kind: Kind::And(Box::new(left), Box::new(right)), of: Type::Boolean, at }
        })
    }

    /// The same expression over columns that lie further left.
    pub fn shifted(mut self, by: usize) -> Self {
        self.shift(by);
        self
    }

    fn shift(&mut self, by: usize) {
        if let Kind::Column(index) = &mut self.kind {
            *index -= by;
        }
        self.parts_mut(&mut |part| part.shift(by));
    }
}

/// The one place that knows which parts an expression has: for looking at them and for changing them.
macro_rules! walk {
    ($doc:literal, $name:ident, $iter:ident, $($reference:tt)+) => {
        impl Expr {
            #[doc = $doc]
            pub fn $name(self: $($reference)+ Self, see: &mut dyn FnMut($($reference)+ Self)) {
                match $($reference)+ self.kind {
                    Kind::Column(_) | Kind::Literal(_) => {}
                    Kind::Not(one)
                    | Kind::Negate(one)
                    | Kind::Shift(one, _)
                    | Kind::IsNull(one)
                    | Kind::Is(one, _)
                    | Kind::Like(one, _)
                    | Kind::Cast(one, _) => see(one),
                    Kind::And(left, right)
                    | Kind::Or(left, right)
                    | Kind::Compare(_, left, right)
                    | Kind::Arithmetic(_, left, right)
                    | Kind::Same(left, right) => {
                        see(left);
                        see(right);
                    }
                    Kind::In(one, list) => {
                        see(one);
                        list.$iter().for_each(see);
                    }
                    Kind::Case(whens, otherwise) => {
                        for (condition, result) in whens {
                            see(condition);
                            see(result);
                        }
                        see(otherwise);
                    }
                    Kind::CaseOf(operand, whens, otherwise) => {
                        see(operand);
                        for (value, result) in whens {
                            see(value);
                            see(result);
                        }
                        see(otherwise);
                    }
                    Kind::Between(operand, low, high) => {
                        see(operand);
                        see(low);
                        see(high);
                    }
                    Kind::Call(_, arguments, _) => arguments.$iter().for_each(see),
                }
            }
        }
    };
}

walk!("Calls something with every part.", parts, iter, &);
walk!("Calls something that may change it with every part.", parts_mut, iter_mut, &mut);
