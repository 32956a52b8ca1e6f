//! Regular expressions of a file, each compiled once.
//!
//! A pattern of twenty characters can take milliseconds to compile, and the planner looks at an expression again
//! for each that it is part of. So while a file is planned, what was compiled is kept by its text.
//!
//! Invariants: nothing but time depends on what is kept; it is gone when the planner is done; a file makes the
//! thread compile no more than [`PATTERNS_MAX`] patterns, and [`RANGES_MAX`] ranges of signs in all.

use crate::pattern::Pattern;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A file has no more different ones.
const PATTERNS_MAX: usize = 50;

/// The ranges of signs in all of them: about 120 times `\w`.
const RANGES_MAX: usize = 100_000;

/// What one counts for that is none, which may be known late.
const RANGES_OF_BROKEN: usize = 10_000;

/// What is known of a file.
#[derive(Default)]
struct Known {
    patterns: BTreeMap<String, Result<Pattern, String>>,
    ranges: usize,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// While there is one, a file is being planned.
#[derive(Debug)]
pub struct Patterns(());

impl Patterns {
    /// From here on patterns are kept.
    pub fn begin() -> Self {
        KNOWN.take();
        Self(())
    }

    /// Whether there are any.
    pub fn are_any(&self) -> bool {
        KNOWN.with_borrow(|known| !known.patterns.is_empty())
    }
}

impl Drop for Patterns {
    fn drop(&mut self) {
        KNOWN.take();
    }
}

/// Compiles a pattern.
///
/// # Errors
/// Why it is none, for people.
pub fn compile(text: &str) -> Result<Pattern, String> {
    KNOWN.with_borrow_mut(|known| {
        if let Some(compiled) = known.patterns.get(text) {
            return compiled.clone();
        }
        if known.patterns.len() >= PATTERNS_MAX {
            return Err(format!("a file has at most {PATTERNS_MAX} different patterns"));
        }
        if known.ranges > RANGES_MAX {
            return Err("the patterns of the file have too many signs in all".to_owned());
        }
        let compiled = Pattern::new(text);
        known.ranges += compiled.as_ref().map_or(RANGES_OF_BROKEN, Pattern::ranges);
        known.patterns.insert(text.to_owned(), compiled.clone());
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
        file += "INSERT INTO TOPIC q SELECT v LIKE '%m_re' AS c FROM s;\n";
        let problems = crate::plan(&file).expect_err("one too many");
        assert!(problems[0].to_string().contains("at most 50 different patterns"), "{problems:?}");
    }
}
