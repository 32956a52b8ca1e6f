//! Which query is which, whatever their order in the file.
//!
//! Queries that write are in the plan by what their state depends on, and those that are alike in that by the topic
//! that they write. So in a file with the same shape each is where it was, and has the numbers that it had: its
//! state, the fates of what it has read, and its dead letters are its own. (Those that are alike and write one topic
//! are in the order of the file.)
//!
//! Outside of the plan, in dead letters, a reader is called by what it is: the output, which of the readers of its
//! stream it is on the way there, and a digest of the query, for the case that several of them write that
//! output.

use super::{Node, Operator, Plan};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// What a reader is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderName {
    /// What its query writes.
    pub output: String,
    /// The node that does.
    sink: usize,
    /// Which one it is of those of one source in that query.
    nth: u32,
    digest: [u8; 8],
}

impl fmt::Display for ReaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.output, self.nth)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The one among readers that is called so, by its place. Another query of the same output is it if the output has
/// no second one: then it has been changed.
pub fn called<'a>(name: &str, readers: impl Iterator<Item = &'a ReaderName>) -> Option<usize> {
    let mut parts = name.split(' ');
    let (output, nth, digest) = (parts.next()?, parts.next()?, parts.next()?);
    let readers: Vec<(usize, &ReaderName)> = readers.enumerate().collect();
    let of_output = readers.iter().filter(|(_, known)| known.output == output);
    let of_output: Vec<_> = of_output.collect();
    let is_one = of_output.iter().all(|(_, known)| known.sink == of_output[0].1.sink);
    let mut found = of_output.iter().filter(|(_, known)| {
        let is_query = is_one || known.to_string().ends_with(digest);
        known.nth.to_string() == nth && is_query
    });
    found.next().map(|(at, _)| *at)
}

/// A node at another place.
fn moved(node: &Node, (from, to): (usize, usize), (read_from, read_to): (u32, u32)) -> Node {
    let mut node = node.clone();
    for input in &mut node.inputs {
        *input = *input - from + to;
    }
    match &mut node.operator {
        Operator::Read { reader, .. } | Operator::TableJoin { reader, .. } => {
            *reader = *reader - read_from + read_to;
        }
        _ => {}
    }
    node
}

impl Plan {
    /// The nodes of each query that writes, in one piece, and its readers.
    fn queries(&self) -> Vec<(Range<usize>, Range<u32>)> {
        let (mut all, mut from, mut read_from) = (Vec::new(), 0, 0);
        for (at, node) in self.nodes.iter().enumerate() {
            if let Operator::Sink { .. } = node.operator {
                let nodes = from..at + 1;
                let is_reader = |node: &&Node| {
                    matches!(node.operator, Operator::Read { .. } | Operator::TableJoin { .. })
                };
                let readers = self.nodes[nodes.clone()].iter().filter(is_reader).count() as u32;
                all.push((nodes, read_from..read_from + readers));
                (from, read_from) = (at + 1, read_from + readers);
            }
        }
        all
    }

    /// The nodes of a query as if it was alone.
    fn alone(&self, (nodes, readers): &(Range<usize>, Range<u32>)) -> Vec<Node> {
        let nodes = self.nodes[nodes.clone()].iter().map(|node| (node, nodes.start));
        nodes.map(|(node, from)| moved(node, (from, 0), (readers.start, 0))).collect()
    }

    /// The topic that a query writes.
    fn output(&self, nodes: &Range<usize>) -> &str {
        match &self.nodes[nodes.end - 1].operator {
            Operator::Sink { topic, .. } => topic,
            _ => "",
        }
    }

    /// What the state of each query depends on, and what it writes.
    pub(super) fn kinds(&self) -> Vec<(String, &str)> {
        let feeds = self.feeding_state();
        let kind = |query: &(Range<usize>, Range<u32>)| {
            let feeds = feeds[query.0.clone()].iter().copied();
            super::shape::write_query(&self.alone(query), feeds)
        };
        self.queries().iter().map(|query| (kind(query), self.output(&query.0))).collect()
    }

    /// What queries write that are like another one in all that state depends on: that tells them apart.
    pub(super) fn alike(&self) -> Vec<&str> {
        let kinds = self.kinds();
        let pairs = kinds.iter().zip(kinds.iter().skip(1));
        let alike = pairs.filter(|(one, other)| one.0 == other.0);
        alike.flat_map(|(one, other)| [one.1, other.1]).collect()
    }

    /// The same with its queries where they belong.
    pub(super) fn in_order(mut self) -> Self {
        let (kinds, queries) = (self.kinds(), self.queries());
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by(|one, other| kinds[*one].cmp(&kinds[*other]));
        let (mut nodes, mut readers) = (Vec::new(), Vec::new());
        for (of_nodes, of_readers) in order.into_iter().map(|query| &queries[query]) {
            let places = ((of_nodes.start, nodes.len()), (of_readers.start, readers.len() as u32));
            let of_query = &self.nodes[of_nodes.clone()];
            nodes.extend(of_query.iter().map(|node| moved(node, places.0, places.1)));
            readers.extend(of_readers.clone().map(|reader| self.readers[reader as usize]));
        }
        (self.nodes, self.readers) = (nodes, readers);
        self
    }

    /// What its readers are called, by their numbers.
    pub fn reader_names(&self) -> Vec<ReaderName> {
        let mut names = Vec::with_capacity(self.readers.len());
        for query in self.queries() {
            let text = super::shape::write_query(&self.alone(&query), std::iter::repeat(true));
            let digest = blake3::hash(text.as_bytes());
            let digest = *digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
            let (output, sink) = (self.output(&query.0).to_owned(), query.0.end - 1);
            let mut before: BTreeMap<usize, u32> = BTreeMap::new();
            for reader in query.1 {
                let count = before.entry(self.readers[reader as usize]).or_default();
                names.push(ReaderName { output: output.clone(), sink, nth: *count, digest });
                *count += 1;
            }
        }
        names
    }
}
