//! Somebody who dials a site and says that he is another one.
//!
//! He speaks the first words of a link as docs/design/mirror.md draws them, and shows papers that are
//! never the right ones: of another authority, of the right one and expired, for a client, for another
//! node. Invariant checked here: nobody ever welcomes him.

use crate::net::Papers;
use crate::prng::Prng;
use crate::report::Verdict;
use crate::scenario::workload::Stranger;
use crate::scenario::{Drawn, LINK_PORT};
use bytes::BufMut;
use fulmar_host::net::{Connection, Distrust, LinkNetwork};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long he waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The kinds of the messages, as they are drawn.
const HELLO: u8 = 1;
const WELCOME: u8 = 2;

/// The node that he says he is.
const NODE: u64 = 1;

/// Who was welcomed.
#[derive(Clone, Default)]
pub(super) struct Welcomed(Arc<Mutex<Vec<String>>>);

impl Welcomed {
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let welcomed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = welcomed.first()?.clone();
        Some(Verdict::Safety { check: "strangers_stay_out".to_owned(), text })
    }
}

/// The stranger at work.
pub(super) struct Knocking<P> {
    pub(super) stranger: Stranger<Drawn>,
    pub(super) network: Arc<dyn LinkNetwork>,
    pub(super) doors: Vec<IpAddr>,
    pub(super) prng: Prng,
    pub(super) welcomed: Welcomed,
    /// Has him show papers from now on.
    pub(super) show: P,
}

impl<P: Fn(Papers)> Knocking<P> {
    /// Dials until he is told to stop.
    pub(super) async fn run(mut self, stopped: impl Fn() -> bool) {
        let interval = self.stranger.rate.interval();
        while !stopped() {
            madsim::time::sleep(interval).await;
            let papers = papers(self.stranger.claims.as_str(), self.prng.below(5));
            (self.show)(papers.clone());
            let at = usize::try_from(self.prng.below(self.doors.len() as u64)).unwrap_or(0);
            let knocked = madsim::time::timeout(PATIENCE, self.knock(self.doors[at])).await;
            if let Ok(Ok(true)) = knocked {
                let text = format!(
                    "node {NODE} of {} was welcomed at {}, who showed {papers}",
                    self.stranger.claims, self.doors[at]
                );
                self.welcomed.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
    }

    async fn knock(&self, door: IpAddr) -> io::Result<bool> {
        let connected = self.network.connect(SocketAddr::new(door, LINK_PORT)).await?;
        let Connection { mut reader, mut writer, .. } = connected;
        writer.write_all(&hello(&self.stranger.claims, &self.stranger.site)).await?;
        writer.flush().await?;
        let mut head = [0; 5];
        reader.read_exact(&mut head).await?;
        Ok(head[4] == WELCOME)
    }
}

/// Papers that prove nothing.
fn papers(claims: &str, which: u64) -> Papers {
    let name = format!("node-{NODE}.{claims}");
    let authority = Papers::authority_of(claims);
    let flawed = |flaw| Papers { authority: authority.clone(), name: name.clone(), flaw };
    match which {
        0 => Papers { authority: Papers::authority_of("nowhere"), name, flaw: None },
        1 => flawed(Some(Distrust::Expired)),
        2 => flawed(Some(Distrust::OtherUse)),
        3 => Papers { authority, name: format!("node-{}.{claims}", NODE + 1), flaw: None },
        _ => Papers { authority, name: format!("node-{NODE}.nowhere"), flaw: None },
    }
}

fn hello(claims: impl Display, to: impl Display) -> Vec<u8> {
    let mut body = vec![HELLO];
    let text = |body: &mut Vec<u8>, text: String| {
        body.put_u32_le(u32::try_from(text.len()).expect("the name of a site"));
        body.put_slice(text.as_bytes());
    };
    body.put_slice(b"FLMK");
    body.put_u16_le(1);
    text(&mut body, claims.to_string());
    body.put_u64_le(NODE);
    text(&mut body, to.to_string());
    let mut frame = Vec::new();
    frame.put_u32_le(u32::try_from(body.len()).expect("a short message"));
    frame.extend(body);
    frame
}
