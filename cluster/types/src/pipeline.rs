//! What a site has laid down about a pipeline: SQL that runs inside it.
//!
//! Invariant: inputs, outputs and shape are what the node that took the file has found in it, and never
//! what a client says of it.

use std::fmt;

/// Pipelines of a site, at most.
pub const PIPELINES_PER_SITE_MAX: usize = 1_024;

/// The longest name of a pipeline, in bytes: its internal topic has a name too.
pub const PIPELINE_NAME_BYTES_MAX: usize = 200;

/// The longest file, in bytes.
pub const PIPELINE_FILE_BYTES_MAX: usize = 256 << 10;

/// Topics that one pipeline reads, at most, and as many again that it writes.
pub const PIPELINE_TOPICS_MAX: usize = 64;

/// Partitions that one pipeline reads, at most.
pub const PIPELINE_PARTITIONS_MAX: usize = 4_096;

/// The same for all pipelines of a site: the state keeps some hundred bytes for each.
pub const PIPELINE_PARTITIONS_PER_SITE_MAX: usize = 65_536;

/// What a pipeline may tell of itself with each epoch, in bytes.
pub const PIPELINE_FACTS_BYTES_MAX: usize = 64 << 10;

/// The longest reason for which a pipeline has failed, in bytes.
pub const PIPELINE_REASON_BYTES_MAX: usize = 1_024;

/// Epochs of a pipeline that are kept in the log of epochs, at most: those since its last delta.
pub const EPOCHS_LOGGED_MAX: usize = 4_096;

/// Ranges of input in these epochs, at most.
pub const RANGES_LOGGED_MAX: u32 = 16_384;

/// The same for all pipelines of a site, at some forty bytes each.
pub const RANGES_LOGGED_PER_SITE_MAX: u32 = 262_144;

/// Batches that one epoch appends, at most.
pub const APPENDS_PER_EPOCH_MAX: u32 = 1 << 20;

/// Deltas from which the state of a pipeline is put together, at most.
pub const DELTAS_MAX: usize = 2_048;

/// Savepoints of a site, at most.
pub const SAVEPOINTS_PER_SITE_MAX: usize = 256;

/// The longest part of a delta, in bytes.
pub const STATE_PART_BYTES_MAX: usize = 256 << 10;

/// The pause between two epochs for which nothing else is said, in milliseconds.
pub const LATENCY_MS_DEFAULT: u32 = 20;

/// The longest one.
pub const LATENCY_MS_MAX: u32 = 60_000;

/// A digest of everything in a file that the state of its pipeline depends on: with the same shape one
/// can go on with the state of the other.
pub type Shape = [u8; 16];

/// A hash over everything that an epoch puts out, in its order.
pub type OutputHash = [u8; 16];

/// Among the settings of a pipeline: its text.
pub const FILE: &str = "file";
/// The topics that it reads. Found in the file, and never given.
pub const INPUTS: &str = "inputs";
/// The topics that it writes. Found in the file, and never given.
pub const OUTPUTS: &str = "outputs";
/// What its state depends on. Found in the file, and never given.
pub const SHAPE: &str = "shape";
/// Whether it does not run for now.
pub const PAUSED: &str = "paused";
/// The pause between two epochs, in milliseconds.
pub const LATENCY_MS: &str = "latency-ms";
/// With which state it begins. Not kept.
pub const START: &str = "start";

/// Asks for dead letters to be put through again: topics, with commas. Not kept.
pub const RETRY: &str = "retry-dead-letters";

const INTERNAL: &str = "__pipeline.";

/// The topic with the state of a pipeline.
pub fn internal_topic(pipeline: &str) -> String {
    format!("{INTERNAL}{pipeline}")
}

/// Whether a topic of this name has the state of a pipeline, or would have.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with(INTERNAL)
}

/// A pipeline as it is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineDefinition {
    /// What it does.
    pub file: String,
    /// The topics that it reads, by name, each once.
    pub inputs: Vec<String>,
    /// The topics that it writes, each once.
    pub outputs: Vec<String>,
    /// What its state depends on.
    pub shape: Shape,
    /// It does not run for now.
    pub paused: bool,
    /// The pause between two epochs, in milliseconds.
    pub latency_ms: u32,
}

