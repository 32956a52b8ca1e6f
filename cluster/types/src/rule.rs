//! What a site has laid down about a topic that may leave it: for where, and in which form.
//!
//! ```text
//! setting   value
//! regions   eu,us
//! key       pass | drop | hash
//! headers   name=pass|drop|hash, with commas between; the name * stands for all others
//! fields    path=action, with commas between
//!
//! path      names with dots between; * for any name. A backslash takes the meaning from . , = * \ [ $ and spaces
//! action    drop | mask | hash | truncate:CHARACTERS | round:DIGITS
//! ```
//!
//! Invariants: what is written reads back; a rule that does something to fields says what becomes of the
//! key and the headers too, since the same may stand there.
//!
//! Never: let a topic go to a region that is not named.

use crate::link::{LINK_TEXT_BYTES_MAX, list};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Regions that a rule names, at most.
pub const RULE_REGIONS_MAX: usize = 64;

/// Fields that a rule names, at most.
pub const RULE_FIELDS_MAX: usize = 256;

/// Headers that a rule names, at most.
pub const RULE_HEADERS_MAX: usize = 64;

/// Names of a path, at most.
pub const PATH_DEPTH_MAX: usize = 32;

/// Characters that a truncation leaves, at most.
pub const TRUNCATE_MAX: u32 = 65_536;

/// Digits that a number is rounded to, at most; as many before the point as behind it.
pub const ROUND_MAX: i8 = 18;

/// Among the settings of a rule: the regions that may have the topic.
pub const REGIONS: &str = "regions";
/// What becomes of the key.
pub const KEY: &str = "key";
/// What becomes of headers.
pub const HEADERS: &str = "headers";
/// What becomes of fields of the value.
pub const FIELDS: &str = "fields";

/// The name that stands for every other one.
pub const EVERY_OTHER: &str = "*";

/// What becomes of a key or a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passage {
    /// It goes as it is.
    #[default]
    Pass,
    /// A keyed hash goes in its place.
    Hash,
    /// It does not go.
    Drop,
}

impl Passage {
    /// Its number in the log.
    pub const fn number(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Hash => 1,
            Self::Drop => 2,
        }
    }

    /// The one with a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pass),
            1 => Some(Self::Hash),
            2 => Some(Self::Drop),
            _ => None,
        }
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Hash => "hash",
            Self::Drop => "drop",
        })
    }
}

impl FromStr for Passage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pass" => Ok(Self::Pass),
            "hash" => Ok(Self::Hash),
            "drop" => Ok(Self::Drop),
            _ => Err(format!("`{text}` is none of pass, drop and hash")),
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldAction {
    /// A number is rounded to so many digits behind the point; before it, if that is negative.
    Round(i8),
    /// Of a text, so many characters are left.
    Truncate(u32),
    /// A keyed hash goes in its place: equal values stay equal.
    Hash,
    /// Three asterisks go in its place.
    Mask,
    /// It does not go, nor does its name.
    Drop,
}

impl FieldAction {
    /// Its kind and argument in the log.
    pub const fn numbers(self) -> (u8, u32) {
        match self {
            Self::Drop => (1, 0),
            Self::Mask => (2, 0),
            Self::Hash => (3, 0),
            Self::Truncate(characters) => (4, characters),
            Self::Round(digits) => (5, digits.cast_unsigned() as u32),
        }
    }

    /// The action with a kind and an argument; `None` if there is none.
    pub fn from_numbers(kind: u8, argument: u32) -> Option<Self> {
        let action = match (kind, argument) {
            (1, 0) => Self::Drop,
            (2, 0) => Self::Mask,
            (3, 0) => Self::Hash,
            (4, characters) => Self::Truncate(characters),
            (5, digits) => Self::Round(u8::try_from(digits).ok()?.cast_signed()),
            _ => return None,
        };
        action.is_within_limits().then_some(action)
    }

