//! How the links of a site are: what stands in the log, and what the node that carries them knows.
//!
//! Invariant: what is told of a link is no more than names, numbers and reasons.
//!
//! Never: anything out of a record.

use crate::broker::Broker;
use crate::link_states::{LinkState, PUT_BACK};
use crate::machine::gaps::Gap;
use crate::machine::links::Link;
use crate::machine::spans::Span;
use crate::machine::state::State;
use crate::machine::topics::Topic;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::StreamId;
use fulmar_types::{Offset, PartitionIndex};

/// How a link is.
#[derive(Clone, Debug)]
pub struct LinkFigures {
    /// Its name.
    pub name: String,
    /// `up`, `down` or `paused`.
    pub state: &'static str,
    /// How long it is up.
    pub up_for: Option<Duration>,
    /// When the other site is dialled again.
    pub next_attempt: Option<Duration>,
    /// What went wrong last, and how long ago.
    pub trouble: Option<(String, Duration)>,
    /// Its kind: one of a few names.
    pub trouble_kind: &'static str,
    /// Bytes of records that went out since this node leads.
    pub sent_bytes: u64,
    /// Bytes of the frames that held them: less if they were compressed on the line.
    pub line_bytes: u64,
    /// The most bytes that this side may send in any second.
    pub cap: Option<u64>,
    /// How many of them in a second, lately.
    pub sent_per_second: u64,
    /// Bytes of records that came in.
    pub received_bytes: u64,
    /// How many of them in a second, lately.
    pub received_per_second: u64,
    /// Sessions that there were since this node leads.
    pub sessions: u64,
    /// What goes to the other site, partition by partition.
    pub sends: Vec<Sends>,
    /// What comes from it.
    pub takes: Vec<Takes>,
    /// Partitions of which nothing more comes in this session, and why.
    pub stopped: Vec<(String, PartitionIndex, &'static str)>,
    /// Topics of this site that the other one does not take, and why.
    pub declined: Vec<(String, &'static str)>,
    /// Topics of the other site that this one does not take, and why.
    pub declines: Vec<(String, &'static str)>,
    /// Topics of this site, copies left out, that no rule lets go to the region of the other one.
    pub withheld: Vec<String>,
    /// There is more than was asked for.
    pub is_truncated: bool,
}

/// A partition that goes to the other site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sends {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset that the next record here gets.
    pub next: Offset,
    /// The offset that the other site waits for, if it is known.
    pub has: Option<Offset>,
    /// How long ago that was heard, in milliseconds.
    pub heard_ms: Option<u64>,
    /// About how many bytes the other site lacks: of a span that it has a part of, as many as records.
    pub behind_bytes: u64,
    /// About the age of the oldest record that it lacks, in milliseconds: within a span as if its records had
    /// come evenly.
    pub behind_ms: u64,
    /// Records that went, or were not kept, before some other site was known to have them.
    pub gaps: Vec<Gap>,
}

fn count(gaps: &[Gap]) -> u64 {
    gaps.iter().map(|gap| gap.missing.count).sum()
}

impl Sends {
    /// How many records went, or were not kept, before some other site was known to have them.
    pub fn unsent(&self) -> u64 {
        count(&self.gaps)
    }

    /// Records that the other site lacks; all of them, where nothing is known of it.
    pub fn behind_records(&self) -> u64 {
        self.next.get().saturating_sub(self.has.map_or(0, Offset::get))
    }
}

/// A partition that comes from the other site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takes {
    /// The topic on this site.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset of the copy.
    pub next: Offset,
    /// How long ago the last record came, in milliseconds, if one is left.
    pub arrived_ms: Option<u64>,
    /// Records that will never come.
    pub gaps: Vec<Gap>,
}

impl Takes {
    /// How many records will never come.
    pub fn missing(&self) -> u64 {
        count(&self.gaps)
    }
}

/// What the figures of a link are taken from.
struct Look<'a> {
    state: &'a State,
    link: &'a Link,
    is: &'a LinkState,
    age_ms: u64,
}

impl Broker {
    /// How a link is, with so many partitions and topics at most, if there is one of the name. To be
    /// asked of the node that leads: only that one knows whether it is up.
    pub fn link_figures(&self, name: &str, most: usize) -> Option<LinkFigures> {
        let age_ms = self.age_ms();
        self.site.read(|state| {
            let link = state.link(name)?;
            let is = self.links.of(&link.name);
            Some(Look { state, link, is: &is, age_ms }.figures(most))
        })
    }

