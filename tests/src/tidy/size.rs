//! How long files and functions may be.
//!
//! A page that fits on a screen is read; one that does not is scrolled past.

use super::lexer::{Source, closing};
use super::{Finding, TextFile};

/// A file beyond this is named, so that its author thinks of a seam.
pub const FILE_LINES_WARN: usize = 600;

/// A file beyond this fails.
pub const FILE_LINES_MAX: usize = 1_000;

/// A function beyond this fails, signature and braces included.
pub const FUNCTION_LINES_MAX: usize = 70;

/// A function that is longer than it may be, on its way to become shorter.
pub struct LongFunction {
    /// The file.
    pub path: &'static str,
    /// The function.
    pub name: &'static str,
    /// Its length: it may shrink, and then this number shrinks with it.
    pub lines: usize,
}

/// Files that are longer than they should be.
pub fn long_files<'a>(files: impl Iterator<Item = &'a TextFile>) -> Vec<(String, usize)> {
    files
        .map(|file| (file.path.clone(), file.text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_WARN)
        .collect()
}

/// Files that are longer than they may be.
pub fn file_lengths(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let message = format!(
            "{lines} lines, at most {FILE_LINES_MAX}: split it where its own headings are, a \
             submodule for each"
        );
        Finding::new(path, lines, message)
    })
}

/// Functions that are longer than they may be, apart from those on the list.
pub fn function_lengths(source: &Source, listed: &[LongFunction]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, line, lines) in functions(source) {
        let entry = listed.iter().find(|f| f.path == source.path && f.name == name);
        let message = match entry {
            None if lines > FUNCTION_LINES_MAX => format!(
                "function `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: give its steps \
                 names of their own"
            ),
            Some(entry) if lines > entry.lines => format!(
                "function `{name}` grew from {} to {lines} lines; it is on the list of those that \
                 shrink",
                entry.lines
            ),
            Some(entry) if lines < entry.lines => format!(
                "function `{name}` shrank to {lines} lines: well done; write that into the list, \
                 or take it off at {FUNCTION_LINES_MAX}"
            ),
            _ => continue,
        };
        findings.push(Finding::new(&source.path, line, message));
    }
    findings
}

/// Name, first line and length of every function with a body.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in 0..source.tokens.len() {
        if source.text(at) != "fn" || source.text(at + 1) == "(" {
            continue;
        }
        let Some(body) = body(source, at + 2) else { continue };
        let Some(end) = closing(&source.tokens, body) else { continue };
        let line = source.tokens[at].line;
        let lines = source.tokens[end].line - line + 1;
        found.push((source.text(at + 1).to_owned(), line, lines));
    }
    found
}

/// The brace that opens the body; `None` for a function without one.
fn body(source: &Source, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match source.text(at) {
            "" | ";" => return None,
            "{" => return Some(at),
            // An array type in the signature holds a `;`.
            "(" | "[" => at = closing(&source.tokens, at)?,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(function_lines: usize) -> Source {
        let body = "    step();\n".repeat(function_lines - 2);
        Source::new("a.rs", &format!("//! A.\n\nfn short() {{}}\nfn long() {{\n{body}}}\n"))
    }

    #[test]
    fn a_long_function_is_found() {
        assert_eq!(function_lengths(&lines(70), &[]), []);
        let findings = function_lengths(&lines(71), &[]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 4);
        assert!(findings[0].message.contains("`long` has 71 lines"), "{}", findings[0]);
    }

    #[test]
    fn the_list_only_shrinks() {
        let listed = [LongFunction { path: "a.rs", name: "long", lines: 80 }];
        assert_eq!(function_lengths(&lines(80), &listed), []);
        assert!(function_lengths(&lines(81), &listed)[0].message.contains("grew from 80"));
        assert!(function_lengths(&lines(79), &listed)[0].message.contains("shrank to 79"));
    }

    #[test]
    fn a_signature_with_an_array_has_its_body_found() {
        let body = "    step();\n".repeat(80);
        let text = format!("fn long(a: [u8; 4]) -> [u8; 2] where A: B {{\n{body}}}\nfn no(a: u8);");
        assert_eq!(function_lengths(&Source::new("a.rs", &text), &[]).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(file_lengths("a.rs", &"\n".repeat(1_000)), None);
        assert!(file_lengths("a.rs", &"\n".repeat(1_001)).is_some());
        let file = |lines| TextFile { path: "a.rs".to_owned(), text: "\n".repeat(lines) };
        assert_eq!(long_files([file(600)].iter()), []);
        assert_eq!(long_files([file(601)].iter()), [("a.rs".to_owned(), 601)]);
    }
}
