//! What two sites give each other by which each finds out that it was put back (`machine/bonds.rs`).
//!
//! ```text
//! gives       logs a greater number --> bond --> offer ...      and again whenever it has noted how far the other one is
//! takes       bond --> logs it --> looks at the offer, and asks for something
//! ```
//!
//! Invariants: a number goes out when the log has it; nothing is asked for before the log has the first that came.
//!
//! Never: give one to a site that has not let this one send yet: it may still refuse.

use crate::message::Message;
use crate::session::{Ended, Parts};
use crate::source::{settled, submit};
use fulmar_broker::machine::outcome::{OperationResult, UnitResult};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::LinkOperation;
use tokio::sync::watch;

/// How often one that the log has not taken is proposed again, and the shortest time from one to the next: each is an entry
/// of the log, and the other side sends as many as it likes.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives the other side a new number. `false` if this side may not: the session ends.
pub(crate) async fn give(parts: &Parts) -> bool {
    let operation = || LinkOperation::GiveBond { link: parts.link.number, shown: parts.shown };
    loop {
        match settled(submit(parts, operation()).await).await {
            Some(UnitResult::Done(results)) => {
                if let Some(OperationResult::BondGiven { number }) = results.first() {
                    parts.send(Message::Bond(*number)).await;
                }
                return true;
            }
            // The link is another one.
            Some(UnitResult::Refused(_)) => {
                parts.end(Ended::Redefined);
                return false;
            }
            None => time::sleep(PAUSE).await,
        }
    }
}

/// What comes.
pub(crate) struct Hearing {
    came: watch::Sender<u64>,
    logged: watch::Receiver<bool>,
    _logging: Owned<()>,
}

impl Hearing {
    pub(crate) fn start(parts: Parts) -> Self {
        let (came, comes) = watch::channel(0);
        let (logs, logged) = watch::channel(false);
        let _logging = task::spawn_owned(log(parts, comes, logs));
        Self { came, logged, _logging }
    }

    /// Another number came. Only the newest counts.
    pub(crate) fn came(&self, number: u64) -> bool {
        number > 0 && self.came.send(number).is_ok()
    }

    /// Whether any came.
    pub(crate) fn has_come(&self) -> bool {
        *self.came.borrow() > 0
    }

    /// Becomes true when the first is in the log.
    pub(crate) fn logged(&self) -> watch::Receiver<bool> {
        self.logged.clone()
    }
}

fn knows(parts: &Parts, number: u64) -> bool {
    let site = &parts.link.definition.site;
    parts.context.broker.site().read(|state| state.bond(site).heard == number)
}

async fn log(parts: Parts, mut comes: watch::Receiver<u64>, logs: watch::Sender<bool>) {
    while comes.changed().await.is_ok() {
        let number = *comes.borrow_and_update();
        // Who gives it again, as often as he likes, moves nothing.
        while !knows(&parts, number) {
            let operation = LinkOperation::HearBond { link: parts.link.number, number };
            match settled(submit(&parts, operation).await).await {
                Some(UnitResult::Done(_)) => break,
                Some(UnitResult::Refused(_)) => return parts.end(Ended::Redefined),
                None => time::sleep(PAUSE).await,
            }
        }
        // Whoever takes waits for nothing else.
        logs.send_replace(true);
        time::sleep(PAUSE).await;
    }
}
