//! The process that a node runs in.

use fulmar_types::ExitCode;

/// The process of a node.
pub trait Process: Send + Sync {
    /// Ends the process with a code and a message for people on standard error.
    ///
    /// A real process does not return from this. In a simulation the node loses its network and
    /// its disk before this returns, and its tasks are stopped right after.
    fn exit(&self, code: ExitCode, message: &str);
}
