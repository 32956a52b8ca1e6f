//! What a scenario must promise, beyond being well formed.
//!
//! A chaos scenario that is quiet passes and proves nothing. So it must promise, with its triggers
//! at their slowest and its rates at their lowest, enough chaos, faults and records; a scenario of
//! another class says in its file that it promises less.

use super::check::Check;
use super::fields::Fields;
use super::model::{Class, Scenario};
use super::param::Written;
use super::quantity::{ClockShift, Count, Span};
use super::source::Problem;
use super::target::SiteName;
use super::workload::{Mirror, Pipeline, Policy, Tend, TopicName, Workload};
use fulmar_types::units::HumanDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The shortest chaos of a chaos scenario.
pub const CHAOS_MIN: HumanDuration = HumanDuration::from_millis(60_000);
/// The fewest faults in a minute of a chaos scenario.
pub const FAULTS_PER_MINUTE_MIN: u64 = 5;
/// The fewest records that a chaos scenario offers to its sites while faults fire.
pub const RECORDS_MIN: u64 = 2_000;

/// Creating and deleting a topic takes some time even without faults.
const RENEW_MIN: HumanDuration = HumanDuration::from_millis(500);
/// Less than it takes to change a topic would let no record go.
const RETENTION_FOR_MIN: HumanDuration = HumanDuration::from_millis(500);
/// The end of a run waits for a turn that has begun.
const RETENTION_FOR_MAX: HumanDuration = HumanDuration::from_millis(10_000);
const CLIENTS_MAX: u32 = 64;
const PARTITIONS_MAX: u32 = 64;
const BATCH_RECORDS_MAX: u32 = 1_000;
/// With more than that the reference would take longer than the run.
const DEVICES_MAX: u32 = 10_000;
const BATCH_BYTES_MAX: u64 = 256 << 10;

/// Numbers of one workload that would hang or exhaust the run.
pub(super) fn workload(workload: &Workload<Written>, fields: &Fields<'_>) -> Result<(), Problem> {
    let within = |key: &str, span: Span<Count>, most: u32| {
        if span.low().get() == 0 || span.high().get() > most {
            return Err(Problem::new(
                fields.span_of(key),
                format!("`{key}` is from 1 to {most}, not {span}"),
            ));
        }
        Ok(())
    };
    match workload {
        Workload::Produce(produce) => {
            within("clients", produce.clients, CLIENTS_MAX)?;
            within("partitions", produce.partitions, PARTITIONS_MAX)?;
            within("batch_records", produce.batch_records, BATCH_RECORDS_MAX)?;
            within("keys", produce.keys, u32::MAX)?;
            if produce.renew.is_some_and(|renew| renew.low() < RENEW_MIN) {
                let message = format!("`renew` is {RENEW_MIN} at least");
                return Err(Problem::new(fields.span_of("renew"), message));
            }
            let keeps_all = produce.retention.is_none() && produce.retention_bytes.is_none();
            if produce.retention_from.is_some() && (keeps_all || produce.renew.is_some()) {
                let message =
                    "`retention_from` needs `retention` or `retention_bytes`, and no `renew`";
                return Err(Problem::new(fields.span_of("retention_from"), message));
            }
            if let Some(held) = produce.retention_for {
                let within = RETENTION_FOR_MIN <= held.low() && held.high() <= RETENTION_FOR_MAX;
                if produce.retention_from.is_none() || !within {
                    let message = format!(
                        "`retention_for` needs `retention_from`, and is from {RETENTION_FOR_MIN} to \
                         {RETENTION_FOR_MAX}"
                    );
                    return Err(Problem::new(fields.span_of("retention_for"), message));
                }
            }
            if produce.budget != Policy::KeepNewest && produce.retention_bytes.is_none() {
                let message = "`budget` needs `retention_bytes`";
                return Err(Problem::new(fields.span_of("budget"), message));
            }
            let records = u64::from(produce.batch_records.high().get());
            let bytes = produce.value_bytes.span().high().0;
            if bytes.saturating_mul(records) > BATCH_BYTES_MAX {
                return Err(Problem::new(
                    fields.span_of("value_bytes"),
                    format!("a batch of {records} records of {bytes} bytes is above 256KiB"),
                ));
            }
            Ok(())
        }
        Workload::Read(read) => within("clients", read.clients, CLIENTS_MAX),
        Workload::ListOffsets(list) => within("clients", list.clients, CLIENTS_MAX),
        Workload::ListTopics(list) => within("clients", list.clients, CLIENTS_MAX),
        Workload::ForeignIds(foreign) => within("clients", foreign.clients, CLIENTS_MAX),
        Workload::TopicChurn(churn) => {
            within("topics_max", churn.topics_max, 1_000)?;
            within("partitions", churn.partitions, PARTITIONS_MAX)
        }
        Workload::Secrets(secrets) => within("batch_records", secrets.batch_records, 100),
        Workload::Mirror(of) => mirror(of, fields),
        Workload::Stranger(_) | Workload::Impostor(_) => Ok(()),
        Workload::Pipeline(pipeline) => {
            pipeline_of(pipeline, fields)?;
            within("devices", pipeline.devices, DEVICES_MAX)?;
            within("partitions", pipeline.partitions, PARTITIONS_MAX)
        }
    }
}