    /// What will never come over a link, or went before it had arrived, by topic, partition and offset: that behind
    /// a place, so much at most, and whether there is more. `None` if there is no link of the name.
    pub fn link_gaps(
        &self,
        name: &str,
        behind: &GapPlace,
        most: usize,
    ) -> Option<(Vec<GapOf>, bool)> {
        self.site.read(|state| Some(gaps_behind(state, state.link(name)?, behind, most)))
    }

    /// The names of all links.
    pub fn link_names(&self) -> Vec<String> {
        self.site.read(|state| state.links().map(|link| link.name.clone()).collect())
    }
}

/// A topic, a partition and the first offset of a gap.
pub type GapPlace = (String, u32, u64);

/// A gap of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapOf {
    /// The topic on this site.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// What is missing.
    pub gap: Gap,
}

/// The gaps of a link behind a place, so many at most, and whether there are more.
pub(crate) fn gaps_behind(
    state: &State,
    link: &Link,
    behind: &GapPlace,
    most: usize,
) -> (Vec<GapOf>, bool) {
    let mut found = Vec::new();
    // By name. A topic that neither goes nor comes has nothing to do with the link.
    let topics = state.topics().iter().filter(|topic| topic.name >= behind.0);
    for topic in topics {
        let is_told = match passes(state, link, topic) {
            Some(Passes::Comes) => true,
            Some(Passes::Goes) => state.declined(&link.name, topic.id).is_none(),
            None => false,
        };
        if !is_told {
            continue;
        }
        for (partition, stream) in (0u32..).zip(topic.streams()) {
            if topic.name == behind.0 && partition < behind.1 {
                continue;
            }
            for gap in state.gaps(stream) {
                let is_before =
                    (&topic.name, partition, gap.first.0) <= (&behind.0, behind.1, behind.2);
                if is_before && !behind.0.is_empty() {
                    continue;
                }
                if found.len() == most {
                    return (found, true);
                }
                found.push(GapOf { topic: topic.name.clone(), partition, gap: *gap });
            }
        }
    }
    (found, false)
}

/// Whether a topic comes over a link, or may go, if it does either.
fn passes(state: &State, link: &Link, topic: &Topic) -> Option<Passes> {
    let mirror = state.mirror(topic.id);
    let comes = mirror
        .is_some_and(|mirror| mirror.link == link.name && mirror.is_given_by(&link.definition));
    let goes = || state.rule_over(link, topic).is_some();
    if comes { Some(Passes::Comes) } else { goes().then_some(Passes::Goes) }
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    Comes,
    Goes,
}

