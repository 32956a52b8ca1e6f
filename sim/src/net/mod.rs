//! The simulated network: a plugin of the simulator.
//!
//! Machines have addresses; between two of them lie two directed [`Link`]s. A connection behaves
//! as TCP does: bytes stay in order, a lost segment is sent again while all behind it wait, a
//! direction holds a bounded number of bytes, and what is under way when a link is cut arrives
//! after it has healed and the sender has tried again. Nothing vanishes from a connection that
//! does not break.
//!
//! A link that is limited in what it carries is a *line*: a connection over it is cut into packets, which
//! queue for one transmitter and may be lost, under a congestion window of its own (`flow.rs`,
//! `congestion.rs`, `packets.rs`). A link without a limit carries what is written as it is written, at
//! no cost beyond its latency. A connection that was once on a line stays in packets.
//!
//! | what happens | what the other side sees |
//! |---|---|
//! | a process ends | its operating system closes: end of stream, or a reset if bytes were unread |
//! | a machine loses power | nothing, until it is up again and answers with a reset |
//! | a link is cut | nothing; `connect` hangs; bytes wait |
//! | a connection is held up | nothing of it, while others go on; bytes wait |
//! | a machine forgets a connection | nothing, until it sends and is answered with a reset |
//! | a process gives up a connection that ends abruptly, or dies | a reset; what had not left, or was lost, never comes |
//!
//! Invariants: every handle belongs to one life of one machine, and is dead after it. All random
//! numbers come from one stream of the network's own. `reset_node` uses only what is in here:
//! asking the simulator for a plugin there would wait for ever for a lock that is held.
//!
//! Arrivals are made by the pump, a task of the harness, which survives every machine.

mod congestion;
mod ear;
mod ending;
mod flow;
mod line;
mod link;
mod meter;
mod opening;
mod packets;
mod papers;
mod socket;
mod state;
mod tcp;

#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod tests;

pub use ear::Ear;
pub use line::{Line, Trunk};
pub use link::Link;
pub use meter::Crossed;
pub use papers::{Papers, SimLinks};
pub use socket::SimNetwork;
pub use state::NetCounts;

use crate::prng::Prng;
use crate::trace::TraceSink;
use madsim::rand::{GlobalRng, RngCore};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use madsim::{Config, plugin};
use state::State;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// What the plugin, its sockets and the pump share.
pub(crate) struct Shared {
    time: TimeHandle,
    state: Mutex<State>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.time.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    /// Looks at or changes the network, then wakes whoever has to know.
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state, self.now_ns());
        let mut wakes = std::mem::take(&mut state.wakes);
        if state.next_arrival_ns().is_some_and(|at_ns| at_ns < state.pump_at_ns) {
            wakes.extend(state.pump.take());
        }
        // A woken or dropped waker may run other code, which may come back here.
        drop(state);
        for waker in wakes {
            waker.wake();
        }
        result
    }
}

/// The network of the simulation.
pub struct NetSim {
    shared: Arc<Shared>,
}

impl plugin::Simulator for NetSim {
    fn new(rand: &GlobalRng, time: &TimeHandle, _: &Config) -> Self {
        let state = Mutex::new(State::new(rand.clone().next_u64()));
        Self { shared: Arc::new(Shared { time: time.clone(), state }) }
    }

    fn create_node(&self, id: NodeId) {
        self.shared.with(|state, _| state.add_machine(id));
    }

    fn reset_node(&self, id: NodeId) {
        self.shared.with(|state, now_ns| {
            if std::mem::take(&mut state.machine(id).cut_power_next) {
                state.power_lost(id);
            } else {
                state.process_died(now_ns, id);
            }
        });
    }
}

impl NetSim {
    /// Draws from this seed from now on, and reports to this trace.
    pub fn prepare(&self, seed: u64, trace: Arc<dyn TraceSink>) {
        self.shared.with(|state, _| {
            state.prng = Prng::new(seed, "net");
            state.trace = trace;
        });
    }

    /// Starts the task that lets segments arrive. To be called once, by the harness.
    ///
    /// # Panics
    /// If called on a machine: it would die with it.
    pub fn start(&self) {
        self.shared.with(|state, _| {
            let machine = state.machine(plugin::node());
            assert_eq!(machine.number, 0, "the pump belongs to the harness");
        });
        drop(madsim::task::spawn(Pump::new(Arc::clone(&self.shared))));
    }

