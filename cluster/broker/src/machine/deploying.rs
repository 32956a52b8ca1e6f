//! What becomes of pipelines when somebody defines, changes or removes one, and what their state is kept
//! as under a name.
//!
//! | the pipeline | start | what becomes of its state |
//! |---|---|---|
//! | is new | keep, fresh | it begins with the oldest records |
//! | is the same, paused or not | keep | it goes on; who owns it goes on owning it |
//! | is another | keep | it goes on, if it has the same shape and nothing that no delta covers |
//! | is there | fresh | it begins anew with the oldest records |
//! | is there | savepoint | it is what the savepoint says, if that has the same shape |
//!
//! Invariants: everything is looked at before anything changes; what belongs to a pipeline goes with it;
//! parts that a savepoint needs stay.
//!
//! Never: let the state of one shape become that of another.

use super::changes::{ChangeOf, Changed, Settings};
use super::outcome::{OperationResult, Refusal};
use super::pipelines::{ByEpoch, Delta, Making, Pipeline, Position, Run, Savepoint};
use super::state::{State, Step};
use super::topics::{CHAIN_KEY_CONFIG, Topic, is_valid_name};
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_store::entry::{NewPipeline, PipelineChange};
use fulmar_types::pipeline::{
    PIPELINE_NAME_BYTES_MAX, PIPELINE_PARTITIONS_MAX, PIPELINE_PARTITIONS_PER_SITE_MAX,
    PIPELINES_PER_SITE_MAX, PipelineDefinition, SAVEPOINTS_PER_SITE_MAX, START, Start,
    internal_topic, is_internal,
};
use fulmar_types::{Event, Offset, Plant, TopicId};

/// With what a pipeline that is set begins.
enum Beginning {
    /// With what it has, and with the owner that it has.
    AsItIs,
    /// With the state that it has, under another owner.
    WithState,
    /// With no state.
    Anew,
    /// With this state.
    With(Savepoint),
}

fn settings(definition: &PipelineDefinition, start: &Start) -> Settings {
    let mut settings = definition.settings();
    if *start != Start::Keep {
        settings.push((START.to_owned(), start.to_string()));
    }
    settings
}

pub(super) fn is_name(name: &str) -> bool {
    is_valid_name(name) && name.len() <= PIPELINE_NAME_BYTES_MAX
}

impl State {
    pub(super) fn change_pipeline(
        &mut self,
        step: &mut Step,
        (name, who): (String, String),
        change: PipelineChange,
    ) -> Result<OperationResult, Refusal> {
        let number = match change {
            PipelineChange::Set(new) => self.set_pipeline(step, (name, who), new)?,
            PipelineChange::Remove { savepoints } => {
                self.remove_pipeline(step, (name, who), savepoints)?
            }
        };
        Ok(OperationResult::PipelineSet { number })
    }

    fn set_pipeline(
        &mut self,
        step: &mut Step,
        (name, who): (String, String),
        new: NewPipeline,
    ) -> Result<u64, Refusal> {
        let NewPipeline { topic, secret, definition, start } = new;
        if !is_name(&name) || !definition.is_within_limits() {
            return Err(Refusal::InvalidPipeline);
        }
        self.check_topics(&name, &definition)?;
        let beginning = self.beginning(&name, &definition, &start)?;
        let known = self.pipelines.get(&name).cloned();
        let topic = match &known {
            Some(known) => known.topic,
            None if self.pipelines.len() >= PIPELINES_PER_SITE_MAX => {
                return Err(Refusal::LimitReached);
            }
            None => {
                let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
                let configs = vec![(CHAIN_KEY_CONFIG.to_owned(), secret)];
                self.new_topic(topic, internal_topic(&name), 1, configs)?;
                topic
            }
        };
        let before = known.as_ref().map(|known| settings(&known.definition, &Start::Keep));
        let after = Some(settings(&definition, &start));
        let (number, changed) = self.note(step, (ChangeOf::Pipeline, &name, who), (before, after));
        self.note_makings(&definition.outputs, &definition.inputs);
        if let Some(known) = &known {
            self.forget_inputs_but(known, &definition);
            self.change_letters(known, &definition.outputs);
        }
        let (of, paused) = (name.clone(), definition.paused);
        self.pipelines.put(Pipeline { name, number, changed, topic, definition });
        self.begin_pipeline(step, &of, beginning);
        if !paused {
            self.runs.modify(&of, |run| run.failed = None);
        }
        Ok(number)
    }

