//! Words that a shipped repository does not hold: paths of one machine, names of who typed it.

use super::Finding;

/// The words, each in two halves, so that this file does not find itself.
const WORDS: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", MACHINE),
    ("/ro", "ot/", MACHINE),
    ("/ho", "me/", MACHINE),
    ("/tmp/", "design", MACHINE),
    ("clau", "de", AUTHOR),
    ("anth", "ropic", AUTHOR),
    ("chat", "gpt", AUTHOR),
    ("open", "ai", AUTHOR),
    ("copi", "lot", AUTHOR),
    ("co-auth", "ored-by", AUTHOR),
    ("language ", "model", AUTHOR),
];

const MACHINE: &str = "a path of one machine: say it relative to the repository";
const AUTHOR: &str = "the repository speaks about the project, not about who typed it";

/// Words that have no place in a shipped file.
pub fn words(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for (head, tail, teach) in WORDS {
            let word = format!("{head}{tail}");
            if mentions(&line, &word) {
                findings.push(Finding::new(path, at + 1, format!("`{word}`: {teach}")));
            }
        }
    }
    findings
}

/// Whether a line holds a word as a whole word, or a path as the start of a path.
fn mentions(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric();
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        if word.starts_with('/') {
            before.is_none_or(|c| !is_word(c) && !matches!(c, '.' | '_' | '-' | '}' | '>'))
        } else {
            before.is_none_or(|c| !is_word(c)) && after.is_none_or(|c| !is_word(c))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_workplace_are_found() {
        for (head, tail, _) in WORDS {
            let text = format!("one\nsee {head}{tail} there\n");
            let findings = words("a.md", &text);
            assert_eq!(findings.len(), 1, "{text}");
            assert_eq!(findings[0].line, 2);
            assert_eq!(words("a.md", &text.to_uppercase()).len(), 1, "{text}");
        }
    }

    #[test]
    fn words_that_only_hold_one_are_left_alone() {
        for text in ["target/work/x", "copilots are many", "reopenaid"] {
            assert_eq!(words("a.md", text), [], "{text}");
        }
    }
}
