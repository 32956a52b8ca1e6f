//! What a site has laid down about another one that it exchanges topics with.
//!
//! Invariant: a definition comes from a client of this site and never from the peer; in particular the
//! region of the peer is what stands here, whatever the peer says of itself.

use crate::limits::PARTITIONS_PER_SITE_MAX;
use crate::units::HumanSize;

/// The longest name of a link, a site, a region or a place to dial, in bytes.
pub const LINK_TEXT_BYTES_MAX: usize = 249;

/// Links of a site, at most.
pub const LINKS_PER_SITE_MAX: usize = 1_024;

/// Places to dial of one link, at most.
pub const LINK_DIALS_MAX: usize = 16;

/// Names of topics that a link takes, at most.
pub const LINK_TOPICS_MAX: usize = 1_024;

/// The longest certificate of an authority, in bytes.
pub const LINK_AUTHORITY_BYTES_MAX: usize = 8 << 10;

/// Connections of one link, at most.
pub const LINK_CONNECTIONS_MAX: u8 = 8;

/// Connections of a link for which nothing else is said: enough for three of four to fill a long line
/// that loses something, which a single one cannot.
pub const LINK_CONNECTIONS_DEFAULT: u8 = 4;

/// The lowest cap of a link, in bytes per second: less could not keep its greetings alive.
pub const LINK_CAP_MIN: u64 = 16 << 10;

/// Partitions that the copies of one link have at most, for which nothing else is said: a quarter of what
/// a site has, so that one peer leaves room for others.
pub const COPIES_PARTITIONS_DEFAULT: u32 = 4_096;

/// Offsets that can be said over a link go up to here: as far as nobody comes, and so far from the end of
/// the numbers that what is counted on from one stays a number, for Kafka's clients as well. A copy ends
/// here at the latest: what came behind it could not be told to the next site.
pub const LINK_OFFSET_MAX: u64 = 1 << 62;

/// What copies may take on this site, whatever their origin says: it chooses how many topics it offers,
/// and how much of each is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// Partitions of all copies of the link together.
    pub partitions_max: u32,
    /// Bytes that are kept of each partition, if the origin keeps more; `None` for as many as there.
    pub retention_bytes_max: Option<u64>,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { partitions_max: COPIES_PARTITIONS_DEFAULT, retention_bytes_max: None }
    }
}

/// Among the settings of a link or a rule: the number of its definition.
pub const NUMBER: &str = "number";

/// Among the settings of a link or a rule that are told: who made it what it is, and the time of that, in
/// milliseconds since 1970.
pub const CHANGED_BY: &str = "changed-by";
/// See [`CHANGED_BY`].
pub const CHANGED_MS: &str = "changed-ms";

/// Sites that a topic may have come through, its origin included.
pub const VIA_MAX: usize = 16;

/// Why a site does not take a topic that is offered to it, and will not while nobody changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decline {
    /// Its link does not name the topic.
    NotWanted,
    /// The topic comes from this very site, or has come through it.
    Loop,
    /// The same topic comes to it over another link.
    OtherLink,
    /// It has a link to the origin, which takes the topic: whoever else has it is not asked.
    FromOrigin,
}

impl Decline {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NotWanted, Self::Loop, Self::OtherLink, Self::FromOrigin];

    /// What is told of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotWanted => "its link does not name it",
            Self::Loop => "it comes from there",
            Self::OtherLink => "it comes over another link",
            Self::FromOrigin => "its link to the origin names it",
        }
    }

    /// Its number, in the log and on the line.
    pub const fn number(self) -> u8 {
        match self {
            Self::NotWanted => 1,
            Self::Loop => 2,
            Self::OtherLink => 3,
            Self::FromOrigin => 4,
        }
    }

    /// The reason of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|decline| decline.number() == number)
    }
}

/// A link takes every topic that its peer offers.
pub const EVERY_TOPIC: &str = "*";

/// A link to another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkDefinition {
    /// The name of the other site. Its topics are called `{site}.{topic}` here.
    pub site: String,
    /// Where it lies, as far as the law is concerned: what rules about topics speak of.
    pub region: String,
    /// The certificate (DER) of the authority that the nodes of the other site prove themselves
    /// with. Without one nobody proves anything.
    pub authority: Vec<u8>,
    /// Where its nodes wait for links, `host:port`. Without any, it is the other site that dials.
    pub dial: Vec<String>,
    /// The topics of the other site that are copied to this one; [`EVERY_TOPIC`] for all.
    pub take: Vec<String>,
    /// Nothing passes for now.
    pub paused: bool,
    /// The most bytes that this side sends in any second; `None` for as many as the line takes.
    pub cap: Option<u64>,
    /// How many connections carry the link; the lesser number of the two sides counts.
    pub connections: u8,
    /// What the copies may take here.
    pub copies: CopyLimits,
}

