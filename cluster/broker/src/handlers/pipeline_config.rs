//! Pipelines and savepoints as things with settings: what AlterConfigs replaces and DescribeConfigs tells
//! of them, as with links (`link_config.rs`).
//!
//! ```text
//! pipeline     file | paused | latency-ms | start: keep, fresh or savepoint NAME | number
//!              none but number: it is removed, with its savepoints if savepoints is true
//!              retry-dead-letters alone: topics, of which what lies in them by now is put through again
//! savepoint    pipeline | number
//!              none but number: it is removed
//! ```
//!
//! What a file reads and writes is found in it here, and never taken from a client. Topics that it writes
//! and that are not there are created in the same unit, with as many partitions as the largest has that it
//! reads. A savepoint is made of a delta that is taken for it, so this waits for the owner.

use super::controller::{Failure, carried_out, carry_out, refuse};
use crate::broker::{Broker, chain_key};
use crate::error_map::{self, Unanswered};
use crate::limits::LINK_STATUS_VALUES_MAX;
use crate::machine::outcome::{OperationResult, Refusal, UnitResult};
use crate::machine::state::State;
use crate::proposer::Answer;
use fulmar_host::random;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::entry::{NewPipeline, Operation, PipelineChange, PipelineOperation, Unit};
use fulmar_types::link::{CHANGED_BY, CHANGED_MS, NUMBER};
use fulmar_types::pipeline::{
    FILE, LATENCY_MS, LATENCY_MS_DEFAULT, LATENCY_MS_MAX, PAUSED, PIPELINE_FILE_BYTES_MAX,
    PIPELINE_TOPICS_MAX, PipelineDefinition, RETRY, START, Start,
};
use fulmar_types::{TopicId, Uuid};
use fulmar_wire::{ErrorCode, RESOURCE_MADE_OF, RESOURCE_PIPELINE};

/// Among the settings of a pipeline that is removed: whether its savepoints go with it.
const SAVEPOINTS: &str = "savepoints";

/// The pause before something is tried again that waits for the owner of a pipeline.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Among the settings of a savepoint: whose state it is.
const PIPELINE: &str = "pipeline";

type Values = Vec<(String, String)>;

/// What somebody wants a pipeline or a savepoint to be.
pub(super) struct Wanted {
    pub(super) name: String,
    /// For whom.
    pub(super) who: String,
    pub(super) settings: Values,
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Failure> {
    refuse(ErrorCode::InvalidConfig, message)
}

fn flag(name: &str, text: &str) -> Result<bool, Failure> {
    text.parse().or_else(|_| invalid(format!("`{name}` is true or false, and not `{text}`")))
}

impl Wanted {
    /// The number that the thing must have, if that matters.
    fn expected(&mut self) -> Result<Option<u64>, Failure> {
        let Some(text) = self.take(NUMBER) else { return Ok(None) };
        let number = text.parse();
        number.map(Some).or_else(|_| invalid(format!("`{NUMBER}` is a number, and not `{text}`")))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.settings.iter().position(|(known, _)| known == name)?;
        Some(self.settings.swap_remove(at).1)
    }

