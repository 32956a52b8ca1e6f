//! Damaged frames and batches through every decoder: no panic, no memory beyond the bound.
//!
//! Seeded, so a failure is repeated by its seed. `FULMAR_MUTATIONS` sets how many mutants are
//! tried. `.ci/run` asks for 10 000 000, a run that counts as evidence: built as tests are, 12 s on
//! one core (2 187 521 accepted, 9 273 665 refused, 3 MiB resident).

mod common;
#[path = "common/memory.rs"]
mod memory;

use bytes::{Bytes, BytesMut};
use common::Gen;
use fulmar_wire::batch::{Batch, Batches};
use fulmar_wire::frame::{self, FrameSplitter, Incoming};
use fulmar_wire::{ApiKey, DecodeError, Message, Request, Response, SUPPORTED};
use memory::peak_bytes;

const MUTATIONS_DEFAULT: u64 = 300_000;
const MUTANTS_PER_SAMPLE: u64 = 16;
const RESIDENT_BYTES_MAX: usize = 128 << 20;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What decoding a message of these bytes may hold at one time: the bound that `wire` promises
/// for arrays, the text and the records in it, and a little for tests and `Bytes` themselves.
fn decode_bytes_max(bytes: usize) -> usize {
    use fulmar_wire::primitives::{ELEMENT_MEMORY_BYTES_FREE, ELEMENT_MEMORY_BYTES_PER_BYTE};
    ELEMENT_MEMORY_BYTES_FREE + (ELEMENT_MEMORY_BYTES_PER_BYTE + 1) * bytes + 1024
}

#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    refused: u64,
    peak_bytes: usize,
}

impl Counts {
    fn count(&mut self, accepted: bool) {
        if accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }

    /// Decodes with `decode`; what is accepted must be written and read back as it is.
    fn message<M: PartialEq + std::fmt::Debug>(
        &mut self,
        bytes: &Bytes,
        decode: impl Fn(Bytes) -> Result<M, DecodeError>,
        encode: impl Fn(&M) -> Bytes,
    ) {
        let (result, peak) = peak_bytes(|| decode(bytes.clone()));
        let bound = decode_bytes_max(bytes.len());
        assert!(peak <= bound, "{peak} bytes of memory for {} bytes: {bytes:?}", bytes.len());
        self.peak_bytes = self.peak_bytes.max(peak);
        self.count(result.is_ok());
        if let Ok(message) = result {
            assert_eq!(decode(encode(&message)).as_ref(), Ok(&message));
        }
    }
}

type Target = fn(&mut Gen, i16, &mut Counts);

fn body_target<M: Message + PartialEq + std::fmt::Debug>(
    g: &mut Gen,
    version: i16,
    counts: &mut Counts,
    sample: fn(&mut Gen, i16) -> M,
) {
    let valid = sample(g, version).to_bytes(version).expect("a sample fits its version");
    for _ in 0..MUTANTS_PER_SAMPLE {
        let mutant = mutate(g, &valid);
        let encode = |m: &M| m.to_bytes(version).expect("what was read can be written");
        counts.message(&mutant, |bytes| M::decode(bytes, version), encode);
    }
}

macro_rules! targets {
    ($($Message:ident, $sample:ident;)*) => {
        /// Every message with the range of its versions.
        fn message_targets() -> Vec<(ApiKey, Target)> {
            vec![$((
                <fulmar_wire::$Message as Message>::API,
                |g, version, counts| body_target(g, version, counts, common::$sample),
            ),)*]
        }
    };
}

for_each_message!(targets);

/// Whole request and response frames, from the length to the body.
fn frame_target(g: &mut Gen, counts: &mut Counts) {
    let range = &SUPPORTED[g.below(SUPPORTED.len())];
    let version = g.below(16) as i16;
    let mut valid = BytesMut::new();
    let request = common::fetch_request(g, 12);
    frame::encode_request(&mut valid, &request, 12, g.i32(), Some("kcat")).expect("valid");
    let response = common::fetch_response(g, 12);
    let response = frame::encode_response(g.i32(), 12, &response).expect("valid");
    valid.extend_from_slice(&response.to_bytes());
    for _ in 0..MUTANTS_PER_SAMPLE {
        let mut stream = BytesMut::from(mutate(g, &valid));
        let splitter = FrameSplitter::new(FRAME_BYTES_MAX);
        while let Ok(Some(frame)) = splitter.split(&mut stream) {
            let request = Incoming::parse(frame.clone());
            counts.count(request.is_ok());
            if let Ok(Incoming::Request(header, body)) = request {
                counts.count(Request::decode(&header, body).is_ok());
            }
            if let Ok(body) = frame::response_body(frame, range.api, version) {
                counts.count(Response::decode(range.api, version, body).is_ok());
            }
        }
    }
}

