//! Who changed a link, a rule, a pipeline or a savepoint, and when; and the last changes of all of them.
//!
//! Invariants: a change is noted by the entry that makes it, in its order; who made it is what the node
//! knew that took the request, and when is the time of the entry; the number of changes that are kept, and
//! the length of each, are bounded. Each change has a number of its own, later ones greater ones, also where one
//! entry makes several; what was changed has it until the next change. What somebody expects to find is true once:
//! a number that was refused is refused for ever, also where something has been removed and is there as little as
//! before it was made.
//!
//! ```text
//! set, as of 7   on its way: asked twice, done once ---------------------------- refused: 9 is behind 7
//! rule           none ------- 8 set ------- 9 removed ------- none, as it was as of 7
//! ```
//!
//! Never: a key, a certificate or a list without end: of what is long it is only said that it changed.

use super::codec::{CodecError, Reader, Writer};
use super::outcome::Refusal;
use super::state::State;
use super::table::{Element, Table};
use fulmar_host::planted;
use fulmar_store::entry::{LinkOperation, Operation, PipelineOperation};
use fulmar_types::Plant;
use fulmar_types::link::LINK_TEXT_BYTES_MAX;
use std::fmt;

/// Changes that are kept, at most: those of years, where people make them.
pub const CHANGES_MAX: usize = 512;

/// The longest description of a change, in bytes.
pub const CHANGE_TEXT_BYTES_MAX: usize = 1_024;

/// The longest value that is told in it, in bytes.
const VALUE_BYTES_MAX: usize = 200;

/// Who made something what it is, and when.
///
/// ```text
/// who len u32, UTF-8 | wall ms u64
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Who, as the node knew him that took the request.
    pub who: String,
    /// The time of the entry, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Changed {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.text(&self.who);
        out.u64(self.wall_ms);
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let who = input.text()?;
        if who.len() > LINK_TEXT_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        Ok(Self { who, wall_ms: input.u64()? })
    }
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeOf {
    /// A link.
    Link,
    /// A rule.
    Rule,
    /// A pipeline.
    Pipeline,
    /// A savepoint.
    Savepoint,
}

impl ChangeOf {
    const fn number(self) -> u8 {
        match self {
            Self::Link => 1,
            Self::Rule => 2,
            Self::Pipeline => 3,
            Self::Savepoint => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Link),
            2 => Some(Self::Rule),
            3 => Some(Self::Pipeline),
            4 => Some(Self::Savepoint),
            _ => None,
        }
    }
}

impl fmt::Display for ChangeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Rule => "rule",
            Self::Pipeline => "pipeline",
            Self::Savepoint => "savepoint",
        })
    }
}

/// A change.
///
/// ```text
/// number u64 | who len u32, UTF-8 | wall ms u64 | of u8 = 1 link, 2 rule, 3 pipeline, 4 savepoint
/// | name len u32, UTF-8 | text len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The number that what was changed has from now on.
    pub number: u64,
    /// By whom, and when.
    pub changed: Changed,
    /// Of what.
    pub of: ChangeOf,
    /// The name of it, or the topic of the rule.
    pub name: String,
    /// What differs, for people.
    pub text: String,
}

impl Element for Change {
    type Key = u64;
    const SEED: u64 = 14;
    const BYTES_MIN: usize = 29;

    fn key(&self) -> Self::Key {
        self.number
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.number);
        self.changed.encode(out);
        out.u8(self.of.number());
        out.text(&self.name);
        out.text(&self.text);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let number = input.u64()?;
        let changed = Changed::decode(input)?;
        let of = ChangeOf::from_number(input.u8()?).ok_or(CodecError::Tag)?;
        let (name, text) = (input.text()?, input.text()?);
        if name.len() > LINK_TEXT_BYTES_MAX || text.len() > CHANGE_TEXT_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        Ok(Self { number, changed, of, name, text })
    }
}

impl Table<Change> {
    /// Takes note of a change. The oldest goes if there are too many.
    pub fn enter(&mut self, change: Change) {
        assert!(change.number > self.last(), "a change has a number of its own");
        self.put(change);
        while self.len() > CHANGES_MAX {
            let oldest = self.iter().next().map(Element::key);
            self.remove(&oldest.expect("there are too many"));
        }
    }

    /// The number of a change that the entry of an index makes: that index, or behind the change before it.
    pub fn next_number(&self, index: u64) -> u64 {
        index.max(self.last() + 1)
    }

    /// The number of the last change.
    fn last(&self) -> u64 {
        self.iter().next_back().map_or(0, |change| change.number)
    }

    /// The number of the last change of something, or a later one if it is not known any more.
    fn last_of(&self, (of, name): (ChangeOf, &str)) -> u64 {
        let mut back = self.iter().rev();
        let known = back.find(|change| change.of == of && change.name == name);
        let forgotten = || self.iter().next().filter(|_| self.len() >= CHANGES_MAX);
        known.or_else(forgotten).map_or(0, |change| change.number)
    }
}

impl State {
    /// The number of a link, a rule, a pipeline or a savepoint, for whoever changes it and wants to change what
    /// he has seen. That of what is not there is the number of the last change of anything.
    pub fn number_of(&self, of: (ChangeOf, &str)) -> u64 {
        self.number_of_known(of).unwrap_or_else(|| self.changes.last())
    }

