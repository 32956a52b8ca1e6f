//! The two halves of a connection.
//!
//! Invariants: dropping the sending half sends what was written, says goodbye and closes the
//! direction, as dropping that of a plain connection does. If the other side does not read, that is
//! given up after a while. Of a connection that ends abruptly nothing more is sent, neither what waits
//! here nor what waits in the kernel, which sees to it also if the process dies.

use super::network::tell;
use crate::net::Abrupt;
use crate::time::{self, Duration};
use crate::{Observer, task};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How long the other side may take to read the last of it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The state of both halves. A node is one thread, and nobody holds the lock while he waits.
struct Shared {
    stream: Mutex<TlsStream<TcpStream>>,
    address: SocketAddr,
    observer: Arc<dyn Observer>,
    is_abrupt: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| tell(&self.observer, self.address, error))
    }
}

/// Bytes from the other side.
pub(super) struct Reader(Arc<Shared>);

/// Bytes to the other side.
pub(super) struct Writer {
    shared: Arc<Shared>,
    is_closed: bool,
}

pub(super) fn split(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    observer: Arc<dyn Observer>,
) -> (Reader, Writer, Ends) {
    let (stream, is_abrupt) = (Mutex::new(stream), AtomicBool::new(false));
    let shared = Arc::new(Shared { stream, address, observer, is_abrupt });
    let ends = Ends(Arc::downgrade(&shared));
    (Reader(shared.clone()), Writer { shared, is_closed: false }, ends)
}

/// What makes a connection end abruptly. It does not keep it up.
pub(super) struct Ends(Weak<Shared>);

impl Abrupt for Ends {
    fn end_abruptly(&self) -> io::Result<()> {
        let shared = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        shared.lock().get_ref().0.set_zero_linger()?;
        shared.is_abrupt.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut *self.0.lock()).poll_read(cx, buffer));
        Poll::Ready(match read {
            // Without a goodbye: its process was killed. Everything that is said here has its
            // length in front, so that half of it cannot pass for the whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => self.0.told(read),
        })
    }
}

impl Writer {
    fn open(&self) -> io::Result<()> {
        if self.is_closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open()?;
        let written = ready!(Pin::new(&mut *self.shared.lock()).poll_write(cx, bytes));
        Poll::Ready(self.shared.told(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open()?;
        let written = ready!(Pin::new(&mut *self.shared.lock()).poll_write_vectored(cx, pieces));
        Poll::Ready(self.shared.told(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut *self.shared.lock()).poll_flush(cx));
        Poll::Ready(self.shared.told(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed = true;
        Pin::new(&mut *self.shared.lock()).poll_shutdown(cx)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.shared.is_abrupt.load(Ordering::Relaxed) {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let closing = Pin::new(&mut *self.shared.lock()).poll_shutdown(&mut cx);
        // The runtime ends, or there is more to send than the system takes at once.
        if closing.is_ready() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let shared = self.shared.clone();
        task::spawn(async move {
            let closing = poll_fn(|cx| Pin::new(&mut *shared.lock()).poll_shutdown(cx));
            let _ = time::timeout(CLOSE_PATIENCE, closing).await;
        });
    }
}
