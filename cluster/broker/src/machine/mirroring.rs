//! What entries about links and mirrors do to the state.
//!
//! Invariants: as in `state.rs`; a batch reaches a mirror only under the definition of its link that
//! stands when it is applied, and only at the offset that is next there.
//!
//! Never: let a client's batch into a mirror, or a mirror's progress move without its records.

use super::batch::BatchFacts;
use super::changes::{Change, ChangeOf, Changed, Settings, cut, difference};
use super::gaps::{Gap, gaps_max};
use super::links::{Declined, Link, PeerProgress, Rule};
use super::mirrors::{Mirror, Progress};
use super::outcome::{OperationResult, Refusal};
use super::pipelines::Making;
use super::state::{Append, State, Step};
use super::topics::{CHAIN_KEY_CONFIG, Topic, is_valid_name};
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_store::entry::{Batch, LinkOperation, MirrorPlace, NewMirror, RuleSecret, Tag};
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::link::{
    Decline, LINK_OFFSET_MAX, LINK_TEXT_BYTES_MAX, LINKS_PER_SITE_MAX, LinkDefinition, VIA_MAX,
};
use fulmar_types::pipeline::is_internal;
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Event, Offset, Plant, TopicId};
use std::collections::BTreeSet;

/// Rules of a site, at most.
pub const RULES_MAX: usize = 4_096;

/// The tag of a partition in which nothing was ever written.
pub const NO_TAG: Tag = [0; 16];

/// Whether a copy may have come through these sites, over a link.
fn check_via(via: &[String], link: &LinkDefinition) -> Result<(), Refusal> {
    let are_names = via.len() <= VIA_MAX && via.iter().all(|site| is_valid_name(site));
    if are_names && via.last() == Some(&link.site) { Ok(()) } else { Err(Refusal::InvalidLink) }
}

