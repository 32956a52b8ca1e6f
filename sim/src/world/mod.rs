//! One run of a scenario: real nodes on simulated machines, from the first election to the verdict.
//!
//! ```text
//! start ─► ready ─► warm-up ─► chaos ─► heal ─► converge ─► read back ─► judge
//!            │         └─ workloads run ──────────────┘
//!            └─ safety is checked from the first event to the last
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`sink`] | where all events arrive: checks, counters, trace |
//! | [`stage`] | machines, nodes, clients and what state they are in |
//! | [`chaos`] | firing faults and taking them back |
//! | [`workload`] | clients, over real Kafka bytes |
//! | `reading` | clients that read, and the reader of whole logs |
//! | `mirroring`, `marking`, `rules`, `stranger` | links between sites, what is missing, and who has no business there |
//! | `secrets`, `ruled`, `hashes`, `losses`, `piped`, `eavesdrop`, `torn` | records of which not everything may leave, and who listens whether it does |
//! | `line` | caps, and what is urgent |
//! | `lines` | how much of a line between two sites is used |
//! | `forks` | copies whose origin was put back to an older copy of itself |
//! | `operator` | who looks after a site that was put back |
//! | `pipelines`, `fates` | what pipelines read, what they have to give, and what they say of it |
//! | `tending` | who pauses them, changes them and puts them back |
//! | `whole` | whole partitions, read from front to back |
//! | `foreign` | clients that write with producer ids which are not theirs |
//! | [`series`] | the topics that clients produce to, one after another |
//! | [`ending`] | healing, converging, reading back, judging |
//!
//! Invariants: a simulation has a thread of its own, because the standard library keeps random
//! keys per thread; the runtime and every stream draw from the scenario's stream seed and from
//! nothing else, so a drawn scenario gives the same run whatever seed it was drawn with.

pub mod chaos;
mod client;
mod comparing;
mod due;
mod eavesdrop;
pub mod ending;
mod fates;
mod foreign;
mod forks;
mod hashes;
mod limits;
mod line;
mod lines;
mod losses;
mod marking;
mod mirroring;
mod naming;
mod operator;
mod origins;
mod packing;
mod pausing;
mod piped;
mod pipelines;
mod reading;
mod resuming;
mod retrying;
mod ruled;
mod rules;
mod secrets;
pub mod series;
pub mod sink;
pub mod stage;
mod stranger;
mod swapping;
mod tending;
mod torn;
mod whole;
pub mod workload;

use crate::history::History;
use crate::machine::Machines;
use crate::report::{RunReport, Verdict};
use crate::scenario::DrawnScenario;
use crate::trace::TraceHash;
use chaos::Chaos;
use fulmar_types::Plant;
use madsim::runtime::Runtime;
use sink::Sink;
use stage::Stage;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use workload::Workloads;

/// How long the sites may take to be ready at the start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A planted source of nondeterminism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// The order of a map with random keys decides something.
    Map,
    /// A select without a fixed order decides something.
    Select,
}

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Keep every event as text.
    pub trace: bool,
    /// A source of nondeterminism to plant.
    pub leak: Option<Leak>,
    /// Run another, short simulation before, in the same process.
    pub after_another: bool,
}

/// A run that has ended.
pub struct Finished {
    /// The scenario that was run.
    pub drawn: DrawnScenario,
    /// What it says of itself.
    pub report: RunReport,
    /// The drawn scenario as a file.
    pub scenario: String,
    /// What the clients saw.
    pub history: History,
    /// Every event of every node as text, if it was asked for.
    pub trace: Option<String>,
}

/// What a run shares between its thread and whoever waits for it, so that a panic loses nothing.
struct Shared {
    sink: Arc<Sink>,
    history: Arc<Mutex<History>>,
}

/// Runs a scenario on a thread of its own.
pub fn simulate(drawn: &DrawnScenario, options: &Options) -> Finished {
    if options.after_another {
        another();
    }
    fulmar_host::clear_plants();
    if let Some(plant) = options.plant {
        fulmar_host::plant(plant);
    }
    let trace = Arc::new(TraceHash::default());
    let shared = Arc::new(Shared {
        sink: Arc::new(Sink::new(trace.clone(), options.trace)),
        history: Arc::new(Mutex::new(History::default())),
    });
    let plant = options.plant.map(|plant| plant.name().to_owned());
    let mut report = RunReport::new(&drawn.title, plant, Verdict::Pass);
    let ended = {
        let (drawn, shared, leak) = (drawn.clone(), shared.clone(), options.leak);
        on_a_thread(move || run(&drawn, &shared, trace, leak))
    };
    match ended {
        Ok(ended) => {
            report.verdict = ended.verdict;
            report.simulated_ms = ended.simulated_ms;
        }
        // What a check saw before says more than the assertion that failed after it.
        Err(panic) => {
            report.verdict = match shared.sink.violation() {
                Some(seen) => {
                    Verdict::Safety { check: seen.check.to_owned(), text: seen.to_string() }
                }
                None => Verdict::Crash { text: panic },
            }
        }
    }
    shared.sink.fill(&mut report);
    let mut history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
    let history = std::mem::take(&mut *history);
    ending::fill(&history, &mut report);
    Finished {
        drawn: drawn.clone(),
        report,
        scenario: drawn.to_string(),
        history,
        trace: shared.sink.take_text(),
    }
}

