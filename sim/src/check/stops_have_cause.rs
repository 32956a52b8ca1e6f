//! A node stops by itself only for a cause that the simulator gave it: damage where bits were
//! flipped, a failing disk where one was made to fail. Every other stop is a false alarm, which
//! takes a node from its site, or one that hides a bug (docs/RUNBOOK.md, "Exit codes of a node").
//!
//! What explains one stop explains no other: a failed read or flush is over with the process that met
//! it. Flipped bits are not, since nobody can know when they are read.
//!
//! A start reads around sectors that the disk does not read, as a power cut may have left them, and
//! judges them like any others; so failing reads may end in damage too.

use super::{Check, Harm, Observation, SiteNode};
use fulmar_types::{Event, ExitCode};
use std::collections::BTreeSet;

/// Remembers what was done to the disks.
#[derive(Default)]
pub struct StopsHaveCause {
    harmed: BTreeSet<(SiteNode, Harm)>,
    compared: u64,
}

/// What a node with this code must have been done to, if anything may be a reason for it. A full disk
/// is no reason to end.
fn causes(code: ExitCode) -> &'static [Harm] {
    match code {
        ExitCode::Damaged => &[Harm::Rot, Harm::ReadError],
        ExitCode::DiskWrite => &[Harm::FlushError],
        ExitCode::DiskRead => &[Harm::ReadError],
        _ => &[],
    }
}

impl Check for StopsHaveCause {
    fn name(&self) -> &'static str {
        "stops_have_cause"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::Fatal { code, message } = seen.event else { return Ok(()) };
        self.compared += 1;
        let explained = causes(*code).iter().any(|harm| self.harmed.contains(&(seen.at, *harm)));
        self.harmed.retain(|(harmed, harm)| *harmed != seen.at || *harm == Harm::Rot);
        if explained {
            return Ok(());
        }
        let said = message.lines().next().unwrap_or_default();
        Err(format!("{} ended with {code:?}, and nothing was done to it: {said}", seen.at))
    }

    fn harmed(&mut self, node: SiteNode, harm: Harm) {
        self.harmed.insert((node, harm));
    }

    fn wiped(&mut self, node: SiteNode) {
        self.harmed.retain(|(harmed, _)| *harmed != node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;
    use fulmar_types::NodeId;

    fn end(code: ExitCode) -> Event {
        Event::Fatal { code, message: "the log is damaged at byte 7\nat a loss".to_owned() }
    }

    #[test]
    fn a_stop_needs_the_harm_that_explains_it() {
        let node = |node| SiteNode { site: 0, node: NodeId(node) };
        let pairs = [
            (ExitCode::Damaged, Harm::Rot),
            (ExitCode::Damaged, Harm::ReadError),
            (ExitCode::DiskWrite, Harm::FlushError),
            (ExitCode::DiskRead, Harm::ReadError),
        ];
        for (code, harm) in pairs {
            let mut check = StopsHaveCause::default();
            check.harmed(node(1), harm);
            assert_eq!(run(&mut check, &[(1, end(code))]), None);
            assert!(run(&mut check, &[(2, end(code))]).is_some(), "another node");
            let again = run(&mut check, &[(1, end(code))]);
            assert_eq!(again.is_none(), harm == Harm::Rot, "{harm:?} explains one stop");
            check.harmed(node(1), harm);
            assert!(run(&mut check, &[(1, end(ExitCode::Diverged))]).is_some(), "never explained");
            check.harmed(node(1), harm);
            check.wiped(node(1));
            let text = run(&mut check, &[(1, end(code))]).expect("another disk");
            assert!(text.ends_with("nothing was done to it: the log is damaged at byte 7"));
            assert_eq!(check.compared(), 5);
        }
    }
}
