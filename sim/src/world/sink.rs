//! Where the events of all machines arrive: checks, counters, the trace, and whoever waits for a
//! number of events.
//!
//! What must survive a crash of a node is remembered here, outside the node: its last appended
//! entry, whether it led, what it had applied.
//!
//! Invariant: nothing here draws a random number, and nothing that a node does depends on it.

use super::resuming::Resuming;
use crate::check::{Checks, Harm, Observation, SiteNode, Violation};
use crate::disk::Trouble;
use crate::epochs::EpochLog;
use crate::machine::MachineSink;
use crate::report::{Canaries, LineUse};
use crate::scenario::{EventKind, SiteName};
use crate::trace::{Kind, Record, TraceHash, TraceSink};
use fulmar_types::{Event, ExitCode, LogPosition, NodeId, Probe, Role, Term};
use madsim::task::NodeId as Machine;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What is known of one node from its events.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeView {
    /// The last entry that it appended.
    pub appended: Option<LogPosition>,
    /// The last entry that it applied.
    pub applied: Option<LogPosition>,
    /// The hash of its state after that entry; `None` right after a snapshot was installed.
    pub state: Option<u128>,
    /// Whether its last role was leader, and of which term.
    pub leads: Option<Term>,
    /// Its disk was emptied, and it has no vote yet.
    pub rejoins: bool,
    /// It ended while it led, and has not come back yet.
    died_leading: bool,
}

/// A process that ended by itself.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The machine.
    pub machine: Machine,
    /// Why.
    pub code: ExitCode,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<Machine, SiteNode>,
    /// The names of the sites, by number.
    names: BTreeMap<u16, SiteName>,
    views: BTreeMap<SiteNode, NodeView>,
    checks: Checks,
    probes: BTreeMap<&'static str, u64>,
    resuming: Resuming,
    faults: BTreeMap<&'static str, u64>,
    stops: BTreeMap<String, u64>,
    counted: BTreeMap<(EventKind, u16), u64>,
    leaders: BTreeMap<u16, (Term, NodeId)>,
    /// The latest term of each site that has a leader, by the votes too: the leader itself reports a
    /// moment later.
    elected: BTreeMap<u16, Term>,
    leader_changes: BTreeMap<u16, u64>,
    lines: BTreeMap<String, LineUse>,
    canaries: Option<Canaries>,
    /// Who owns which pipeline, with his number.
    owners: BTreeMap<(u16, String), (u64, Option<NodeId>)>,
    /// Links that say that their site was put back.
    stopped_links: BTreeSet<(u16, String)>,
    /// What the harness compared, by the name of the check.
    compared: BTreeMap<&'static str, u64>,
    exits: VecDeque<Exit>,
    text: Option<String>,
    harness_error: Option<String>,
}

/// Everything that the harness learns.
pub struct Sink {
    state: Mutex<State>,
    trace: Arc<TraceHash>,
    counted: Notify,
    exited: Notify,
}