impl State {
    /// The links, by name.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// A link.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(&name.to_owned())
    }

    /// The link to a site: there is one at most.
    pub fn link_to(&self, site: &str) -> Option<&Link> {
        self.links().find(|link| link.definition.site == site)
    }

    /// The rules, by topic.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The last changes of links and rules, oldest first.
    pub fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.changes.iter()
    }

    /// The rule of a topic.
    pub fn rule(&self, topic: &str) -> Option<&Rule> {
        self.rules.get(&topic.to_owned())
    }

    /// The rule by which the records of a topic may go to a region. Without one they go nowhere, but for
    /// what pipelines have made of topics that all may go there as they are.
    pub fn rule_to(&self, topic: &str, region: &str) -> Option<&Rule> {
        if is_internal(topic) {
            return None;
        }
        match self.rule(topic) {
            Some(rule) => Some(rule).filter(|rule| rule.definition.lets_go_to(region)),
            None if planted(Plant::OutputGoesFreely) && self.made_of(topic).is_some() => {
                self.rules().find(|rule| rule.definition.lets_go_to(region))
            }
            None => self.inherited_rule(topic, region),
        }
    }

    /// What a topic is made of that pipelines write, by name; and whether there is more.
    pub fn made_of(&self, topic: &str) -> Option<&Making> {
        self.topics.by_name(topic).and_then(|topic| self.makings.get(&topic.id))
    }

    /// The first of the rules of all that a topic is made of, if each lets its topic go to a region as it
    /// is. What has no rule may itself be made of others.
    fn inherited_rule(&self, topic: &str, region: &str) -> Option<&Rule> {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![topic]);
        let mut first: Option<&Rule> = None;
        while let Some(topic) = ahead.pop() {
            let making = self.made_of(topic).filter(|making| !making.has_more)?;
            for input in making.of.iter().filter(|input| !is_internal(input)) {
                if !seen.insert(input.as_str()) {
                    continue;
                }
                let Some(rule) = self.rule(input) else {
                    ahead.push(input);
                    continue;
                };
                let is_whole = rule.definition.is_verbatim();
                if !rule.definition.lets_go_to(region)
                    || !(is_whole || planted(Plant::WithholdingNotInherited))
                {
                    match planted(Plant::LaxestInputDecides) {
                        true => continue,
                        false => return None,
                    }
                }
                first = first.filter(|first| first.topic < rule.topic).or(Some(rule));
            }
        }
        first
    }

    /// The rule by which a topic may go over a link. A copy goes neither back to where it comes from, nor
    /// to a site that it has come through.
    pub fn rule_over(&self, link: &Link, topic: &Topic) -> Option<&Rule> {
        let mirror = self.mirrors.get(&topic.id);
        let is_loop = mirror.is_some_and(|mirror| mirror.via.contains(&link.definition.site));
        if is_loop && !planted(Plant::LoopNotCut) {
            return None;
        }
        self.rule_to(&topic.name, &link.definition.region)
    }

    /// Hashes of all that says which topics may go where, and what is said of them to another site: as long as they
    /// are the same, whoever has looked need not look again. There may be thousands of topics, and of each link
    /// somebody asks several times a second.
    pub fn border_hashes(&self) -> [u128; 5] {
        [
            self.topics.hash(),
            self.mirrors.hash(),
            self.makings.hash(),
            self.links.hash(),
            self.rules.hash(),
        ]
    }

    /// Why the peer of a link does not take a topic, as far as it has said so.
    pub fn declined(&self, link: &str, topic: TopicId) -> Option<Decline> {
        self.declined.get(&(link.to_owned(), topic)).map(|declined| declined.why)
    }

    /// What the peer of a link does not take.
    pub fn declined_over(&self, link: &str) -> impl Iterator<Item = (TopicId, Decline)> {
        self.declined.of_link(link).map(|declined| (declined.topic, declined.why))
    }

    /// What a topic is a copy of, if it is one.
    pub fn mirror(&self, topic: TopicId) -> Option<&Mirror> {
        self.mirrors.get(&topic)
    }

    /// The partitions of mirrors.
    #[cfg(test)]
    pub(super) fn mirrored(&self) -> impl Iterator<Item = StreamId> {
        self.progress.iter().map(|progress| progress.stream)
    }

    /// The origin's tag at the next offset of a mirrored partition.
    pub fn tag(&self, stream: StreamId) -> Option<Tag> {
        self.progress.get(&stream).map(|progress| progress.tag)
    }

    /// What is missing of a partition, oldest first: what a mirror will never have, or what went
    /// before other sites were known to have it.
    pub fn gaps(&self, stream: StreamId) -> impl Iterator<Item = &Gap> {
        self.gaps.of_stream(stream)
    }

    /// What is missing of a partition at an offset.
    pub fn gap_at(&self, stream: StreamId, offset: Offset) -> Option<&Gap> {
        self.gaps.at(stream, offset)
    }

    /// How far the peer of a link has a partition of this site, as far as that was noted.
    pub fn peer_progress(&self, link: &str, stream: StreamId) -> Option<&PeerProgress> {
        self.peers.get(&(link.to_owned(), stream))
    }

    pub(super) fn apply_link(
        &mut self,
        step: &mut Step,
        operation: LinkOperation,
    ) -> Result<OperationResult, Refusal> {
        match operation {
            LinkOperation::SetLink { name, who, definition, .. } => {
                self.set_link(step, (name, who), definition)
            }
            LinkOperation::SetRule { topic, who, definition, secret, .. } => {
                self.set_rule(step, (topic, who), (definition, secret))
            }
            LinkOperation::CreateMirror(new) => self.create_mirror(new),
            LinkOperation::MirrorAppend { place, batch } => {
                self.mirror_append(step, &place, &batch)
            }
            LinkOperation::MirrorSkip { place, to, missing } => {
                self.mirror_skip(step, &place, to, missing)
            }
            LinkOperation::PeerHas { place } => self.peer_has(step, &place),
            LinkOperation::AlignMirror { link, topic, via, configs } => {
                self.align_mirror((link, topic), via, configs)
            }
            LinkOperation::PeerDeclines { link, topics } => self.peer_declines(link, topics),
            LinkOperation::GiveBond { link, shown } => self.give_bond(link, shown),
            LinkOperation::HearBond { link, number } => self.hear_bond(link, number),
            LinkOperation::PutBackNoticed { link, shown } => self.note_put_back(link, shown),
            LinkOperation::PeerParted { link, topic, partition } => {
                self.peer_parted(link, (topic, partition))
            }
        }
    }

    fn set_link(
        &mut self,
        step: &Step,
        (name, who): (String, String),
        definition: Option<LinkDefinition>,
    ) -> Result<OperationResult, Refusal> {
        if !is_valid_name(&name) {
            return Err(Refusal::InvalidLink);
        }
        let known = self.links.get(&name);
        let before = known.map(|link| link.definition.settings());
        let Some(definition) = definition else {
            // Also where there is none, as for rules.
            self.links.remove(&name);
            let (number, _) = self.note(step, (ChangeOf::Link, &name, who), (before, None));
            self.peers.drop_link(&name);
            self.declined.drop_link(&name);
            return Ok(OperationResult::LinkSet { number });
        };
        let is_other_site = known.is_some_and(|link| link.definition.site != definition.site);
        // With a dot in it, a topic of one site could have the name of that of another.
        let is_site = is_valid_name(&definition.site) && !definition.site.contains('.');
        if !is_site || !definition.is_within_limits() {
            return Err(Refusal::InvalidLink);
        }
        if is_other_site {
            return Err(Refusal::LinkOfOtherSite);
        }
        let other = |link: &Link| link.name != name && link.definition.site == definition.site;
        if self.links.iter().any(other) {
            return Err(Refusal::SiteTaken);
        }
        if known.is_none() && self.links.len() >= LINKS_PER_SITE_MAX {
            return Err(Refusal::LimitReached);
        }
        if known.is_some_and(|link| link.definition.paused) && !definition.paused {
            self.pardon(&definition.site);
        }
        let after = Some(definition.settings());
        let (number, changed) = self.note(step, (ChangeOf::Link, &name, who), (before, after));
        self.links.put(Link { name, number, changed, definition });
        Ok(OperationResult::LinkSet { number })
    }

    fn set_rule(
        &mut self,
        step: &Step,
        (topic, who): (String, String),
        (definition, secret): (RuleDefinition, RuleSecret),
    ) -> Result<OperationResult, Refusal> {
        if !is_valid_name(&topic) || is_internal(&topic) || !definition.is_within_limits() {
            return Err(Refusal::InvalidLink);
        }
        let before = self.rules.get(&topic).map(|rule| rule.definition.settings());
        if definition.regions.is_empty() {
            // Also where there is none: what was asked for before is not to be done after this.
            self.rules.remove(&topic);
            let (number, _) = self.note(step, (ChangeOf::Rule, &topic, who), (before, None));
            return Ok(OperationResult::LinkSet { number });
        }
        if self.rules.len() >= RULES_MAX && before.is_none() {
            return Err(Refusal::LimitReached);
        }
        // Equal values are to become equal hashes, whatever rule says so, and whenever.
        let secret = self.meta.rule_secret(secret);
        let after = Some(definition.settings());
        let (number, changed) = self.note(step, (ChangeOf::Rule, &topic, who), (before, after));
        self.rules.put(Rule { topic, number, changed, secret, definition });
        Ok(OperationResult::LinkSet { number })
    }

    /// Takes note of a change, and says its number, and who made it when.
    pub(super) fn note(
        &mut self,
        step: &Step,
        (of, name, who): (ChangeOf, &str, String),
        (before, after): (Option<Settings>, Option<Settings>),
    ) -> (u64, Changed) {
        let who = cut(&who, LINK_TEXT_BYTES_MAX).to_owned();
        let changed = Changed { who, wall_ms: step.entry_ms() };
        let text = difference(before.as_ref(), after.as_ref());
        let (number, name) = (self.changes.next_number(step.number()), name.to_owned());
        self.changes.enter(Change { number, changed: changed.clone(), of, name, text });
        (number, changed)
    }

    fn create_mirror(&mut self, new: NewMirror) -> Result<OperationResult, Refusal> {
        let link = self.links.get(&new.link).ok_or(Refusal::UnknownLink)?;
        check_via(&new.via, &link.definition)?;
        let before = &new.via[..new.via.len() - 1];
        if self.is_taken_from_origin(&new.link, (before, &new.origin_name)) {
            return Err(Refusal::InvalidLink);
        }
        if link.definition.name_of(before, &new.origin_name).as_ref() != Some(&new.name) {
            return Err(Refusal::InvalidTopicName);
        }
        self.check_copies(&new.link, new.partitions)?;
        let mut configs = new.configs.clone();
        configs.retain(|(name, _)| name != CHAIN_KEY_CONFIG);
        let created = self.create_topic(new.topic, new.name, new.partitions, new.configs)?;
        let topic = self.topics.get(new.topic).expect("it was just created");
        for stream in topic.streams() {
            let before = self.progress.put(Progress { stream, tag: NO_TAG });
            assert!(before.is_none(), "a stream is handed out once");
        }
        let NewMirror { topic, origin, link, origin_name, via, .. } = new;
        self.mirrors.put(Mirror { topic, origin, link, origin_name, via, configs });
        Ok(created)
    }

    /// Whether a link may have copies of so many partitions more.
    fn check_copies(&self, link: &String, more: u32) -> Result<(), Refusal> {
        let link = self.links.get(link).ok_or(Refusal::UnknownLink)?;
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.link == link.name);
        let topics = mirrors.filter_map(|mirror| self.topics.get(mirror.topic));
        let has: usize = topics.map(|topic| topic.partitions as usize).sum();
        let is_within = has + more as usize <= link.definition.copies.partitions_max as usize;
        if is_within { Ok(()) } else { Err(Refusal::LimitReached) }
    }

    /// Whether what a link offers that has come `via` other sites is a topic that another link takes from its
    /// origin. Then it comes over that one: whoever passes on what is of others may say of anything that it is
    /// theirs.
    pub fn is_taken_from_origin(&self, link: &str, (via, name): (&[String], &str)) -> bool {
        let Some(origin) = via.first() else { return false };
        let name = name.strip_prefix(&**origin).and_then(|rest| rest.strip_prefix('.'));
        let takes = |other: &Link| {
            let definition = &other.definition;
            other.name != link
                && definition.site == *origin
                && name.is_some_and(|name| definition.takes(name))
        };
        self.links.iter().any(takes)
    }

    /// Whether the link of a mirror brings it still: it is there, leads where it led, and takes the topic. One that
    /// has only its name does not.
    pub fn is_brought(&self, mirror: &Mirror) -> bool {
        let brings =
            |link: &LinkDefinition| mirror.is_given_by(link) && link.takes(&mirror.origin_name);
        let link = self.links.get(&mirror.link);
        link.is_some_and(|link| brings(&link.definition) || planted(Plant::NameIsEnough))
    }

    /// The link that is to bring a mirror from now on, by the number that its sender knows: its own, or, if that
    /// does not, one to the same site.
    fn bringer(&self, mirror: &Mirror, number: u64) -> Result<String, Refusal> {
        if self.is_brought(mirror) {
            self.check_number(&mirror.link, number)?;
            return Ok(mirror.link.clone());
        }
        let heir = self.links.iter().find(|link| link.number == number);
        let heir = heir.ok_or(Refusal::UnknownLink)?;
        self.check_number(&heir.name, number)?;
        if !mirror.is_given_by(&heir.definition) {
            return Err(Refusal::InvalidLink);
        }
        let topic = self.topics.get(mirror.topic).expect("a mirror is a topic");
        self.check_copies(&heir.name, topic.partitions)?;
        Ok(heir.name.clone())
    }

    /// What has changed at the origin since the mirror took over its settings changes here too; what
    /// somebody has changed here, and nobody there, stays.
    fn align_mirror(
        &mut self,
        (link, topic): (u64, TopicId),
        via: Vec<String>,
        configs: Vec<(String, String)>,
    ) -> Result<OperationResult, Refusal> {
        let mirror = self.mirrors.get(&topic).ok_or(Refusal::NotAMirror)?;
        let link = self.bringer(mirror, link)?;
        let known = self.links.get(&link).ok_or(Refusal::UnknownLink)?;
        check_via(&via, &known.definition)?;
        let gone = mirror.configs.iter().filter(|(key, _)| !configs.iter().any(|(k, _)| k == key));
        let gone = gone.map(|(key, _)| (key.clone(), None));
        let new = configs.iter().filter(|pair| !mirror.configs.contains(pair));
        let new = new.map(|(key, value)| (key.clone(), Some(value.clone())));
        let changes: Vec<_> = gone.chain(new).collect();
        let mirror = Mirror { link, via, configs, ..mirror.clone() };
        let altered = self.alter_topic(topic, false, changes)?;
        self.mirrors.put(mirror);
        Ok(altered)
    }

    /// The stream of a place in a mirror, if its link has the number that the sender knows and the
    /// offset is next.
    fn mirror_stream(&self, place: &MirrorPlace) -> Result<StreamId, Refusal> {
        let stream = self.stream(place.topic, place.partition)?.1;
        let mirror = self.mirrors.get(&place.topic).ok_or(Refusal::NotAMirror)?;
        self.check_number(&mirror.link, place.link)?;
        let next = self.known(stream).next;
        if place.offset != next && !planted(Plant::ProgressInMemory) {
            return Err(Refusal::UnexpectedOffset { next });
        }
        Ok(stream)
    }

    fn check_number(&self, link: &String, number: u64) -> Result<(), Refusal> {
        let link = self.links.get(link).ok_or(Refusal::UnknownLink)?;
        let is_it = link.number == number || planted(Plant::OldLinkUsed);
        if !is_it || link.definition.paused {
            return Err(Refusal::StaleLink { number: link.number });
        }
        Ok(())
    }

    fn mirror_append(
        &mut self,
        step: &mut Step,
        place: &MirrorPlace,
        batch: &Batch,
    ) -> Result<OperationResult, Refusal> {
        let stream = self.mirror_stream(place)?;
        let topic = self.topics.get(place.topic).expect("it has a stream");
        let (topic, chain_key, retention) =
            (topic.id, topic.chain_key, self.keeping(topic).retention);
        let facts =
            BatchFacts::read(batch.bytes(), step.entry_ms()).ok_or(Refusal::InvalidBatch)?;
        // Whoever this copy is passed on to must be able to hear where it ends.
        let next = place.offset;
        let end = next.0.checked_add(u64::from(facts.records));
        if end.is_none_or(|end| end > LINK_OFFSET_MAX) {
            return Err(Refusal::OffsetOutOfRange { next });
        }
        // The origin has settled who wrote what; here the offset does.
        let facts = BatchFacts { sequenced: None, ..facts };
        let append = Append { topic, stream, chain_key, retention, batch, facts };
        let done = self.append(step, &append)?;
        self.progress.put(Progress { stream, tag: place.tag });
        if facts.missing > 0 {
            let (first, end) = (place.offset, place.offset.plus(u64::from(facts.records)));
            let missing = Missing::untimed(GapReason::Withheld, u64::from(facts.missing));
            let (tag, age_ms) = (self.known(stream).chain, step.age_ms());
            let most = gaps_max(self.topics.partition_count());
            self.gaps.note(Gap { stream, first, end, missing, tag, age_ms }, most);
        }
        Ok(done)
    }

    fn mirror_skip(
        &mut self,
        step: &mut Step,
        place: &MirrorPlace,
        to: Offset,
        missing: Missing,
    ) -> Result<OperationResult, Refusal> {
        let stream = self.mirror_stream(place)?;
        let next = self.known(stream).next;
        if to.0 > LINK_OFFSET_MAX || !missing.fits(next, to) {
            return Err(Refusal::OffsetOutOfRange { next });
        }
        let is_empty = self.known(stream).log_start == place.offset;
        self.partitions.modify(&stream, |partition| partition.skip_to(to));
        if is_empty {
            // Nothing lies below the gap, so the partition begins behind it.
            self.spans.advance_start(stream, to);
            step.start_moved(stream, to);
        } else {
            self.spans.skip_to(stream, to);
        }
        self.progress.put(Progress { stream, tag: place.tag });
        // What was not kept is not in the chain.
        let (first, tag, age_ms) = (place.offset, self.known(stream).chain, step.age_ms());
        let most = gaps_max(self.topics.partition_count());
        self.gaps.note(Gap { stream, first, end: to, missing, tag, age_ms }, most);
        step.passed(stream);
        Ok(OperationResult::Skipped)
    }

    /// What the peer of a link does not take, it does not wait for. Whoever says so has been told of the
    /// topic, and its link says so, or where the topic comes from: so that is how it is until it says
    /// something else, or asks for the topic after all.
    fn peer_declines(
        &mut self,
        number: u64,
        topics: Vec<(TopicId, Decline)>,
    ) -> Result<OperationResult, Refusal> {
        let link = self.numbered(number)?.name.clone();
        self.declined.drop_link(&link);
        for (topic, why) in topics.into_iter().filter(|(id, _)| self.topics.get(*id).is_some()) {
            self.declined.put(Declined { link: link.clone(), topic, why });
        }
        Ok(OperationResult::PeerNoted)
    }

    fn peer_has(
        &mut self,
        step: &mut Step,
        place: &MirrorPlace,
    ) -> Result<OperationResult, Refusal> {
        let stream = self.stream(place.topic, place.partition)?.1;
        let link = self.numbered(place.link)?.name.clone();
        let next = self.known(stream).next;
        if place.offset > next {
            return Err(Refusal::OffsetOutOfRange { next });
        }
        let (offset, tag, age_ms) = (place.offset, place.tag, step.age_ms());
        if !planted(Plant::DeclinesAll) {
            self.declined.remove(&(link.clone(), place.topic));
        }
        self.peers.put(PeerProgress { link, stream, offset, tag, age_ms });
        let MirrorPlace { link, topic, partition, .. } = *place;
        step.tell(Event::LinkNoted { link, topic, partition, offset });
        Ok(OperationResult::PeerNoted)
    }
}
