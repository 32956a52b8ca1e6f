//! The machines of a simulation: each a madsim node with sockets, files, a wall clock and a
//! process, which together make the [`Host`] of the node that runs on it.
//!
//! ```text
//! harness ── boot ──► Host ──► the node (the same function as in `main`)
//!    │                  │
//!    │                  ├─ events ──► MachineSink, with machine and virtual time
//!    │                  └─ exit ────► sockets and files dead at once, MachineSink told
//!    └─ crash, power_cut ──► plugins told which one it is, then madsim kills the tasks
//! ```
//!
//! Invariants: a `Host` belongs to one life of its machine; whatever an earlier life still reports
//! is dropped, so a process that has ended says nothing any more. Between the end of one life and
//! the next boot at least a millisecond should pass, in which madsim drops the old tasks.
//!
//! Never: kill or restart a machine past [`Machines`]; madsim alone does not tell the plugins enough.

use crate::clock::Clocks;
use crate::disk::{DiskSim, Trouble};
use crate::net::{Ear, NetSim, Papers, SimLinks};
use crate::trace::TraceSink;
use fulmar_host::process::Process;
use fulmar_host::time::{self, Duration};
use fulmar_host::{Host, Observer};
use fulmar_types::{Event, ExitCode};
use madsim::plugin;
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Who listens to all machines.
pub trait MachineSink: Send + Sync {
    /// A node reported an event. Times are nanoseconds since the simulation began.
    fn observed(&self, machine: NodeId, at_ns: u64, event: &Event);

    /// What the process of a machine has met of its disk; said right before it reports that it ends.
    fn troubled(&self, machine: NodeId, trouble: Trouble);

    /// The process of a machine ended by itself. Its sockets and files are dead already; its tasks
    /// still run until the harness kills the machine, which it should do soon, from a task of its
    /// own.
    fn exited(&self, machine: NodeId, at_ns: u64, code: ExitCode, message: &str);
}

/// One life of the process of a machine.
struct Life {
    over: AtomicBool,
}

/// All machines. Cheap to clone.
#[derive(Clone)]
pub struct Machines {
    shared: Arc<Shared>,
}

struct Shared {
    time: TimeHandle,
    network: Arc<NetSim>,
    disks: Arc<DiskSim>,
    clocks: Clocks,
    sink: Arc<dyn MachineSink>,
    lives: Mutex<BTreeMap<NodeId, Arc<Life>>>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.time.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    /// Ends the current life of a machine, if it has one.
    fn end_life(&self, machine: NodeId) {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(life) = lives.remove(&machine) {
            life.over.store(true, Ordering::Relaxed);
        }
    }

    /// Begins another life of a machine.
    fn begin_life(&self, machine: NodeId) -> Arc<Life> {
        self.end_life(machine);
        let life = Arc::new(Life { over: AtomicBool::new(false) });
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.insert(machine, Arc::clone(&life));
        life
    }