impl Sink {
    /// A sink that feeds this trace; it writes every event as text too, if asked to.
    pub fn new(trace: Arc<TraceHash>, with_text: bool) -> Self {
        let state = State { text: with_text.then(String::new), ..State::default() };
        Self { state: Mutex::new(state), trace, counted: Notify::new(), exited: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what led to it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what a site is called.
    pub fn name(&self, site: u16, name: SiteName) {
        self.state().names.insert(site, name);
    }

    /// Says which node runs on a machine.
    pub fn introduce(&self, machine: Machine, node: SiteNode) {
        self.state().nodes.insert(machine, node);
    }

    /// What is known of a node.
    pub fn view(&self, node: SiteNode) -> NodeView {
        self.state().views.get(&node).copied().unwrap_or_default()
    }

    /// The node that became leader last, in the highest term, if it still says that it leads.
    pub fn leader(&self, site: u16) -> Option<NodeId> {
        let state = self.state();
        let (term, node) = *state.leaders.get(&site)?;
        let view = state.views.get(&SiteNode { site, node })?;
        (view.leads == Some(term)).then_some(node)
    }

    /// A node was killed by the harness.
    pub fn killed(&self, node: SiteNode) {
        let mut state = self.state();
        let view = state.views.entry(node).or_default();
        view.died_leading |= view.leads.is_some();
        view.leads = None;
    }

    /// The disk of a node was emptied.
    pub fn wiped(&self, node: SiteNode) {
        let mut state = self.state();
        state.views.insert(node, NodeView { rejoins: true, ..NodeView::default() });
        state.checks.wiped(node);
    }

    /// A site was put back to an older copy of itself: nothing that it promised since holds.
    pub fn put_back(&self, site: u16) {
        let mut state = self.state();
        state.views.retain(|node, _| node.site != site);
        state.leaders.remove(&site);
        state.elected.remove(&site);
        state.checks.put_back(site);
        state.resuming.put_back(site);
    }

    /// How often a site was put back to an older copy of itself.
    pub fn put_back_times(&self, site: u16) -> u16 {
        self.state().checks.put_back_times(site)
    }

    /// A link of a site that says that the site was put back.
    pub fn stopped_link(&self, site: u16) -> Option<String> {
        let state = self.state();
        let first = state.stopped_links.range((site, String::new())..).next();
        first.filter(|(at, _)| *at == site).map(|(_, link)| link.clone())
    }

    /// Somebody has resumed it.
    pub fn resumed_link(&self, site: u16, link: &str) {
        self.state().stopped_links.remove(&(site, link.to_owned()));
    }

    /// Something was done to the disk of a node.
    pub fn harmed(&self, node: SiteNode, harm: Harm) {
        self.state().checks.harmed(node, harm);
    }

    /// Counts an event for the triggers.
    pub fn count(&self, kind: EventKind, site: u16, by: u64) {
        *self.state().counted.entry((kind, site)).or_default() += by;
        self.counted.notify_waiters();
    }

    /// How often an event has happened, at one site or everywhere.
    pub fn counted(&self, kind: EventKind, site: Option<u16>) -> u64 {
        let state = self.state();
        let of_kind = state
            .counted
            .iter()
            .filter(|((counted, at), _)| *counted == kind && site.is_none_or(|site| site == *at));
        of_kind.map(|(_, count)| count).sum()
    }

    /// The node that owns the first pipeline of a site, by name, if one does.
    pub fn owner(&self, site: u16) -> Option<NodeId> {
        let state = self.state();
        let first = state.owners.range((site, String::new())..).next();
        first.filter(|((at, _), _)| *at == site).and_then(|(_, (_, owner))| *owner)
    }

    /// The epochs that a site has committed for a pipeline.
    pub fn epochs(&self, site: u16, pipeline: &str) -> EpochLog {
        self.state().checks.epochs(site, pipeline).cloned().unwrap_or_default()
    }

    /// Waits until an event has happened this often.
    pub async fn wait_counted(&self, kind: EventKind, site: Option<u16>, count: u64) {
        loop {
            let changed = self.counted.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.counted(kind, site) >= count {
                return;
            }
            changed.await;
        }
    }

    /// Notes that a fault took effect.
    pub fn fault(&self, kind: &'static str, at_ns: u64, what: &str) {
        let mut state = self.state();
        *state.faults.entry(kind).or_default() += 1;
        if let Some(text) = &mut state.text {
            let _ = writeln!(text, "[{} harness] fault {kind}: {what}", Stamp(at_ns));
        }
        drop(state);
        let record = Record {
            kind: Kind::Fault,
            machine: 0,
            at_ns,
            place: 0,
            detail: 0,
            bytes: kind.as_bytes(),
        };
        self.trace.record(&record);
    }

    /// How many faults took effect.
    pub fn faults(&self) -> u64 {
        self.state().faults.values().sum()
    }

    /// Notes that a rare state was reached, seen by the harness and not by a node.
    pub fn probe(&self, probe: Probe) {
        *self.state().probes.entry(probe.name()).or_default() += 1;
    }

    /// Notes how much the harness compared for a check of its own.
    pub fn compared(&self, check: &'static str, count: u64) {
        *self.state().compared.entry(check).or_default() += count;
    }

    /// Notes how much of the line from one site to another was used.
    pub fn line_used(&self, (from, to): (&SiteName, &SiteName), used: LineUse) {
        self.state().lines.insert(format!("{from} to {to}"), used);
    }

    /// Notes what was at stake where a rule withholds something.
    pub fn canaries(&self, canaries: Option<Canaries>) {
        self.state().canaries = canaries;
    }

    /// How much of the line from one site to another was used.
    pub fn line_use(&self, (from, to): (&SiteName, &SiteName)) -> LineUse {
        self.state().lines.get(&format!("{from} to {to}")).copied().unwrap_or_default()
    }

    /// Writes a line into the text of the trace, if there is one.
    pub fn say(&self, at_ns: u64, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.state().text {
            let _ = writeln!(text, "[{} harness] {}", Stamp(at_ns), line());
        }
    }

    /// The next process that ended by itself.
    pub async fn next_exit(&self) -> Exit {
        loop {
            let exited = self.exited.notified();
            let mut exited = std::pin::pin!(exited);
            exited.as_mut().enable();
            if let Some(exit) = self.state().exits.pop_front() {
                return exit;
            }
            exited.await;
        }
    }

    /// The first violation that a check found.
    pub fn violation(&self) -> Option<Violation> {
        let state = self.state();
        let mut seen = state.checks.violation().cloned()?;
        // Checks know the sites by their numbers. The greatest first: 1 is the beginning of 10.
        for (number, name) in state.names.iter().rev() {
            seen.text = seen.text.replace(&format!("of site {number}"), &format!("of {name}"));
        }
        Some(seen)
    }

    /// The harness cannot go on.
    pub fn fail(&self, why: String) {
        self.state().harness_error.get_or_insert(why);
    }

    /// Why the harness could not go on.
    pub fn failure(&self) -> Option<String> {
        self.state().harness_error.clone()
    }

    /// Moves what was counted into a report.
    pub fn fill(&self, report: &mut crate::report::RunReport) {
        let mut state = self.state();
        let owned = |map: &BTreeMap<&'static str, u64>| {
            map.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        report.faults = owned(&state.faults);
        report.probes = owned(&state.probes);
        report.exits = std::mem::take(&mut state.stops);
        report.lines = std::mem::take(&mut state.lines);
        report.canaries = state.canaries;
        report.leader_changes = state.leader_changes.values().sum();
        report.compared = state
            .checks
            .compared()
            .into_iter()
            .chain(state.compared.iter().map(|(name, count)| (*name, *count)))
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        report.trace_hash = self.trace.digest().to_string();
        report.trace_events = self.trace.records();
    }

    /// How often a site changed its leader.
    pub fn leader_changes(&self, site: u16) -> u64 {
        self.state().leader_changes.get(&site).copied().unwrap_or(0)
    }

    /// The text of the trace.
    pub fn take_text(&self) -> Option<String> {
        self.state().text.take()
    }
}

/// A virtual time for people.
struct Stamp(u64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>4}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl State {
    fn follow(&mut self, at: SiteNode, event: &Event) {
        let view = self.views.entry(at).or_default();
        match event {
            Event::Appended { position, .. } => view.appended = Some(*position),
            Event::Applied { position, state, .. } => {
                view.applied = Some(*position);
                view.state = Some(*state);
            }
            Event::SnapshotInstalled { last, .. } => {
                view.applied = Some(*last);
                view.state = None;
            }
            Event::RoleChanged { role: Role::Leader, term, .. } => {
                view.leads = Some(*term);
                self.new_leader(at, *term);
                self.elected(at.site, *term);
            }
            Event::VoteSaved { term, committed: true, .. } => self.elected(at.site, *term),
            // Without a later leader it may only have lost its quorum for a while.
            Event::ReadRefused { term } if self.elected.get(&at.site) > Some(term) => {
                self.hit(Probe::DeposedLeaderRefusedRead);
            }
            Event::RoleChanged { .. } => view.leads = None,
            Event::Recovered { last, .. } => {
                let lost = view.appended.is_some_and(|appended| *last < Some(appended));
                let led = std::mem::take(&mut view.died_leading);
                view.appended = *last;
                if lost && led {
                    self.hit(Probe::LeaderUnflushedTailLost);
                }
            }
            Event::PipelineOwned { pipeline, owner, fence } => {
                let known = self.owners.entry((at.site, pipeline.clone())).or_default();
                if *fence >= known.0 {
                    *known = (*fence, *owner);
                }
            }
            Event::Rejoined if std::mem::take(&mut view.rejoins) => {
                self.hit(Probe::WipedNodeVotesAgain)
            }
            Event::Probe(probe) => self.hit(*probe),
            _ => {}
        }
        if let Some(probe) = self.resuming.observe(at, event) {
            self.hit(probe);
        }
    }

    fn hit(&mut self, probe: Probe) {
        *self.probes.entry(probe.name()).or_default() += 1;
    }

    fn elected(&mut self, site: u16, term: Term) {
        let latest = self.elected.entry(site).or_insert(term);
        *latest = (*latest).max(term);
    }

    fn new_leader(&mut self, at: SiteNode, term: Term) {
        let before = self.leaders.get(&at.site).copied();
        if before.is_none_or(|(known, _)| term > known) {
            self.leaders.insert(at.site, (term, at.node));
            if before.is_some_and(|(_, node)| node != at.node) {
                *self.leader_changes.entry(at.site).or_default() += 1;
            }
        }
    }
}

/// The event that triggers count this one as, if they do.
fn trigger_kind(event: &Event) -> Option<EventKind> {
    match event {
        Event::Flushed { .. } => Some(EventKind::Flushes),
        Event::RoleChanged { role: Role::Leader, .. } => Some(EventKind::Elections),
        Event::SegmentSealed { .. } => Some(EventKind::Seals),
        Event::SnapshotSaved { .. } => Some(EventKind::Snapshots),
        Event::SegmentReceived { .. } => Some(EventKind::Shipped),
        _ => None,
    }
}

impl MachineSink for Sink {
    fn observed(&self, machine: Machine, at_ns: u64, event: &Event) {
        let mut state = self.state();
        let Some(at) = state.nodes.get(&machine).copied() else { return };
        if let Event::Applied { position, state: hash, .. } = event {
            let number = u64::from(at.site) << 32 | at.node.get();
            self.trace.state(number, at_ns, position.index.get(), *hash);
        }
        tracing::debug!("{} {at}: {event:?}", Stamp(at_ns));
        if let Some(text) = &mut state.text {
            let _ = writeln!(text, "[{} s{} n{}] {event:?}", Stamp(at_ns), at.site, at.node);
        }
        state.follow(at, event);
        if let Event::SitePutBack { link } = event {
            state.stopped_links.insert((at.site, link.clone()));
        }
        state.checks.observe(&Observation { at, time_ns: at_ns, event });
        drop(state);
        if let Some(kind) = trigger_kind(event) {
            self.count(kind, at.site, 1);
        }
    }

    fn troubled(&self, machine: Machine, trouble: Trouble) {
        let mut state = self.state();
        let Some(at) = state.nodes.get(&machine).copied() else { return };
        let met =
            [(trouble.read_failed, Harm::ReadError), (trouble.flush_failed, Harm::FlushError)];
        for (_, harm) in met.into_iter().filter(|(met, _)| *met) {
            state.checks.harmed(at, harm);
        }
    }

    fn exited(&self, machine: Machine, at_ns: u64, code: ExitCode, message: &str) {
        let mut state = self.state();
        let Some(at) = state.nodes.get(&machine).copied() else { return };
        *state.stops.entry(format!("{code:?}")).or_default() += 1;
        if let Some(text) = &mut state.text {
            let line = message.replace('\n', " ");
            let _ = writeln!(
                text,
                "[{} s{} n{}] exit {code:?}: {line}",
                Stamp(at_ns),
                at.site,
                at.node
            );
        }
        state.exits.push_back(Exit { machine, code });
        drop(state);
        self.exited.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::simulate;
    use fulmar_types::LogIndex;

    #[test]
    fn a_lost_tail_of_a_leader_is_counted_once() {
        simulate(1, |world| async move {
            let sink = Sink::new(Arc::default(), false);
            let (machine, at) = (world.machine(1), SiteNode { site: 0, node: NodeId(1) });
            let at_index = |index| LogPosition { term: Term(1), index: LogIndex(index) };
            let lost = || sink.state().probes.get(Probe::LeaderUnflushedTailLost.name()).copied();
            sink.introduce(machine, at);
            let leads = Event::RoleChanged { role: Role::Leader, term: Term(1), leader: None };
            let recovered = |index| Event::Recovered {
                last: Some(at_index(index)),
                snapshot: None,
                cut_bytes: 100,
            };
            sink.observed(machine, 1, &Event::Appended { position: at_index(5), content: 0 });
            sink.observed(machine, 2, &leads);
            sink.killed(at);
            sink.observed(machine, 3, &recovered(5));
            assert_eq!(lost(), None, "nothing is lost");
            sink.observed(machine, 4, &leads);
            sink.killed(at);
            sink.observed(machine, 5, &recovered(3));
            assert_eq!(lost(), Some(1));
            sink.killed(at);
            sink.observed(machine, 6, &recovered(2));
            assert_eq!(lost(), Some(1), "it did not lead");
            0
        });
    }

    #[test]
    fn a_refused_read_counts_once_a_later_term_has_a_leader() {
        simulate(1, |world| async move {
            let sink = Sink::new(Arc::default(), false);
            let (first, second) = (world.machine(1), world.machine(2));
            sink.introduce(first, SiteNode { site: 0, node: NodeId(1) });
            sink.introduce(second, SiteNode { site: 0, node: NodeId(2) });
            let leads = |term| Event::RoleChanged { role: Role::Leader, term, leader: None };
            let refused = Event::ReadRefused { term: Term(1) };
            let counted =
                || sink.state().probes.get(Probe::DeposedLeaderRefusedRead.name()).copied();
            sink.observed(first, 1, &leads(Term(1)));
            sink.observed(first, 2, &refused);
            assert_eq!(counted(), None, "it has lost its quorum, and nobody else leads");
            let vote =
                |committed| Event::VoteSaved { term: Term(2), voted_for: NodeId(2), committed };
            sink.observed(second, 3, &vote(false));
            sink.observed(first, 4, &refused);
            assert_eq!(counted(), None, "a candidate is no leader");
            sink.observed(second, 5, &vote(true));
            sink.observed(first, 6, &refused);
            sink.observed(second, 7, &leads(Term(2)));
            sink.observed(first, 8, &refused);
            sink.observed(second, 9, &Event::ReadRefused { term: Term(2) });
            assert_eq!(counted(), Some(2));
            0
        });
    }
}
