//! What the end of a process means, for people (docs/RUNBOOK.md says more).

use fulmar_types::ExitCode;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Every code that a node can end with.
const CODES: &[(ExitCode, &str)] = &[
    (ExitCode::Ok, "it was stopped"),
    (ExitCode::Failed, "it did not do what it was asked for"),
    (ExitCode::Usage, "its command line or its configuration is wrong; nothing was started"),
    (
        ExitCode::DiskWrite,
        "the disk failed on a write or a flush; look at it before you start the node again",
    ),
    (ExitCode::DiskRead, "the disk failed on a read; look at it before you start the node again"),
    (
        ExitCode::Damaged,
        "stored bytes are damaged where they may have been acknowledged; nothing was deleted, and \
         the message names the file",
    ),
    (
        ExitCode::Identity,
        "its directory belongs to another node or to a site of other nodes, or is empty while the \
         site is not",
    ),
    (ExitCode::UnknownEntry, "the site uses something that this version does not know; upgrade it"),
    (ExitCode::CoreDead, "its consensus core stopped"),
    (ExitCode::Locked, "another process uses its directory"),
    (ExitCode::Bind, "one of its addresses is in use or not of this machine"),
    (ExitCode::DiskFull, "the disk is full where a write could not wait; make space"),
    (ExitCode::Diverged, "its state differs from what the log implies"),
    (ExitCode::Crash, "it met a bug in Fulmar; please report it with the log"),
];

/// How a process ended, as a clause: "ended with code 47: one of its addresses ...".
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => {
            let known = CODES.iter().find(|(known, _)| i32::from(known.code()) == code);
            let meaning = known.map_or("which is no code of Fulmar", |(_, meaning)| meaning);
            format!("ended with code {code}: {meaning}")
        }
        // A failed assertion aborts: `panic = "abort"`.
        (None, Some(libc::SIGABRT)) => {
            "was aborted by SIGABRT: it met a bug in Fulmar; please report it with the log".into()
        }
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a code".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_here_and_in_the_runbook() {
        let runbook = include_str!("../../../../docs/RUNBOOK.md");
        let (of_nodes, of_simulator) = runbook
            .split_once("## Exit codes of `fulmar-sim`")
            .expect("the runbook has a table for each");
        for code in ExitCode::ALL {
            let here = CODES.iter().filter(|(known, _)| *known == code).count();
            assert_eq!(here, usize::from(!code.is_of_simulator()), "{code:?}");
            let row = format!("| {} | `{code:?}` |", code.code());
            let is_there = |table: &str| table.lines().any(|line| line.starts_with(&row));
            assert!(is_there(of_nodes) || is_there(of_simulator), "no row for {code:?}");
            // A bug of a node is an abort for whoever watches it, which has a row of its own.
            let is_of_node = !code.is_of_simulator() && code != ExitCode::Crash;
            assert_eq!(is_there(of_nodes), is_of_node, "{code:?}");
        }
    }

    #[test]
    fn ends_are_described() {
        let code = |code: i32| describe(ExitStatus::from_raw(code << 8));
        assert_eq!(code(0), "ended with code 0: it was stopped");
        assert!(code(46).contains("another process uses its directory"));
        assert!(code(99).contains("no code of Fulmar"));
        assert_eq!(describe(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert!(describe(ExitStatus::from_raw(6)).contains("bug"));
    }
}
