//! Kafka semantics on top of the replicated log: topics, produce, fetch, producers.
