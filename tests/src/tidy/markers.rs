//! What every source has, and what none may have.

use super::Finding;
use super::lexer::Source;

/// The longest opening comment of a module; drawings, tables and examples do not count.
const HEADER_LINES_MAX: usize = 25;

/// Macros that stand for work that was not done, or that was only being looked at.
const MACROS: &[(&str, &str)] = &[
    ("todo", "finish it, or leave the branch out of the type"),
    ("unimplemented", "finish it, or refuse the input with an error"),
    ("dbg", "use `tracing`, or take it out"),
];

/// A module opens with what it is.
pub fn header(source: &Source) -> Option<Finding> {
    let mut in_drawing = false;
    let mut lines = 0;
    for line in source.lines.iter().map_while(|line| line.strip_prefix("//!")) {
        let is_fence = line.trim_start().starts_with("```");
        in_drawing ^= is_fence;
        if !in_drawing && !is_fence && !line.trim_start().starts_with('|') {
            lines += 1;
        }
    }
    let message = match lines {
        0 => "a module opens with `//!`: what it is, its invariants, what it must never do".into(),
        _ if lines > HEADER_LINES_MAX => format!(
            "the opening comment has {lines} lines, at most {HEADER_LINES_MAX}: move the rest to \
             docs/design/"
        ),
        _ => return None,
    };
    Some(Finding::new(&source.path, 1, message))
}

/// Unfinished work: macros, ignored tests, notes to oneself.
pub fn unfinished(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if let Some((name, teach)) = MACROS.iter().find(|(name, _)| token.text == *name)
            && source.starts_with(at + 1, &["!", "("])
        {
            findings.push(Finding::new(&source.path, token.line, format!("`{name}!`: {teach}")));
        }
        if token.text == "#" && source.starts_with(at + 1, &["[", "ignore"]) {
            let message = "an ignored test proves nothing: make it fast or leave it out";
            findings.push(Finding::new(&source.path, token.line, message));
        }
    }
    findings.extend(notes(source));
    findings
}

/// Notes to oneself in comments and strings.
fn notes(source: &Source) -> Vec<Finding> {
    // Put together here, so that this file does not find itself.
    let words =
        [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO"), concat!("HA", "CK")];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut findings = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let found = line.split(|c| !is_word(c)).find(|word| words.contains(word));
        if let Some(word) = found {
            let message = format!("`{word}`: do it, or describe the limit in docs/");
            findings.push(Finding::new(&source.path, at + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        unfinished(&Source::new("a.rs", text)).len()
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in ["FIX-ME", "X-XX", "TO-DO", "HA-CK"] {
            let word = word.replace('-', "");
            assert_eq!(found(&format!("// {word}: later\nfn a() {{}}")), 1, "{word}");
            assert_eq!(found(&format!("// {word}S\nfn a_{word}() {{}}")), 0, "{word}");
        }
        for code in ["todo!()", "unimplemented!(\"b\")", "dbg!(b)"] {
            assert_eq!(found(&format!("fn a() {{ {code} }}")), 1, "{code}");
        }
        assert_eq!(found("#[test]\n#[ignore = \"slow\"]\nfn a() {}"), 1);
        assert_eq!(found("fn a() { b(\"todo!()\") } // dbg!(c)"), 0);
    }

    #[test]
    fn a_missing_or_endless_opening_is_found() {
        let opening = |text: &str| header(&Source::new("a.rs", text));
        assert_eq!(opening("//! A.\nfn a() {}"), None);
        assert!(opening("fn a() {}").is_some());
        assert!(opening("").is_some());
        assert!(opening(&"//! A.\n".repeat(26)).is_some());
        let drawing = format!("//! A.\n//! ```text\n{}//! ```\n", "//! +-+\n".repeat(40));
        assert_eq!(opening(&drawing), None);
        assert_eq!(opening(&format!("//! A.\n{}", "//! | a | b |\n".repeat(40))), None);
    }
}
