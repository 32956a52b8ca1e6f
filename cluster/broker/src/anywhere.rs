//! Units that any node may want in the log: the one that leads proposes them.
//!
//! ```text
//! question    an entry with one unit, and a header of zeros
//! answer      1 u8 no room | 2 u8 unknown | 3 u8 done, term u64, the outcome of the unit
//! ```
//!
//! Invariants: a unit is proposed once at most; whoever wants it learns what became of it, that it was
//! certainly not done, or "unknown"; what is asked for other nodes is bounded by the room of the
//! proposer, as what clients send.
//!
//! Never: hand a question on a second time.

use crate::broker::Broker;
use crate::group::{Answerer, AskError};
use crate::machine::outcome;
use crate::proposer::Answer;
use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::entry::{Entry, EntryBuilder, EntryHeader, Unit};
use fulmar_types::{Probe, Term};
use std::sync::{Arc, Weak};

const NO_ROOM: u8 = 1;
const UNKNOWN: u8 = 2;
const DONE: u8 = 3;

fn encode(answer: Answer) -> Option<Vec<u8>> {
    match answer {
        Answer::NotDone => None,
        Answer::NoRoom => Some(vec![NO_ROOM]),
        Answer::Unknown => Some(vec![UNKNOWN]),
        Answer::Done { result, term } => {
            let mut out = vec![DONE];
            out.extend_from_slice(&term.0.to_le_bytes());
            out.extend_from_slice(&outcome::encode(&[result]));
            Some(out)
        }
    }
}

/// What another node has answered. Of what is no answer it is unknown what it means.
fn decode(bytes: &[u8]) -> Answer {
    let done = |rest: &[u8]| {
        let (term, outcome) = rest.split_first_chunk::<8>()?;
        let mut results = outcome::decode(outcome).ok()?;
        let result = results.pop().filter(|_| results.is_empty())?;
        Some(Answer::Done { result, term: Term(u64::from_le_bytes(*term)) })
    };
    match bytes.split_first() {
        Some((&NO_ROOM, [])) => Answer::NoRoom,
        Some((&DONE, rest)) => done(rest).unwrap_or(Answer::Unknown),
        _ => Answer::Unknown,
    }
}

/// Answers the questions of other nodes.
struct ForPeers(Weak<Broker>);

impl Answerer for ForPeers {
    fn answer(&self, question: Bytes, patience: Duration) -> BoxFuture<'static, Option<Vec<u8>>> {
        let broker = self.0.upgrade();
        Box::pin(async move {
            let broker = broker.filter(|broker| broker.group.leadership().is_me)?;
            let entry = Entry::decode(question).ok().filter(|entry| entry.unit_count() == 1)?;
            let unit = entry.units().next()?.to_unit();
            let deadline = time::now() + patience.min(broker.settings.request_timeout_max);
            broker.host.probe(Probe::ProposedForPeer);
            encode(broker.propose_here(unit, deadline).await)
        })
    }
}

/// From now on a broker proposes what other nodes want in the log.
pub(crate) fn serve(broker: &Arc<Broker>) {
    broker.group.answer_with(Arc::new(ForPeers(Arc::downgrade(broker))));
}

impl Broker {
    /// Puts a unit into the log, whichever node leads. If a unit may not come twice, it has to say so
    /// itself: after "unknown" it may still be done, and be done later.
    pub async fn propose_anywhere(&self, unit: Unit, deadline: Instant) -> Answer {
        if self.group.leadership().is_me {
            return self.propose_here(unit, deadline).await;
        }
        let mut builder = EntryBuilder::new(self.settings.segment_bytes);
        if builder.push(&unit).is_err() {
            return Answer::NotDone;
        }
        let question = builder.finish(EntryHeader::default());
        let patience = deadline.saturating_duration_since(time::now());
        match self.group.ask_leader(question, patience).await {
            Ok(answer) => decode(&answer),
            Err(AskError::NotDone) => Answer::NotDone,
            Err(AskError::Unknown) => {
                self.host.probe(Probe::ProposalForPeerUnknown);
                Answer::Unknown
            }
        }
    }

