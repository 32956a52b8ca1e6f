//! Every bound of the system, with the reasoning beside it. Relations between bounds are proved
//! when this file is compiled.

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The unit in which a disk tears: a write that power loss interrupts leaves each sector either
/// old, new or unreadable, never a mixture that a checksum would accept. Frames are padded to it,
/// so no sector ever holds bytes of two groups.
pub const SECTOR_BYTES: usize = 512;

/// The unit in which a file system writes: what changes a sector writes its whole block, so power
/// loss may make any sector of the block unreadable.
pub const BLOCK_BYTES: usize = 4 * KIB;

/// What lies in a segment file before its first frame: its header and two flush marks, each in a
/// block of its own.
pub const SEGMENT_HEADER_BYTES: usize = 3 * BLOCK_BYTES;

/// The largest record batch that a producer may send (Kafka's `max.message.bytes`) to a site whose
/// segments are of the default size.
pub const BATCH_BYTES_MAX: usize = MIB;

/// The largest record batch for a segment size: a quarter of it, up to [`BATCH_BYTES_MAX`].
pub const fn batch_bytes_max(segment_bytes: u64) -> usize {
    let quarter = segment_bytes as usize / 4;
    if quarter < BATCH_BYTES_MAX { quarter } else { BATCH_BYTES_MAX }
}

/// An entry stops taking further units once it holds this many bytes.
pub const fn entry_target_bytes(segment_bytes: u64) -> usize {
    batch_bytes_max(segment_bytes)
}

/// Headers of the units and operations of one entry, at most.
pub const ENTRY_OVERHEAD_BYTES_MAX: usize = 32 * KIB;

/// The largest payload of a frame: one full entry, one more batch, and the headers.
pub const fn entry_bytes_max(segment_bytes: u64) -> usize {
    entry_target_bytes(segment_bytes) + batch_bytes_max(segment_bytes) + ENTRY_OVERHEAD_BYTES_MAX
}

/// The largest payload of a frame at any segment size.
pub const ENTRY_BYTES_MAX: usize = entry_bytes_max(SEGMENT_BYTES_DEFAULT);

/// The largest frame that a Kafka client may send: one entry's worth of batches for one request.
pub const CLIENT_FRAME_BYTES_MAX: usize = 8 * MIB;

/// The largest message between two peers: some entries, or one chunk of a segment file.
pub const PEER_FRAME_BYTES_MAX: usize = 16 * MIB;

/// Bytes of entries in one AppendEntries message before the next one is started.
pub const APPEND_MESSAGE_TARGET_BYTES: usize = 4 * MIB;

/// A chunk of a segment file on its way to a peer.
pub const SHIP_CHUNK_BYTES: usize = MIB;

/// The smallest segment: it must hold its header page and the largest frame that it allows.
pub const SEGMENT_BYTES_MIN: u64 = 128 * KIB as u64;

/// The default segment: sixteen of them make a gigabyte, and one is replayed in well under a second.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * MIB as u64;

/// What is kept of the room of a node for entries that carry no records, so that a site whose disks
/// are full can still delete a topic: what the configuration wants, as far as a segment allows.
pub const fn control_reserve_bytes(segment_bytes: u64, wanted_bytes: u64) -> u64 {
    let most = segment_bytes / 4;
    let least = 2 * BLANKS_BYTES;
    if wanted_bytes < least {
        least
    } else if wanted_bytes > most {
        most
    } else {
        wanted_bytes
    }
}

/// The end of that reserve, which nobody may propose into: it is for the first, blank entries of
/// new leaders. A node that has not even this left does not stand for election.
pub const BLANKS_BYTES: u64 = 8 * KIB as u64;

/// A file of zeros that is given up when a small file (manifest, snapshot) finds the disk full. A
/// manifest of a thousand segments fits into a half of it several times.
pub const fn ballast_bytes(segment_bytes: u64) -> u64 {
    let share = segment_bytes / 16;
    if share > 256 * KIB as u64 { share } else { 256 * KIB as u64 }
}

/// Free space that is not made into spares: snapshots and small files need some now and then.
pub const fn free_kept_bytes(segment_bytes: u64) -> u64 {
    segment_bytes / 16
}

/// Entries in one message to a follower, by the bytes of their frames. Half a segment always fits
/// into what is left of one segment and one spare.
pub const fn append_message_bytes(segment_bytes: u64) -> u64 {
    let half = segment_bytes / 2;
    if half < APPEND_MESSAGE_TARGET_BYTES as u64 {
        half
    } else {
        APPEND_MESSAGE_TARGET_BYTES as u64
    }
}

/// Recently appended entries kept in memory for followers and for the apply loop, in bytes.
pub const ENTRY_CACHE_BYTES: usize = 16 * MIB;

/// Connections that a node accepts from Kafka clients at one time.
pub const CLIENT_CONNECTIONS_MAX: usize = 1_024;

/// Requests of one client connection that may wait for their answer.
pub const REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX: usize = 64;

/// Bytes of client requests that a node holds before it stops reading from its connections.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 32 * MIB;

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 1_024;

/// Partitions of one site: the state machine keeps a few hundred bytes for each.
pub const PARTITIONS_PER_SITE_MAX: usize = 16_384;

/// Producers that are remembered per partition for duplicate detection.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 4_096;

/// Batches that are remembered per producer and partition, as in Kafka (five in flight).
pub const PRODUCER_BATCHES_REMEMBERED: usize = 5;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(
    SEGMENT_BYTES_MIN as usize
        >= entry_bytes_max(SEGMENT_BYTES_MIN) + SEGMENT_HEADER_BYTES + SECTOR_BYTES
);
const _: () = assert!(SEGMENT_BYTES_DEFAULT >= SEGMENT_BYTES_MIN);
const _: () = assert!(PEER_FRAME_BYTES_MAX >= APPEND_MESSAGE_TARGET_BYTES + ENTRY_BYTES_MAX);
const _: () = assert!(PEER_FRAME_BYTES_MAX >= 2 * SHIP_CHUNK_BYTES);
const _: () = assert!(CLIENT_FRAME_BYTES_MAX >= 2 * BATCH_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_IN_FLIGHT_MAX >= 2 * CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(control_reserve_bytes(SEGMENT_BYTES_MIN, u64::MAX) >= 2 * BLANKS_BYTES);
const _: () = assert!(
    control_reserve_bytes(SEGMENT_BYTES_MIN, u64::MAX)
        <= (SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES as u64) / 2
);
const _: () = assert!(BLANKS_BYTES >= 8 * SECTOR_BYTES as u64);
const _: () = assert!(
    append_message_bytes(SEGMENT_BYTES_MIN) <= SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES as u64
);