    /// Whether the topics of a pipeline are there, and may be what it says.
    fn check_topics(&self, name: &String, definition: &PipelineDefinition) -> Result<(), Refusal> {
        let mut partitions = 0;
        for input in &definition.inputs {
            let topic = self.topics.by_name(input).ok_or(Refusal::UnknownTopic)?;
            if is_internal(input) {
                return Err(Refusal::IsInternal);
            }
            if definition.outputs.contains(input) {
                return Err(Refusal::OwnInput);
            }
            partitions += topic.partitions as usize;
        }
        for output in &definition.outputs {
            let topic = self.topics.by_name(output).ok_or(Refusal::UnknownTopic)?;
            if is_internal(output) {
                return Err(Refusal::IsInternal);
            }
            if self.mirrors.get(&topic.id).is_some() {
                return Err(Refusal::IsMirror);
            }
        }
        let of_others = self.positions.iter().filter(|position| position.pipeline != *name).count();
        if self.circle(name, definition).is_some() {
            return Err(Refusal::Circle);
        }
        let written = self.lettered_streams(name, &definition.outputs).len();
        let letters = self.letters.iter().filter(|letters| letters.pipeline != *name).count();
        if partitions.max(written) > PIPELINE_PARTITIONS_MAX
            || of_others + partitions > PIPELINE_PARTITIONS_PER_SITE_MAX
            || letters + written > PIPELINE_PARTITIONS_PER_SITE_MAX
        {
            return Err(Refusal::LimitReached);
        }
        Ok(())
    }

    fn beginning(
        &self,
        name: &String,
        definition: &PipelineDefinition,
        start: &Start,
    ) -> Result<Beginning, Refusal> {
        let known = self.pipelines.get(name);
        // What an epoch puts out is there as a whole or not at all, also if what follows begins elsewhere. One that
        // has failed may not be able to end it.
        let run = self.runs.get(name).filter(|run| run.failed.is_none());
        if let Some(run) = run.filter(|run| run.appends_missing() > 0)
            && *start != Start::Keep
            && !planted(Plant::EpochLeftUnfinished)
        {
            return Err(Refusal::EpochIncomplete { appended: run.appended });
        }
        match (start, known) {
            (Start::Fresh, _) | (Start::Keep, None) => Ok(Beginning::Anew),
            (Start::Keep, Some(known)) => {
                if known.definition.runs_as(definition) && self.inputs(name).is_some() {
                    return Ok(Beginning::AsItIs);
                }
                if known.definition.shape != definition.shape {
                    return Err(Refusal::OtherShape);
                }
                let run = self.runs.get(name).expect("every pipeline has one");
                let has_read = |stream| self.positions.get(&(stream, name.clone())).is_some();
                if run.epoch > 0 && !self.streams_of(&definition.inputs).into_iter().all(has_read) {
                    return Err(Refusal::OtherInput);
                }
                let is_settled = run.is_settled() || planted(Plant::FileChangedUnsettled);
                if is_settled { Ok(Beginning::WithState) } else { Err(Refusal::NotSettled) }
            }
            (Start::Savepoint(savepoint), _) => {
                let savepoint = self.savepoints.get(savepoint);
                let savepoint = savepoint.filter(|savepoint| savepoint.pipeline == *name);
                let savepoint = savepoint.ok_or(Refusal::UnknownSavepoint)?;
                if savepoint.shape != definition.shape {
                    return Err(Refusal::OtherShape);
                }
                let has_read = |at: StreamId| savepoint.positions.iter().any(|(of, _)| *of == at);
                if !self.streams_of(&definition.inputs).into_iter().all(has_read) {
                    return Err(Refusal::OtherInput);
                }
                Ok(Beginning::With(savepoint.clone()))
            }
        }
    }