    fn living(&self) -> Vec<NodeId> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Machines {
    /// Adds the plugins to a runtime, before anything runs on it.
    pub fn install(runtime: &Runtime) {
        runtime.add_simulator::<NetSim>();
        runtime.add_simulator::<DiskSim>();
    }

    /// The machines of the simulation that is running; to be called once, by the harness. All
    /// random numbers of network and disks come from the seed.
    ///
    /// # Panics
    /// Outside a simulation, or without [`Machines::install`].
    pub fn new(seed: u64, trace: Arc<dyn TraceSink>, sink: Arc<dyn MachineSink>) -> Self {
        let network = plugin::simulator::<NetSim>();
        let disks = plugin::simulator::<DiskSim>();
        network.prepare(seed, Arc::clone(&trace));
        disks.prepare(seed, trace);
        network.start();
        Self {
            shared: Arc::new(Shared {
                time: TimeHandle::current(),
                network,
                disks,
                clocks: Clocks::new(),
                sink,
                lives: Mutex::default(),
            }),
        }
    }

    /// The network.
    pub fn network(&self) -> &NetSim {
        &self.shared.network
    }

    /// The disks.
    pub fn disks(&self) -> &DiskSim {
        &self.shared.disks
    }

    /// The wall clocks.
    pub fn clocks(&self) -> &Clocks {
        &self.shared.clocks
    }

    /// Nanoseconds since the simulation began.
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Gives a machine its address.
    pub fn attach(&self, machine: NodeId, address: IpAddr) {
        self.shared.network.attach(machine, address);
    }

    /// Gives a machine what it proves itself with between sites.
    pub fn give_papers(&self, machine: NodeId, papers: Papers) {
        self.shared.network.give_papers(machine, papers);
    }

    /// Has somebody listen to what sites say to each other.
    pub fn overhear(&self, ear: Arc<dyn Ear>) {
        self.shared.network.overhear(ear);
    }

    /// The host for a process that starts on a machine. To be called by the first task of the
    /// machine (inside its `async` block: before that, madsim has not announced it to the plugins).
    pub fn boot(&self, machine: NodeId) -> Host {
        let life = self.shared.begin_life(machine);
        let shared = Arc::clone(&self.shared);
        let process = Arc::new(SimProcess { shared, machine, life });
        let network = Arc::new(self.shared.network.boot(machine));
        Host {
            http: network.clone(),
            peers: network.clone(),
            links: Arc::new(SimLinks(network.clone())),
            network,
            disk: Arc::new(self.shared.disks.boot(machine)),
            clock: Arc::new(self.shared.clocks.clock(machine)),
            process: Arc::clone(&process) as Arc<dyn Process>,
            observer: process,
        }
    }

    /// Ends the process of a machine, as `kill -9` does. It keeps its power and its page cache.
    pub fn crash(&self, machine: NodeId) {
        self.shared.end_life(machine);
        Handle::current().kill(machine);
    }

    /// Cuts the power of a machine.
    pub fn power_cut(&self, machine: NodeId) {
        self.shared.end_life(machine);
        self.shared.network.will_power_cut(machine);
        self.shared.disks.will_power_cut(machine);
        Handle::current().kill(machine);
    }

    /// Starts the process of a machine again, at least a millisecond after it was killed.
    ///
    /// # Panics
    /// If it was not killed by [`Machines::crash`] or [`Machines::power_cut`]: then the plugins
    /// would take its sockets and files for those of the new process.
    pub fn restart(&self, machine: NodeId) {
        assert!(!self.shared.living().contains(&machine), "machine {machine} was not killed");
        Handle::current().restart(machine);
    }

    /// Lets a machine stand still, as a suspended virtual machine does. Its operating system goes
    /// on: connections stay open, and fill up.
    pub fn pause(&self, machine: NodeId) {
        Handle::current().pause(machine);
    }

    /// Lets a paused machine go on.
    pub fn resume(&self, machine: NodeId) {
        Handle::current().resume(machine);
    }

    /// Ends every process and the pump, and waits until their tasks are gone. A simulation that
    /// leaves this out leaks its memory.
    pub async fn shut_down(&self) {
        for machine in self.shared.living() {
            self.crash(machine);
        }
        self.shared.network.stop();
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process of one life of a machine, and the one who listens to its node.
struct SimProcess {
    shared: Arc<Shared>,
    machine: NodeId,
    life: Arc<Life>,
}

impl Process for SimProcess {
    fn exit(&self, code: ExitCode, message: &str) {
        if self.life.over.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.network.process_died(self.machine);
        self.shared.disks.process_died(self.machine);
        self.shared.sink.exited(self.machine, self.shared.now_ns(), code, message);
    }
}

impl Observer for SimProcess {
    fn observe(&self, event: &Event) {
        if !self.life.over.load(Ordering::Relaxed) {
            if matches!(event, Event::Fatal { .. }) {
                self.shared.sink.troubled(self.machine, self.shared.disks.trouble(self.machine));
            }
            self.shared.sink.observed(self.machine, self.shared.now_ns(), event);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::EPOCH_MS;
    use crate::testing::{World, at, simulate};
    use fulmar_host::disk::{Flush, Open, Write};
    use fulmar_host::time::{Duration, sleep, timeout};
    use fulmar_host::{random, task};
    use fulmar_types::{Event, ExitCode};
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_process_that_ends_itself_is_cut_off_at_once() {
        simulate(1, |world| async move {
            let machine = world.machine(1);
            let host = world.machines.boot(machine);
            let file = host.disk.open(Path::new("log"), Open::New).await.unwrap();
            host.report(Event::Ready);
            let ending = host.fatal(ExitCode::DiskWrite, "the disk is broken".to_owned());
            assert!(timeout(Duration::from_secs(1), ending).await.is_err(), "it never returns");
            host.report(Event::Ready);
            host.process.exit(ExitCode::Crash, "again");
            assert!(file.sync().await.is_err());
            assert!(host.network.listen(at(1, 1)).await.is_err());
            let lines = world.log.lines.lock().unwrap().clone();
            assert_eq!(lines.len(), 3, "{lines:?}");
            assert_eq!(lines[0], "1 Ready");
            assert_eq!(lines[2], "1 exited DiskWrite the disk is broken");
            world.machines.crash(machine);
            sleep(Duration::from_millis(1)).await;
            assert!(madsim::runtime::Handle::current().is_exit(machine));
            let next = world.machines.boot(machine);
            host.report(Event::Ready);
            next.report(Event::Ready);
            assert_eq!(world.log.lines.lock().unwrap().len(), 4, "the dead say nothing");
        });
    }

    #[test]
    fn wall_clocks_are_wrong_each_in_its_own_way() {
        simulate(1, |world| async move {
            let (one, other) = (world.machine(1), world.machine(2));
            let (host, right) = (world.machines.boot(one), world.machines.boot(other));
            let clocks = world.machines.clocks();
            assert!((EPOCH_MS..EPOCH_MS + 2).contains(&host.clock.wall_ms()));
            clocks.set_offset_ms(one, -5_000);
            clocks.step_ms(one, 2_000);
            assert_eq!(host.clock.wall_ms() + 3_000, clocks.true_ms());
            clocks.set_drift_ppm(one, 100_000);
            sleep(Duration::from_secs(10)).await;
            assert!(host.clock.wall_ms().abs_diff(clocks.true_ms() - 2_000) <= 1);
            clocks.set_drift_ppm(one, 0);
            sleep(Duration::from_secs(10)).await;
            assert!(host.clock.wall_ms().abs_diff(clocks.true_ms() - 2_000) <= 1);
            assert_eq!(right.clock.wall_ms(), clocks.true_ms());
            clocks.step_ms(one, i64::MIN);
            assert_eq!(host.clock.wall_ms(), 0);
        });
    }

    /// Three machines that talk, write, die and lose power.
    async fn storm(world: World) -> u64 {
        let ids = [world.machine(1), world.machine(2), world.machine(3)];
        for (number, id) in (1..).zip(ids) {
            let machines = world.machines.clone();
            let node = madsim::runtime::Handle::current();
            let node = node.get_node(id).unwrap();
            node.spawn(async move {
                let host = machines.boot(id);
                let mut listener = host.network.listen(at(number, 1)).await.unwrap();
                let file = host.disk.open(Path::new("log"), Open::New).await.unwrap();
                task::spawn(async move {
                    while let Ok(mut connection) = listener.accept().await {
                        let file = std::sync::Arc::clone(&file);
                        task::spawn(async move {
                            let mut bytes = [0; 100];
                            while connection.reader.read_exact(&mut bytes).await.is_ok() {
                                let write = vec![Write::one(bytes[0].into(), bytes.to_vec())];
                                file.write(write, Flush::Data).await.unwrap();
                            }
                        });
                    }
                });
                for round in 0..50u8 {
                    let to = at((number + round) % 3 + 1, 1);
                    let connecting = host.network.connect(to);
                    let limit = Duration::from_millis(50);
                    if let Ok(Ok(mut connection)) = timeout(limit, connecting).await {
                        let _ = connection.writer.write_all(&[round; 100]).await;
                        sleep(Duration::from_millis(random::random_u64() % 20)).await;
                    }
                }
            });
        }
        for round in 0..10 {
            sleep(Duration::from_millis(20)).await;
            let network = world.machines.network();
            network.cut(ids[round % 3], ids[(round + 1) % 3]);
            match round {
                5 => world.machines.crash(ids[0]),
                7 => world.machines.power_cut(ids[1]),
                8 => network.heal_all(),
                _ => {}
            }
        }
        sleep(Duration::from_secs(2)).await;
        assert!(world.machines.network().counts().messages > 20);
        world.machines.network().generator_position() ^ world.machines.disks().generator_position()
    }

    #[test]
    fn one_seed_is_one_run() {
        let mut digests = Vec::new();
        for seed in 0..20 {
            let run = simulate(seed, storm);
            assert_eq!(run, simulate(seed, storm), "seed {seed}");
            digests.push(run.1);
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 20, "another seed is another run");
    }
}