/// What a pipeline cannot be. A copy lacks what has gone at its origin, and nobody remembers that; a pipeline that
/// stops at bad records would stop at dead letters, too.
fn pipeline_of(pipeline: &Pipeline<Written>, fields: &Fields<'_>) -> Result<(), Problem> {
    let (key, message) = if pipeline.fed_from.is_some() && pipeline.retention.is_some() {
        ("retention", "`retention` is for a pipeline that is fed at its own site")
    } else if pipeline.retries.is_some() && pipeline.tend == Some(Tend::Fail) {
        ("retries", "`retries` is for a pipeline that does not stop at bad records")
    } else {
        return Ok(());
    };
    Err(Problem::new(fields.span_of(key), message))
}

/// What a mirror cannot be.
fn mirror(mirror: &Mirror<Written>, fields: &Fields<'_>) -> Result<(), Problem> {
    let through = mirror.through.as_ref();
    let takes = mirror.take_for.is_some() || !mirror.untaken.is_empty();
    let rule_changes = mirror.rule_for.is_some() || mirror.swaps_for.is_some();
    let needs_origin = mirror.keeps_all || rule_changes || mirror.cap.is_some() || takes;
    let (key, message) = if mirror.site == mirror.of {
        ("of", "a mirror is of another site")
    } else if mirror.in_the_way.is_some() && mirror.renew.is_none() {
        ("in_the_way", "only a copy that is renewed (`renew`) can find something in its way")
    } else if mirror.insists && mirror.rule_for.is_none() {
        ("insists", "only a rule that is taken back (`rule_for`) can be insisted on")
    } else if mirror.rule_for.is_some() && mirror.swaps_for.is_some() {
        ("swaps_for", "what a rule lets go by turns is said once: `rule_for` or `swaps_for`")
    } else if mirror.runs_for.is_some() && takes {
        ("runs_for", "a link that is paused has no `take_for`, `untaken`")
    } else if mirror.named_for.is_some()
        && (takes || mirror.runs_for.is_some() || mirror.renew.is_some())
    {
        ("named_for", "a link that changes its name has no `take_for`, `untaken`, `renew`")
    } else if mirror.drops_headers && through.is_none() {
        ("drops_headers", "`drops_headers` is for what comes through another site")
    } else if mirror.keeps_all && mirror.renew.is_some() {
        ("keeps_all", "a copy that is renewed does not keep all")
    } else if through.is_some_and(|by| *by == mirror.of || *by == mirror.site) {
        ("through", "a mirror comes through a third site")
    } else if through.is_some() && needs_origin {
        let message = "what comes through another site has no `keeps_all`, `rule_for`, `swaps_for`, `take_for`, `untaken`, `cap`";
        ("through", message)
    } else {
        return Ok(());
    };
    Err(Problem::new(fields.span_of(key), message))
}

/// What the parts of a scenario must be together.
pub(super) fn scenario(scenario: &Scenario, file: &Fields<'_>) -> Result<(), Problem> {
    topics(scenario, file)?;
    config(scenario, file)?;
    if scenario.class == Class::Chaos {
        chaos(scenario, file)?;
    }
    Ok(())
}

/// Two sites are named that have a link.
fn linked(
    scenario: &Scenario,
    (site, claims): (&SiteName, &SiteName),
    span: Range<usize>,
) -> Result<(), Problem> {
    let links = |of: &Workload<Written>| match of {
        Workload::Mirror(mirror) => {
            [(&mirror.site, &mirror.of), (&mirror.of, &mirror.site)].contains(&(site, claims))
        }
        _ => false,
    };
    if scenario.workloads.iter().any(links) {
        return Ok(());
    }
    Err(Problem::new(span, format!("there is no link between `{site}` and `{claims}`"))
        .help("add a workload of kind `mirror` between the two"))
}

