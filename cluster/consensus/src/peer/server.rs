//! The listening side of a node for its peers.
//!
//! Invariants: a connection is served for the purpose it declared and no other; the number of
//! connections is bounded; a peer that breaks the protocol loses its connection and nothing else.

use super::asking::{self, Answerer};
use super::connection::{PeerConnection, PeerContext, welcome};
use super::frame::Frame;
use super::installing::Installing;
use super::message::{
    self, AppendAnswer, AppendOutcome, Chunk, Done, Hello, Install, Installed, Offer, Purpose,
    Transfer, VoteAnswer, WireVote, kind,
};
use super::ship::{Receiver, ShipYard};
use crate::bootstrap::Bootstrap;
use crate::group::SiteRaft;
use crate::rejoin;
use crate::snapshot_data::to_openraft;
use crate::space::{Ticket, frames_of};
use crate::types::{log_id, payload_len, position, vote_from_store};
use fulmar_host::net::Listener;
use fulmar_host::task::{self, Owned};
use fulmar_host::time;
use fulmar_store::Store;
use fulmar_types::{NodeId, Term};
use futures_util::StreamExt;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Connections that have not shaken hands yet, at one time.
const GREETINGS_MAX: usize = 64;

/// Connections of one peer for one purpose, at one time. One is in use; the others died without a
/// word, and the oldest is given up when another comes.
const CONNECTIONS_PER_PURPOSE_MAX: usize = 4;

/// A connection on which nothing was said for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Appends that wait for openraft to take them.
const APPEND_QUEUE: usize = 16;

/// The tasks that serve each peer for each purpose, the newest last.
pub type Serving = BTreeMap<(NodeId, Purpose), VecDeque<Owned<()>>>;

/// What the listening side of a node works with.
pub struct PeerServer {
    /// What all connections share.
    pub context: Arc<PeerContext>,
    /// Where segments are staged.
    pub store: Arc<Store>,
    /// Introductions and the beginning of the site.
    pub bootstrap: Arc<Bootstrap>,
    /// The group, once it runs.
    pub raft: OnceLock<SiteRaft>,
    /// Transfers to this node.
    pub yard: Arc<ShipYard>,
    /// Snapshots on their way into the core.
    pub installing: Installing,
    /// What answers questions for those above, once it is there.
    pub(crate) answerer: Arc<OnceLock<Arc<dyn Answerer>>>,
    /// Who is being served.
    pub serving: Mutex<Serving>,
}

/// Listens for what leaders say of the commit, on one connection. Its first append may have been made
/// before it was dialled, for an earlier life of this node; the others were made afterwards, for the
/// dialling side sends no second one that is older ([`super::control`], and entries are taken one by
/// one once the connection is there).
struct Hearing {
    context: Arc<PeerContext>,
    store: Arc<Store>,
    is_first: bool,
}

impl Hearing {
    fn new(context: Arc<PeerContext>, store: Arc<Store>) -> Self {
        Self { context, store, is_first: true }
    }

    fn append(&mut self, request: &AppendEntriesRequest<crate::types::TypeConfig>) {
        if !std::mem::replace(&mut self.is_first, false) {
            let term = Term(request.vote.leader_id.term);
            *self.context.heard.lock().expect("no holder of this lock panics") =
                Some((term, time::now()));
            self.context.catch_up.hear(request, self.store.vote());
        }
    }
}

