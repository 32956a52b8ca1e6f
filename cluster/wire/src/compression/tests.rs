//! What each codec makes of bytes, and of what are none of it.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::io::{Read, Write};

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

/// What telemetry looks like.
fn telemetry(rows: usize) -> Vec<u8> {
    let row = |at: usize| {
        format!(r#"{{"device":"press-{:03}","temp":{}.{},"ok":true}}"#, at % 7, at % 90, at % 10)
    };
    (0..rows).flat_map(|at| row(at).into_bytes()).collect()
}

#[test]
fn what_would_become_too_much_is_refused() {
    let plain = vec![b'x'; 1 << 20];
    for codec in Compression::ALL {
        let bytes = Bytes::from(compress(codec, &plain));
        let error = decompress(codec, &bytes, plain.len() - 1).expect_err("it is too much");
        assert_eq!(error, CompressionError::TooLarge { bytes_max: plain.len() - 1 }, "{codec:?}");
        assert_eq!(decompress(codec, &bytes, plain.len()).expect("it fits"), plain);
    }
}

#[test]
fn telemetry_becomes_a_fraction() {
    let plain = telemetry(1_000);
    for codec in &Compression::ALL[1..] {
        let bytes = compress(*codec, &plain);
        assert!(bytes.len() * 3 < plain.len(), "{codec:?}: {} bytes", bytes.len());
    }
}

#[test]
fn snappy_without_pieces_is_read_and_its_length_is_not_believed() {
    let block = snap::raw::Encoder::new().compress_vec(b"hello, hello").expect("it is short");
    let read = decompress(Compression::Snappy, &block.into(), 100);
    assert_eq!(read.expect("it is a block"), "hello, hello");
    // A block that announces 2 GiB, in six bytes.
    let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x07, 0x00]);
    let damaged = CompressionError::Damaged(Compression::Snappy);
    assert_eq!(decompress(Compression::Snappy, &bomb, usize::MAX), Err(damaged));
}

proptest! {
    #[test]
    fn what_was_compressed_reads_back(
        codec in any_codec(), plain in prop::collection::vec(0u8..4, 0..100_000)
    ) {
        let bytes = Bytes::from(compress(codec, &plain));
        prop_assert_eq!(decompress(codec, &bytes, plain.len()).expect("it is ours"), plain);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        codec in any_codec(), bytes in prop::collection::vec(any::<u8>(), 0..500)
    ) {
        let _ = decompress(codec, &bytes.into(), 1 << 16);
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(
        codec in any_codec(), at in any::<prop::sample::Index>(), with in any::<u8>()
    ) {
        let mut bytes = compress(codec, &telemetry(50));
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let _ = decompress(codec, &bytes.into(), 1 << 16);
    }
}

/// What the encoders give that are given everything at once.
fn at_once(codec: Compression, plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match codec {
        Compression::Gzip => {
            let mut gzip = flate2::read::GzEncoder::new(plain, flate2::Compression::default());
            gzip.read_to_end(&mut bytes).expect("it is in memory");
        }
        Compression::Lz4 => {
            let mut frame = lz4_flex::frame::FrameEncoder::new(&mut bytes);
            frame.write_all(plain).expect("it is in memory");
            frame.finish().expect("it is in memory");
        }
        codec => return compress(codec, plain),
    }
    bytes
}

#[test]
fn steps_change_nothing_of_what_comes_out() {
    for rows in [0, 1, 1_000, 2_000, 6_000, 150_000] {
        let plain = telemetry(rows);
        for codec in Compression::ALL {
            let mut compressing = Compressing::new(codec, plain.clone().into());
            let stepped = loop {
                if let Some(stepped) = compressing.step() {
                    break stepped;
                }
            };
            assert!(at_once(codec, &plain) == stepped, "{codec:?} of {} bytes", plain.len());
            let mut undone = Decompressing::new(codec, stepped.into(), plain.len()).expect("ours");
            let again = loop {
                if let Some(again) = undone.step().expect("it is ours") {
                    break again;
                }
            };
            assert!(again == plain, "{codec:?} of {} bytes", plain.len());
        }
    }
}

#[test]
fn frames_without_anything_are_stepped_over() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let empty = compress(codec, b"");
        let mut many: Vec<u8> = std::iter::repeat_n(empty, 20_000).flatten().collect();
        many.extend(compress(codec, b"end"));
        let mut undone = Decompressing::new(codec, many.into(), 3).expect("it is not looked at");
        let mut steps = 0;
        let plain = loop {
            steps += 1;
            if let Some(plain) = undone.step().expect("each is whole") {
                break plain;
            }
        };
        assert_eq!(plain, &b"end"[..]);
        assert!(steps > 4, "{codec:?}: {steps} steps");
    }
}
