//! Pipelines in a site: who runs them, their epochs, and their state in the log.
//!
//! What a pipeline is, how far it has come and where its state lies is state of the site (`cluster/broker`),
//! and what it computes is pure (`cluster/flow`). Here is what is in between: the leader says which node runs
//! which pipeline, and that node has it in memory, reads the inputs from its own log, and proposes what comes
//! out.
//!
//! ```text
//!   leader       claims: who is alive, who has fewest        claim -> log
//!   owner        deltas + logged epochs  -> engine           take over, compare
//!                inputs -> engine -> outputs                 [commit, append, append] -> log
//!                engine -> parts                             [part] [part] [done] -> log
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`claims`] | who is to run what |
//! | `owned` | the pipelines that this node owns |
//! | `run` | an owner at work |
//! | `job` | what it knows |
//! | `outgoing` | an epoch on its way into the log |
//! | `delta`, `writing` | the state of a pipeline on its way into the log |
//! | [`facts`], [`figures`] | what people are told |
//! | [`memory`] | what state may take |
//! | [`plans`] | files |
//!
//! Invariants: what is here can be lost with the process; nothing takes effect but by an entry that names
//! the fence under which this node owns the pipeline; others run between any two steps.

pub mod claims;
mod delta;
pub mod facts;
pub mod figures;
mod job;
pub mod memory;
mod outgoing;
mod owned;
pub mod plans;
mod run;
mod writing;

use figures::Figures;
use fulmar_broker::Broker;
use fulmar_broker::proposer::Answer;
use fulmar_host::Host;
use fulmar_host::task::{self, Owned};
use fulmar_host::time;
use fulmar_store::entry::Unit;
use fulmar_types::NodeId;
use memory::Memory;
use std::sync::Arc;

/// What a node has to know for its pipelines.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The node.
    pub node: NodeId,
    /// Bytes that the state of all pipelines of the node may take.
    pub memory_bytes: usize,
    /// In how many shares an operator works that keeps something.
    pub subtasks: usize,
}

/// What everything about the pipelines of a node shares.
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) broker: Arc<Broker>,
    pub(crate) node: NodeId,
    pub(crate) subtasks: usize,
    pub(crate) memory: Arc<Memory>,
    pub(crate) figures: Arc<Figures>,
}

impl Context {
    /// Puts a unit into the log, whoever leads.
    pub(crate) async fn propose(&self, unit: Unit) -> Answer {
        self.broker.propose_anywhere(unit, time::now() + run::PROPOSE_TIMEOUT).await
    }

    /// Whether another fence stands.
    pub(crate) fn is_over(&self, pipeline: &str, fence: u64) -> bool {
        self.broker.site().read(|state| {
            let run = state.run(pipeline);
            run.is_none_or(|run| run.owner != Some(self.node) || run.fence != fence)
        })
    }
}

/// The pipelines of a node. Dropping it stops them where they are.
pub struct Pipelines {
    context: Arc<Context>,
    _tasks: [Owned<()>; 2],
}

impl Pipelines {
    /// Begins to run what this node owns, and to say who owns what while it leads.
    pub fn start(host: Host, broker: Arc<Broker>, settings: PipelineSettings) -> Self {
        broker.plan_with(Arc::new(plans::FilePlanner));
        let PipelineSettings { node, memory_bytes, subtasks } = settings;
        let memory = Arc::new(Memory::new(memory_bytes));
        let figures = Arc::new(Figures::default());
        let context = Arc::new(Context { host, broker, node, subtasks, memory, figures });
        let own = task::spawn_owned(owned::keep(Arc::clone(&context)));
        let claim = task::spawn_owned(owned::claim(Arc::clone(&context)));
        Self { context, _tasks: [own, claim] }
    }

    /// What they have done here.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.context.figures)
    }

    /// What their state takes here.
    pub fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.context.memory)
    }
}
