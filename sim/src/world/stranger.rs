//! Somebody who dials a site and says that he is another one, or waits where another one is dialled.
//!
//! He speaks the first words of a link as docs/design/mirror.md draws them, and shows papers that are
//! never the right ones: of another authority, of the right one and expired, for a client, for another
//! node. Invariant checked here: nobody ever welcomes him; to one whose papers are of another authority
//! or do not count nobody says a word but that, and to one who is another node nothing after his welcome.
//! And he is understood: a run in which no node ever tells him no does not count.

use crate::net::Papers;
use crate::prng::Prng;
use crate::report::Verdict;
use crate::scenario::workload::Stranger;
use crate::scenario::{Drawn, LINK_PORT, SiteName};
use bytes::BufMut;
use fulmar_host::net::{Connection, Distrust, LinkNetwork};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long he waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The kinds of the messages, as they are drawn.
const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;

/// What is spoken on a link.
const VERSION: u16 = 6;

/// The bytes of a session.
const SESSION_BYTES: usize = 16;

/// The largest batch that he says he takes.
const BATCH_BYTES: u32 = 1 << 20;

/// The node that he says he is.
const NODE: u64 = 1;

/// Who was welcomed, and who was understood at all.
#[derive(Clone, Default)]
pub(super) struct Welcomed(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    welcomed: Vec<String>,
    /// By what it was: how often somebody spoke, and how often he was told no for it.
    told: BTreeMap<&'static str, (u64, u64)>,
}

/// So often nobody is told nothing by chance.
const TRIES_MANY: u64 = 20;

impl Welcomed {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody spoke, and was refused in as many words, or not.
    fn spoke(&self, what: &'static str, was_refused: bool) {
        let mut heard = self.heard();
        let (spoke, refused) = heard.told.entry(what).or_default();
        *spoke += 1;
        *refused += u64::from(was_refused);
    }

    /// That somebody was welcomed, or that no node ever understood what he said: then that he was not
    /// welcomed proves nothing.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let heard = self.heard();
        if let Some(text) = heard.welcomed.first().cloned() {
            return Some(Verdict::Safety { check: "strangers_stay_out".to_owned(), text });
        }
        let unheard = heard.told.iter().find(|(_, told)| told.0 >= TRIES_MANY && told.1 == 0);
        unheard.map(|(what, (spoke, _))| {
            let text = format!("{what} spoke {spoke} times, and no node ever refused him");
            Verdict::Harness { text }
        })
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
            let Ok(Ok(answer)) = knocked else { continue };
            self.welcomed.spoke("a stranger", answer == Some(REFUSED));
            if answer == Some(WELCOME) {
                let text = format!(
                    "node {NODE} of {} was welcomed at {}, who showed {papers}",
                    self.stranger.claims, self.doors[at]
                );
                self.welcomed.heard().welcomed.push(text);
            }
        }
    }

    /// The kind of the answer; nothing, if the connection ended.
    async fn knock(&self, door: IpAddr) -> io::Result<Option<u8>> {
        let connected = self.network.connect(SocketAddr::new(door, LINK_PORT)).await?;
        let Connection { mut reader, mut writer, .. } = connected;
        writer.write_all(&hello(&self.stranger.claims, &self.stranger.site)).await?;
        writer.flush().await?;
        let mut head = [0; 5];
        Ok(reader.read_exact(&mut head).await.ok().map(|_| head[4]))
    }
}

/// The impostor, who waits where another site is dialled. He shows the same papers all the time.
pub(super) struct Waiting {
    pub(super) network: Arc<dyn LinkNetwork>,
    pub(super) at: IpAddr,
    pub(super) claims: SiteName,
    pub(super) prng: Prng,
    pub(super) welcomed: Welcomed,
}

impl Waiting {
    /// What he shows, which follows from the seed.
    pub(super) fn papers(&self) -> Papers {
        papers(self.claims.as_str(), self.prng.clone().below(5))
    }

    /// Waits until he is told to stop.
    pub(super) async fn run(self, stopped: impl Fn() -> bool) {
        let papers = self.papers();
        let is_known =
            papers.authority == Papers::authority_of(self.claims.as_str()) && papers.flaw.is_none();
        let at = SocketAddr::new(self.at, LINK_PORT);
        let Ok(mut listener) = self.network.listen(at).await else { return };
        while !stopped() {
            let accepted = madsim::time::timeout(PATIENCE, listener.accept()).await;
            let Ok(Ok(connection)) = accepted else { continue };
            let heard = madsim::time::timeout(PATIENCE, heard(connection, is_known)).await;
            let Ok(Ok((spoke, answer))) = heard else { continue };
            let what = if is_known { "a site of another node" } else { "an impostor" };
            self.welcomed.spoke(what, answer == Some(REFUSED));
            if spoke {
                let text = format!("a site that dialled {} spoke to {papers}", self.claims);
                self.welcomed.heard().welcomed.push(text);
            }
        }
    }
}

/// Whether somebody who dialled said more than he may, and the kind of the last that he said. Of one who
/// shows papers of the right authority he finds out when he is told which node that is.
async fn heard(connection: Connection, is_known: bool) -> io::Result<(bool, Option<u8>)> {
    let Connection { mut reader, mut writer, .. } = connection;
    let mut head = [0; 5];
    reader.read_exact(&mut head).await?;
    if head[4] != HELLO || !is_known {
        return Ok((head[4] == HELLO, Some(head[4])));
    }
    let [a, b, c, d, _] = head;
    let mut hello = vec![0; (u32::from_le_bytes([a, b, c, d]) as usize).saturating_sub(1)];
    reader.read_exact(&mut hello).await?;
    let mut body = vec![WELCOME];
    body.put_u64_le(NODE);
    body.put_slice(&[7; SESSION_BYTES]);
    body.put_u8(1);
    body.put_u32_le(BATCH_BYTES);
    body.put_u64_le(0);
    writer.write_all(&message(body)).await?;
    writer.flush().await?;
    let answer = reader.read_exact(&mut head).await.ok().map(|_| head[4]);
    Ok((answer.is_some_and(|kind| kind != REFUSED), answer))
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
    body.put_u16_le(VERSION);
    text(&mut body, claims.to_string());
    body.put_u64_le(NODE);
    text(&mut body, to.to_string());
    body.put_slice(&[0; SESSION_BYTES]);
    body.put_u8(0);
    body.put_u32_le(BATCH_BYTES);
    body.put_u64_le(0);
    message(body)
}

fn message(body: Vec<u8>) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_u32_le(u32::try_from(body.len()).expect("a short message"));
    frame.extend(body);
    frame
}
