//! What the pipelines of a node have done since it began, for its metrics.

use crate::facts::{Facts, Waiting};
use fulmar_flow::Plan;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one pipeline has done on this node.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Epochs that it has committed.
    pub epochs: u64,
    /// Records that it has read.
    pub records: u64,
    /// Bytes of batches that it has read.
    pub bytes: u64,
    /// Batches that it has written.
    pub batches: u64,
    /// How long its epochs took, from the first record to the answer of the log.
    pub epoch_time: Duration,
    /// About how many bytes its state has.
    pub state_bytes: u64,
    /// What it waits for.
    pub waiting: Waiting,
    /// What it has said of itself with its last epoch, and the plan that has the names for it.
    pub facts: Option<(Arc<Plan>, Facts)>,
}

/// Those of all pipelines that this node runs.
#[derive(Debug, Default)]
pub struct Figures(Mutex<BTreeMap<String, Figure>>);

impl Figures {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Figure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of something.
    pub fn note(&self, pipeline: &str, change: impl FnOnce(&mut Figure)) {
        change(self.locked().entry(pipeline.to_owned()).or_default());
    }

    /// A pipeline does not run here any more.
    pub fn forget(&self, pipeline: &str) {
        self.locked().remove(pipeline);
    }

    /// By name.
    pub fn all(&self) -> Vec<(String, Figure)> {
        self.locked().iter().map(|(name, figure)| (name.clone(), figure.clone())).collect()
    }
}
