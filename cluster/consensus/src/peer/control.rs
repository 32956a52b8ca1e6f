//! Questions to one peer over one connection that stays open: votes, heartbeats, introductions.
//!
//! A task owns the connection. Questions are written as they come and answered in their order, so
//! whoever gives up waiting leaves a connection behind that is still of use; the late answer goes
//! nowhere.
//!
//! A dial may take long, for a node that is starting too, while askers give up and ask again. The
//! node must not take what was said before its life began for what holds now, and it can know that
//! of the first append on a connection only.
//!
//! Invariants: at most [`OUTSTANDING_MAX`] questions wait for their answers; a connection on which
//! the oldest one has waited for the stall timeout is given up; the next question opens another; a
//! question that nobody waits for any more is not sent; of the appends on a connection all but the
//! first were asked after it was there.

use super::connection::{DialError, PeerConnection, PeerContext, dial};
use super::frame::{self, Frame, FrameReader};
use super::message::{self, Purpose, kind};
use bytes::Bytes;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Instant};
use fulmar_types::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for their answers.
pub const OUTSTANDING_MAX: usize = 32;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No connection came about.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or the peer did not keep to the protocol.
    #[error("{0}")]
    Broken(String),
    /// The asker's own limit passed.
    #[error("no answer in time")]
    Timeout,
}

struct Question {
    kind: u8,
    asked: Instant,
    head: Vec<u8>,
    body: Vec<Bytes>,
    answer: oneshot::Sender<Result<Frame, ControlError>>,
}

/// A handle to the connection. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Control {
    questions: mpsc::Sender<Question>,
    _task: Arc<Owned<()>>,
}

impl Control {
    /// A connection to this peer, opened when first needed.
    pub fn new(context: Arc<PeerContext>, target: NodeId) -> Self {
        Self::for_purpose(context, target, Purpose::Control)
    }

    /// One that serves another purpose.
    pub fn for_purpose(context: Arc<PeerContext>, target: NodeId, purpose: Purpose) -> Self {
        let (questions, asked) = mpsc::channel(OUTSTANDING_MAX);
        let task = task::spawn_owned(run(context, (target, purpose), asked));
        Self { questions, _task: Arc::new(task) }
    }

    /// Asks, and waits for the answer at most for `limit`.
    ///
    /// # Errors
    /// If there is no answer in time, or none will come.
    pub async fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        kind: u8,
        message: &T,
        body: Vec<Bytes>,
        limit: Duration,
    ) -> Result<A, ControlError> {
        let (head, asked) = (message::encode(message), time::now());
        let exchange = async {
            let gone = || ControlError::Broken("the connection was given up".to_owned());
            let (answer, answered) = oneshot::channel();
            let question = Question { kind, asked, head, body, answer };
            self.questions.send(question).await.map_err(|_| gone())?;
            let frame = answered.await.map_err(|_| gone())??;
            if frame.kind != kind {
                let text = "a peer answered another question".to_owned();
                return Err(ControlError::Broken(text));
            }
            message::decode(&frame.head).map_err(|error| ControlError::Broken(error.to_string()))
        };
        time::timeout(limit, exchange).await.map_err(|_| ControlError::Timeout)?
    }
}

async fn run(
    context: Arc<PeerContext>,
    (target, purpose): (NodeId, Purpose),
    mut asked: mpsc::Receiver<Question>,
) {
    while let Some(first) = asked.recv().await {
        match dial(&context, target, purpose).await {
            Ok(connection) => serve(&context, connection, first, &mut asked).await,
            Err(error) => refuse(&error, first, &mut asked),
        }
    }
}

/// Nobody is there: everyone who waits learns it at once.
fn refuse(error: &DialError, first: Question, asked: &mut mpsc::Receiver<Question>) {
    let mut next = Some(first);
    while let Some(question) = next {
        // The asker may have given up.
        let _ = question.answer.send(Err(ControlError::Unreachable(error.to_string())));
        next = asked.try_recv().ok();
    }
}

/// Which questions go out over a connection.
struct Sieve {
    connected: Instant,
    has_appended: bool,
}

impl Sieve {
    fn new(connected: Instant) -> Self {
        Self { connected, has_appended: false }
    }

