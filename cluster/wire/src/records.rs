//! The records field of a Fetch response: byte strings that lie one after the other.
//!
//! A broker answers with several batches, and each may come in two pieces (a header with the
//! patched base offset, and the rest as it lies in the log). [`Records`] keeps the pieces apart so
//! that none is copied on its way to the socket.
//!
//! Invariant: two values with the same bytes are equal, whatever their pieces are.

use bytes::{BufMut, Bytes, BytesMut};

/// Encoded record batches in shared pieces.
#[derive(Clone, Debug, Default)]
pub struct Records {
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Records {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// The pieces. None of them is empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The bytes of all pieces together.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes as one string; copied only if there is more than one piece. What was decoded from
    /// a frame has one.
    pub fn into_bytes(self) -> Bytes {
        match <[Bytes; 1]>::try_from(self.chunks) {
            Ok([only]) => only,
            Err(chunks) => {
                let mut all = BytesMut::with_capacity(self.bytes);
                chunks.iter().for_each(|chunk| all.put_slice(chunk));
                all.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        let mut records = Self::new();
        records.push(bytes);
        records
    }
}

impl Extend<Bytes> for Records {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, chunks: I) {
        chunks.into_iter().for_each(|chunk| self.push(chunk));
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(chunks: I) -> Self {
        let mut records = Self::new();
        records.extend(chunks);
        records
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.chunks.iter().flatten().eq(other.chunks.iter().flatten())
    }
}

impl Eq for Records {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_of_the_bytes_and_not_of_the_pieces() {
        let pieces: Records = [&b"ab"[..], b"", b"c"].into_iter().map(Bytes::from_static).collect();
        assert_eq!(pieces.chunks().len(), 2);
        assert_eq!(pieces, Records::from(Bytes::from_static(b"abc")));
        assert_ne!(pieces, Records::from(Bytes::from_static(b"abd")));
        assert_eq!(pieces.into_bytes(), "abc");
        assert!(Records::new().into_bytes().is_empty());
    }
}
