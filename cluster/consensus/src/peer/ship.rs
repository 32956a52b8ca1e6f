//! Snapshots and whole segments on their way to a node behind the purge point.
//!
//! Sealed segments are byte-identical on all nodes, so the sender offers its list, the receiver
//! names those that it has not, and takes them as plain files. What has arrived stays staged on
//! disk: if the leader changes half way, the next leader's offer is answered with the rest only.
//!
//! ```text
//! leader                                  node behind
//!   offer {snapshot, segments}      -->
//!                                   <--   wanted {first indexes}
//!   chunk {segment, at, last} ...   -->
//!                                   <--   done                     (per chunk)
//!   chunk {snapshot, at, last} ...  -->
//!                                   <--   done
//!   install {vote, snapshot}        -->
//!                                   <--   still at it ... installed {vote}
//! ```
//!
//! Invariants: nothing staged takes effect before its hash is verified and openraft has accepted
//! the snapshot; one transfer at a time writes to the staging area, and an older one, which its
//! leader may have given up long ago, writes nothing any more once a newer one has begun.

use super::connection::{PeerConnection, PeerContext, dial};
use super::message::{
    Chunk, ChunkOf, Done, Install, Installed, Offer, Purpose, SegmentOffer, Wanted, WireVote, kind,
};
use crate::snapshot_data::SnapshotData;
use crate::types::{TypeConfig, Vote};
use bytes::Bytes;
use fulmar_host::Host;
use fulmar_store::{IncomingError, SealedInfo, Snapshot, Store};
use fulmar_types::limits::SHIP_CHUNK_BYTES;
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Probe, Term};
use openraft::errors::{NetworkError, StreamingError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The largest snapshot that is taken from a peer.
pub const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

type ShipError = StreamingError<TypeConfig>;

fn network(error: &io::Error) -> ShipError {
    StreamingError::Network(NetworkError::new(error))
}

/// Sends a snapshot with everything below it.
pub(crate) async fn send(
    context: &PeerContext,
    store: &Store,
    target: NodeId,
    what: (Vote, SnapshotData),
) -> Result<SnapshotResponse<TypeConfig>, ShipError> {
    let connection = dial(context, target, Purpose::Ship)
        .await
        .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
    let (vote, data) = what;
    let mut sender = Sender { connection, store, limit: context.stall_timeout };
    match sender.run(&vote, &data).await {
        Ok(vote) => Ok(SnapshotResponse::new(vote.to_vote())),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(StreamingError::Timeout(Timeout {
                action: RPCTypes::InstallSnapshot,
                id: context.node,
                target,
                timeout: context.stall_timeout,
            }))
        }
        Err(error) => Err(network(&error)),
    }
}

struct Sender<'a> {
    connection: PeerConnection,
    store: &'a Store,
    limit: Duration,
}

