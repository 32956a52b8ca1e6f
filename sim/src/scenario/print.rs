//! From a drawn scenario back to a file that replays it.

use super::clock;
use super::model::{Class, DrawnScenario};
use super::param::{Line, quoted};
use std::fmt;

impl fmt::Display for DrawnScenario {
    /// Prints a scenario file. Nothing in it is left to a seed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        let mut head = Line::default();
        head.put("title", &self.title);
        head.put("why", &self.why);
        head.put("class", &Class::Replay);
        head.put("tags", &self.tags);
        head.put("must_hit", &self.must_hit);
        head.put("stream_seed", &self.stream_seed);
        let mut run = Line::default();
        run.put("warmup", &self.run.warmup);
        run.put("chaos", &self.run.chaos);
        run.put("heal_within", &self.run.heal_within);
        head.put_raw("run", run.finish());
        let mut sites = Line::default();
        for (site, nodes) in self.sites.iter() {
            sites.put_raw(site.as_str(), nodes.to_string());
        }
        head.put_raw("sites", sites.finish());
        head.finish_lines(&mut out);
        self.print_lists(&mut out);
        self.net.print(&mut out);
        self.disk.print(&mut out);
        clock::print(&self.clocks, &mut out);
        if !self.config.is_empty() {
            print_table("config", &self.config, &mut out);
        }
        f.write_str(&out)
    }
}

impl DrawnScenario {
    fn print_lists(&self, out: &mut String) {
        let workloads = self.workloads.iter().map(|workload| {
            let mut line = Line::default();
            workload.print(&mut line);
            line
        });
        Line::print_list("workload", workloads, out);
        let faults = self.faults.iter().map(|scheduled| {
            let mut line = Line::default();
            scheduled.trigger.print(&mut line);
            scheduled.fault.print(&mut line);
            line
        });
        Line::print_list("fault", faults, out);
        let checks = self.checks.iter().map(|check| {
            let mut line = Line::default();
            check.print(&mut line);
            line
        });
        Line::print_list("check", checks, out);
    }
}

/// A table with a header of its own: first its values, then the tables in it.
fn print_table(path: &str, table: &toml::Table, out: &mut String) {
    if table.is_empty() || table.values().any(|value| !value.is_table()) {
        out.push_str(&format!("\n[{path}]\n"));
    }
    for (key, value) in table {
        if !value.is_table() {
            out.push_str(&format!("{} = {value}\n", print_key(key)));
        }
    }
    for (key, value) in table {
        if let toml::Value::Table(inner) = value {
            print_table(&format!("{path}.{}", print_key(key)), inner, out);
        }
    }
}

fn print_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { quoted(key) }
}
