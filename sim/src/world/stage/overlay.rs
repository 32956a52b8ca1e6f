//! What faults do to links and disks: each is laid over what the scenario has drawn, and taken back when it ends.
//!
//! Invariant: what a link or a disk is follows from the scenario and from the faults that last, in whatever order
//! they began and ended.

use super::Stage;
use crate::disk::{DiskConfig, PowerLoss};
use crate::net::{Crossed, Line, Link, Trunk};
use crate::scenario::{Mix, NodeAddress, Place, SiteName};
use crate::spread::Spread;
use fulmar_types::units::HumanDuration;
use madsim::task::NodeId as Machine;
use std::time::Duration;

/// What changes a link while a fault lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Longer by this.
    pub delay: Duration,
    /// Lost this often, in millionths, if that is more than the link loses anyway.
    pub loss_ppm: u32,
    /// At most so many bits pass in a second.
    pub bits_per_s: Option<u64>,
}

impl Overlay {
    /// Whether it changes a link for the worse.
    pub fn worsens(&self, link: &Link) -> bool {
        let carries = link.line.map_or(u64::MAX, |line| line.bits_per_s);
        let carries_less = self.bits_per_s.is_some_and(|bits_per_s| bits_per_s < carries);
        !self.delay.is_zero() || self.loss_ppm > link.loss_ppm || carries_less
    }
}

fn spread(mix: &Mix<HumanDuration>) -> Spread {
    let span = mix.span();
    Spread::new(span.low().0, span.high().0)
}

impl Stage {
    fn place_of(&self, machine: Machine) -> Option<Place> {
        let node = self.nodes.iter().find(|(_, known)| **known == machine);
        node.map(|(node, _)| Place::Node(node.clone())).or_else(|| {
            let clients = self.clients.iter().find(|(_, known)| **known == machine);
            clients.map(|(site, _)| Place::Clients(site.clone()))
        })
    }

    /// What a link is without faults, and the number that it has.
    fn base_link(&self, from: Machine, to: Machine) -> Option<(Link, Trunk)> {
        let (from, to) = (self.place_of(from)?, self.place_of(to)?);
        let (number, drawn) = self.drawn.net.link(&from, &to)?;
        let shape = &self.drawn.net.shape;
        let line = drawn.bandwidth.map(|bandwidth| self.line(bandwidth.bits_per_s()));
        let number = Trunk::try_from(number).expect("few links");
        // What crosses within a site need not be counted.
        let is_counted = line.is_some() || from.site() != to.site();
        let link = Link {
            trunk: is_counted.then_some(number),
            line,
            latency: spread(&drawn.latency),
            tail_ppm: shape.tail.ppm(),
            tail: spread(&shape.tail_latency),
            loss_ppm: drawn.loss.ppm(),
            retransmit: spread(&shape.retransmit),
        };
        Some((link, number))
    }

    /// How much the link from one site to another carries, in bits per second, if there is a limit while
    /// no fault lasts; and what has crossed it so far.
    pub fn between_sites(&self, from: &SiteName, to: &SiteName) -> (Option<u64>, Crossed) {
        let (from, to) = (Place::Site(from.clone()), Place::Site(to.clone()));
        let Some((number, drawn)) = self.drawn.net.link(&from, &to) else {
            return (None, Crossed::default());
        };
        let number = Trunk::try_from(number).expect("few links");
        let bits_per_s = drawn.bandwidth.map(|bandwidth| bandwidth.bits_per_s());
        (bits_per_s, self.machines.network().crossed(number))
    }

    fn line(&self, bits_per_s: u64) -> Line {
        let queue_ns = u64::try_from(self.drawn.net.shape.queue.0.as_nanos()).unwrap_or(u64::MAX);
        Line { bits_per_s, queue_ns }
    }

    fn set_link(&self, from: Machine, to: Machine) {
        let Some((mut link, number)) = self.base_link(from, to) else { return };
        if let Some(overlays) = self.mutable().overlays.get(&(from, to)) {
            for overlay in overlays {
                link.latency = link.latency.longer_by(overlay.delay);
                link.loss_ppm = link.loss_ppm.max(overlay.loss_ppm);
                if let Some(bits_per_s) = overlay.bits_per_s {
                    let carries = link.line.map_or(u64::MAX, |line| line.bits_per_s);
                    link.line = Some(self.line(bits_per_s.min(carries)));
                    link.trunk = Some(number);
                }
            }
        }
        self.machines.network().set_link(from, to, link);
    }

