//! The plan as a picture in text.

use super::expr::Kind;
use super::source::{Origin, Source};
use super::{Fold, Operator, Plan};
use crate::sql::statement::{Late, OnError};
use std::fmt::Write;

impl Plan {
    /// The operators, each above what feeds it.
    pub fn picture(&self) -> String {
        let mut out = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if matches!(node.operator, Operator::Sink { .. }) {
                self.draw(at, "", "", &mut out);
                out.push('\n');
            }
        }
        for source in &self.sources {
            describe(source, &mut out);
        }
        out
    }

    fn draw(&self, at: usize, first: &str, rest: &str, out: &mut String) {
        let node = &self.nodes[at];
        let _ = writeln!(out, "{first}{}", self.label(at));
        let columns: Vec<String> =
            node.columns.iter().map(|column| format!("{} {}", column.name, column.of)).collect();
        let bar = if self.feeds(at) > 0 { "|" } else { " " };
        if matches!(node.operator, Operator::Project(_) | Operator::Read { .. }) {
            let _ = writeln!(out, "{rest}{bar}   {}", columns.join(", "));
        }
        let mut inputs: Vec<usize> = node.inputs.clone();
        let last = inputs.pop();
        for input in inputs {
            self.draw(input, &format!("{rest}+-- "), &format!("{rest}|   "), out);
        }
        let table = match &node.operator {
            Operator::TableJoin { table, .. } => Some(&self.sources[*table]),
            _ => None,
        };
        match (last, table) {
            (Some(input), Some(table)) => {
                self.draw(input, &format!("{rest}+-- "), &format!("{rest}|   "), out);
                let _ = writeln!(out, "{rest}+-- table {} from topic {}", table.name, table.topic);
            }
            (Some(input), None) if node.inputs.len() > 1 => {
                self.draw(input, &format!("{rest}+-- "), &format!("{rest}    "), out);
            }
            (Some(input), None) => {
                self.draw(input, &format!("{rest}+-- "), &format!("{rest}    "), out);
            }
            (None, _) => {}
        }
    }

    fn feeds(&self, at: usize) -> usize {
        self.nodes[at].inputs.len()
    }

    fn label(&self, at: usize) -> String {
        let node = &self.nodes[at];
        let place = node.at;
        match &node.operator {
            Operator::Read { source, .. } => {
                let source = &self.sources[*source];
                format!("stream {} from topic {}", source.name, source.topic)
            }
            Operator::Filter(_) => format!("filter  ({place})"),
            Operator::Project(_) => format!("compute  ({place})"),
            Operator::Assign(windows) if windows.size_ms == windows.slide_ms => {
                format!("windows of {}", duration(windows.size_ms))
            }
            Operator::Assign(windows) => {
                let (size, slide) = (duration(windows.size_ms), duration(windows.slide_ms));
                format!("windows of {size}, one every {slide}")
            }
            Operator::Group(grouping) => {
                let folds: Vec<&str> = grouping.aggregates.iter().map(|a| name(a.fold)).collect();
                let keys = grouping.keys.len() - 2;
                let by = match (keys, grouping.session_gap_ms) {
                    (_, Some(gap)) => format!("sessions with gaps of {}", duration(gap)),
                    (0, None) => "windows".to_owned(),
                    (1, None) => "windows and 1 key".to_owned(),
                    (keys, None) => format!("windows and {keys} keys"),
                };
                let folds = if folds.is_empty() { "nothing".to_owned() } else { folds.join(", ") };
                format!("group by {by}: {folds}  ({place}, keeps state)")
            }
            Operator::TableJoin { joining, .. } => {
                let kind = if joining.keeps_left { "left join" } else { "join" };
                format!("{kind} as of event time  ({place}, keeps state)")
            }
            Operator::WindowJoin { joining, .. } => {
                let kind = if joining.keeps_left { "left join" } else { "join" };
                format!("{kind} within windows  ({place}, keeps state)")
            }
            Operator::Sink { topic, key } => match key {
                Some(key) => format!("topic {topic}, key {}", node.columns[*key].name),
                None => format!("topic {topic}, no key"),
            },
        }
    }
}

fn describe(source: &Source, out: &mut String) {
    let what = if source.primary.is_some() { "table" } else { "stream" };
    let _ = writeln!(out, "{what} {}", source.name);
    if let Some(watermark) = &source.watermark {
        let column = &source.columns[watermark.column].column.name;
        let idle =
            watermark.idle_ms.map_or("never".to_owned(), |ms| format!("after {}", duration(ms)));
        let delay = duration(watermark.delay_ms);
        let _ =
            writeln!(out, "    event time  {column}, {delay} behind; a partition is idle {idle}");
    }
    let on_error = match &source.on_error {
        OnError::DeadLetter(topic) => format!("to topic {}", topic.text),
        OnError::Drop => "dropped and counted".to_owned(),
        OnError::Fail => "stop the pipeline".to_owned(),
    };
    let _ = writeln!(out, "    bad records   {on_error}");
    if source.watermark.is_some() && source.primary.is_none() {
        let late = match &source.late {
            Late::To(topic) => format!("to topic {}", topic.text),
            Late::Drop => "dropped and counted".to_owned(),
        };
        let _ = writeln!(out, "    late records  {late}");
    }
    let metadata = source.columns.iter().filter(|c| !matches!(c.origin, Origin::Payload(_)));
    let metadata: Vec<&str> = metadata.map(|c| c.column.name.as_str()).collect();
    if !metadata.is_empty() {
        let _ = writeln!(out, "    not payload   {}", metadata.join(", "));
    }
    let checked = source.checks.iter().filter(|check| !matches!(check.kind, Kind::Literal(_)));
    for check in checked {
        let _ = writeln!(out, "    check         ({})", check.at);
    }
}

fn name(fold: Fold) -> &'static str {
    match fold {
        Fold::Count => "COUNT",
        Fold::Sum => "SUM",
        Fold::Min => "MIN",
        Fold::Max => "MAX",
        Fold::Avg => "AVG",
        Fold::First => "FIRST_VALUE",
        Fold::Last => "LAST_VALUE",
    }
}

/// In the largest unit that leaves a whole number.
fn duration(ms: i64) -> String {
    for (unit, of) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms != 0 && ms % of == 0 {
            return format!("{} {unit}", ms / of);
        }
    }
    format!("{ms} ms")
}
