//! Links between the sites of a scenario: laid down before the clients begin, read from while the
//! faults last, and compared at the end.
//!
//! Invariants checked here: whatever a mirror showed at an offset, at any time, is what its origin
//! has there at the end, or had there before that expired (DESIGN of mirrors: one offset, one content
//! on both sides); after everything has healed a mirror comes to the end of its origin, and lacks
//! nothing that the origin still has to keep; a topic without a rule is at no other site, although the
//! links take everything.
//!
//! What was read from a mirror does not go into the history: nobody produced it there.

mod laid;

use super::client::payload;
use super::line::{self, Line};
use super::lines::{Copy, Lines, Pair, Watching};
use super::marking;
use super::naming::Naming;
use super::origins::{Origin, besides_differ, marked, origins, whole};
use super::pipelines::Pipelines;
use super::reading::Sizes;
use super::rules::{Rules, Turning, Turns};
use super::secrets::Secrecy;
use super::stage::Stage;
use super::swapping::Swapping;
use super::workload::{READ_TIMEOUT, Workloads};
use crate::history::{Payload, Time};
use crate::prng::Prng;
use crate::report::Verdict;
use crate::scenario::workload::Mirror;
use crate::scenario::{Drawn, SiteName, Workload};
use fulmar_client::admin::DeleteTopicError;
use fulmar_client::fetch::Fetch;
use fulmar_client::{Cluster, Target, TopicPartition};
use fulmar_host::time;
use fulmar_types::{Offset, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one attempt to lay down a link may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How often the harness looks whether a mirror has come to its end.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A partition of a mirror: the site that has it, and the topic there.
pub(super) type Part = (SiteName, String, PartitionIndex);

/// What clients saw in mirrors.
type Seen = Arc<Mutex<BTreeMap<Part, BTreeMap<Offset, BTreeSet<Payload>>>>>;

/// The mirrors of a run.
#[derive(Default)]
pub(super) struct Mirrors {
    mirrors: Vec<Mirror<Drawn>>,
    /// Copies that somebody else looks after, with the site where they are.
    others: BTreeSet<(SiteName, String)>,
    /// Where somebody waits who is not who is dialled: the site that dials, and the one that it means.
    impostors: Vec<(SiteName, SiteName)>,
    seen: Seen,
    rules: Rules,
    line: Line,
    lines: Lines,
}

/// The region in which a site of a scenario lies.
pub(super) fn region(site: &SiteName) -> String {
    format!("region-{site}")
}

/// The site that a copy comes from: that of its origin, or one in between.
fn giver(mirror: &Mirror<Drawn>) -> &SiteName {
    mirror.through.as_ref().unwrap_or(&mirror.of)
}

pub(super) fn topic_of(mirror: &Mirror<Drawn>) -> String {
    format!("{}.{}", mirror.of, mirror.topic)
}

impl Mirrors {
    pub(super) fn new(workloads: &[Workload<Drawn>]) -> Self {
        let mirrors = workloads.iter().filter_map(|workload| match workload {
            Workload::Mirror(mirror) => Some(mirror.clone()),
            _ => None,
        });
        let impostors = workloads.iter().filter_map(|workload| match workload {
            Workload::Impostor(who) => Some((who.site.clone(), who.claims.clone())),
            _ => None,
        });
        Self {
            others: Secrecy::copies(workloads).chain(Pipelines::copies(workloads)).collect(),
            mirrors: mirrors.collect(),
            impostors: impostors.collect(),
            seen: Seen::default(),
            rules: Rules::default(),
            line: Line::default(),
            lines: Lines::default(),
        }
    }

    /// What was seen of the line.
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// The pairs of sites between which something is copied, with the topics.
    fn pairs(&self) -> BTreeMap<Pair, BTreeSet<String>> {
        let mut pairs: BTreeMap<Pair, BTreeSet<String>> = BTreeMap::new();
        for mirror in self.mirrors.iter().filter(|mirror| mirror.through.is_none()) {
            let topics = pairs.entry((mirror.of.clone(), mirror.site.clone())).or_default();
            topics.insert(mirror.topic.as_str().to_owned());
        }
        pairs
    }

    /// Whoever watches the lines that there are.
    pub(super) fn watching(&self, workloads: &Workloads, stage: &Arc<Stage>) -> Vec<Watching> {
        let mut watching = Vec::new();
        for (pair, topics) in self.pairs() {
            if stage.between_sites(&pair.0, &pair.1).0.is_none() {
                continue;
            }
            let partitions = |topic| workloads.partitions(&pair.0, topic);
            watching.push(Watching {
                topics: topics.iter().map(|topic| (topic.clone(), partitions(topic))).collect(),
                origins: workloads.cluster(&pair.0),
                copies: workloads.cluster(&pair.1),
                pair,
                stage: Arc::clone(stage),
                lines: self.lines.clone(),
            });
        }
        watching
    }

    /// A client that takes the rule of a mirror back and makes it again, if that is to be.
    pub(super) fn turning(
        &self,
        mirror: &Mirror<Drawn>,
    ) -> Option<impl FnOnce(Cluster, Arc<Stage>) -> Turning + use<>> {
        let each = mirror.rule_for?.0;
        let (site, topic) = (mirror.of.clone(), mirror.topic.as_str().to_owned());
        let (turns, rules) = (Turns::Rule(self.rule(mirror)), self.rules.clone());
        let (ids, insists) = (BTreeSet::new(), mirror.insists);
        Some(move |cluster, stage| Turning {
            site,
            topic,
            turns,
            each,
            insists,
            cluster,
            stage,
            rules,
            ids,
        })
    }

    /// A client that has the site of a mirror take the topic no more, and again, or pauses the link to its origin
    /// and resumes it, if that is to be.
    pub(super) fn declining(
        &self,
        mirror: &Mirror<Drawn>,
        (cluster, stage): (Cluster, Arc<Stage>),
    ) -> Option<Turning> {
        let each = mirror.take_for.or(mirror.runs_for)?.0;
        let link = self.links(&stage).remove(&(mirror.site.clone(), mirror.of.clone()))?;
        let mut declines = link.clone();
        match mirror.runs_for {
            Some(_) => declines.paused = true,
            None => declines.take.retain(|topic| topic != mirror.topic.as_str()),
        }
        let turns = Turns::Take(mirror.of.as_str().to_owned(), Box::new([link, declines]));
        let (site, topic) = (mirror.of.clone(), mirror.topic.as_str().to_owned());
        let (rules, ids, insists) = (self.rules.clone(), BTreeSet::new(), false);
        Some(Turning { site, topic, turns, each, insists, cluster, stage, rules, ids })
    }

    /// A client that gives the link of a mirror the name of another one of its site, and back, if that is to be.
    pub(super) fn naming(
        &self,
        mirror: &Mirror<Drawn>,
        cluster: Cluster,
        stage: &Stage,
    ) -> Option<Naming> {
        let each = mirror.named_for?.0;
        let links = self.links(stage).into_iter();
        let mut links = links.filter(|((here, _), _)| *here == mirror.site);
        let (mut own, mut other) = (None, None);
        for ((_, there), definition) in &mut links {
            let named = Some((there.as_str().to_owned(), definition));
            if there == *giver(mirror) { own = named } else { other = other.or(named) }
        }
        Some(Naming { cluster, links: [own?, other?], each })
    }

    /// A client that swaps the rule of a mirror with that of what is made of it, if that is to be.
    pub(super) fn swapping(&self, mirror: &Mirror<Drawn>, cluster: Cluster) -> Option<Swapping> {
        let each = mirror.swaps_for?.0;
        Some(Swapping::new(cluster, mirror.topic.as_str(), self.rule(mirror), each))
    }

    /// A client that reads from a mirror, anywhere in it.
    pub(super) fn reading(
        &self,
        mirror: &Mirror<Drawn>,
        partitions: u32,
    ) -> impl FnOnce(Cluster, Prng) -> Reading {
        let (site, topic) = (mirror.site.clone(), topic_of(mirror));
        let (seen, interval) = (Arc::clone(&self.seen), mirror.rate.interval());
        let renew = mirror.renew.map(|renew| renew.0);
        let in_the_way = mirror.in_the_way.map(|time| time.0);
        let keeps_all = mirror.keeps_all;
        let origin = (mirror.of.clone(), mirror.topic.as_str().to_owned());
        let (rules, line) = (self.rules.clone(), self.line.clone());
        move |cluster, prng| Reading {
            site,
            topic,
            origin,
            rules,
            line,
            partitions,
            seen,
            interval,
            renew,
            in_the_way,
            keeps_all,
            cluster,
            prng,
        }
    }

    /// Waits until every mirror has come to the end of its origin, and compares them. The origins
    /// have been read back.
    pub(super) async fn compare(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        if let Some(text) = self.came_without_rule(workloads).await {
            return Some(Verdict::Safety { check: "mirror_rule".to_owned(), text });
        }
        if let Some(text) = self.came_back(workloads).await {
            return Some(Verdict::Safety { check: "mirror_loop".to_owned(), text });
        }
        if let Some(verdict) = self.rules.verdict(workloads.history(), workloads.ear()) {
            return Some(verdict);
        }
        let departures = workloads.ear().departures();
        if departures > 0 {
            workloads.stage().sink.compared("rule_in_force", departures);
        }
        if let Some(text) = self.cap_exceeded(workloads.stage()) {
            return Some(Verdict::Safety { check: "cap_kept".to_owned(), text });
        }
        let mut sizes: BTreeMap<Pair, BTreeMap<Copy, Sizes>> = BTreeMap::new();
        if let Err(text) = self.note_markers(workloads, deadline_ns).await {
            return Some(Verdict::Liveness { check: "mirror_converges".to_owned(), text });
        }
        for mirror in &self.mirrors {
            if let Some(verdict) = self.settings_differ(workloads, mirror, deadline_ns).await {
                return Some(verdict);
            }
            for (partition, origin) in origins(workloads.history(), mirror) {
                let part = (mirror.site.clone(), topic_of(mirror), partition);
                if let Some(text) = self.contradicts(&part, &origin) {
                    return Some(Verdict::Safety { check: "mirror_prefix".to_owned(), text });
                }
                let copy = (&mirror.of, &part);
                let drops_headers = mirror.drops_headers;
                let (copy, of) =
                    match whole(workloads, copy, &origin, deadline_ns).await.and_then(|read| {
                        let text = besides_differ(&read.0, &origin.read, drops_headers);
                        let text =
                            text.map(|text| format!("{}/{partition} at {} {text}", part.1, part.0));
                        let check = "mirror_equal".to_owned();
                        text.map_or(Ok(read), |text| Err(Verdict::Safety { check, text }))
                    }) {
                        Ok(read) => read,
                        Err(verdict) => return Some(verdict),
                    };
                let pair = (mirror.of.clone(), mirror.site.clone());
                sizes.entry(pair).or_default().insert((part.1, partition), of);
                let found = (partition, &copy);
                if let Some(verdict) = marked(workloads, mirror, found, deadline_ns).await {
                    return Some(verdict);
                }
            }
        }
        self.lines.end();
        let stage = workloads.stage();
        for (pair, sizes) in sizes {
            if let Some(used) = self.lines.used(stage, &pair, &sizes) {
                stage.sink.line_used((&pair.0, &pair.1), used);
            }
        }
        None
    }

    /// Where a site sent more than its cap within a second.
    fn cap_exceeded(&self, stage: &Stage) -> Option<String> {
        self.mirrors.iter().find_map(|mirror| {
            let cap = mirror.cap?.0;
            line::exceeds(stage, (&mirror.of, &mirror.site), cap)
        })
    }

    /// Notes what the origins are said to lack.
    async fn note_markers(&self, workloads: &Workloads, deadline_ns: u64) -> Result<(), String> {
        for mirror in self.mirrors.iter().filter(|mirror| mirror.through.is_none()) {
            let link = (&mirror.of, &mirror.site);
            let status = marking::status(workloads, link, deadline_ns).await?;
            let mut history = workloads.history().lock().unwrap_or_else(PoisonError::into_inner);
            marking::note(&mut history, mirror, &status);
        }
        Ok(())
    }

    /// A topic that came over a link, and no rule lets go. The topics are known on a site that has
    /// healed; one that does not answer is found by what follows.
    async fn came_without_rule(&self, workloads: &Workloads) -> Option<String> {
        let known = self.mirrors.iter().map(|mirror| (mirror.site.clone(), topic_of(mirror)));
        let let_go: BTreeSet<_> = known.chain(self.others.iter().cloned()).collect();
        for mirror in &self.mirrors {
            let from = format!("{}.", mirror.of);
            let Ok(known) = workloads.cluster(&mirror.site).refresh_all(LIMIT).await else {
                continue;
            };
            let mut came = known.topics.keys().filter(|topic| topic.starts_with(&from));
            let stranger = came.find(|t| !let_go.contains(&(mirror.site.clone(), (*t).clone())));
            if let Some(topic) = stranger {
                return Some(format!(
                    "{topic} is at {}, and no rule lets it go there",
                    mirror.site
                ));
            }
        }
        None
    }

    /// A topic that has come back to the site that it is of.
    async fn came_back(&self, workloads: &Workloads) -> Option<String> {
        let sites: BTreeSet<&SiteName> = self.mirrors.iter().map(|mirror| &mirror.of).collect();
        for site in sites {
            let Ok(known) = workloads.cluster(site).refresh_all(LIMIT).await else { continue };
            let own = format!("{site}.");
            if let Some(topic) = known.topics.keys().find(|topic| topic.starts_with(&own)) {
                return Some(format!("{topic} has come back to {site}, which it is of"));
            }
        }
        None
    }

    /// A copy that has not the settings of its origin, although everything has healed.
    async fn settings_differ(
        &self,
        workloads: &Workloads,
        mirror: &Mirror<Drawn>,
        deadline_ns: u64,
    ) -> Option<Verdict> {
        // Somebody has changed them there.
        if mirror.keeps_all {
            return None;
        }
        let (here, there) = (workloads.cluster(&mirror.site), workloads.cluster(&mirror.of));
        let copy = topic_of(mirror);
        loop {
            let of_copy = here.topic_settings(&copy, LIMIT).await.ok();
            let of_origin = there.topic_settings(mirror.topic.as_str(), LIMIT).await.ok();
            if of_copy.is_some() && of_copy == of_origin {
                return None;
            }
            if workloads.stage().machines.now_ns() > deadline_ns {
                let text = format!("{copy} at {} has {of_copy:?}, not {of_origin:?}", mirror.site);
                return Some(Verdict::Liveness { check: "mirror_settings".to_owned(), text });
            }
            madsim::time::sleep(LOOK).await;
        }
    }

    /// What a client saw in a mirror and the origin never had there.
    fn contradicts(&self, part: &Part, origin: &Origin) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (offset, payloads) in seen.get(part)? {
            for payload in payloads {
                if let Some(text) = origin.contradicts(*offset, *payload) {
                    let (site, topic, partition) = part;
                    return Some(format!("{topic}/{partition} at {site} showed {text}"));
                }
            }
        }
        None
    }
}

