//! What a parameter of a scenario is: read from a file, drawn from the seed, printed again.
//!
//! A scenario exists in two stages. As [`Written`] it holds ranges and choices; as [`Drawn`] every
//! parameter has its one value, and the type of each field says so. The macro [`kinds!`] makes
//! both, and reading, drawing and printing, out of one table of parameters, so that they cannot
//! disagree.
//!
//! Invariant: a drawn value, printed and read, draws to itself with any seed.

use super::fields::{Value, expected};
use super::quantity::{Mix, Probability, Quantity, Span};
use super::source::Problem;
use super::target::Sites;
use crate::prng::Prng;
use fulmar_types::units::{HumanDuration, HumanSize};
use fulmar_types::{NodeId, Probe};
use std::fmt::Debug;
use toml::de::DeValue;

/// What a parameter is drawn from.
pub struct Draw<'a> {
    pub(super) prng: Prng,
    pub(super) sites: &'a Sites,
}

/// A parameter of a workload, a fault, a check or the world.
pub trait Param: Clone + Debug + PartialEq + Sized {
    /// What it is once it is drawn.
    type Drawn: Clone + Debug + PartialEq + Printed;
    /// What it is and how it is written, for error messages.
    const EXPECTED: &'static str;

    /// Reads it from a file.
    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem>;

    /// Draws it.
    fn draw(&self, draw: &mut Draw<'_>) -> Self::Drawn;
}

/// A drawn parameter that goes back into a file.
pub trait Printed {
    /// It as a TOML value; `None` if its key is left out.
    fn printed(&self) -> Option<String>;
}

/// Whether the ranges of a scenario have been drawn.
pub trait Stage: Clone + Debug + PartialEq {
    /// A parameter in this stage.
    type Of<P: Param>: Clone + Debug + PartialEq;
}

/// The scenario as it stands in its file, with ranges and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {}

/// The scenario as one seed has drawn it: no range and no choice is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {}

impl Stage for Written {
    type Of<P: Param> = P;
}

impl Stage for Drawn {
    type Of<P: Param> = P::Drawn;
}

/// A kind of workload, fault or check, for the list that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name in a scenario file.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its parameters: the key, what is written there, and what it means.
    pub parameters: &'static [(&'static str, &'static str, &'static str)],
}

/// The pieces of one inline table that is being printed.
#[derive(Default)]
pub(super) struct Line {
    pieces: Vec<String>,
}

impl Line {
    pub(super) fn put(&mut self, key: &str, value: &impl Printed) {
        if let Some(value) = value.printed() {
            self.pieces.push(format!("{key} = {value}"));
        }
    }

    pub(super) fn put_raw(&mut self, key: &str, value: String) {
        self.pieces.push(format!("{key} = {value}"));
    }

    /// The pieces in one line, as an inline table.
    pub(super) fn finish(self) -> String {
        format!("{{ {} }}", self.pieces.join(", "))
    }

    /// The pieces in a line each.
    pub(super) fn finish_lines(self, out: &mut String) {
        for piece in self.pieces {
            out.push_str(&piece);
            out.push('\n');
        }
    }

    /// A list of inline tables, a line each; nothing if there are none.
    pub(super) fn print_list(key: &str, rows: impl Iterator<Item = Self>, out: &mut String) {
        let rows: Vec<String> = rows.map(|row| format!("  {},\n", row.finish())).collect();
        if !rows.is_empty() {
            out.push_str(&format!("{key} = [\n{}]\n", rows.concat()));
        }
    }
}

/// Text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn read_span<T: Quantity>(value: &Value<'_>) -> Result<Span<T>, Problem> {
    let parsed = match value.get_ref() {
        DeValue::String(text) => Span::parse(text),
        DeValue::Integer(number) if T::BARE => Span::parse(number.as_str()),
        DeValue::Float(number) if T::BARE => Span::parse(number.as_str()),
        _ => return expected(T::EXPECTED, value),
    };
    parsed.map_err(|error| {
        Problem::new(value.span(), error).help(format!("expected {}", T::EXPECTED))
    })
}

impl<T: Quantity> Param for Span<T>
where
    T: Printed,
{
    type Drawn = T;
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        read_span(value)
    }

    fn draw(&self, draw: &mut Draw<'_>) -> T {
        self.pick(&mut draw.prng)
    }
}

impl<T: Quantity> Param for Mix<T> {
    type Drawn = Self;
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        read_span(value).map(Self::of)
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        *self
    }
}

impl<T: Quantity> Printed for Mix<T> {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.span().to_string()))
    }
}

impl<P: Param> Param for Option<P> {
    type Drawn = Option<P::Drawn>;
    const EXPECTED: &'static str = P::EXPECTED;

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        P::read(value, sites).map(Some)
    }

    fn draw(&self, draw: &mut Draw<'_>) -> Self::Drawn {
        self.as_ref().map(|param| param.draw(draw))
    }
}