impl Look<'_> {
    fn figures(&self, most: usize) -> LinkFigures {
        let (is, now) = (self.is, time::now());
        let state = match is.up_since {
            _ if self.link.definition.paused => "paused",
            Some(_) => "up",
            None if is.trouble_kind == PUT_BACK => PUT_BACK,
            None => "down",
        };
        let ago = |at: Instant| now.saturating_duration_since(at);
        let stopped = is.stopped.iter();
        let mut figures = LinkFigures {
            name: self.link.name.clone(),
            state,
            up_for: is.up_since.map(ago),
            next_attempt: is.next_attempt.map(|at| at.saturating_duration_since(now)),
            trouble_kind: is.trouble_kind,
            trouble: is.trouble.as_ref().map(|(text, at)| (text.clone(), ago(*at))),
            sent_bytes: is.sent.bytes,
            line_bytes: is.line_bytes,
            cap: self.link.definition.cap,
            sent_per_second: is.sent.per_second(now),
            received_bytes: is.received.bytes,
            received_per_second: is.received.per_second(now),
            sessions: is.sessions,
            sends: Vec::new(),
            takes: Vec::new(),
            stopped: stopped.map(|((topic, at), why)| (topic.clone(), *at, *why)).collect(),
            declined: Vec::new(),
            declines: is.declines.iter().take(most).map(|(of, why)| (of.clone(), *why)).collect(),
            withheld: Vec::new(),
            is_truncated: is.declines.len() > most,
        };
        for topic in self.state.topics().iter() {
            let told = figures.sends.len() + figures.takes.len() + figures.withheld.len();
            let told = told + figures.declined.len();
            if told >= most {
                figures.is_truncated = true;
                break;
            }
            self.topic(topic, &mut figures);
        }
        figures
    }

    fn topic(&self, topic: &Topic, figures: &mut LinkFigures) {
        let Some(passes) = passes(self.state, self.link, topic) else {
            if self.state.mirror(topic.id).is_none() {
                figures.withheld.push(topic.name.clone());
            }
            return;
        };
        let comes = passes == Passes::Comes;
        if let Some(why) = self.state.declined(&self.link.name, topic.id).filter(|_| !comes) {
            figures.declined.push((topic.name.clone(), why.name()));
            return;
        }
        for (partition, stream) in topic.streams().enumerate() {
            let Some(known) = self.state.partition(stream) else { continue };
            let at = (topic, u32::try_from(partition).unwrap_or(u32::MAX));
            if comes {
                figures.takes.push(self.takes(at, stream, known.next));
            } else {
                figures.sends.push(self.sends(at, stream, known.next));
            }
        }
    }

    fn takes(&self, (topic, partition): (&Topic, u32), stream: StreamId, next: Offset) -> Takes {
        let last = self.state.spans(stream).next_back();
        Takes {
            topic: topic.name.clone(),
            partition,
            next,
            arrived_ms: last.map(|span| self.age_ms.saturating_sub(span.last_age_ms)),
            gaps: self.state.gaps(stream).copied().collect(),
        }
    }

    fn sends(&self, (topic, partition): (&Topic, u32), stream: StreamId, next: Offset) -> Sends {
        let said = self.is.has.get(&(topic.id, PartitionIndex(partition))).copied();
        let noted = self.state.peer_progress(&self.link.name, stream);
        let noted = noted.map(|peer| (peer.offset, self.age_ms.saturating_sub(peer.age_ms)));
        let ago_ms = |at: Instant| {
            let ago = time::now().saturating_duration_since(at);
            u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)
        };
        // What the other side said in this session is newer than what was noted of it.
        let newest = said.map(|(offset, at)| (offset, ago_ms(at))).or(noted);
        let (has, heard_ms) = newest.unzip();
        let missing = self.state.spans(stream).filter(|span| has.is_none_or(|has| span.end > has));
        let (mut behind_bytes, mut oldest_ms) = (0, None);
        for span in missing {
            let (bytes, age_ms) = lacking(span, has.unwrap_or_default());
            behind_bytes += bytes;
            oldest_ms.get_or_insert(self.age_ms.saturating_sub(age_ms));
        }
        let topic = topic.name.clone();
        let behind_ms = oldest_ms.unwrap_or(0);
        let gaps = self.state.gaps(stream).copied().collect();
        Sends { topic, partition, next, has, heard_ms, behind_bytes, behind_ms, gaps }
    }
}

/// About how many bytes of a span lie from an offset on, and the age of the site when the first of them came. A
/// span may be an hour long, and what is known of it is how it begins and ends: its records count as if
/// they were of one size and had come evenly.
fn lacking(span: &Span, from: Offset) -> (u64, u64) {
    let all = u128::from(span.end.0.saturating_sub(span.first.0)).max(1);
    let had = u128::from(from.0.saturating_sub(span.first.0)).min(all);
    // Rather too much is lacking than too little.
    let part = |of: u64| u64::try_from(u128::from(of) * had / all).unwrap_or(of);
    let lasted_ms = span.last_age_ms.saturating_sub(span.first_age_ms);
    (span.bytes - part(span.bytes), span.first_age_ms + part(lasted_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_span_only_what_is_lacking_counts() {
        let (first, end) = (Offset(1_000), Offset(2_000));
        let (first_age_ms, last_age_ms) = (50_000, 150_000);
        let span = Span {
            stream: StreamId(1),
            first,
            end,
            bytes: 500_000,
            first_age_ms,
            last_age_ms,
            first_ms: 0,
            last_ms: 0,
            chain: [0; 16],
        };
        let lacks = |from| lacking(&span, Offset(from));
        assert_eq!(lacks(0), (500_000, 50_000), "all of it");
        assert_eq!(lacks(1_000), (500_000, 50_000));
        assert_eq!(lacks(1_907), (46_500, 140_700), "93 of a thousand records");
        assert_eq!(lacks(1_999), (500, 149_900));
        assert_eq!(lacks(2_000), (0, 150_000));
        let huge = Span { end: Offset(u64::MAX), bytes: u64::MAX, last_age_ms: u64::MAX, ..span };
        assert!(lacking(&huge, Offset(u64::MAX - 1)).0 > 0);
        let empty = Span { end: first, ..span };
        assert_eq!(lacking(&empty, first), (500_000, 50_000));
    }
}