    fn nothing_else(&self, what: &str) -> Result<(), Failure> {
        match self.settings.first() {
            Some((name, _)) => invalid(format!("{what} has no setting `{name}`, or has it once")),
            None => Ok(()),
        }
    }
}

/// The topics that one is made of that pipelines write or once wrote, as far as one answer holds them:
///
/// ```text
/// of/NUMBER    the name of one
/// more         there are others, and which is not known
/// ```
pub(super) fn made_of(state: &State, topic: &str) -> Option<Vec<(String, String)>> {
    let making = state.made_of(topic)?;
    let of = making.of.iter().take(LINK_STATUS_VALUES_MAX - 1).enumerate();
    let mut told: Vec<_> = of.map(|(n, name)| (format!("of/{n}"), name.clone())).collect();
    if making.has_more || told.len() < making.of.len() {
        told.push(("more".to_owned(), "true".to_owned()));
    }
    Some(told)
}

/// Replaces a pipeline, or removes it.
pub(super) async fn set_pipeline(
    broker: &Broker,
    mut wanted: Wanted,
    validate_only: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    if let Some(topics) = wanted.take(RETRY) {
        return retry(broker, wanted, (&topics, validate_only), deadline).await;
    }
    let expected = wanted.expected()?;
    let Some(file) = wanted.take(FILE) else {
        let savepoints = wanted.take(SAVEPOINTS).map(|text| flag(SAVEPOINTS, &text));
        let savepoints = savepoints.transpose()?.unwrap_or(false);
        wanted.nothing_else("a pipeline that is removed")?;
        let change = Box::new(PipelineChange::Remove { savepoints });
        let Wanted { name, who, .. } = wanted;
        let set = PipelineOperation::Set { name, expected, who, change };
        return match validate_only {
            true => Ok(()),
            false => carry_out(broker, Unit::of(Operation::Pipeline(set)), deadline).await,
        };
    };
    let definition = definition(broker, &mut wanted, file)?;
    let start = wanted.take(START).unwrap_or_else(|| Start::Keep.to_string());
    let Some(start) = Start::parse(&start) else {
        return invalid(format!("`{START}` is keep, fresh or savepoint NAME, and not `{start}`"));
    };
    wanted.nothing_else("a pipeline")?;
    let leads = broker.prove_leadership().await;
    leads.map_err(|_| Unanswered::NotDone)?;
    let mut operations = broker.site.read(|state| {
        refuse_circle(state, (&wanted.name, &definition))?;
        missing_outputs(state, &definition)
    })?;
    let (first, second) = (random::random_16(), random::random_16());
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&first);
    secret[16..].copy_from_slice(&second);
    let topic = TopicId(Uuid::from_random(random::random_16()));
    let change = Box::new(PipelineChange::Set(NewPipeline { topic, secret, definition, start }));
    let Wanted { name, who, .. } = wanted;
    operations.push(Operation::Pipeline(PipelineOperation::Set { name, expected, who, change }));
    let unit = Unit { preconditions: Vec::new(), operations };
    if unit.encoded_len() > broker.unit_bytes_max() {
        return invalid("the file is too long for the segments of this site");
    }
    if validate_only {
        return Ok(());
    }
    loop {
        let answer = time::timeout_at(deadline, broker.proposer.propose(unit.clone())).await;
        let answer = answer.unwrap_or(Answer::Unknown);
        let is_too_early = matches!(
            answer,
            Answer::Done { result: UnitResult::Refused(Refusal::EpochIncomplete { .. }), .. }
        );
        if !is_too_early || time::now() + AGAIN_AFTER >= deadline {
            return carried_out(answer);
        }
        // Its owner is about to end the epoch.
        time::sleep(AGAIN_AFTER).await;
    }
}

/// Asks for dead letters to be put through again.
async fn retry(
    broker: &Broker,
    wanted: Wanted,
    (topics, validate_only): (&str, bool),
    deadline: Instant,
) -> Result<(), Failure> {
    wanted.nothing_else("a retry of dead letters")?;
    let topics: Vec<&str> = topics.split(',').filter(|topic| !topic.is_empty()).collect();
    if topics.is_empty() || topics.len() > PIPELINE_TOPICS_MAX {
        return invalid(format!("`{RETRY}` names 1 to {PIPELINE_TOPICS_MAX} topics"));
    }
    refuse_other_letters(broker, (&wanted.name, &topics))?;
    let of_topic = |topic: &str| {
        let (pipeline, who) = (wanted.name.clone(), wanted.who.clone());
        Operation::Pipeline(PipelineOperation::Retry { pipeline, who, topic: topic.to_owned() })
    };
    let operations = topics.into_iter().map(of_topic).collect();
    match validate_only {
        true => Ok(()),
        false => carry_out(broker, Unit { preconditions: Vec::new(), operations }, deadline).await,
    }
}

