//! What a node tells of itself in numbers, in the text form of Prometheus, version 0.0.4.
//!
//! | file | what |
//! |---|---|
//! | `names.rs` | the metrics that there are, with their kinds and what they mean |
//! | `text.rs` | the text form |
//! | `events.rs` | what is counted of the events of a node |
//! | `site.rs` | the node, its log, its clients, its topics |
//! | `links.rs` | the links to other sites |
//! | `pipelines.rs` | the pipelines that the node runs |
//!
//! Invariants: a metric that is told is in the table; the samples of one stand together; how much is told
//! is bounded, whatever there is; a counter begins at 0 with the process or, of a link, with the
//! leadership of the node.
//!
//! Never: a key, a value or a header of a record. Metrics leave the site by a way that no rule watches.

pub mod events;
mod links;
mod names;
mod pipelines;
mod site;
mod text;

use crate::node_view::NodeView;
use text::Text;

/// What a node tells.
pub fn tell(view: &NodeView, ready: bool) -> String {
    let mut text = Text::default();
    let topics = site::tell(&mut text, view, ready);
    let links = links::tell(&mut text, view);
    if let Some(topics) = topics {
        text.flag(names::TRUNCATED, &[], topics || links);
    }
    pipelines::tell(&mut text, view);
    text.finish()
}

#[cfg(test)]
mod tests;
