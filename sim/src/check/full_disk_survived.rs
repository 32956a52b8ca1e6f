//! A full disk ends no process: space is taken ahead of need, and what has no place is refused
//! (docs/design/store.md, "Spares and a full disk").

use super::{Check, Observation};
use fulmar_types::{Event, ExitCode};

/// Counts how often a node ran low.
#[derive(Default)]
pub struct FullDiskSurvived {
    compared: u64,
}

impl Check for FullDiskSurvived {
    fn name(&self) -> &'static str {
        "full_disk_survived"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen.event {
            Event::SpaceChanged { low: true, .. } => self.compared += 1,
            Event::Fatal { code: ExitCode::DiskFull, .. } => {
                return Err(format!("{} ended because its disk is full", seen.at));
            }
            _ => {}
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn an_end_for_want_of_space_is_caught_and_no_other() {
        let low = Event::SpaceChanged { low: true, ready_bytes: 0, more_bytes: 0 };
        let end = |code| Event::Fatal { code, message: String::new() };
        let mut check = FullDiskSurvived::default();
        assert_eq!(run(&mut check, &[(1, low), (1, end(ExitCode::DiskWrite))]), None);
        assert!(run(&mut check, &[(1, end(ExitCode::DiskFull))]).is_some());
        assert_eq!(check.compared(), 1);
    }
}
