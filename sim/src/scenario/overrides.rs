//! Keys of the site's configuration that a scenario sets.
//!
//! Any key may be set, `config.consensus.heartbeat = "50ms..200ms"`, with a value or a range. What
//! the keys are is the node's business: the drawn table is laid over the configuration of each
//! site, and the node refuses what it does not know.

use super::fields::Value;
use super::quantity::{Count, Probability, Quantity, Span};
use super::source::Problem;
use crate::prng::Prng;
use fulmar_types::units::{HumanDuration, HumanSize};
use toml::de::{DeInteger, DeTable, DeValue};

/// A key of the configuration with its value, or a table of such.
#[derive(Clone, Debug, PartialEq)]
pub enum Override {
    /// A value that goes into the configuration as it is.
    Plain(toml::Value),
    /// A range of durations.
    Duration(Span<HumanDuration>),
    /// A range of sizes.
    Size(Span<HumanSize>),
    /// A range of whole numbers.
    Count(Span<Count>),
    /// A range of numbers from 0 to 1.
    Share(Span<Probability>),
    /// A table, ordered by key.
    Table(Vec<(String, Self)>),
}

impl Override {
    pub(super) fn none() -> Self {
        Self::Table(Vec::new())
    }

    pub(super) fn read(value: &Value<'_>) -> Result<Self, Problem> {
        Ok(match value.get_ref() {
            DeValue::String(text) => return Self::read_text(value, text),
            DeValue::Integer(number) => Self::Plain(toml::Value::Integer(integer(value, number)?)),
            DeValue::Float(number) => {
                let parsed = number.as_str().parse().ok();
                let parsed = parsed.ok_or_else(|| Problem::new(value.span(), "not a number"))?;
                Self::Plain(toml::Value::Float(parsed))
            }
            DeValue::Boolean(word) => Self::Plain(toml::Value::Boolean(*word)),
            DeValue::Datetime(date) => Self::Plain(toml::Value::Datetime(*date)),
            DeValue::Array(items) => {
                let mut plain = Vec::new();
                for item in items.iter() {
                    match Self::read(item)? {
                        Self::Plain(value) => plain.push(value),
                        _ => {
                            return Err(Problem::new(
                                item.span(),
                                "a list in `config` holds plain values only",
                            ));
                        }
                    }
                }
                Self::Plain(toml::Value::Array(plain))
            }
            DeValue::Table(table) => Self::Table(Self::read_table(table)?),
        })
    }

    fn read_table(table: &DeTable<'_>) -> Result<Vec<(String, Self)>, Problem> {
        let mut keys: Vec<(String, Self)> = table
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), Self::read(value)?)))
            .collect::<Result<_, Problem>>()?;
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(keys)
    }

    /// A range is what begins with a digit and has two dots; anything else is the node's business.
    fn read_text(value: &Value<'_>, text: &str) -> Result<Self, Problem> {
        if !text.contains("..") || !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Self::Plain(toml::Value::String(text.to_owned())));
        }
        if let Ok(span) = Span::parse(text) {
            return Ok(Self::Duration(span));
        }
        if let Ok(span) = Span::parse(text) {
            return Ok(Self::Size(span));
        }
        if let Ok(span) = Span::parse(text) {
            return Ok(Self::Count(span));
        }
        if let Ok(span) = Span::parse(text) {
            return Ok(Self::Share(span));
        }
        Err(Problem::new(value.span(), format!("`{text}` is no range")).help(
            "a range is two durations, sizes, whole numbers or shares, the smaller one first: \
             \"300ms..600ms\", \"1MiB..4MiB\", \"1..3\", \"0.1..0.5\"",
        ))
    }

    /// Draws every range, each out of a stream that its key names.
    pub(super) fn draw(&self, seed: u64, path: &str) -> toml::Value {
        let mut prng = Prng::new(seed, path);
        let text = |quantity: &dyn std::fmt::Display| toml::Value::String(quantity.to_string());
        match self {
            Self::Plain(value) => value.clone(),
            Self::Duration(span) => text(&span.pick(&mut prng)),
            Self::Size(span) => text(&span.pick(&mut prng)),
            Self::Count(span) => toml::Value::Integer(span.pick(&mut prng).to_ticks()),
            Self::Share(span) => {
                let share = span.pick(&mut prng);
                toml::Value::Float(f64::from(share.ppm()) / 1e6)
            }
            Self::Table(keys) => toml::Value::Table(
                keys.iter()
                    .map(|(key, value)| (key.clone(), value.draw(seed, &format!("{path}.{key}"))))
                    .collect(),
            ),
        }
    }
}

fn integer(value: &Value<'_>, number: &DeInteger<'_>) -> Result<i64, Problem> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_err(|_| Problem::new(value.span(), "the number is too large"))
}

/// Lays the drawn keys over a configuration: tables are merged, other values replaced.
pub(super) fn lay_over(config: &mut toml::Table, overrides: &toml::Table) {
    for (key, value) in overrides {
        match (config.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            _ => {
                config.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_and_values_replaced() {
        let mut config: toml::Table = "a = 1\n[t]\nb = 2\nc = 3\n".parse().expect("TOML");
        let above: toml::Table = "d = 5\n[t]\nb = 4\n".parse().expect("TOML");
        lay_over(&mut config, &above);
        let wanted: toml::Table = "a = 1\nd = 5\n[t]\nb = 4\nc = 3\n".parse().expect("TOML");
        assert_eq!(config, wanted);
    }

    #[test]
    fn ranges_of_every_kind_are_drawn() {
        let text = "d = \"300ms..600ms\"\ns = \"1KiB..2KiB\"\nn = \"1..3\"\nf = \"0.1..0.5\"\n\
                    path = \"../x\"\nlist = [1, 2]\n";
        let table = DeTable::parse(text).expect("TOML").into_inner();
        let keys = Override::Table(Override::read_table(&table).expect("keys"));
        let drawn = keys.draw(7, "config");
        let drawn = drawn.as_table().expect("a table");
        let duration = drawn["d"].as_str().expect("text");
        assert!(HumanDuration::parse(duration).is_ok(), "{duration}");
        assert!(HumanSize::parse(drawn["s"].as_str().expect("text")).is_ok());
        assert!((1..=3).contains(&drawn["n"].as_integer().expect("a number")));
        assert!((0.1..=0.5).contains(&drawn["f"].as_float().expect("a number")));
        assert_eq!(drawn["path"].as_str(), Some("../x"));
        assert_eq!(keys.draw(7, "config"), keys.draw(7, "config"));
    }
}
