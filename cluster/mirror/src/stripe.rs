//! One connection of a session.
//!
//! Invariants: every frame of every connection is written by [`write`], which asks the rules for each
//! piece of it and pays for it under the cap of the link; between the parts of a frame that is not urgent
//! goes what is; who says nothing for long is gone.
//!
//! Never: write a batch to the connection that the rules do not let go at that moment.

use crate::cap::RECORD_BYTES;
use crate::flow::Written;
use crate::frame::{self, Frame, Frames};
use crate::greeting;
use crate::message::Message;
use crate::outbox::{Group, Job};
use crate::session::{Ended, Parts, Taking};
use bytes::Bytes;
use fulmar_host::net::{Abrupt, PeerIdentity, WriteHalf};
use fulmar_host::time::{self, Duration};
use fulmar_types::link::Priority;
use fulmar_types::{NodeId, Plant, Probe, TopicId};
use std::collections::BTreeSet;
use tokio::io::AsyncWriteExt;

/// Somebody who has nothing to say says so this often.
const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// Who has not been heard for this long is gone: a line may stall without breaking.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// How often what the other side has shown is judged again: the time of a certificate runs out.
const JUDGE_EVERY: Duration = Duration::from_secs(60);

/// How long a session that was paused here goes on for the other side to hear of it.
pub(crate) const LEAVE_WAIT: Duration = Duration::from_millis(300);

/// What is urgent and longer is written in parts of this size: a slow line that many connections share takes each of
/// them within the patience of the other side ([`crate::flow`]).
const URGENT_PART_BYTES: usize = 2 << 10;

/// What this side was to say has no form.
const UNWRITABLE: &str = "protocol: too long for a frame";

/// A connection on which both sides know each other.
pub(crate) struct Stripe {
    /// Which one of its session.
    pub(crate) number: u8,
    /// Who is on the other side.
    pub(crate) peer: PeerIdentity,
    /// Which node of the other site that is.
    pub(crate) node: NodeId,
    /// What the other side says.
    pub(crate) reader: Frames,
    /// What this side says.
    pub(crate) writer: WriteHalf,
    /// What makes it end abruptly.
    pub(crate) abrupt: Option<Box<dyn Abrupt>>,
}

/// Carries what the connection has to carry until it ends. With [`Ended::Lost`] the session may go
/// on without it.
pub(crate) async fn run(parts: &Parts, taking: &Taking, stripe: Stripe) -> Ended {
    let Stripe { number, peer, node, reader, writer, abrupt } = stripe;
    // Whatever ends it, and be it the end of this process: what still waits to leave then may be what no
    // rule lets go any more.
    let is_abrupt = fulmar_host::planted(Plant::WithheldClosesGently)
        || abrupt.is_some_and(|abrupt| abrupt.end_abruptly().is_ok());
    if !is_abrupt {
        return Ended::Lost;
    }
    let why = tokio::select! {
        biased;
        why = judge(parts, &peer, node) => why,
        why = read(parts, taking, number, reader) => why,
        why = say(parts, number, writer) => why,
    };
    // Whoever has heard that this side has paused the link gives the connection up.
    if why == Ended::Lost && parts.is_paused() { Ended::Redefined } else { why }
}

/// Waits until what the other side has shown does not count any more.
async fn judge(parts: &Parts, peer: &PeerIdentity, node: NodeId) -> Ended {
    loop {
        time::sleep(JUDGE_EVERY).await;
        if greeting::judged(&parts.context, &parts.link, peer, Some(node)).is_err() {
            return Ended::Distrusted;
        }
    }
}

async fn say(parts: &Parts, number: u8, mut writer: WriteHalf) -> Ended {
    loop {
        let job = match parts.outbox.try_next(number) {
            Some(job) => job,
            None => {
                if writer.flush().await.is_err() {
                    return Ended::Lost;
                }
                let next = time::timeout(ALIVE_EVERY, parts.outbox.next(number)).await;
                next.unwrap_or(Job::Got)
            }
        };
        let Some((lane, frame)) = frame_of(parts, number, job) else {
            return leave(parts, number, &mut writer).await;
        };
        match write(parts, (lane, number), &mut writer, &frame).await {
            Ok(()) => {}
            // Nothing of the frame is written.
            Err((Ended::Withheld, 0)) if parts.is_paused() => {
                return leave(parts, number, &mut writer).await;
            }
            Err((why, _)) => return why,
        }
    }
}

/// The frame that a connection is to write, unless that is the last one.
fn frame_of(parts: &Parts, number: u8, job: Job) -> Option<(Priority, Frame)> {
    match job {
        Job::Group(Group { lane, number, messages, passes }) => {
            if passes {
                parts.context.host.probe(Probe::StuckPassed);
            }
            Some((lane, Frame::Messages { lane, number, messages }))
        }
        Job::Got => Some((Priority::Urgent, Frame::Got(parts.outbox.telling(number)))),
        Job::Leave => None,
    }
}