    pub(super) fn set_links(&self) {
        let all: Vec<Machine> = self.nodes.values().chain(self.clients.values()).copied().collect();
        for from in &all {
            for to in all.iter().filter(|to| *to != from) {
                self.set_link(*from, *to);
            }
        }
    }

    /// Changes links for as long as a fault lasts.
    pub fn overlay(&self, ways: &[(Machine, Machine)], overlay: Overlay) {
        for (from, to) in ways {
            self.mutable().overlays.entry((*from, *to)).or_default().push(overlay);
            self.set_link(*from, *to);
        }
    }

    /// Takes a change of links back.
    pub fn lift(&self, ways: &[(Machine, Machine)], overlay: Overlay) {
        for (from, to) in ways {
            if let Some(overlays) = self.mutable().overlays.get_mut(&(*from, *to))
                && let Some(at) = overlays.iter().position(|known| *known == overlay)
            {
                overlays.remove(at);
            }
            self.set_link(*from, *to);
        }
    }

    fn base_disk(&self, node: &NodeAddress) -> DiskConfig {
        let shape = &self.drawn.disk.shape;
        let mut config = DiskConfig {
            tail_ppm: shape.tail.ppm(),
            tail: spread(&shape.tail_sync),
            power_loss: PowerLoss {
                torn_file_ppm: shape.torn_tail.ppm(),
                torn_sector_ppm: shape.torn_sector.ppm(),
                lost_name_ppm: shape.lost_names.ppm(),
            },
            ..DiskConfig::default()
        };
        if let Some(disk) = self.drawn.disk.node(node) {
            config.read = spread(&disk.read);
            config.write = spread(&disk.write);
            config.sync = spread(&disk.sync);
        }
        config
    }

    fn set_disk(&self, node: &NodeAddress) {
        let mut config = self.base_disk(node);
        if let Some(slow) = self.mutable().slow.get(node) {
            config.slow_sync = slow.iter().sum();
        }
        if let Some(least) = self.mutable().full.get(node).and_then(|full| full.iter().min()) {
            config.capacity_bytes = *least;
        }
        self.machines.disks().set_config(self.machine(node), config);
    }

    pub(super) fn set_disks(&self) {
        for node in self.nodes.keys() {
            self.set_disk(node);
        }
    }

    /// Makes every flush of a node take longer.
    pub fn slow_disk(&self, node: &NodeAddress, by: Duration) {
        self.mutable().slow.entry(node.clone()).or_default().push(by);
        self.set_disk(node);
    }

    /// Takes [`Stage::slow_disk`] back.
    pub fn fast_disk(&self, node: &NodeAddress, by: Duration) {
        if let Some(slow) = self.mutable().slow.get_mut(node)
            && let Some(at) = slow.iter().position(|known| *known == by)
        {
            slow.remove(at);
        }
        self.set_disk(node);
    }

    /// Leaves so many bytes free on the disk of a node. Returns what fits on it now, which
    /// [`Stage::free_disk`] wants to know.
    pub fn fill_disk(&self, node: &NodeAddress, leaves_bytes: u64) -> u64 {
        let taken_bytes = self.machines.disks().taken_bytes(self.machine(node));
        let capacity_bytes = taken_bytes + leaves_bytes;
        self.mutable().full.entry(node.clone()).or_default().push(capacity_bytes);
        self.set_disk(node);
        capacity_bytes
    }

    /// Takes [`Stage::fill_disk`] back.
    pub fn free_disk(&self, node: &NodeAddress, capacity_bytes: u64) {
        if let Some(full) = self.mutable().full.get_mut(node)
            && let Some(at) = full.iter().position(|known| *known == capacity_bytes)
        {
            full.remove(at);
        }
        self.set_disk(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_below_that_of_the_link_changes_nothing() {
        let link = Link { loss_ppm: 1_000, ..Link::default() };
        let loss = |loss_ppm| Overlay { loss_ppm, ..Overlay::default() };
        assert!(!loss(1_000).worsens(&link));
        assert!(loss(1_001).worsens(&link));
        assert!(Overlay { delay: Duration::from_millis(1), ..Overlay::default() }.worsens(&link));
        let slow = |bits_per_s| Overlay { bits_per_s: Some(bits_per_s), ..Overlay::default() };
        assert!(slow(1_000).worsens(&link), "it carries anything");
        let line = Link { line: Some(Line { bits_per_s: 1_000, queue_ns: 0 }), ..link };
        assert!(slow(999).worsens(&line));
        assert!(!slow(1_000).worsens(&line));
    }
}
