//! Records with secrets in them, and a rule that keeps them at home.
//!
//! ```text
//! produced   {"n":7,"open":MARKER,"secret":CANARY,"person":{"name":CANARY,"town":MARKER},"ids":[CANARY,...],
//!             "detail":{...},"note":"ok CANARY","lat":7.1CANARY,"late":LAPSES or CANARY}   key, headers: CANARY, MARKER
//!            or something that is no JSON, with a CANARY
//! copied     {"n":7,"open":MARKER,"person":{"town":MARKER},"ids":[hash,...],"detail":{},"note":"ok","lat":7.1}
//! ```
//!
//! The shape of the rule is drawn: see `ruled.rs`. The batches are compressed with any codec or none. At some time the
//! rule also withholds `late`; from
//! the moment on at which that was acknowledged, `late` has a canary in what is produced, and what stands
//! there in older records, whatever was read, written or lost of them before, leaves no more.
//!
//! Invariants checked here: no canary crosses between the sites, in no byte and whatever is compressed in
//! it, nor anything of a field that leaves after it was known to be withheld (`canaries_stay`); the copy
//! has every acknowledged record that may go, in the form of the rule and with its own time, and beside them only such
//! as were sent and are in that form too (`secrets_withheld`); hashes have a key (`hashes_keyed`, see `hashes.rs`);
//! what it lacks it has a marker of; enough canaries were withheld on the way (they stood in records that are at the copy
//! without them, or that it has such a marker of), and tokens of what may go did cross
//! (`canaries_counted`); the copy comes to the end of its origin (`secrets_converge`).
//!
//! With `retention_bytes` some of it is lost before it can go: see `losses.rs`. With `piped` a pipeline reads the topic as well: see `piped.rs`.

use super::eavesdrop::Eavesdropper;
use super::foreign::request;
use super::hashes::Hashes;
use super::losses::{self, BUDGET, MARKERS_MAX};
use super::marking;
use super::mirroring::region;
use super::piped::Piped;
use super::ruled::{Copied, Fate, Made, Shape};
use super::series;
use super::whole::{end, whole};
use super::workload::Workloads;
use crate::history::{Budget, Kept, Marker};
use crate::prng::Prng;
use crate::report::{Canaries, Verdict};
use crate::scenario::workload::Secrets;
use crate::scenario::{Drawn, SiteName, Workload};
use fulmar_client::{Cluster, ReadRecord, TopicPartition};
use fulmar_host::time;
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::{BatchBuilder, Compression};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one attempt at anything may take.
const LIMIT: Duration = Duration::from_secs(3);

/// How often the harness looks whether the copy has come to its end.
const LOOK: Duration = Duration::from_millis(100);

/// One record of so many is older than the others.
const OLD_ONE_IN: u64 = 10;

/// How much older.
const OLD_MS: i64 = 10_000;

/// The reason of a marker for what a rule holds back.
const WITHHELD: &str = "withheld";

/// Fewer canaries than this prove nothing.
const CANARIES_MIN: u64 = 100;

/// Fewer markers than this that crossed do not prove that the canaries could have.
const MARKERS_MIN: u64 = 20;

#[derive(Default)]
struct Tally {
    /// Of every acknowledged record.
    fates: BTreeMap<Offset, Fate>,
    /// Of every record that goes and was sent, by its number, whatever was answered.
    sent: BTreeMap<u64, Arc<Copied>>,
    /// Canaries in records that are at the other site in the form of the rule, or that it has a marker of as withheld.
    withheld: u64,
    /// The rule withholds `late`, and since when that is known.
    stricter_ns: Option<u64>,
    /// What `late` was before, in whatever was sent to the site.
    lapsed: BTreeSet<String>,
}

/// What was compared of a copy.
#[derive(Default)]
struct Compared {
    /// As in the tally.
    withheld: u64,
    hashes: Hashes,
}

/// One workload of secrets.
#[derive(Clone)]
pub(super) struct Keeping {
    secrets: Secrets<Drawn>,
    shape: Shape,
    tally: Arc<Mutex<Tally>>,
}

/// All of a run, and who listens at the line.
#[derive(Default)]
pub(super) struct Secrecy {
    all: Vec<Keeping>,
    ear: Eavesdropper,
}

impl Secrecy {
    pub(super) fn new(workloads: &[Workload<Drawn>], ear: Eavesdropper, stream_seed: u64) -> Self {
        let all = workloads.iter().filter_map(|workload| match workload {
            Workload::Secrets(secrets) => {
                let salt = format!("secrets/shape/{}", secrets.topic);
                let shape = Shape::drawn(Prng::new(stream_seed, &salt));
                Some(Keeping { secrets: secrets.clone(), shape, tally: Arc::default() })
            }
            _ => None,
        });
        Self { all: all.collect(), ear }
    }

