//! Who is there: the first words on a connection between two sites.
//!
//! ```text
//! who dials                                   who is dialled
//! judges what the other side shows
//!      -- hello: which site, which node, to whom -->
//!                                             finds the link to that site, judges what was shown
//!      <-- welcome: which node --
//! compares it with what was shown
//! ```
//!
//! Invariants: the other site is who the link pins: the authority in its definition vouches for what
//! the other side shows, which is for the node that it says it is, of the site that the link leads to.
//! What else is known of it, its region above all, is what the definition says. Every refusal has a
//! name, on both sides.
//!
//! Never: tell somebody who has not been judged more than why he is refused; or prove for his sake that
//! this node leads.

use crate::frame::{self, Messages};
use crate::links::Context;
use crate::message::{GREETING_BYTES_MAX, Hello, Message, Refusal, VERSION};
use fulmar_broker::machine::links::Link;
use fulmar_host::net::{Connection, Distrust, PeerIdentity, WriteHalf};
use fulmar_host::time::{self, Duration};
use fulmar_types::config::certificate_name;
use fulmar_types::{Event, NodeId, Plant, Probe};
use std::io;
use thiserror::Error;

/// How long a greeting may take, over a line with seconds of delay.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no link came about.
#[derive(Debug, Error)]
pub(crate) enum GreetingError {
    /// Nobody answered, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side refused this one.
    #[error("refused by the other side: {}", .0.name())]
    Refused(Refusal),
    /// This side refused the other.
    #[error("refused: {}", .0.name())]
    Refuses(Refusal),
}

/// A connection on which both sides know each other.
pub(crate) struct Greeted {
    /// The link as it is defined here.
    pub(crate) link: Link,
    /// Who is on the other side.
    pub(crate) peer: PeerIdentity,
    /// Which node of the other site that is.
    pub(crate) node: NodeId,
    /// What the other side says.
    pub(crate) reader: Messages,
    /// What this side says.
    pub(crate) writer: WriteHalf,
}

fn unexpected() -> GreetingError {
    io::Error::new(io::ErrorKind::InvalidData, "this is no greeting of a link").into()
}

async fn in_time<T>(
    greeting: impl Future<Output = Result<T, GreetingError>>,
) -> Result<T, GreetingError> {
    let greeted = time::timeout(GREETING_TIMEOUT, greeting).await;
    greeted.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Whether somebody is that node of the site that a link leads to: the pinned authority vouches for
/// what he shows, and that is for this node. Without a node, only the first.
pub(crate) fn judged(
    context: &Context,
    link: &Link,
    peer: &PeerIdentity,
    node: Option<NodeId>,
) -> Result<(), Refusal> {
    let judged = context.host.links.judge(peer, &link.definition.authority);
    judged.map_err(Refusal::Distrusted)?;
    let Some(node) = node else { return Ok(()) };
    let name = certificate_name(&link.definition.site, node);
    let is_it = peer.names.as_ref().is_some_and(|names| names.contains(&name));
    if is_it { Ok(()) } else { Err(Refusal::Distrusted(Distrust::OtherNode)) }
}

/// Tells the other side that it is refused.
async fn refuse(writer: &mut WriteHalf, reason: Refusal) -> GreetingError {
    let told = async {
        frame::write(writer, &Message::Refused(reason)).await?;
        frame::flush(writer).await
    };
    // Whether it hears of it or not.
    let _ = told.await;
    GreetingError::Refuses(reason)
}

/// Greets the other side of a link that this side has dialled.
pub(crate) async fn call(
    context: &Context,
    link: Link,
    connection: Connection,
) -> Result<Greeted, GreetingError> {
    in_time(async {
        let Connection { peer, reader, mut writer } = connection;
        let mut reader = Messages::new(reader, GREETING_BYTES_MAX);
        let trusted = |node| match fulmar_host::planted(Plant::DialAnybody) {
            true => Ok(()),
            false => judged(context, &link, &peer, node),
        };
        if let Err(reason) = trusted(None) {
            return Err(refuse(&mut writer, reason).await);
        }
        let hello = Hello {
            version: VERSION,
            site: context.settings.site.clone(),
            node: context.settings.node,
            to: link.definition.site.clone(),
        };
        frame::write(&mut writer, &Message::Hello(hello)).await?;
        frame::flush(&mut writer).await?;
        match reader.next(GREETING_TIMEOUT).await? {
            Some(Message::Welcome { node }) => {
                if let Err(reason) = trusted(Some(node)) {
                    return Err(refuse(&mut writer, reason).await);
                }
                reader.trust();
                Ok(Greeted { link, peer, node, reader, writer })
            }
            Some(Message::Refused(reason)) => Err(GreetingError::Refused(reason)),
            _ => Err(unexpected()),
        }
    })
    .await
}

/// Answers whoever has dialled this node.
pub(crate) async fn answer(
    context: &Context,
    connection: Connection,
) -> Result<Greeted, GreetingError> {
    in_time(async {
        let Connection { peer, reader, mut writer } = connection;
        let mut reader = Messages::new(reader, GREETING_BYTES_MAX);
        let hello = match reader.next(GREETING_TIMEOUT).await? {
            Some(Message::Hello(hello)) => hello,
            Some(Message::Refused(refusal)) => {
                let (address, reason) = (peer.address, refusal.name());
                context.host.report(Event::Distrusted { address, reason, by_peer: true });
                return Err(GreetingError::Refused(refusal));
            }
            _ => return Err(unexpected()),
        };
        let link = match judge(context, &hello, &peer).await {
            Ok(link) => link,
            Err(reason) => {
                if matches!(reason, Refusal::Distrusted(_)) {
                    context.host.probe(Probe::StrangerRefused);
                }
                // Two of three nodes do not lead: that is no trouble.
                if reason != Refusal::NotLeader {
                    let (address, site) = (peer.address, hello.site.clone());
                    let reason = reason.name();
                    context.host.report(Event::SiteRefused { address, site, reason });
                }
                return Err(refuse(&mut writer, reason).await);
            }
        };
        frame::write(&mut writer, &Message::Welcome { node: context.settings.node }).await?;
        frame::flush(&mut writer).await?;
        reader.trust();
        Ok(Greeted { link, peer, node: hello.node, reader, writer })
    })
    .await
}

async fn judge(context: &Context, hello: &Hello, peer: &PeerIdentity) -> Result<Link, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::Version);
    }
    if hello.to != context.settings.site {
        return Err(Refusal::OtherSite);
    }
    let of_site = |link: &&Link| link.definition.site == hello.site;
    let known = || context.broker.site().read(|state| state.links().find(of_site).cloned());
    let admitted = |link: &Link| match fulmar_host::planted(Plant::TakeAnybody) {
        true => Ok(()),
        false => judged(context, link, peer, Some(hello.node)),
    };
    // Before the site is asked anything for his sake.
    known().as_ref().map_or(Ok(()), admitted)?;
    if !context.leads().await {
        return Err(Refusal::NotLeader);
    }
    // Everything is applied here now, perhaps another definition.
    let link = known().ok_or(Refusal::UnknownSite)?;
    admitted(&link)?;
    if link.definition.paused { Err(Refusal::Paused) } else { Ok(link) }
}
