//! Who is connected to what, and what is under way: machines, links, and the queue of segments.
//!
//! Time comes in as a number and wakers go out in a list, so nothing in here runs other code while
//! the lock is held.
//!
//! ```text
//! send ──► queue (by arrival time) ──arrive──► link cut? ──► parked ──healed──► queue, later
//!                                      │
//!                                      ├─────► machine without power? ──► parked ──boot──► queue
//!                                      │
//!                                      └─────► tcp.rs
//! ```
//!
//! A packet of a flow is not parked: where it does not get through it is lost, and its sender, who
//! has it still, notices in time.
//!
//! Invariants: a segment is in the queue or parked, never both, and leaves only by arriving or
//! because its sender lost power, or gave the connection up, before it could send it again, or, if it is
//! a packet, by being lost.

use super::ear::Ear;
use super::flow::{Flow, HEADER_BYTES};
use super::line::{Transmitter, Trunk};
use super::link::Link;
use super::meter::Meter;
use super::papers::Papers;
use super::tcp::{Body, End, EndId};
use crate::prng::Prng;
use crate::trace::{Kind, NoTrace, Record, TraceSink};
use madsim::task::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;

/// The port that is handed out first where a caller has no wish (RFC 6335, section 6).
const EPHEMERAL_PORT_FIRST: u16 = 49_152;

/// A directed link, by its ends.
pub type Way = (NodeId, NodeId);

/// What the network has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that were reset, counted at the end that was told.
    pub resets: u64,
    /// Segments with bytes that arrived.
    pub messages: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Segments that were lost and sent again.
    pub resent: u64,
    /// Packets that found the queue of their line full.
    pub dropped: u64,
}

/// A machine, as the network sees it.
pub struct Machine {
    /// Its number, for the trace.
    pub number: u64,
    /// Where it can be reached, apart from loopback.
    pub addresses: Vec<IpAddr>,
    /// Which life of its process this is. A handle of an earlier one is stale.
    pub epoch: u64,
    /// Whether it has power: without, it answers nothing.
    pub powered: bool,
    /// Which life of the machine this is: what it had not sent when it lost power is gone.
    pub power_epoch: u64,
    /// Whether the next end of the process is a power cut.
    pub cut_power_next: bool,
    next_port: u16,
}

/// A listening socket.
pub struct ListenerState {
    /// Connections that wait to be accepted.
    pub backlog: VecDeque<EndId>,
    /// Who waits for one.
    pub waker: Option<Waker>,
}

/// A segment under way.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The link that it takes.
    pub way: Way,
    /// The end that it goes to.
    pub to: EndId,
    /// Its place in its direction of the connection.
    pub seq: u64,
    /// What it says.
    pub body: Body,
    /// Whether it needs its sender to send it again.
    pub resent: bool,
    /// The life of the sending machine.
    pub power_epoch: u64,
    /// Whether it is a packet, which is lost where it does not get through.
    pub packet: bool,
    /// Which transmission it is, for what the other end acknowledges.
    pub transmission: u64,
    /// When it left its machine.
    pub left_ns: u64,
}

/// What happens at a time.
enum Due {
    Segment(Segment),
    /// A flow looks whether it has waited too long.
    Timer(EndId),
}

struct Queued {
    at_ns: u64,
    tie: u64,
    due: Due,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.tie == other.tie
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.tie).cmp(&(other.at_ns, other.tie))
    }
}

/// A segment that did not get through, and since when.
struct Parked {
    lost_ns: u64,
    segment: Segment,
}

