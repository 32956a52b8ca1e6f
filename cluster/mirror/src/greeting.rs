//! Who is there: the first words on a connection between two sites.
//!
//! ```text
//! who dials                                   who is dialled
//! judges what the other side shows
//!      -- hello: which site, which node, to whom, which session -->
//!                                             finds the link to that site, judges what was shown
//!      <-- welcome: which node, which session --
//! compares it with what was shown
//! ```
//!
//! Both say which bond they have heard last of the other side; who does not know it was put back, and refuses.
//!
//! Each connection of a session is greeted like the first one. That it belongs to the session is proved
//! by the number that the first welcome has told, and it is of the same node.
//!
//! Invariants: the other site is who the link pins: the authority in its definition vouches for what
//! the other side shows, which is for the node that it says it is, of the site that the link leads to.
//! What else is known of it, its region above all, is what the definition says. Every refusal has a
//! name, on both sides.
//!
//! Never: tell somebody who has not been judged more than what is wrong with what he shows, nor whether there is a link to
//! the site that he says he is of; or prove for his sake that
//! this node leads.

use crate::cap::GREETING_BYTES;
use crate::frame::{self, Frames};
use crate::links::Context;
use crate::message::{
    GREETING_BYTES_MAX, Hello, Message, NEW_SESSION, Refusal, SessionId, VERSION,
};
use crate::ration::Rationed;
use crate::session::Dialling;
use crate::stripe::Stripe;
use fulmar_broker::machine::links::Link;
use fulmar_host::net::{Connection, Distrust, PeerIdentity, WriteHalf};
use fulmar_host::random;
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
    /// The session that it begins or joins.
    pub(crate) session: SessionId,
    /// The connection.
    pub(crate) stripe: Stripe,
    /// How more of them are dialled, if this side has dialled the first.
    pub(crate) dialling: Option<Dialling>,
    /// The bytes of the largest batch that the other side takes.
    pub(crate) batch_bytes: u32,
    /// The number of the last bond that the other side has heard.
    pub(crate) shown: u64,
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
    let told = async { frame::greet(writer, &Message::Refused(reason)).await };
    // Whether it hears of it or not.
    let _ = told.await;
    GreetingError::Refuses(reason)
}

