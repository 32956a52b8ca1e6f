//! What the bench of a mirror says: the same figures as text and as JSON.

use crate::commands::bench::load::Measured;
use crate::commands::bench::report::{NodeFigures, mib, ms, write_nodes};
use crate::commands::output::grouped;
use serde::Serialize;
use std::fmt::Write;

/// What a load wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Produced {
    pub(super) records: u64,
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

impl From<&Measured> for Produced {
    fn from(measured: &Measured) -> Self {
        Self {
            records: measured.records,
            seconds: measured.seconds,
            records_per_second: measured.records_per_second(),
            p50_us: measured.p50_us,
            p99_us: measured.p99_us,
        }
    }
}

/// A backlog that arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Copied {
    pub(super) records: u64,
    /// From the first word about the link until everything is there.
    pub(super) seconds: f64,
    /// The part of it until the first record is there.
    pub(super) until_first_seconds: f64,
    pub(super) records_per_second: f64,
    /// What it cost the nodes of the origin and of the hub.
    pub(super) origin: Vec<NodeFigures>,
    pub(super) hub: Vec<NodeFigures>,
}

/// A load while the link carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct WithLink {
    pub(super) produced: Produced,
    /// What arrived meanwhile.
    pub(super) copied_per_second: f64,
    /// The part of what was produced that had arrived when the load ended.
    pub(super) ratio: f64,
    /// Records that had not, and how long they took.
    pub(super) behind_at_end: u64,
    pub(super) drained_seconds: f64,
}

/// A node of a hub whose links have nothing to carry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct IdleNode {
    pub(super) node: u64,
    pub(super) leads: bool,
    pub(super) cpu_seconds_per_minute: f64,
    pub(super) resident_bytes: u64,
}

/// Such a hub.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Idle {
    pub(super) links: u32,
    /// Connections of each.
    pub(super) connections: u8,
    pub(super) seconds: u64,
    /// Before it has any.
    pub(super) without: Vec<IdleNode>,
    pub(super) with: Vec<IdleNode>,
}

/// The whole bench.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) record_bytes: usize,
    pub(super) connections: u32,
    pub(super) link_connections: u8,
    pub(super) without_link: Produced,
    pub(super) caught_up: Copied,
    /// Records per second of the copy by those of the load without a link.
    pub(super) ratio: f64,
    pub(super) with_link: WithLink,
    pub(super) idle: Option<Idle>,
}

fn rate(per_second: f64, record_bytes: usize) -> String {
    let megabytes = per_second * record_bytes as f64 / 1e6;
    format!("{} records/s, {megabytes:.2} MB/s", grouped(per_second.round() as u64))
}

impl Produced {
    fn text(&self, record_bytes: usize) -> String {
        let rate = rate(self.records_per_second, record_bytes);
        format!("{rate}, p50 {} ms, p99 {} ms", ms(self.p50_us), ms(self.p99_us))
    }
}

impl Report {
    /// The report, for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            writeln!(text, "{}", line.trim_end()).expect("a string takes everything");
        };
        let bytes = self.record_bytes;
        line(format!(
            "Two sites of three nodes on loopback with TLS, incompressible records of {} bytes, one in flight on \
             each of {} connections; a link of {} connections.",
            grouped(bytes as u64),
            self.connections,
            self.link_connections
        ));
        line(format!(
            "\nproduce, no link       {} records, {}",
            grouped(self.without_link.records),
            self.without_link.text(bytes)
        ));
        let copied = &self.caught_up;
        line(format!(
            "backlog over the link  {} records in {:.1} s ({:.2} s until the first): {}",
            grouped(copied.records),
            copied.seconds,
            copied.until_first_seconds,
            rate(copied.records_per_second, bytes)
        ));
        line(format!("ratio                  {:.2}", self.ratio));
        for (site, nodes) in [("origin", &copied.origin), ("hub", &copied.hub)] {
            line(format!("  {site}, during the backlog"));
            write_nodes(nodes, &mut line);
        }
        let both = &self.with_link;
        line(format!("\nproduce, with the link {}", both.produced.text(bytes)));
        line(format!(
            "copied meanwhile       {}: {:.1} % of it; the other {} records {:.2} s later",
            rate(both.copied_per_second, bytes),
            both.ratio * 100.0,
            grouped(both.behind_at_end),
            both.drained_seconds
        ));
        if let Some(idle) = &self.idle {
            idle.write(line);
        }
        text
    }
}

impl Idle {
    fn write(&self, mut line: impl FnMut(String)) {
        line(format!(
            "\nhub of three nodes with {} idle links of {} connections, each of a site of one node, for {} s",
            self.links, self.connections, self.seconds
        ));
        for (what, nodes) in [("no link", &self.without), ("all links", &self.with)] {
            for node in nodes {
                line(format!(
                    "  {what:<10} node {}{:<8}  CPU {:>6.2} s per minute   resident {:>6} MiB",
                    node.node,
                    if node.leads { " (leads)" } else { "" },
                    node.cpu_seconds_per_minute,
                    mib(node.resident_bytes)
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::counters::Counters;
    use fulmar_types::NodeId;

    fn report() -> Report {
        let measured = Measured {
            records: 262_144,
            seconds: 16.0,
            records_in_all: 262_144,
            value_bytes_in_all: 262_144 * 1024,
            batch_bytes_in_all: 262_144 * 1096,
            p50_us: 3_210,
            p99_us: 6_900,
            ..Measured::default()
        };
        let used = Counters {
            flushes: 900,
            entries: 2_000,
            flushed_bytes: 290_000_000,
            written_bytes: 291_000_000,
            cpu_ms: 6_000,
            resident_bytes: 90 << 20,
        };
        let nodes = NodeFigures::all(&measured, Some(NodeId(1)), &[(NodeId(1), used)]);
        let idle = |leads| IdleNode {
            node: 1,
            leads,
            cpu_seconds_per_minute: 1.25,
            resident_bytes: 40 << 20,
        };
        Report {
            record_bytes: 1024,
            connections: 64,
            link_connections: 4,
            without_link: (&measured).into(),
            caught_up: Copied {
                records: 262_144,
                seconds: 20.0,
                until_first_seconds: 0.3,
                records_per_second: 13_107.2,
                origin: nodes.clone(),
                hub: nodes,
            },
            ratio: 0.8,
            with_link: WithLink {
                produced: (&measured).into(),
                copied_per_second: 7_000.0,
                ratio: 0.7,
                behind_at_end: 30_000,
                drained_seconds: 2.5,
            },
            idle: Some(Idle {
                links: 50,
                connections: 4,
                seconds: 60,
                without: vec![idle(true)],
                with: vec![idle(false)],
            }),
        }
    }

    #[test]
    fn as_text() {
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report()).expect("prints"));
    }
}
