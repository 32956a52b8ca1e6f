//! Listening to what sites say to each other: outside of what would be TLS, every byte that leaves.
//!
//! Invariant: whoever listens changes nothing; without anybody who does, nothing is wrapped.

use fulmar_host::net::WriteHalf;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Somebody who listens.
pub trait Ear: Send + Sync {
    /// The next bytes of one side of a connection. `line` is its own for each of them.
    fn hears(&self, line: u64, bytes: &[u8]);
}

/// A writing side that somebody listens to.
pub(super) struct Overheard {
    pub(super) inner: WriteHalf,
    pub(super) ear: Arc<dyn Ear>,
    pub(super) line: u64,
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.ear.hears(self.line, &bytes[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