/// Refuses topics that get something else than bad records of the pipeline: rows are no letters, and what
/// is put through again counts as an input from then on.
fn refuse_other_letters(broker: &Broker, (name, topics): (&str, &[&str])) -> Result<(), Failure> {
    // It is read when nobody waits for the state: a file may be long.
    let file =
        broker.site.read(|state| state.pipeline(name).map(|known| known.definition.file.clone()));
    let (Some(planner), Some(file)) = (broker.planner.get(), file) else { return Ok(()) };
    let Ok(planned) = planner.plan(&file) else { return Ok(()) };
    let letters = planned.dead_letters;
    let Some(other) = topics.iter().find(|topic| !letters.iter().any(|of| of == *topic)) else {
        return Ok(());
    };
    let to = match letters.as_slice() {
        [] => "nowhere".to_owned(),
        some => format!("to {}", some.join(", ")),
    };
    invalid(format!("the file sends no bad records to {other}, but {to}"))
}

fn definition(
    broker: &Broker,
    wanted: &mut Wanted,
    file: String,
) -> Result<PipelineDefinition, Failure> {
    if file.len() > PIPELINE_FILE_BYTES_MAX {
        return invalid(format!("a file has at most {PIPELINE_FILE_BYTES_MAX} bytes"));
    }
    let paused = wanted.take(PAUSED).map(|text| flag(PAUSED, &text)).transpose()?;
    let latency_ms = match wanted.take(LATENCY_MS) {
        None => LATENCY_MS_DEFAULT,
        Some(text) => match text.parse() {
            Ok(ms) if (1..=LATENCY_MS_MAX).contains(&ms) => ms,
            Ok(_) | Err(_) => {
                let range = format!("a number of milliseconds from 1 to {LATENCY_MS_MAX}");
                return invalid(format!("`{LATENCY_MS}` is {range}, and not `{text}`"));
            }
        },
    };
    let Some(planner) = broker.planner.get() else {
        return refuse(ErrorCode::InvalidRequest, "this node runs no pipelines");
    };
    let planned = planner.plan(&file).or_else(invalid)?;
    let (inputs, outputs, shape) = (planned.inputs, planned.outputs, planned.shape);
    let paused = paused.unwrap_or(false);
    Ok(PipelineDefinition { file, inputs, outputs, shape, paused, latency_ms })
}

/// Says who would feed whom. What stands when the unit is applied decides.
fn refuse_circle(
    state: &State,
    (name, definition): (&str, &PipelineDefinition),
) -> Result<(), Failure> {
    let Some(way) = state.circle(name, definition) else { return Ok(()) };
    let mut text = format!("the pipelines would feed each other for ever: {name} writes ");
    for (at, of) in way.iter().enumerate() {
        let is_topic = at.is_multiple_of(2);
        text += if is_topic { "" } else { ", which feeds " };
        text += of;
        text += if is_topic { "" } else { ", which writes " };
    }
    refuse(error_map::of_refusal(Refusal::Circle), format!("{text}, which feeds {name}"))
}

/// What creates the topics that a pipeline writes and that are not there.
fn missing_outputs(
    state: &State,
    definition: &PipelineDefinition,
) -> Result<Vec<Operation>, Failure> {
    let mut partitions = 1;
    for input in &definition.inputs {
        let Some(topic) = state.topics().by_name(input) else {
            let message = format!("there is no topic {input}, which the pipeline reads");
            return refuse(ErrorCode::UnknownTopicOrPartition, message);
        };
        partitions = partitions.max(topic.partitions);
    }
    let missing = definition.outputs.iter();
    let missing = missing.filter(|output| state.topics().by_name(output).is_none());
    let create = |name: &String| {
        let topic = TopicId(Uuid::from_random(random::random_16()));
        let configs = vec![chain_key()];
        Operation::CreateTopic { topic, name: name.clone(), partitions, configs }
    };
    Ok(missing.map(create).collect())
}

