//! What the test programs of this crate share: a seeded generator and a sample of every message.
//!
//! A sample sets only what its version has on the wire, so that it survives a round trip.

#![allow(dead_code, reason = "each test program uses its part of this module")]

mod samples;

pub use samples::*;

use bytes::Bytes;
use fulmar_types::Uuid;
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::BatchBuilder;

/// A small generator of random numbers (splitmix64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Gen(pub u64);

impl Gen {
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.u64() % end.max(1) as u64) as usize
    }

    pub fn bool(&mut self) -> bool {
        self.u64() & 1 == 1
    }

    /// Numbers of every size, the borders among them.
    pub fn i64(&mut self) -> i64 {
        match self.below(8) {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => -1,
            3 => 0,
            _ => self.u64().cast_signed() >> self.below(64),
        }
    }

    pub fn i32(&mut self) -> i32 {
        self.i64() as i32
    }

    pub fn i16(&mut self) -> i16 {
        self.i64() as i16
    }

    pub fn i8(&mut self) -> i8 {
        self.i64() as i8
    }

    pub fn error(&mut self) -> ErrorCode {
        ErrorCode::from_code(self.i16())
    }

    pub fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.u64().to_be_bytes());
        Uuid(bytes)
    }

    /// Text of up to 300 bytes, so that compact lengths of two bytes occur.
    pub fn text(&mut self) -> String {
        let len = if self.below(16) == 0 { self.below(100) } else { self.below(12) };
        (0..len).map(|_| ['a', '9', '-', 'ß', '漢', '\0'][self.below(6)]).collect()
    }

    pub fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| value(self))
    }

    pub fn vec<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| element(self)).collect()
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.u64() as u8).collect()
    }

    /// An uncompressed batch of 1 to 4 records, with any bytes as keys of headers.
    pub fn batch(&mut self) -> Bytes {
        self.batch_with_header_keys(Self::blob)
    }

    /// An uncompressed batch of 1 to 4 records.
    pub fn batch_with_header_keys(&mut self, header_key: fn(&mut Self) -> Vec<u8>) -> Bytes {
        let mut builder = BatchBuilder::new();
        if self.bool() {
            let producer_id = self.below(1 << 20) as i64;
            builder = builder.producer(producer_id, self.below(9) as i16, self.below(99) as i32);
        }
        for _ in 0..=self.below(4) {
            let timestamp = 1_700_000_000_000 + self.below(10_000) as i64;
            let (key, value) = (self.option(Self::blob), self.option(Self::blob));
            let headers = self.vec(|g| (header_key(g), g.option(Self::blob)));
            let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            builder.push(timestamp, key.as_deref(), value.as_deref(), &headers).expect("fits");
        }
        builder.build().expect("has records")
    }

    fn blob(&mut self) -> Vec<u8> {
        let len = self.below(24);
        self.bytes(len)
    }

    /// What a records field may hold: nothing, some batches, any bytes.
    pub fn records(&mut self) -> Bytes {
        match self.below(4) {
            0 => Bytes::new(),
            1 => self.blob().into(),
            _ => (0..=self.below(2)).flat_map(|_| self.batch()).collect(),
        }
    }
}