    /// What is written is made of what is read, from now on and for as long as the topic is there.
    pub(super) fn note_makings(&mut self, outputs: &[String], inputs: &[String]) {
        for output in outputs {
            let Some(topic) = self.topics.by_name(output) else { continue };
            // What lies there already was made of who knows what.
            let has_more = topic.streams().any(|stream| self.known(stream).next > Offset(0));
            let topic = topic.id;
            let known = self.makings.get(&topic).cloned();
            let none = Making { topic, has_more, of: Vec::new() };
            let mut making = known.clone().unwrap_or(none);
            making.add(inputs);
            if known.as_ref() != Some(&making) {
                self.makings.put(making);
            }
        }
    }

    /// A topic was created. Whatever pipeline writes to a topic of that name may write to this one.
    pub(super) fn note_new_topic(&mut self, name: &String) {
        let writes = |pipeline: &&Pipeline| pipeline.definition.outputs.contains(name);
        let inputs = self.pipelines.iter().filter(writes).map(|of| of.definition.inputs.clone());
        for inputs in inputs.collect::<Vec<_>>() {
            self.note_makings(std::slice::from_ref(name), &inputs);
        }
    }

    /// A topic is gone: what was made of it is from now on made of something that nobody can ask any more,
    /// whatever has its name next.
    pub(super) fn note_gone_topic(&mut self, name: &String) {
        let made = self.makings.iter().filter(|making| {
            let topic = self.topics.get(making.topic);
            let mut streams = topic.into_iter().flat_map(Topic::streams);
            !making.has_more
                && making.of.binary_search(name).is_ok()
                && streams.any(|stream| self.known(stream).next > Offset(0))
        });
        for topic in made.map(|making| making.topic).collect::<Vec<_>>() {
            self.makings.modify(&topic, |making| making.has_more = true);
        }
    }

    /// A client has written to a topic. If pipelines write it too, it is made of more than they read.
    pub(super) fn note_foreign(&mut self, topic: TopicId) {
        if self.makings.get(&topic).is_some_and(|making| !making.has_more) {
            self.makings.modify(&topic, |making| making.has_more = true);
        }
    }

    pub(super) fn streams_of(&self, inputs: &[String]) -> Vec<StreamId> {
        let topics = inputs.iter().filter_map(|input| self.topics.by_name(input));
        topics.flat_map(Topic::streams).collect()
    }

    fn forget_inputs_but(&mut self, known: &Pipeline, definition: &PipelineDefinition) {
        let inputs = known.definition.inputs.iter();
        let gone: Vec<_> =
            inputs.filter(|input| !definition.inputs.contains(input)).cloned().collect();
        for stream in self.streams_of(&gone) {
            self.positions.remove(&(stream, known.name.clone()));
        }
    }

    fn begin_pipeline(&mut self, step: &mut Step, name: &String, beginning: Beginning) {
        let of_name = |run: Option<&Run>| {
            run.cloned().unwrap_or_else(|| Run { pipeline: name.clone(), ..Run::default() })
        };
        let before = of_name(self.runs.get(name));
        let fresh = Run { pipeline: name.clone(), ..Run::default() };
        // One that has come to no epoch yet has its place nevertheless: what expires before it is missed.
        let keeps = matches!(beginning, Beginning::WithState);
        let (run, savepoint) = match beginning {
            Beginning::AsItIs => return,
            Beginning::WithState => (before, None),
            Beginning::Anew => (fresh, None),
            Beginning::With(savepoint) => {
                let (epoch, age_ms) = (savepoint.epoch, savepoint.age_ms);
                let (delta_epoch, delta_age_ms) = (epoch, age_ms);
                (Run { epoch, age_ms, delta_epoch, delta_age_ms, ..fresh }, Some(savepoint))
            }
        };
        self.begin_positions(name, savepoint.as_ref(), keeps);
        if !keeps {
            self.begin_letters(name);
            self.epochs.drop_through(name, u64::MAX);
            self.deltas.drop_through(name, u64::MAX);
            self.facts.remove(name);
        }
        for (epoch, first, end) in savepoint.into_iter().flat_map(|savepoint| savepoint.deltas) {
            self.deltas.put(Delta { pipeline: name.clone(), epoch, first, end });
        }
        self.runs.put(Run { owner: None, fence: step.number(), parts: None, failed: None, ..run });
        let (pipeline, fence) = (name.clone(), step.number());
        step.tell(Event::PipelineOwned { pipeline, owner: None, fence });
        let next = self.known(self.internal(name).1).next;
        self.trim(step, name, Some(next));
    }

