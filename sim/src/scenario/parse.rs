//! From the text of a scenario file to a [`Scenario`].

use super::check::Check;
use super::clock::Clock;
use super::disk::Disk;
use super::fault::Fault;
use super::fields::{Fields, Value, expected};
use super::model::{Class, Phases, PlannedFault, Scenario, WrittenPhases};
use super::net::Net;
use super::overrides::Override;
use super::param::{Param, Written};
use super::quantity::{Count, Probability, Span};
use super::source::{Problem, ScenarioError};
use super::target::{SiteName, Sites};
use super::trigger::Trigger;
use super::validate;
use super::workload::Workload;
use fulmar_types::units::HumanDuration;
use toml::de::{DeTable, DeValue};

/// The keys of a scenario file.
const KEYS: &[&str] = &[
    "title",
    "why",
    "class",
    "tags",
    "must_hit",
    "stream_seed",
    "run",
    "sites",
    "net",
    "disk",
    "clock",
    "config",
    "workload",
    "fault",
    "check",
];

/// More sites than this would only be slow.
const SITES_MAX: usize = 16;
/// What a site may have (docs/design/consensus.md).
const NODES: [u32; 2] = [1, 3];
/// Long enough for an outage; hours of busy nodes belong into several runs with several seeds.
const PHASE_MAX: HumanDuration = HumanDuration::from_millis(30 * 86_400_000);

impl Scenario {
    /// Reads a scenario. `file` is its name, for error messages only.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let readable = |problem: Problem| problem.in_file(file, text);
        let table = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            readable(Problem::new(span, format!("not TOML: {}", error.message())))
        })?;
        let sites = read_sites(table.get_ref()).map_err(readable)?;
        read(Fields::of_file(table.get_ref(), &sites)).map_err(readable)
    }
}

fn read(file: Fields<'_>) -> Result<Scenario, Problem> {
    let file = file.known(&[KEYS])?;
    let sites = file.sites();
    let run = read_phases(&file)?;
    let class = file.or("class", Class::Chaos)?;
    let mut workloads = Vec::new();
    for value in file.list("workload")? {
        let (workload, fields) = Workload::<Written>::read(value, &[], sites)?;
        validate::workload(&workload, &fields)?;
        workloads.push(workload);
    }
    let mut faults = Vec::new();
    for value in file.list("fault")? {
        let (planned, fields) = read_fault(value, run.chaos, sites)?;
        // Of a range that holds zero a seed may draw it, and its run must be one that can be read.
        if class != Class::Replay {
            validate::fault(&fields)?;
        }
        faults.push(planned);
    }
    let mut checks = Vec::new();
    for value in file.list("check")? {
        checks.push(Check::<Written>::read(value, &[], sites)?.0);
    }
    let scenario = Scenario {
        title: file.required("title")?,
        why: file.required("why")?,
        class,
        tags: file.or("tags", Vec::new())?,
        must_hit: file.or("must_hit", Vec::new())?,
        stream_seed: file.optional("stream_seed")?,
        run,
        sites: sites.clone(),
        net: Net::read(&file)?,
        disk: Disk::read(&file)?,
        clock: Clock::read(&file)?,
        config: match file.raw("config") {
            Some(value) if value.get_ref().is_table() => Override::read(value)?,
            Some(value) => return expected("a table of configuration keys", value),
            None => Override::none(),
        },
        workloads,
        faults,
        checks,
    };
    validate::scenario(&scenario, &file)?;
    Ok(scenario)
}

fn read_fault<'a>(
    value: &'a Value<'a>,
    chaos: HumanDuration,
    sites: &'a Sites,
) -> Result<(PlannedFault, Fields<'a>), Problem> {
    let more: Vec<&str> = [Trigger::KEYS, &["chance"]].concat();
    let (fault, fields) = Fault::<Written>::read(value, &more, sites)?;
    let chance = fields.or("chance", Span::fixed(Probability::CERTAIN))?;
    if chance.low() != chance.high() || chance.low() == Probability::default() {
        return Err(Problem::new(
            fields.span_of("chance"),
            "`chance` is one probability above 0: a run either has the fault or not",
        ));
    }
    let trigger = Trigger::read(&fields, chaos)?;
    Ok((PlannedFault { trigger, chance: chance.low(), fault }, fields))
}

fn read_phases(file: &Fields<'_>) -> Result<Phases, Problem> {
    let none = Fields::none(file.sites());
    let fields = file.table("run", &[WrittenPhases::KEYS])?.unwrap_or(none);
    let written = WrittenPhases::from_fields(&fields)?;
    let one = |key: &str, span: Span<HumanDuration>| {
        if span.low() != span.high() {
            return Err(Problem::new(fields.span_of(key), "a phase has one length, not a range"));
        }
        if span.high() > PHASE_MAX {
            let message = format!("a phase takes at most {PHASE_MAX}");
            return Err(Problem::new(fields.span_of(key), message));
        }
        Ok(span.low())
    };
    Ok(Phases {
        warmup: one("warmup", written.warmup)?,
        chaos: one("chaos", written.chaos)?,
        heal_within: one("heal_within", written.heal_within)?,
    })
}

fn read_sites(file: &DeTable<'_>) -> Result<Sites, Problem> {
    let mut sites = Sites::default();
    let Some(value) = file.get("sites") else {
        return Err(Problem::new(0..0, "a scenario needs `sites`")
            .help("for example: sites = { north = 3 }"));
    };
    let DeValue::Table(table) = value.get_ref() else {
        return expected("the sites as a table `{ north = 3 }`", value);
    };
    for (key, nodes) in table.iter() {
        let Some(name) = SiteName::parse(key.get_ref()) else {
            return Err(Problem::new(
                key.span(),
                "the name of a site has 1 to 64 lower-case letters, digits and `-`",
            ));
        };
        let count: Span<Count> = Span::read(nodes, &sites)?;
        if count.low() != count.high() || !NODES.contains(&count.low().get()) {
            return Err(Problem::new(nodes.span(), "a site has 1 or 3 nodes"));
        }
        sites.nodes.insert(name, count.low().get());
    }
    if !(1..=SITES_MAX).contains(&sites.nodes.len()) {
        return Err(Problem::new(
            value.span(),
            format!("a scenario has 1 to {SITES_MAX} sites, not {}", sites.nodes.len()),
        ));
    }
    Ok(sites)
}
