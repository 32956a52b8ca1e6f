//! What the bench says: the same figures as text and as JSON.

use super::failover::{Blow, Failovers};
use super::load::Measured;
use crate::commands::counters::Counters;
use crate::commands::output::grouped;
use fulmar_types::NodeId;
use serde::Serialize;
use std::fmt::Write;

/// One node during one load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeFigures {
    /// The node.
    pub node: u64,
    /// Whether it led.
    pub leads: bool,
    /// Flushes of its log.
    pub flushes: u64,
    /// Records that one flush covered, on average.
    pub records_per_flush: f64,
    /// Bytes that one flush wrote, on average.
    pub mean_flush_bytes: f64,
    /// Bytes written by the process per byte of the record batches that were acknowledged.
    pub written_per_batch_byte: f64,
    /// Bytes written by the process per byte of the values that were acknowledged.
    pub written_per_value_byte: f64,
    /// CPU time per megabyte (10^6 bytes) of values.
    pub cpu_ms_per_mb: f64,
    /// Resident memory at the end.
    pub resident_bytes: u64,
}

/// One load and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Connections with one record in flight each.
    pub connections: u32,
    /// What the load process measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// The same per second.
    pub records_per_second: f64,
    /// What each node did for it.
    pub nodes: Vec<NodeFigures>,
}

/// The whole bench.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Bytes of the value of a record.
    pub record_bytes: usize,
    /// Seconds of each load.
    pub seconds: u64,
    /// Whether the segments had been used before.
    pub recycled: bool,
    /// Resident memory of each node before any load.
    pub idle_resident_bytes: Vec<u64>,
    /// The loads.
    pub loads: Vec<Figures>,
    /// How long the site took nothing after its leader was gone.
    pub failovers: Vec<Failovers>,
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Figures {
    /// The figures of one load; `used` is what each node did meanwhile.
    pub fn new(
        connections: u32,
        measured: Measured,
        leader: Option<NodeId>,
        used: &[(NodeId, Counters)],
    ) -> Self {
        Self {
            connections,
            records_per_second: measured.records_per_second(),
            nodes: NodeFigures::all(&measured, leader, used),
            measured,
        }
    }
}

impl NodeFigures {
    /// What each node of a site did for what was measured.
    pub fn all(
        measured: &Measured,
        leader: Option<NodeId>,
        used: &[(NodeId, Counters)],
    ) -> Vec<Self> {
        let megabytes = measured.value_bytes_in_all as f64 / 1e6;
        let node = |(node, used): &(NodeId, Counters)| Self {
            node: node.get(),
            leads: leader == Some(*node),
            flushes: used.flushes,
            records_per_flush: ratio(measured.records_in_all, used.flushes),
            mean_flush_bytes: ratio(used.flushed_bytes, used.flushes),
            written_per_batch_byte: ratio(used.written_bytes, measured.batch_bytes_in_all),
            written_per_value_byte: ratio(used.written_bytes, measured.value_bytes_in_all),
            cpu_ms_per_mb: if megabytes > 0.0 { used.cpu_ms as f64 / megabytes } else { 0.0 },
            resident_bytes: used.resident_bytes,
        };
        used.iter().map(node).collect()
    }
}

/// Mebibytes.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Milliseconds.
pub fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e3)
}

impl Report {
    /// The report, for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "Three nodes on loopback, acks=all, incompressible records of {} bytes, one in flight \
             per connection, {} s each, segments {}.\n",
            grouped(self.record_bytes as u64),
            self.seconds,
            if self.recycled { "recycled" } else { "new" }
        );
        for figures in &self.loads {
            text.push('\n');
            figures.write(&mut text, self.record_bytes);
        }
        let idle = self.idle_resident_bytes.iter().copied().max().unwrap_or(0);
        writeln!(text, "\nresident memory of an idle node: at most {} MiB", mib(idle))
            .expect("a string takes everything");
        for failovers in &self.failovers {
            let blow = match failovers.blow {
                Blow::Kill => "killed (SIGKILL)",
                Blow::Pause => "paused (SIGSTOP)",
            };
            writeln!(
                text,
                "leader {blow} {} times: next acknowledgement after p50 {:.2} s, worst {:.2} s",
                failovers.until_next_ms.len(),
                failovers.median_ms() as f64 / 1e3,
                failovers.worst_ms() as f64 / 1e3
            )
            .expect("a string takes everything");
        }
        text
    }
}

