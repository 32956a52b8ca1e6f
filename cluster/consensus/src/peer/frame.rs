//! How a message lies in the byte stream between two peers.
//!
//! ```text
//!  0        4       5          9
//! +--------+------+-----------+--------------------+------------------+
//! | length | kind | head size | head: bincode      | body: raw bytes  |
//! | u32 LE | u8   | u32 LE    | (small, limited)   | (entries, chunk) |
//! +--------+------+-----------+--------------------+------------------+
//! ```
//!
//! `length` counts everything after itself. Bulk data is the body, so that record batches and
//! segment chunks are sent from where they lie and received without a copy.
//!
//! Invariant: a reader allocates at most [`PEER_FRAME_BYTES_MAX`] for a frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fulmar_host::net::{ReadHalf, WriteHalf};
use fulmar_types::limits::PEER_FRAME_BYTES_MAX;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes before the head.
const PREFIX_BYTES: usize = 9;
/// The largest head: an offer of some hundred thousand segments.
const HEAD_BYTES_MAX: usize = 8 << 20;
/// Bodies up to this size are copied behind their head, which saves a system call.
const INLINE_BODY_BYTES: usize = 16 << 10;

/// A message before decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which message.
    pub kind: u8,
    /// Its fields.
    pub head: Bytes,
    /// Its bulk data.
    pub body: Bytes,
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Writes one frame. The body is given in pieces, which are not copied if they are large.
///
/// # Errors
/// If the connection broke, or the frame is over the limit.
pub async fn write(
    writer: &mut WriteHalf,
    kind: u8,
    head: &[u8],
    body: &[Bytes],
) -> io::Result<()> {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let length = PREFIX_BYTES - 4 + head.len() + body_bytes;
    if length > PEER_FRAME_BYTES_MAX || head.len() > HEAD_BYTES_MAX {
        return Err(invalid("a peer message is over the limit"));
    }
    let inline = if body_bytes <= INLINE_BODY_BYTES { body_bytes } else { 0 };
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + head.len() + inline);
    buffer.put_u32_le(u32::try_from(length).map_err(|_| invalid("a peer message is too long"))?);
    buffer.put_u8(kind);
    buffer.put_u32_le(u32::try_from(head.len()).map_err(|_| invalid("a head is too long"))?);
    buffer.put_slice(head);
    if inline > 0 {
        for piece in body {
            buffer.put_slice(piece);
        }
        writer.write_all(&buffer).await?;
    } else {
        writer.write_all(&buffer).await?;
        for piece in body {
            writer.write_all(piece).await?;
        }
    }
    writer.flush().await
}

/// The longest greeting. Whoever reaches the port may send one.
const GREETING_BYTES_MAX: usize = 4096;

/// Reads frames from a connection.
pub struct FrameReader {
    reader: ReadHalf,
    buffer: BytesMut,
    bytes_max: usize,
}

impl FrameReader {
    /// Reads from this half.
    pub fn new(reader: ReadHalf) -> Self {
        Self { reader, buffer: BytesMut::new(), bytes_max: PEER_FRAME_BYTES_MAX }
    }

    /// Reads from this half greetings alone, from somebody who has not said who it is.
    pub fn of_stranger(reader: ReadHalf) -> Self {
        Self { reader, buffer: BytesMut::new(), bytes_max: GREETING_BYTES_MAX }
    }

    /// The other side has said who it is.
    pub fn acquainted(&mut self) {
        self.bytes_max = PEER_FRAME_BYTES_MAX;
    }

    async fn fill(&mut self, want: usize) -> io::Result<bool> {
        while self.buffer.len() < want {
            let missing = want - self.buffer.len();
            self.buffer.reserve(missing);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next frame, or `None` if the peer closed the connection between two frames.
    ///
    /// Cancel safe: what was read stays in the buffer, so calling again goes on where it stopped.
    ///
    /// # Errors
    /// If the connection broke, or the peer does not keep to the layout.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        if !self.fill(4).await? {
            return if self.buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let length = (&self.buffer[..4]).get_u32_le() as usize;
        if !(PREFIX_BYTES - 4..=self.bytes_max).contains(&length) {
            return Err(invalid("a peer announced a message over the limit"));
        }
        if !self.fill(4 + length).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut frame = self.buffer.split_to(4 + length).freeze();
        frame.advance(4);
        split(frame).map(Some)
    }
}

fn split(mut frame: Bytes) -> io::Result<Frame> {
    let kind = frame.try_get_u8().map_err(|_| invalid("a peer message is too short"))?;
    let head = frame.try_get_u32_le().map_err(|_| invalid("a peer message is too short"))? as usize;
    if head > frame.len() || head > HEAD_BYTES_MAX {
        return Err(invalid("the head of a peer message is longer than the message"));
    }
    let head = frame.split_to(head);
    Ok(Frame { kind, head, body: frame })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round_trip(head: &[u8], body: &[Bytes]) -> Frame {
        let (a, b) = tokio::io::duplex(1 << 16);
        let mut writer: WriteHalf = Box::new(a);
        let mut reader = FrameReader::new(Box::new(b));
        let send = async {
            write(&mut writer, 7, head, body).await.expect("written");
        };
        let receive = async { reader.next().await.expect("read").expect("a frame") };
        futures_util::future::join(send, receive).await.1
    }

    #[test]
    fn a_frame_arrives_whole_with_small_and_with_large_bodies() {
        fulmar_host::task::block_on(async {
            for size in [0, 10, INLINE_BODY_BYTES, INLINE_BODY_BYTES + 1, 1 << 20] {
                let body = Bytes::from(vec![3u8; size]);
                let frame = round_trip(b"head", std::slice::from_ref(&body)).await;
                assert_eq!(frame, Frame { kind: 7, head: Bytes::from_static(b"head"), body });
            }
        });
    }

    #[test]
    fn a_stranger_may_say_little() {
        fulmar_host::task::block_on(async {
            let (mut a, b) = tokio::io::duplex(1 << 16);
            let mut reader = FrameReader::of_stranger(Box::new(b));
            a.write_all(&(GREETING_BYTES_MAX as u32 + 1).to_le_bytes()).await.expect("written");
            reader.next().await.expect_err("refused");

            let (a, b) = tokio::io::duplex(1 << 16);
            let (mut writer, mut reader): (WriteHalf, _) =
                (Box::new(a), FrameReader::of_stranger(Box::new(b)));
            reader.acquainted();
            let body = [Bytes::from(vec![3u8; GREETING_BYTES_MAX])];
            write(&mut writer, 7, b"head", &body).await.expect("written");
            assert!(reader.next().await.expect("read").is_some());
        });
    }

    #[test]
    fn a_claimed_length_over_the_limit_is_refused_without_allocating_it() {
        fulmar_host::task::block_on(async {
            for claimed in [0u32, 4, u32::MAX, PEER_FRAME_BYTES_MAX as u32 + 1] {
                let (mut a, b) = tokio::io::duplex(64);
                a.write_all(&claimed.to_le_bytes()).await.expect("written");
                let error = FrameReader::new(Box::new(b)).next().await.expect_err("refused");
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{claimed}");
            }
        });
    }

    #[test]
    fn a_head_longer_than_its_frame_is_refused() {
        assert!(split(Bytes::from_static(&[1, 200, 0, 0, 0, 1, 2])).is_err());
        assert!(split(Bytes::from_static(&[1, 2])).is_err());
    }
}
