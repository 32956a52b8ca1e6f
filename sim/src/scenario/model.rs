//! A scenario as it stands in its file, and as a seed has drawn it.

use super::check::Check;
use super::clock::{Clock, NodeClock};
use super::disk::{Disk, DrawnDisk};
use super::fault::Fault;
use super::net::{DrawnNet, Net};
use super::overrides::Override;
use super::param::{Drawn, Written, ranges, words};
use super::quantity::{Probability, Span};
use super::target::Sites;
use super::trigger::{FixedTrigger, Trigger};
use super::workload::Workload;
use fulmar_types::Probe;
use fulmar_types::units::HumanDuration;

words! {
    /// What a scenario is for, which decides how hard it has to be.
    enum Class, "class" {
        /// It breaks things: it must promise enough chaos, faults and records.
        Chaos = "chaos",
        /// It shows that the plain things work: no minimum.
        Smoke = "smoke",
        /// One drawn or reduced run, kept to be run again: no minimum, since every fault that is
        /// left matters.
        Replay = "replay",
    }
}

/// How long the phases of a run take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// From the moment that all sites are ready until the first fault may fire.
    pub warmup: HumanDuration,
    /// While faults fire.
    pub chaos: HumanDuration,
    /// After the chaos, within which every site must make progress and its nodes be equal.
    pub heal_within: HumanDuration,
}

ranges! {
    /// The phases as they stand in the file.
    struct WrittenPhases {
        /// From ready to the first fault.
        warmup = "warmup": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(5_000));
        /// While faults fire.
        chaos = "chaos": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(60_000));
        /// The time to recover.
        heal_within = "heal_within": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(30_000));
    }
}

/// A fault of a scenario: what, when, and how likely in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFault {
    /// When it fires.
    pub trigger: Trigger,
    /// How likely a run has it at all: runs with some of the faults find bugs that runs with all
    /// of them hide (Groce and others 2012, swarm testing).
    pub chance: Probability,
    /// What goes wrong.
    pub fault: Fault<Written>,
}

/// One fault of one run: it fires once.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledFault {
    /// When it fires.
    pub trigger: FixedTrigger,
    /// What goes wrong.
    pub fault: Fault<Drawn>,
}

/// A scenario as it stands in its file: ranges, choices, and triggers that repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What happens, in a few words.
    pub title: String,
    /// Which promise it tests and why that is in doubt.
    pub why: String,
    /// What it is for.
    pub class: Class,
    /// Words to choose scenarios by.
    pub tags: Vec<String>,
    /// Rare states that a sweep of this scenario must reach.
    pub must_hit: Vec<Probe>,
    /// The seed of the streams, where the file fixes it.
    pub(super) stream_seed: Option<u64>,
    /// The phases.
    pub run: Phases,
    /// The sites.
    pub sites: Sites,
    /// The network.
    pub net: Net,
    /// The disks.
    pub disk: Disk,
    /// The wall clocks.
    pub clock: Clock,
    /// Keys of the site's configuration.
    pub(super) config: Override,
    /// What clients do.
    pub workloads: Vec<Workload<Written>>,
    /// What goes wrong.
    pub faults: Vec<PlannedFault>,
    /// What has to hold beyond what always has to.
    pub checks: Vec<Check<Written>>,
}

/// A scenario as one seed has drawn it: every time, duration, number and choice is fixed.
///
/// What is left to the run: who holds a role when a fault fires, and the streams of values that
/// differ from one use to the next (a [`super::Mix`]: latencies, sizes; keys; which bits rot), all
/// of them seeded by `stream_seed`.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnScenario {
    /// What happens, in a few words.
    pub title: String,
    /// Which promise it tests and why that is in doubt.
    pub why: String,
    /// Words to choose scenarios by.
    pub tags: Vec<String>,
    /// Rare states that a sweep of this scenario must reach.
    pub must_hit: Vec<Probe>,
    /// The seed of every stream that the run draws from; below 2^63.
    pub stream_seed: u64,
    /// The phases.
    pub run: Phases,
    /// The sites.
    pub sites: Sites,
    /// The network.
    pub net: DrawnNet,
    /// The disks.
    pub disk: DrawnDisk,
    /// The wall clocks, one of every node, ordered by site and node.
    pub clocks: Vec<NodeClock<Drawn>>,
    /// Keys to lay over the site's configuration, see [`Self::site_config`].
    pub config: toml::Table,
    /// What clients do.
    pub workloads: Vec<Workload<Drawn>>,
    /// What goes wrong: those at a time first, in order, then those after events.
    pub faults: Vec<ScheduledFault>,
    /// What has to hold beyond what always has to.
    pub checks: Vec<Check<Drawn>>,
}
