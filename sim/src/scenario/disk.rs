//! How the disks of a scenario behave when no fault is active, and what a power cut does to them.
//!
//! As for links, the file gives the ranges out of which every node draws its own.

use super::fields::Fields;
use super::param::{Draw, Drawn, Line, Written, params, ranges};
use super::quantity::{Mix, Probability, Span};
use super::source::Problem;
use super::target::{NodeAddress, Sites};
use crate::prng::Prng;
use fulmar_types::units::HumanDuration;
use std::time::Duration;

fn us(low: u64, high: u64) -> Span<HumanDuration> {
    let time = |us| HumanDuration(Duration::from_micros(us));
    Span::new(time(low), time(high)).expect("the defaults run forwards")
}

fn ppm(low: u32, high: u32) -> Span<Probability> {
    let share = |ppm| Probability::from_ppm(ppm).expect("the defaults are at most one");
    Span::new(share(low), share(high)).expect("the defaults run forwards")
}

ranges! {
    /// Ranges out of which every disk draws its own.
    struct DiskRanges {
        /// The time that a write takes until it is in the page cache.
        write = "write": Span<HumanDuration>, or us(5, 50);
        /// The time that a read takes.
        read = "read": Span<HumanDuration>, or us(20, 300);
        /// The time that a flush takes.
        sync = "sync": Span<HumanDuration>, or us(500, 8_000);
    }
}

params! {
    /// What is the same for all disks.
    struct DiskShape {
        /// At a power cut: how likely the unflushed bytes of a file are lost in part, sector by
        /// sector, and not altogether.
        torn_tail = "torn_tail": Span<Probability>, or ppm(0, 500_000);
        /// At a power cut that tears: how likely an unflushed sector is left unreadable, and not
        /// old or new.
        torn_sector = "torn_sector": Span<Probability>, or ppm(0, 100_000);
        /// At a power cut: how likely an unflushed creation, renaming or removal of a file is lost.
        lost_names = "lost_names": Span<Probability>, or ppm(500_000, 1_000_000);
        /// How likely a flush takes much longer than its disk usually needs.
        tail = "tail": Span<Probability>, or ppm(0, 0);
        /// How much longer it takes then.
        tail_sync = "tail_sync": Mix<HumanDuration>, or Mix::of(us(50_000, 500_000));
    }
}

params! {
    /// The disk of one node.
    struct NodeDisk {
        /// The node.
        node = "node": NodeAddress;
        /// The time that a write takes until it is in the page cache.
        write = "write": Mix<HumanDuration>;
        /// The time that a read takes.
        read = "read": Mix<HumanDuration>;
        /// The time that a flush takes.
        sync = "sync": Mix<HumanDuration>;
    }
}

/// The disks as their file describes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    ranges: DiskRanges,
    shape: DiskShape<Written>,
    nodes: Vec<NodeDisk<Written>>,
}

impl Disk {
    pub(super) fn read(file: &Fields<'_>) -> Result<Self, Problem> {
        let known: &[&[&str]] = &[DiskRanges::KEYS, DiskShape::<Written>::KEYS, &["node"]];
        let Some(fields) = file.table("disk", known)? else {
            let none = Fields::none(file.sites());
            return Ok(Self {
                ranges: DiskRanges::from_fields(&none)?,
                shape: DiskShape::from_fields(&none)?,
                nodes: Vec::new(),
            });
        };
        let mut nodes: Vec<NodeDisk<Written>> = Vec::new();
        for row in fields.list("node")? {
            let row = Fields::open(row, "a disk", &[NodeDisk::<Written>::KEYS], file.sites())?;
            let disk = NodeDisk::from_fields(&row)?;
            if nodes.iter().any(|known| known.node == disk.node) {
                return Err(Problem::new(row.span(), "the disk of this node is given twice"));
            }
            nodes.push(disk);
        }
        Ok(Self {
            ranges: DiskRanges::from_fields(&fields)?,
            shape: DiskShape::from_fields(&fields)?,
            nodes,
        })
    }

    pub(super) fn draw(&self, seed: u64, sites: &Sites) -> DrawnDisk {
        let mut draw = Draw { prng: Prng::new(seed, "scenario/disk"), sites };
        let shape = self.shape.draw(&mut draw);
        let nodes = sites
            .nodes()
            .map(|node| {
                let mut draw =
                    Draw { prng: Prng::new(seed, &format!("scenario/disk/{node}")), sites };
                match self.nodes.iter().find(|disk| disk.node == node) {
                    Some(disk) => disk.draw(&mut draw),
                    None => NodeDisk {
                        node,
                        write: Mix::within(self.ranges.write, &mut draw.prng),
                        read: Mix::within(self.ranges.read, &mut draw.prng),
                        sync: Mix::within(self.ranges.sync, &mut draw.prng),
                    },
                }
            })
            .collect();
        DrawnDisk { shape, nodes }
    }
}

/// The disks as a seed has drawn them.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnDisk {
    /// What is the same for all disks.
    pub shape: DiskShape<Drawn>,
    nodes: Vec<NodeDisk<Drawn>>,
}

impl DrawnDisk {
    /// The disks, ordered by site and node.
    pub fn nodes(&self) -> &[NodeDisk<Drawn>] {
        &self.nodes
    }

    /// The disk of a node; `None` for one that the scenario does not have.
    pub fn node(&self, node: &NodeAddress) -> Option<&NodeDisk<Drawn>> {
        self.nodes.iter().find(|disk| disk.node == *node)
    }

    pub(super) fn print(&self, out: &mut String) {
        out.push_str("\n[disk]\n");
        let mut line = Line::default();
        self.shape.print(&mut line);
        line.finish_lines(out);
        let rows = self.nodes.iter().map(|disk| {
            let mut line = Line::default();
            disk.print(&mut line);
            line
        });
        Line::print_list("node", rows, out);
    }
}
