//! Fetch over what lacks records: batches of which a rule withheld some, and holes, both with markers
//! that span offsets of which others do have records.

use super::links::{NONE, replace};
use super::*;
use crate::machine::outcome::UnitResult;
use crate::proposer::Answer;
use fulmar_store::entry::{LinkOperation, MirrorPlace, NewMirror, Operation, Unit};
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::{Offset, PartitionIndex, TopicId};
use fulmar_wire::RESOURCE_LINK;
use fulmar_wire::batch::rewritten;

const TOPIC: TopicId = TopicId(Uuid([7; 16]));

async fn propose(fixture: &Fixture, operation: LinkOperation) {
    let answer = fixture.broker.proposer.propose(Unit::of(Operation::Link(operation))).await;
    let Answer::Done { result: UnitResult::Done(_), .. } = answer else { panic!("{answer:?}") };
}

/// A batch of so many offsets that has the records of these.
fn sparse(offsets: usize, kept: &[i64]) -> Bytes {
    let whole = Batch::parse(batch(None, offsets, 0)).expect("a batch");
    let records = whole.records().expect("not compressed").map(|record| record.expect("in order"));
    let left: Vec<_> = records.filter(|record| kept.contains(&record.offset)).collect();
    rewritten(&whole, &left).expect("it fits")
}

/// A mirror `north.t` of two partitions.
struct Mirror {
    fixture: Fixture,
    link: u64,
    next: [u64; 2],
    /// The offsets that have a record.
    there: [Vec<i64>; 2],
}

impl Mirror {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let north = [("site", "north"), ("region", "eu"), ("take", "t")];
        assert_eq!(replace(&fixture, (RESOURCE_LINK, "north"), &north).await, NONE);
        let link = fixture.broker.site.read(|state| state.link("north").expect("set").number);
        let new = NewMirror {
            topic: TOPIC,
            origin: TopicId(Uuid([8; 16])),
            partitions: 2,
            configs: Vec::new(),
            link: "north".to_owned(),
            origin_name: "t".to_owned(),
            name: "north.t".to_owned(),
            via: vec!["north".to_owned()],
        };
        propose(&fixture, LinkOperation::CreateMirror(new)).await;
        Self { fixture, link, next: [0; 2], there: [Vec::new(), Vec::new()] }
    }

    fn place(&self, partition: usize) -> MirrorPlace {
        MirrorPlace {
            link: self.link,
            topic: TOPIC,
            partition: PartitionIndex(partition as u32),
            offset: Offset(self.next[partition]),
            tag: [1; 16],
        }
    }

    /// So many offsets come, of which these have records, counted from the first of them.
    async fn append(&mut self, partition: usize, offsets: usize, kept: &[i64]) {
        let (place, batch) = (self.place(partition), sparse(offsets, kept).into());
        propose(&self.fixture, LinkOperation::MirrorAppend { place, batch }).await;
        let base = self.next[partition] as i64;
        self.there[partition].extend(kept.iter().map(|offset| base + offset));
        self.next[partition] += offsets as u64;
    }

    /// Nothing comes of so many offsets.
    async fn skip(&mut self, partition: usize, offsets: u64) {
        let place = self.place(partition);
        let to = place.offset.plus(offsets);
        let missing = Missing::untimed(GapReason::Withheld, offsets);
        propose(&self.fixture, LinkOperation::MirrorSkip { place, to, missing }).await;
        self.next[partition] += offsets;
    }

    /// Asks for partitions in an order, from where a reader of them is.
    async fn fetch(&self, asked: &[(usize, i64)], max_bytes: i32) -> Vec<FetchPartitionData> {
        let partition = |(partition, fetch_offset): &(usize, i64)| FetchPartition {
            partition: *partition as i32,
            fetch_offset: *fetch_offset,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let mut request = fetch_request(0, 0);
        request.max_bytes = max_bytes;
        request.topics[0].topic = "north.t".to_owned();
        request.topics[0].partitions = asked.iter().map(partition).collect();
        let mut told = ask!(&self.fixture, 12, Fetch, request).responses.remove(0).partitions;
        for (data, (partition, _)) in told.iter_mut().zip(asked) {
            assert_eq!(data.error_code, ErrorCode::None);
            assert_eq!(data.partition_index, *partition as i32);
            let end = self.next[*partition] as i64;
            assert_eq!((data.high_watermark, data.last_stable_offset), (end, end));
        }
        told
    }
}

/// Goes on behind what was told of a partition, as a consumer does.
fn read_on(data: &FetchPartitionData, next: &mut i64, seen: &mut Vec<i64>) {
    let mut bytes = records(data);
    while !bytes.is_empty() {
        let header = BatchHeader::read(&bytes).expect("a header");
        let one =
            Batch::parse(bytes.split_to(header.batch_bytes().expect("whole"))).expect("a batch");
        let offsets = header.offsets();
        assert!(offsets.contains(next) || *offsets.start() > *next, "{offsets:?} from {next} on");
        for record in one.records().expect("not compressed") {
            let offset = record.expect("in order").offset;
            if offset >= *next {
                seen.push(offset);
            }
        }
        *next = offsets.end() + 1;
    }
}

#[test]
fn where_no_room_is_left_nothing_is_told_to_be_missing() {
    run(async {
        let mut mirror = Mirror::new().await;
        mirror.append(0, 30, &[0, 7, 29]).await;
        mirror.append(1, 30, &[3, 12]).await;
        mirror.append(1, 5, &[4]).await;
        let one = i32::try_from(records(&mirror.fetch(&[(0, 0)], 1).await[0]).len()).expect("few");
        // From the beginning, between the records, behind the last record of a batch.
        for from in [0, 5, 20, 30, 31] {
            for room in [1, one, one + 1, one + 60] {
                let told = mirror.fetch(&[(0, 0), (1, from)], room).await;
                assert_eq!(records(&told[0]).len(), one as usize);
                assert!(records(&told[1]).is_empty(), "from {from} on, in {room} bytes");
            }
            let (mut next, mut seen) = (from, Vec::new());
            read_on(&mirror.fetch(&[(1, from)], 1).await[0], &mut next, &mut seen);
            assert_eq!(next, if from < 30 { 30 } else { 35 }, "its turn comes");
        }
    });
}

#[test]
fn whoever_reads_several_sparse_partitions_in_little_room_gets_each_record_once() {
    run(async {
        let mut mirror = Mirror::new().await;
        for partition in [0, 1, 0, 1] {
            mirror.append(partition, 10, &[2, 3]).await;
            mirror.skip(partition, 4).await;
            mirror.append(partition, 1, &[0]).await;
            mirror.append(partition, 6, &[0, 5]).await;
            mirror.append(partition, 8, &[7]).await;
            mirror.skip(partition, 3).await;
        }
        mirror.skip(1, 40).await;
        for room in [1, 80, 100, 160, 250, 1 << 20] {
            let (mut next, mut seen) = ([0, 0], [Vec::new(), Vec::new()]);
            for turn in 0..200 {
                // Who had his turn comes last then.
                let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
                let asked = order.map(|partition| (partition, next[partition]));
                for (data, partition) in mirror.fetch(&asked, room).await.iter().zip(order) {
                    read_on(data, &mut next[partition], &mut seen[partition]);
                }
            }
            assert_eq!(next.map(|next| next as u64), mirror.next, "to the end, in {room} bytes");
            assert_eq!(seen, mirror.there, "in {room} bytes");
        }
    });
}
