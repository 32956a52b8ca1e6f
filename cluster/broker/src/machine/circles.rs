//! Pipelines that would feed each other for ever.
//!
//! ```text
//! a:  x -> y        b:  y -> z        c:  z -> x        one record in x, and no end
//! ```
//!
//! Invariants: no pipeline gets to read what comes of what it writes, over any number of others of the site, paused
//! and failed ones included, since they may go on.
//!
//! What comes back over a link, or over a program that reads and writes, cannot be seen here.

use super::state::State;
use fulmar_types::pipeline::PipelineDefinition;
use std::collections::{BTreeMap, BTreeSet};

/// How one thing leads to another: names of pipelines and topics by turns.
type Way = Vec<String>;

impl State {
    /// The way on which a pipeline would get to read what comes of its outputs, if there is one: a topic that
    /// it writes, the pipeline that reads that, a topic that this one writes, and so on, to one that it reads.
    pub fn circle(&self, name: &str, definition: &PipelineDefinition) -> Option<Way> {
        let mut readers: BTreeMap<&str, Vec<(&str, &[String])>> = BTreeMap::new();
        for other in self.pipelines().filter(|other| other.name != name) {
            for input in &other.definition.inputs {
                let reader = (other.name.as_str(), other.definition.outputs.as_slice());
                readers.entry(input).or_default().push(reader);
            }
        }
        // From each topic that is reached: what leads to it.
        let mut from: BTreeMap<&str, Option<(&str, &str)>> = BTreeMap::new();
        let mut next: Vec<&str> = definition.outputs.iter().map(String::as_str).collect();
        from.extend(next.iter().map(|output| (*output, None)));
        let read: BTreeSet<&str> = definition.inputs.iter().map(String::as_str).collect();
        while let Some(topic) = next.pop() {
            if read.contains(topic) {
                return Some(way(&from, topic));
            }
            for (pipeline, outputs) in readers.remove(topic).into_iter().flatten() {
                for output in outputs {
                    if !from.contains_key(output.as_str()) {
                        from.insert(output, Some((topic, pipeline)));
                        next.push(output);
                    }
                }
            }
        }
        None
    }
}

fn way(from: &BTreeMap<&str, Option<(&str, &str)>>, topic: &str) -> Way {
    let mut way = vec![topic.to_owned()];
    let mut at = topic;
    while let Some((before, pipeline)) = from.get(at).copied().flatten() {
        way.extend([pipeline.to_owned(), before.to_owned()]);
        at = before;
    }
    way.reverse();
    way
}