/// What one workload alone can say of a topic: no other one produces to it.
fn alone(scenario: &Scenario, file: &Fields<'_>) -> Result<(), Problem> {
    let mut seen: BTreeMap<(&SiteName, &TopicName), Option<&'static str>> = BTreeMap::new();
    for (workload, value) in scenario.workloads.iter().zip(file.list("workload")?) {
        let Workload::Produce(produce) = workload else { continue };
        let says = if produce.renew.is_some() {
            Some("is renewed")
        } else if produce.retention.is_some() || produce.retention_bytes.is_some() {
            Some("is not kept for good")
        } else {
            None
        };
        if let Some(said) = seen.insert((&produce.site, &produce.topic), says)
            && let Some(says) = says.or(said)
        {
            let message =
                format!("`{}` {says}, and several workloads produce to it", produce.topic);
            return Err(Problem::new(value.span(), message).help("give each a topic of its own"));
        }
    }
    Ok(())
}

/// Who reads or checks a topic needs somebody who produces to it, and all who produce to it must
/// agree on its partitions.
fn topics(scenario: &Scenario, file: &Fields<'_>) -> Result<(), Problem> {
    let mut partitions: BTreeMap<(&SiteName, &TopicName), Span<Count>> = BTreeMap::new();
    let mut renewed: BTreeSet<(&SiteName, &TopicName)> = BTreeSet::new();
    alone(scenario, file)?;
    let entries = || scenario.workloads.iter().zip(file.list("workload").unwrap_or_default());
    for (workload, value) in entries() {
        let Workload::Produce(produce) = workload else { continue };
        if produce.renew.is_some() {
            renewed.insert((&produce.site, &produce.topic));
        }
        let known = partitions.entry((&produce.site, &produce.topic)).or_insert(produce.partitions);
        if *known != produce.partitions || known.low() != known.high() {
            let shared = entries().filter(|(other, _)| {
                matches!(other, Workload::Produce(other)
                    if other.site == produce.site && other.topic == produce.topic)
            });
            if shared.count() > 1 {
                return Err(Problem::new(
                    value.span(),
                    format!(
                        "several workloads produce to `{}` and disagree on its partitions",
                        produce.topic
                    ),
                )
                .help("give each the same number, and no range"));
            }
        }
    }
    let produced = |site: &SiteName, topic: &TopicName, span: Range<usize>| {
        if renewed.contains(&(site, topic)) {
            let message = format!("`{topic}` is renewed, so nobody can name its topics beforehand");
            return Err(Problem::new(span, message)
                .help("each is read back and compared before it is deleted"));
        }
        if partitions.contains_key(&(site, topic)) {
            return Ok(());
        }
        Err(Problem::new(span, format!("nobody produces to `{topic}` at site `{site}`"))
            .help("add a workload of kind `produce_keyed` for it"))
    };
    for (workload, value) in entries() {
        match workload {
            Workload::Read(read) => produced(&read.site, &read.topic, value.span())?,
            Workload::ListOffsets(list) => produced(&list.site, &list.topic, value.span())?,
            Workload::ForeignIds(foreign) => {
                produced(&foreign.site, &foreign.topic, value.span())?;
            }
            Workload::Mirror(mirror) => {
                for topic in std::iter::once(&mirror.topic).chain(&mirror.untaken) {
                    produced(&mirror.of, topic, value.span())?;
                }
            }
            Workload::Stranger(who) => linked(scenario, (&who.site, &who.claims), value.span())?,
            Workload::Secrets(of) => linked(scenario, (&of.to, &of.site), value.span())?,
            Workload::Impostor(who) => linked(scenario, (&who.site, &who.claims), value.span())?,
            Workload::Produce(_)
            | Workload::ListTopics(_)
            | Workload::TopicChurn(_)
            | Workload::Pipeline(Pipeline { copied_to: None, fed_from: None, .. }) => {}
            Workload::Pipeline(Pipeline { copied_to, fed_from, site, .. }) => {
                for other in copied_to.iter().chain(fed_from) {
                    linked(scenario, (other, site), value.span())?;
                }
            }
        }
    }
    checked(scenario, file, produced)
}

