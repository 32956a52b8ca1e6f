//! Round trips, refusals, golden bytes and mutation runs of the footer.

use super::rows::OpenRows;
use super::*;
use crate::mutation::{mutate, random};
use crate::row::Row;
use fulmar_types::Term;
use proptest::collection::vec;
use proptest::prelude::*;

const BASE: LogIndex = LogIndex(1_000);

/// Far apart, so that the differences of their ids take more than a byte.
const STREAMS: [StreamId; 4] = [StreamId(0), StreamId(1), StreamId(700), StreamId(u32::MAX)];

/// One entry for a builder.
#[derive(Clone, Debug)]
struct Given {
    place: EntryPlace,
    outcome: Vec<u8>,
    rows: Vec<Row>,
}

/// A batch, before it is known where it goes.
#[derive(Clone, Debug)]
struct Draft {
    slot: usize,
    gap: u64,
    records: u32,
    max_timestamp_ms: i64,
    len: u32,
    crc: u32,
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let gap = prop_oneof![4 => Just(0), 1 => 1..1_000u64, 1 => any::<u32>().prop_map(u64::from)];
    let timestamp = prop_oneof![4 => 1_700_000_000_000..1_700_000_100_000i64, 1 => any::<i64>()];
    let records = prop_oneof![4 => 1..5u32, 1 => 1..=u32::MAX];
    (0..4usize, gap, records, timestamp, any::<u32>(), any::<u32>()).prop_map(
        |(slot, gap, records, max_timestamp_ms, len, crc)| Draft {
            slot,
            gap,
            records,
            max_timestamp_ms,
            len,
            crc,
        },
    )
}

fn any_entries(max: usize) -> impl Strategy<Value = Vec<Given>> {
    let terms = prop_oneof![9 => Just(0), 1 => 1..5u64, 1 => any::<u32>().prop_map(u64::from)];
    let entry = (terms, 1..20u64, vec(any::<u8>(), 0..6), vec(any_draft(), 0..4));
    vec(entry, 1..max).prop_map(|drafts| {
        let (mut term, mut position, mut ends) = (0, 4096 - 512, [0u64; 4]);
        let mut given = Vec::new();
        for (index, (term_step, sectors, outcome, drafts)) in (BASE.0..).zip(drafts) {
            term += term_step;
            position += sectors * 512;
            let place = EntryPlace { index: LogIndex(index), term: Term(term), position };
            let rows = (0u32..).zip(drafts).map(|(nth, draft)| {
                let end = &mut ends[draft.slot];
                let base_offset = Offset(*end + draft.gap);
                *end = base_offset.0 + u64::from(draft.records);
                Row {
                    stream: STREAMS[draft.slot],
                    base_offset,
                    records: draft.records,
                    max_timestamp_ms: draft.max_timestamp_ms,
                    index: place.index,
                    term: place.term,
                    at: 58 + nth,
                    len: draft.len,
                    crc: draft.crc,
                }
            });
            let rows = rows.collect();
            given.push(Given { place, outcome, rows });
        }
        given
    })
}

fn build(given: &[Given]) -> Bytes {
    let mut builder = FooterBuilder::new(BASE);
    for entry in given {
        builder.push(entry.place, &entry.outcome, &entry.rows);
    }
    builder.finish()
}

