//! Pipelines of a site, and the savepoints of their state.
//!
//! Invariant: as in `links.rs`, what is told has a number, and who changes it and names that number changes
//! what he has seen, or nothing.

use crate::admin::AlterTopicError;
use crate::cluster::Cluster;
use crate::links::{DescribeError, LaidDown};
use crate::metadata::TopicPartition;
use crate::replace::Wanted;
use fulmar_host::time::{self, Duration};
use fulmar_types::PartitionIndex;
use fulmar_types::pipeline::{
    FILE, INPUTS, LATENCY_MS, OUTPUTS, PAUSED, PipelineDefinition, RETRY, SHAPE, START, Shape,
    Start,
};
use fulmar_wire::{RESOURCE_PIPELINE, RESOURCE_PIPELINE_STATUS, RESOURCE_SAVEPOINT};
use std::collections::BTreeMap;

/// Among the settings of a savepoint: whose state it is.
const PIPELINE: &str = "pipeline";

/// Among those of a pipeline that is removed: whether its savepoints go too.
const SAVEPOINTS: &str = "savepoints";

/// What a pipeline is to be. What it reads and writes the site finds in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// What it does: docs/SQL.md.
    pub file: String,
    /// Whether it does not run for now.
    pub paused: bool,
    /// The pause between two epochs, in milliseconds; the site's default if `None`.
    pub latency_ms: Option<u32>,
    /// With which state it begins.
    pub start: Start,
}

impl PipelineSettings {
    /// A pipeline that runs this file, and goes on with the state that it has.
    pub fn of(file: impl Into<String>) -> Self {
        Self { file: file.into(), paused: false, latency_ms: None, start: Start::Keep }
    }

    fn settings(&self) -> Vec<(String, String)> {
        let all = [
            (FILE, Some(self.file.clone())),
            (PAUSED, Some(self.paused.to_string())),
            (LATENCY_MS, self.latency_ms.map(|ms| ms.to_string())),
            (START, Some(self.start.to_string())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// The state of a pipeline that is kept under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointTold {
    /// Whose it is.
    pub pipeline: String,
    /// What a pipeline has to be, to go on with it.
    pub shape: Shape,
    /// The last epoch that is in it.
    pub epoch: u64,
}

/// How far a partition has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputTold {
    /// The offset that is read next.
    pub next: u64,
    /// That of the next record.
    pub end: u64,
    /// Records that were gone before they were read.
    pub missed: u64,
    /// How long ago the oldest record came that waits.
    pub behind: Duration,
}

/// What becomes of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineStatus {
    /// The node that runs it.
    pub owner: Option<u64>,
    /// The number of its claim.
    pub fence: u64,
    /// The last epoch.
    pub epoch: u64,
    /// How long ago it ended.
    pub epoch_ago: Duration,
    /// The epoch up to which its state is in the log.
    pub delta_epoch: u64,
    /// Why it cannot go on.
    pub failed: Option<String>,
    /// What its owner said with the last epoch.
    pub facts: Vec<u8>,
    /// What it reads.
    pub inputs: BTreeMap<TopicPartition, InputTold>,
    /// Dead letters that are to be put through again: from which offset to which.
    pub letters: BTreeMap<TopicPartition, (u64, u64)>,
    /// There is more than one answer holds.
    pub is_truncated: bool,
}

impl PipelineStatus {
    /// Reads the names and values of `broker/src/handlers/pipeline_status.rs`. `None` if one makes no
    /// sense; names that are not known are passed over.
    fn read<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut status = Self::default();
        let (mut age_ms, mut site_age_ms) = (0u64, 0u64);
        for (name, value) in values {
            match name {
                "owner" => status.owner = value.parse().ok(),
                "fence" => status.fence = value.parse().ok()?,
                "epoch" => status.epoch = value.parse().ok()?,
                "age-ms" => age_ms = value.parse().ok()?,
                "site-age-ms" => site_age_ms = value.parse().ok()?,
                "delta-epoch" => status.delta_epoch = value.parse().ok()?,
                "failed" => status.failed = Some(value.to_owned()),
                "facts" => status.facts = bytes(value)?,
                "truncated" => status.is_truncated = true,
                name => status.read_input(name, value)?,
            }
        }
        status.epoch_ago = Duration::from_millis(site_age_ms.saturating_sub(age_ms));
        Some(status)
    }

    fn read_input(&mut self, name: &str, value: &str) -> Option<()> {
        let Some((kind, of)) = name.split_once('/') else { return Some(()) };
        if !["input", "letters"].contains(&kind) {
            return Some(());
        }
        let (topic, partition) = of.rsplit_once('/')?;
        let of = TopicPartition::new(topic, PartitionIndex(partition.parse().ok()?));
        let numbers: Option<Vec<u64>> = value.split(' ').map(|text| text.parse().ok()).collect();
        if kind == "letters" {
            let [next, until] = numbers?[..] else { return None };
            self.letters.insert(of, (next, until));
            return Some(());
        }
        let [next, end, missed, ms] = numbers?[..] else { return None };
        let behind = Duration::from_millis(ms);
        self.inputs.insert(of, InputTold { next, end, missed, behind });
        Some(())
    }
}

/// Bytes out of hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16));
    pairs.collect::<Result<_, _>>().ok()
}

fn shape(text: &str) -> Option<Shape> {
    bytes(text)?.try_into().ok()
}

