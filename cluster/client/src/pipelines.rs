//! Pipelines of a site, and the savepoints of their state.
//!
//! Invariant: as in `links.rs`, what is told has a number, and who changes it and names that number changes
//! what he has seen, or nothing.

use crate::admin::AlterTopicError;
use crate::cluster::Cluster;
use crate::links::{DescribeError, LaidDown};
use fulmar_host::time::Duration;
use fulmar_types::pipeline::{
    FILE, INPUTS, LATENCY_MS, OUTPUTS, PAUSED, PipelineDefinition, SHAPE, START, Shape, Start,
};
use fulmar_wire::{RESOURCE_PIPELINE, RESOURCE_SAVEPOINT};
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

fn shape(text: &str) -> Option<Shape> {
    let mut shape = Shape::default();
    if text.len() != 2 * shape.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in shape.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(shape)
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
        pipeline: Option<&str>,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = pipeline.map(|pipeline| (PIPELINE.to_owned(), pipeline.to_owned()));
        let settings = settings.into_iter().collect();
        self.replace_settings((RESOURCE_SAVEPOINT, name), None, settings, timeout).await
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