impl Sender<'_> {
    async fn run(&mut self, vote: &Vote, data: &SnapshotData) -> io::Result<WireVote> {
        let snapshot = data.snapshot.encode();
        let offer = Offer {
            vote: WireVote::from(vote),
            snapshot: data.snapshot.last,
            snapshot_bytes: snapshot.len() as u64,
            segments: data.segments.iter().map(to_offer).collect(),
        };
        let wanted: Wanted = self.connection.ask(kind::OFFER, &offer, self.limit).await?;
        for (base, from) in wanted.segments {
            let segment = data.segments.iter().find(|segment| segment.base == base);
            let Some(segment) = segment else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a peer wants a segment that was not offered",
                ));
            };
            self.segment(segment, from).await?;
        }
        self.chunks(ChunkOf::Snapshot, &snapshot).await?;
        let install = Install { vote: WireVote::from(vote), snapshot: data.snapshot.last };
        let mut answer = self.connection.ask(kind::INSTALL, &install, self.limit).await?;
        loop {
            match answer {
                Installed::Over(vote) => return Ok(vote),
                Installed::NoSpace => return Err(io::ErrorKind::StorageFull.into()),
                Installed::StillAtIt => {
                    answer = self.connection.answer(kind::INSTALL, self.limit).await?;
                }
            }
        }
    }

    async fn segment(&mut self, segment: &SealedInfo, from: u64) -> io::Result<()> {
        let mut at = from;
        while at < segment.file_bytes {
            let want = usize::try_from(segment.file_bytes - at)
                .unwrap_or(SHIP_CHUNK_BYTES)
                .min(SHIP_CHUNK_BYTES);
            let bytes = self.store.read_sealed_chunk(segment.base, at, want).await?;
            // The segment may have been given back in the meantime; the next offer has it not.
            let bytes = bytes.filter(|bytes| bytes.len() == want);
            let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?;
            let end = at + want as u64;
            let chunk =
                Chunk { of: ChunkOf::Segment(segment.base), at, last: end == segment.file_bytes };
            if let Some(problem) = self.chunk(&chunk, bytes).await? {
                // With the last chunk the peer has verified all of it. If the fault is here, this
                // node ends, or the peer would be sent the same bytes for ever.
                if chunk.last {
                    self.store.verify_sealed(segment.base).await?;
                }
                return Err(io::Error::other(problem));
            }
            at = end;
        }
        Ok(())
    }

    async fn chunks(&mut self, of: ChunkOf, bytes: &Bytes) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + SHIP_CHUNK_BYTES);
            let chunk = Chunk { of, at: at as u64, last: end == bytes.len() };
            if let Some(problem) = self.chunk(&chunk, bytes.slice(at..end)).await? {
                return Err(io::Error::other(problem));
            }
            at = end;
        }
        Ok(())
    }

    /// Sends a chunk. Returns why the peer did not take it.
    async fn chunk(&mut self, chunk: &Chunk, bytes: Bytes) -> io::Result<Option<String>> {
        let done: Done = self.connection.ask_with(kind::CHUNK, chunk, &[bytes], self.limit).await?;
        Ok(done.problem)
    }
}

fn to_offer(segment: &SealedInfo) -> SegmentOffer {
    SegmentOffer {
        base: segment.base,
        last: segment.last,
        len_bytes: segment.file_bytes,
        hash: segment.hash,
    }
}

fn from_offer(offer: &SegmentOffer) -> SealedInfo {
    SealedInfo { base: offer.base, last: offer.last, file_bytes: offer.len_bytes, hash: offer.hash }
}

/// The receiving side of a node: one for all connections. What has arrived is known to the store.
#[derive(Default)]
pub struct ShipYard {
    /// The terms of the leaders that sent something since the last installation.
    senders: Mutex<BTreeSet<Term>>,
    /// Counts transfers: a newer one makes an older one give up.
    current: Mutex<u64>,
    /// Held by a transfer that changes what is staged. Only then it looks whether it is current:
    /// what it is at is over before a newer one goes on.
    writing: tokio::sync::Mutex<()>,
}

/// One transfer to this node.
pub struct Receiver {
    host: Host,
    yard: Arc<ShipYard>,
    store: Arc<Store>,
    number: u64,
    offer: Option<Offer>,
    wanted: BTreeSet<LogIndex>,
    snapshot: Vec<u8>,
    snapshot_complete: bool,
}