    fn number_of_known(&self, (of, name): (ChangeOf, &str)) -> Option<u64> {
        match of {
            ChangeOf::Link => self.link(name).map(|link| link.number),
            ChangeOf::Rule => self.rule(name).map(|rule| rule.number),
            ChangeOf::Pipeline => self.pipeline(name).map(|pipeline| pipeline.number),
            ChangeOf::Savepoint => self.savepoint(name).map(|savepoint| savepoint.number),
        }
    }

    /// Whether what an operation changes is still what it was when somebody was told its number. To be asked of all
    /// operations of a unit before the first is carried out: among many changes the last of some may be forgotten.
    pub(super) fn check_unchanged(&self, operation: &Operation) -> Result<(), Refusal> {
        let (expected, of) = match operation {
            Operation::Link(LinkOperation::SetLink { name, expected, .. }) => {
                (*expected, (ChangeOf::Link, name))
            }
            Operation::Link(LinkOperation::SetRule { topic, expected, .. }) => {
                (*expected, (ChangeOf::Rule, topic))
            }
            Operation::Pipeline(PipelineOperation::Set { name, expected, .. }) => {
                (*expected, (ChangeOf::Pipeline, name))
            }
            Operation::Pipeline(PipelineOperation::SetSavepoint { name, expected, .. }) => {
                (*expected, (ChangeOf::Savepoint, name))
            }
            _ => return Ok(()),
        };
        self.check_expected(expected, (of.0, of.1))
    }

    /// Whether something is still what it was when somebody was told its number, and was so all the time: what
    /// comes late is refused for ever. `None` stands for whatever there is; 0 for what never was.
    fn check_expected(&self, expected: Option<u64>, of: (ChangeOf, &str)) -> Result<(), Refusal> {
        let Some(expected) = expected else { return Ok(()) };
        let is_so = match self.number_of_known(of) {
            Some(number) => number == expected,
            None if planted(Plant::LateHeeded) => true,
            None => (self.changes.last_of(of)..=self.changes.last()).contains(&expected),
        };
        if is_so { Ok(()) } else { Err(Refusal::Changed) }
    }
}

/// Names and values, as a link or a rule has them.
pub type Settings = Vec<(String, String)>;

/// What differs between before and after, for people; `None` where there is none.
pub fn difference(before: Option<&Settings>, after: Option<&Settings>) -> String {
    let none = Settings::new();
    let text = match (before, after) {
        (None, None) => "there was none".to_owned(),
        (Some(_), None) => "removed".to_owned(),
        (None, Some(after)) => format!("created: {}", differing(&none, after)),
        (Some(before), Some(after)) => differing(before, after),
    };
    cut(&text, CHANGE_TEXT_BYTES_MAX).to_owned()
}

fn differing(before: &Settings, after: &Settings) -> String {
    let value = |of: &Settings, name: &str| {
        let found = of.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let names = before.iter().filter(|(name, _)| !after.iter().any(|(known, _)| known == name));
    let names = after.iter().chain(names).map(|(name, _)| name);
    let mut parts = Vec::new();
    for name in names {
        let (old, new) = (value(before, name), value(after, name));
        if old == new {
            continue;
        }
        let is_short = |value: &String| value.len() <= VALUE_BYTES_MAX;
        parts.push(match (is_short(&old) && is_short(&new), old.is_empty(), new.is_empty()) {
            (_, false, true) => format!("{name} taken away"),
            (false, true, _) => format!("{name} given"),
            (false, ..) => format!("{name} changed"),
            (true, true, _) => format!("{name} {new}"),
            (true, false, _) => format!("{name} {old} -> {new}"),
        });
    }
    match parts.is_empty() {
        true => "as before".to_owned(),
        false => parts.join("; "),
    }
}

/// As much of a text as fits into so many bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64) -> Change {
        let changed = Changed { who: "dashboard".to_owned(), wall_ms: 7 };
        let (name, text) = ("hub".to_owned(), "paused false -> true".to_owned());
        Change { number, changed, of: ChangeOf::Link, name, text }
    }

    #[test]
    fn the_last_changes_are_kept_each_with_a_number_of_its_own() {
        let mut table = Table::default();
        // Three by the entry 5, one each by the two that follow, and then one by a far later one.
        for index in [5, 5, 5, 6, 7, 100] {
            table.enter(change(table.next_number(index)));
        }
        assert_eq!(table.iter().map(Element::key).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 100]);
        for number in 101..101 + CHANGES_MAX as u64 - 1 {
            table.enter(change(number));
        }
        assert_eq!(table.len(), CHANGES_MAX);
        assert_eq!(table.iter().next().map(Element::key), Some(100), "the oldest are gone");
    }

    #[test]
    fn a_difference_names_what_differs_and_is_never_long() {
        let of = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let before = of(&[("region", "eu"), ("dial", "a:1"), ("authority", &"0".repeat(900))]);
        let after = of(&[("region", "us"), ("dial", ""), ("authority", &"1".repeat(900))]);
        assert_eq!(difference(None, Some(&of(&[("region", "eu")]))), "created: region eu");
        assert_eq!(
            difference(Some(&before), Some(&after)),
            "region eu -> us; dial taken away; authority changed"
        );
        assert_eq!(difference(Some(&before), None), "removed");
        assert_eq!(difference(Some(&before), Some(&before)), "as before");
        let many: Vec<String> = (0..900).map(|at| format!("ä{at}")).collect();
        let many: Settings = many.into_iter().map(|name| (name, "ö".repeat(50))).collect();
        assert!(difference(None, Some(&many)).len() <= CHANGE_TEXT_BYTES_MAX);
    }
}
