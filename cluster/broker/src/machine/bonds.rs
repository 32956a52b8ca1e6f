//! By what a site finds out that it was put back to an older copy of itself: the others remember.
//!
//! ```text
//! gives                                            takes
//! logs that it gives number 7
//!       -- 7 -->                                   logs that it has heard 7, before it asks for anything
//! ...
//!       <-- I have heard 7 --                      the next time
//! has given 7: goes on, with 8
//! has given 4: was put back; its rules may be those of then, and it stops
//! ```
//!
//! Each site gives numbers to each other one that it is linked with, a greater one for each session, and for each time
//! that it notes how far the other has come.
//!
//! Invariants: a number is given only when the log has it, so one that somebody has heard is one that this site has
//! given, unless its log is older than that; a site that was put back gives nothing to those who know it, until that was
//! noticed and somebody who has looked at it resumes their link; where histories may have parted, what cannot be compared is not one.
//!
//! A copy of which the other site has heard nothing newer is not found out.
//!
//! Never: go on by oneself after that.

use super::codec::{CodecError, Reader, Writer};
use super::links::Link;
use super::outcome::{OperationResult, Refusal};
use super::state::State;
use super::table::{Element, Table};
use fulmar_host::planted;
use fulmar_types::link::LINKS_PER_SITE_MAX;
use fulmar_types::{PartitionIndex, Plant, TopicId};

/// Numbers that another site may say it has heard: so far from the end of the numbers that there are more.
pub const BOND_MAX: u64 = 1 << 62;

/// So far ahead of what this site knows nobody is who has only heard what it gave: one each five seconds for centuries.
const AHEAD_MAX: u64 = 1 << 32;

/// Sites that are remembered, at most: those without a link are forgotten first.
const BONDS_MAX: usize = 2 * LINKS_PER_SITE_MAX;

/// What a site and another one have said to each other last.
///
/// ```text
/// site len u32, UTF-8 | given u64 | heard u64 | noticed u64 | pardoned u64 | parted u8
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// The other site.
    pub site: String,
    /// The number that was given to it last.
    pub given: u64,
    /// The number that it has given last.
    pub heard: u64,
    /// The number by which this site was last found to be put back: the other one has heard it, and this one has not
    /// given it.
    pub noticed: u64,
    /// The same, of which somebody has resumed the link since: whoever does that has looked at this site. It says nothing
    /// of what is noticed later.
    pub pardoned: u64,
    /// What the other site holds may be of another history, where it cannot be compared.
    pub parted: bool,
}

impl Element for Bond {
    type Key = String;
    const SEED: u64 = 25;
    const BYTES_MIN: usize = 37;

    fn key(&self) -> String {
        self.site.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.site);
        out.u64(self.given);
        out.u64(self.heard);
        out.u64(self.noticed);
        out.u64(self.pardoned);
        out.u8(u8::from(self.parted));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (site, given, heard) = (input.text()?, input.u64()?, input.u64()?);
        let (noticed, pardoned) = (input.u64()?, input.u64()?);
        Ok(Self { site, given, heard, noticed, pardoned, parted: input.flag()? })
    }
}

impl Table<Bond> {
    /// What is known of a site.
    fn of(&self, site: &str) -> Bond {
        let known = self.get(&site.to_owned()).cloned();
        known.unwrap_or_else(|| Bond { site: site.to_owned(), ..Bond::default() })
    }
}

impl State {
    /// What this site and another one have said to each other last.
    pub fn bond(&self, site: &str) -> Bond {
        self.bonds.of(site)
    }

    /// Whether this site has given less than another one has heard of it, so that it was put back; and nobody has
    /// looked at it since.
    pub fn is_put_back(&self, site: &str, shown: u64) -> bool {
        let bond = self.bonds.of(site);
        shown > bond.given.max(bond.pardoned) && !planted(Plant::BondNotAsked)
    }

    fn put_bond(&mut self, bond: Bond) {
        self.bonds.put(bond);
        if self.bonds.len() > BONDS_MAX {
            let is_linked =
                |bond: &&Bond| self.links.iter().any(|link| link.definition.site == bond.site);
            let gone = self.bonds.iter().find(|bond| !is_linked(bond)).map(Element::key);
            self.bonds.remove(&gone.expect("there are fewer links"));
        }
    }

    /// The link that has a number.
    pub(super) fn numbered(&self, number: u64) -> Result<&Link, Refusal> {
        let link = self.links.iter().find(|link| link.number == number);
        link.ok_or(Refusal::StaleLink { number: 0 })
    }

    /// Somebody has resumed the link to a site: that pardons what was noticed before, and nothing else.
    pub(super) fn pardon(&mut self, site: &str) {
        let bond = self.bonds.of(site);
        let pardoned = match planted(Plant::PardonInAdvance) {
            true => u64::MAX,
            false => bond.noticed,
        };
        if pardoned > 0 {
            self.put_bond(Bond { pardoned, ..bond });
        }
    }

    /// Notes that the peer of a link has heard a number which this site has not given.
    pub(super) fn note_put_back(
        &mut self,
        number: u64,
        shown: u64,
    ) -> Result<OperationResult, Refusal> {
        let site = self.numbered(number)?.definition.site.clone();
        let bond = self.bonds.of(&site);
        let noticed = bond.noticed.max(shown.min(BOND_MAX));
        self.put_bond(Bond { noticed, ..bond });
        Ok(OperationResult::PeerNoted)
    }

    /// Draws the next number for the peer of a link, which has heard another one last. If this site was put back,
    /// what was noted of the peer was noted of another history.
    pub(super) fn give_bond(
        &mut self,
        number: u64,
        shown: u64,
    ) -> Result<OperationResult, Refusal> {
        let link = self.numbered(number)?.clone();
        let mut bond = self.bonds.of(&link.definition.site);
        if self.is_put_back(&bond.site, shown) {
            return Err(Refusal::StaleLink { number: link.number });
        }
        if shown > bond.given {
            bond.parted = true;
            self.peers.drop_link(&link.name);
        }
        let is_sense = shown <= bond.given.saturating_add(AHEAD_MAX);
        bond.given = if is_sense { bond.given.max(shown) } else { bond.given } + 1;
        (bond.noticed, bond.pardoned) = (0, 0);
        let number = bond.given;
        self.put_bond(bond);
        Ok(OperationResult::BondGiven { number })
    }

    /// Notes what the peer of a link has given.
    pub(super) fn hear_bond(
        &mut self,
        number: u64,
        heard: u64,
    ) -> Result<OperationResult, Refusal> {
        let site = self.numbered(number)?.definition.site.clone();
        let bond = Bond { heard, ..self.bonds.of(&site) };
        if !planted(Plant::BondNotLogged) {
            self.put_bond(bond);
        }
        Ok(OperationResult::PeerNoted)
    }

    /// Notes that what the peer of a link holds of a partition has another history: it has when what could be compared
    /// is gone, too.
    pub(super) fn peer_parted(
        &mut self,
        number: u64,
        (topic, partition): (TopicId, PartitionIndex),
    ) -> Result<OperationResult, Refusal> {
        let stream = self.stream(topic, partition)?.1;
        let (name, site) = {
            let link = self.numbered(number)?;
            (link.name.clone(), link.definition.site.clone())
        };
        self.peers.remove(&(name, stream));
        let bond = Bond { parted: true, ..self.bonds.of(&site) };
        self.put_bond(bond);
        Ok(OperationResult::PeerNoted)
    }
}
