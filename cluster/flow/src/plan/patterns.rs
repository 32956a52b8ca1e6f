//! Regular expressions of a file, each compiled once.
//!
//! A pattern of twenty characters can take milliseconds to compile, and the planner looks at an expression again
//! for each that it is part of. So while a file is planned, what was compiled is kept by its text.
//!
//! Invariants: nothing but time depends on what is kept; it is gone when the planner is done; a file makes the
//! thread compile no more than [`PATTERNS_MAX`] patterns of [`PATTERN_BYTES_MAX`] each.

use regex::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A pattern takes no more memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A file has no more different ones.
const PATTERNS_MAX: usize = 50;

thread_local! {
    static KNOWN: RefCell<BTreeMap<String, Result<Regex, String>>> = RefCell::default();
}

/// While there is one, a file is being planned.
#[derive(Debug)]
pub struct Patterns(());

impl Patterns {
    /// From here on patterns are kept.
    pub fn begin() -> Self {
        KNOWN.with_borrow_mut(BTreeMap::clear);
        Self(())
    }
}

impl Drop for Patterns {
    fn drop(&mut self) {
        KNOWN.with_borrow_mut(BTreeMap::clear);
    }
}

/// Compiles a pattern.
///
/// # Errors
/// Why it is none, for people.
pub fn compile(text: &str) -> Result<Regex, String> {
    KNOWN.with_borrow_mut(|known| {
        if let Some(compiled) = known.get(text) {
            return compiled.clone();
        }
        if known.len() >= PATTERNS_MAX {
            return Err(format!("a file has at most {PATTERNS_MAX} different patterns"));
        }
        let compiled = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        let compiled = compiled.map_err(|error| {
            let why = error.to_string();
            why.lines().last().unwrap_or_default().trim().to_owned()
        });
        known.insert(text.to_owned(), compiled.clone());
        compiled
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn a_pattern_that_stands_often_is_compiled_once_and_different_ones_are_counted() {
        let mut file = "CREATE STREAM s (v VARCHAR) FROM TOPIC t ON ERROR DROP;\n".to_owned();
        let one = r"REGEXP_REPLACE(v, '(?i)\w{20}', 'y')";
        for number in 0..PATTERNS_MAX {
            writeln!(file, "INSERT INTO TOPIC o{number} SELECT {one} AS c FROM s;").expect("room");
        }
        crate::plan(&file).expect("one pattern");
        for number in 1..PATTERNS_MAX {
            let other = format!("REGEXP_LIKE(v, 'a{number}')");
            writeln!(file, "INSERT INTO TOPIC p{number} SELECT {other} AS c FROM s;")
                .expect("room");
        }
        crate::plan(&file).expect("as many as there may be");
        file += "INSERT INTO TOPIC q SELECT v LIKE '%more' AS c FROM s;\n";
        let problems = crate::plan(&file).expect_err("one too many");
        assert!(problems[0].to_string().contains("at most 50 different patterns"), "{problems:?}");
    }
}