    /// The least strict action that tells no more than either.
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Drop, _) | (_, Self::Drop) => Self::Drop,
            (Self::Hash, Self::Hash) => Self::Hash,
            (Self::Truncate(one), Self::Truncate(other)) => Self::Truncate(one.min(other)),
            (Self::Round(one), Self::Round(other)) => Self::Round(one.min(other)),
            (_, _) => Self::Mask,
        }
    }

    fn is_within_limits(self) -> bool {
        match self {
            Self::Truncate(characters) => characters <= TRUNCATE_MAX,
            Self::Round(digits) => (-ROUND_MAX..=ROUND_MAX).contains(&digits),
            Self::Drop | Self::Mask | Self::Hash => true,
        }
    }
}

impl fmt::Display for FieldAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Mask => f.write_str("mask"),
            Self::Hash => f.write_str("hash"),
            Self::Truncate(characters) => write!(f, "truncate:{characters}"),
            Self::Round(digits) => write!(f, "round:{digits}"),
        }
    }
}

impl FromStr for FieldAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let action = match (name, argument) {
            ("drop", None) => Some(Self::Drop),
            ("mask", None) => Some(Self::Mask),
            ("hash", None) => Some(Self::Hash),
            ("truncate", Some(argument)) => argument.parse().ok().map(Self::Truncate),
            ("round", Some(argument)) => argument.parse().ok().map(Self::Round),
            _ => None,
        };
        action.filter(|action| action.is_within_limits()).ok_or_else(|| {
            format!(
                "`{text}` is none of drop, mask, hash, truncate:CHARACTERS (up to {TRUNCATE_MAX}) \
                 and round:DIGITS (from -{ROUND_MAX} to {ROUND_MAX})"
            )
        })
    }
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// The member of an object with this name.
    Name(String),
    /// Every member.
    Any,
}

/// Which fields of a JSON value are meant. Arrays on the way are entered by themselves, so `items.id`
/// means the `id` of each item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// Its steps, at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }
}

/// The characters that mean something in a list of fields or headers.
const SPECIAL: [char; 8] = ['\\', '.', ',', '=', '*', '[', '$', ' '];

fn escape(name: &str) -> String {
    let escaped = |c: char| {
        let slash = SPECIAL.contains(&c).then_some('\\');
        slash.into_iter().chain([c])
    };
    name.chars().flat_map(escaped).collect()
}

/// The name without its backslashes.
fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut name = String::new();
    while let Some(c) = chars.next() {
        name.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    name
}

/// The characters that no backslash takes the meaning from, with their places.
fn bare(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut is_escaped = false;
    text.char_indices().filter(move |(_, c)| {
        let is_bare = !is_escaped;
        is_escaped = *c == '\\' && is_bare;
        is_bare
    })
}

/// The parts between characters that no backslash stands before.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (place, _) in bare(text).filter(|(_, c)| *c == at) {
        parts.push(&text[start..place]);
        start = place + at.len_utf8();
    }
    parts.push(&text[start..]);
    parts
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |segment: &Segment| match segment {
            Segment::Name(name) => escape(name),
            Segment::Any => EVERY_OTHER.to_owned(),
        };
        f.write_str(&self.0.iter().map(text).collect::<Vec<_>>().join("."))
    }
}

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > LINK_TEXT_BYTES_MAX {
            return Err(format!("a path has at most {LINK_TEXT_BYTES_MAX} bytes"));
        }
        if split(text, '[').len() > 1 || text.starts_with("$.") {
            return Err(format!(
                "`{text}`: a path is names with dots between, as in `items.id`, which means the id of \
                 every item; a name with a bracket is written with a backslash before it"
            ));
        }
        let segment = |part: &str| match (part, unescape(part)) {
            (EVERY_OTHER, _) => Ok(Segment::Any),
            (_, name) if name.is_empty() => Err(format!("`{text}` has an empty name in it")),
            (_, name) => Ok(Segment::Name(name)),
        };
        let segments = split(text, '.').into_iter().map(segment).collect::<Result<Vec<_>, _>>()?;
        if segments.len() > PATH_DEPTH_MAX {
            return Err(format!("a path has at most {PATH_DEPTH_MAX} names"));
        }
        let path = Self(segments);
        // What is shown and logged has to fit as well.
        if path.to_string().len() > LINK_TEXT_BYTES_MAX {
            return Err(format!("a path has at most {LINK_TEXT_BYTES_MAX} bytes"));
        }
        Ok(path)
    }
}

