//! What is lost for a budget, beside what a rule withholds, on one partition of a copy.
//!
//! A partition has few markers. What is withheld is still where it came from, and may come again and again; what is
//! lost is gone for good, and the copy alone says for long which records those were.
//!
//! Checked here (`losses_marked`): as long as the losses are no more than half of the markers that a partition may have,
//! the copy has for each one a marker of the offsets, the count and the reason that the origin says.

use crate::history::Marker;

/// Markers that a partition of a site with few partitions may have.
pub(super) const MARKERS_MAX: usize = 64;

/// The reason of a marker for what the budget had no room for.
pub(super) const BUDGET: &str = "budget";

/// What the origin says that was lost for the budget.
pub(super) fn losses(there: &[Marker]) -> impl Iterator<Item = &Marker> {
    there.iter().filter(|marker| marker.reason == BUDGET)
}

/// What is wrong with the markers here, at the copy, by those of the origin.
pub(super) fn wrong(here: &[Marker], there: &[Marker]) -> Option<String> {
    if losses(there).count() > MARKERS_MAX / 2 {
        return None;
    }
    let lost = losses(there).find(|loss| !here.contains(loss))?;
    let spans = |marker: &&Marker| marker.first < lost.end && lost.first < marker.end;
    let said: Vec<String> = here.iter().filter(spans).map(Marker::to_string).collect();
    let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
    Some(format!("says {said}, where its origin says {lost}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Offset;

    fn marker(first: u64, end: u64, reason: &str) -> Marker {
        let (first, end, count) = (Offset(first), Offset(end), end - first);
        Marker { first, end, count, reason: reason.to_owned() }
    }

    #[test]
    fn a_loss_has_a_marker_of_its_own() {
        let there = [marker(3, 9, "budget"), marker(20, 30, "budget")];
        let mut here = vec![marker(1, 3, "withheld"), there[0].clone(), there[1].clone()];
        assert_eq!(wrong(&here, &there), None);
        here[1] = marker(3, 8, "budget");
        assert!(wrong(&here, &there).expect("it is shorter").contains("where its origin says"));
        here[1] = marker(3, 9, "several");
        wrong(&here, &there).expect("it has another reason");
        here.remove(1);
        assert!(wrong(&here, &there).expect("it is gone").contains("says nothing"));
        let many: Vec<Marker> = (0..40).map(|at| marker(at * 9, at * 9 + 1, "budget")).collect();
        assert_eq!(wrong(&here, &many), None);
    }
}
