//! A site whose links change names while records come over them: each gets the name that another one had.
//!
//! A link is known by its name, and what it brings by the name of the link: whoever takes the name for the link loses
//! sight of its copies. Both links are gone for a moment, and are laid down again as they were but for their names.
//!
//! Invariants: at the end each link has the name that it began with, since what compares asks for it by that.

use super::pausing::{STEP, pause};
use super::rules::LIMIT;
use fulmar_client::Cluster;
use fulmar_types::link::LinkDefinition;
use std::time::Duration;

/// Whoever changes the names of two links of a site.
pub(super) struct Naming {
    pub(super) cluster: Cluster,
    /// Their names, and what they are.
    pub(super) links: [(String, LinkDefinition); 2],
    /// How long they have them.
    pub(super) each: Duration,
}

impl Naming {
    /// Goes on until it is told to stop; then they have their own.
    pub(super) async fn run(self, stopped: impl Fn() -> bool) {
        while !stopped() {
            for swapped in [true, false] {
                pause(self.each, &stopped).await;
                self.name(swapped).await;
            }
        }
    }

    async fn name(&self, swapped: bool) {
        let [(one, first), (other, second)] = &self.links;
        for name in [one, other] {
            self.set(name, None).await;
        }
        let (first, second) = if swapped { (second, first) } else { (first, second) };
        self.set(one, Some(first)).await;
        self.set(other, Some(second)).await;
    }

    /// Lays down a link, or takes it away, until that is so.
    async fn set(&self, name: &str, definition: Option<&LinkDefinition>) {
        loop {
            let _ = self.cluster.set_link(name, None, definition, LIMIT).await;
            if let Ok(links) = self.cluster.links(LIMIT).await
                && links.get(name).map(|link| &link.is) == definition
            {
                return;
            }
            madsim::time::sleep(STEP).await;
        }
    }
}
