//! Round trips, refusals and golden bytes of the format; crashes at every step of a save.

use super::memory::{Memory, now};
use super::*;
use crate::mutation::{mutate, random};
use fulmar_types::Event;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "/node/snap";

fn at(index: u64) -> Snapshot {
    let section =
        |id, bytes: &[u8]| Section { id, version: 1, bytes: Bytes::copy_from_slice(bytes) };
    Snapshot {
        last: LogPosition { term: Term(2), index: LogIndex(index) },
        membership: Bytes::from_static(b"1,2,3"),
        wall_ms: 0x0102,
        state: 0xabcd,
        sections: vec![section(1, b"topics"), section(7, b""), section(9, &index.to_le_bytes())],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes() {
    let bytes = at(5).encode();
    let expected = [
        "46554c4d534e4150",                 // magic
        "0100000003000000",                 // version, sections
        "02000000000000000500000000000000", // last term, last index
        "0201000000000000",                 // wall_ms
        "cdab0000000000000000000000000000", // state
        "05000000",                         // membership len
        "33a485e2",                         // membership crc
        "a7ca57f6b0dc9356",                 // directory crc, header crc
        "010000000100000006000000c8ebae17", // section 1 version 1, 6 bytes, crc
        "07000000010000000000000000000000", // section 7, empty
        "090000000100000008000000c04d09e4", // section 9, 8 bytes
        "312c322c33",                       // membership
        "746f706963730500000000000000",     // the sections
        "87f29a51d26f8e826ba2d040a1dee04f", // total
    ];
    assert_eq!(hex(&bytes), expected.concat());
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = at(5).encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let error = Snapshot::decode(&Bytes::from(damaged)).expect_err("damaged");
        assert!(matches!(error, SnapshotError::Damaged(_)), "byte {at}: {error}");
        assert!(Snapshot::decode(&bytes.slice(..at)).is_err(), "cut at {at}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Snapshot::decode(&Bytes::from(longer)), Err(SnapshotError::Damaged("total")));
}

/// Makes every checksum of the header, the directory and the total fit again, as far as the
/// lengths still say where they are.
fn make_checksums_fit(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES + TOTAL_BYTES {
        return;
    }
    let sections = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let directory_end = HEADER_BYTES.saturating_add(sections.saturating_mul(DIRECTORY_ROW_BYTES));
    if let Some(directory) = bytes.get(HEADER_BYTES..directory_end) {
        let crc = crc32c::crc32c(directory);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let end = bytes.len() - TOTAL_BYTES;
    let total = xxh3_128(&bytes[..end]);
    bytes[end..].copy_from_slice(&total.to_le_bytes());
}

#[test]
fn no_mutation_panics_and_what_decodes_encodes_to_the_same_bytes() {
    let good = at(5).encode();
    let mut random = random(0x54a9_5eed);
    let mut decoded = 0;
    for _ in 0..100_000 {
        let mut bytes = good.to_vec();
        mutate(&mut bytes, &mut random);
        make_checksums_fit(&mut bytes);
        let bytes = Bytes::from(bytes);
        if let Ok(snapshot) = Snapshot::decode(&bytes) {
            assert_eq!(snapshot.encode(), bytes);
            decoded += 1;
        }
    }
    assert!((1_000..99_000).contains(&decoded), "{decoded}");
}

#[test]
fn another_version_has_a_name() {
    let mut bytes = at(5).encode().to_vec();
    bytes[8] = 2;
    make_checksums_fit(&mut bytes);
    assert_eq!(Snapshot::decode(&Bytes::from(bytes)), Err(SnapshotError::UnknownVersion(2)));
}

#[test]
#[should_panic(expected = "ascending order")]
fn sections_out_of_order_are_a_bug() {
    let mut snapshot = at(5);
    snapshot.sections.swap(0, 1);
    let _ = snapshot.encode();
}

fn open(memory: &Memory) -> Snapshots {
    now(Snapshots::open(&memory.host(), PathBuf::from(DIRECTORY))).expect("readable")
}

fn path(index: u64) -> PathBuf {
    Path::new(DIRECTORY).join(file_name(LogIndex(index)))
}

#[test]
fn the_two_newest_are_kept_and_the_newest_is_found() {
    let memory = Memory::default();
    let mut snapshots = open(&memory);
    assert_eq!((snapshots.latest(), snapshots.oldest()), (None, None));
    for index in [10, 20, 30] {
        now(snapshots.save(&memory.host(), at(index))).expect("saved");
        assert_eq!(snapshots.latest(), Some(&at(index)));
    }
    assert_eq!(memory.names(), [file_name(LogIndex(20)), file_name(LogIndex(30))]);
    assert_eq!(snapshots.oldest(), Some(LogIndex(20)));
    let saved: Vec<Event> = [10, 20, 30]
        .map(|index| Event::SnapshotSaved { last: at(index).last, state: 0xabcd })
        .into();
    assert_eq!(memory.events(), saved);
    let again = open(&memory);
    assert_eq!((again.latest(), again.oldest()), (Some(&at(30)), Some(LogIndex(20))));
    assert!(again.damaged().is_empty());
}

#[test]
fn a_damaged_newest_falls_back_and_is_kept_until_two_newer_ones_are_good() {
    let memory = Memory::default();
    let mut snapshots = open(&memory);
    for index in [10, 20] {
        now(snapshots.save(&memory.host(), at(index))).expect("saved");
    }
    memory.rot(&path(20), |bytes| bytes[100] ^= 1);
    let mut snapshots = open(&memory);
    assert_eq!(snapshots.latest(), Some(&at(10)));
    let damaged: Vec<&Path> =
        snapshots.damaged().iter().map(|damaged| damaged.path.as_path()).collect();
    assert_eq!(damaged, [path(20)]);
    assert_eq!(memory.names().len(), 2, "opening removes nothing");

    // The older good one outlives the damaged one as something to fall back to.
    now(snapshots.save(&memory.host(), at(30))).expect("saved");
    assert_eq!(memory.names().len(), 3);
    now(snapshots.save(&memory.host(), at(40))).expect("saved");
    assert_eq!(memory.names(), [file_name(LogIndex(30)), file_name(LogIndex(40))]);
    assert!(snapshots.damaged().is_empty());
}

#[test]
fn a_damaged_snapshot_is_replaced_by_the_same_one() {
    let memory = Memory::default();
    let mut snapshots = open(&memory);
    now(snapshots.save(&memory.host(), at(10))).expect("saved");
    memory.rot(&path(10), |bytes| bytes.clear());
    let mut snapshots = open(&memory);
    assert_eq!((snapshots.latest(), snapshots.damaged().len()), (None, 1));
    now(snapshots.save(&memory.host(), at(10))).expect("saved");
    assert!(snapshots.damaged().is_empty());
    assert_eq!(open(&memory).latest(), Some(&at(10)));
}

#[test]
fn names_of_others_are_left_alone() {
    let memory = Memory::default();
    let mut snapshots = open(&memory);
    let host = memory.host();
    let others = ["1.snap", "notes", "00000000000000000001.snap.bak", "+0000000000000000001.snap"];
    for name in others {
        now(host.disk.open(&Path::new(DIRECTORY).join(name), fulmar_host::disk::Open::New))
            .expect("created");
    }
    for index in [10, 20, 30] {
        now(snapshots.save(&host, at(index))).expect("saved");
    }
    assert!(others.iter().all(|other| memory.names().iter().any(|name| name == other)));
    assert!(open(&memory).damaged().is_empty());
}

#[test]
fn a_file_under_another_name_is_damaged() {
    let memory = Memory::default();
    let mut snapshots = open(&memory);
    now(snapshots.save(&memory.host(), at(10))).expect("saved");
    now(memory.host().disk.rename(&path(10), &path(11))).expect("renamed");
    let snapshots = open(&memory);
    assert_eq!(snapshots.latest(), None);
    let error = SnapshotError::Damaged("its name says another index");
    assert_eq!(snapshots.damaged(), [DamagedSnapshot { path: path(11), error }]);
}

#[test]
fn a_crash_at_any_step_of_a_save_leaves_the_old_or_the_new() {
    let mut outcomes = [0; 2];
    for changes in 0.. {
        let mut saved = false;
        for (keep_names, keep_contents) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let memory = Memory::default();
            let mut snapshots = open(&memory);
            for index in [10, 20] {
                now(snapshots.save(&memory.host(), at(index))).expect("saved");
            }
            memory.fail_after(changes);
            saved = now(snapshots.save(&memory.host(), at(30))).is_ok();
            let confirmed = memory.events().len() == 3;
            assert!(confirmed || !saved);
            memory.cut_power(keep_names, keep_contents);

            let mut snapshots = open(&memory);
            let found = snapshots.latest().expect("never less than before").last.index.0;
            assert!(found == 30 || (found == 20 && !confirmed), "{found} after {changes}");
            assert!(snapshots.damaged().is_empty(), "{:?}", snapshots.damaged());
            outcomes[usize::from(found == 30)] += 1;

            // Whatever the crash left behind is in nobody's way.
            for index in [30, 40] {
                now(snapshots.save(&memory.host(), at(index))).expect("saved");
            }
            assert_eq!(memory.names(), [file_name(LogIndex(30)), file_name(LogIndex(40))]);
        }
        if saved {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 3), "{outcomes:?}");
}

proptest! {
    #[test]
    fn snapshots_read_back(
        (term, index, wall_ms, state) in any::<(u64, u64, u64, u128)>(),
        membership in vec(any::<u8>(), 0..50),
        sections in vec((1..1000u32, any::<u32>(), vec(any::<u8>(), 0..50)), 0..6),
    ) {
        let mut id = 0;
        let sections = sections.into_iter().map(|(step, version, bytes)| {
            id += step;
            Section { id, version, bytes: Bytes::from(bytes) }
        });
        let snapshot = Snapshot {
            last: LogPosition { term: Term(term), index: LogIndex(index) },
            membership: Bytes::from(membership),
            wall_ms,
            state,
            sections: sections.collect(),
        };
        let bytes = snapshot.encode();
        prop_assert_eq!(&snapshot.encode(), &bytes, "same input, same bytes");
        prop_assert_eq!(bytes.len() as u64, snapshot.encoded_len());
        prop_assert_eq!(Snapshot::decode(&bytes), Ok(snapshot.clone()));
        for section in &snapshot.sections {
            prop_assert_eq!(snapshot.section(section.id), Some(section));
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes in vec(any::<u8>(), 0..300)) {
        let _ = Snapshot::decode(&Bytes::from(bytes.clone()));
        let good = at(1).encode();
        let len = bytes.len().min(12);
        bytes[..len].copy_from_slice(&good[..len]);
        make_checksums_fit(&mut bytes);
        let _ = Snapshot::decode(&Bytes::from(bytes));
    }
}