impl Figures {
    fn write(&self, text: &mut String, record_bytes: usize) {
        let mut line = |line: String| {
            writeln!(text, "{}", line.trim_end()).expect("a string takes everything");
        };
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            many => format!("{many} connections"),
        };
        let megabytes = self.records_per_second * record_bytes as f64 / 1e6;
        line(format!(
            "{connections}: {} records/s, {megabytes:.2} MB/s",
            grouped(self.records_per_second.round() as u64)
        ));
        let m = &self.measured;
        line(format!(
            "  latency in ms   p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            ms(m.p50_us),
            ms(m.p90_us),
            ms(m.p99_us),
            ms(m.p999_us),
            ms(m.max_us)
        ));
        for (why, times) in &m.failures {
            line(format!("  {} requests failed: {why}", grouped(*times)));
        }
        write_nodes(&self.nodes, line);
    }
}

/// A column for each node.
pub fn write_nodes(nodes: &[NodeFigures], mut line: impl FnMut(String)) {
    let mut row = |head: &str, cell: &dyn Fn(&NodeFigures) -> String| {
        let cells = nodes.iter().map(|node| format!("{:>14}", cell(node)));
        line(format!("  {head:<28}{}", cells.collect::<String>()));
    };
    row("node", &|n| if n.leads { format!("{} (leads)", n.node) } else { n.node.to_string() });
    row("flushes", &|n| grouped(n.flushes));
    row("records per flush", &|n| format!("{:.1}", n.records_per_flush));
    row("KiB per flush", &|n| format!("{:.1}", n.mean_flush_bytes / 1024.0));
    row("written / byte of batches", &|n| format!("{:.3}", n.written_per_batch_byte));
    row("written / byte of values", &|n| format!("{:.3}", n.written_per_value_byte));
    row("CPU ms per MB of values", &|n| format!("{:.1}", n.cpu_ms_per_mb));
    row("resident MiB", &|n| mib(n.resident_bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let measured = Measured {
            records: 189_040,
            seconds: 10.0,
            records_in_all: 226_000,
            value_bytes_in_all: 226_000 * 1024,
            batch_bytes_in_all: 226_000 * 1096,
            failures: [("the connection broke before the answer came".to_owned(), 2)].into(),
            p50_us: 3_210,
            p90_us: 4_100,
            p99_us: 6_900,
            p999_us: 12_000,
            max_us: 40_123,
        };
        let used = Counters {
            flushes: 7_000,
            entries: 20_000,
            flushed_bytes: 260_000_000,
            written_bytes: 265_000_000,
            cpu_ms: 4_200,
            resident_bytes: 60 << 20,
        };
        let used = [1, 2, 3].map(|id| (NodeId(id), used));
        let quiet = Measured { records: 0, seconds: 0.0, ..Measured::default() };
        Report {
            record_bytes: 1024,
            seconds: 10,
            recycled: true,
            idle_resident_bytes: vec![20 << 20, 21 << 20, 19 << 20],
            loads: vec![
                Figures::new(1, quiet, None, &[(NodeId(1), Counters::default())]),
                Figures::new(64, measured, Some(NodeId(2)), &used),
            ],
            failovers: vec![
                Failovers { blow: Blow::Kill, until_next_ms: vec![900, 1_050, 1_400] },
                Failovers { blow: Blow::Pause, until_next_ms: vec![1_200, 1_300, 1_800] },
            ],
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
