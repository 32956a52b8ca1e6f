//! Whoever takes a pipeline over comes to the outputs that the log says, from the same records (DESIGN of
//! pipelines: what an epoch gives follows from its records and the age of the site).

use super::{Check, Observation};
use fulmar_types::{Event, Probe};

/// Counts the epochs whose outputs were made again, with the hash that the log has.
#[derive(Default)]
pub struct TakeoversEqual {
    compared: u64,
}

impl Check for TakeoversEqual {
    fn name(&self) -> &'static str {
        "takeovers_equal"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen.event {
            Event::Probe(Probe::EpochMadeAgain) => self.compared += 1,
            Event::Probe(Probe::Diverged) => {
                return Err(format!(
                    "{} took a pipeline over and came to other outputs than the log says",
                    seen.at
                ));
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
    fn other_outputs_are_reported() {
        let mut check = TakeoversEqual::default();
        let events = [Probe::EpochMadeAgain, Probe::Diverged].map(Event::Probe);
        let events = events.map(|event| (2, event));
        let text = run(&mut check, &events).expect("they differ");
        assert!(text.contains("node 2 of site 0"), "{text}");
        assert_eq!(check.compared(), 1);
    }
}
