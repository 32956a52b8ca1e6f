//! Records with secrets in them, and a rule that keeps them at home.
//!
//! ```text
//! produced   {"n":7,"open":MARKER,"secret":CANARY,"person":{"name":CANARY,"town":MARKER},
//!             "ids":[CANARY,...],"note":"ok CANARY","lat":7.1234,"late":LAPSES or CANARY}   key, headers: CANARY, MARKER
//!            or something that is no JSON, with a CANARY
//! copied     {"n":7,"open":MARKER,"person":{"name":"***","town":MARKER},"ids":[hash,...],"note":"ok","lat":7.1}
//! ```
//!
//! The batches are compressed with any codec or none. At some time the rule also withholds `late`; from
//! the moment on at which that was acknowledged, `late` has a canary in what is produced, and what stands
//! there in older records, whatever was read, written or lost of them before, leaves no more.
//!
//! Invariants checked here: no canary crosses between the sites, in no byte and whatever is compressed in
//! it, nor anything of a field that leaves after it was known to be withheld (`canaries_stay`); the copy
//! has every acknowledged record that may go, in the form of the rule and with its own time, and beside them only such as were sent and are in that form too (`secrets_withheld`); enough canaries were at stake, and markers did cross
//! (`canaries_counted`); the copy comes to the end of its origin (`secrets_converge`).
//!
//! With `piped` a pipeline reads the topic as well: see `piped.rs`.

use super::eavesdrop::{CANARY, Eavesdropper, LAPSING, MARKER, TOKEN_DIGITS};
use super::foreign::request;
use super::mirroring::region;
use super::piped::Piped;
use super::whole::{end, whole};
use super::workload::Workloads;
use crate::prng::Prng;
use crate::report::{Canaries, Verdict};
use crate::scenario::workload::Secrets;
use crate::scenario::{Drawn, SiteName, Workload};
use fulmar_client::{Cluster, ReadRecord, TopicPartition};
use fulmar_host::time;
use fulmar_types::rule::RuleDefinition;
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

/// Fewer canaries than this prove nothing.
const CANARIES_MIN: u64 = 100;

/// Fewer markers than this that crossed do not prove that the canaries could have.
const MARKERS_MIN: u64 = 20;

/// What the rule does to fields, but for the last one.
const FIELDS: &str = "secret=drop,person.name=mask,ids=hash,note=truncate:2,lat=round:1";

/// What is to become of a record.
#[derive(Clone, Debug)]
enum Fate {
    /// This is to be at the other site; its ids as hashes, and its `late` only before it is withheld. Its time
    /// and its `trace` are to be what they were.
    Goes { n: u64, open: String, town: String, ids: usize, trace: String, at_ms: i64 },
    /// It stays.
    Withheld,
}

impl Fate {
    fn number(&self) -> Option<u64> {
        match self {
            Fate::Goes { n, .. } => Some(*n),
            Fate::Withheld => None,
        }
    }
}

#[derive(Default)]
struct Tally {
    /// Of every acknowledged record.
    fates: BTreeMap<Offset, Fate>,
    /// Of every record that goes and was sent, by its number, whatever was answered.
    sent: BTreeMap<u64, Fate>,
    /// Canaries in them.
    canaries: u64,
    /// The rule withholds `late`, and since when that is known.
    stricter_ns: Option<u64>,
    /// What `late` was before, in whatever was sent to the site.
    lapsed: BTreeSet<String>,
}

/// One workload of secrets.
#[derive(Clone)]
pub(super) struct Keeping {
    secrets: Secrets<Drawn>,
    tally: Arc<Mutex<Tally>>,
}

/// All of a run, and who listens at the line.
#[derive(Default)]
pub(super) struct Secrecy {
    all: Vec<Keeping>,
    ear: Eavesdropper,
}

