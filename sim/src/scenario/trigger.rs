//! When a fault fires.
//!
//! All times count from the start of the chaos, and so do events. A fault that fires `every` so
//! often is expanded, when the scenario is drawn, into single faults with fixed times; one that
//! fires `after` a number of events into single ones with fixed numbers.

use super::fields::Fields;
use super::param::{Draw, Drawn, Line, Written, params, words};
use super::quantity::{Count, Quantity, Span};
use super::source::Problem;
use super::target::SiteName;
use fulmar_types::units::HumanDuration;
use std::time::Duration;

/// Gaps below this would fire more faults than a site could ever recover from.
const GAP_MIN: HumanDuration = HumanDuration::from_millis(100);
/// One entry of a scenario gives at most so many faults.
const TIMES_MAX: u32 = 10_000;

words! {
    /// Events that a fault can wait for.
    enum EventKind, "kind of event" {
        /// A record was acknowledged to a client.
        Acked = "acked",
        /// A node finished a flush.
        Flushes = "flushes",
        /// A node became leader.
        Elections = "elections",
        /// A node sealed a segment.
        Seals = "seals",
        /// A node saved a snapshot.
        Snapshots = "snapshots",
        /// A node that is behind took a whole segment from a peer.
        Shipped = "shipped",
    }
}

params! {
    /// A number of events to wait for.
    struct After {
        /// How many.
        events = "events": Span<Count>;
        /// Of what.
        of = "of": EventKind;
        /// At which site; everywhere if left out.
        site = "site": Option<SiteName>, or None;
    }
}

/// When a fault fires, as its file says.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// Once, at this time.
    At(Span<HumanDuration>),
    /// Again and again, with these gaps, until the chaos ends.
    Every {
        /// The time from one to the next, drawn each time.
        gap: Span<HumanDuration>,
        /// How many times at most.
        times: Option<u32>,
    },
    /// After a number of events, and after as many again.
    After {
        /// The events, drawn each time.
        events: After<Written>,
        /// How many times.
        times: u32,
    },
}

/// When a fault fires, as a seed has drawn it: once.
#[derive(Clone, Debug, PartialEq)]
pub enum FixedTrigger {
    /// At this time after the start of the chaos.
    At(HumanDuration),
    /// When so many events have happened since the start of the chaos.
    After(After<Drawn>),
}

impl Trigger {
    /// The keys that stand beside those of the fault.
    pub(super) const KEYS: &'static [&'static str] = &["at", "every", "after", "times"];

    pub(super) fn read(fault: &Fields<'_>, chaos: HumanDuration) -> Result<Self, Problem> {
        let times = fault.optional::<Span<Count>>("times")?;
        let times = times.map(|times| fixed_times(fault, times)).transpose()?;
        let mut given: Vec<&str> = Vec::new();
        for key in ["at", "every", "after"] {
            if fault.raw(key).is_some() {
                given.push(key);
            }
        }
        match given.as_slice() {
            ["at"] => Self::read_at(fault, chaos, times),
            ["every"] => Self::read_every(fault, times),
            ["after"] => {
                let events = fault.nested("after", &[After::<Written>::KEYS])?;
                let read = After::from_fields(&events)?;
                if read.events.low().get() == 0 {
                    return Err(Problem::new(events.span(), "`events` must be at least 1"));
                }
                Ok(Self::After { events: read, times: times.unwrap_or(1) })
            }
            _ => {
                let message = match given.as_slice() {
                    [] => format!("{} never fires", fault.what()),
                    more => format!("{} fires by {} at once", fault.what(), more.join(" and ")),
                };
                Err(Problem::new(fault.span(), message).help(
                    "give one of: at = \"10s\", every = \"5s..15s\", \
                     after = { events = 200, of = \"acked\" }",
                ))
            }
        }
    }

    fn read_at(
        fault: &Fields<'_>,
        chaos: HumanDuration,
        times: Option<u32>,
    ) -> Result<Self, Problem> {
        let at: Span<HumanDuration> = fault.required("at")?;
        if times.is_some() {
            return Err(Problem::new(fault.span_of("times"), "a fault `at` a time fires once")
                .help("use `every` for one that fires again"));
        }
        if at.high() >= chaos {
            return Err(Problem::new(
                fault.span_of("at"),
                format!("{} is not within the chaos, which ends at {chaos}", at.high()),
            ));
        }
        Ok(Self::At(at))
    }

    fn read_every(fault: &Fields<'_>, times: Option<u32>) -> Result<Self, Problem> {
        let gap: Span<HumanDuration> = fault.required("every")?;
        if gap.low() < GAP_MIN {
            return Err(Problem::new(
                fault.span_of("every"),
                format!("faults must be at least {GAP_MIN} apart, not {}", gap.low()),
            ));
        }
        Ok(Self::Every { gap, times })
    }

    /// How often it fires within the chaos at the least, as far as that can be told beforehand:
    /// events may never come.
    pub(super) fn times_at_least(&self, chaos: HumanDuration) -> u64 {
        match self {
            Self::At(_) => 1,
            Self::Every { gap, times } => {
                let within = chaos.to_ticks().saturating_sub(1) / gap.high().to_ticks().max(1);
                let most = times.map_or(u64::MAX, u64::from);
                within.unsigned_abs().min(most)
            }
            Self::After { .. } => 0,
        }
    }

    /// Each time that it fires, in order.
    pub(super) fn expand(&self, chaos: HumanDuration, draw: &mut Draw<'_>) -> Vec<FixedTrigger> {
        match self {
            Self::At(at) => vec![FixedTrigger::At(at.pick(&mut draw.prng))],
            Self::Every { gap, times } => {
                let mut fires = Vec::new();
                let mut now = Duration::ZERO;
                while fires.len() < times.unwrap_or(TIMES_MAX) as usize {
                    now += gap.pick(&mut draw.prng).0;
                    if now >= chaos.0 {
                        break;
                    }
                    fires.push(FixedTrigger::At(HumanDuration(now)));
                }
                fires
            }
            Self::After { events, times } => {
                let mut fires = Vec::new();
                let mut so_far = 0u32;
                for _ in 0..*times {
                    let next = events.draw(draw);
                    so_far = so_far.saturating_add(next.events.get());
                    fires.push(FixedTrigger::After(After { events: Count::of(so_far), ..next }));
                }
                fires
            }
        }
    }
}