/// Where the records of a topic may go, and in which form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleDefinition {
    /// The regions that may have them. Without any there is no rule, and the topic goes nowhere.
    pub regions: Vec<String>,
    /// What becomes of their keys.
    pub key: Passage,
    /// What becomes of headers, by name; [`EVERY_OTHER`] for those that are not named, which pass
    /// without that.
    pub headers: BTreeMap<String, Passage>,
    /// What becomes of the fields of their values, which then have to be JSON.
    pub fields: BTreeMap<FieldPath, FieldAction>,
}

impl RuleDefinition {
    /// A rule that lets everything go as it is.
    pub fn verbatim(regions: impl IntoIterator<Item = String>) -> Self {
        Self { regions: regions.into_iter().collect(), ..Self::default() }
    }

    /// Whether the rule names a region.
    pub fn lets_go_to(&self, region: &str) -> bool {
        self.regions.iter().any(|known| known == region)
    }

    /// What becomes of a header.
    pub fn header(&self, name: &[u8]) -> Passage {
        let named = std::str::from_utf8(name).ok().and_then(|name| self.headers.get(name));
        named.or_else(|| self.headers.get(EVERY_OTHER)).copied().unwrap_or_default()
    }

    /// Whether it lets something of a record go that another rule withholds, wherever both let it go to.
    pub fn tells_more_than(&self, other: &Self) -> bool {
        let both = Self { regions: self.regions.clone(), ..other.clone() }.join(self);
        let header = |name: &String| both.header(name.as_bytes()) != self.header(name.as_bytes());
        !self.regions.is_empty()
            && (both.key != self.key
                || both.fields != self.fields
                || both.headers.keys().any(header))
    }

    /// The rule that lets go what both let go, in a form that tells no more than either's.
    fn join(&self, other: &Self) -> Self {
        let both = |region: &&String| other.lets_go_to(region);
        let regions: Vec<String> = self.regions.iter().filter(both).cloned().collect();
        if regions.is_empty() {
            return Self::default();
        }
        let names = self.headers.keys().chain(other.headers.keys());
        let header = |name: &String| {
            let passage = self.header(name.as_bytes()).max(other.header(name.as_bytes()));
            (name.clone(), passage)
        };
        let mut fields = self.fields.clone();
        for (path, action) in &other.fields {
            let known = fields.get(path).map_or(*action, |known| known.join(*action));
            fields.insert(path.clone(), known);
        }
        let (key, headers) = (self.key.max(other.key), names.map(header).collect());
        Self { regions, key, headers, fields }
    }

    /// Whether records go as they are stored.
    pub fn is_verbatim(&self) -> bool {
        self.key == Passage::Pass
            && self.fields.is_empty()
            && self.headers.values().all(|passage| *passage == Passage::Pass)
    }

    /// Whether nothing in it is longer, or there more often, than may be.
    pub fn is_within_limits(&self) -> bool {
        let is_short = |text: &String| (1..=LINK_TEXT_BYTES_MAX).contains(&text.len());
        self.regions.len() <= RULE_REGIONS_MAX
            && self.regions.iter().all(is_short)
            && self.headers.len() <= RULE_HEADERS_MAX
            && self.headers.keys().all(is_short)
            && self.fields.len() <= RULE_FIELDS_MAX
            && (self.is_verbatim() || !self.regions.is_empty())
    }

