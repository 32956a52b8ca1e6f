//! Errors of scenario files: where, what, and what would be right.
//!
//! Invariant: every error names line and column and shows the line, because the reader has an
//! editor open and not this code.

use std::fmt;
use std::ops::Range;
use thiserror::Error;

/// The longest piece of a line that is shown. Lists of faults are written as long lines.
const EXCERPT_COLUMNS_MAX: usize = 100;

/// What is wrong, as a place in the text; [`Problem::in_file`] makes it readable.
#[derive(Clone, Debug)]
pub struct Problem {
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A word that is not one of the known ones, with the nearest of them if one is near.
    pub(super) fn unknown(span: Range<usize>, what: &str, word: &str, known: &[&str]) -> Self {
        Self::unknown_in(span, (what, ""), word, known)
    }

    /// The same, saying also where: `place` is what it is and where it stands.
    pub(super) fn unknown_in(
        span: Range<usize>,
        (what, place): (&str, &str),
        word: &str,
        known: &[&str],
    ) -> Self {
        let expected = format!("expected one of: {}", known.join(", "));
        let help = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`? {expected}"),
            None => expected,
        };
        Self::new(span, format!("unknown {what} `{word}`{place}")).help(help)
    }

    /// The error for people.
    pub(super) fn in_file(self, file: &str, text: &str) -> ScenarioError {
        let start = self.span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end();
        let column = text[line_start..start].chars().count();
        let marked_end =
            self.span.end.clamp(start, line_start + line.len().max(start - line_start));
        let marked = text[start..marked_end].chars().count().max(1);
        let (excerpt, caret) = excerpt(line, column, marked);
        ScenarioError(Box::new(Refusal {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: column + 1,
            message: self.message,
            excerpt,
            caret,
            help: self.help,
        }))
    }
}

/// The line, shortened around the marked columns, and the carets to put below it.
fn excerpt(line: &str, column: usize, marked: usize) -> (String, String) {
    let characters: Vec<char> =
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let first = if characters.len() <= EXCERPT_COLUMNS_MAX {
        0
    } else {
        column.saturating_sub(EXCERPT_COLUMNS_MAX / 3)
    };
    let last = characters.len().min(first + EXCERPT_COLUMNS_MAX);
    let mut shown: String = characters.get(first..last).unwrap_or_default().iter().collect();
    let mut indent = column - first;
    if first > 0 {
        shown.insert_str(0, "... ");
        indent += 4;
    }
    if last < characters.len() {
        shown.push_str(" ...");
    }
    let carets = marked.min(last.saturating_sub(column)).max(1);
    (shown, format!("{}{}", " ".repeat(indent), "^".repeat(carets)))
}

/// The known word with the fewest edits to this one, if they are few for its length.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// The number of characters to insert, remove or replace (Wagner, Fischer 1974).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, character) in from.chars().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        let mut next = vec![left];
        for (above, wanted) in row.iter().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(character != *wanted);
            left = replaced.min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A scenario file that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ScenarioError(Box<Refusal>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    file: String,
    line: usize,
    column: usize,
    message: String,
    excerpt: String,
    caret: String,
    help: Option<String>,
}

impl ScenarioError {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.0.line
    }

    /// The column, from 1, in characters.
    pub fn column(&self) -> usize {
        self.0.column
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}", self.0.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.0.file, self.0.line, self.0.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.0.excerpt)?;
        write!(f, "{margin} | {}", self.0.caret)?;
        if let Some(help) = &self.0.help {
            for line in help.lines() {
                write!(f, "\n{margin} = {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("same", "same"), 0);
        assert_eq!(nearest("targett", &["kind", "target"]), Some("target"));
        assert_eq!(nearest("xyz", &["kind", "target"]), None);
    }

    #[test]
    fn a_long_line_is_shortened_around_the_mark() {
        let line = format!("{}HERE{}", "a".repeat(300), "b".repeat(300));
        let error = Problem::new(300..304, "bad").in_file("f.toml", &line);
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3].find("HERE"), lines[4].find('^'));
        assert!(lines[4].ends_with("| ".to_owned().as_str()) || lines[4].ends_with("^^^^"));
        assert!(lines[3].len() < 120);
    }

    #[test]
    fn a_place_behind_the_end_is_the_end() {
        let error = Problem::new(99..120, "bad").in_file("f.toml", "a = 1\n");
        assert_eq!((error.line(), error.column()), (2, 1));
        assert_eq!(error.message(), "bad");
    }
}