impl Default for LinkDefinition {
    fn default() -> Self {
        Self {
            site: String::new(),
            region: String::new(),
            authority: Vec::new(),
            dial: Vec::new(),
            take: Vec::new(),
            paused: false,
            cap: None,
            connections: LINK_CONNECTIONS_DEFAULT,
            copies: CopyLimits::default(),
        }
    }
}

impl LinkDefinition {
    /// Whether a topic of the other site is to be copied.
    pub fn takes(&self, topic: &str) -> bool {
        self.take.iter().any(|name| name == topic || name == EVERY_TOPIC)
    }

    /// The name that a topic of the other site has here. One that has come there from elsewhere, through
    /// the sites `via`, is called after its origin everywhere, and so has the name already.
    pub fn name_of(&self, via: &[String], topic: &str) -> Option<String> {
        match via.first() {
            None => Some(format!("{}.{topic}", self.site)),
            Some(origin) => {
                let is_copy =
                    topic.strip_prefix(&**origin).is_some_and(|rest| rest.starts_with('.'));
                is_copy.then(|| topic.to_owned())
            }
        }
    }

    /// Whether nothing in it is longer, or there more often, than may be.
    pub fn is_within_limits(&self) -> bool {
        let short = |text: &String| text.len() <= LINK_TEXT_BYTES_MAX;
        !self.site.is_empty()
            && [&self.site, &self.region].into_iter().all(short)
            && self.authority.len() <= LINK_AUTHORITY_BYTES_MAX
            && self.dial.len() <= LINK_DIALS_MAX
            && self.take.len() <= LINK_TOPICS_MAX
            && self.cap.is_none_or(|cap| cap >= LINK_CAP_MIN)
            && (1..=LINK_CONNECTIONS_MAX).contains(&self.connections)
            && self.copies.retention_bytes_max != Some(0)
            && self.dial.iter().chain(&self.take).all(short)
    }
}

