//! Tests of `message.rs`.

use super::*;
use crate::frame::{Frame, decode, encode};
use fulmar_types::Uuid;
use proptest::prelude::*;

fn messages() -> Vec<Message> {
    let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(2) };
    let mark = Mark { offset: Offset(3), tag: [4; 16] };
    let missing = Missing { reason: GapReason::Budget, count: 6, first_ms: 1, last_ms: 2 };
    let (site, to) = ("plant-7".to_owned(), "hub".to_owned());
    vec![
        Message::Hello(Hello {
            version: VERSION,
            site,
            node: NodeId(2),
            to,
            session: [5; 16],
            stripe: 3,
            batch_bytes: 1 << 20,
            heard: 7,
        }),
        Message::Welcome {
            node: NodeId(1),
            session: [6; 16],
            connections: 4,
            batch_bytes: 1 << 18,
            heard: 8,
        },
        Message::Refused(Refusal::NotLeader),
        Message::Offer(vec![Offered {
            topic: part.topic,
            origin: TopicId(Uuid([9; 16])),
            via: vec!["a".to_owned(), "b".to_owned()],
            name: "readings".to_owned(),
            partitions: 4,
            configs: vec![("retention.ms".to_owned(), "1000".to_owned())],
        }]),
        Message::Take(part, mark),
        Message::Batch(part, mark, Bytes::from_static(b"bytes")),
        Message::Gap { part, mark, to: Offset(9), missing },
        Message::Fork(part, Offset(8)),
        Message::Room(Priority::Bulk, 70_000),
        Message::Has(part, mark),
        Message::Declines(vec![(part.topic, Decline::OtherLink)]),
        Message::Stuck(part),
        Message::Bond(9),
    ]
}

fn whole(message: &Message) -> Bytes {
    let (head, batch) = message.encode();
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(batch.map_or(&[], |batch| &batch[..]));
    bytes.into()
}

#[test]
fn every_message_reads_back_and_nothing_is_left_over() {
    for message in messages() {
        let bytes = whole(&message);
        assert_eq!(Message::decode(message.kind(), &bytes), Ok(message.clone()));
        if !matches!(message, Message::Batch(..)) {
            let longer: Bytes = [&bytes[..], &[0]].concat().into();
            assert!(Message::decode(message.kind(), &longer).is_err(), "{message:?}");
        }
        for end in 0..bytes.len().min(44) {
            assert!(Message::decode(message.kind(), &bytes.slice(..end)).is_err());
        }
    }
}

#[test]
fn what_people_see_and_what_is_counted_on_from_is_bounded() {
    let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(2) };
    let read = |message: Message| Message::decode(message.kind(), &whole(&message)).is_ok();
    let offered = |name: &str, via: &str, value: &str| {
        read(Message::Offer(vec![Offered {
            topic: part.topic,
            origin: part.topic,
            via: vec![via.to_owned()],
            name: name.to_owned(),
            partitions: 1,
            configs: vec![("retention.ms".to_owned(), value.to_owned())],
        }]))
    };
    let long = "x".repeat(1 << 20);
    assert!(offered("readings", "north", "1000"));
    for bad in ["", "a b", "\u{1b}[2J", "\u{1b}]0;owned\u{7}", &long] {
        assert!(!offered(bad, "north", "1000"), "{bad:?} as a name");
    }
    for bad in ["\u{1b}[2J", &long] {
        assert!(!offered("readings", bad, "1000") && !offered("readings", "north", bad));
    }
    let mark = |offset| Mark { offset: Offset(offset), tag: [4; 16] };
    let missing = Missing { reason: GapReason::Budget, count: 6, first_ms: 1, last_ms: 2 };
    for (offset, fits) in [(LINK_OFFSET_MAX, true), (LINK_OFFSET_MAX + 1, false), (u64::MAX, false)]
    {
        assert_eq!(read(Message::Batch(part, mark(offset), Bytes::new())), fits);
        assert_eq!(read(Message::Take(part, mark(offset))), fits);
        assert_eq!(read(Message::Fork(part, Offset(offset))), fits);
        let gap = Message::Gap { part, mark: mark(1), to: Offset(offset), missing };
        assert_eq!(read(gap), fits);
    }
}

#[test]
fn an_offer_of_however_many_topics_fits_into_a_frame() {
    let topic = |at: usize| Offered {
        topic: TopicId(Uuid((at as u128).to_le_bytes())),
        origin: TopicId(Uuid([9; 16])),
        via: (0..3).map(|site| format!("{site:0>249}")).collect(),
        name: format!("{at:0>249}"),
        partitions: 1,
        configs: (0..10).map(|key| (format!("{key:->30}"), "9".repeat(20))).collect(),
    };
    let (few, has_more) = fitting((0..100).map(topic));
    assert!(few.len() == 100 && !has_more);
    let bytes: usize = few.iter().map(Offered::bytes).sum();
    assert_eq!(whole(&Message::Offer(few)).len(), 4 + bytes, "it is counted as it is written");
    let (most, has_more) = fitting((0..OFFERED_MAX).map(topic));
    assert!(has_more && most.len() > 3_000);
    let messages = vec![Message::Offer(most)];
    let frame = Frame::Messages { lane: Priority::Urgent, number: 0, messages };
    let bytes = encode(&frame).expect("it fits");
    assert_eq!(decode(bytes.slice(4..)).expect("it was written here"), frame);
    let small =
        |at| Offered { via: Vec::new(), configs: Vec::new(), name: format!("t{at}"), ..topic(at) };
    let (all, has_more) = fitting((0..=OFFERED_MAX).map(small));
    assert!(has_more && all.len() == OFFERED_MAX);
}

#[test]
fn an_offer_has_each_topic_and_each_name_once() {
    let read = |topics: &[(u8, &str)]| {
        let offered = topics.iter().map(|(id, name)| Offered {
            topic: TopicId(Uuid([*id; 16])),
            origin: TopicId(Uuid([1; 16])),
            via: Vec::new(),
            name: (*name).to_owned(),
            partitions: 1,
            configs: Vec::new(),
        });
        let offer = Message::Offer(offered.collect());
        Message::decode(offer.kind(), &whole(&offer)).is_ok()
    };
    assert!(read(&[(1, "a"), (2, "b")]));
    assert!(!read(&[(1, "a"), (1, "b")]));
    assert!(!read(&[(1, "a"), (2, "b"), (3, "a")]));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(
        kind in 0u8..16,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(message) = Message::decode(kind, &bytes.clone().into()) {
            prop_assert_eq!(whole(&message).to_vec(), bytes);
        }
    }

    #[test]
    fn a_damaged_message_is_another_or_an_error(at in 0usize..13, byte in 0usize..200, by in 1u8..) {
        let message = &messages()[at];
        let mut bytes = whole(message).to_vec();
        prop_assume!(!bytes.is_empty());
        let place = byte % bytes.len();
        bytes[place] ^= by;
        if let Ok(other) = Message::decode(message.kind(), &bytes.clone().into()) {
            prop_assert_eq!(whole(&other).to_vec(), bytes);
        }
    }
}