impl PipelineDefinition {
    /// Whether nothing in it is longer, or there more often, than may be. Names are looked at where
    /// topics are.
    pub fn is_within_limits(&self) -> bool {
        let is_list = |names: &[String]| names.len() <= PIPELINE_TOPICS_MAX && are_distinct(names);
        !self.file.is_empty()
            && self.file.len() <= PIPELINE_FILE_BYTES_MAX
            && !self.inputs.is_empty()
            && is_list(&self.inputs)
            && is_list(&self.outputs)
            && (1..=LATENCY_MS_MAX).contains(&self.latency_ms)
    }

    /// It as names and values, in which form it is told; lists have commas between.
    pub fn settings(&self) -> Vec<(String, String)> {
        let shape: String = self.shape.iter().map(|byte| format!("{byte:02x}")).collect();
        [
            (FILE, self.file.clone()),
            (INPUTS, self.inputs.join(",")),
            (OUTPUTS, self.outputs.join(",")),
            (SHAPE, shape),
            (PAUSED, self.paused.to_string()),
            (LATENCY_MS, self.latency_ms.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Whether both do the same, paused or not.
    pub fn runs_as(&self, other: &Self) -> bool {
        (&self.file, &self.inputs, &self.outputs, self.shape)
            == (&other.file, &other.inputs, &other.outputs, other.shape)
    }
}

fn are_distinct(names: &[String]) -> bool {
    names.iter().enumerate().all(|(at, name)| !names[..at].contains(name))
}

/// With which state a pipeline begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The one that it has, or none if it is new.
    #[default]
    Keep,
    /// None, and with the oldest records that are there.
    Fresh,
    /// That of a savepoint, by name.
    Savepoint(String),
}

impl Start {
    /// What was written: `keep`, `fresh` or `savepoint NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "keep" => Some(Self::Keep),
            "fresh" => Some(Self::Fresh),
            _ => {
                let name = text.strip_prefix("savepoint ").map(str::trim)?;
                (!name.is_empty()).then(|| Self::Savepoint(name.to_owned()))
            }
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Fresh => f.write_str("fresh"),
            Self::Savepoint(name) => write!(f, "savepoint {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> PipelineDefinition {
        PipelineDefinition {
            file: "file".to_owned(),
            inputs: vec!["a".to_owned(), "b".to_owned()],
            outputs: vec!["c".to_owned()],
            latency_ms: LATENCY_MS_DEFAULT,
            ..PipelineDefinition::default()
        }
    }

    #[test]
    fn limits_are_kept() {
        assert!(definition().is_within_limits());
        let bad: [fn(&mut PipelineDefinition); 7] = [
            |bad| bad.file.clear(),
            |bad| bad.file = "x".repeat(PIPELINE_FILE_BYTES_MAX + 1),
            |bad| bad.inputs.clear(),
            |bad| bad.inputs[1] = "a".to_owned(),
            |bad| bad.outputs = (0..65).map(|n| n.to_string()).collect(),
            |bad| bad.latency_ms = 0,
            |bad| bad.latency_ms = LATENCY_MS_MAX + 1,
        ];
        for (at, change) in bad.into_iter().enumerate() {
            let mut definition = definition();
            change(&mut definition);
            assert!(!definition.is_within_limits(), "{at}");
        }
    }

    #[test]
    fn what_runs_does_not_depend_on_how_often_or_whether() {
        let (one, mut other) = (definition(), definition());
        (other.paused, other.latency_ms) = (true, 5);
        assert!(one.runs_as(&other));
        other.shape = [1; 16];
        assert!(!one.runs_as(&other));
    }

    #[test]
    fn a_start_reads_back() {
        for start in [Start::Keep, Start::Fresh, Start::Savepoint("before.august".to_owned())] {
            assert_eq!(Start::parse(&start.to_string()), Some(start));
        }
        for bad in ["", "savepoint", "savepoint  ", "Keep"] {
            assert_eq!(Start::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_topic_of_a_pipeline_is_known_by_its_name() {
        assert!(is_internal(&internal_topic("totals")));
        assert!(!is_internal("totals"));
    }
}
