//! Which parts of a value somebody means, and which of it are read at all.

use super::Json;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Element(usize),
}

/// A path like `$.motor.bearings[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// A path to a member of the outermost object.
    pub fn member(name: &str) -> Self {
        Self(vec![Step::Member(name.into())])
    }

    /// Reads a path. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let quoted = [("['", "']"), ("[\"", "\"]"), (".\"", "\"")];
            let quoted =
                quoted.iter().find_map(|(open, close)| rest.strip_prefix(open)?.split_once(close));
            if let Some((name, after)) = quoted {
                steps.push(Step::Member(name.into()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (at, after) = after.split_once(']')?;
                let is_number = at.bytes().all(|digit| digit.is_ascii_digit());
                steps.push(Step::Element(at.parse().ok().filter(|_| is_number)?));
                rest = after;
            } else {
                let after = rest.strip_prefix('.')?;
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                // What other dialects give a meaning is no name, unless it is quoted.
                let is_other = |c: char| c.is_whitespace() || "*?@()\"'],:".contains(c);
                if name.is_empty() || name.contains(is_other) {
                    return None;
                }
                steps.push(Step::Member(name.into()));
                rest = &after[end..];
            }
        }
        Some(Self(steps))
    }
}

/// What of a value somebody will look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub(super) everything: bool,
    members: Vec<(Box<str>, Wanted)>,
}

impl Wanted {
    pub(super) fn everything() -> Self {
        Self { everything: true, members: Vec::new() }
    }

    /// What some paths lead to.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut wanted = Self::default();
        paths.into_iter().for_each(|path| wanted.add(&path.0));
        wanted
    }

    fn add(&mut self, steps: &[Step]) {
        let Some((Step::Member(name), rest)) = steps.split_first() else {
            self.everything = true;
            return;
        };
        let known = self.members.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or(self.members.len());
        if known.is_none() {
            self.members.push((name.clone(), Self::default()));
        }
        self.members[at].1.add(rest);
    }

    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        if self.everything {
            return Some(self);
        }
        self.members.iter().find(|(known, _)| **known == *name).map(|(_, wanted)| wanted)
    }
}

impl Json {
    /// What a path leads to.
    pub fn at(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |value, step| match (step, value) {
            (Step::Member(name), _) => value.member(name),
            (Step::Element(at), Self::Array(elements)) => elements.get(*at),
            _ => None,
        })
    }
}