/// A client of a mirror.
pub(super) struct Reading {
    site: SiteName,
    topic: String,
    /// The site that has the origin, and the topic there.
    origin: (SiteName, String),
    rules: Rules,
    line: Line,
    partitions: u32,
    seen: Seen,
    interval: Duration,
    /// How often the copy is deleted.
    renew: Option<Duration>,
    /// How long something else has its name then.
    in_the_way: Option<Duration>,
    /// Whether the copy is told to keep all.
    keeps_all: bool,
    cluster: Cluster,
    prng: Prng,
}

impl Reading {
    /// Makes a topic with the name of the copy, if that is to be, and takes it away after a time.
    async fn stand_in_the_way(&self) {
        let Some(time) = self.in_the_way else { return };
        if self.cluster.create_topic(&self.topic, 1, LIMIT).await.is_ok() {
            madsim::time::sleep(time).await;
        }
        // Whatever became of it, it must not stay; if the copy was faster, that is made once more.
        loop {
            match self.cluster.delete_topic(&self.topic, LIMIT).await {
                Ok(()) | Err(DeleteTopicError::NoTopic) => return,
                Err(_) => madsim::time::sleep(LOOK).await,
            }
        }
    }

    /// Reads until it is told to stop.
    pub(super) async fn run(mut self, now_ns: impl Fn() -> u64, stopped: impl Fn() -> bool) {
        let mut ends: BTreeMap<u32, Offset> = BTreeMap::new();
        let mut deleted = time::now();
        while !stopped() {
            madsim::time::sleep(self.interval).await;
            if self.keeps_all {
                // As soon as it is there, before anything of it is too old or too much.
                let all = ["retention.ms", "retention.bytes"].map(|name| (name.to_owned(), None));
                self.keeps_all = self.cluster.alter_topic(&self.topic, &all, LIMIT).await.is_err();
            }
            if self.renew.is_some_and(|renew| deleted.elapsed() >= renew) {
                // Whatever becomes of it: what is there later is compared.
                let _ = self.cluster.delete_topic(&self.topic, LIMIT).await;
                self.stand_in_the_way().await;
                deleted = time::now();
            }
            let number = u32::try_from(self.prng.below(u64::from(self.partitions))).unwrap_or(0);
            let end = ends.get(&number).copied().unwrap_or_default();
            let from = Offset(self.prng.between(0, end.get()));
            let of = TopicPartition::new(&self.topic, PartitionIndex(number));
            let fetch = Fetch { max_wait: Duration::ZERO, ..Fetch::new(of, from) };
            let Ok(fetched) = self.cluster.fetch(Target::Leader, &fetch, READ_TIMEOUT).await else {
                continue;
            };
            let at = Time(now_ns());
            ends.insert(number, fetched.high_watermark);
            let mirror = (self.site.clone(), self.topic.clone());
            self.line.came(mirror, PartitionIndex(number), (at, fetched.high_watermark));
            let part = (self.site.clone(), self.topic.clone(), PartitionIndex(number));
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = seen.entry(part).or_default();
            let (origin, partition) = ((&self.origin.0, &*self.origin.1), PartitionIndex(number));
            // Damage is found when everything is read back.
            for record in fetched.records().unwrap_or_default() {
                let payload = payload(record.key.as_deref(), record.value.as_deref());
                self.rules.seen(origin, (partition, record.offset), (at, payload));
                seen.entry(record.offset).or_default().insert(payload);
            }
        }
    }
}

/// The moment by which something that follows on others must have happened.
pub(super) fn later(deadline_ns: u64, stage: &Stage) -> u64 {
    let more = u64::try_from(stage.drawn.run.heal_within.0.as_nanos()).unwrap_or(u64::MAX / 2);
    deadline_ns.max(Time(stage.machines.now_ns()).0.saturating_add(more))
}