    /// Ends the pump; nothing arrives any more.
    pub(crate) fn stop(&self) {
        self.shared.with(|state, _| {
            state.stopped = true;
            state.wakes.extend(state.pump.take());
        });
    }

    /// Gives a machine an address.
    ///
    /// # Panics
    /// If another machine has it.
    pub fn attach(&self, machine: NodeId, address: IpAddr) {
        self.shared.with(|state, _| {
            let before = state.owners.insert(address, machine);
            assert!(before.is_none_or(|owner| owner == machine), "{address} is taken");
            let addresses = &mut state.machine(machine).addresses;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        });
    }

    /// Gives a machine what it proves itself with between sites.
    pub fn give_papers(&self, machine: NodeId, papers: Papers) {
        self.shared.with(|state, _| state.papers.insert(machine, papers));
    }

    /// Has somebody listen to what sites say to each other, on connections that begin from now on.
    pub fn overhear(&self, ear: Arc<dyn Ear>) {
        self.shared.with(|state, _| state.ear = Some(ear));
    }

    /// The machine with this address.
    pub fn machine_at(&self, address: IpAddr) -> Option<NodeId> {
        self.shared.with(|state, _| state.owners.get(&address).copied())
    }

    /// The network for a process that starts on a machine. Powers the machine on if it was off.
    pub fn boot(&self, machine: NodeId) -> SimNetwork {
        self.power_on(machine);
        let epoch = self.shared.with(|state, _| state.machine(machine).epoch);
        SimNetwork { shared: Arc::clone(&self.shared), machine, epoch }
    }

    /// Powers a machine on, without a process: it refuses connections from now on.
    pub fn power_on(&self, machine: NodeId) {
        self.shared.with(|state, now_ns| {
            if !std::mem::replace(&mut state.machine(machine).powered, true) {
                state.resend_to(now_ns, machine);
            }
        });
    }

    /// Says that the next `kill` of a machine is a power cut, and not the end of its process.
    pub fn will_power_cut(&self, machine: NodeId) {
        self.shared.with(|state, _| state.machine(machine).cut_power_next = true);
    }

    /// The process of a machine ended by itself; its handles are dead at once.
    pub fn process_died(&self, machine: NodeId) {
        self.shared.with(|state, now_ns| state.process_died(now_ns, machine));
    }

    /// How many bytes of one direction may be sent and not yet read.
    pub fn set_window_bytes(&self, window_bytes: u64) {
        self.shared.with(|state, _| state.window_bytes = window_bytes.max(1));
    }

    /// The link between two machines for which none was set.
    pub fn set_default_link(&self, link: Link) {
        self.shared.with(|state, _| {
            state.has_lines |= link.line.is_some();
            state.default_link = link;
        });
    }

    /// Replaces a directed link. What is under way keeps its time.
    pub fn set_link(&self, from: NodeId, to: NodeId, link: Link) {
        self.shared.with(|state, _| {
            state.has_lines |= link.line.is_some();
            state.links.insert((from, to), link);
        });
    }

    /// The directed link from one machine to another.
    pub fn link(&self, from: NodeId, to: NodeId) -> Link {
        self.shared.with(|state, _| state.link((from, to)))
    }

