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
        "the disk failed on a write or a flush; replace it before you start it again",
    ),
    (ExitCode::DiskRead, "the disk failed on a read; replace it before you start it again"),
    (
        ExitCode::Damaged,
        "stored bytes are damaged where they may have been acknowledged; nothing was deleted, and \
         the message names the file",
    ),
    (
        ExitCode::Identity,
        "its directory belongs to another node, or is empty while the site is not",
    ),
    (ExitCode::UnknownEntry, "the site uses something that this version does not know; upgrade it"),
    (ExitCode::CoreDead, "its consensus core stopped"),
    (ExitCode::Locked, "another process uses its directory"),
    (ExitCode::Bind, "one of its addresses is in use or not of this machine"),
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
    fn ends_are_described() {
        let code = |code: i32| describe(ExitStatus::from_raw(code << 8));
        assert_eq!(code(0), "ended with code 0: it was stopped");
        assert!(code(46).contains("another process uses its directory"));
        assert!(code(99).contains("no code of Fulmar"));
        assert_eq!(describe(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert!(describe(ExitStatus::from_raw(6)).contains("bug"));
    }
}
