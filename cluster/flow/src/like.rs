//! What `LIKE` compares with.
//!
//! Most patterns have `%` only. Those are pieces of text one after the other, looked for in time that is linear in the
//! text, so nothing is counted for them; one with `_` is a regular expression, and counts as one.
//!
//! Invariant: both forms find the same.

use crate::pattern::Pattern;

/// A pattern of `LIKE`.
#[derive(Clone, Debug, PartialEq)]
pub enum Like {
    /// What stands between `%`: the first begins the text, the last ends it, and one follows the other.
    Pieces(Vec<String>),
    /// One with `_`.
    Pattern(Pattern),
}

impl Like {
    /// Reads it; `compile` is asked for a regular expression if it takes one.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub fn new(
        text: &str,
        compile: impl FnOnce(&str) -> Result<Pattern, String>,
    ) -> Result<Self, String> {
        if text.contains('_') {
            return compile(&regex_of(text)).map(Self::Pattern);
        }
        Ok(Self::Pieces(text.split('%').map(str::to_owned).collect()))
    }

    /// As a regular expression.
    pub fn as_regex(&self) -> String {
        match self {
            Self::Pieces(pieces) => regex_of(&pieces.join("%")),
            Self::Pattern(pattern) => pattern.as_str().to_owned(),
        }
    }

    /// Whether a text is like that.
    ///
    /// # Errors
    /// If that would take too long to find out.
    pub fn fits(&self, text: &str) -> Result<bool, String> {
        match self {
            Self::Pieces(pieces) => Ok(has(pieces, text)),
            Self::Pattern(pattern) => pattern.is_in(text),
        }
    }
}

fn regex_of(text: &str) -> String {
    let mut regex = String::from("(?s)^");
    for c in text.chars() {
        match c {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    regex
}

/// Each piece is taken where it comes first: whatever is behind has the most room then.
fn has(pieces: &[String], text: &str) -> bool {
    let Some((first, others)) = pieces.split_first() else { return text.is_empty() };
    let Some((last, between)) = others.split_last() else { return text == first };
    let rest = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
    let Some(mut left) = rest else { return false };
    for piece in between {
        let Some(at) = left.find(piece.as_str()) else { return false };
        left = &left[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_find_what_the_regular_expression_finds(
            pattern in "[abä%]{0,7}",
            text in "[abä\n]{0,9}",
        ) {
            let like = Like::new(&pattern, Pattern::new).expect("a pattern");
            prop_assert!(matches!(like, Like::Pieces(_)));
            let regex = Pattern::new(&like.as_regex()).expect("a pattern");
            prop_assert_eq!(like.fits(&text), regex.is_in(&text));
        }
    }

    #[test]
    fn a_long_text_costs_nothing_that_is_counted() {
        let text = "x".repeat(1 << 20);
        let like = Like::new("%error%", Pattern::new).expect("a pattern");
        assert_eq!(like.fits(&text), Ok(false));
        let like = Like::new("%err_r%", Pattern::new).expect("a pattern");
        like.fits(&text).expect_err("a pattern of so many places");
    }
}
