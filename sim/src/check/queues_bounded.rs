//! Bounded everything: no queue ever holds more than its declared bound (docs/ARCHITECTURE.md).

use super::{Check, Observation};
use fulmar_types::Event;

/// Counts the measurements.
#[derive(Default)]
pub struct QueuesBounded {
    compared: u64,
}

impl Check for QueuesBounded {
    fn name(&self) -> &'static str {
        "queues_bounded"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::QueueDepth { queue, depth, bound } = seen.event else { return Ok(()) };
        self.compared += 1;
        if depth <= bound {
            Ok(())
        } else {
            Err(format!("the queue `{queue}` of {} holds {depth}, its bound is {bound}", seen.at))
        }
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
    fn a_queue_over_its_bound_is_caught() {
        let queue = |depth| Event::QueueDepth { queue: "requests", depth, bound: 8 };
        let mut check = QueuesBounded::default();
        assert_eq!(run(&mut check, &[(1, queue(8))]), None);
        assert!(run(&mut check, &[(1, queue(9))]).is_some());
    }
}
