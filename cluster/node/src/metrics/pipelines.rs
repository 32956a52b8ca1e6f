//! The pipelines: how many there are, and what those have done that this node runs.

use super::names as m;
use super::text::Text;
use crate::node_view::NodeView;
use fulmar_broker::machine::state::State;
use fulmar_flow::{Plan, RETRIED};
use fulmar_pipelines::facts::{Facts, Waiting};
use fulmar_pipelines::figures::Figure;

/// Pipelines that are told, at most.
pub const PIPELINES_MAX: usize = 256;

/// Partitions of a pipeline of which fates are told one by one, at most; the others are told together.
pub const FATES_MAX: usize = 64;

const WAITING: [&str; 4] = {
    let [one, two, three, four] = Waiting::ALL;
    [one.name(), two.name(), three.name(), four.name()]
};

pub(super) fn tell(text: &mut Text, view: &NodeView) {
    let Some(serving) = view.serving() else { return };
    let site = serving.broker.site();
    let (all, failed) = site.read(|state| {
        let runs = state.pipelines().filter_map(|pipeline| state.run(&pipeline.name));
        let failed = runs.filter(|run| run.failed.is_some()).count();
        (state.pipelines().count(), failed)
    });
    text.put(m::PIPELINES, &[], all);
    text.put(m::PIPELINES_FAILED, &[], failed);
    let (used, most) = serving.pipeline_memory.used();
    text.put(m::PIPELINE_MEMORY, &[], used);
    text.put(m::PIPELINE_MEMORY_MAX, &[], most);
    for (name, figure) in serving.pipelines.all().iter().take(PIPELINES_MAX) {
        let (lag, missed) = site.read(|state| inputs(state, name));
        of_pipeline(text, name, figure);
        text.put(m::PIPELINE_LAG, &[("pipeline", name)], lag);
        text.put(m::PIPELINE_MISSED, &[("pipeline", name)], missed);
    }
}

fn of_pipeline(text: &mut Text, name: &str, figure: &Figure) {
    let labels = [("pipeline", name)];
    text.put(m::PIPELINE_EPOCHS, &labels, figure.epochs);
    text.put(m::PIPELINE_RECORDS, &labels, figure.records);
    text.put(m::PIPELINE_BYTES, &labels, figure.bytes);
    text.seconds(m::PIPELINE_SECONDS, &labels, figure.epoch_time);
    text.put(m::PIPELINE_STATE, &labels, figure.state_bytes);
    text.one_of(m::PIPELINE_WAITING, (&labels, "for"), &WAITING, figure.waiting.name());
    if let Some((plan, facts)) = &figure.facts {
        of_facts(text, name, plan, facts);
    }
}

/// What a pipeline says of itself: watermarks, and what became of every record.
fn of_facts(text: &mut Text, name: &str, plan: &Plan, facts: &Facts) {
    for (source, watermark) in plan.sources.iter().zip(&facts.watermarks) {
        if let Some(ms) = watermark {
            let labels = [("pipeline", name), ("source", &*source.name)];
            text.put(m::PIPELINE_WATERMARK, &labels, ms.div_euclid(1_000));
        }
    }
    let (told, others) = facts.told_up_to(FATES_MAX);
    let place = |at: u32| if at == RETRIED { "retried".to_owned() } else { at.to_string() };
    let told = told.iter().map(|(reader, at, fates)| (*reader, place(*at), *fates));
    let others = others.into_iter().map(|(reader, _, fates)| (reader, "others".to_owned(), fates));
    for (reader, partition, fates) in told.chain(others) {
        let source = plan.readers.get(reader as usize).and_then(|at| plan.sources.get(*at));
        let Some(source) = source else { continue };
        let query = reader.to_string();
        let labels = [
            ("pipeline", name),
            ("source", &*source.name),
            ("query", &*query),
            ("partition", &*partition),
        ];
        for (fate, count) in fates.named() {
            let labels = [&labels[..], &[("fate", fate)]].concat();
            text.put(m::PIPELINE_FATES, &labels, count);
        }
    }
}

/// Records that a pipeline has not read yet, and those that it never will.
fn inputs(state: &State, name: &str) -> (u64, u64) {
    let (mut lag, mut missed) = (0, 0);
    for input in state.inputs(name).unwrap_or_default() {
        missed += input.position.missed;
        if let Some(known) = state.partition(input.stream) {
            lag += known.next.0.saturating_sub(input.position.next.0);
        }
    }
    (lag, missed)
}