/// Tells the other side that this one has paused the link.
async fn leave(parts: &Parts, number: u8, writer: &mut WriteHalf) -> Ended {
    let told = async {
        write(parts, (Priority::Urgent, number), writer, &Frame::Leave)
            .await
            .map_err(|(why, _)| why)?;
        writer.flush().await.map_err(|_| Ended::Lost)
    };
    // Whether it hears of it or not; what ends abruptly takes back what has not arrived.
    let _ = told.await;
    time::sleep(LEAVE_WAIT).await;
    Ended::Redefined
}

/// The topics of which a frame tells something.
fn topics(frame: &Frame) -> BTreeSet<TopicId> {
    let mut told = BTreeSet::new();
    let Frame::Messages { messages, .. } = frame else { return told };
    for message in messages {
        match message {
            Message::Batch(part, ..) | Message::Gap { part, .. } => drop(told.insert(part.topic)),
            Message::Offer(topics) => told.extend(topics.iter().map(|topic| topic.topic)),
            _ => {}
        }
    }
    told
}

/// Writes a frame to a connection: in parts, if it is not urgent, and before each of them what has
/// become urgent meanwhile.
///
/// # Errors
/// Why not, and how many pieces are written of a frame that is not whole then.
async fn write(
    parts: &Parts,
    (lane, stripe): (Priority, u8),
    writer: &mut WriteHalf,
    frame: &Frame,
) -> Result<(), (Ended, usize)> {
    let bytes = frame::encode(frame).map_err(|_| (Ended::Protocol(UNWRITABLE), 0))?;
    if lane == Priority::Urgent {
        return write_urgent(parts, stripe, writer, (frame, &bytes)).await;
    }
    let piece_bytes = parts.cap.piece_bytes().0.min(parts.outbox.piece_bytes());
    let topics = topics(frame);
    let is_whole = fulmar_host::planted(Plant::UrgentAfterFrame);
    let mut cut = frame::parts(&bytes, lane, piece_bytes).peekable();
    while let Some(part) = cut.next() {
        loop {
            settle(parts, (stripe, lane), writer).await.map_err(|why| (why, 0))?;
            // What is not urgent may wait for seconds under the cap, behind others of its kind.
            let job = tokio::select! {
                biased;
                job = parts.outbox.next(stripe), if !is_whole => job,
                () = time::sleep(ALIVE_EVERY) => Job::Got,
                passes = async {
                    parts.outbox.room(stripe, lane).await;
                    may_pass(parts, lane, &topics, part.len()).await
                } => {
                    break passes.map_err(|why| (why, 0))?;
                }
            };
            let Some((_, frame)) = frame_of(parts, stripe, job) else { continue };
            let bytes = frame::encode(&frame).map_err(|_| (Ended::Protocol(UNWRITABLE), 0))?;
            write_urgent(parts, stripe, writer, (&frame, &bytes)).await?;
        }
        let what = part_of(lane, cut.peek().is_none());
        put(parts, (stripe, what), writer, &part).await.map_err(|why| (why, 0))?;
    }
    parts.wrote(frame, bytes.len());
    Ok(())
}

/// Writes a frame that is urgent: as it is if it is short, else in parts, since the other side confirms what has
/// come, and nobody can tell a long frame that comes slowly from a connection that nothing comes through.
///
/// # Errors
/// As [`write`].
async fn write_urgent(
    parts: &Parts,
    stripe: u8,
    writer: &mut WriteHalf,
    (frame, bytes): (&Frame, &Bytes),
) -> Result<(), (Ended, usize)> {
    let most = match fulmar_host::planted(Plant::UrgentFloods) {
        true => frame::PIECE_BYTES_MAX,
        false => URGENT_PART_BYTES,
    };
    let part_bytes = parts.cap.piece_bytes().0.min(most);
    if bytes.len() <= part_bytes || !matches!(frame, Frame::Messages { .. }) {
        return write_whole(parts, stripe, writer, (frame, bytes)).await;
    }
    let (lane, topics) = (Priority::Urgent, topics(frame));
    let mut cut = frame::parts(bytes, lane, part_bytes).peekable();
    let mut at = 0;
    while let Some(part) = cut.next() {
        loop {
            settle(parts, (stripe, lane), writer).await.map_err(|why| (why, at))?;
            let job = tokio::select! {
                biased;
                job = parts.outbox.next(stripe) => job,
                () = time::sleep(ALIVE_EVERY) => Job::Got,
                passes = async {
                    parts.outbox.room(stripe, lane).await;
                    may_pass(parts, lane, &topics, part.len()).await
                } => {
                    break passes.map_err(|why| (why, at))?;
                }
            };
            // Nothing but what has come.
            let Some((_, got)) = frame_of(parts, stripe, job) else { continue };
            let bytes = frame::encode(&got).map_err(|_| (Ended::Protocol(UNWRITABLE), at))?;
            write_whole(parts, stripe, writer, (&got, &bytes))
                .await
                .map_err(|(why, _)| (why, at))?;
        }
        let what = part_of(lane, cut.peek().is_none());
        put(parts, (stripe, what), writer, &part).await.map_err(|why| (why, at))?;
        at += 1;
    }
    parts.wrote(frame, bytes.len());
    Ok(())
}