/// Keeps the state of a pipeline under a name, or forgets it.
pub(super) async fn set_savepoint(
    broker: &Broker,
    mut wanted: Wanted,
    validate_only: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    let expected = wanted.expected()?;
    let pipeline = wanted.take(PIPELINE);
    wanted.nothing_else("a savepoint")?;
    if validate_only {
        return Ok(());
    }
    if let Some(pipeline) = &pipeline {
        take_delta(broker, pipeline, deadline).await?;
    }
    let Wanted { name, who, .. } = wanted;
    let set = PipelineOperation::SetSavepoint { name, expected, who, pipeline };
    carry_out(broker, Unit::of(Operation::Pipeline(set)), deadline).await
}

/// Asks for a delta, and waits for it. A pipeline that has failed takes none: its last one is its state.
pub(super) async fn take_delta(
    broker: &Broker,
    pipeline: &str,
    deadline: Instant,
) -> Result<(), Failure> {
    let wish = PipelineOperation::WantDelta { pipeline: pipeline.to_owned() };
    let wish = broker.proposer.propose(Unit::of(Operation::Pipeline(wish)));
    let results = match time::timeout_at(deadline, wish).await.unwrap_or(Answer::Unknown) {
        Answer::Done { result: UnitResult::Done(results), .. } => results,
        Answer::Done { result: UnitResult::Refused(refusal), .. } => return Err(refusal.into()),
        Answer::NotDone => return Err(Unanswered::NotDone.into()),
        Answer::NoRoom => return Err(Unanswered::NoRoom.into()),
        Answer::Unknown => return Err(Unanswered::Unknown.into()),
    };
    let Some(OperationResult::DeltaWanted { epoch }) = results.first() else {
        return Err(Unanswered::Unknown.into());
    };
    let watch = broker.site.watch_pipelines();
    loop {
        let run = broker.site.read(|state| state.run(pipeline).cloned());
        let run = run.ok_or(Refusal::UnknownPipeline)?;
        if run.delta_epoch >= *epoch || run.failed.is_some() {
            return Ok(());
        }
        if time::timeout_at(deadline, watch.changed()).await.is_err() {
            let message = "the node that runs the pipeline has not written its state in time";
            return refuse(ErrorCode::RequestTimedOut, message);
        }
    }
}

/// The settings of a pipeline or a savepoint, if there is one of the name.
pub(super) fn settings(state: &State, resource_type: i8, name: &str) -> Option<Values> {
    let (number, changed, mut settings) = if resource_type == RESOURCE_PIPELINE {
        let pipeline = state.pipeline(name)?;
        (pipeline.number, &pipeline.changed, pipeline.definition.settings())
    } else {
        let savepoint = state.savepoint(name)?;
        let shape: String = savepoint.shape.iter().map(|byte| format!("{byte:02x}")).collect();
        let settings = [
            (PIPELINE, savepoint.pipeline.clone()),
            ("shape", shape),
            ("epoch", savepoint.epoch.to_string()),
            ("age-ms", savepoint.age_ms.to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        (savepoint.number, &savepoint.changed, settings)
    };
    settings.push((NUMBER.to_owned(), number.to_string()));
    settings.push((CHANGED_BY.to_owned(), changed.who.clone()));
    settings.push((CHANGED_MS.to_owned(), changed.wall_ms.to_string()));
    Some(settings)
}

/// The names of all pipelines, or of all savepoints.
pub(super) fn names(state: &State, resource_type: i8) -> Vec<String> {
    match resource_type {
        RESOURCE_PIPELINE => state.pipelines().map(|pipeline| pipeline.name.clone()).collect(),
        RESOURCE_MADE_OF => {
            let topics = state.topics().iter().filter(|topic| state.made_of(&topic.name).is_some());
            topics.map(|topic| topic.name.clone()).collect()
        }
        _ => state.savepoints().map(|savepoint| savepoint.name.clone()).collect(),
    }
}