fn refuse(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

impl Receiver {
    /// Begins a transfer; one that was under way gives up.
    pub fn new(host: &Host, yard: &Arc<ShipYard>, store: &Arc<Store>) -> Self {
        let number = {
            let mut current = yard.current.lock().expect("no holder of this lock panics");
            *current += 1;
            *current
        };
        Self {
            host: host.clone(),
            yard: yard.clone(),
            store: store.clone(),
            number,
            offer: None,
            wanted: BTreeSet::new(),
            snapshot: Vec::new(),
            snapshot_complete: false,
        }
    }

    fn still_current(&self) -> io::Result<()> {
        if *self.yard.current.lock().expect("no holder of this lock panics") == self.number {
            Ok(())
        } else {
            Err(refuse("another transfer has begun"))
        }
    }

    /// Looks at an offer and names what is missing here.
    ///
    /// # Errors
    /// If the offer makes no sense, a newer transfer has begun, or an installation is under way.
    pub async fn offer(&mut self, offer: Offer) -> io::Result<Wanted> {
        let yard = self.yard.clone();
        let _writing = yard.writing.lock().await;
        self.still_current()?;
        if offer.snapshot_bytes > SNAPSHOT_BYTES_MAX {
            return Err(refuse("the snapshot on offer is over the limit"));
        }
        let mut previous_end: Option<LogIndex> = None;
        for segment in &offer.segments {
            let in_order = previous_end.is_none_or(|end| segment.base > end);
            if !in_order || segment.last.index < segment.base || segment.last > offer.snapshot {
                return Err(refuse("the segments on offer are not in order"));
            }
            previous_end = Some(segment.last.index);
        }
        let offered = offer.segments.iter().map(|segment| segment.base).collect();
        self.store.keep_incoming(&offered).await.map_err(io::Error::other)?;
        let mut wanted = Vec::new();
        for segment in &offer.segments {
            let info = from_offer(segment);
            if self.store.has_segment(&info) {
                continue;
            }
            // What an earlier transfer left behind is gone on with.
            let from = self.store.begin_incoming(info).await.map_err(io::Error::other)?;
            if from < info.file_bytes {
                wanted.push((segment.base, from));
            } else {
                self.finish(info, offer.vote.term()).await?;
            }
        }
        self.wanted = wanted.iter().map(|(base, _)| *base).collect();
        self.offer = Some(offer);
        self.snapshot.clear();
        self.snapshot_complete = false;
        Ok(Wanted { segments: wanted })
    }

    async fn finish(&mut self, info: SealedInfo, term: Term) -> io::Result<()> {
        let finished = self.store.finish_incoming(info.base).await;
        if let Err(error @ IncomingError::Refused { .. }) = &finished {
            tracing::warn!(%error, %term, "a peer sent a damaged segment");
        }
        finished.map_err(io::Error::other)?;
        self.host.report(Event::SegmentReceived { base: info.base });
        self.wanted.remove(&info.base);
        self.yard.senders.lock().expect("no holder of this lock panics").insert(term);
        Ok(())
    }

    /// Takes some bytes.
    ///
    /// # Errors
    /// If they are not what was agreed on, do not match their hash, or a newer transfer has begun.
    pub async fn chunk(&mut self, chunk: &Chunk, bytes: Bytes) -> io::Result<()> {
        let yard = self.yard.clone();
        let _writing = yard.writing.lock().await;
        self.still_current()?;
        let offer = self.offer.as_ref().ok_or_else(|| refuse("a chunk came without an offer"))?;
        match chunk.of {
            ChunkOf::Snapshot => {
                let room = offer.snapshot_bytes - self.snapshot.len() as u64;
                if chunk.at != self.snapshot.len() as u64 || bytes.len() as u64 > room {
                    return Err(refuse("a chunk of the snapshot is out of place"));
                }
                self.snapshot.extend_from_slice(&bytes);
                self.snapshot_complete = chunk.last;
                Ok(())
            }
            ChunkOf::Segment(base) => {
                let segment = offer
                    .segments
                    .iter()
                    .find(|segment| segment.base == base && self.wanted.contains(&base))
                    .ok_or_else(|| refuse("a chunk of a segment that was not asked for"))?;
                if chunk.at + bytes.len() as u64 > segment.len_bytes {
                    return Err(refuse("a chunk is beyond the end of its segment"));
                }
                let info = from_offer(segment);
                let term = offer.vote.term();
                let end = chunk.at + bytes.len() as u64;
                self.store.write_incoming(base, chunk.at, bytes).await.map_err(io::Error::other)?;
                if end == info.file_bytes {
                    self.finish(info, term).await?;
                }
                Ok(())
            }
        }
    }

    /// Everything is here: what openraft is to install.
    ///
    /// # Errors
    /// If something is missing, the segments do not belong together, or the snapshot does not
    /// decode.
    pub async fn complete(&mut self, last: LogPosition) -> io::Result<SnapshotData> {
        self.still_current()?;
        let offer = self.offer.as_ref().ok_or_else(|| refuse("nothing was offered"))?;
        if offer.snapshot != last || !self.wanted.is_empty() || !self.snapshot_complete {
            return Err(refuse("the transfer is not complete"));
        }
        let snapshot = Snapshot::decode(&Bytes::from(std::mem::take(&mut self.snapshot)))
            .map_err(|error| refuse(error.to_string()))?;
        if snapshot.last != last {
            return Err(refuse("the snapshot is another one than was offered"));
        }
        let segments: Vec<SealedInfo> = offer.segments.iter().map(from_offer).collect();
        // Refused here, where a peer is told: to openraft it would be the end of this node.
        let prepared = self.store.prepare_install(last, &segments).await;
        let prepared = Some(Arc::new(prepared.map_err(io::Error::other)?));
        Ok(SnapshotData { snapshot, segments, prepared })
    }

    /// The snapshot is installed: notes who had a part in it.
    pub fn installed(&self) {
        let mut senders = self.yard.senders.lock().expect("no holder of this lock panics");
        if std::mem::take(&mut *senders).len() > 1 {
            self.host.probe(Probe::SegmentsShippedAcrossLeaderChange);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::frame::FrameReader;
    use crate::peer::message;
    use crate::testing::Bench;
    use fulmar_host::{task, time};
    use fulmar_store::{EntryKind, LogEntry};
    use fulmar_types::ExitCode;
    use std::fs;

    /// The two ends of a connection.
    fn connected() -> [PeerConnection; 2] {
        let (one, other) = tokio::io::duplex(1 << 16);
        [one, other].map(|end| {
            let (reader, writer) = tokio::io::split(end);
            PeerConnection { reader: FrameReader::new(Box::new(reader)), writer: Box::new(writer) }
        })
    }

    /// Fills a segment, and waits until it is sealed.
    async fn sealed(store: &Store) -> SealedInfo {
        let entry = |index| LogEntry {
            position: LogPosition { term: Term(1), index: LogIndex(index) },
            kind: EntryKind::Normal,
            claim: 0,
            payload: vec![index as u8; 8_000].into(),
        };
        store.append((0..20).map(entry).collect(), Box::new(|_| {})).await.expect("works");
        (0..20).for_each(|index| store.applied(LogIndex(index), &Bytes::new(), &[]));
        loop {
            if let Some(sealed) = store.sealed().first() {
                return *sealed;
            }
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends a segment to a peer that refuses the last chunk.
    async fn refused(store: &Store, segment: &SealedInfo) {
        let [mine, mut theirs] = connected();
        let _peer = task::spawn_owned(async move {
            while let Ok(frame) = theirs.receive().await {
                let chunk: Chunk = message::decode(&frame.head).expect("a chunk");
                let problem = chunk.last.then(|| "it does not verify".to_owned());
                theirs.send(kind::CHUNK, &Done { problem }, &[]).await.expect("it listens");
            }
        });
        let mut sender = Sender { connection: mine, store, limit: Duration::from_secs(10) };
        sender.segment(segment, 0).await.expect_err("refused");
    }

    #[test]
    fn a_refused_segment_is_verified_here_and_rot_ends_this_node() {
        task::block_on(async {
            let bench = Bench::new("refused");
            let store = bench.store().await;
            let segment = sealed(&store).await;
            refused(&store, &segment).await;
            assert_eq!(bench.end.seen(), None, "the fault is not here");

            let path = bench.directory.join("log/00000000000000000000.seg");
            let mut bytes = fs::read(&path).expect("the segment");
            bytes[50_000] ^= 1;
            fs::write(&path, bytes).expect("the segment");
            refused(&store, &segment).await;
            let (code, message) = bench.end.seen().expect("it ends");
            assert_eq!(code, ExitCode::Damaged);
            assert!(message.contains("00000000000000000000.seg is damaged"), "{message}");
        });
    }
}