/// Greets the other side of a link that this side has dialled, for a new session or as a connection of
/// one that there is. `place` is where it was dialled.
pub(crate) async fn call(
    context: &Context,
    link: Link,
    (place, connection): (&str, Connection),
    joins: Option<(SessionId, u8)>,
) -> Result<Greeted, GreetingError> {
    in_time(async {
        let Connection { peer, reader, mut writer, abrupt } = connection;
        let mut reader = Frames::new(reader);
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
            session: joins.map_or(NEW_SESSION, |(session, _)| session),
            stripe: joins.map_or(0, |(_, stripe)| stripe),
            batch_bytes: context.settings.takes(),
            heard: context.heard(&link),
        };
        let number = hello.stripe;
        frame::greet(&mut writer, &Message::Hello(hello)).await?;
        match reader.greeting(GREETING_BYTES_MAX, GREETING_TIMEOUT).await? {
            Some(Message::Welcome { node, session, connections, batch_bytes, heard: shown }) => {
                let known = match trusted(Some(node)) {
                    Ok(()) => knows(context, &link, shown).await,
                    distrusted => distrusted,
                };
                if let Err(reason) = known {
                    return Err(refuse(&mut writer, reason).await);
                }
                let connections = connections.min(link.definition.connections);
                let dialling = Dialling { place: place.to_owned(), session, connections };
                let stripe = Stripe { number, peer, node, reader, writer, abrupt };
                Ok(Greeted { link, session, stripe, dialling: Some(dialling), batch_bytes, shown })
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
        let Connection { peer, reader, mut writer, abrupt } = connection;
        let mut reader = Frames::new(reader);
        let hello = match reader.greeting(GREETING_BYTES_MAX, GREETING_TIMEOUT).await? {
            Some(Message::Hello(hello)) => hello,
            Some(Message::Refused(refusal)) => {
                let (address, reason) = (peer.address, refusal.name());
                context.host.report(Event::Distrusted { address, reason, by_peer: true });
                return Err(GreetingError::Refused(refusal));
            }
            _ => return Err(unexpected()),
        };
        let judged = judge(context, &hello, &peer).await;
        let link = match judged.and_then(|link| belongs(context, &hello, link)) {
            Ok(link) => link,
            Err(reason) => {
                if matches!(reason, Refusal::Distrusted(_)) {
                    context.host.probe(Probe::StrangerRefused);
                }
                // Two of three nodes do not lead: that is no trouble.
                if !matches!(reason, Refusal::NotLeader | Refusal::NoSession) {
                    let (address, site) = (peer.address, hello.site.clone());
                    let reason = reason.name();
                    context.refused(&site, address, reason);
                    context.host.report(Event::SiteRefused { address, site, reason });
                }
                let told = told_of(reason, || context.host.links.judge(&peer, &[]));
                // Here it is what it is.
                let _ = refuse(&mut writer, told).await;
                return Err(GreetingError::Refuses(reason));
            }
        };
        let session = match hello.session {
            NEW_SESSION => {
                context.rations.wait(Rationed::Session, &link.name).await;
                random::random_16()
            }
            known => known,
        };
        let (node, connections) = (context.settings.node, link.definition.connections);
        context.cap(&link.name).owe(GREETING_BYTES);
        let batch_bytes = context.settings.takes();
        let heard = context.heard(&link);
        let welcome = Message::Welcome { node, session, connections, batch_bytes, heard };
        frame::greet(&mut writer, &welcome).await?;
        let (number, node, shown) = (hello.stripe, hello.node, hello.heard);
        let batch_bytes = hello.batch_bytes;
        let stripe = Stripe { number, peer, node, reader, writer, abrupt };
        Ok(Greeted { link, session, stripe, dialling: None, batch_bytes, shown })
    })
    .await
}

/// Whether a connection may begin a session, or join the one that it names.
fn belongs(context: &Context, hello: &Hello, link: Link) -> Result<Link, Refusal> {
    let is_in_order = match hello.session {
        NEW_SESSION => hello.stripe == 0,
        session => {
            hello.stripe < link.definition.connections
                && context.has_session(&link.name, session, hello.node)
        }
    };
    if is_in_order { Ok(link) } else { Err(Refusal::NoSession) }
}

/// What whoever is refused is told. Somebody of a site that no link leads to is told what he would be told if one did:
/// what he shows is of another authority than the one that it pins, or worse. Else anybody could find out which
/// sites there are links to.
fn told_of(reason: Refusal, judged_by_nobody: impl FnOnce() -> Result<(), Distrust>) -> Refusal {
    match reason {
        Refusal::UnknownSite => {
            let distrust = judged_by_nobody().err().unwrap_or(Distrust::OtherAuthority);
            Refusal::Distrusted(distrust)
        }
        reason => reason,
    }
}

async fn judge(context: &Context, hello: &Hello, peer: &PeerIdentity) -> Result<Link, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::Version);
    }
    if hello.to != context.settings.site {
        return Err(Refusal::OtherSite);
    }
    let known = || context.broker.site().read(|state| state.link_to(&hello.site).cloned());
    let admitted = |link: &Link| match fulmar_host::planted(Plant::TakeAnybody) {
        true => Ok(()),
        false => judged(context, link, peer, Some(hello.node)),
    };
    // Before the site is asked anything for his sake. A link that stands on the leader and not here yet does not make
    // him anybody: he comes again.
    admitted(&known().ok_or(Refusal::UnknownSite)?)?;
    if !context.leads().await {
        return Err(Refusal::NotLeader);
    }
    // Everything is applied here now, perhaps another definition.
    let link = known().ok_or(Refusal::UnknownSite)?;
    admitted(&link)?;
    if link.definition.paused {
        return Err(Refusal::Paused);
    }
    knows(context, &link, hello.heard).await?;
    Ok(link)
}

/// Whether this site has given what the other one has heard of it. If not, and this node leads, the site was put back to
/// an older copy of itself, whose rules may be older ones.
async fn knows(context: &Context, link: &Link, shown: u64) -> Result<(), Refusal> {
    let site = &link.definition.site;
    let is_put_back = || context.broker.site().read(|state| state.is_put_back(site, shown));
    if !is_put_back() {
        return Ok(());
    }
    // Another node may lead, and have given it meanwhile.
    if !context.leads().await {
        return Err(Refusal::NotLeader);
    }
    if !is_put_back() {
        return Ok(());
    }
    context.put_back(link, shown).await;
    Err(Refusal::PutBack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_the_same_whether_there_is_a_link_to_his_site_or_not() {
        for shown in Distrust::ALL {
            let with_link = told_of(Refusal::Distrusted(shown), || Err(shown));
            let without = told_of(Refusal::UnknownSite, || Err(shown));
            assert_eq!(with_link, without);
        }
        let told = told_of(Refusal::UnknownSite, || Ok(()));
        assert_eq!(told, Refusal::Distrusted(Distrust::OtherAuthority), "nobody vouches for him");
        assert_eq!(told_of(Refusal::Paused, || Ok(())), Refusal::Paused);
    }
}
