//! The pipelines that this node owns, as its applied state says; and, on the node that leads, who is to own
//! which.
//!
//! Invariant: a node runs a pipeline only under a fence that it has seen become true in this life: what an
//! earlier life of it has on its way is refused, since it claims anew what it finds that it owned.

use crate::Context;
use crate::claims::{Claim, Claims, Moves, Seen, Wanted};
use crate::job::End;
use crate::run::{self, AGAIN_AFTER};
use fulmar_broker::machine::outcome::{Refusal, UnitResult};
use fulmar_broker::proposer::Answer;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::{Operation, PipelineOperation, Unit};
use fulmar_types::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a node looks what it owns if nothing tells it to.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a leader looks who is there.
const CLAIM_EVERY: Duration = Duration::from_millis(100);

/// How long the claims of one look may take.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before a pipeline is loaded anew, so that what made it necessary is over.
const RELOAD_AFTER: Duration = Duration::from_millis(100);

/// A pipeline that runs here, under a fence.
struct Running {
    fence: u64,
    _task: Owned<()>,
}

/// Runs what this node owns.
pub async fn keep(context: Arc<Context>) {
    // Until then the state is of the past, and so is what it says about this node.
    while !context.broker.group().has_caught_up() {
        time::sleep(AGAIN_AFTER).await;
    }
    let born = context.broker.group().applied().map_or(0, |applied| applied.index.get());
    let watch = context.broker.site().watch_pipelines();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    loop {
        let owned: BTreeMap<String, u64> = context.broker.site().read(|state| {
            let runs = state.pipelines().filter_map(|pipeline| state.run(&pipeline.name));
            let mine = runs.filter(|run| run.owner == Some(context.node));
            mine.map(|run| (run.pipeline.clone(), run.fence)).collect()
        });
        running.retain(|name, job| {
            let stays = owned.get(name) == Some(&job.fence);
            if !stays {
                context.memory.forget(name);
                context.figures.forget(name);
            }
            stays
        });
        for (name, fence) in owned {
            if running.contains_key(&name) {
                continue;
            }
            let job = own(Arc::clone(&context), name.clone(), fence, fence <= born);
            running.insert(name, Running { fence, _task: task::spawn_owned(job) });
        }
        let _ = time::timeout(LOOK_EVERY, watch.changed()).await;
    }
}

/// Runs a pipeline under a fence, and does in the log what its end calls for.
async fn own(context: Arc<Context>, name: String, fence: u64, is_of_earlier_life: bool) {
    let end = match is_of_earlier_life {
        true => End::Reload,
        false => run::run(Arc::clone(&context), name.clone(), fence).await,
    };
    let claim = |node| PipelineOperation::Claim { pipeline: name.clone(), expected: fence, node };
    let mut operation = match end {
        End::Superseded => return,
        End::Reload => {
            if !is_of_earlier_life {
                tracing::info!(pipeline = name, "a pipeline is loaded anew");
                time::sleep(RELOAD_AFTER).await;
            }
            claim(Some(context.node))
        }
        End::Settled => claim(None),
        End::Halted(mut reason) => {
            // Not why: it may quote a record, and logs go where records do not.
            tracing::warn!(pipeline = name, "a pipeline cannot go on, and its status says why");
            shorten(&mut reason);
            PipelineOperation::Halt { pipeline: name.clone(), fence, reason }
        }
    };
    // Whatever is answered: it has taken effect when the fence is another one.
    while !context.is_over(&name, fence) {
        let answer = context.propose(Unit::of(Operation::Pipeline(operation.clone()))).await;
        let refused = UnitResult::Refused(Refusal::NotRunning);
        if matches!(answer, Answer::Done { result, .. } if result == refused) {
            // It was paused meanwhile, and has nothing to store.
            operation = claim(None);
        }
        time::sleep(AGAIN_AFTER).await;
    }
}

fn shorten(reason: &mut String) {
    let most = fulmar_types::pipeline::PIPELINE_REASON_BYTES_MAX;
    if reason.len() > most {
        let mut end = most;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
    }
}

/// While this node leads, it says who runs which pipeline.
pub async fn claim(context: Arc<Context>) {
    let (mut leading, mut moves) = (None, Moves::default());
    loop {
        time::sleep(CLAIM_EVERY).await;
        context.broker.site().read(|state| {
            let runs = state.pipelines().filter_map(|pipeline| state.run(&pipeline.name));
            let runs = runs.map(|run| (run.pipeline.as_str(), run.fence, run.epoch));
            moves.look(time::now(), runs);
        });
        let seen = context.broker.group().leadership();
        if !seen.is_me {
            leading = None;
            continue;
        }
        let claims = match &mut leading {
            Some((term, claims)) if *term == seen.term => claims,
            _ => &mut leading.insert((seen.term, Claims::new(time::now()))).1,
        };
        let wanted: Vec<Wanted> = context.broker.site().read(|state| {
            let known = state.pipelines().filter_map(|p| Some((p, state.run(&p.name)?)));
            let wanted = known.filter(|(pipeline, run)| pipeline.may_be_claimed(run));
            let wanted = wanted.map(|(pipeline, run)| Wanted {
                name: pipeline.name.clone(),
                fence: run.fence,
                owner: run.owner,
                moves: moves.of(&pipeline.name),
            });
            wanted.collect()
        });
        if wanted.is_empty() {
            continue;
        }
        let nodes: Vec<Seen> = context
            .broker
            .group()
            .alive()
            .into_iter()
            .map(|seen| Seen { node: seen.node, silent_for: seen.silent_for, behind: seen.behind })
            .collect();
        let decided = claims.decide(time::now(), &nodes, &wanted);
        propose(&context, decided).await;
    }
}

/// Proposes claims together, and waits until they are answered: a pipeline is not claimed twice for one
/// reason.
async fn propose(context: &Context, claims: Vec<Claim>) {
    let deadline = time::now() + CLAIM_TIMEOUT;
    let mut tickets = Vec::new();
    for Claim { name, fence, node } in claims {
        tracing::info!(pipeline = name, node = NodeId::get(node), "a pipeline gets an owner");
        let claim = PipelineOperation::Claim { pipeline: name, expected: fence, node: Some(node) };
        let unit = Unit::of(Operation::Pipeline(claim));
        tickets.push(context.broker.proposer().submit(unit, deadline).await);
    }
    for ticket in tickets {
        let _ = time::timeout_at(deadline, ticket).await;
    }
}
