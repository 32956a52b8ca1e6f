//! How a message lies in the byte stream of a link.
//!
//! ```text
//!  0        4       5
//! +--------+------+------------------+
//! | length | kind | the message      |
//! | u32 LE | u8   |                  |
//! +--------+------+------------------+
//! ```
//!
//! `length` counts everything behind itself.
//!
//! Invariant: nothing is reserved for bytes that were only announced, and a frame is never longer
//! than a message between two nodes may be (16 MiB).

use crate::message::Message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fulmar_host::net::{ReadHalf, WriteHalf};
use fulmar_host::time::{self, Duration};
use fulmar_types::limits::PEER_FRAME_BYTES_MAX;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LENGTH_BYTES: usize = 4;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Writes a message. It may lie in a buffer until [`flush`] is called.
///
/// # Errors
/// If the connection broke, or the message is over the limit.
pub async fn write(writer: &mut WriteHalf, message: &Message) -> io::Result<()> {
    let (head, batch) = message.encode();
    let length = 1 + head.len() + batch.map_or(0, Bytes::len);
    if length > PEER_FRAME_BYTES_MAX {
        return Err(invalid("a message of a link is over the limit"));
    }
    let mut buffer = BytesMut::with_capacity(LENGTH_BYTES + length);
    buffer.put_u32_le(u32::try_from(length).map_err(|_| invalid("a message is too long"))?);
    buffer.put_u8(message.kind());
    buffer.put_slice(&head);
    if let Some(batch) = batch {
        buffer.put_slice(batch);
    }
    writer.write_all(&buffer).await
}

/// Sends what was written.
///
/// # Errors
/// If the connection broke.
pub async fn flush(writer: &mut WriteHalf) -> io::Result<()> {
    writer.flush().await
}

/// Messages from the other side.
pub struct Messages {
    reader: ReadHalf,
    buffer: BytesMut,
    /// The longest frame that is taken.
    bytes_max: usize,
}

impl Messages {
    /// Those of a connection. Until [`Self::trust`] none may be longer than a greeting.
    pub fn new(reader: ReadHalf, greeting_bytes_max: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), bytes_max: greeting_bytes_max }
    }

    /// From now on messages may be as long as a batch needs.
    pub fn trust(&mut self) {
        self.bytes_max = PEER_FRAME_BYTES_MAX;
    }

    /// The next message; `None` if the other side has closed the connection between two. It may take
    /// long to come over a slow line, but not without a byte for `silence_max`.
    ///
    /// # Errors
    /// If the connection broke or nothing came for so long, or what came is no message.
    pub async fn next(&mut self, silence_max: Duration) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            self.buffer.reserve(READ_BYTES);
            let read = time::timeout(silence_max, self.reader.read_buf(&mut self.buffer)).await;
            let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            if read == 0 {
                let between = self.buffer.is_empty();
                return if between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn cut(&mut self) -> io::Result<Option<Message>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > self.bytes_max {
            return Err(invalid("a message of a link has an impossible length"));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut frame = self.buffer.split_to(length);
        let kind = frame.get_u8();
        let message = Message::decode(kind, &frame.freeze());
        message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
