//! By how much the wall clocks of a scenario are wrong from the start.

use super::fields::Fields;
use super::param::{Draw, Drawn, Line, Param, Written, params};
use super::quantity::{ClockShift, Span};
use super::source::Problem;
use super::target::{NodeAddress, Sites};
use crate::prng::Prng;

params! {
    /// The wall clock of one node.
    struct NodeClock {
        /// The node.
        node = "node": NodeAddress;
        /// What its wall clock is ahead of the true time; negative is behind.
        offset = "offset": Span<ClockShift>;
    }
}

/// The wall clocks as their file describes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    offset: Span<ClockShift>,
    nodes: Vec<NodeClock<Written>>,
}

impl Clock {
    pub(super) fn read(file: &Fields<'_>) -> Result<Self, Problem> {
        let right = Span::fixed(ClockShift::default());
        let Some(fields) = file.table("clock", &[&["offset", "node"]])? else {
            return Ok(Self { offset: right, nodes: Vec::new() });
        };
        let mut nodes: Vec<NodeClock<Written>> = Vec::new();
        for row in fields.list("node")? {
            let row = Fields::open(row, "a clock", &[NodeClock::<Written>::KEYS], file.sites())?;
            let clock = NodeClock::from_fields(&row)?;
            if nodes.iter().any(|known| known.node == clock.node) {
                return Err(Problem::new(row.span(), "the clock of this node is given twice"));
            }
            nodes.push(clock);
        }
        Ok(Self { offset: fields.or("offset", right)?, nodes })
    }

    pub(super) fn draw(&self, seed: u64, sites: &Sites) -> Vec<NodeClock<Drawn>> {
        let draw_clock = |node: NodeAddress| {
            let salt = format!("scenario/clock/{node}");
            let mut draw = Draw { prng: Prng::new(seed, &salt), sites };
            match self.nodes.iter().find(|clock| clock.node == node) {
                Some(clock) => clock.draw(&mut draw),
                None => NodeClock { node, offset: self.offset.draw(&mut draw) },
            }
        };
        sites.nodes().map(draw_clock).collect()
    }
}

pub(super) fn print(clocks: &[NodeClock<Drawn>], out: &mut String) {
    out.push_str("\n[clock]\n");
    let rows = clocks.iter().map(|clock| {
        let mut line = Line::default();
        clock.print(&mut line);
        line
    });
    Line::print_list("node", rows, out);
}
