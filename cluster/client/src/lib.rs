//! A small Kafka client: producer, consumer, admin.
