//! Regular expressions, and what it may cost to look for one.
//!
//! The engine of `regex` takes time that is linear in the text, with a factor that is as large as the pattern: of
//! `[01]{1500}` with all that it may be in the middle of. So it counts: the *places* of the pattern
//! times the bytes that are looked at. Places are what a text may be in the middle of at once: a sign that is
//! written out, a class of signs, and each time that something is repeated by number.
//!
//! All matches of a pattern, one after the other, are not even linear: what is looked at behind a match may have to be
//! looked at again. How far that is follows from the pattern: from a place of which what is behind may be nothing, the
//! match goes as far as was looked.
//!
//! Invariants: what is refused, and what is counted, follows from patterns and the row and from nothing else; at no
//! operator a row takes more than [`EFFORT_MAX`].

use regex::{Captures, Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};
use std::cell::Cell;

/// What the patterns of an operator may take for one row, in bytes times places: two or three ms.
const EFFORT_MAX: usize = 400 << 10;

/// A pattern takes no more memory.
const BYTES_MAX: usize = 1 << 20;

/// A pattern is no longer: each sign of it may be a class of all letters.
const TEXT_BYTES_MAX: usize = 1_000;

/// The ranges of signs of all its places; `\w` has about 800.
const RANGES_MAX: usize = 50_000;

thread_local! {
    /// What the row that is looked at may take still.
    static LEFT: Cell<usize> = const { Cell::new(EFFORT_MAX) };
    static SPENT: Cell<usize> = const { Cell::new(0) };
}

/// A row is looked at next, of so many that are made of one and the same: all its patterns, at one operator, share what
/// it may take.
pub fn begin_row(copies: usize) {
    LEFT.set(EFFORT_MAX / copies.max(1));
}

/// Sets what was spent on this thread to nothing, and says what it was.
pub fn take_spent() -> usize {
    SPENT.take()
}

/// A pattern that is known when the plan is made.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    places: usize,
    /// Whether of what was looked at behind a match no more than its places has to be looked at again.
    is_settled: bool,
    ranges: usize,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// Why it is none, for people.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let hir = regex_syntax::parse(text).map_err(|error| last_line(&error.to_string()))?;
        let ranges = ranges(&hir);
        if ranges > RANGES_MAX {
            return Err("it has too many signs, of classes and of what is repeated".to_owned());
        }
        let regex = RegexBuilder::new(text).size_limit(BYTES_MAX).build();
        let regex = regex.map_err(|error| last_line(&error.to_string()))?;
        Ok(Self { regex, places: places(&hir), is_settled: is_settled(&hir, true), ranges })
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// How many groups it has, the whole of it included.
    pub fn groups(&self) -> usize {
        self.regex.captures_len()
    }

    /// What it took to compile it.
    pub fn ranges(&self) -> usize {
        self.ranges
    }

    /// Whether it is found in a text.
    ///
    /// # Errors
    /// If that would take too long.
    pub fn is_in(&self, text: &str) -> Result<bool, String> {
        self.spend(text.len())?;
        Ok(self.regex.is_match(text))
    }

    /// Where it is found first.
    ///
    /// # Errors
    /// If that would take too long.
    pub fn find<'t>(&self, text: &'t str) -> Result<Option<Captures<'t>>, String> {
        self.spend(text.len() * 2)?;
        Ok(self.regex.captures(text))
    }

    /// Calls something for one match after the other, until it says that it is enough.
    ///
    /// # Errors
    /// If that would take too long, or did until there were too many matches.
    pub fn each<'t>(
        &self,
        text: &'t str,
        mut found: impl FnMut(&Captures<'t>) -> bool,
    ) -> Result<(), String> {
        self.spend(text.len() * 2)?;
        for captures in self.regex.captures_iter(text) {
            if !found(&captures) {
                break;
            }
            let again = text.len() - captures.get(0).map_or(text.len(), |whole| whole.end());
            // A place is four bytes at most.
            self.spend(if self.is_settled { again.min(4 * self.places) } else { again })?;
        }
        Ok(())
    }

    fn spend(&self, bytes: usize) -> Result<(), String> {
        let effort = bytes.saturating_mul(self.places);
        let left = LEFT.get().checked_sub(effort).ok_or_else(|| {
            let places = self.places;
            format!(
                "looking for a pattern of {places} places takes too long in a text that is so long"
            )
        })?;
        LEFT.set(left);
        SPENT.set(SPENT.get().saturating_add(effort));
        Ok(())
    }
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().to_owned()
}

/// How often a part is written out.
fn times(repetition: &Repetition) -> usize {
    let least = repetition.min.max(1);
    repetition.max.map_or(least, |most| most.max(least)) as usize
}

/// Ways that part count as well: all of them are gone at each sign.
fn places(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Repetition(of) => {
            let parts = usize::from(of.max != Some(of.min));
            times(of).saturating_mul(places(&of.sub).saturating_add(parts))
        }
        HirKind::Capture(of) => places(&of.sub).saturating_add(1),
        HirKind::Concat(parts) => parts.iter().map(places).fold(0, usize::saturating_add),
        HirKind::Alternation(parts) => {
            parts.iter().map(places).fold(parts.len(), usize::saturating_add)
        }
    }
}

fn ranges(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Repetition(of) => times(of).saturating_mul(ranges(&of.sub)),
        HirKind::Capture(of) => ranges(&of.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(0, |sum: usize, part| sum.saturating_add(ranges(part)))
        }
    }
}

/// Whether whatever is repeated without end may be followed by nothing, so that a match goes as far as was looked but
/// for a few places.
fn is_settled(hir: &Hir, may_end: bool) -> bool {
    let is_short = |hir: &Hir| hir.properties().maximum_len().is_some();
    match hir.kind() {
        _ if is_short(hir) => true,
        HirKind::Repetition(of) if of.max.is_none_or(|most| most > 1) => {
            may_end && is_short(&of.sub)
        }
        HirKind::Repetition(of) => is_settled(&of.sub, may_end),
        HirKind::Capture(of) => is_settled(&of.sub, may_end),
        HirKind::Alternation(parts) => parts.iter().all(|part| is_settled(part, may_end)),
        HirKind::Concat(parts) => {
            let mut may_end = may_end;
            parts.iter().rev().all(|part| {
                let is_settled = is_settled(part, may_end);
                may_end &= part.properties().minimum_len() == Some(0)
                    && !matches!(part.kind(), HirKind::Look(_));
                is_settled
            })
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => true,
    }
}
