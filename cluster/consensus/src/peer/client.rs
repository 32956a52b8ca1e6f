//! openraft's network: how a node speaks to one of its peers.
//!
//! openraft makes one client for entries, one for heartbeats and one for snapshots per peer, and
//! fresh ones for each election. Entries and snapshots have connections of their own; heartbeats
//! have one that stays open, and everything else shares another, so that a vote which waits for a
//! flush never delays a heartbeat.
//!
//! Entries are pipelined: a writer task sends them as fast as they come, up to
//! [`APPENDS_IN_FLIGHT_MAX`] without an answer, while the answers are read in order.
//!
//! Invariants: every exchange has a deadline; an answer is never matched with a question of an
//! earlier connection.

use super::connection::{PeerConnection, PeerContext, dial};
use super::control::{Control, ControlError};
use super::frame::{self, FrameReader};
use super::message::{
    self, AppendAnswer, Done, NoRoom, Purpose, Transfer, VoteAnswer, WireVote, kind,
};
use super::ship;
use crate::lease::Asked;
use crate::snapshot_data::SnapshotData;
use crate::space::frames_of;
use crate::types::{Member, TypeConfig, Vote, log_id, payload_len, position};
use fulmar_host::net::WriteHalf;
use fulmar_host::task::{self, Owned};
use fulmar_host::time;
use fulmar_store::Store;
use fulmar_types::{NodeId, Term};
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Appends on their way to one peer without an answer.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// Makes a client for each peer.
#[derive(Clone)]
pub struct PeerNetwork {
    context: Arc<PeerContext>,
    store: Arc<Store>,
    /// One for each peer, for everything but heartbeats.
    shared: BTreeMap<NodeId, Control>,
}

impl PeerNetwork {
    /// The network of a node, whose segments are read from this store.
    pub fn new(context: Arc<PeerContext>, store: Arc<Store>) -> Self {
        let peers = context.addresses.keys().copied().filter(|peer| *peer != context.node);
        let shared = peers.map(|peer| (peer, Control::new(context.clone(), peer))).collect();
        Self { context, store, shared }
    }

    fn client(&self, target: NodeId, control: Control, heartbeats: bool) -> PeerClient {
        let (context, store) = (self.context.clone(), self.store.clone());
        PeerClient { context, store, target, control, heartbeats }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> PeerClient {
        let control = match self.shared.get(&target) {
            Some(control) => control.clone(),
            // Not configured: every attempt to dial it says so.
            None => Control::new(self.context.clone(), target),
        };
        self.client(target, control, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _: &Member) -> PeerClient {
        self.client(target, Control::new(self.context.clone(), target), true)
    }
}

/// How a node speaks to one peer.
pub struct PeerClient {
    context: Arc<PeerContext>,
    store: Arc<Store>,
    target: NodeId,
    control: Control,
    /// Whether its append streams are heartbeats: one request each, over the control connection.
    heartbeats: bool,
}

fn unreachable_error(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn broken(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

impl PeerClient {
    async fn ask<T: serde::Serialize, A: serde::de::DeserializeOwned>(
        &self,
        what: (u8, RPCTypes),
        message: &T,
        body: Vec<bytes::Bytes>,
        limit: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let (kind, action) = what;
        self.control.ask(kind, message, body, limit).await.map_err(|error| match error {
            ControlError::Unreachable(_) => unreachable_error(&error),
            ControlError::Broken(_) => broken(&error),
            ControlError::Timeout => RPCError::Timeout(Timeout {
                action,
                id: self.context.node,
                target: self.target,
                timeout: limit,
            }),
        })
    }

    async fn append_once(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let asked = asked_now(&request);
        let (head, body) = message::append_to_wire(request);
        let what = (kind::APPEND, RPCTypes::AppendEntries);
        let answer: AppendAnswer = self.ask(what, &head, body, limit).await?;
        self.context.space.heard(self.target, answer.room);
        let outcome = message::outcome_from_wire(answer.outcome);
        grant(&self.context, self.target, asked, &outcome);
        outcome.map_err(|full| unreachable_error(&full))
    }

    async fn ask_for_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let question = message::VoteRequest {
            pre_vote,
            vote: WireVote::from(&request.vote),
            last: request.last_log_id.as_ref().map(position),
            transfer: request.leadership_transfer,
        };
        let what = (kind::VOTE, RPCTypes::Vote);
        let answer: VoteAnswer = self.ask(what, &question, Vec::new(), option.hard_ttl()).await?;
        Ok(VoteResponse::new(answer.vote.to_vote(), answer.last.map(log_id), answer.granted))
    }

    /// Sends the requests one by one over the control connection.
    fn one_by_one<'s, S>(&'s self, input: S, limit: Duration) -> AnswerStream<'s>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(stream::unfold(Some(input), move |input| async move {
            let mut input = input?;
            let request = input.next().await?;
            let answer = self.append_once(request, limit).await;
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(input)))
        }))
    }
}

