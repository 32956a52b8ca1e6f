//! Who is there: the first words on a connection between two sites.
//!
//! Invariants: what is known of the other site, its region above all, is what the definition of the link
//! says; every refusal has a name, on both sides. Which link it is, is told by the name that the
//! other side gives itself: on a network where nobody proves anything everybody is who he says.

use crate::frame::{self, Messages};
use crate::links::Context;
use crate::message::{GREETING_BYTES_MAX, Hello, Message, Refusal, VERSION};
use fulmar_broker::machine::links::Link;
use fulmar_host::net::{Connection, WriteHalf};
use fulmar_host::time::{self, Duration};
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
    /// One side refused the other.
    #[error("refused: {}", .0.name())]
    Refused(Refusal),
}

/// A connection on which both sides know each other.
pub(crate) struct Greeted {
    /// The link as it is defined here.
    pub(crate) link: Link,
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

/// Greets the other side of a link that this side has dialled.
pub(crate) async fn call(
    context: &Context,
    link: Link,
    connection: Connection,
) -> Result<Greeted, GreetingError> {
    in_time(async {
        let mut writer = connection.writer;
        let mut reader = Messages::new(connection.reader, GREETING_BYTES_MAX);
        let hello = Hello {
            version: VERSION,
            site: context.settings.site.clone(),
            node: context.settings.node,
            to: link.definition.site.clone(),
        };
        frame::write(&mut writer, &Message::Hello(hello)).await?;
        frame::flush(&mut writer).await?;
        match reader.next(GREETING_TIMEOUT).await? {
            Some(Message::Welcome { .. }) => {
                reader.trust();
                Ok(Greeted { link, reader, writer })
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
        let mut writer = connection.writer;
        let mut reader = Messages::new(connection.reader, GREETING_BYTES_MAX);
        let Some(Message::Hello(hello)) = reader.next(GREETING_TIMEOUT).await? else {
            return Err(unexpected());
        };
        let judged = judge(context, &hello).await;
        let answer = match &judged {
            Ok(_) => Message::Welcome { node: context.settings.node },
            Err(reason) => Message::Refused(*reason),
        };
        frame::write(&mut writer, &answer).await?;
        frame::flush(&mut writer).await?;
        let link = judged.map_err(GreetingError::Refused)?;
        reader.trust();
        Ok(Greeted { link, reader, writer })
    })
    .await
}

async fn judge(context: &Context, hello: &Hello) -> Result<Link, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::Version);
    }
    if hello.to != context.settings.site {
        return Err(Refusal::OtherSite);
    }
    if !context.leads().await {
        return Err(Refusal::NotLeader);
    }
    let of_site = |link: &&Link| link.definition.site == hello.site;
    let link = context.broker.site().read(|state| state.links().find(of_site).cloned());
    let link = link.ok_or(Refusal::UnknownSite)?;
    if link.definition.paused { Err(Refusal::Paused) } else { Ok(link) }
}
