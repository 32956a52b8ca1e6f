//! A table of a scenario file on its way into a typed value.
//!
//! Invariants: an unknown key is found before a missing one, so that a misspelt key is called
//! misspelt; every value is read by [`Param::read`] and nowhere else.

use super::param::Param;
use super::source::Problem;
use super::target::Sites;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with its place in the text.
pub type Value<'t> = Spanned<DeValue<'t>>;

/// What kind of value stands here, for error messages.
pub(super) fn expected<T>(what: &str, value: &Value<'_>) -> Result<T, Problem> {
    let found = match value.get_ref() {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(word) => word.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    Err(Problem::new(value.span(), format!("expected {what}, found {found}")))
}

/// A table whose keys are all known.
pub(super) struct Fields<'t> {
    what: String,
    span: Range<usize>,
    /// `None` for a table that is left out: every key in it is left out too.
    table: Option<&'t DeTable<'t>>,
    sites: &'t Sites,
}

impl<'t> Fields<'t> {
    /// Opens a table and refuses every key that is not in one of the lists.
    pub(super) fn open(
        value: &'t Value<'t>,
        what: impl Into<String>,
        known: &[&[&str]],
        sites: &'t Sites,
    ) -> Result<Self, Problem> {
        let what = what.into();
        let DeValue::Table(table) = value.get_ref() else {
            return expected(&format!("{what} as a table"), value);
        };
        Self { what, span: value.span(), table: Some(table), sites }.known(known)
    }

    /// Opens the whole file.
    pub(super) fn of_file(table: &'t DeTable<'t>, sites: &'t Sites) -> Self {
        Self { what: "a scenario".to_owned(), span: 0..0, table: Some(table), sites }
    }

    /// A table that is left out.
    pub(super) fn none(sites: &'t Sites) -> Self {
        Self { what: "a table".to_owned(), span: 0..0, table: None, sites }
    }

    /// Opens a table in this one, if it is there.
    pub(super) fn table(&self, key: &str, known: &[&[&str]]) -> Result<Option<Self>, Problem> {
        self.raw(key)
            .map(|value| Self::open(value, format!("`{key}`"), known, self.sites))
            .transpose()
    }

    /// Refuses every key that is not in one of the lists. The first in the text is reported.
    pub(super) fn known(self, known: &[&[&str]]) -> Result<Self, Problem> {
        let unknown = self
            .table
            .into_iter()
            .flat_map(DeTable::keys)
            .filter(|key| !known.iter().any(|list| list.contains(&key.get_ref().as_ref())))
            .min_by_key(|key| key.span().start);
        match unknown {
            Some(key) => Err(Problem::unknown_in(
                key.span(),
                ("key", &format!(" in {}", self.what)),
                key.get_ref(),
                &known.concat(),
            )),
            None => Ok(self),
        }
    }

    /// What the table is, for error messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// The place of a value, or of the whole table where its key is left out.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.raw(key).map_or_else(|| self.span(), Value::span)
    }

    /// Opens a table in this one that must be there.
    pub(super) fn nested(&self, key: &str, known: &[&[&str]]) -> Result<Self, Problem> {
        self.table(key, known)?
            .ok_or_else(|| Problem::new(self.span(), format!("{} needs `{key}`", self.what)))
    }

    /// The place of the whole table.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn sites(&self) -> &'t Sites {
        self.sites
    }

    pub(super) fn raw(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table?.get(key)
    }

    /// The value of a key that may be left out.
    pub(super) fn optional<P: Param>(&self, key: &str) -> Result<Option<P>, Problem> {
        self.raw(key).map(|value| P::read(value, self.sites)).transpose()
    }

    /// The value of a key, or what it is when left out.
    pub(super) fn or<P: Param>(&self, key: &str, default: P) -> Result<P, Problem> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// The value of a key that must be there.
    pub(super) fn required<P: Param>(&self, key: &str) -> Result<P, Problem> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None => Err(Problem::new(self.span(), format!("{} needs `{key}`", self.what))
                .help(format!("`{key}` is {}", P::EXPECTED))),
        }
    }

    /// The tables of a list, `key = [{ .. }, { .. }]` or `[[key]]`.
    pub(super) fn list(&self, key: &str) -> Result<&'t [Value<'t>], Problem> {
        match self.raw(key) {
            None => Ok(&[]),
            Some(value) => match value.get_ref() {
                DeValue::Array(items) => Ok(items),
                _ => expected(&format!("a list of tables for `{key}`"), value),
            },
        }
    }

    /// The `kind` of this table, one of the known ones.
    pub(super) fn kind(
        value: &'t Value<'t>,
        what: &str,
        known: &[&str],
    ) -> Result<&'t str, Problem> {
        let DeValue::Table(table) = value.get_ref() else {
            return expected(&format!("a {what} as a table `{{ kind = .. }}`"), value);
        };
        let Some(kind) = table.get("kind") else {
            return Err(Problem::new(value.span(), format!("a {what} needs `kind`"))
                .help(format!("expected one of: {}", known.join(", "))));
        };
        let Some(name) = kind.get_ref().as_str() else {
            return expected("the name of a kind", kind);
        };
        if known.contains(&name) {
            return Ok(name);
        }
        Err(Problem::unknown(kind.span(), &format!("kind of {what}"), name, known))
    }
}