type AnswerStream<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(match self.append_once(request, option.hard_ttl()).await? {
            Ok(flushed) => AppendEntriesResponse::PartialSuccess(flushed),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AnswerStream<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.heartbeats {
                return Ok(self.one_by_one(input, option.hard_ttl()));
            }
            // The first request is taken before dialling: openraft pauses after an error when it is
            // asked for the next request, and only then. Without this, a peer that is down would be
            // dialled as fast as it refuses.
            let Some(first) = input.next().await else {
                let nothing: AnswerStream<'s> = Box::pin(stream::empty());
                return Ok(nothing);
            };
            let frames = frames_of(first.entries.iter().map(payload_len));
            if self.context.space.lacks_room(self.target, frames.iter().sum()) {
                // Heartbeats say when there is room again.
                return Err(unreachable_error(&NoRoom));
            }
            let input = Box::pin(stream::iter([first]).chain(input));
            let PeerConnection { reader, writer } =
                dial(&self.context, self.target, Purpose::Append)
                    .await
                    .map_err(|error| unreachable_error(&error))?;
            let (sent, outstanding) = mpsc::channel(APPENDS_IN_FLIGHT_MAX);
            let pipeline = Pipeline {
                context: self.context.clone(),
                target: self.target,
                reader,
                outstanding,
                stall: self.context.stall_timeout,
                _writer: task::spawn_owned(send_all(input, writer, sent)),
            };
            let answers: AnswerStream<'s> =
                Box::pin(stream::unfold(Some(pipeline), |pipeline| async move {
                    pipeline?.next().await
                }));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let shipping =
            ship::send(&self.context, &self.store, self.target, (vote, snapshot.snapshot));
        let mut shipping = std::pin::pin!(shipping);
        let mut cancel = std::pin::pin!(cancel);
        // Polled in this order, so that a finished transfer is never reported as cancelled.
        std::future::poll_fn(move |cx| {
            if let std::task::Poll::Ready(result) = shipping.as_mut().poll(cx) {
                return std::task::Poll::Ready(result);
            }
            cancel.as_mut().poll(cx).map(|closed| Err(StreamingError::Closed(closed)))
        })
        .await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let order = Transfer {
            from: WireVote::from(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(position),
        };
        let done: Done = self
            .ask((kind::TRANSFER, RPCTypes::TransferLeader), &order, Vec::new(), option.hard_ttl())
            .await?;
        // The leader only wants to know that the order arrived: if the other node did not obey,
        // the next election decides.
        if let Some(problem) = done.problem {
            tracing::info!(target = %self.target, problem, "leadership was not taken over");
        }
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let pause = self.context.dial_timeout / 4;
        Some(Backoff::new(std::iter::repeat(pause)))
    }
}

/// A request that is about to be sent.
fn asked_now(request: &AppendEntriesRequest<TypeConfig>) -> Asked {
    Asked { term: Term(request.vote.leader_id.term), at: time::now() }
}

/// Counts the answer to a question for the lease, unless it comes from a higher term or was given
/// before the core had seen the question.
fn grant(
    context: &PeerContext,
    by: NodeId,
    asked: Asked,
    outcome: &Result<StreamAppendResult<TypeConfig>, NoRoom>,
) {
    if matches!(outcome, Ok(Ok(_) | Err(StreamAppendError::Conflict(_)))) {
        context.lease.grant(by, asked);
    }
}

async fn send_all<S>(mut input: S, mut writer: WriteHalf, sent: mpsc::Sender<Asked>)
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin + Send,
{
    while let Some(request) = input.next().await {
        // First the note that an answer will come, then the question: a full channel is the limit
        // on what is in flight.
        if sent.send(asked_now(&request)).await.is_err() {
            return;
        }
        let (head, body) = message::append_to_wire(request);
        if let Err(error) =
            frame::write(&mut writer, kind::APPEND, &message::encode(&head), &body).await
        {
            tracing::debug!(%error, "an append stream broke");
            return;
        }
    }
}

struct Pipeline {
    context: Arc<PeerContext>,
    target: NodeId,
    reader: FrameReader,
    outstanding: mpsc::Receiver<Asked>,
    stall: Duration,
    _writer: Owned<()>,
}

type Answered = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl Pipeline {
    /// The next answer, and the pipeline if it can go on.
    async fn next(mut self) -> Option<(Answered, Option<Self>)> {
        // Without a question there is no answer to wait for, however long it takes.
        let asked = self.outstanding.recv().await?;
        let answer = match time::timeout(self.stall, self.reader.next()).await {
            Ok(Ok(Some(frame))) => message::decode::<AppendAnswer>(&frame.head),
            Ok(Ok(None)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Err(time::Elapsed) => Err(io::ErrorKind::TimedOut.into()),
        };
        match answer {
            Ok(answer) => {
                self.context.space.heard(self.target, answer.room);
                let outcome = message::outcome_from_wire(answer.outcome);
                grant(&self.context, self.target, asked, &outcome);
                match outcome {
                    Ok(Ok(flushed)) => Some((Ok(Ok(flushed)), Some(self))),
                    Ok(Err(refused)) => Some((Ok(Err(refused)), None)),
                    // For now it is as good as gone; it is tried again after a pause.
                    Err(full) => Some((Err(unreachable_error(&full)), None)),
                }
            }
            Err(error) => Some((Err(broken(&error)), None)),
        }
    }
}