    /// The question, if it is to be sent. If not, its asker is told.
    fn pass(&mut self, question: Question) -> Option<Question> {
        if question.answer.is_closed() {
            return None;
        }
        let is_append = question.kind == kind::APPEND;
        if is_append && self.has_appended && question.asked < self.connected {
            let text = "asked before the connection was there".to_owned();
            // The asker may have given up this moment.
            let _ = question.answer.send(Err(ControlError::Broken(text)));
            return None;
        }
        self.has_appended |= is_append;
        Some(question)
    }
}

type Waiting = oneshot::Sender<Result<Frame, ControlError>>;

async fn serve(
    context: &PeerContext,
    connection: PeerConnection,
    first: Question,
    asked: &mut mpsc::Receiver<Question>,
) {
    let PeerConnection { reader, mut writer } = connection;
    let mut sieve = Sieve::new(time::now());
    let (waiting, answers) = mpsc::channel::<Waiting>(OUTSTANDING_MAX);
    let (broke, mut broken) = oneshot::channel::<()>();
    let _reading = task::spawn_owned(read_answers(reader, answers, context.stall_timeout, broke));
    let mut next = Some(first);
    loop {
        let question = match next.take() {
            Some(question) => question,
            None => match next_question(asked, &mut broken).await {
                Some(question) => question,
                None => return,
            },
        };
        let Some(question) = sieve.pass(question) else { continue };
        if waiting.send(question.answer).await.is_err() {
            return;
        }
        let written = frame::write(&mut writer, question.kind, &question.head, &question.body);
        match time::timeout(context.stall_timeout, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(time::Elapsed) => return,
        }
    }
}

/// The next question, or `None` once the connection is broken or nobody can ask any more.
async fn next_question(
    asked: &mut mpsc::Receiver<Question>,
    broken: &mut oneshot::Receiver<()>,
) -> Option<Question> {
    std::future::poll_fn(|cx| {
        if std::pin::Pin::new(&mut *broken).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        asked.poll_recv(cx)
    })
    .await
}

/// Hands each answer to whoever asked. Ends with the connection; dropping `_broke` tells the writer.
async fn read_answers(
    mut reader: FrameReader,
    mut waiting: mpsc::Receiver<Waiting>,
    stall: Duration,
    _broke: oneshot::Sender<()>,
) {
    while let Some(asker) = waiting.recv().await {
        let frame = match time::timeout(stall, reader.next()).await {
            Ok(Ok(Some(frame))) => Ok(frame),
            Ok(Ok(None)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Err(time::Elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        let over = frame.is_err();
        let _ = asker.send(frame.map_err(|error| ControlError::Broken(error.to_string())));
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Result<Frame, ControlError>>;

    fn question(kind: u8, asked: Instant) -> (Question, Answered) {
        let (answer, answered) = oneshot::channel();
        (Question { kind, asked, head: Vec::new(), body: Vec::new(), answer }, answered)
    }

    #[test]
    fn of_what_was_asked_before_the_connection_one_append_is_sent() {
        let connected = time::now();
        let (before, after) = (connected - Duration::from_millis(1), connected);
        let mut sieve = Sieve::new(connected);
        let mut passes = |kind, asked| {
            let (question, mut answered) = question(kind, asked);
            let passes = sieve.pass(question).is_some();
            // Dropped without an answer where it passes: nobody sends it here.
            assert_eq!(matches!(answered.try_recv(), Ok(Err(ControlError::Broken(_)))), !passes);
            passes
        };
        assert!(passes(kind::VOTE, before), "an election does not wait for a second dial");
        assert!(passes(kind::APPEND, before), "the listening side knows that of the first");
        assert!(!passes(kind::APPEND, before));
        assert!(passes(kind::VOTE, before));
        assert!(passes(kind::APPEND, after));
        assert!(!passes(kind::APPEND, before));
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_and_is_not_the_first() {
        let connected = time::now();
        let before = connected - Duration::from_millis(1);
        let mut sieve = Sieve::new(connected);
        for asked in [before, before, connected] {
            let (question, answered) = question(kind::APPEND, asked);
            drop(answered);
            assert!(sieve.pass(question).is_none());
        }
        let (question, _answered) = question(kind::APPEND, before);
        assert!(sieve.pass(question).is_some());
    }
}