/// Who checks a topic needs somebody who produces to it.
fn checked(
    scenario: &Scenario,
    file: &Fields<'_>,
    produced: impl Fn(&SiteName, &TopicName, Range<usize>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for (check, value) in scenario.checks.iter().zip(file.list("check")?) {
        match check {
            Check::AckedAtLeast(acked) => produced(&acked.site, &acked.topic, value.span())?,
            Check::ExpiredAtLeast(expired) => {
                produced(&expired.site, &expired.topic, value.span())?;
            }
            Check::SilenceAtMost(silence) => {
                produced(&silence.site, &silence.topic, value.span())?;
            }
            Check::UrgentOvertakes(urgent) => {
                produced(&urgent.of, &urgent.topic, value.span())?;
                produced(&urgent.of, &urgent.over, value.span())?;
            }
            Check::LineShareAtLeast(line) => {
                linked(scenario, (&line.site, &line.of), value.span())?;
            }
            Check::LeaderChangesAtLeast(_) | Check::BusyAtLeast(_) => {}
        }
    }
    Ok(())
}

/// Seeds whose configuration is tried: a range that is bad at one end shows at some of them.
const CONFIGS_TRIED: u64 = 8;

/// What the scenario sets in the configuration must be something that a node starts with.
fn config(scenario: &Scenario, file: &Fields<'_>) -> Result<(), Problem> {
    for drawn in (0..CONFIGS_TRIED).map(|seed| scenario.draw(seed)) {
        for (number, (site, _)) in drawn.sites.iter().enumerate() {
            drawn
                .site_config(number, site)
                .map_err(|text| Problem::new(file.span_of("config"), text.trim_end()))?;
        }
    }
    Ok(())
}

/// A fault that lasts no time, or changes nothing, must not count as one.
pub(super) fn fault(fields: &Fields<'_>) -> Result<(), Problem> {
    for key in ["for", "by"] {
        let Some(text) = fields.raw(key).and_then(|value| value.get_ref().as_str()) else {
            continue;
        };
        let is_nothing = |shift: ClockShift| shift.as_nanos() == 0;
        let nothing = Span::<ClockShift>::parse(text)
            .is_ok_and(|span| is_nothing(span.low()) && is_nothing(span.high()));
        if nothing {
            let message = format!("`{key}` is zero, so this fault does nothing");
            return Err(Problem::new(fields.span_of(key), message));
        }
    }
    Ok(())
}

const OTHER_CLASS: &str = "a scenario that is meant to be easy says class = \"smoke\"";

fn chaos(scenario: &Scenario, file: &Fields<'_>) -> Result<(), Problem> {
    let chaos = scenario.run.chaos;
    if chaos < CHAOS_MIN {
        let message = format!("a chaos scenario needs at least {CHAOS_MIN} of chaos, not {chaos}");
        return Err(Problem::new(file.span_of("run"), message).help(OTHER_CLASS));
    }
    let promised = scenario.faults_at_least_ppm();
    // faults / chaos >= 5 / minute, without a division.
    let minute = u128::from(FAULTS_PER_MINUTE_MIN) * chaos.0.as_nanos() * 1_000_000;
    if u128::from(promised) * 60_000_000_000 < minute {
        let per_minute = u128::from(promised) * 60_000_000_000 / chaos.0.as_nanos();
        let mut help = String::from("with every trigger at its slowest:\n");
        for fault in &scenario.faults {
            let times = fault.trigger.times_at_least(chaos) * u64::from(fault.chance.ppm());
            help.push_str(&format!("  {}: {} times\n", fault.fault.kind(), millionths(times)));
        }
        help.push_str(OTHER_CLASS);
        return Err(Problem::new(
            file.span_of("fault"),
            format!(
                "a chaos scenario needs {FAULTS_PER_MINUTE_MIN} faults a minute, this one promises {}",
                millionths(u64::try_from(per_minute).unwrap_or(u64::MAX))
            ),
        )
        .help(help));
    }
    let records = scenario.records_at_least();
    if records < RECORDS_MIN {
        return Err(Problem::new(
            file.span_of("workload"),
            format!(
                "a chaos scenario needs {RECORDS_MIN} records during the chaos, this one offers \
                 {records}"
            ),
        )
        .help(format!("rate times chaos, at the lowest rate\n{OTHER_CLASS}")));
    }
    Ok(())
}

/// Millionths as a number with one decimal.
fn millionths(value: u64) -> String {
    format!("{}.{}", value / 1_000_000, value % 1_000_000 / 100_000)
}

impl Scenario {
    /// How many faults a run has at the least, in millionths: what fires after events is not
    /// counted, and what is in a run by chance counts by its chance.
    pub fn faults_at_least_ppm(&self) -> u64 {
        self.faults
            .iter()
            .map(|fault| {
                fault.trigger.times_at_least(self.run.chaos) * u64::from(fault.chance.ppm())
            })
            .sum()
    }

    /// How many records clients offer while faults fire, at the lowest rates.
    pub fn records_at_least(&self) -> u64 {
        self.workloads
            .iter()
            .map(|workload| match workload {
                Workload::Produce(produce) => produce.rate.low().times_in(self.run.chaos.0),
                _ => 0,
            })
            .sum()
    }
}