    async fn propose_here(&self, unit: Unit, deadline: Instant) -> Answer {
        let ticket = self.proposer.submit(unit, deadline).await;
        time::timeout_at(deadline, ticket).await.unwrap_or(Answer::Unknown)
    }

    /// The largest unit that fits the log, in bytes.
    pub fn unit_bytes_max(&self) -> usize {
        fulmar_store::entry::unit_bytes_max(self.settings.segment_bytes)
    }

    /// The largest batch, in bytes.
    pub fn batch_bytes_max(&self) -> usize {
        self.settings.batch_bytes_max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::outcome::{OperationResult, Refusal, UnitResult};
    use crate::testing::{Fixture, run_paused, settings};
    use fulmar_store::entry::Operation;
    use fulmar_types::{NodeId, TopicId, Uuid};

    #[test]
    fn answers_read_back_and_nonsense_is_unknown() {
        let done = |result| Answer::Done { result, term: Term(7) };
        for answer in [
            Answer::NoRoom,
            Answer::Unknown,
            done(UnitResult::Refused(Refusal::StaleOwner { fence: 9 })),
            done(UnitResult::Done(vec![OperationResult::EpochCommitted])),
        ] {
            assert_eq!(decode(&encode(answer.clone()).expect("an answer")), answer);
        }
        assert_eq!(encode(Answer::NotDone), None);
        for nonsense in [&[][..], &[0], &[1, 0], &[3], &[3, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(decode(nonsense), Answer::Unknown);
        }
        let two = outcome::encode(&[
            UnitResult::Refused(Refusal::NotRunning),
            UnitResult::Refused(Refusal::NotRunning),
        ]);
        assert_eq!(decode(&[&[3][..], &[0; 8], &two].concat()), Answer::Unknown);
    }

    fn create(name: &str) -> Unit {
        let (topic, name) = (TopicId(Uuid([1; 16])), name.to_owned());
        Unit::of(Operation::CreateTopic { topic, name, partitions: 1, configs: Vec::new() })
    }

    #[test]
    fn what_a_follower_wants_is_proposed_by_the_leader_or_it_learns_why_not() {
        run_paused(async {
            let (leader, follower) = (Fixture::new(), Fixture::with(settings(2)));
            let soon = || time::now() + Duration::from_secs(1);
            let wants = |name| follower.broker.propose_anywhere(create(name), soon());
            assert_eq!(wants("a").await, Answer::NotDone, "nobody is there");
            follower.group.ask(&leader.group);
            let done = UnitResult::Done(vec![OperationResult::TopicCreated]);
            assert_eq!(wants("a").await, Answer::Done { result: done, term: Term(1) });
            let exists = UnitResult::Refused(Refusal::TopicExists);
            assert_eq!(wants("a").await, Answer::Done { result: exists, term: Term(1) });
            assert_eq!(leader.group.entries(), 2);
            leader.group.hold(true);
            assert_eq!(wants("b").await, Answer::Unknown, "no majority in time");
            leader.group.elect(Some(NodeId(3)));
            assert_eq!(wants("c").await, Answer::NotDone, "it leads no more");
        });
    }

    #[test]
    fn what_is_no_unit_is_not_done() {
        run_paused(async {
            let leader = Fixture::new();
            let peers = ForPeers(Arc::downgrade(&leader.broker));
            let patience = Duration::from_secs(1);
            for nonsense in [&b""[..], b"nonsense"] {
                assert_eq!(peers.answer(Bytes::from_static(nonsense), patience).await, None);
            }
            let mut builder = EntryBuilder::new(64 << 20);
            for name in ["a", "b"] {
                builder.push(&create(name)).expect("fits");
            }
            let two = builder.finish(EntryHeader::default());
            assert_eq!(peers.answer(two, patience).await, None, "one unit at a time");
            assert_eq!(leader.group.entries(), 0);
        });
    }
}