    /// It as names and values, in which form it travels.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        if !self.regions.is_empty() {
            settings.push((REGIONS, self.regions.join(",")));
        }
        if !self.is_verbatim() {
            settings.push((KEY, self.key.to_string()));
            settings.push((HEADERS, self.headers_text()));
        }
        if !self.fields.is_empty() {
            settings.push((FIELDS, self.fields_text()));
        }
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The headers as they are written.
    pub fn headers_text(&self) -> String {
        if self.headers.is_empty() {
            return Passage::Pass.to_string();
        }
        let header = |(name, passage): (&String, &Passage)| match name.as_str() {
            EVERY_OTHER => format!("{EVERY_OTHER}={passage}"),
            name => format!("{}={passage}", escape(name)),
        };
        self.headers.iter().map(header).collect::<Vec<_>>().join(",")
    }

    /// The fields as they are written.
    pub fn fields_text(&self) -> String {
        let field = |(path, action): (&FieldPath, &FieldAction)| format!("{path}={action}");
        self.fields.iter().map(field).collect::<Vec<_>>().join(",")
    }

    /// The definition that somebody lays down with these settings. Who names single headers has to say what becomes of
    /// all others: what reads like a list of what may go is not to let go what nobody thought of.
    ///
    /// # Errors
    /// For people, as [`Self::from_settings`].
    pub fn laid_down<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let rule = Self::from_settings(settings)?;
        if rule.headers.is_empty() || rule.headers.contains_key(EVERY_OTHER) {
            return Ok(rule);
        }
        Err(format!(
            "`{HEADERS}` names single headers, and has to say what becomes of all others: {EVERY_OTHER}=drop, or \
             {EVERY_OTHER}=pass"
        ))
    }

    /// The definition with these settings; without any there is no rule.
    ///
    /// # Errors
    /// For people: a setting that does not exist, or a value that it cannot have.
    pub fn from_settings<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut rule = Self::default();
        let (mut has_key, mut has_headers) = (false, false);
        for (name, value) in settings {
            match name {
                REGIONS => rule.regions = list(value),
                KEY => {
                    rule.key = value.parse().map_err(|error| format!("`{KEY}`: {error}"))?;
                    has_key = true;
                }
                HEADERS => {
                    rule.headers = headers(value)?;
                    has_headers = true;
                }
                FIELDS => rule.fields = fields(value)?,
                _ => return Err(format!("a rule has no setting `{name}`")),
            }
        }
        let says_all = has_key && has_headers;
        if !rule.fields.is_empty() && !says_all {
            return Err(format!(
                "a rule about fields has to say what becomes of the `{KEY}` and the `{HEADERS}` too: \
                 pass, drop or hash"
            ));
        }
        if rule.regions.is_empty() && !rule.is_verbatim() {
            return Err("a rule has to say which `regions` may have the topic".to_owned());
        }
        Ok(rule)
    }
}

/// Whether a space stands in a text without a backslash before it: it would be a part of a name, and whoever
/// wrote it hardly meant that.
fn has_bare_space(text: &str) -> bool {
    bare(text).any(|(_, c)| c.is_whitespace())
}

/// What stands before and behind the last `=` of each part of a list.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = split(text, ',').into_iter().map(str::trim).filter(|part| !part.is_empty());
    let pair = |part| match split(part, '=').as_slice() {
        [name, _] if has_bare_space(name) => Err(format!(
            "`{part}` has a space in its name; one that belongs there needs a backslash before it"
        )),
        [name, value] if !name.is_empty() => Ok((*name, *value)),
        _ => Err(format!("`{part}` is not of the form NAME=ACTION")),
    };
    parts.map(pair).collect()
}

/// The headers of a rule as people write them; one action alone is for all of them.
///
/// # Errors
/// For people.
pub fn headers(text: &str) -> Result<BTreeMap<String, Passage>, String> {
    if let Ok(passage) = text.trim().parse::<Passage>() {
        let is_pass = passage == Passage::Pass;
        return Ok((!is_pass).then(|| (EVERY_OTHER.to_owned(), passage)).into_iter().collect());
    }
    let mut headers = BTreeMap::new();
    for (name, passage) in pairs(text)? {
        let passage = passage.parse().map_err(|error| format!("`{HEADERS}`: {error}"))?;
        let name = if name == EVERY_OTHER { name.to_owned() } else { unescape(name) };
        if headers.insert(name, passage).is_some() {
            return Err(format!("`{HEADERS}` names one header twice"));
        }
    }
    Ok(headers)
}

/// The fields of a rule as people write them.
///
/// # Errors
/// For people.
pub fn fields(text: &str) -> Result<BTreeMap<FieldPath, FieldAction>, String> {
    let mut fields = BTreeMap::new();
    for (path, action) in pairs(text)? {
        let path: FieldPath = path.parse().map_err(|error| format!("`{FIELDS}`: {error}"))?;
        let action = action.parse().map_err(|error| format!("the field {path}: {error}"))?;
        let shown = path.to_string();
        if fields.insert(path, action).is_some() {
            return Err(format!("`{FIELDS}` names {shown} twice"));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests;
