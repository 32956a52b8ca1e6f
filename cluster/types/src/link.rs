//! What a site has laid down about another one that it exchanges topics with.
//!
//! Invariant: a definition comes from a client of this site and never from the peer; in particular the
//! region of the peer is what stands here, whatever the peer says of itself.

use std::fmt;

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

/// Among the settings of a link or a rule: the number of its definition.
pub const NUMBER: &str = "number";

/// Among the settings of a link or a rule that are told: who made it what it is, and the time of that, in
/// milliseconds since 1970.
pub const CHANGED_BY: &str = "changed-by";
/// See [`CHANGED_BY`].
pub const CHANGED_MS: &str = "changed-ms";

/// A link takes every topic that its peer offers.
pub const EVERY_TOPIC: &str = "*";

/// A link to another site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

impl LinkDefinition {
    /// Whether a topic of the other site is to be copied.
    pub fn takes(&self, topic: &str) -> bool {
        self.take.iter().any(|name| name == topic || name == EVERY_TOPIC)
    }

    /// The name that a topic of the other site has here.
    pub fn name_of(&self, topic: &str) -> String {
        format!("{}.{topic}", self.site)
    }

    /// Whether nothing in it is longer, or there more often, than may be.
    pub fn is_within_limits(&self) -> bool {
        let short = |text: &String| text.len() <= LINK_TEXT_BYTES_MAX;
        !self.site.is_empty()
            && [&self.site, &self.region].into_iter().all(short)
            && self.authority.len() <= LINK_AUTHORITY_BYTES_MAX
            && self.dial.len() <= LINK_DIALS_MAX
            && self.take.len() <= LINK_TOPICS_MAX
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
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The definition with these settings; what is missing is empty.
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
                _ => return Err(format!("a link has no setting `{name}`")),
            }
        }
        Ok(link)
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

/// Why a mirror will never have some offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// Their time was over at the origin before they were shipped.
    Expired,
}

impl GapReason {
    /// Its number in the log.
    pub const fn number(self) -> u8 {
        match self {
            Self::Expired => 1,
        }
    }

    /// The reason with a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Expired),
            _ => None,
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired at the origin"),
        }
    }
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
        };
        let settings = link.settings();
        let read = |settings: &[(String, String)]| {
            LinkDefinition::from_settings(settings.iter().map(|(k, v)| (&**k, &**v)))
        };
        assert_eq!(read(&settings), Ok(link.clone()));
        assert!(link.takes("orders") && !link.takes("others"));
        assert_eq!(link.name_of("orders"), "hub.orders");
        for (name, value) in
            [("sight", "x"), ("paused", "maybe"), ("authority", "0"), ("authority", "zz")]
        {
            let bad = LinkDefinition::from_settings([(name, value)]).expect_err(name);
            assert!(bad.contains(name), "{bad}");
        }
    }
}
