//! The bounds of the broker that nobody else has to know, beside those of `fulmar_types::limits`.

use fulmar_types::limits::{BATCH_BYTES_MAX, CLIENT_FRAME_BYTES_MAX, REQUEST_BYTES_IN_FLIGHT_MAX};
use fulmar_types::link::{
    LINK_AUTHORITY_BYTES_MAX, LINK_DIALS_MAX, LINK_TEXT_BYTES_MAX, LINK_TOPICS_MAX,
};
use fulmar_types::pipeline::{PIPELINE_FILE_BYTES_MAX, PIPELINE_TOPICS_MAX};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Entries that are proposed and not answered. A few cover the round trip to the followers; more
/// would only make the next leader's catching up longer.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 8;

/// Bytes of units that wait for their entry.
pub const PROPOSER_QUEUE_BYTES_MAX: usize = 16 * MIB;

/// Record bytes of one Fetch response, except that the first batch is always whole.
pub const FETCH_BYTES_MAX: usize = 4 * MIB;

/// Record bytes of all Fetch responses that are being read or sent.
pub const FETCH_BYTES_IN_FLIGHT_MAX: usize = 32 * MIB;

/// The longest that a Fetch may ask to wait.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;

/// A request frame up to this size is read before it is counted; a larger one is counted first.
pub const SMALL_FRAME_BYTES_MAX: usize = 64 * KIB;

/// The share of `REQUEST_BYTES_IN_FLIGHT_MAX` that is kept for small frames with records, so that
/// slow senders of large ones cannot shut everybody out.
pub const SMALL_FRAMES_BYTES_MAX: usize = REQUEST_BYTES_IN_FLIGHT_MAX / 4;

/// The share for small frames without records.
pub const OTHER_FRAMES_BYTES_MAX: usize = REQUEST_BYTES_IN_FLIGHT_MAX / 8;

/// What one connection may take of that. A client has a request or two of this kind under way; one
/// that sends many behind a Fetch which waits is not read on.
pub const OWN_FRAMES_BYTES_MAX: usize = 2 * SMALL_FRAME_BYTES_MAX;

/// The share for large frames.
pub const LARGE_FRAMES_BYTES_MAX: usize =
    REQUEST_BYTES_IN_FLIGHT_MAX - SMALL_FRAMES_BYTES_MAX - OTHER_FRAMES_BYTES_MAX;

/// A connection gives its buffer away with a frame that is longer than this, and begins a new one.
pub const BUFFER_KEPT_BYTES_MAX: usize = 16 * KIB;

/// Bytes of Fetch requests that wait for an append. One that finds no room is answered at once.
pub const WAITING_FETCH_BYTES_MAX: usize = 8 * MIB;

/// The longest that a Fetch waits for room for its records, beyond its own deadline.
pub const FETCH_ROOM_WAIT_MS_MAX: u64 = 1_000;

/// The pause between two looks of a Fetch that has found less than it wants.
pub const FETCH_LOOK_PAUSE_MS: u64 = 2;

/// Bytes of Metadata responses that are being made or sent.
pub const METADATA_BYTES_IN_FLIGHT_MAX: usize = 16 * MIB;

/// Bytes of the other responses that are being made or sent, of those above
/// [`MIDDLE_ANSWER_BYTES_MAX`]. The largest is made alone.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 24 * MIB;

/// The same for those up to that size, without the small ones.
pub const MIDDLE_ANSWERS_BYTES_MAX: usize = 8 * MIB;

/// A response up to this size takes room of those of middle size: about 500 partitions.
pub const MIDDLE_ANSWER_BYTES_MAX: usize = 256 * KIB;

/// How long a response waits for room; then its connection is closed. Clients give up after 30 s.
pub const ANSWER_ROOM_WAIT_MS_MAX: u64 = 30_000;

/// Bytes of the names and settings in one request: those of as many topics as it may name.
pub const REQUEST_NAME_BYTES_MAX: usize = 4 * MIB;

/// A response of at most this size is not counted: there is one for each connection at most.
pub const ANSWER_BYTES_FREE_MAX: usize = 8 * KIB;

/// What a response takes at most for each topic or partition that its request has named, in memory
/// and on the wire, beside the names themselves. It is counted as this.
pub const ANSWER_BYTES_PER_NAME: usize = 512;

/// How long a connection may be silent before it is closed (Kafka's `connections.max.idle.ms`).
pub const CONNECTION_IDLE_MS_MAX: u64 = 600_000;

/// How long a frame may take to arrive once it has begun, and a response to be taken, beside the
/// time for its bytes.
pub const FRAME_STALL_MS_MAX: u64 = 30_000;

/// The slowest that a frame may arrive, and that a response may be taken: a line of 128 kbit/s.
pub const FRAME_BYTES_PER_S_MIN: usize = 16 * KIB;

/// How long the answers of a client that has closed its side are still waited for.
pub const CLOSED_WAIT_MS_MAX: u64 = 10_000;

/// Topics or partitions that one request may name.
pub const REQUEST_PARTITIONS_MAX: usize = 16_384;

/// Settings that a topic has.
pub const TOPIC_SETTINGS: usize = 10;

/// Bytes of the settings of one link or rule: certificates in hexadecimal digits, places to dial, and
/// the names of topics.
pub const DESCRIBED_LINK_BYTES_MAX: usize = 2 * LINK_AUTHORITY_BYTES_MAX
    + (2 + LINK_DIALS_MAX + LINK_TOPICS_MAX) * (LINK_TEXT_BYTES_MAX + 1);

/// Bytes of the settings of one pipeline: its file, and the names of its topics.
pub const DESCRIBED_PIPELINE_BYTES_MAX: usize =
    PIPELINE_FILE_BYTES_MAX + 2 * PIPELINE_TOPICS_MAX * (LINK_TEXT_BYTES_MAX + 1) + KIB;

/// Values that the state of one link has at most. What is beyond them is left out, and that is said.
pub const LINK_STATUS_VALUES_MAX: usize = 4_096;

/// Topics that one Metadata request may create.
pub const AUTO_CREATED_TOPICS_MAX: usize = 64;

const _: () = assert!(
    LARGE_ANSWERS_BYTES_MAX
        >= 2 * REQUEST_PARTITIONS_MAX * ANSWER_BYTES_PER_NAME + 2 * REQUEST_NAME_BYTES_MAX
);
const _: () = assert!(PROPOSER_QUEUE_BYTES_MAX >= 2 * BATCH_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_IN_FLIGHT_MAX >= 2 * FETCH_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX >= BATCH_BYTES_MAX);
const _: () = assert!(LARGE_FRAMES_BYTES_MAX >= CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(SMALL_FRAMES_BYTES_MAX >= SMALL_FRAME_BYTES_MAX);
const _: () = assert!(OTHER_FRAMES_BYTES_MAX >= SMALL_FRAME_BYTES_MAX);
const _: () = assert!(WAITING_FETCH_BYTES_MAX >= CLIENT_FRAME_BYTES_MAX);