impl LinkDefinition {
    /// It as names and values, in which form it travels; lists have commas between.
    pub fn settings(&self) -> Vec<(String, String)> {
        let authority: String = self.authority.iter().map(|byte| format!("{byte:02x}")).collect();
        [
            ("site", self.site.clone()),
            ("region", self.region.clone()),
            ("authority", authority),
            ("dial", self.dial.join(",")),
            ("take", self.take.join(",")),
            ("paused", self.paused.to_string()),
            ("cap", self.cap_text()),
            ("connections", self.connections.to_string()),
            ("partitions-max", self.copies.partitions_max.to_string()),
            ("retention-bytes-max", size_text(self.copies.retention_bytes_max)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The cap as it is written: a size, for a second, or `none`.
    pub fn cap_text(&self) -> String {
        size_text(self.cap)
    }

    /// The definition with these settings; what is missing is empty, or has its default.
    ///
    /// # Errors
    /// For people: a setting that does not exist, or a value that it cannot have.
    pub fn from_settings<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut link = Self::default();
        for (name, value) in settings {
            match name {
                "site" => link.site = value.to_owned(),
                "region" => link.region = value.to_owned(),
                "authority" => link.authority = bytes_of_hex(value)?,
                "dial" => link.dial = list(value),
                "take" => link.take = list(value),
                "paused" => {
                    link.paused = value
                        .parse()
                        .map_err(|_| format!("`paused` is true or false, and not `{value}`"))?;
                }
                "cap" => link.cap = cap(value)?,
                "connections" => link.connections = connections(value)?,
                "partitions-max" => link.copies.partitions_max = partitions_max(value)?,
                "retention-bytes-max" => {
                    link.copies.retention_bytes_max = retention_bytes_max(value)?;
                }
                _ => return Err(format!("a link has no setting `{name}`")),
            }
        }
        Ok(link)
    }
}

/// A size that may be without a limit, as it is written.
pub fn size_text(size: Option<u64>) -> String {
    size.map_or_else(|| NO_CAP.to_owned(), |size| HumanSize(size).to_string())
}

/// The partitions that the copies of a link may have.
///
/// # Errors
/// For people.
pub fn partitions_max(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= PARTITIONS_PER_SITE_MAX as u32);
    number.ok_or_else(|| {
        format!("`partitions-max` is a number up to {PARTITIONS_PER_SITE_MAX}, and not `{text}`")
    })
}

/// How many bytes of a partition of a copy are kept, as a size, or `none`.
///
/// # Errors
/// For people.
pub fn retention_bytes_max(text: &str) -> Result<Option<u64>, String> {
    if text == NO_CAP {
        return Ok(None);
    }
    match HumanSize::parse(text) {
        Ok(HumanSize(0)) => Err("`retention-bytes-max` is more than nothing".to_owned()),
        Ok(HumanSize(size)) => Ok(Some(size)),
        Err(error) => Err(format!("`retention-bytes-max` is `{NO_CAP}` or a size: {error}")),
    }
}

/// How it is written that a link has no cap, or no other bound.
pub const NO_CAP: &str = "none";

/// A cap that was written as a size for each second, or `none`.
///
/// # Errors
/// For people.
pub fn cap(text: &str) -> Result<Option<u64>, String> {
    if text == NO_CAP {
        return Ok(None);
    }
    let HumanSize(cap) = HumanSize::parse(text)
        .map_err(|error| format!("`cap` is `{NO_CAP}` or a size for each second: {error}"))?;
    if cap < LINK_CAP_MIN {
        let least = HumanSize(LINK_CAP_MIN);
        return Err(format!("`cap` is {least} for each second at least, and not `{text}`"));
    }
    Ok(Some(cap))
}

/// A number of connections of a link.
///
/// # Errors
/// For people.
pub fn connections(text: &str) -> Result<u8, String> {
    let number = text.parse().ok().filter(|number| (1..=LINK_CONNECTIONS_MAX).contains(number));
    number.ok_or_else(|| {
        format!("`connections` is a number from 1 to {LINK_CONNECTIONS_MAX}, and not `{text}`")
    })
}

/// The setting of a topic that says what goes before what on a link.
pub const PRIORITY: &str = "fulmar.priority";

/// How urgent the records of a topic are where they share a line with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Goes before everything else.
    Urgent,
    /// What a topic is for which nothing is said.
    #[default]
    Normal,
    /// Has time.
    Bulk,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Bulk];

    /// How it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }

    /// What was written.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// Its place among all, the most urgent first.
    pub const fn rank(self) -> usize {
        self as usize
    }
}

/// A list that was written with commas between.
pub fn list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn bytes_of_hex(text: &str) -> Result<Vec<u8>, String> {
    let bad = || "`authority` is a certificate in hexadecimal digits".to_owned();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad());
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_reads_back_and_bad_settings_are_named() {
        let link = LinkDefinition {
            site: "hub".to_owned(),
            region: "eu".to_owned(),
            authority: vec![0, 0xab, 0xff],
            dial: vec!["10.0.0.1:9292".to_owned(), "hub.example:9292".to_owned()],
            take: vec!["orders".to_owned()],
            paused: true,
            cap: Some(64 << 10),
            connections: 8,
            copies: CopyLimits { partitions_max: 7, retention_bytes_max: Some(1 << 20) },
        };
        let settings = link.settings();
        let read = |settings: &[(String, String)]| {
            LinkDefinition::from_settings(settings.iter().map(|(k, v)| (&**k, &**v)))
        };
        assert_eq!(read(&settings), Ok(link.clone()));
        assert!(link.takes("orders") && !link.takes("others"));
        assert_eq!(link.name_of(&[], "orders").as_deref(), Some("hub.orders"));
        let via = ["plant".to_owned(), "depot".to_owned()];
        assert_eq!(link.name_of(&via, "plant.orders").as_deref(), Some("plant.orders"));
        assert_eq!(link.name_of(&via, "depot.orders"), None, "it is of another origin");
        for (name, value) in [
            ("sight", "x"),
            ("paused", "maybe"),
            ("authority", "0"),
            ("authority", "zz"),
            ("cap", "0B"),
            ("cap", "100000"),
            ("cap", "15KiB"),
            ("connections", "0"),
            ("connections", "9"),
            ("partitions-max", "-1"),
            ("partitions-max", "16385"),
            ("retention-bytes-max", "0B"),
            ("retention-bytes-max", "many"),
        ] {
            let bad = LinkDefinition::from_settings([(name, value)]).expect_err(name);
            assert!(bad.contains(name), "{bad}");
        }
    }
}