/// Batches; the checksum of half of the mutants is made right, so that the rest is looked at.
fn batch_target(g: &mut Gen, counts: &mut Counts) {
    let valid: Bytes = (0..=g.below(2)).flat_map(|_| g.batch()).collect();
    for _ in 0..MUTANTS_PER_SAMPLE {
        let mut mutant = BytesMut::from(mutate(g, &valid));
        if mutant.len() > 21 && g.bool() {
            let crc = crc32c::crc32c(&mutant[21..]);
            mutant[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let mutant = mutant.freeze();
        let bound = decode_bytes_max(mutant.len());
        let (accepted, peak) = peak_bytes(|| read_batches(&mutant));
        assert!(peak <= bound, "{peak} bytes of memory for {mutant:?}");
        counts.peak_bytes = counts.peak_bytes.max(peak);
        counts.count(accepted);
    }
}

fn read_batches(bytes: &Bytes) -> bool {
    for batch in Batches::new(bytes.clone()).flatten() {
        batch.max_timestamp(0);
        batch.records().into_iter().flatten().for_each(drop);
    }
    let one = Batch::from_producer(bytes.clone(), FRAME_BYTES_MAX);
    if let Ok(batch) = &one {
        let records = batch.records().into_iter().flatten();
        let records = records.inspect(|r| assert!(r.is_ok(), "checked on the way in")).count();
        assert!(records == 0 || records == batch.record_count() as usize);
        assert!(batch.max_timestamp(-1) >= -1);
        assert_eq!(batch.header().offsets().count() as u32, batch.record_count());
    }
    one.is_ok()
}

fn mutate(g: &mut Gen, valid: &[u8]) -> Bytes {
    let mut bytes = valid.to_vec();
    for _ in 0..=g.below(3) {
        let at = g.below(bytes.len() + 1);
        match g.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, g.u64() as u8),
            2 => overwrite(&mut bytes, at, &hostile_i32(g).to_be_bytes()),
            3 => overwrite(&mut bytes, at, &(hostile_i32(g) as i16).to_be_bytes()),
            4 => overwrite(&mut bytes, at, &[0xff, 0xff, 0xff, 0xff, 0x0f][g.below(5)..]),
            5 => {
                let from = g.below(valid.len());
                let to = from + g.below(valid.len() - from + 1);
                bytes.splice(at..at, valid[from..to].iter().copied());
            }
            6 => drop(bytes.drain(at..(at + g.below(8)).min(valid.len().min(bytes.len())).max(at))),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << g.below(8);
                }
            }
        }
    }
    bytes.into()
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..].iter_mut().zip(with).for_each(|(byte, with)| *byte = *with);
}

fn hostile_i32(g: &mut Gen) -> i32 {
    let near = g.below(9) as i32 - 4;
    let around = [0, i32::MAX, i32::MIN, 0xffff, 0x7fff, 1 << 16, 1 << 24, g.u64() as i32];
    around[g.below(around.len())].wrapping_add(near)
}

#[test]
fn damaged_bytes_are_refused_or_understood() {
    let mutations: u64 = match std::env::var("FULMAR_MUTATIONS") {
        Ok(text) => text.replace('_', "").parse().expect("FULMAR_MUTATIONS is a number"),
        Err(_) => MUTATIONS_DEFAULT,
    };
    let targets = message_targets();
    let mut g = Gen(0x0005_f01a_2026);
    let mut counts = Counts::default();
    let mut resident_bytes_peak = 0;
    for round in 0..mutations / MUTANTS_PER_SAMPLE {
        // A quarter of the mutants are batches: their inside is the deepest.
        match g.below(targets.len() + 8) {
            at if at < targets.len() => {
                let (api, target) = &targets[at];
                let served = &api.range().served;
                let version = *served.start() + g.below(served.clone().count()) as i16;
                target(&mut g, version, &mut counts);
            }
            at if at % 4 == 0 => frame_target(&mut g, &mut counts),
            _ => batch_target(&mut g, &mut counts),
        }
        if round % 64 == 0 {
            let resident = resident_bytes();
            assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes resident");
            resident_bytes_peak = resident_bytes_peak.max(resident);
        }
    }
    println!(
        "{mutations} mutants: {} accepted, {} refused; one decoder held {} KiB at most, \
         the process {} MiB",
        counts.accepted,
        counts.refused,
        counts.peak_bytes >> 10,
        resident_bytes_peak >> 20,
    );
    assert!(counts.accepted > mutations / 50, "the mutants are too wild to reach anything");
    assert!(counts.refused > mutations / 50, "the mutants are too tame");
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).expect("two numbers").parse().expect("a number");
    pages * 4096
}