/// Entries with one row of each of two streams, a new term every hundred.
fn plain(entries: u64) -> Vec<Given> {
    (0..entries)
        .map(|nth| {
            let term = Term(1 + nth / 100);
            let index = LogIndex(BASE.0 + nth);
            let row = |stream, at| Row {
                stream: StreamId(stream),
                base_offset: Offset(nth * 3),
                records: 3,
                max_timestamp_ms: 1_700_000_000_000 + (nth as i64 * 37) % 1_000,
                index,
                term,
                at,
                len: 1_100,
                crc: (nth as u32).wrapping_mul(0x9e37_79b9),
            };
            Given {
                place: EntryPlace { index, term, position: 4096 + nth * 1536 },
                outcome: vec![nth as u8; nth as usize % 5],
                rows: vec![row(3, 58), row(4, 1_192)],
            }
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes() {
    let bytes = build(&plain(2));
    let expected = [
        "4646545201000000",                         // magic, version, zeros
        "e803000000000000",                         // base index
        "0200000002000000",                         // entries, streams
        "1e00000007000000070000005e000000",         // summary, places, outcomes, rows: len
        "111560b306fade5b1971f75a",                 // summary, places, outcomes: crc
        "0000000000000000a4d3d107",                 // zeros, header crc
        "030006caa0abfef962022e1851901a",           // stream 3, 0..6, 2 rows in 46 bytes
        "000006caa0abfef962023006f52370",           // the next possible stream: 4
        "00000000000000002568e5cf8b01000000000000", // base offset, max timestamp, start
        "010103",                                   // entry 0, in term 1: 3 records
        "80a0abfef9623acc0800000000",               // timestamp, at 58, 1100 bytes, crc
        "0403",                                     // the next entry, no gap: 3 records
        "4a3acc08b979379e",                         // 37 ms later, at 58, 1100 bytes, crc
        "00000000000000002568e5cf8b01000000000000", // stream 4 ...
        "01010380a0abfef962a809cc0800000000",       //
        "04034aa809cc08b979379e",                   //
        "00000000110106",                           // places: sector 8 in term 1, 3 further on
        "00000000000101",                           // outcomes: empty, [1]
    ];
    assert_eq!(hex(&bytes), expected.concat());
}

#[test]
fn parts_are_read_alone() {
    let given = plain(200);
    let bytes = build(&given);
    let header = FooterHeader::read(&bytes[..FOOTER_HEADER_BYTES]).expect("valid");
    assert_eq!((header.base, header.last()), (BASE, LogIndex(BASE.0 + 199)));
    assert_eq!(header.len_bytes(), bytes.len() as u64);
    let summary = Summary::read(&bytes[..header.summary_end()]).expect("valid");
    let stream = summary.stream(StreamId(4)).expect("there");
    assert_eq!((stream.first, stream.end, stream.rows), (Offset(0), Offset(600), 200));
    assert_eq!(summary.stream(StreamId(5)), None);

    // Everything but the rows of stream 4 is lost, and they are still readable.
    let alone = bytes.slice(stream.part.range());
    let part = RowsPart::parse(stream, BASE, header.last(), alone).expect("valid");
    let rows: Vec<Row> = part.rows().collect();
    assert_eq!(rows, given.iter().map(|entry| entry.rows[1]).collect::<Vec<_>>());

    let places = header.parse_places(bytes.slice(header.places.range())).expect("valid");
    let outcomes = header.parse_outcomes(bytes.slice(header.outcomes.range())).expect("valid");
    for entry in &given {
        assert_eq!(places.get(entry.place.index), Some(entry.place));
        assert_eq!(outcomes.get(entry.place.index).as_deref(), Some(&entry.outcome[..]));
    }
    assert_eq!(places.get(LogIndex(BASE.0 - 1)), None);
    assert_eq!(places.get(LogIndex(BASE.0 + 200)), None);
    assert_eq!(outcomes.get(LogIndex(BASE.0 + 200)), None);
}

#[test]
fn a_row_takes_about_a_dozen_bytes() {
    let given = plain(10_000);
    let bytes = build(&given);
    let per_row = bytes.len() as f64 / 20_000.0;
    assert!(per_row < 14.0, "{per_row} bytes per row");
}

#[test]
fn lookups_agree_with_a_walk_over_all_rows() {
    let given = plain(300);
    let bytes = build(&given);
    let footer = Footer::parse(bytes).expect("valid");
    let part = footer.rows(StreamId(3)).expect("there");
    let all: Vec<Row> = part.rows().collect();
    for from in (0..910).map(Offset) {
        let expected = all.iter().find(|row| row.end_offset() > from).copied();
        assert_eq!(part.rows_from(from).next(), expected, "from {from}");
        for timestamp in (0..=1_000).step_by(97).map(|ms| 1_700_000_000_000 + ms) {
            let wanted = |row: &&Row| row.end_offset() > from && row.max_timestamp_ms >= timestamp;
            let expected = all.iter().find(wanted).copied();
            assert_eq!(part.by_timestamp(from, timestamp), expected, "from {from}, {timestamp}");
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = build(&plain(70));
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(Footer::parse(Bytes::from(damaged)).is_err(), "byte {at}");
        assert!(Footer::parse(bytes.slice(..at)).is_err(), "cut at {at}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Footer::parse(Bytes::from(longer)).err(), Some(FooterError::Damaged("length")));
}

#[test]
fn another_version_has_a_name() {
    let mut bytes = build(&plain(1)).to_vec();
    bytes[4] = 2;
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..FOOTER_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(FooterHeader::read(&bytes), Err(FooterError::UnknownVersion(2)));
}

#[test]
fn rows_of_another_term_are_refused() {
    let given = plain(3);
    let mut builder = FooterBuilder::new(BASE);
    let mut other = FooterBuilder::new(BASE);
    for entry in &given {
        builder.push(entry.place, &entry.outcome, &entry.rows);
        let place = EntryPlace { term: Term(9), ..entry.place };
        other.push(place, &entry.outcome, &[]);
    }
    // Places of one footer in the other, with their checksums: each part is good by itself.
    let (bytes, other) = (builder.finish(), other.finish());
    let mut header = FooterHeader::read(&bytes).expect("valid");
    let foreign = FooterHeader::read(&other).expect("valid");
    assert_eq!(header.places.len, foreign.places.len);
    header.places.crc = foreign.places.crc;
    let mut mixed = Vec::new();
    header.put(&mut mixed);
    mixed.extend_from_slice(&bytes[FOOTER_HEADER_BYTES..]);
    mixed[header.places.range()].copy_from_slice(&other[foreign.places.range()]);
    let error = Footer::parse(Bytes::from(mixed)).err();
    assert_eq!(error, Some(FooterError::Damaged("terms of rows")));
}

/// The rows of a part, encoded again.
fn encode_again(part: &RowsPart) -> Vec<u8> {
    let mut rows = part.rows().peekable();
    let first = rows.peek().expect("a part has a row").base_offset;
    let mut open = OpenRows::new(part.stream(), BASE, first);
    rows.for_each(|row| open.push(&row));
    open.finish().1
}

/// With a checksum made for it, so that the decoders behind the checksums are reached.
fn rechecked(bytes: &[u8]) -> Part {
    Part::at(0, bytes)
}

#[test]
fn no_mutation_of_rows_panics_and_what_parses_has_one_encoding() {
    let bytes = build(&plain(150));
    let summary = Summary::read(&bytes).expect("valid");
    let stream = summary.streams[0];
    let last = summary.header.last();
    let mut random = random(0x0520_5eed);
    let (mut parsed, mut runs) = (0, 0);
    while runs < 60_000 {
        runs += 1;
        let mut part = bytes[stream.part.range()].to_vec();
        mutate(&mut part, &mut random);
        let summary = StreamSummary { part: rechecked(&part), ..stream };
        let part = Bytes::from(part);
        let Ok(rows) = RowsPart::parse(&summary, BASE, last, part.clone()) else { continue };
        assert_eq!(encode_again(&rows), part);
        parsed += 1;
    }
    assert!((500..59_500).contains(&parsed), "{parsed}");
}

#[test]
fn no_mutation_of_the_other_parts_panics_and_what_parses_has_one_encoding() {
    let bytes = build(&plain(150));
    let header = FooterHeader::read(&bytes).expect("valid");
    let mut random = random(0x0fee_5eed);
    let mut parsed = [0; 3];
    for _ in 0..60_000 {
        let mut part = bytes[header.places.range()].to_vec();
        mutate(&mut part, &mut random);
        let changed = FooterHeader { places: rechecked(&part), ..header };
        if let Ok(places) = changed.parse_places(Bytes::from(part.clone())) {
            let mut again = entries::PlacesEncoder::new();
            places.iter().for_each(|place| again.push(&place));
            assert_eq!(again.finish(), part);
            parsed[0] += 1;
        }

        let mut part = bytes[header.outcomes.range()].to_vec();
        mutate(&mut part, &mut random);
        let changed = FooterHeader { outcomes: rechecked(&part), ..header };
        if let Ok(outcomes) = changed.parse_outcomes(Bytes::from(part.clone())) {
            let mut again = entries::OutcomesEncoder::new();
            outcomes.iter().for_each(|outcome| again.push(&outcome));
            assert_eq!(again.finish(), part);
            parsed[1] += 1;
        }

        let mut part = bytes[header.summary.range()].to_vec();
        mutate(&mut part, &mut random);
        let mut changed = header;
        changed.summary.len = part.len() as u32;
        changed.places.at = changed.places.at - header.summary.len + changed.summary.len;
        if let Some(streams) = read_summary(&changed, &part) {
            assert_eq!(put_summary(&streams), part);
            parsed[2] += 1;
        }
    }
    assert!(parsed.iter().all(|count| (500..59_500).contains(count)), "{parsed:?}");
}

#[test]
fn no_mutated_header_panics_or_points_outside() {
    let bytes = build(&plain(5));
    let mut random = random(0x4ead_5eed);
    for _ in 0..100_000 {
        let mut changed = bytes.to_vec();
        for _ in 0..=random() % 3 {
            let at = (random() % CRC_AT as u64) as usize;
            changed[at] = random() as u8;
        }
        let crc = crc32c::crc32c(&changed[..CRC_AT]);
        changed[CRC_AT..FOOTER_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = FooterHeader::read(&changed) {
            let mut again = Vec::new();
            header.put(&mut again);
            assert_eq!(again, changed[..FOOTER_HEADER_BYTES]);
        }
        if let Ok(footer) = Footer::parse(Bytes::from(changed)) {
            // Only the index of the segment is not bound by the other parts.
            assert_eq!(footer.summary().header.entries, 5);
        }
    }
}

proptest! {
    #[test]
    fn footers_read_back(given in any_entries(150)) {
        let bytes = build(&given);
        prop_assert_eq!(&build(&given), &bytes, "same input, same bytes");
        let footer = Footer::parse(bytes.clone()).expect("valid");
        prop_assert_eq!(footer.summary(), &Summary::read(&bytes).expect("valid"));

        let places: Vec<EntryPlace> = footer.places().iter().collect();
        prop_assert_eq!(places, given.iter().map(|entry| entry.place).collect::<Vec<_>>());
        let outcomes: Vec<Bytes> = footer.outcomes().iter().collect();
        prop_assert!(outcomes.iter().eq(given.iter().map(|entry| &entry.outcome[..])));

        let given_rows = || given.iter().flat_map(|entry| &entry.rows);
        let mut streams: Vec<StreamId> = given_rows().map(|row| row.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let summarised = &footer.summary().streams;
        prop_assert!(summarised.iter().map(|summary| summary.stream).eq(streams));
        for summary in summarised {
            let expected: Vec<Row> =
                given_rows().filter(|row| row.stream == summary.stream).copied().collect();
            let part = footer.rows(summary.stream).expect("summarised");
            prop_assert_eq!(summary.rows as usize, expected.len());
            prop_assert_eq!(Some(summary.first), expected.first().map(|row| row.base_offset));
            prop_assert_eq!(Some(summary.end), expected.last().map(Row::end_offset));
            let max = expected.iter().map(|row| row.max_timestamp_ms).max();
            prop_assert_eq!(Some(summary.max_timestamp_ms), max);
            prop_assert_eq!(&part.rows().collect::<Vec<_>>(), &expected);
            prop_assert_eq!(encode_again(part), &bytes[summary.part.range()]);
        }
    }

    #[test]
    fn open_rows_forget_what_was_truncated(given in any_entries(200), keep in 0..220u64) {
        let all: Vec<Row> =
            given.iter().flat_map(|entry| &entry.rows).filter(|row| row.stream.0 == 0).copied().collect();
        prop_assume!(!all.is_empty());
        let index = LogIndex(BASE.0 + keep);
        let kept: Vec<Row> = all.iter().filter(|row| row.index < index).copied().collect();
        let open = |rows: &[Row]| {
            let mut open = OpenRows::new(StreamId(0), BASE, all[0].base_offset);
            rows.iter().for_each(|row| open.push(row));
            open
        };
        let mut truncated = open(&all);
        prop_assert_eq!(truncated.truncate_from(index), !kept.is_empty());
        prop_assert_eq!(truncated.rows_from(Offset(0)).collect::<Vec<_>>(), kept.clone());
        if !kept.is_empty() {
            prop_assert_eq!(truncated.finish(), open(&kept).finish());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200), entries in 1..1000u32) {
        let part = rechecked(&bytes);
        let mut header = FooterHeader::read(&build(&plain(1))).expect("valid");
        (header.entries, header.places, header.outcomes) = (entries, part, part);
        let bytes = Bytes::from(bytes);
        let _ = header.parse_places(bytes.clone());
        let _ = header.parse_outcomes(bytes.clone());
        let _ = read_summary(&header, &bytes);
        let _ = Footer::parse(bytes.clone());
        let summary = StreamSummary {
            stream: StreamId(1),
            first: Offset(0),
            end: Offset(1),
            max_timestamp_ms: 0,
            rows: entries,
            part,
        };
        let _ = RowsPart::parse(&summary, BASE, LogIndex(u64::MAX), bytes);
    }
}
