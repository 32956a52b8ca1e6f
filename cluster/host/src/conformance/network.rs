//! What every implementation of [`Network`](crate::net::Network) promises.

use super::{fails, good};
use crate::net::{Connection, Listener};
use crate::time::{Duration, sleep, timeout};
use crate::{Host, task};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is not there after this long does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than any pair of socket buffers holds, so that a writer meets back-pressure.
const FLOOD_BYTES: usize = 64 << 20;

/// Calls that wait for a listener at the same time: all clients of a site come back at once.
const CALLERS: u16 = 300;

/// Tests the network between two hosts (or of one, given twice). `address` belongs to `server`;
/// its port is zero.
///
/// # Panics
/// If a promise is broken.
pub async fn network(server: &Host, client: &Host, address: SocketAddr) {
    listening(server, client, address).await;
    both_ways(server, client, address).await;
    closing_one_way(server, client, address).await;
    closing_both_ways(server, client, address).await;
    reset(server, client, address).await;
    back_pressure(server, client, address).await;
    many(server, client, address).await;
}

async fn listen(server: &Host, address: SocketAddr) -> Box<dyn Listener> {
    good("listening", server.network.listen(address).await)
}

async fn in_time<F: Future>(tried: &str, future: F) -> F::Output {
    good(tried, timeout(PATIENCE, future).await)
}

/// The connecting and the accepting end of a new connection.
async fn pair(client: &Host, listener: &mut Box<dyn Listener>) -> (Connection, Connection) {
    let to = listener.local_address();
    let near = good("connecting", in_time("connecting", client.network.connect(to)).await);
    let far = good("accepting", in_time("accepting", listener.accept()).await);
    assert_eq!(near.peer.address, to, "the connecting end knows whom it called");
    assert_ne!(far.peer.address.port(), 0, "the accepting end knows who called");
    (near, far)
}

async fn expect(connection: &mut Connection, expected: &[u8]) {
    let mut buffer = vec![0; expected.len()];
    good("reading", in_time("reading", connection.reader.read_exact(&mut buffer)).await);
    assert!(buffer == expected, "the bytes arrive in order and unchanged");
}

async fn expect_end(connection: &mut Connection) {
    let mut rest = Vec::new();
    let end = in_time("reading to the end", connection.reader.read_to_end(&mut rest)).await;
    assert_eq!(good("reading to the end", end), 0, "nothing comes before the end");
}

async fn listening(server: &Host, client: &Host, address: SocketAddr) {
    let listener = listen(server, address).await;
    let taken = listener.local_address();
    assert_ne!(taken.port(), 0, "port zero becomes a free port");
    assert_eq!(taken.ip(), address.ip());
    let twice = server.network.listen(taken).await;
    fails("listening twice", ErrorKind::AddrInUse, twice);
    // The system completes a connection before anybody accepts it.
    let waiting = good("connecting", in_time("connecting", client.network.connect(taken)).await);
    drop(waiting);
    drop(listener);
    // The end of the listening needs a moment to take effect for a task that is already here.
    sleep(Duration::from_millis(20)).await;
    let refused = in_time("connecting to nobody", client.network.connect(taken)).await;
    fails("connecting to nobody", ErrorKind::ConnectionRefused, refused);
    let again = listen(server, taken).await;
    assert_eq!(again.local_address(), taken, "an address can be taken again at once");
}

async fn both_ways(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let (mut near, mut far) = pair(client, &mut listener).await;
    good("writing", near.writer.write_all(b"ping").await);
    good("flushing", near.writer.flush().await);
    expect(&mut far, b"ping").await;
    good("writing", far.writer.write_all(b"po").await);
    good("writing", far.writer.write_all(b"ng").await);
    good("flushing", far.writer.flush().await);
    expect(&mut near, b"pong").await;
    assert!(near.writer.is_write_vectored(), "several pieces go out in one write");
    let pieces = [IoSlice::new(b"in "), IoSlice::new(b""), IoSlice::new(b"pieces")];
    let written = good("writing pieces", near.writer.write_vectored(&pieces).await);
    assert_eq!(written, 9, "there is room for nine bytes");
    good("flushing", near.writer.flush().await);
    expect(&mut far, b"in pieces").await;
    let none = good("writing nothing", near.writer.write(b"").await);
    assert_eq!(none, 0);
    let mut byte = [0];
    let silence = timeout(Duration::from_millis(50), near.reader.read(&mut byte)).await;
    assert!(silence.is_err(), "a read waits for bytes");
}