fn fixed_times(fault: &Fields<'_>, times: Span<Count>) -> Result<u32, Problem> {
    let count = times.low().get();
    if times.high().get() != count || !(1..=TIMES_MAX).contains(&count) {
        return Err(Problem::new(
            fault.span_of("times"),
            format!("`times` is one number from 1 to {TIMES_MAX}"),
        ));
    }
    Ok(count)
}

impl FixedTrigger {
    pub(super) fn print(&self, line: &mut Line) {
        match self {
            Self::At(at) => line.put("at", at),
            Self::After(events) => {
                let mut after = Line::default();
                events.print(&mut after);
                line.put_raw("after", after.finish());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::scenario::target::Sites;

    fn expand(trigger: &Trigger, seed: u64) -> Vec<FixedTrigger> {
        let sites = Sites::default();
        let mut draw = Draw { prng: Prng::new(seed, "test"), sites: &sites };
        trigger.expand(HumanDuration::from_millis(60_000), &mut draw)
    }

    fn seconds(low: u64, high: u64) -> Span<HumanDuration> {
        let time = |s| HumanDuration::from_millis(s * 1_000);
        Span::new(time(low), time(high)).expect("forwards")
    }

    #[test]
    fn what_fires_every_so_often_fires_at_least_as_often_as_promised() {
        let chaos = HumanDuration::from_millis(60_000);
        for seed in 0..200 {
            let trigger = Trigger::Every { gap: seconds(2, 12), times: None };
            let fires = expand(&trigger, seed);
            assert!(fires.len() as u64 >= trigger.times_at_least(chaos));
            assert!(fires.len() < 30);
        }
        let exact = Trigger::Every { gap: seconds(12, 12), times: None };
        assert_eq!(exact.times_at_least(chaos), 4, "the fifth would be at the end itself");
        assert_eq!(expand(&exact, 1).len(), 4);
        let capped = Trigger::Every { gap: seconds(1, 2), times: Some(3) };
        assert_eq!(capped.times_at_least(chaos), 3);
        assert_eq!(expand(&capped, 1).len(), 3);
    }

    #[test]
    fn events_add_up() {
        let events =
            After { events: Span::fixed(Count::of(200)), of: EventKind::Acked, site: None };
        let trigger = Trigger::After { events, times: 3 };
        let fires = expand(&trigger, 1);
        let counts: Vec<u32> = fires
            .iter()
            .map(|fire| match fire {
                FixedTrigger::After(after) => after.events.get(),
                FixedTrigger::At(_) => 0,
            })
            .collect();
        assert_eq!(counts, [200, 400, 600]);
        assert_eq!(trigger.times_at_least(HumanDuration::from_millis(60_000)), 0);
    }
}