/// Everything that the network knows.
pub struct State {
    pub(super) prng: Prng,
    pub(super) trace: Arc<dyn TraceSink>,
    /// Bytes of one direction that may be sent and not yet read.
    pub(super) window_bytes: u64,
    pub(super) default_link: Link,
    pub(super) links: BTreeMap<Way, Link>,
    /// Whether any link was ever a line: nothing is looked up for the others.
    pub(super) has_lines: bool,
    pub(super) cuts: BTreeMap<Way, u32>,
    pub(super) refusals: BTreeMap<Way, u32>,
    /// Connections that are held up, and until when.
    pub(super) stalls: BTreeMap<u64, u64>,
    /// Connections that a refusal has turned away.
    pub(super) turned_away: BTreeMap<Way, u64>,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) owners: BTreeMap<IpAddr, NodeId>,
    pub(super) papers: BTreeMap<NodeId, Papers>,
    /// Who listens to what sites say to each other.
    pub(super) ear: Option<Arc<dyn Ear>>,
    /// The ends that are listened to, each with a number.
    pub(super) overheard: BTreeMap<EndId, u64>,
    pub(super) listeners: BTreeMap<(NodeId, SocketAddr), ListenerState>,
    pub(super) ends: BTreeMap<EndId, End>,
    /// What crosses lines, by the end that sends; it may outlive its end.
    pub(super) flows: BTreeMap<EndId, Flow>,
    transmitters: BTreeMap<Trunk, Transmitter>,
    pub(super) meters: BTreeMap<Trunk, Meter>,
    /// When the last packet arrives: none overtakes another on its way.
    last_packet_ns: BTreeMap<Way, u64>,
    /// Ends that their machine has forgotten without telling anybody.
    pub(super) forgotten: BTreeSet<EndId>,
    /// Ends that are gone and send nothing again, whatever was lost.
    pub(super) severed: BTreeSet<EndId>,
    queue: BinaryHeap<Reverse<Queued>>,
    parked: BTreeMap<Way, Vec<Parked>>,
    next_tie: u64,
    pub(super) next_connection: u64,
    pub(super) wakes: Vec<Waker>,
    pub(super) pump: Option<Waker>,
    pub(super) stopped: bool,
    /// The time at which the pump will wake up by itself.
    pub(super) pump_at_ns: u64,
    pub(super) counts: NetCounts,
    /// What is given to connections to this port between any two of these machines is metered.
    pub(super) metered: Option<(u16, BTreeSet<NodeId>)>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            prng: Prng::new(seed, "net"),
            trace: Arc::new(NoTrace),
            window_bytes: 256 << 10,
            default_link: Link::default(),
            links: BTreeMap::new(),
            has_lines: false,
            cuts: BTreeMap::new(),
            refusals: BTreeMap::new(),
            stalls: BTreeMap::new(),
            turned_away: BTreeMap::new(),
            machines: BTreeMap::new(),
            owners: BTreeMap::new(),
            papers: BTreeMap::new(),
            ear: None,
            overheard: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ends: BTreeMap::new(),
            flows: BTreeMap::new(),
            transmitters: BTreeMap::new(),
            meters: BTreeMap::new(),
            last_packet_ns: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            severed: BTreeSet::new(),
            queue: BinaryHeap::new(),
            parked: BTreeMap::new(),
            next_tie: 0,
            next_connection: 1,
            wakes: Vec::new(),
            pump: None,
            stopped: false,
            pump_at_ns: u64::MAX,
            counts: NetCounts::default(),
            metered: None,
        }
    }

    pub(super) fn add_machine(&mut self, id: NodeId) {
        let number = id.to_string().parse().expect("a madsim node prints as its number");
        self.machines.entry(id).or_insert(Machine {
            number,
            addresses: Vec::new(),
            epoch: 0,
            powered: true,
            power_epoch: 0,
            cut_power_next: false,
            next_port: EPHEMERAL_PORT_FIRST,
        });
    }

    pub(super) fn machine(&mut self, id: NodeId) -> &mut Machine {
        self.machines.get_mut(&id).expect("madsim announces every node to its plugins")
    }

    /// The link from one machine to another.
    pub(super) fn link(&self, way: Way) -> Link {
        if way.0 == way.1 {
            return Link::LOOPBACK;
        }
        self.links.get(&way).copied().unwrap_or(self.default_link)
    }

    pub(super) fn is_cut(&self, way: Way) -> bool {
        way.0 != way.1 && self.cuts.contains_key(&way)
    }

    /// Whether a connection that somebody would accept is refused, which is counted.
    pub(super) fn turns_away(&mut self, way: Way) -> bool {
        let refused = self.refusals.contains_key(&way);
        if refused {
            *self.turned_away.entry(way).or_default() += 1;
        }
        refused
    }

    /// The machine at an address, as `from` sees it.
    pub(super) fn owner(&self, from: NodeId, address: IpAddr) -> Option<NodeId> {
        if address.is_loopback() { Some(from) } else { self.owners.get(&address).copied() }
    }

    /// A port that nothing listens on.
    pub(super) fn free_port(&mut self, id: NodeId) -> io::Result<u16> {
        for _ in EPHEMERAL_PORT_FIRST..=u16::MAX {
            let machine = self.machine(id);
            let port = machine.next_port;
            machine.next_port = port.checked_add(1).unwrap_or(EPHEMERAL_PORT_FIRST);
            let taken =
                |(node, address): &(NodeId, SocketAddr)| *node == id && address.port() == port;
            if !self.listeners.keys().any(taken) {
                return Ok(port);
            }
        }
        Err(io::Error::from(io::ErrorKind::AddrInUse))
    }

    /// Sends a segment, with its place in its direction, on its way.
    pub(super) fn send(&mut self, now_ns: u64, way: Way, to: EndId, (seq, body): (u64, Body)) {
        let link = self.link(way);
        let crossing = link.cross(&mut self.prng);
        let stalled_ns = self.stalled_ns(now_ns, to);
        let at_ns = now_ns.saturating_add(crossing.delay_ns).saturating_add(stalled_ns);
        let power_epoch = self.machine(way.0).power_epoch;
        self.counts.resent += u64::from(crossing.resent);
        let resent = crossing.resent || stalled_ns > 0;
        let segment = Segment {
            way,
            to,
            seq,
            body,
            resent,
            power_epoch,
            packet: false,
            transmission: 0,
            left_ns: now_ns.saturating_add(crossing.wait_ns).saturating_add(stalled_ns),
        };
        self.tell(now_ns, at_ns, &segment);
        self.enqueue(at_ns, Due::Segment(segment));
    }

    /// Holds up a connection until a time, or longer if it is already.
    pub(super) fn stall(&mut self, connection: u64, until_ns: u64) {
        let until = self.stalls.entry(connection).or_default();
        *until = until_ns.max(*until);
    }

    /// For how long what is sent to an end now is lost again and again.
    fn stalled_ns(&mut self, now_ns: u64, to: EndId) -> u64 {
        let until_ns = self.stalls.get(&to.connection).copied().unwrap_or(0);
        if until_ns <= now_ns {
            self.stalls.remove(&to.connection);
        }
        until_ns.saturating_sub(now_ns)
    }

    /// Counts what a writer gave to a connection to a port, if it is metered.
    pub(super) fn given(&mut self, now_ns: u64, way: Way, port: u16, bytes: u64) {
        let is_metered = self.metered.as_ref().is_some_and(|(metered, between)| {
            *metered == port && between.contains(&way.0) && between.contains(&way.1)
        });
        if is_metered && let Some(trunk) = self.link(way).trunk {
            self.meters.entry(trunk).or_default().given(now_ns, bytes);
        }
    }

    /// Counts what came out at the other end of a way.
    pub(super) fn delivered(&mut self, way: Way, bytes: u64) {
        if let Some(trunk) = self.link(way).trunk {
            self.meters.entry(trunk).or_default().crossed.delivered_bytes += bytes;
        }
    }

    /// Notes that a way was cut, or has healed.
    pub(super) fn cut_changed(&mut self, way: Way) {
        if let Some(trunk) = self.link(way).trunk {
            self.meters.entry(trunk).or_default().crossed.cut_changes += 1;
        }
    }

    /// Sends a packet, of which nothing is heard again if it is lost.
    pub(super) fn send_packet(
        &mut self,
        now_ns: u64,
        (way, to): (Way, EndId),
        (seq, transmission): (u64, u64),
        body: Body,
    ) {
        let link = self.link(way);
        let bytes = HEADER_BYTES + body.bytes().len() as u64;
        let left_ns = match (link.trunk, &link.line) {
            (Some(trunk), Some(line)) => {
                self.transmitters.entry(trunk).or_default().take(now_ns, line, bytes)
            }
            _ => Some(now_ns),
        };
        self.counts.dropped += u64::from(left_ns.is_none());
        let is_stalled = self.stalled_ns(now_ns, to) > 0;
        let left_ns = left_ns.filter(|_| !self.prng.chance(link.loss_ppm) && !is_stalled);
        let power_epoch = self.machine(way.0).power_epoch;
        let segment = Segment {
            way,
            to,
            seq,
            body,
            resent: false,
            power_epoch,
            packet: true,
            transmission,
            left_ns: now_ns,
        };
        let Some(left_ns) = left_ns else {
            self.tell(now_ns, u64::MAX, &segment);
            return;
        };
        let last_ns = self.last_packet_ns.entry(way).or_default();
        let at_ns = left_ns.saturating_add(link.transit_ns(&mut self.prng)).max(*last_ns);
        *last_ns = at_ns;
        self.tell(now_ns, at_ns, &segment);
        self.enqueue(at_ns, Due::Segment(segment));
    }

    /// Has a flow look again at a time.
    pub(super) fn set_timer(&mut self, at_ns: u64, id: EndId) {
        self.enqueue(at_ns, Due::Timer(id));
    }

    /// Tells the trace that a segment goes on its way, and when it arrives; at the end of time if it is
    /// a packet that never does.
    fn tell(&mut self, now_ns: u64, at_ns: u64, segment: &Segment) {
        let machine = self.machine(segment.way.0).number;
        let body = &segment.body;
        self.trace.record(&Record {
            kind: if matches!(body, Body::Data(_)) { Kind::Message } else { Kind::Control },
            machine,
            at_ns: now_ns,
            place: at_ns,
            detail: segment.to.connection << 8 | body.code(),
            bytes: body.bytes(),
        });
    }

    fn enqueue(&mut self, at_ns: u64, due: Due) {
        self.queue.push(Reverse(Queued { at_ns, tie: self.next_tie, due }));
        self.next_tie += 1;
    }

    /// The next arrival, for the pump.
    pub(super) fn next_arrival_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(queued)| queued.at_ns)
    }

    /// Lets everything arrive whose time has come.
    pub(super) fn deliver(&mut self, now_ns: u64) {
        while self.next_arrival_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            match self.queue.pop().map(|Reverse(queued)| queued.due) {
                Some(Due::Segment(segment)) => self.reach(now_ns, segment),
                Some(Due::Timer(id)) => self.flow_timer(now_ns, id),
                None => {}
            }
        }
    }

    /// A segment reaches the end of its link, if it gets through.
    fn reach(&mut self, now_ns: u64, segment: Segment) {
        // What a machine had to send again when it lost power, or when its process gave the connection
        // up, it never sends.
        let has_power = self.machine(segment.way.0).power_epoch == segment.power_epoch;
        let is_kept = has_power && !self.severed.contains(&segment.to.other());
        if segment.resent && !is_kept {
            return;
        }
        if self.is_cut(segment.way) || !self.machine(segment.way.1).powered {
            // A reset is not sent again; whoever still sends is answered with another one.
            if !matches!(segment.body, Body::Reset) && !segment.packet && is_kept {
                let parked = self.parked.entry(segment.way).or_default();
                let segment = Segment { resent: true, ..segment };
                parked.push(Parked { lost_ns: now_ns, segment });
            }
            return;
        }
        self.arrive(now_ns, segment);
    }

    /// Sends again what did not get through on a link, if it would now.
    pub(super) fn resend_parked(&mut self, now_ns: u64, way: Way) {
        if self.is_cut(way) || !self.machine(way.1).powered {
            return;
        }
        let link = self.link(way);
        // One timer per connection and direction: what was lost behind the first goes with it.
        let mut resend_at: BTreeMap<EndId, u64> = BTreeMap::new();
        for Parked { lost_ns, segment } in self.parked.remove(&way).unwrap_or_default() {
            let is_severed = self.severed.contains(&segment.to.other());
            if self.machine(way.0).power_epoch != segment.power_epoch || is_severed {
                continue;
            }
            let prng = &mut self.prng;
            let sent_ns = *resend_at
                .entry(segment.to)
                .or_insert_with(|| link.resend_at_ns(prng, lost_ns, now_ns));
            let at_ns = sent_ns.saturating_add(link.transit_ns(&mut self.prng));
            self.counts.resent += 1;
            let segment = Segment { left_ns: sent_ns, ..segment };
            self.tell(now_ns, at_ns, &segment);
            self.enqueue(at_ns, Due::Segment(segment));
        }
    }

    /// Sends again whatever waits for a machine that has power now.
    pub(super) fn resend_to(&mut self, now_ns: u64, id: NodeId) {
        let ways: Vec<Way> = self.parked.keys().copied().filter(|way| way.1 == id).collect();
        for way in ways {
            self.resend_parked(now_ns, way);
        }
    }
}