async fn closing_one_way(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let (mut near, mut far) = pair(client, &mut listener).await;
    good("writing", near.writer.write_all(b"last words").await);
    good("shutting down", near.writer.shutdown().await);
    expect(&mut far, b"last words").await;
    expect_end(&mut far).await;
    expect_end(&mut far).await;
    good("answering", far.writer.write_all(b"answer").await);
    good("flushing", far.writer.flush().await);
    expect(&mut near, b"answer").await;
    let more = near.writer.write_all(b"more").await;
    fails("writing after a shutdown", ErrorKind::BrokenPipe, more);
    // Dropping the sending half does the same.
    drop(far.writer);
    in_time("reading to the end", near.reader.read_to_end(&mut Vec::new())).await.ok();

    let (near, mut far) = pair(client, &mut listener).await;
    let Connection { mut reader, mut writer, .. } = near;
    good("writing", writer.write_all(b"bye").await);
    drop(writer);
    expect(&mut far, b"bye").await;
    expect_end(&mut far).await;
    good("answering", far.writer.write_all(b"answer").await);
    good("flushing", far.writer.flush().await);
    let mut answer = [0; 6];
    good("reading", in_time("reading", reader.read_exact(&mut answer)).await);
    assert_eq!(&answer, b"answer", "the other direction stays open");
}

async fn closing_both_ways(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let (near, mut far) = pair(client, &mut listener).await;
    drop(near);
    expect_end(&mut far).await;
    let error = in_time("writing to nobody", write_until_it_fails(&mut far)).await;
    assert!(
        matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "writing to nobody: {error}"
    );
}

/// The first writes may still succeed: that nobody reads them is known only once it is answered.
async fn write_until_it_fails(connection: &mut Connection) -> io::Error {
    loop {
        match connection.writer.write_all(b"anybody?").await {
            Ok(()) => sleep(Duration::from_millis(5)).await,
            Err(error) => return error,
        }
    }
}

async fn reset(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let (mut near, far) = pair(client, &mut listener).await;
    good("writing", near.writer.write_all(b"never read").await);
    good("flushing", near.writer.flush().await);
    // Until it has arrived: closing with unread bytes resets (RFC 2525, section 2.17). The end of
    // the sending half comes first, so a reader may see just that.
    sleep(Duration::from_millis(50)).await;
    drop(far);
    let mut byte = [0];
    match in_time("reading", near.reader.read(&mut byte)).await {
        Ok(read) => assert_eq!(read, 0, "nothing was sent"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    in_time("writing", write_until_it_fails(&mut near)).await;
}

async fn back_pressure(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let (near, mut far) = pair(client, &mut listener).await;
    let (sent, mut count) = tokio::sync::mpsc::unbounded_channel();
    let sender = task::spawn(async move {
        let Connection { mut writer, .. } = near;
        let piece: Vec<u8> = (0..65_536u32).map(|at| at.to_le_bytes()[0]).collect();
        for _ in 0..FLOOD_BYTES / piece.len() {
            good("flooding", writer.write_all(&piece).await);
            good("counting", sent.send(piece.len()));
        }
    });
    let mut total = 0;
    while let Ok(Some(bytes)) = timeout(Duration::from_millis(500), count.recv()).await {
        total += bytes;
    }
    assert!(total > 0, "something can be written before anybody reads");
    assert!(total < FLOOD_BYTES, "a writer waits when nobody reads");
    let mut received = 0usize;
    let mut buffer = vec![0; 1 << 20];
    while received < FLOOD_BYTES {
        let read = good("reading", in_time("reading", far.reader.read(&mut buffer)).await);
        assert!(read > 0, "the stream does not end before its last byte");
        let in_order = buffer[..read].iter().zip(received..).all(|(byte, at)| *byte == at as u8);
        assert!(in_order, "the bytes arrive in order");
        received += read;
    }
    good("the sender", in_time("the sender", sender).await);
    expect_end(&mut far).await;
}

async fn many(server: &Host, client: &Host, address: SocketAddr) {
    let mut listener = listen(server, address).await;
    let to = listener.local_address();
    let mut near = Vec::new();
    for number in 0..CALLERS {
        let connection = in_time("connecting", client.network.connect(to)).await;
        let mut connection = good("connecting", connection);
        good("writing", connection.writer.write_all(&number.to_be_bytes()).await);
        good("flushing", connection.writer.flush().await);
        near.push(connection);
    }
    let mut numbers = Vec::new();
    let mut far = Vec::new();
    for _ in 0..CALLERS {
        let mut connection = good("accepting", in_time("accepting", listener.accept()).await);
        let mut number = [0; 2];
        good("reading", in_time("reading", connection.reader.read_exact(&mut number)).await);
        good("answering", connection.writer.write_all(&number).await);
        good("flushing", connection.writer.flush().await);
        numbers.push(u16::from_be_bytes(number));
        far.push(connection);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..CALLERS).collect::<Vec<u16>>(), "no connection is lost or taken twice");
    for (number, mut connection) in (0..CALLERS).zip(near) {
        expect(&mut connection, &number.to_be_bytes()).await;
    }
}
