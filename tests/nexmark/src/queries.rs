//! The queries, as files.

/// A query.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Its name in the benchmark, and that of the topic that it writes.
    pub name: &'static str,
    /// The pipeline.
    pub text: &'static str,
}

macro_rules! queries {
    ($($name:literal),*) => {
        /// All of them.
        pub const ALL: &[Query] = &[$(Query {
            name: $name,
            text: include_str!(concat!("../queries/", $name, ".sql")),
        }),*];
    };
}

queries!("q0", "q1", "q2", "q5", "q7", "q8", "q11", "q13");

/// The query with a name.
pub fn named(name: &str) -> Option<Query> {
    ALL.iter().find(|query| query.name == name).copied()
}
