//! The text form of metrics: the samples of each metric together, below what it is.
//!
//! ```text
//! # HELP name what it means
//! # TYPE name counter
//! name{label="value"} 1
//! ```
//!
//! Source: "Text-based format" of the Prometheus documentation, version 0.0.4.

use super::names::{ALL, Metric};
use fulmar_host::time::Duration;
use std::fmt::{Display, Write};

/// Metrics on their way into text.
pub struct Text {
    /// The samples of each metric, in the order of the table.
    samples: Vec<String>,
}

impl Default for Text {
    fn default() -> Self {
        Self { samples: vec![String::new(); ALL.len()] }
    }
}

/// Names and values that tell the samples of one metric apart.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Text {
    /// A sample.
    pub fn put(&mut self, metric: Metric, labels: Labels<'_>, value: impl Display) {
        self.put_suffixed(metric, "", labels, value);
    }

    /// A sample that is 1 or 0.
    pub fn flag(&mut self, metric: Metric, labels: Labels<'_>, value: bool) {
        self.put(metric, labels, u8::from(value));
    }

    /// A sample in seconds.
    pub fn seconds(&mut self, metric: Metric, labels: Labels<'_>, value: Duration) {
        self.put(metric, labels, value.as_secs_f64());
    }

    /// One for each of some values, of which one holds.
    pub fn one_of(
        &mut self,
        metric: Metric,
        (labels, label): (Labels<'_>, &'static str),
        values: &[&str],
        holds: &str,
    ) {
        for value in values {
            let labels = [labels, &[(label, *value)]].concat();
            self.flag(metric, &labels, *value == holds);
        }
    }

    /// How many lay in each bucket, up to a bound in microseconds and beyond the last one, and the sum of
    /// all in microseconds.
    pub fn histogram(&mut self, metric: Metric, bounds_us: &[u64], counts: &[u64], total_us: u64) {
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds_us.get(at);
            let bound = bound.map_or("+Inf".to_owned(), |us| {
                Duration::from_micros(*us).as_secs_f64().to_string()
            });
            self.put_suffixed(metric, "_bucket", &[("le", &bound)], below);
        }
        let total = Duration::from_micros(total_us).as_secs_f64();
        self.put_suffixed(metric, "_sum", &[], total);
        self.put_suffixed(metric, "_count", &[], below);
    }

    fn put_suffixed(
        &mut self,
        metric: Metric,
        suffix: &str,
        labels: Labels<'_>,
        value: impl Display,
    ) {
        let at = ALL.iter().position(|known| known.name == metric.name);
        let out = &mut self.samples[at.expect("every metric is in the table")];
        out.push_str(metric.name);
        out.push_str(suffix);
        for (at, (label, value)) in labels.iter().enumerate() {
            out.push_str(if at == 0 { "{" } else { "," });
            out.push_str(label);
            out.push_str("=\"");
            escape(out, value);
            out.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(out, "{close} {value}").expect("a string takes everything");
    }

    /// All that was put.
    pub fn finish(self) -> String {
        let mut text = String::new();
        for (metric, samples) in ALL.iter().zip(self.samples) {
            if samples.is_empty() {
                continue;
            }
            let (name, kind) = (metric.name, metric.kind.name());
            write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{samples}", metric.help)
                .expect("a string takes everything");
        }
        text
    }
}

/// A value of a label, in which three characters mean something.
fn escape(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{FLUSHES, LINK_TROUBLE, READY, ROLE};
    use super::*;

    #[test]
    fn the_form_is_that_of_prometheus() {
        let mut text = Text::default();
        text.one_of(ROLE, (&[], "role"), &["leader", "follower"], "leader");
        text.put(LINK_TROUBLE, &[("link", "hub"), ("error", "a \"b\" \\ c\nd")], 1.5);
        text.histogram(FLUSHES, &[500, 1_000], &[2, 0, 1], 1_500_000);
        text.flag(READY, &[], true);
        insta::assert_snapshot!(text.finish());
    }
}
