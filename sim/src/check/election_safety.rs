//! Election safety: at most one leader in a term (Ongaro 2014, section 3.2 and figure 3.2).

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, NodeId, Role, Term};
use std::collections::BTreeMap;

/// Who led which term of which site.
#[derive(Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(u16, Term), NodeId>,
    compared: u64,
}

impl Check for ElectionSafety {
    fn name(&self) -> &'static str {
        "election_safety"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::RoleChanged { role: Role::Leader, term, .. } = seen.event else {
            return Ok(());
        };
        let SiteNode { site, node } = seen.at;
        self.compared += 1;
        let first = *self.leaders.entry((site, *term)).or_insert(node);
        if first == node {
            Ok(())
        } else {
            Err(format!("term {term} of site {site} has two leaders: node {first} and node {node}"))
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

    fn leads(term: u64) -> Event {
        Event::RoleChanged { role: Role::Leader, term: Term(term), leader: None }
    }

    #[test]
    fn one_leader_a_term_passes_and_two_do_not() {
        let mut check = ElectionSafety::default();
        assert_eq!(run(&mut check, &[(1, leads(1)), (2, leads(2)), (1, leads(1))]), None);
        let text = run(&mut check, &[(3, leads(2))]).expect("two leaders");
        assert_eq!(text, "term 2 of site 0 has two leaders: node 2 and node 3");
    }
}
