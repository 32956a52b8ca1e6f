//! From a [`Scenario`] and a seed to the one run that the seed stands for.
//!
//! Every part draws from a stream of its own, so that a fault that is added to a file leaves the
//! network, the disks and the other faults of each seed as they were.
//!
//! Invariant: a drawn scenario, printed and parsed, draws to itself with any seed.

use super::check::{BusyAtLeast, Check};
use super::model::{Class, DrawnScenario, PlannedFault, Scenario, ScheduledFault};
use super::param::Draw;
use super::quantity::Count;
use super::trigger::FixedTrigger;
use super::validate::{FAULTS_PER_MINUTE_MIN, RECORDS_MIN};
use crate::prng::Prng;
use fulmar_types::units::HumanDuration;

impl Scenario {
    /// Draws everything that the seed decides.
    pub fn draw(&self, seed: u64) -> DrawnScenario {
        let draw = |part: &str, at: usize| Draw {
            prng: Prng::new(seed, &format!("scenario/{part}/{at}")),
            sites: &self.sites,
        };
        let workloads = self.workloads.iter().enumerate();
        let checks = self.checks.iter().enumerate();
        let busy = (self.class == Class::Chaos).then(|| {
            let faults = FAULTS_PER_MINUTE_MIN * self.run.chaos.0.as_secs() / 60;
            let count = |count: u64| Count::of(u32::try_from(count).unwrap_or(u32::MAX));
            Check::BusyAtLeast(BusyAtLeast { records: count(RECORDS_MIN), faults: count(faults) })
        });
        let mut faults: Vec<ScheduledFault> = Vec::new();
        for (at, planned) in self.faults.iter().enumerate() {
            faults.extend(planned.schedule(self.run.chaos, &mut draw("fault", at)));
        }
        // Stable, so that faults at the same time stay in the order of the file.
        faults.sort_by_key(|fault| match &fault.trigger {
            FixedTrigger::At(at) => *at,
            FixedTrigger::After(_) => HumanDuration(std::time::Duration::MAX),
        });
        let config = self.config.draw(seed, "scenario/config");
        DrawnScenario {
            title: self.title.clone(),
            why: self.why.clone(),
            tags: self.tags.clone(),
            must_hit: self.must_hit.clone(),
            // One bit less, because a TOML number has a sign.
            stream_seed: self
                .stream_seed
                .unwrap_or_else(|| Prng::new(seed, "scenario/streams").next_u64() >> 1),
            run: self.run,
            sites: self.sites.clone(),
            net: self.net.draw(seed, &self.sites),
            disk: self.disk.draw(seed, &self.sites),
            clocks: self.clock.draw(seed, &self.sites),
            config: config.as_table().cloned().unwrap_or_default(),
            workloads: workloads.map(|(at, w)| w.draw(&mut draw("workload", at))).collect(),
            faults,
            checks: checks.map(|(at, c)| c.draw(&mut draw("check", at))).chain(busy).collect(),
        }
    }
}

impl PlannedFault {
    fn schedule(&self, chaos: HumanDuration, draw: &mut Draw<'_>) -> Vec<ScheduledFault> {
        if !draw.prng.chance(self.chance.ppm()) {
            return Vec::new();
        }
        let mut times = Draw { prng: draw.prng.fork("trigger"), sites: draw.sites };
        let triggers = self.trigger.expand(chaos, &mut times);
        triggers
            .into_iter()
            .map(|trigger| ScheduledFault { trigger, fault: self.fault.draw(draw) })
            .collect()
    }
}