struct Ended {
    verdict: Verdict,
    simulated_ms: u64,
}

/// Runs something on a fresh thread; the text of the panic, if it panics.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let thread = std::thread::Builder::new()
        .name("simulation".to_owned())
        .stack_size(64 << 20)
        .spawn(work)
        .map_err(|error| format!("no thread: {error}"))?;
    thread.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

/// A short simulation of nothing much, whose only purpose is to have been there.
fn another() {
    let ran = on_a_thread(|| {
        let runtime = Runtime::with_seed_and_config(99, Default::default());
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(1);
            let task = madsim::task::spawn(async move {
                for number in 0..100 {
                    madsim::time::sleep(Duration::from_millis(1)).await;
                    if sender.send(number).await.is_err() {
                        return;
                    }
                }
            });
            while receiver.recv().await.is_some() {
                // random on purpose: it moves counters that the next simulation must not see
                let keys: std::collections::hash_map::RandomState = Default::default();
                std::hint::black_box(keys);
                std::hint::black_box(either().await);
            }
            drop(task);
        });
    });
    assert!(ran.is_ok(), "nothing in it can fail");
}

fn run(
    drawn: &DrawnScenario,
    shared: &Arc<Shared>,
    trace: Arc<TraceHash>,
    leak: Option<Leak>,
) -> Ended {
    let runtime = Runtime::with_seed_and_config(drawn.stream_seed, Default::default());
    Machines::install(&runtime);
    let timers = trace.clone();
    fulmar_host::time::on_timer(move |at_ns| timers.timer(at_ns));
    runtime.block_on(async {
        let sink = shared.sink.clone();
        let machines = Machines::new(drawn.stream_seed, trace.clone(), sink.clone());
        let verdict = match Stage::build(drawn, machines.clone(), sink.clone()) {
            Err(text) => Verdict::Harness { text },
            Ok(stage) => play(&stage, shared, leak).await,
        };
        trace.generator(machines.now_ns(), machines.network().generator_position());
        trace.generator(machines.now_ns(), machines.disks().generator_position());
        trace.generator(machines.now_ns(), fulmar_host::random::random_u64());
        let simulated_ms = machines.now_ns() / 1_000_000;
        machines.shut_down().await;
        Ended { verdict, simulated_ms }
    })
}

async fn play(stage: &Arc<Stage>, shared: &Arc<Shared>, leak: Option<Leak>) -> Verdict {
    drop(madsim::task::spawn(stage.clone().supervise()));
    if let Some(leak) = leak {
        drop(madsim::task::spawn(spring(leak)));
    }
    let workloads = Workloads::new(stage.clone(), shared.history.clone());
    let ready = madsim::time::timeout(READY_WITHIN, workloads.prepare()).await;
    if ready.is_err() {
        return ending::violated(shared).unwrap_or_else(|| Verdict::Liveness {
            check: "ready".to_owned(),
            text: format!("the sites were not ready after {} s", READY_WITHIN.as_secs()),
        });
    }
    workloads.begin();
    madsim::time::sleep(stage.drawn.run.warmup.0).await;
    let chaos = Chaos::begin(stage.clone(), shared.history.clone());
    madsim::time::sleep(stage.drawn.run.chaos.0).await;
    chaos.end();
    stage.sink.say(stage.machines.now_ns(), || "the chaos is over".to_owned());
    stage.heal().await;
    let verdict = ending::finish(stage, shared, &workloads).await;
    stage.sink.canaries(workloads.canaries());
    verdict
}

/// A planted leak: something that no seed decides takes simulated time.
async fn spring(leak: Leak) {
    match leak {
        Leak::Map => {
            // In a simulation the keys of the standard map come from the seed, so this one is
            // seeded as maps of other libraries are: by the place where the program was loaded.
            // order never visible: to anybody but `meta`, which has to notice it
            let map: std::collections::HashMap<u64, u64, Loaded> =
                (0..64).map(|number| (number, number)).collect();
            let order = map.into_keys().fold(0, |order, key| (order * 31 + key) % 1_000);
            fulmar_host::time::sleep(Duration::from_micros(10_000 + order)).await;
        }
        Leak::Select => {
            for _ in 0..32 {
                fulmar_host::time::sleep(either().await).await;
            }
        }
    }
}

/// Keys a map by the address that the program was loaded at, which differs between processes.
#[derive(Default)]
struct Loaded;

impl std::hash::BuildHasher for Loaded {
    type Hasher = xxhash_rust::xxh3::Xxh3;

    fn build_hasher(&self) -> Self::Hasher {
        static HERE: u8 = 0;
        xxhash_rust::xxh3::Xxh3::with_seed(std::ptr::from_ref(&HERE).addr() as u64)
    }
}

/// One of two durations, as a select without a fixed order has it.
async fn either() -> Duration {
    // unbiased on purpose: `meta` has to notice it
    tokio::select! {
        () = std::future::ready(()) => Duration::from_micros(1_001),
        () = std::future::ready(()) => Duration::from_micros(1_002),
    }
}
