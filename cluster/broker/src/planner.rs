//! What a file of a pipeline means, as far as the log has to know it. This crate knows nothing of SQL: the
//! node brings somebody along who does.

use fulmar_types::pipeline::Shape;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The topics that it reads, by name, each once.
    pub inputs: Vec<String>,
    /// The topics that it writes, each once.
    pub outputs: Vec<String>,
    /// Those of them that get its bad records.
    pub dead_letters: Vec<String>,
    /// What its state depends on.
    pub shape: Shape,
}

/// Reads files of pipelines.
pub trait Planner: Send + Sync + 'static {
    /// What a file means.
    ///
    /// # Errors
    /// For people: what is wrong with it, and where.
    fn plan(&self, file: &str) -> Result<Planned, String>;
}