    /// Cuts a directed link. Cuts are counted: it passes again after as many [`NetSim::heal`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.shared.with(|state, _| {
            *state.cuts.entry((from, to)).or_default() += 1;
            state.cut_changed((from, to));
        });
    }

    /// Takes one cut of a directed link back.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.shared.with(|state, now_ns| {
            let way = (from, to);
            if let Some(cuts) = state.cuts.get_mut(&way) {
                *cuts -= 1;
                if *cuts == 0 {
                    state.cuts.remove(&way);
                    state.cut_changed(way);
                    state.resend_parked(now_ns, way);
                }
            }
        });
    }

    /// Whether nothing passes from one machine to another.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.shared.with(|state, _| state.is_cut((from, to)))
    }

    /// Refuses new connections from one machine to another; open ones go on. Counted, like cuts.
    pub fn refuse(&self, from: NodeId, to: NodeId) {
        self.shared.with(|state, _| *state.refusals.entry((from, to)).or_default() += 1);
    }

    /// Takes one refusal back.
    pub fn allow(&self, from: NodeId, to: NodeId) {
        self.shared.with(|state, _| {
            if let Some(refusals) = state.refusals.get_mut(&(from, to)) {
                *refusals -= 1;
                if *refusals == 0 {
                    state.refusals.remove(&(from, to));
                }
            }
        });
    }

    /// How many connections from one machine to another [`NetSim::refuse`] has turned away so far.
    pub fn turned_away(&self, from: NodeId, to: NodeId) -> u64 {
        self.shared.with(|state, _| state.turned_away.get(&(from, to)).copied().unwrap_or(0))
    }

    /// Takes back every cut, every refusal, and whatever holds up a connection. Links keep their latency and loss.
    pub fn heal_all(&self) {
        self.shared.with(|state, now_ns| {
            state.refusals.clear();
            state.stalls.clear();
            for way in std::mem::take(&mut state.cuts).into_keys() {
                state.cut_changed(way);
                state.resend_parked(now_ns, way);
            }
        });
    }

    /// Resets every connection between two machines. Returns the number of ends that broke.
    pub fn reset(&self, one: NodeId, other: NodeId) -> usize {
        self.shared.with(|state, _| state.reset_between(one, other))
    }

    /// Resets one connection of those between any two of these machines. Returns the number of ends
    /// that broke.
    pub fn reset_one(&self, between: &[(NodeId, NodeId)]) -> usize {
        self.shared.with(|state, _| state.reset_one_between(between))
    }

    /// Holds up one connection of those between any two of these machines for some time. Returns which.
    pub fn stall_one(&self, between: &[(NodeId, NodeId)], lasts: Duration) -> Option<u64> {
        let lasts_ns = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        self.shared.with(|state, now_ns| {
            let connection = state.pick_between(between)?;
            state.stall(connection, now_ns.saturating_add(lasts_ns));
            Some(connection)
        })
    }

    /// Counts from now on what is given to connections between any two of these machines that one of them
    /// listens for on a port.
    pub fn meter(&self, port: u16, between: BTreeSet<NodeId>) {
        self.shared.with(|state, _| state.metered = Some((port, between)));
    }

    /// Lets a machine forget its connections to a peer, which is not told and learns of it only
    /// when it sends. Returns how many there were.
    pub fn forget(&self, machine: NodeId, peer: NodeId) -> usize {
        self.shared.with(|state, _| state.forget(machine, peer))
    }

    /// What has crossed the links with a number so far, in their direction.
    pub fn crossed(&self, trunk: Trunk) -> Crossed {
        let crossed = |state: &mut State, _| state.meters.get(&trunk).map(|meter| meter.crossed);
        self.shared.with(crossed).unwrap_or_default()
    }

    /// What the network has seen so far.
    pub fn counts(&self) -> NetCounts {
        self.shared.with(|state, _| state.counts)
    }

    /// The next number of the network's stream, which stays where it is: for the trace.
    pub fn generator_position(&self) -> u64 {
        self.shared.with(|state, _| state.prng.clone().next_u64())
    }
}

/// Lets segments arrive when their time has come.
struct Pump {
    shared: Arc<Shared>,
    sleep: Pin<Box<madsim::time::Sleep>>,
    /// The time for which a timer is set already.
    set_for_ns: u64,
}

impl Pump {
    fn new(shared: Arc<Shared>) -> Self {
        let sleep = Box::pin(shared.time.sleep(Duration::ZERO));
        Self { shared, sleep, set_for_ns: u64::MAX }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (stopped, now_ns, next_ns) = self.shared.with(|state, now_ns| {
            state.deliver(now_ns);
            let next_ns = state.next_arrival_ns().unwrap_or(u64::MAX);
            state.pump_at_ns = next_ns;
            state.pump = Some(cx.waker().clone());
            (state.stopped, now_ns, next_ns)
        });
        if stopped {
            // The network would keep this task alive by its waker, and this task the network.
            drop(self.shared.with(|state, _| state.pump.take()));
            return Poll::Ready(());
        }
        // Every poll of the timer sets another wake-up, so it is polled once for each time.
        if next_ns != u64::MAX && next_ns != self.set_for_ns {
            self.set_for_ns = next_ns;
            let deadline = self.shared.time.now_instant() + Duration::from_nanos(next_ns - now_ns);
            self.sleep.as_mut().reset(deadline);
            if self.sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
