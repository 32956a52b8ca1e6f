//! Files of pipelines, read.

use fulmar_broker::planner::{Planned, Planner};
use fulmar_flow::Plan;
use std::sync::Arc;

/// Reads files for the broker, which knows nothing of SQL.
#[derive(Clone, Copy, Debug)]
pub struct FilePlanner;

/// A file as a plan, or all that is wrong with it, for people.
pub fn plan(file: &str) -> Result<Arc<Plan>, String> {
    let problems = match fulmar_flow::plan(file) {
        Ok(plan) => return Ok(Arc::new(plan)),
        Err(problems) => problems,
    };
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(lines.join("\n"))
}

impl Planner for FilePlanner {
    fn plan(&self, file: &str) -> Result<Planned, String> {
        let plan = plan(file)?;
        let names = |topics: std::collections::BTreeSet<&str>| -> Vec<String> {
            topics.into_iter().map(str::to_owned).collect()
        };
        let (inputs, outputs) = (names(plan.read()), names(plan.written()));
        let dead_letters = names(plan.dead_letters());
        Ok(Planned { inputs, outputs, dead_letters, shape: plan.shape() })
    }
}