    /// The copies that there may be of what has secrets in it, or is made of that: the site and the topic.
    pub(super) fn copies(
        workloads: &[Workload<Drawn>],
    ) -> impl Iterator<Item = (SiteName, String)> {
        let all = workloads.iter().filter_map(|workload| match workload {
            Workload::Secrets(of) => Some(of),
            _ => None,
        });
        all.flat_map(|of| {
            let topic = of.topic.as_str();
            let piped = Piped::let_go(topic).into_iter().filter(|_| of.piped);
            let topics = piped.chain([topic.to_owned()]);
            topics.map(|topic| (of.to.clone(), format!("{}.{topic}", of.site)))
        })
    }

    /// The workload with this topic.
    pub(super) fn keeping(&self, secrets: &Secrets<Drawn>) -> Keeping {
        let is_it = |keeping: &&Keeping| keeping.secrets.topic == secrets.topic;
        self.all.iter().find(is_it).expect("made from the same scenario").clone()
    }

    /// What a site keeps.
    pub(super) fn of_site(&self, site: &SiteName) -> Vec<Keeping> {
        self.all.iter().filter(|keeping| keeping.secrets.site == *site).cloned().collect()
    }

    /// The copies that a site has, each with the link that brings it.
    pub(super) fn copies_at(&self, site: &SiteName) -> Vec<(String, String)> {
        let here = self.all.iter().map(|keeping| &keeping.secrets).filter(|of| of.to == *site);
        here.map(|of| (of.site.to_string(), format!("{}.{}", of.site, of.topic))).collect()
    }

    /// Creates the topics and their rules.
    pub(super) async fn lay_down(&self, workloads: &Workloads) {
        for keeping in &self.all {
            let (cluster, topic) =
                (workloads.cluster(&keeping.secrets.site), keeping.secrets.topic.as_str());
            let settings = keeping.settings();
            while cluster.create_topic_with(topic, 1, &settings, LIMIT).await.is_err()
                && !cluster.metadata().topics.contains_key(topic)
            {
                madsim::time::sleep(LOOK).await;
            }
            while !keeping.set_rule(&cluster, false).await {
                madsim::time::sleep(LOOK).await;
            }
            let copies = workloads.cluster(&keeping.secrets.to);
            while !keeping.keep_copy(&copies).await {
                madsim::time::sleep(LOOK).await;
            }
            while keeping.secrets.piped && !keeping.piped().lay_down(&cluster).await {
                madsim::time::sleep(LOOK).await;
            }
        }
    }

    /// A canary that crossed.
    pub(super) fn crossed(&self) -> Option<Verdict> {
        let (token, place) = self.ear.canary()?;
        let text = format!("{token} crossed between the sites, {place}");
        Some(Verdict::Safety { check: "canaries_stay".to_owned(), text })
    }

    /// What was at stake and what crossed, if there are such workloads.
    pub(super) fn counted(&self) -> Option<Canaries> {
        let withheld = self.all.iter().map(|keeping| keeping.locked().withheld);
        (!self.all.is_empty())
            .then(|| Canaries { withheld: withheld.sum(), markers: self.ear.markers() })
    }

    /// What is wrong, once everything has healed.
    pub(super) async fn verdict(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let safety = |check: &str, text| Some(Verdict::Safety { check: check.to_owned(), text });
        for keeping in &self.all {
            let mut verdict = match workloads.was_put_back(&keeping.secrets.site) {
                true => keeping.compare_put_back(workloads, deadline_ns).await,
                false => keeping.compare(workloads, deadline_ns).await,
            };
            if verdict.is_none() && keeping.secrets.piped {
                verdict = keeping.compare_piped(workloads, deadline_ns).await;
            }
            if let Some(verdict) = self.crossed().or_else(|| keeping.crossed_late(&self.ear)) {
                return Some(verdict);
            }
            if verdict.is_some() {
                return verdict;
            }
            let (canaries, markers) = (keeping.locked().withheld, self.ear.markers());
            if canaries < CANARIES_MIN || markers < MARKERS_MIN {
                let text = format!("{canaries} canaries were withheld, {markers} markers crossed");
                return safety("canaries_counted", text);
            }
        }
        None
    }
}

impl Keeping {
    fn locked(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn piped(&self) -> Piped<'_> {
        Piped { topic: self.secrets.topic.as_str(), to: &self.secrets.to }
    }