impl<P: Printed> Printed for Option<P> {
    fn printed(&self) -> Option<String> {
        self.as_ref().and_then(Printed::printed)
    }
}

/// Parameters that are written as they print, in quotes or bare, and that are never drawn.
macro_rules! printed {
    (quoted: $($type:ty),*; bare: $($bare:ty),*) => {
        $(impl Printed for $type {
            fn printed(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }
        })*
        $(impl Printed for $bare {
            fn printed(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}
printed! {
    quoted: HumanDuration, HumanSize, super::quantity::ClockShift, super::quantity::Rate,
        super::quantity::Bandwidth, String;
    bare: Probability, super::quantity::Count, bool, u64
}

impl Printed for Probe {
    fn printed(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

impl Param for bool {
    type Drawn = Self;
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        value.get_ref().as_bool().map_or_else(|| expected(Self::EXPECTED, value), Ok)
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        *self
    }
}

impl Param for String {
    type Drawn = Self;
    const EXPECTED: &'static str = "text in quotes";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        match value.get_ref().as_str() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            _ => expected(Self::EXPECTED, value),
        }
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        self.clone()
    }
}

/// A seed: it is kept below 2^63, because TOML knows no larger number.
impl Param for u64 {
    type Drawn = Self;
    const EXPECTED: &'static str = "a number from 0 to 9223372036854775807";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        let number = value.get_ref().as_integer().filter(|number| number.radix() == 10);
        match number.and_then(|number| number.as_str().parse::<u64>().ok()) {
            Some(number) if number <= i64::MAX.unsigned_abs() => Ok(number),
            _ => expected(Self::EXPECTED, value),
        }
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        *self
    }
}

impl Param for Probe {
    type Drawn = Self;
    const EXPECTED: &'static str = "the name of a probe";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        let Some(text) = value.get_ref().as_str() else {
            return expected(Self::EXPECTED, value);
        };
        let names: Vec<&str> = Self::ALL.iter().map(|probe| probe.name()).collect();
        Self::by_name(text).ok_or_else(|| Problem::unknown(value.span(), "probe", text, &names))
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        *self
    }
}

/// Lists: every item is drawn on its own.
impl<P: Param> Param for Vec<P> {
    type Drawn = Vec<P::Drawn>;
    const EXPECTED: &'static str = "a list";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| P::read(item, sites)).collect(),
            _ => expected(&format!("a list, each item {}", P::EXPECTED), value),
        }
    }

    fn draw(&self, draw: &mut Draw<'_>) -> Self::Drawn {
        self.iter().map(|param| param.draw(draw)).collect()
    }
}

