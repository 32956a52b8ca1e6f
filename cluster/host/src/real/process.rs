//! The end of this process.

use crate::process::Process;
use fulmar_types::ExitCode;
use std::io::Write;

/// The process that this code runs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealProcess;

impl Process for RealProcess {
    fn exit(&self, code: ExitCode, message: &str) {
        // A closed standard error must not keep a node with a broken disk alive.
        let _ = writeln!(std::io::stderr().lock(), "fulmar: {message}");
        std::process::exit(i32::from(code.code()))
    }
}
