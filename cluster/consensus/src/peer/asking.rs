//! Questions that a node puts to the one that leads, on behalf of whoever is above: this crate carries
//! them and does not know what they say.
//!
//! They have a connection of their own, since an answer may take as long as a commit does and answers come
//! in the order of the questions: a vote must not wait behind them.
//!
//! Invariants: a question is sent once at most; it is answered once, with what the other node says, "it
//! certainly did nothing", or "unknown"; at most [`QUESTIONS_MAX`] of each peer are worked on, and
//! none is longer than an entry.

use super::connection::{PeerConnection, PeerContext};
use super::control::{Control, ControlError};
use super::frame::{self, Frame};
use super::message::{self, Purpose, kind};
use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_host::time::Duration;
use fulmar_types::NodeId;
use fulmar_types::limits::ENTRY_BYTES_MAX;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// Questions of one peer that are worked on at one time.
pub const QUESTIONS_MAX: usize = 8;

/// What answers the questions of other nodes. It says `None` if it certainly did nothing.
pub trait Answerer: Send + Sync + 'static {
    /// Answers a question that is worth an answer for so long.
    fn answer(&self, question: Bytes, patience: Duration) -> BoxFuture<'static, Option<Vec<u8>>>;
}

/// A question; what it says is the body of its frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// How long the answer is waited for.
    pub patience_ms: u64,
}

/// The answer to [`Asked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// `None` if nothing was done.
    pub answer: Option<Vec<u8>>,
}

/// Why there is no answer from the one that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// It certainly did nothing.
    #[error("nothing was done")]
    NotDone,
    /// It may or may not have done what was asked.
    #[error("no answer came in time")]
    Unknown,
}

/// Both ends: the connections to the peers, and what answers theirs.
#[derive(Default)]
pub(crate) struct Asking {
    peers: BTreeMap<NodeId, Control>,
    answerer: Arc<OnceLock<Arc<dyn Answerer>>>,
}

impl Asking {
    pub(crate) fn new(
        context: &Arc<PeerContext>,
        answerer: Arc<OnceLock<Arc<dyn Answerer>>>,
    ) -> Self {
        let peers = context.addresses.keys().copied().filter(|peer| *peer != context.node);
        let control = |peer| Control::for_purpose(context.clone(), peer, Purpose::Ask);
        Self { peers: peers.map(|peer| (peer, control(peer))).collect(), answerer }
    }

    /// From now on questions are answered. Only the first answerer counts.
    pub(crate) fn answer_with(&self, answerer: Arc<dyn Answerer>) {
        // A second one would be a second broker on one group.
        let _ = self.answerer.set(answerer);
    }

    pub(crate) async fn ask(
        &self,
        node: NodeId,
        question: Bytes,
        patience: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let control = self.peers.get(&node).ok_or(AskError::NotDone)?;
        if question.len() > ENTRY_BYTES_MAX {
            return Err(AskError::NotDone);
        }
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let asked = Asked { patience_ms };
        let answer = control.ask(kind::ASK, &asked, vec![question], patience).await;
        match answer {
            Ok(Answered { answer }) => answer.ok_or(AskError::NotDone),
            Err(ControlError::Unreachable(_)) => Err(AskError::NotDone),
            Err(ControlError::Broken(_) | ControlError::Timeout) => Err(AskError::Unknown),
        }
    }
}

/// Answers the questions of a peer, in their order, until its connection ends. Those that are worked on
/// then are given up.
pub(super) async fn serve(
    answerer: &OnceLock<Arc<dyn Answerer>>,
    connection: PeerConnection,
    idle: Duration,
) -> io::Result<()> {
    let PeerConnection { mut reader, mut writer } = connection;
    let mut working = FuturesOrdered::new();
    let mut next = Box::pin(next_question(&mut reader, idle));
    loop {
        tokio::select! {
            biased;
            Some(answer) = working.next(), if !working.is_empty() => {
                let head = message::encode(&Answered { answer });
                frame::write(&mut writer, kind::ASK, &head, &[]).await?;
            }
            question = &mut next, if working.len() < QUESTIONS_MAX => {
                let Some((asked, body)) = question? else { return Ok(()) };
                let patience = Duration::from_millis(asked.patience_ms);
                let answerer = answerer.get().cloned();
                working.push_back(async move {
                    match answerer {
                        Some(answerer) => answerer.answer(body, patience).await,
                        None => None,
                    }
                });
                drop(next);
                next = Box::pin(next_question(&mut reader, idle));
            }
        }
    }
}

/// The next question; `None` at the end of the connection, or if nothing was asked for so long.
async fn next_question(
    reader: &mut frame::FrameReader,
    idle: Duration,
) -> io::Result<Option<(Asked, Bytes)>> {
    let Ok(frame) = fulmar_host::time::timeout(idle, reader.next()).await else { return Ok(None) };
    let Some(Frame { kind, head, body, .. }) = frame? else { return Ok(None) };
    if kind != kind::ASK || body.len() > ENTRY_BYTES_MAX {
        let text = "an unknown request on an asking connection";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some((message::decode(&head)?, body)))
}