impl Secrecy {
    pub(super) fn new(workloads: &[Workload<Drawn>], ear: Eavesdropper) -> Self {
        let all = workloads.iter().filter_map(|workload| match workload {
            Workload::Secrets(secrets) => {
                Some(Keeping { secrets: secrets.clone(), tally: Arc::default() })
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
            while cluster.create_topic(topic, 1, LIMIT).await.is_err()
                && !cluster.metadata().topics.contains_key(topic)
            {
                madsim::time::sleep(LOOK).await;
            }
            while !keeping.set_rule(&cluster, FIELDS).await {
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
        let withheld = self.all.iter().map(|keeping| keeping.locked().canaries);
        (!self.all.is_empty())
            .then(|| Canaries { withheld: withheld.sum(), markers: self.ear.markers() })
    }

    /// What is wrong, once everything has healed.
    pub(super) async fn verdict(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let safety = |check: &str, text| Some(Verdict::Safety { check: check.to_owned(), text });
        for keeping in &self.all {
            let mut verdict = match workloads.was_put_back(&keeping.secrets.site) {
                // What was acknowledged since the copy was made is nowhere, or at the other site alone.
                true => None,
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
            let (canaries, markers) = (keeping.locked().canaries, self.ear.markers());
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

    async fn set_rule(&self, cluster: &Cluster, fields: &str) -> bool {
        let region = region(&self.secrets.to);
        let rule = RuleDefinition::from_settings([
            ("regions", region.as_str()),
            ("key", "hash"),
            ("headers", "trace=pass,*=drop"),
            ("fields", fields),
        ]);
        let rule = rule.expect("a rule that can be read");
        cluster.set_rule(self.secrets.topic.as_str(), None, &rule, LIMIT).await.is_ok()
    }

    /// Makes the rule what it is to be by now.
    pub(super) async fn set_rule_again(&self, cluster: &Cluster) -> bool {
        let fields = match self.locked().stricter_ns {
            Some(_) => format!("{FIELDS},late=drop"),
            None => FIELDS.to_owned(),
        };
        self.set_rule(cluster, &fields).await
    }

    /// Produces until it is told to stop.
    pub(super) async fn run(self, cluster: Cluster, mut prng: Prng, stopped: impl Fn() -> bool) {
        let (interval, mut n) = (self.secrets.rate.interval(), 0);
        let begun = time::now();
        while !stopped() {
            madsim::time::sleep(interval).await;
            let is_due = begun.elapsed() >= self.secrets.stricter_after.0;
            if is_due && self.locked().stricter_ns.is_none() {
                let fields = format!("{FIELDS},late=drop");
                if self.set_rule(&cluster, &fields).await {
                    self.locked().stricter_ns = Some(now_ns());
                }
            }
            let at_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX - OLD_MS);
            self.produce(&cluster, &mut prng, (&mut n, OLD_MS + at_ms)).await;
        }
    }

    async fn produce(&self, cluster: &Cluster, prng: &mut Prng, (n, at_ms): (&mut u64, i64)) {
        let codec = Compression::ALL[prng.below(Compression::ALL.len() as u64) as usize];
        let mut batch = BatchBuilder::new().compressed(codec);
        let (mut fates, mut canaries) = (Vec::new(), 0);
        for _ in 0..self.secrets.batch_records.get() {
            *n += 1;
            let is_stricter = self.locked().stricter_ns.is_some();
            let mut record = record(prng, *n, is_stricter);
            if !is_stricter {
                self.locked().lapsed.insert(record.late.clone());
            }
            let headers: [(&[u8], Option<&[u8]>); 2] = [
                (b"trace", Some(record.trace.as_bytes())),
                (b"user", Some(record.user.as_bytes())),
            ];
            let (key, value) = (record.key.as_bytes(), record.value.as_bytes());
            let is_old = prng.below(OLD_ONE_IN) == 0;
            let at_ms = if is_old { at_ms - OLD_MS } else { at_ms };
            batch.push(at_ms, Some(key), Some(value), &headers).expect("it is small");
            if let Fate::Goes { at_ms: at, .. } = &mut record.fate {
                *at = at_ms;
                self.locked().sent.insert(*n, record.fate.clone());
            }
            let all = [&record.key, &record.value, &record.user];
            canaries += all.map(|text| text.matches(CANARY).count() as u64).iter().sum::<u64>();
            fates.push(record.fate);
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
        let mut tally = self.locked();
        tally.canaries += canaries;
        tally.fates.extend((base..).map(Offset).zip(fates));
    }

    /// Waits until the copy has come to the end of its origin, and compares it with what it is to be.
    async fn compare(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        let (origin, copy) =
            (workloads.cluster(&self.secrets.site), workloads.cluster(&self.secrets.to));
        let name = format!("{}.{}", self.secrets.site, self.secrets.topic);
        let from = TopicPartition::new(self.secrets.topic.as_str(), PartitionIndex(0));
        let to = TopicPartition::new(&name, PartitionIndex(0));
        loop {
            let ends = (end(&origin, &from).await, end(&copy, &to).await);
            if let (Some(of_origin), Some(of_copy)) = ends
                && of_copy >= of_origin
                && let Some(read) = whole(&copy, &to, of_copy).await
            {
                let text = self.differs(&read)?;
                let text = format!("{name} at {} {text}", self.secrets.to);
                return Some(Verdict::Safety { check: "secrets_withheld".to_owned(), text });
            }
            if workloads.stage().machines.now_ns() > deadline_ns {
                let text = format!("{name} has not come to the end of its origin: {ends:?}");
                return Some(Verdict::Liveness { check: "secrets_converge".to_owned(), text });
            }
            madsim::time::sleep(LOOK).await;
        }
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

    fn differs(&self, read: &BTreeMap<Offset, ReadRecord>) -> Option<String> {
        let tally = self.locked();
        for (offset, fate) in &tally.fates {
            match (fate, read.get(offset)) {
                (Fate::Withheld, None) => {}
                (Fate::Withheld, Some(_)) => {
                    return Some(format!("has offset {offset}, which is no JSON"));
                }
                (Fate::Goes { .. }, None) => return Some(format!("lacks offset {offset}")),
                (fate, Some(record)) if is_as_ruled(fate, record) => {}
                (fate, Some(record)) => {
                    let value = record.value.clone().unwrap_or_default();
                    let value = String::from_utf8_lossy(&value).into_owned();
                    let at = record.timestamp_ms;
                    return Some(format!(
                        "has {value} of {at} ms at offset {offset}, made of {fate:?}"
                    ));
                }
            }
        }
        // What was not acknowledged may be there, and then as it is to be.
        let others = read.iter().filter(|(offset, _)| !tally.fates.contains_key(offset));
        others.map(|(offset, record)| (offset, number(record), record)).find_map(
            |(offset, n, record)| {
                let fate = n.and_then(|n| tally.sent.get(&n));
                let is_right = fate.is_some_and(|fate| is_as_ruled(fate, record));
                (!is_right).then(|| format!("has offset {offset}, made of {n:?}: {fate:?}"))
            },
        )
    }
}

/// The number of a record at the other site.
fn number(record: &ReadRecord) -> Option<u64> {
    let value = serde_json::from_slice::<Value>(record.value.as_deref()?).ok()?;
    value["n"].as_u64()
}

fn is_as_ruled(fate: &Fate, record: &ReadRecord) -> bool {
    let Fate::Goes { n, open, town, ids, trace, at_ms } = fate else { return false };
    let value = record.value.as_deref().unwrap_or_default();
    let Ok(mut value) = serde_json::from_slice::<Value>(value) else { return false };
    let is_hash = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let hashes = value["ids"].as_array().cloned().unwrap_or_default();
    let are_hashes =
        hashes.len() == *ids && hashes.iter().all(|id| id.as_str().is_some_and(is_hash));
    let key = record.key.as_deref().map(String::from_utf8_lossy);
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        record.headers.iter().map(|header| (&*header.key, header.value.as_deref())).collect();
    let is_traced = headers == [(&b"trace"[..], Some(trace.as_bytes()))];
    let Ok(lat) = serde_json::from_str::<Value>(&format!("{n}.1")) else { return false };
    let Some(members) = value.as_object_mut() else { return false };
    // Before it is withheld it may be there.
    members.remove("late");
    members.remove("ids");
    let expected = serde_json::json!({
        "n": n, "open": open, "person": { "name": "***", "town": town }, "note": "ok",
        "lat": lat
    });
    let is_its_time = record.timestamp_ms == *at_ms;
    let is_key = key.is_some_and(|key| is_hash(&key));
    value == expected && are_hashes && is_key && is_traced && is_its_time
}

/// A record as it is produced.
struct Made {
    key: String,
    trace: String,
    user: String,
    value: String,
    late: String,
    fate: Fate,
}

fn now_ns() -> u64 {
    let elapsed = madsim::time::TimeHandle::current().elapsed();
    u64::try_from(elapsed.as_nanos()).expect("a run of less than 500 years")
}

fn record(prng: &mut Prng, n: u64, is_stricter: bool) -> Made {
    let mut token = |kind: &str| {
        let digits = format!("{:016x}", prng.below(u64::MAX));
        format!("{kind}{}", &digits[16 - TOKEN_DIGITS..])
    };
    let (key, trace, user) = (token(CANARY), token(MARKER), token(CANARY));
    let (secret, name, note) = (token(CANARY), token(CANARY), token(CANARY));
    let (open, town) = (token(MARKER), token(MARKER));
    let late = token(if is_stricter { CANARY } else { LAPSING });
    let all_ids = [token(CANARY), token(CANARY), token(CANARY)];
    let ids = prng.below(4) as usize;
    let listed: Vec<String> = all_ids[..ids].iter().map(|id| format!("\"{id}\"")).collect();
    // A name may be written in other ways, or come twice.
    let named = ["\"secret\"", "\"s\\u0065cret\"", "\"secret\":1,\"secret\""];
    let named = named[prng.below(3) as usize];
    let json = format!(
        "{{\"n\":{n}, \"open\":\"{open}\",{named}:[{{\"x\":\"{secret}\"}}],\"person\":{{\"name\":\
         \"{name}\",\"town\":\"{town}\"}},\"ids\":[{}],\"note\":\"ok {note}\",\"lat\":{n}.1234,\"late\":\"{late}\"}}",
        listed.join(",")
    );
    let (value, fate) = match prng.below(10) {
        0 => (format!("{secret} is no JSON"), Fate::Withheld),
        1 => (json[..json.len() - 1].to_owned(), Fate::Withheld),
        2 => (format!("\"{secret}\""), Fate::Withheld),
        _ => (json, Fate::Goes { n, open, town, ids, trace: trace.clone(), at_ms: 0 }),
    };
    Made { key, trace, user, value, late, fate }
}