fn protocol(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl PeerServer {
    /// Accepts connections until the listener breaks for good.
    pub async fn run(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let room = Arc::new(Semaphore::new(GREETINGS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(connection) => {
                    let server = self.clone();
                    task::spawn(async move {
                        match welcome(&server.context, connection).await {
                            Ok((connection, hello)) => server.begin(connection, hello),
                            Err(error) => tracing::debug!(%error, "a peer was not welcome"),
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a peer failed");
                    time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn begin(self: Arc<Self>, connection: PeerConnection, hello: Hello) {
        let key = (hello.from, hello.purpose);
        let server = self.clone();
        let task = task::spawn_owned(async move {
            if let Err(error) = server.serve(connection, &hello).await {
                tracing::debug!(%error, "a peer connection ended");
            }
        });
        let mut serving = self.serving.lock().expect("no holder of this lock panics");
        let tasks = serving.entry(key).or_default();
        if tasks.len() == CONNECTIONS_PER_PURPOSE_MAX {
            tasks.pop_front();
        }
        tasks.push_back(task);
    }

    async fn serve(&self, connection: PeerConnection, hello: &Hello) -> io::Result<()> {
        match hello.purpose {
            Purpose::Control => self.control(connection).await,
            Purpose::Append => self.append_stream(connection).await,
            Purpose::Ship => self.ship(connection).await,
            Purpose::Rejoin => self.rejoin(connection, hello).await,
            Purpose::Ask => asking::serve(&self.answerer, connection, IDLE_TIMEOUT).await,
        }
    }

    pub(crate) fn raft(&self) -> io::Result<&SiteRaft> {
        self.raft.get().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    async fn next_frame(connection: &mut PeerConnection) -> io::Result<Option<Frame>> {
        match time::timeout(IDLE_TIMEOUT, connection.reader.next()).await {
            Ok(frame) => frame,
            Err(time::Elapsed) => Ok(None),
        }
    }

    async fn control(&self, mut connection: PeerConnection) -> io::Result<()> {
        let mut heard = Hearing::new(self.context.clone(), self.store.clone());
        while let Some(frame) = Self::next_frame(&mut connection).await? {
            match frame.kind {
                kind::VOTE => {
                    let answer = self.vote(message::decode(&frame.head)?).await?;
                    connection.send(kind::VOTE, &answer, &[]).await?;
                }
                kind::APPEND => {
                    let request = message::append_from_wire(frame)?;
                    heard.append(&request);
                    let answer = self.append_once(request).await?;
                    connection.send(kind::APPEND, &answer, &[]).await?;
                }
                kind::TRANSFER => {
                    let done = self.transfer(message::decode(&frame.head)?).await;
                    connection.send(kind::TRANSFER, &done, &[]).await?;
                }
                kind::INTRODUCE => {
                    let answer = self.bootstrap.introduction();
                    connection.send(kind::INTRODUCE, &answer, &[]).await?;
                }
                _ => return Err(protocol("an unknown request on a control connection")),
            }
        }
        Ok(())
    }

    async fn vote(&self, question: message::VoteRequest) -> io::Result<VoteAnswer> {
        // A transfer is the wish of the leader itself, which reads nothing more.
        if !question.transfer
            && !self.context.earlier_grant.is_over()
            && let Some(own) = self.store.vote()
        {
            let (vote, last) = (WireVote::from(&vote_from_store(&own)), self.store.last());
            return Ok(VoteAnswer { vote, granted: false, last });
        }
        let mut request =
            openraft::raft::VoteRequest::new(question.vote.to_vote(), question.last.map(log_id));
        request.leadership_transfer = question.transfer;
        let raft = self.raft()?;
        let answer =
            if question.pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
        let answer = answer.map_err(io::Error::other)?;
        Ok(VoteAnswer {
            vote: WireVote::from(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(position),
        })
    }

    async fn append_once(
        &self,
        request: AppendEntriesRequest<crate::types::TypeConfig>,
    ) -> io::Result<AppendAnswer> {
        let frames = frames_of(request.entries.iter().map(payload_len));
        let space = &self.context.space;
        let ticket = if frames.is_empty() {
            None
        } else {
            match space.receive(&frames, Duration::ZERO).await {
                None => return Ok(self.answer(AppendOutcome::NoRoom)),
                admitted => admitted,
            }
        };
        let previous = request.prev_log_id;
        let last = request.entries.last().map(openraft::entry::RaftEntry::log_id).or(previous);
        let answer = self.raft()?.append_entries(request).await.map_err(io::Error::other)?;
        ticket.into_iter().for_each(Ticket::settle);
        use openraft::raft::AppendEntriesResponse as Answer;
        Ok(self.answer(message::outcome_to_wire(match answer {
            Answer::Success => Ok(last),
            Answer::PartialSuccess(flushed) => Ok(flushed),
            Answer::Conflict => {
                let at = previous.ok_or_else(|| protocol("a conflict before the first entry"))?;
                Err(StreamAppendError::Conflict(at))
            }
            Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
        })))
    }

    fn answer(&self, outcome: AppendOutcome) -> AppendAnswer {
        AppendAnswer { room: self.context.space.own(), outcome }
    }

    async fn transfer(&self, order: Transfer) -> Done {
        let request =
            TransferLeaderRequest::new(order.from.to_vote(), order.to, order.last.map(log_id));
        let outcome = match self.raft() {
            Err(error) => Err(error.to_string()),
            Ok(raft) => match raft.handle_transfer_leader(request).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(refused)) => Err(refused.to_string()),
                Err(fatal) => Err(fatal.to_string()),
            },
        };
        Done { problem: outcome.err() }
    }

    /// Entries in, answers out, in the same order; openraft works on several at a time. Entries
    /// without room on the disk, and all behind them, do not reach it: the last answer says so.
    async fn append_stream(&self, connection: PeerConnection) -> io::Result<()> {
        let PeerConnection { mut reader, mut writer } = connection;
        let (queue, requests) = mpsc::channel(APPEND_QUEUE);
        let (tickets, mut admitted) = mpsc::unbounded_channel();
        let (refuse, mut refused) = oneshot::channel();
        let (space, patience) = (self.context.space.clone(), self.context.dial_timeout);
        let mut heard = Hearing::new(self.context.clone(), self.store.clone());
        let _reading = task::spawn_owned(async move {
            while let Ok(Some(frame)) = reader.next().await {
                if frame.kind != kind::APPEND {
                    return;
                }
                let Ok(request) = message::append_from_wire(frame) else { return };
                heard.append(&request);
                let frames = frames_of(request.entries.iter().map(payload_len));
                let Some(ticket) = space.receive(&frames, patience).await else {
                    let _ = refuse.send(());
                    return;
                };
                if tickets.send(ticket).is_err() || queue.send(request).await.is_err() {
                    return;
                }
            }
        });
        let requests = futures_util::stream::unfold(requests, |mut requests| async move {
            requests.recv().await.map(|request| (request, requests))
        });
        let answers = self.raft()?.stream_append(requests);
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            let outcome = message::outcome_to_wire(answer.map_err(io::Error::other)?);
            if let Ok(ticket) = admitted.try_recv() {
                Ticket::settle(ticket);
            }
            let head = message::encode(&self.answer(outcome));
            super::frame::write(&mut writer, kind::APPEND, &head, &[]).await?;
        }
        if refused.try_recv().is_ok() {
            let head = message::encode(&self.answer(AppendOutcome::NoRoom));
            super::frame::write(&mut writer, kind::APPEND, &head, &[]).await?;
        }
        Ok(())
    }

    async fn rejoin(&self, mut connection: PeerConnection, hello: &Hello) -> io::Result<()> {
        while let Some(frame) = Self::next_frame(&mut connection).await? {
            if frame.kind != kind::REJOIN {
                return Err(protocol("an unknown request on a rejoining connection"));
            }
            let standing =
                rejoin::admit(&self.context, self.raft()?, hello.from, hello.incarnation).await;
            connection.send(kind::REJOIN, &standing, &[]).await?;
        }
        Ok(())
    }

    async fn ship(&self, mut connection: PeerConnection) -> io::Result<()> {
        let mut receiver = Receiver::new(&self.context.host, &self.yard, &self.store);
        while let Some(frame) = Self::next_frame(&mut connection).await? {
            match frame.kind {
                kind::OFFER => {
                    let offer: Offer = message::decode(&frame.head)?;
                    let wanted = receiver.offer(offer).await?;
                    connection.send(kind::OFFER, &wanted, &[]).await?;
                }
                kind::CHUNK => {
                    let chunk: Chunk = message::decode(&frame.head)?;
                    let problem =
                        receiver.chunk(&chunk, frame.body).await.err().map(|e| e.to_string());
                    connection.send(kind::CHUNK, &Done { problem }, &[]).await?;
                }
                kind::INSTALL => {
                    let order: Install = message::decode(&frame.head)?;
                    self.install_and_say(&mut connection, &mut receiver, &order).await?;
                }
                _ => return Err(protocol("an unknown request on a shipping connection")),
            }
        }
        Ok(())
    }

    /// Installs, and says from time to time that it is still at it: the leader cannot tell a slow
    /// installation from a machine that lost power.
    async fn install_and_say(
        &self,
        connection: &mut PeerConnection,
        receiver: &mut Receiver,
        order: &Install,
    ) -> io::Result<()> {
        let mut installing = std::pin::pin!(self.install(receiver, order));
        loop {
            tokio::select! {
                biased;
                installed = &mut installing => {
                    return connection.send(kind::INSTALL, &installed?, &[]).await;
                }
                () = time::sleep(self.context.stall_timeout / 4) => {
                    connection.send(kind::INSTALL, &Installed::StillAtIt, &[]).await?;
                }
            }
        }
    }

    async fn install(&self, receiver: &mut Receiver, order: &Install) -> io::Result<Installed> {
        let data = receiver.complete(order.snapshot).await?;
        // Asked now, because nobody can refuse it later.
        if !self.store.has_space_to_install(&data.snapshot, data.segments.len()).await? {
            return Ok(Installed::NoSpace);
        }
        let (raft, vote, snapshot) =
            (self.raft()?.clone(), order.vote.to_vote(), to_openraft(data)?);
        let installing = async move { raft.install_full_snapshot(vote, snapshot).await };
        let response = self.installing.after_earlier_ones(installing).await?;
        let response = response.map_err(io::Error::other)?;
        if response.vote == order.vote.to_vote() {
            receiver.installed();
        }
        Ok(Installed::Over(WireVote::from(&response.vote)))
    }
}
