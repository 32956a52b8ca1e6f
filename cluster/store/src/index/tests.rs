//! The index against a naive model: a list of rows per stream that is searched from the front.

use super::*;
use crate::footer::{Footer, FooterBuilder};
use fulmar_types::Term;
use proptest::collection::vec;
use proptest::prelude::*;

const STREAMS: u32 = 3;
const TIME_MAX: i64 = 60;

/// One thing that happens to a log, numbers to be taken modulo what is there.
#[derive(Clone, Debug)]
enum Step {
    /// An entry is applied: per batch its stream, gap, records, timestamp, length.
    Apply(Vec<(u32, u64, u32, i64, u32)>),
    /// The segment is full: the next entry goes to another one.
    Close,
    /// The oldest segment without a footer gets one.
    Seal,
    /// Entries of open segments go away, and the term rises.
    Truncate(u64),
    AdvanceStart(u32, u64),
    DropStream(u32),
    /// The files of dead segments are removed.
    RemoveDead,
    /// The process starts again: open segments are applied once more.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let batch = (0..STREAMS, 0..3u64, 1..4u32, 0..TIME_MAX, 1..200u32);
    prop_oneof![
        20 => vec(batch, 0..6).prop_map(Step::Apply),
        4 => Just(Step::Close),
        4 => Just(Step::Seal),
        1 => any::<u64>().prop_map(Step::Truncate),
        2 => (0..STREAMS, any::<u64>()).prop_map(|(stream, to)| Step::AdvanceStart(stream, to)),
        1 => (0..STREAMS).prop_map(Step::DropStream),
        1 => Just(Step::RemoveDead),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    segment: LogIndex,
    index: LogIndex,
    term: Term,
    outcome: Vec<u8>,
    rows: Vec<Row>,
}

/// The log, the files, and what is expected of the index.
#[derive(Debug)]
struct World {
    index: Index,
    cache_bytes: usize,
    /// Every entry of a segment that was not removed.
    log: Vec<Entry>,
    /// The footers on disk.
    footers: BTreeMap<LogIndex, Bytes>,
    /// Base index of the segment that grows.
    active: LogIndex,
    next: LogIndex,
    term: Term,
    /// The live id of each stream: dropping one gives the next life another id.
    ids: Vec<u32>,
    starts: BTreeMap<StreamId, Offset>,
    ends: BTreeMap<StreamId, Offset>,
}

impl World {
    fn new(cache_bytes: usize) -> Self {
        Self {
            index: Index::new(cache_bytes),
            cache_bytes,
            log: Vec::new(),
            footers: BTreeMap::new(),
            active: LogIndex(0),
            next: LogIndex(0),
            term: Term(1),
            ids: (0..STREAMS).collect(),
            starts: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    fn id(&self, stream: u32) -> StreamId {
        StreamId(self.ids[stream as usize])
    }

    fn start(&self, stream: StreamId) -> Offset {
        self.starts.get(&stream).copied().unwrap_or_default()
    }

    fn end(&self, stream: StreamId) -> Offset {
        self.ends.get(&stream).copied().unwrap_or_default()
    }

    fn is_live(&self, stream: StreamId) -> bool {
        self.ids.contains(&stream.0)
    }

    /// What a reader may see of a stream, in order.
    fn live(&self, stream: StreamId) -> Vec<Row> {
        let start = self.start(stream);
        let rows = self.log.iter().flat_map(|entry| &entry.rows);
        rows.filter(|row| row.stream == stream && row.end_offset() > start).copied().collect()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(batches) => self.apply(batches),
            Step::Close => self.active = self.next,
            Step::Seal => self.seal(),
            Step::Truncate(at) => self.truncate(*at),
            Step::AdvanceStart(stream, to) => {
                let stream = self.id(*stream);
                let to = Offset(to % (self.end(stream).0 + 1)).max(self.start(stream));
                self.starts.insert(stream, to);
                self.index.advance_start(stream, to);
            }
            Step::DropStream(stream) => {
                let dropped = self.id(*stream);
                self.index.drop_stream(dropped);
                self.ids[*stream as usize] += STREAMS;
            }
            Step::RemoveDead => self.remove_dead(),
            Step::Restart => self.restart(),
        }
    }

    fn apply(&mut self, batches: &[(u32, u64, u32, i64, u32)]) {
        let mut rows = Vec::new();
        for &(stream, gap, records, max_timestamp_ms, len) in batches {
            let stream = self.id(stream);
            let base_offset = self.end(stream).plus(gap);
            self.ends.insert(stream, base_offset.plus(u64::from(records)));
            let (index, term) = (self.next, self.term);
            let (at, crc) = (rows.len() as u32, len ^ 0xabcd);
            rows.push(Row {
                stream,
                base_offset,
                records,
                max_timestamp_ms,
                index,
                term,
                at,
                len,
                crc,
            });
        }
        self.index.append(self.active, &rows);
        let outcome = self.next.0.to_le_bytes()[..self.next.0 as usize % 8].to_vec();
        let (segment, index, term) = (self.active, self.next, self.term);
        self.log.push(Entry { segment, index, term, outcome, rows });
        self.next = self.next.next();
    }

    fn open_segments(&self) -> Vec<LogIndex> {
        let mut open: Vec<LogIndex> = self.log.iter().map(|entry| entry.segment).collect();
        open.dedup();
        open.retain(|segment| !self.footers.contains_key(segment));
        open
    }

    fn seal(&mut self) {
        let Some(base) = self.open_segments().first().copied() else { return };
        if base == self.active {
            return;
        }
        let mut builder = FooterBuilder::new(base);
        for entry in self.log.iter().filter(|entry| entry.segment == base) {
            builder.push(place_of(entry), &entry.outcome, &entry.rows);
        }
        let bytes = builder.finish();
        self.index.seal(&Summary::read(&bytes).expect("valid"));
        self.footers.insert(base, bytes);
    }

    fn truncate(&mut self, at: u64) {
        let open = self.open_segments();
        let floor = open.first().copied().unwrap_or(self.active);
        let index = LogIndex(floor.0 + at % (self.next.0 - floor.0 + 1));
        // Only what is neither read nor below a start is ever truncated: it was not committed.
        let cut = self.log.iter().filter(|entry| entry.index >= index);
        if cut.flat_map(|entry| &entry.rows).any(|row| row.base_offset < self.start(row.stream)) {
            return;
        }
        self.index.truncate_from(index);
        self.log.retain(|entry| entry.index < index);
        self.next = index;
        self.active = open.into_iter().rfind(|base| *base <= index).unwrap_or(self.active);
        self.active = self.active.min(index);
        self.term = Term(self.term.0 + 1);
        let streams: Vec<StreamId> = self.ends.keys().copied().collect();
        for stream in streams {
            let rows = self.log.iter().flat_map(|entry| &entry.rows);
            let end = rows.filter(|row| row.stream == stream).map(Row::end_offset).max();
            // The rows of removed segments are not in the log any more, and below the start.
            let end = end.unwrap_or_default().max(self.start(stream));
            self.ends.insert(stream, end);
        }
    }

    fn remove_dead(&mut self) {
        let expected: Vec<LogIndex> = self
            .footers
            .keys()
            .copied()
            .filter(|base| {
                let rows = self.log.iter().filter(|entry| entry.segment == *base);
                rows.flat_map(|entry| &entry.rows).all(|row| {
                    !self.is_live(row.stream) || row.end_offset() <= self.start(row.stream)
                })
            })
            .collect();
        assert_eq!(self.index.dead_segments().collect::<Vec<_>>(), expected);
        for base in expected {
            self.index.remove_segment(base);
            self.footers.remove(&base);
            self.log.retain(|entry| entry.segment != base);
        }
    }

    fn restart(&mut self) {
        self.index = Index::new(self.cache_bytes);
        for bytes in self.footers.values() {
            let footer = Footer::parse(bytes.clone()).expect("valid");
            self.index.seal(footer.summary());
        }
        let ids = self.ids.clone();
        self.index.retain_streams(|stream| ids.contains(&stream.0));
        for (stream, start) in self.starts.iter().filter(|(stream, _)| ids.contains(&stream.0)) {
            self.index.advance_start(*stream, *start);
        }
        for entry in self.log.iter().filter(|entry| !self.footers.contains_key(&entry.segment)) {
            self.index.append(entry.segment, &entry.rows);
        }
        self.index.retain_streams(|stream| ids.contains(&stream.0));
        for (stream, start) in self.starts.iter().filter(|(stream, _)| ids.contains(&stream.0)) {
            self.index.advance_start(*stream, *start);
        }
    }

    /// Asks until the answer is ready, and reads what the index wants to have.
    fn ask<T>(&mut self, mut question: impl FnMut(&mut Index) -> Answer<T>) -> T {
        for _ in 0..4 {
            match question(&mut self.index) {
                Answer::Ready(answer) => return answer,
                Answer::Load(load) => {
                    let footer = &self.footers[&load.segment];
                    let bytes = footer.slice(load.part.range());
                    self.index.fill(&load, bytes).expect("valid");
                }
            }
        }
        panic!("the index asks for more than the parts of two segments");
    }

    fn check(&mut self) {
        for stream in self.ids.clone().into_iter().map(StreamId) {
            let live = self.live(stream);
            let start = self.start(stream);
            assert_eq!(self.index.end(stream), live.last().map(Row::end_offset));
            let end = self.end(stream).0;
            for from in (0..=end + 1).step_by(1 + end as usize / 8).map(Offset) {
                let from_live = from.max(start);
                let after: Vec<Row> =
                    live.iter().filter(|row| row.end_offset() > from_live).copied().collect();
                let found = self.ask(|index| index.lookup(stream, from));
                assert_eq!(found, after.first().copied(), "{stream} from {from}");
                self.check_rows(stream, from, &after);
            }
            for timestamp in (-1..=TIME_MAX).step_by(9) {
                let expected = live.iter().find(|row| row.max_timestamp_ms >= timestamp).copied();
                let found = self.ask(|index| index.by_timestamp(stream, timestamp));
                assert_eq!(found, expected, "{stream} at {timestamp} ms");
            }
        }
        self.check_entries();
    }

    fn check_rows(&mut self, stream: StreamId, from: Offset, after: &[Row]) {
        let below = Offset(from.0 + 40);
        let mut expected = Vec::new();
        let mut bytes = 0;
        for row in after.iter().take_while(|row| row.end_offset() <= below) {
            bytes += row.len as usize;
            if bytes > 300 && !expected.is_empty() {
                break;
            }
            expected.push(*row);
        }
        let rows = self.ask(|index| index.rows(stream, from, below, 300));
        // A part that is not in memory may end an answer early, but never keep it empty.
        assert!(expected.starts_with(&rows), "{rows:?} is not how {expected:?} begins");
        assert_eq!(rows.is_empty(), expected.is_empty());
    }

    fn check_entries(&mut self) {
        for at in (0..self.log.len()).step_by(1 + self.log.len() / 5) {
            let entry = self.log[at].clone();
            let sealed = self.footers.contains_key(&entry.segment);
            let place = self.ask(|index| index.place(entry.index));
            assert_eq!(place, sealed.then(|| place_of(&entry)));
            let outcome = self.ask(|index| index.outcome(entry.index));
            assert_eq!(outcome.as_deref(), sealed.then_some(&entry.outcome[..]));
        }
        let next = self.next;
        assert_eq!(self.ask(|index| index.place(next)), None);
    }
}

fn place_of(entry: &Entry) -> EntryPlace {
    let Entry { segment, index, term, .. } = *entry;
    EntryPlace { index, term, position: 4096 + (index.0 - segment.0) * 1024 }
}

/// A footer of one stream with `rows` batches, each of one record.
fn one_stream(base: u64, rows: u64) -> (Bytes, Vec<Row>) {
    let mut builder = FooterBuilder::new(LogIndex(base));
    let mut all = Vec::new();
    for index in base..base + rows {
        let row = Row {
            stream: StreamId(0),
            base_offset: Offset(index),
            records: 1,
            max_timestamp_ms: index as i64,
            index: LogIndex(index),
            term: Term(1),
            at: 58,
            len: 1_100,
            crc: index as u32,
        };
        let position = 4096 + (index - base) * 1536;
        let place = EntryPlace { index: row.index, term: row.term, position };
        builder.push(place, b"ok", &[row]);
        all.push(row);
    }
    (builder.finish(), all)
}

#[test]
fn memory_stays_within_the_budget() {
    let mut index = Index::new(100_000);
    let footers: Vec<Bytes> = (0..20).map(|nth| one_stream(nth * 1_000, 1_000).0).collect();
    for footer in &footers {
        index.seal(&Summary::read(footer).expect("valid"));
    }
    let mut loads = 0;
    for offset in (0..20_000).step_by(500).map(Offset) {
        let found = loop {
            match index.lookup(StreamId(0), offset) {
                Answer::Ready(found) => break found,
                Answer::Load(load) => {
                    loads += 1;
                    let footer = &footers[load.segment.0 as usize / 1_000];
                    let bytes = footer.slice(load.part.range());
                    index.fill(&load, bytes).expect("valid");
                }
            }
            assert!(index.cached_bytes() <= 100_000, "{}", index.cached_bytes());
        };
        assert_eq!(found.map(|row| row.base_offset), Some(offset));
    }
    assert_eq!(loads, 20, "a part that is used again is not read again");
}

#[test]
fn two_parts_larger_than_the_budget_do_not_drive_one_another_out() {
    let mut index = Index::new(0);
    let footers = [one_stream(0, 500).0, one_stream(500, 500).0];
    for footer in &footers {
        index.seal(&Summary::read(footer).expect("valid"));
    }
    // The maximum of the first segment belongs to a row below the start: both parts are read.
    index.advance_start(StreamId(0), Offset(400));
    let mut loads = 0;
    for timestamp in [450, 700, 450, 700] {
        let found = loop {
            match index.by_timestamp(StreamId(0), timestamp) {
                Answer::Ready(found) => break found,
                Answer::Load(load) => {
                    loads += 1;
                    let footer = &footers[usize::from(load.segment != LogIndex(0))];
                    index.fill(&load, footer.slice(load.part.range())).expect("valid");
                }
            }
        };
        assert_eq!(found.map(|row| row.max_timestamp_ms), Some(timestamp));
    }
    assert_eq!(loads, 2);
}

#[test]
fn rotten_and_outdated_parts_are_not_taken() {
    let (footer, _) = one_stream(0, 100);
    let mut index = Index::new(INDEX_CACHE_BYTES);
    index.seal(&Summary::read(&footer).expect("valid"));
    let Answer::Load(load) = index.lookup(StreamId(0), Offset(5)) else { panic!("not loaded") };
    let mut rotten = footer[load.part.range()].to_vec();
    rotten[30] ^= 4;
    let refused = index.fill(&load, Bytes::from(rotten));
    assert_eq!(refused, Err(FooterError::Damaged("checksum of rows")));
    assert_eq!(index.cached_bytes(), 0);

    // The stream goes away while its part is being read.
    index.drop_stream(StreamId(0));
    assert_eq!(index.fill(&load, footer.slice(load.part.range())), Ok(()));
    assert_eq!(index.cached_bytes(), 0);
    assert_eq!(index.dead_segments().collect::<Vec<_>>(), [LogIndex(0)]);
    index.remove_segment(LogIndex(0));
    assert_eq!(index.fill(&load, footer.slice(load.part.range())), Ok(()));
    assert_eq!(index.lookup(StreamId(0), Offset(0)), Answer::Ready(None));
}

#[test]
fn a_reader_at_the_end_needs_no_file_when_a_segment_is_sealed() {
    let (footer, rows) = one_stream(0, 100);
    let mut index = Index::new(INDEX_CACHE_BYTES);
    rows.iter().for_each(|row| index.append(LogIndex(0), std::slice::from_ref(row)));
    index.seal(&Summary::read(&footer).expect("valid"));
    assert_eq!(index.lookup(StreamId(0), Offset(99)), Answer::Ready(Some(rows[99])));
}

#[test]
#[should_panic(expected = "has other rows")]
fn a_footer_that_says_something_else_is_a_bug() {
    let (footer, mut rows) = one_stream(0, 100);
    let mut index = Index::new(INDEX_CACHE_BYTES);
    rows[50].crc ^= 1;
    rows.iter().for_each(|row| index.append(LogIndex(0), std::slice::from_ref(row)));
    index.seal(&Summary::read(&footer).expect("valid"));
}

#[test]
#[should_panic(expected = "truncation")]
fn a_sealed_segment_is_never_truncated() {
    let mut index = Index::new(INDEX_CACHE_BYTES);
    index.seal(&Summary::read(&one_stream(0, 100).0).expect("valid"));
    index.truncate_from(LogIndex(99));
}

proptest! {
    #[test]
    fn the_index_answers_as_the_model(
        steps in vec(any_step(), 1..60),
        cache_bytes in prop_oneof![Just(0), Just(2_000usize), Just(INDEX_CACHE_BYTES)],
    ) {
        let mut world = World::new(cache_bytes);
        for step in &steps {
            world.step(step);
            world.check();
        }
    }
}
