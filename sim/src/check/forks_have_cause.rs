//! A link says that a mirror and its origin have parted only if somebody has parted them, by putting a
//! site back to an older copy of itself, and that a site was put back only if it was (DESIGN of mirrors: two histories are never merged; while
//! nobody does that there is one).

use super::{Check, Observation};
use fulmar_types::{Event, Probe};

/// Counts the links that went on, and takes no fork before there can be one.
#[derive(Default)]
pub struct ForksHaveCause {
    may_fork: bool,
    compared: u64,
}

impl Check for ForksHaveCause {
    fn name(&self) -> &'static str {
        "forks_have_cause"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen.event {
            Event::Probe(Probe::LinkResumed) => self.compared += 1,
            Event::LinkForked { topic, partition, offset } if !self.may_fork => {
                return Err(format!(
                    "{}: partition {partition} of topic {topic} and its mirror are said to differ \
                     before offset {offset}, and nobody has parted them",
                    seen.at
                ));
            }
            // The lives of a site that was put back have numbers of their own.
            Event::SitePutBack { link } if seen.at.is_first_life() => {
                return Err(format!(
                    "{}: the link {link} says that its site was put back to an older copy, and nobody did that",
                    seen.at
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn put_back(&mut self) {
        self.may_fork = true;
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;
    use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};

    #[test]
    fn a_fork_that_nobody_made_is_reported() {
        let mut check = ForksHaveCause::default();
        let (topic, partition) = (TopicId(Uuid([1; 16])), PartitionIndex(2));
        let forked = Event::LinkForked { topic, partition, offset: Offset(7) };
        let text = run(&mut check, &[(1, Event::Probe(Probe::LinkResumed)), (2, forked)]);
        let text = text.expect("nobody made it");
        assert!(text.contains("node 2 of site 0") && text.contains("before offset 7"), "{text}");
        assert_eq!(check.compared(), 1);
        let told = Event::SitePutBack { link: "hub".to_owned() };
        let text = run(&mut check, &[(2, told)]).expect("nobody did that");
        assert!(text.contains("the link hub says"), "{text}");
        check.put_back();
        let forked = Event::LinkForked { topic, partition, offset: Offset(7) };
        assert_eq!(run(&mut check, &[(2, forked)]), None, "there are two histories now");
    }
}
