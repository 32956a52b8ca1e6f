//! What every implementation of [`LinkNetwork`](crate::net::LinkNetwork) promises beside what one of
//! [`Network`](crate::net::Network) does.

use super::good;
use crate::Host;
use crate::net::Connection;
use crate::time::{Duration, timeout};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is not there after this long does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who cannot write for so long has met back-pressure.
const FULL: Duration = Duration::from_millis(300);

/// Tests the connections between two sites (or of one, given twice). `address` belongs to `server`; its
/// port is zero. Returns how many bytes were written before a connection ended abruptly, and how many of
/// them came.
///
/// # Panics
/// If a promise is broken.
pub async fn links(server: &Host, client: &Host, address: SocketAddr) -> (usize, usize) {
    let (near, mut far) = pair(server, client, address).await;
    let Connection { mut writer, .. } = near;
    good("writing", writer.write_all(b"bye").await);
    good("flushing", writer.flush().await);
    drop(writer);
    let (bytes, end) = to_the_end(&mut far).await;
    assert_eq!((bytes, good("the end", end)), (3, ()), "what was written comes, and then the end");

    let (mut near, mut far) = pair(server, client, address).await;
    let piece = vec![7; 32 << 10];
    let mut written = 0;
    while let Ok(count) = timeout(FULL, near.writer.write(&piece)).await {
        written += good("writing", count);
    }
    let abrupt = near.abrupt.take().expect("every connection between sites has it");
    good("ending abruptly", abrupt.end_abruptly());
    drop(near);
    let (came, end) = to_the_end(&mut far).await;
    let error = end.expect_err("what ends abruptly does not end in good order");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(abrupt.end_abruptly().is_err(), "it is not there any more");
    (written, came)
}

/// Both ends of a new connection.
async fn pair(server: &Host, client: &Host, address: SocketAddr) -> (Connection, Connection) {
    let mut listener = good("listening", server.links.listen(address).await);
    let to = listener.local_address();
    let both = async { tokio::join!(client.links.connect(to), listener.accept()) };
    let (near, far) = good("connecting", timeout(PATIENCE, both).await);
    (good("connecting", near), good("accepting", far))
}

/// How many bytes come until there are no more, and how that ends.
async fn to_the_end(connection: &mut Connection) -> (usize, io::Result<()>) {
    let (mut bytes, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        let read = timeout(PATIENCE, connection.reader.read(&mut buffer)).await;
        match good("reading to the end", read) {
            Ok(0) => return (bytes, Ok(())),
            Ok(count) => bytes += count,
            Err(error) => return (bytes, Err(error)),
        }
    }
}
