//! For the tests of the plugins: a small simulation with a few machines.

use crate::disk::Trouble;
use crate::machine::{MachineSink, Machines};
use crate::trace::{TraceDigest, TraceHash, TraceSink};
use fulmar_types::{Event, ExitCode};
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

/// What the machines told the harness.
#[derive(Default)]
pub struct Log {
    /// One line for each thing.
    pub lines: Mutex<Vec<String>>,
}

impl Log {
    fn note(&self, line: String) {
        self.lines.lock().expect("no test panics while it holds this").push(line);
    }
}

impl MachineSink for Log {
    fn observed(&self, machine: NodeId, _: u64, event: &Event) {
        self.note(format!("{machine} {event:?}"));
    }

    fn troubled(&self, _: NodeId, _: Trouble) {}

    fn exited(&self, machine: NodeId, _: u64, code: ExitCode, message: &str) {
        self.note(format!("{machine} exited {code:?} {message}"));
    }
}

/// A simulation under way.
pub struct World {
    /// The machines.
    pub machines: Machines,
    /// What they told.
    pub log: Arc<Log>,
}

impl World {
    /// A machine without a process, with the address `10.0.0.number`.
    pub fn machine(&self, number: u8) -> NodeId {
        let id = Handle::current().create_node().build().id();
        self.machines.attach(id, ip(number));
        id
    }
}

/// The address of a test machine.
pub fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// A port of a test machine.
pub fn at(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(ip(number), port)
}

/// Runs a scenario on a fresh thread and returns its result and the hash of its trace.
pub fn simulate<T, F>(
    seed: u64,
    scenario: impl FnOnce(World) -> F + Send + 'static,
) -> (T, TraceDigest)
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let run = move || {
        let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.set_time_limit(std::time::Duration::from_secs(3_600));
        Machines::install(&runtime);
        let trace = Arc::new(TraceHash::default());
        let sink: Arc<dyn TraceSink> = Arc::clone(&trace) as Arc<dyn TraceSink>;
        let result = runtime.block_on(async move {
            let log = Arc::new(Log::default());
            let machines = Machines::new(seed, sink, Arc::clone(&log) as Arc<dyn MachineSink>);
            let result = scenario(World { machines: machines.clone(), log }).await;
            machines.shut_down().await;
            result
        });
        (result, trace.digest())
    };
    match std::thread::spawn(run).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