    /// Where a pipeline begins to read.
    fn begin_positions(&mut self, name: &String, savepoint: Option<&Savepoint>, keeps: bool) {
        let pipeline = self.pipelines.get(name).expect("it was just put");
        let positions = savepoint.map_or(&[][..], |savepoint| &savepoint.positions);
        for stream in self.streams_of(&pipeline.definition.inputs) {
            let key = (stream, name.clone());
            let is_kept = keeps || planted(Plant::RestoreReadsOn);
            if is_kept && self.positions.get(&key).is_some() {
                continue;
            }
            let saved = positions.iter().find(|(of, _)| *of == stream).map(|(_, next)| *next);
            let next = saved.unwrap_or_else(|| self.known(stream).log_start);
            let pipeline = name.clone();
            self.positions.put(Position { stream, pipeline, next, floor: next, missed: 0 });
        }
    }

    fn remove_pipeline(
        &mut self,
        step: &mut Step,
        (name, who): (String, String),
        with_savepoints: bool,
    ) -> Result<u64, Refusal> {
        let Some(known) = self.pipelines.get(&name).cloned() else {
            if !is_name(&name) {
                return Err(Refusal::InvalidPipeline);
            }
            // What was asked for before is not to be done after this, as for rules.
            return Ok(self.note(step, (ChangeOf::Pipeline, &name, who), (None, None)).0);
        };
        let of_this = self.savepoints.iter().filter(|savepoint| savepoint.pipeline == name);
        let savepoints: Vec<String> = of_this.map(|savepoint| savepoint.name.clone()).collect();
        if !with_savepoints && !savepoints.is_empty() {
            return Err(Refusal::SavepointHeld);
        }
        for savepoint in savepoints {
            self.savepoints.remove(&savepoint);
        }
        for stream in self.streams_of(&known.definition.inputs) {
            self.positions.remove(&(stream, name.clone()));
        }
        self.letters.drop_pipeline(&name);
        self.epochs.drop_through(&name, u64::MAX);
        self.deltas.drop_through(&name, u64::MAX);
        self.facts.remove(&name);
        self.runs.remove(&name);
        self.pipelines.remove(&name);
        self.drop_topic(step, known.topic);
        let before = Some(settings(&known.definition, &Start::Keep));
        Ok(self.note(step, (ChangeOf::Pipeline, &name, who), (before, None)).0)
    }

    /// The state of a pipeline as of its last delta, for a name.
    pub(super) fn savepoint_of(
        &self,
        name: &str,
        pipeline: &String,
        replaces: bool,
    ) -> Result<Savepoint, Refusal> {
        let known = self.pipelines.get(pipeline).ok_or(Refusal::UnknownPipeline)?;
        if !is_name(name) {
            return Err(Refusal::InvalidPipeline);
        }
        let inputs = self.inputs(pipeline).ok_or(Refusal::UnknownTopic)?;
        let positions: Vec<(StreamId, Offset)> =
            inputs.iter().map(|input| (input.stream, input.position.floor)).collect();
        let kept = self.savepoints.iter().filter(|savepoint| savepoint.name != name);
        let kept: usize = kept.map(|savepoint| savepoint.positions.len()).sum();
        let is_full = !replaces && self.savepoints.len() >= SAVEPOINTS_PER_SITE_MAX;
        if is_full || kept + positions.len() > PIPELINE_PARTITIONS_PER_SITE_MAX {
            return Err(Refusal::LimitReached);
        }
        let run = self.runs.get(pipeline).expect("every pipeline has one");
        let deltas = self.deltas(pipeline).map(|delta| (delta.epoch, delta.first, delta.end));
        Ok(Savepoint {
            name: name.to_owned(),
            number: 0,
            changed: Changed::default(),
            pipeline: pipeline.clone(),
            shape: known.definition.shape,
            epoch: run.delta_epoch,
            age_ms: run.delta_age_ms,
            positions,
            deltas: deltas.collect(),
        })
    }
}
