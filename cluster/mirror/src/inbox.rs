//! What comes over the connections of a session, put in order again.
//!
//! Messages of a priority are numbered through all connections. One connection may be faster than
//! another, and what lay on one that was lost comes again over another, so messages come early, late
//! and twice; from here they go on each once, in order.
//!
//! Invariants: messages of one priority go on in the order of their numbers, each once; what waits for
//! an earlier one is bounded in bytes, with a charge for each message.

use crate::frame::FRAME_BYTES_MAX;
use crate::message::Message;
use fulmar_types::Plant;
use fulmar_types::link::Priority;
use std::collections::BTreeMap;

/// Bytes of one priority that may wait for an earlier message: the room that is given, and any one
/// message that takes none.
const EARLY_BYTES_MAX: usize = crate::target::ROOM_BYTES_MAX as usize + FRAME_BYTES_MAX;

/// The other side has sent more ahead than there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFarAhead;

#[derive(Debug, Default)]
struct Lane {
    next: u64,
    early: BTreeMap<u64, Message>,
    early_bytes: usize,
}

/// The incoming side of a session.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    lanes: [Lane; Priority::ALL.len()],
}

impl Inbox {
    /// Takes messages that came, numbered from one on. Returns what goes on now, in order, and whether
    /// something waits that had not waited before.
    ///
    /// # Errors
    /// If more waits than may.
    pub(crate) fn take(
        &mut self,
        lane: Priority,
        number: u64,
        messages: Vec<Message>,
    ) -> Result<(Vec<Message>, bool), TooFarAhead> {
        let lane = &mut self.lanes[lane.rank()];
        let (mut ready, mut waits) = (Vec::new(), false);
        for (number, message) in (number..=u64::MAX).zip(messages) {
            if number == lane.next {
                lane.next += 1;
                ready.push(message);
            } else if number > lane.next && !lane.early.contains_key(&number) {
                if fulmar_host::planted(Plant::StripeReorder) {
                    ready.push(message);
                    continue;
                }
                lane.early_bytes += message.held_bytes();
                lane.early.insert(number, message);
                waits = true;
            }
            while let Some(message) = lane.early.remove(&lane.next) {
                lane.early_bytes -= message.held_bytes();
                lane.next += 1;
                ready.push(message);
            }
        }
        if lane.early_bytes > EARLY_BYTES_MAX { Err(TooFarAhead) } else { Ok((ready, waits)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Mark, Part};
    use bytes::Bytes;
    use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};
    use proptest::prelude::*;

    fn numbered(number: u64) -> Message {
        Message::Room(Priority::Normal, u32::try_from(number).expect("a small number"))
    }

    #[test]
    fn what_waits_is_bounded() {
        let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(0) };
        let mark = Mark { offset: Offset(0), tag: [0; 16] };
        let batch = Message::Batch(part, mark, Bytes::from(vec![0; 1 << 20]));
        let mut inbox = Inbox::default();
        let far = (1..100)
            .find(|number| inbox.take(Priority::Normal, *number, vec![batch.clone()]).is_err());
        assert_eq!(far, Some((EARLY_BYTES_MAX >> 20) as u64));
        assert!(inbox.take(Priority::Bulk, 1, vec![batch]).is_ok(), "each for itself");
    }

    proptest! {
        #[test]
        fn messages_go_on_once_and_in_order(
            frames in proptest::collection::vec((0u64..30, 1u64..5), 0..80),
        ) {
            let mut inbox = Inbox::default();
            let mut passed = Vec::new();
            let all = (0..30).map(|number| (number, 5));
            for (first, count) in frames.into_iter().chain(all) {
                let messages = (first..first + count).map(numbered).collect();
                let (ready, _) = inbox.take(Priority::Normal, first, messages).expect("few");
                passed.extend(ready);
            }
            let expected: Vec<Message> = (0..34).map(numbered).collect();
            prop_assert_eq!(passed, expected);
            prop_assert_eq!(inbox.lanes[Priority::Normal.rank()].early_bytes, 0);
        }
    }
}