/// A value among settings, read.
fn value<T>(
    settings: &[(String, String)],
    name: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, DescribeError> {
    let found = settings.iter().find(|(known, _)| known == name);
    let unclear = || DescribeError::Unclear(format!("it has no {name} that can be read"));
    found.and_then(|(_, value)| read(value)).ok_or_else(unclear)
}

fn definition(settings: &[(String, String)]) -> Result<PipelineDefinition, DescribeError> {
    let names = |text: &str| {
        let names = text.split(',').filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    };
    Ok(PipelineDefinition {
        file: value(settings, FILE, |file| Some(file.to_owned()))?,
        inputs: value(settings, INPUTS, names)?,
        outputs: value(settings, OUTPUTS, names)?,
        shape: value(settings, SHAPE, shape)?,
        paused: value(settings, PAUSED, |text| text.parse().ok())?,
        latency_ms: value(settings, LATENCY_MS, |text| text.parse().ok())?,
    })
}

impl Cluster {
    /// Defines a pipeline anew. `expected` is the number that it must have, 0 if there must be none, `None`
    /// if that does not matter.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn set_pipeline(
        &self,
        name: &str,
        expected: Option<u64>,
        settings: &PipelineSettings,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let resource = (RESOURCE_PIPELINE, name);
        self.replace_settings(resource, expected, settings.settings(), timeout).await
    }

    /// Removes a pipeline, and its savepoints if that is said.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn remove_pipeline(
        &self,
        name: &str,
        with_savepoints: bool,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = vec![(SAVEPOINTS.to_owned(), with_savepoints.to_string())];
        self.replace_settings((RESOURCE_PIPELINE, name), None, settings, timeout).await
    }

    /// Lets a pipeline put what lies in some of its outputs by now through again: the dead letters among it.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn retry_letters(
        &self,
        name: &str,
        topics: &[String],
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = vec![(RETRY.to_owned(), topics.join(","))];
        let (resource_type, name) = (RESOURCE_PIPELINE, name.to_owned());
        let wanted = Wanted { resource_type, name, expected: None, settings };
        self.replace_any(&wanted, time::now() + timeout).await
    }

    /// All pipelines, by name.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn pipelines(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, LaidDown<PipelineDefinition>>, DescribeError> {
        self.laid_down(RESOURCE_PIPELINE, timeout, definition).await
    }

    /// Keeps the state of a pipeline under a name, or forgets what was kept under it. The owner of the
    /// pipeline writes its state first, so this may take a moment.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn set_savepoint(
        &self,
        name: &str,
        expected: Option<u64>,
        pipeline: Option<&str>,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = pipeline.map(|pipeline| (PIPELINE.to_owned(), pipeline.to_owned()));
        let settings = settings.into_iter().collect();
        self.replace_settings((RESOURCE_SAVEPOINT, name), expected, settings, timeout).await
    }

    /// What becomes of a pipeline. `None` if there is none of the name.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn pipeline_status(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<PipelineStatus>, DescribeError> {
        let status = |values: Vec<(&str, &str)>| PipelineStatus::read(values);
        self.status_of((RESOURCE_PIPELINE_STATUS, name), timeout, status).await
    }

    /// All savepoints, by name.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn savepoints(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, LaidDown<SavepointTold>>, DescribeError> {
        let savepoint = |settings: &[(String, String)]| {
            Ok(SavepointTold {
                pipeline: value(settings, PIPELINE, |name| Some(name.to_owned()))?,
                shape: value(settings, SHAPE, shape)?,
                epoch: value(settings, "epoch", |text| text.parse().ok())?,
            })
        };
        self.laid_down(RESOURCE_SAVEPOINT, timeout, savepoint).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_reads_back_and_nonsense_is_refused() {
        let pipeline = PipelineDefinition {
            file: "INSERT".to_owned(),
            inputs: vec!["a".to_owned(), "b".to_owned()],
            outputs: Vec::new(),
            shape: [0xa7; 16],
            paused: true,
            latency_ms: 7,
        };
        let settings = pipeline.settings();
        assert_eq!(definition(&settings), Ok(pipeline));
        for (at, bad) in [(3, "a7"), (3, &"é".repeat(16)), (4, "perhaps"), (5, "-1")] {
            let mut settings = settings.clone();
            settings[at].1 = bad.to_owned();
            assert!(definition(&settings).is_err(), "{bad}");
        }
        assert!(definition(&settings[1..]).is_err(), "without a file");
    }

    #[test]
    fn a_status_is_read_and_nonsense_is_refused() {
        let told = [
            ("owner", "2"),
            ("epoch", "7"),
            ("age-ms", "900"),
            ("site-age-ms", "1000"),
            ("facts", "01ff"),
            ("later", "what nobody knows yet"),
            ("input/a.b/3", "5 9 1 250"),
            ("letters/a.b/3", "2 4"),
        ];
        let status = PipelineStatus::read(told).expect("it makes sense");
        assert_eq!((status.owner, status.epoch, &*status.facts), (Some(2), 7, &[1, 255][..]));
        assert_eq!(status.epoch_ago, Duration::from_millis(100));
        let of = TopicPartition::new("a.b", PartitionIndex(3));
        let behind = Duration::from_millis(250);
        assert_eq!(status.inputs[&of], InputTold { next: 5, end: 9, missed: 1, behind });
        assert_eq!(status.letters[&of], (2, 4));
        for bad in [
            ("letters/a/0", "1"),
            ("epoch", "x"),
            ("facts", "0"),
            ("facts", "zz"),
            ("input/a/0", "1 2 3"),
        ] {
            assert_eq!(PipelineStatus::read([bad]), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_not_said() {
        let names = |settings: &PipelineSettings| {
            settings.settings().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let settings = PipelineSettings::of("INSERT");
        assert_eq!(names(&settings), [FILE, PAUSED, START]);
        let settings = PipelineSettings { latency_ms: Some(5), ..settings };
        assert_eq!(names(&settings), [FILE, PAUSED, LATENCY_MS, START]);
    }
}