    /// What left after everybody knew that it must not.
    fn crossed_late(&self, ear: &Eavesdropper) -> Option<Verdict> {
        let tally = self.locked();
        let stricter_ns = tally.stricter_ns?;
        let late = |token: &String| {
            let late_ns = ear.left_ns(token)?.checked_sub(stricter_ns)?;
            Some((late_ns / 1_000_000, token.clone()))
        };
        let (late_ms, token) = tally.lapsed.iter().filter_map(late).max()?;
        let text = format!("{token} left {late_ms} ms after its field was withheld");
        Some(Verdict::Safety { check: "canaries_stay".to_owned(), text })
    }

    /// The settings that the topic is created with.
    fn settings(&self) -> Vec<(String, String)> {
        let bytes = self.secrets.retention_bytes.map(|bytes| bytes.0);
        let kept = Kept { bytes, budget: Budget::KeepOldest, ..Kept::default() };
        let settings = bytes.map(|_| series::settings(kept)).into_iter().flatten();
        settings.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Has the copy keep all, as soon as it is there, if its origin does not. Whether that is so.
    async fn keep_copy(&self, copies: &Cluster) -> bool {
        let all = [("retention.bytes".to_owned(), None)];
        self.secrets.retention_bytes.is_none()
            || copies.alter_topic(&self.copy().topic, &all, LIMIT).await.is_ok()
    }

    async fn set_rule(&self, cluster: &Cluster, is_stricter: bool) -> bool {
        let rule = self.shape.rule(&region(&self.secrets.to), is_stricter);
        cluster.set_rule(self.secrets.topic.as_str(), None, &rule, LIMIT).await.is_ok()
    }

    /// Makes the rule what it is to be by now.
    pub(super) async fn set_rule_again(&self, cluster: &Cluster) -> bool {
        let is_stricter = self.locked().stricter_ns.is_some();
        self.set_rule(cluster, is_stricter).await
    }

    /// Produces until it is told to stop.
    pub(super) async fn run(self, cluster: Cluster, mut prng: Prng, stopped: impl Fn() -> bool) {
        let (interval, mut n) = (self.secrets.rate.interval(), 0);
        let begun = time::now();
        while !stopped() {
            madsim::time::sleep(interval).await;
            let is_due = begun.elapsed() >= self.secrets.stricter_after.0;
            let is_due = is_due && self.locked().stricter_ns.is_none();
            if is_due && self.set_rule(&cluster, true).await {
                self.locked().stricter_ns = Some(now_ns());
            }
            let at_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX - OLD_MS);
            self.produce(&cluster, &mut prng, (&mut n, OLD_MS + at_ms)).await;
        }
    }

    async fn produce(&self, cluster: &Cluster, prng: &mut Prng, (n, at_ms): (&mut u64, i64)) {
        let codec = Compression::ALL[prng.below(Compression::ALL.len() as u64) as usize];
        let mut batch = BatchBuilder::new().compressed(codec);
        let mut fates = Vec::new();
        for _ in 0..self.secrets.batch_records.get() {
            *n += 1;
            let is_old = prng.below(OLD_ONE_IN) == 0;
            let at_ms = if is_old { at_ms - OLD_MS } else { at_ms };
            let is_stricter = self.locked().stricter_ns.is_some();
            let Made { key, trace, user, value, late, fate } =
                self.shape.record(prng, (*n, at_ms), is_stricter);
            let headers: [(&[u8], Option<&[u8]>); 2] =
                [(b"trace", Some(trace.as_bytes())), (b"user", Some(user.as_bytes()))];
            let (key, value) = (key.as_bytes(), value.as_bytes());
            batch.push(at_ms, Some(key), Some(value), &headers).expect("it is small");
            let mut tally = self.locked();
            if !is_stricter {
                tally.lapsed.insert(late);
            }
            if let Fate::Goes(copied) = &fate {
                tally.sent.insert(*n, Arc::clone(copied));
            }
            fates.push(fate);
        }
        let to = TopicPartition::new(self.secrets.topic.as_str(), PartitionIndex(0));
        let Ok(leader) = cluster.leader(&to, time::now() + LIMIT).await else { return };
        let request = request(&to, batch.build());
        let answer = leader.connection.call(&request, LIMIT).await;
        let acked = answer.ok().and_then(|answer| {
            let mut partitions = answer.responses.iter().flat_map(|of| &of.partition_responses);
            let of = partitions.next().filter(|of| of.error_code == ErrorCode::None)?;
            u64::try_from(of.base_offset).ok()
        });
        let Some(base) = acked else { return cluster.forget_leader(&to, leader.epoch) };
        self.locked().fates.extend((base..).map(Offset).zip(fates));
    }

