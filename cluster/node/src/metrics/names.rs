//! The metrics that there are. `docs/METRICS.md` has the same table for people; a test compares them.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were at most so large.
    Histogram,
}

impl Kind {
    /// As Prometheus has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(pub const $id: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        /// All of them, in the order in which they are told.
        pub const ALL: &[Metric] = &[$($id,)*];
    };
}

metrics! {
    BUILD = "fulmar_build_info", Gauge, "1, with the version of the program";
    NODE = "fulmar_node_info", Gauge, "1, with the name of the site and the number of the node";
    READY = "fulmar_ready", Gauge, "1 if the node can serve, as /readyz says";
    UPTIME = "fulmar_uptime_seconds", Gauge, "How long the process runs";
    ROLE = "fulmar_raft_role", Gauge, "1 for the part that the node plays in its group, 0 for the others";
    TERM = "fulmar_raft_term", Gauge, "The current term";
    LEADER = "fulmar_raft_leader", Gauge, "The number of the node that leads, 0 if none is known";
    LEADER_CHANGES = "fulmar_raft_leader_changes_total", Counter, "How often the node has heard of another leader";
    LAST_INDEX = "fulmar_log_last_index", Gauge, "The index of the last entry of the log of this node";
    FLUSHED_INDEX = "fulmar_log_flushed_index", Gauge, "The index of the last entry that is on the disk of this node";
    COMMITTED_INDEX = "fulmar_log_committed_index", Gauge, "The index of the last entry that is known to be committed";
    APPLIED_INDEX = "fulmar_log_applied_index", Gauge, "The index of the last entry that is applied on this node";
    FLOOR_INDEX = "fulmar_log_floor_index", Gauge, "The index of the last entry below the Raft floor";
    UNAPPLIED = "fulmar_log_unapplied_entries", Gauge, "Entries of the log of this node that are not applied yet";
    SEGMENTS = "fulmar_log_segments", Gauge, "Segment files of the log, without spares";
    LOG_BYTES = "fulmar_log_bytes", Gauge, "Bytes of those files";
    SPARES = "fulmar_log_spare_segments", Gauge, "Segment files that are ready for use";
    READY_BYTES = "fulmar_log_ready_bytes", Gauge, "Bytes that the log takes without new space from the file system";
    FREE_BYTES = "fulmar_log_free_bytes", Gauge, "Bytes beyond that for which the file system has space";
    TAKES_RECORDS = "fulmar_takes_records", Gauge, "1 while enough disks of the site have room for records, as far as the node knows";
    FLUSHES = "fulmar_flush_seconds", Histogram, "How long it took to write and flush a group of entries";
    FLUSHED_ENTRIES = "fulmar_flushed_entries_total", Counter, "Entries that were flushed";
    FLUSHED_BYTES = "fulmar_flushed_bytes_total", Counter, "Bytes that were written for them";
    SNAPSHOTS = "fulmar_snapshots_total", Counter, "Snapshots of the state that were saved";
    SEALS = "fulmar_segments_sealed_total", Counter, "Segments that were sealed";
    AGE = "fulmar_site_age_seconds", Gauge, "How old the site is, as what expires counts it";
    ENTRY_TIME = "fulmar_entry_time_seconds", Gauge, "The wall time of the last applied entry, in seconds since 1970";
    PEERS_REFUSED = "fulmar_peers_refused_total", Counter, "Connections between nodes of the site that were refused, by reason";
    DISTRUSTED = "fulmar_distrusted_total", Counter, "Connections on which one side did not trust the certificate of the other, by reason and by whom";
    CONNECTIONS = "fulmar_connections", Gauge, "Connections of Kafka clients that are open";
    CONNECTIONS_ALL = "fulmar_connections_total", Counter, "Connections of Kafka clients that were accepted";
    CONNECTIONS_REFUSED = "fulmar_connections_refused_total", Counter, "Connections of Kafka clients that were closed at once, being too many";
    CONNECTIONS_FAULTY = "fulmar_connections_faulty_total", Counter, "Connections of Kafka clients that were closed for what they sent";
    REQUESTS = "fulmar_requests_total", Counter, "Requests of Kafka clients, by API";
    REQUEST_ERRORS = "fulmar_request_errors_total", Counter, "Partitions of Produce and Fetch requests that were answered with an error, by API and error";
    PRODUCE_BATCHES = "fulmar_produce_batches_total", Counter, "Record batches of clients that were proposed";
    PRODUCE_BYTES = "fulmar_produce_bytes_total", Counter, "Bytes of them";
    FETCH_BYTES = "fulmar_fetch_bytes_total", Counter, "Bytes of record batches that clients were sent";
    POOL_USED = "fulmar_memory_used_bytes", Gauge, "Memory that is in use, by what it is kept for";
    POOL_MAX = "fulmar_memory_max_bytes", Gauge, "How much of it there may be";
    TOPICS = "fulmar_topics", Gauge, "Topics, copies of other sites included";
    PARTITIONS = "fulmar_partitions", Gauge, "Partitions of all topics";
    MIRRORS = "fulmar_mirror_topics", Gauge, "Topics that are copies of those of other sites";
    PRODUCERS = "fulmar_producers", Gauge, "Idempotent producers that are remembered, by partition";
    TOPIC_APPENDED = "fulmar_topic_appended_records_total", Counter, "Records that were ever appended to a topic";
    TOPIC_RECORDS = "fulmar_topic_records", Gauge, "Records of a topic that can be read";
    TOPIC_BYTES = "fulmar_topic_bytes", Gauge, "Bytes of them, about";
    LINKS = "fulmar_links", Gauge, "Links to other sites";
    RULES = "fulmar_rules", Gauge, "Topics that a rule lets go to other regions";
    SITES_REFUSED = "fulmar_sites_refused_total", Counter, "Other sites that dialled this node and were refused, by reason";
    FORKS = "fulmar_link_forks_total", Counter, "Partitions of which another site had other records than this one, when it asked";
    LINK_STATE = "fulmar_link_state", Gauge, "1 for the state that a link is in, 0 for the others";
    LINK_UP = "fulmar_link_up_seconds", Gauge, "How long a link is up";
    LINK_NEXT = "fulmar_link_next_attempt_seconds", Gauge, "When the other site of a link is dialled again";
    LINK_TROUBLE = "fulmar_link_last_error", Gauge, "Seconds since something went wrong with a link, with the kind of it";
    LINK_SESSIONS = "fulmar_link_sessions_total", Counter, "Sessions of a link since this node leads";
    LINK_SENT = "fulmar_link_sent_bytes_total", Counter, "Bytes of records that went out over a link since this node leads";
    LINK_LINE = "fulmar_link_line_bytes_total", Counter, "Bytes of the frames that held them, less if they were compressed on the line";
    LINK_CAP = "fulmar_link_cap_bytes_per_second", Gauge, "The most bytes that this side of a link sends in any second, 0 for no cap";
    LINK_RECEIVED = "fulmar_link_received_bytes_total", Counter, "Bytes of records that came in";
    LINK_SENT_RATE = "fulmar_link_sent_bytes_per_second", Gauge, "The same per second, over the last ten";
    LINK_RECEIVED_RATE = "fulmar_link_received_bytes_per_second", Gauge, "The same per second, over the last ten";
    LINK_LAG_RECORDS = "fulmar_link_lag_records", Gauge, "Records of a topic that the other site of a link lacks";
    LINK_LAG_BYTES = "fulmar_link_lag_bytes", Gauge, "Bytes of them, about";
    LINK_LAG_SECONDS = "fulmar_link_lag_seconds", Gauge, "The age of the oldest of them, about";
    LINK_ARRIVED = "fulmar_link_last_arrived_seconds", Gauge, "How long ago the last record of a copy came";
    LINK_MISSING = "fulmar_link_missing_records", Gauge, "Records of a copy that will never come";
    LINK_UNSENT = "fulmar_link_unsent_records", Gauge, "Records that went, or were not kept, before some other site was known to have them";
    LINK_STOPPED = "fulmar_link_stopped_partitions", Gauge, "Partitions of which nothing more comes in this session, by reason";
    LINK_WITHHELD = "fulmar_link_withheld_topics", Gauge, "Topics of this site that no rule lets go over a link";
    PIPELINES = "fulmar_pipelines", Gauge, "Pipelines of the site";
    PIPELINES_FAILED = "fulmar_pipelines_failed", Gauge, "Pipelines of the site that cannot go on";
    PIPELINE_MEMORY = "fulmar_pipeline_memory_used_bytes", Gauge, "What the state of the pipelines of this node takes, about";
    PIPELINE_MEMORY_MAX = "fulmar_pipeline_memory_max_bytes", Gauge, "How much it may take";
    PIPELINE_EPOCHS = "fulmar_pipeline_epochs_total", Counter, "Epochs that a pipeline has committed since this node runs it";
    PIPELINE_RECORDS = "fulmar_pipeline_read_records_total", Counter, "Records that it has read";
    PIPELINE_BYTES = "fulmar_pipeline_read_bytes_total", Counter, "Bytes of them, as they are without compression";
    PIPELINE_SECONDS = "fulmar_pipeline_epoch_seconds_total", Counter, "How long its epochs took, from their first record to the answer of the log";
    PIPELINE_STATE = "fulmar_pipeline_state_bytes", Gauge, "What its state takes, about";
    PIPELINE_WAITING = "fulmar_pipeline_waiting", Gauge, "1 for what a pipeline waits for, 0 for the others";
    PIPELINE_FATES = "fulmar_pipeline_fate_records", Gauge, "Records that a query of a pipeline has read of a partition, and what became of them: `read` is the sum of the others";
    PIPELINE_WATERMARK = "fulmar_pipeline_watermark_seconds", Gauge, "The watermark of a source, in seconds since 1970";
    PIPELINE_LAG = "fulmar_pipeline_lag_records", Gauge, "Records that it has not read yet";
    PIPELINE_MISSED = "fulmar_pipeline_missed_records", Gauge, "Records that were gone before it read them";
    TRUNCATED = "fulmar_metrics_truncated", Gauge, "1 if there are more topics, links or partitions of a link than are told";
}