impl<P: Printed> Printed for Vec<P> {
    fn printed(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let items: Vec<String> = self.iter().filter_map(Printed::printed).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// Picks a node of a site, each equally likely.
pub(super) fn pick_node(draw: &mut Draw<'_>, nodes: u32) -> NodeId {
    NodeId(draw.prng.between(1, u64::from(nodes)))
}

/// A parameter that is one of a few words.
macro_rules! words {
    (
        $(#[doc = $about:literal])*
        enum $Name:ident, $what:literal {
            $($(#[doc = $doc:literal])* $Word:ident = $text:literal,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Name {
            $($(#[doc = $doc])* $Word,)*
        }

        impl $Name {
            /// The word in a scenario file.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$Word => $text,)* }
            }
        }

        impl $crate::scenario::param::Printed for $Name {
            fn printed(&self) -> Option<String> {
                Some(format!("\"{}\"", self.word()))
            }
        }

        impl $crate::scenario::param::Param for $Name {
            type Drawn = Self;
            const EXPECTED: &'static str = concat!("one of", $(" \"", $text, "\"",)*);

            fn read(
                value: &$crate::scenario::fields::Value<'_>,
                _sites: &$crate::scenario::target::Sites,
            ) -> Result<Self, $crate::scenario::source::Problem> {
                let Some(word) = value.get_ref().as_str() else {
                    return $crate::scenario::fields::expected(Self::EXPECTED, value);
                };
                match word {
                    $($text => Ok(Self::$Word),)*
                    _ => Err($crate::scenario::source::Problem::unknown(
                        value.span(), $what, word, &[$($text,)*],
                    )),
                }
            }

            fn draw(&self, _draw: &mut $crate::scenario::param::Draw<'_>) -> Self {
                *self
            }
        }
    };
}
pub(super) use words;

/// Reads one parameter: with a default it may be left out.
macro_rules! take {
    ($fields:ident, $key:literal) => {
        $fields.required($key)?
    };
    ($fields:ident, $key:literal, $default:expr) => {
        $fields.or($key, $default)?
    };
}
pub(super) use take;

/// A struct of parameters that exists only as written: ranges out of which others are drawn.
macro_rules! ranges {
    (
        $(#[doc = $about:literal])*
        struct $Name:ident {
            $($(#[doc = $doc:literal])* $field:ident = $key:literal: $type:ty, or $default:expr;)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $Name {
            $($(#[doc = $doc])* pub(super) $field: $type,)*
        }

        impl $Name {
            pub(super) const KEYS: &'static [&'static str] = &[$($key,)*];

            pub(super) fn from_fields(
                fields: &$crate::scenario::fields::Fields<'_>,
            ) -> Result<Self, $crate::scenario::source::Problem> {
                Ok(Self { $($field: fields.or($key, $default)?,)* })
            }
        }
    };
}
pub(super) use ranges;

/// A struct of parameters in both stages, with reading, drawing and printing.
macro_rules! params {
    (
        $(#[doc = $about:literal])*
        struct $Name:ident {
            $($(#[doc = $doc:literal])* $field:ident = $key:literal: $type:ty $(, or $default:expr)?;)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name<S: $crate::scenario::param::Stage> {
            $($(#[doc = $doc])* pub $field: S::Of<$type>,)*
        }

        impl $Name<$crate::scenario::param::Written> {
            pub(super) const KEYS: &'static [&'static str] = &[$($key,)*];

            pub(super) fn from_fields(
                fields: &$crate::scenario::fields::Fields<'_>,
            ) -> Result<Self, $crate::scenario::source::Problem> {
                Ok(Self {
                    $($field: $crate::scenario::param::take!(fields, $key $(, $default)?),)*
                })
            }

            pub(super) fn draw(
                &self,
                draw: &mut $crate::scenario::param::Draw<'_>,
            ) -> $Name<$crate::scenario::param::Drawn> {
                use $crate::scenario::param::Param;
                $Name { $($field: self.$field.draw(draw),)* }
            }
        }

        impl $Name<$crate::scenario::param::Drawn> {
            pub(super) fn print(&self, line: &mut $crate::scenario::param::Line) {
                $(line.put($key, &self.$field);)*
            }
        }
    };
}
pub(super) use params;

/// An enum of kinds, each a struct of parameters, chosen by the key `kind`.
macro_rules! kinds {
    (
        $(#[doc = $about:literal])*
        enum $Enum:ident, $what:literal;
        $(
            $(#[doc = $kind_about:literal])*
            $Kind:ident = $name:literal {
                $($(#[doc = $doc:literal])*
                $field:ident = $key:literal: $type:ty $(, or $default:expr)?;)*
            }
        )*
    ) => {
        $($crate::scenario::param::params! {
            $(#[doc = $kind_about])*
            struct $Kind {
                $($(#[doc = $doc])* $field = $key: $type $(, or $default)?;)*
            }
        })*

        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $Enum<S: $crate::scenario::param::Stage> {
            $($(#[doc = $kind_about])* $Kind($Kind<S>),)*
        }

        impl<S: $crate::scenario::param::Stage> $Enum<S> {
            /// Every kind, for the list that people read.
            pub const KINDS: &'static [$crate::scenario::param::Kind] = &[
                $($crate::scenario::param::Kind {
                    name: $name,
                    about: concat!($($kind_about,)*).trim_ascii(),
                    parameters: &[$((
                        $key,
                        <$type as $crate::scenario::param::Param>::EXPECTED,
                        concat!($($doc,)*).trim_ascii(),
                    ),)*],
                },)*
            ];

            /// The name of this kind in a scenario file.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$Kind(_) => $name,)* }
            }
        }

        impl $Enum<$crate::scenario::param::Written> {
            /// Reads one table; `more` are keys that its caller reads.
            pub(super) fn read<'t>(
                value: &'t $crate::scenario::fields::Value<'t>,
                more: &[&str],
                sites: &'t $crate::scenario::target::Sites,
            ) -> Result<
                (Self, $crate::scenario::fields::Fields<'t>),
                $crate::scenario::source::Problem,
            > {
                use $crate::scenario::fields::Fields;
                match Fields::kind(value, $what, &[$($name,)*])? {
                    $($name => {
                        let fields = Fields::open(
                            value,
                            concat!("the ", $what, " `", $name, "`"),
                            &[&["kind"], $Kind::KEYS, more],
                            sites,
                        )?;
                        Ok((Self::$Kind($Kind::from_fields(&fields)?), fields))
                    })*
                    _ => unreachable!("the kind is one of the known ones"),
                }
            }

            pub(super) fn draw(
                &self,
                draw: &mut $crate::scenario::param::Draw<'_>,
            ) -> $Enum<$crate::scenario::param::Drawn> {
                match self { $(Self::$Kind(kind) => $Enum::$Kind(kind.draw(draw)),)* }
            }
        }

        impl $Enum<$crate::scenario::param::Drawn> {
            pub(super) fn print(&self, line: &mut $crate::scenario::param::Line) {
                line.put("kind", &self.kind().to_owned());
                match self { $(Self::$Kind(kind) => kind.print(line),)* }
            }
        }
    };
}
pub(super) use kinds;