    /// The partition of the copy.
    fn copy(&self) -> TopicPartition {
        let name = format!("{}.{}", self.secrets.site, self.secrets.topic);
        TopicPartition::new(&name, PartitionIndex(0))
    }

    /// Waits until the copy has come to the end of its origin, and compares it with what it is to be.
    async fn compare(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let (origin, copy) =
            (workloads.cluster(&self.secrets.site), workloads.cluster(&self.secrets.to));
        let from = TopicPartition::new(self.secrets.topic.as_str(), PartitionIndex(0));
        let to = self.copy();
        loop {
            let ends = (end(&origin, &from).await, end(&copy, &to).await);
            if let (Some(of_origin), Some(of_copy)) = ends
                && of_copy >= of_origin
                && let Some(read) = whole(&copy, &to, of_copy).await
            {
                let link = (&self.secrets.to, &self.secrets.site);
                let text = match marking::status(workloads, link, deadline_ns).await {
                    Ok(told) => {
                        let markers = marking::markers(&told, &to.topic, to.partition);
                        let lost = match self.secrets.retention_bytes {
                            Some(_) => {
                                let found = (&read, &*markers);
                                self.compare_losses(workloads, found, deadline_ns).await
                            }
                            None => None,
                        };
                        return lost.or_else(|| self.judged(workloads, &read, Some(&markers)));
                    }
                    Err(text) => text,
                };
                return Some(Verdict::Liveness { check: "secrets_converge".to_owned(), text });
            }
            if workloads.stage().machines.now_ns() > deadline_ns {
                let name = &to.topic;
                let text = format!("{name} has not come to the end of its origin: {ends:?}");
                return Some(Verdict::Liveness { check: "secrets_converge".to_owned(), text });
            }
            madsim::time::sleep(LOOK).await;
        }
    }

    /// Compares what the copy says to be lost with what its origin says.
    async fn compare_losses(
        &self,
        workloads: &Workloads,
        (read, here): (&BTreeMap<Offset, ReadRecord>, &[Marker]),
        deadline_ns: u64,
    ) -> Option<Verdict> {
        let link = (&self.secrets.site, &self.secrets.to);
        let topic = self.secrets.topic.as_str();
        let there = match marking::status(workloads, link, deadline_ns).await {
            Ok(told) => marking::markers(&told, topic, PartitionIndex(0)),
            Err(text) => {
                return Some(Verdict::Liveness { check: "secrets_converge".to_owned(), text });
            }
        };
        if let Some(text) = losses::wrong(here, &there) {
            let text = format!("{} at {} {text}", self.copy().topic, self.secrets.to);
            return Some(Verdict::Safety { check: "losses_marked".to_owned(), text });
        }
        let lost = losses::losses(&there).count();
        workloads.stage().sink.compared("losses_marked", lost as u64);
        // As many markers there would be without a bound, where each batch is of one record.
        let behind = read.keys().zip(read.keys().skip(1));
        let gaps = behind.filter(|(one, next)| one.plus(1) < **next).count();
        (lost == 0 || gaps <= MARKERS_MAX).then(|| {
            let text =
                format!("{lost} losses among {gaps} gaps, at most {MARKERS_MAX} of them marked");
            Verdict::Liveness { check: "losses_counted".to_owned(), text }
        })
    }

    /// The same where the site was put back: what was acknowledged since the copy of its disks was made is nowhere, or
    /// at the other site alone, and that one makes its copy anew where it is a fork. So only what is there is compared,
    /// until it is enough.
    async fn compare_put_back(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let (copy, to) = (workloads.cluster(&self.secrets.to), self.copy());
        loop {
            if let Some(end) = end(&copy, &to).await
                && let Some(read) = whole(&copy, &to, end).await
            {
                let verdict = self.judged(workloads, &read, None);
                if verdict.is_some() || self.locked().withheld >= CANARIES_MIN {
                    return verdict;
                }
            }
            if workloads.stage().machines.now_ns() > deadline_ns {
                return None;
            }
            madsim::time::sleep(LOOK).await;
        }
    }