/// Writes a short frame that is urgent, without anything in between.
///
/// # Errors
/// As [`write`].
async fn write_whole(
    parts: &Parts,
    stripe: u8,
    writer: &mut WriteHalf,
    (frame, bytes): (&Frame, &Bytes),
) -> Result<(), (Ended, usize)> {
    let what = match frame {
        Frame::Messages { .. } => Written::Last(Priority::Urgent),
        Frame::Got(_) | Frame::Leave | Frame::Refused(_) => Written::Said,
    };
    let may = may_pass(parts, Priority::Urgent, &topics(frame), bytes.len()).await;
    may.map_err(|why| (why, 0))?;
    put(parts, (stripe, what), writer, bytes).await.map_err(|why| (why, 1))?;
    parts.wrote(frame, bytes.len());
    Ok(())
}

/// Before a part waits for what is on its way: that is to be on its way, and not in a buffer of this process.
async fn settle(
    parts: &Parts,
    (stripe, lane): (u8, Priority),
    writer: &mut WriteHalf,
) -> Result<(), Ended> {
    if parts.outbox.has_room(stripe, lane) {
        return Ok(());
    }
    writer.flush().await.map_err(|_| Ended::Lost)
}

/// Waits until a piece that tells something of these topics may be sent under the cap.
///
/// # Errors
/// If it may not at all.
async fn may_pass(
    parts: &Parts,
    lane: Priority,
    topics: &BTreeSet<TopicId>,
    bytes: usize,
) -> Result<(), Ended> {
    parts.cap.pay(lane, (bytes + RECORD_BYTES) as u64).await;
    if !topics.is_empty() && !parts.holds_lease() {
        return Err(Ended::Deposed);
    }
    // With a cap the frame before this piece may have taken seconds.
    if topics.iter().any(|topic| !parts.may_go(*topic))
        && !fulmar_host::planted(Plant::RuleAtOfferOnly)
    {
        parts.context.host.probe(Probe::RuleChangedInFlight);
        return Err(Ended::Withheld);
    }
    Ok(())
}

/// What a part of a frame of a priority is.
fn part_of(lane: Priority, is_last: bool) -> Written {
    if is_last { Written::Last(lane) } else { Written::Part(lane) }
}

/// Books a piece and hands it to the connection. The one place through which records leave the site, right behind
/// [`may_pass`].
async fn put(
    parts: &Parts,
    (stripe, what): (u8, Written),
    writer: &mut WriteHalf,
    piece: &[u8],
) -> Result<(), Ended> {
    parts.outbox.wrote(stripe, piece.len() as u64, what);
    let (_, is_capped) = parts.cap.piece_bytes();
    let written = async {
        writer.write_all(piece).await?;
        if is_capped { writer.flush().await } else { Ok(()) }
    };
    written.await.map_err(|_: std::io::Error| Ended::Lost)
}

async fn read(parts: &Parts, taking: &Taking, number: u8, mut reader: Frames) -> Ended {
    loop {
        let (frame, bytes) = match reader.next(SILENCE_MAX).await {
            Ok(Some(came)) => came,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Ended::Protocol("protocol: no frame");
            }
            Ok(None) | Err(_) => return Ended::Lost,
        };
        let of = match &frame {
            None => Some(Priority::Normal),
            Some(Frame::Messages { lane, .. }) => Some(*lane),
            Some(Frame::Got(_) | Frame::Leave | Frame::Refused(_)) => None,
        };
        let taken = match frame {
            None => Ok(()),
            Some(frame) => take(parts, taking, number, frame),
        };
        if let Err(why) = taken {
            return why;
        }
        parts.outbox.came(number, bytes, of);
    }
}

/// Takes a frame that came over a connection.
fn take(parts: &Parts, taking: &Taking, number: u8, frame: Frame) -> Result<(), Ended> {
    match frame {
        Frame::Leave => Err(Ended::PausedThere),
        Frame::Refused(reason) => Err(Ended::RefusedThere(reason)),
        Frame::Got(bytes) => {
            let confirmed = parts.outbox.confirmed(number, bytes);
            confirmed.map_err(|_| Ended::Protocol("protocol: got more than was sent"))
        }
        Frame::Messages { lane, number, messages } => {
            parts.came(&messages);
            taking.take(parts, lane, number, messages)
        }
    }
}
