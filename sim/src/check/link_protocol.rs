//! Between sites that run the same program nobody breaks the protocol of links: a session that ends
//! for that reason has met a batch out of order, more than was given room for, or the like (design of
//! mirrors: what goes over several connections is in order behind them).

use super::{Check, Observation};
use fulmar_types::Event;

/// Counts the sessions that have ended.
#[derive(Default)]
pub struct LinkProtocol {
    compared: u64,
}

impl Check for LinkProtocol {
    fn name(&self) -> &'static str {
        "link_protocol"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::LinkDown { link, reason } = seen.event else { return Ok(()) };
        self.compared += 1;
        if reason.starts_with("protocol") {
            return Err(format!(
                "{}: the other side of the link {link} is said to have broken the protocol ({reason})",
                seen.at
            ));
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
    fn a_broken_protocol_is_reported_and_a_broken_connection_is_not() {
        let down = |reason| Event::LinkDown { link: "hub".to_owned(), reason };
        let mut check = LinkProtocol::default();
        assert_eq!(run(&mut check, &[(1, down("lost")), (2, down("deposed"))]), None);
        let text = run(&mut check, &[(2, down("protocol: no frame"))]).expect("it is broken");
        assert!(text.contains("node 2 of site 0") && text.contains("hub"), "{text}");
        assert_eq!(check.compared(), 3);
    }
}