    /// Compares what was read of the copy, and notes how much that was.
    fn judged(
        &self,
        workloads: &Workloads,
        read: &BTreeMap<Offset, ReadRecord>,
        markers: Option<&[Marker]>,
    ) -> Option<Verdict> {
        let mut compared = Compared::default();
        let differs = self.differs(read, markers, &mut compared);
        let sink = &workloads.stage().sink;
        sink.compared("hashes_keyed", compared.hashes.seen);
        sink.compared("hashes_equal", compared.hashes.again);
        self.locked().withheld = compared.withheld;
        let (check, text) = differs?;
        let text = format!("{} at {} {text}", self.copy().topic, self.secrets.to);
        Some(Verdict::Safety { check: check.to_owned(), text })
    }

    /// The same for what a pipeline has made of it.
    async fn compare_piped(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let (origin, copy) =
            (workloads.cluster(&self.secrets.site), workloads.cluster(&self.secrets.to));
        let safety = |check: &str, text| Some(Verdict::Safety { check: check.to_owned(), text });
        let rows: BTreeSet<u64> = self.locked().fates.values().filter_map(Fate::number).collect();
        loop {
            let places = (&origin, &copy, self.secrets.site.as_str());
            let text = match self.piped().ended(places, &rows).await {
                Ok(ended) => {
                    if let Some(text) = ended.wrong {
                        return safety("secrets_piped", text);
                    }
                    let sum: u64 = ended.canaries.values().sum();
                    workloads.stage().sink.compared("canaries_piped", sum);
                    let is_few =
                        sum < CANARIES_MIN || ended.canaries.values().any(|count| *count == 0);
                    let text = || format!("few canaries were withheld: {:?}", ended.canaries);
                    return if is_few { safety("canaries_counted", text()) } else { None };
                }
                Err(text) => text,
            };
            if workloads.stage().machines.now_ns() > deadline_ns {
                return Some(Verdict::Liveness { check: "secrets_converge".to_owned(), text });
            }
            madsim::time::sleep(LOOK).await;
        }
    }

    /// What is wrong with a copy: the check, and the text. Without markers nothing is asked of what it lacks.
    fn differs(
        &self,
        read: &BTreeMap<Offset, ReadRecord>,
        markers: Option<&[Marker]>,
        compared: &mut Compared,
    ) -> Option<(&'static str, String)> {
        let tally = self.locked();
        let wrong = |text| Some(("secrets_withheld", text));
        if let Some(markers) = markers {
            let says = |reason: &str, at: &Offset| {
                markers.iter().any(|marker| marker.reason == reason && marker.spans(*at))
            };
            for (offset, fate) in &tally.fates {
                match (fate, read.get(offset)) {
                    (_, None) if self.secrets.retention_bytes.is_some() && says(BUDGET, offset) => {
                    }
                    (Fate::Withheld(canaries), None) if says(WITHHELD, offset) => {
                        compared.withheld += canaries;
                    }
                    (Fate::Withheld(_), None) => {
                        return wrong(format!(
                            "has nothing at offset {offset}, and does not say why"
                        ));
                    }
                    (Fate::Withheld(_), Some(_)) => {
                        return wrong(format!("has offset {offset}, which is no JSON"));
                    }
                    (Fate::Goes(_), None) => return wrong(format!("lacks offset {offset}")),
                    (Fate::Goes(_), Some(_)) => {}
                }
            }
        }
        for (offset, record) in read {
            // What was not acknowledged may be there, and then as it is to be.
            let acked = markers.and_then(|_| tally.fates.get(offset));
            let copied = match acked {
                Some(Fate::Goes(copied)) => Some(copied),
                _ => number(record).and_then(|n| tally.sent.get(&n)),
            };
            let Some(copied) = copied else {
                return wrong(format!("has offset {offset}, and it is not known of what"));
            };
            let Some(found) = copied.found(record) else {
                let value = record.value.clone().unwrap_or_default();
                let (value, at) = (String::from_utf8_lossy(&value), record.timestamp_ms);
                return wrong(format!(
                    "has {value} of {at} ms at offset {offset}, not {copied} as by {:?}",
                    self.shape
                ));
            };
            compared.withheld += copied.canaries;
            let mut found = found.into_iter();
            if let Some(text) = found.find_map(|hash| compared.hashes.see(hash)) {
                let text = format!("has a bad hash at offset {offset}: {text}");
                return Some(("hashes_keyed", text));
            }
        }
        None
    }
}

/// The number of a record at the other site.
fn number(record: &ReadRecord) -> Option<u64> {
    let value = serde_json::from_slice::<Value>(record.value.as_deref()?).ok()?;
    value["n"].as_u64()
}

fn now_ns() -> u64 {
    let elapsed = madsim::time::TimeHandle::current().elapsed();
    u64::try_from(elapsed.as_nanos()).expect("a run of less than 500 years")
}
