//! Links between sites: topics of one site copied to another, with their offsets.
//!
//! Each site has laid down its links ([`fulmar_types::link::LinkDefinition`]) and the rules by which
//! its topics may leave. Whichever node leads a site carries its links: it dials where the definition
//! names places, and waits to be dialled where it does not. Records flow both ways:
//!
//! ```text
//!  origin's leader                                   the other site's leader
//!  rules, stored batches                             links, mirrors
//!        |                                                 |
//!     source.rs   -- offer: what may go to your region --> target.rs
//!                 <-- take: partition, offset, tag --------
//!                 -- batch: offset, tag, bytes ----------> proposes it with its offset and tag
//!                 <-- has: offset, tag; room for more ----
//! ```
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | what is said, and how it is written |
//! | `frame.rs` | how messages lie in the byte stream of a connection |
//! | `greeting.rs` | who is there |
//! | `session.rs` | all connections of a link, from the first greeting to the end |
//! | `stripe.rs` | one connection |
//! | `outbox.rs`, `inbox.rs` | what goes over which of them, and what comes, in order again |
//! | `flow.rs`, `line.rs` | what is on its way over one of them, and over all together |
//! | `shares.rs`, `cap.rs` | who goes first, and how much goes |
//! | `source.rs`, `shipment.rs` | the side that gives, and one partition on its way |
//! | `target.rs` | the side that takes |
//! | `taker.rs` | which of the offered topics it takes |
//! | `links.rs` | which sessions there are to be |
//! | `bond` | by what a site finds out that it was put back |
//! | `policy`, `border` | what of a record a rule lets go, and under which rule a topic leaves |
//!
//! Invariants: a mirror is a prefix of its origin, apart from gaps that are noted; progress is the
//! next offset of the mirror and is committed with the records; only what is committed is shipped,
//! which in a site means flushed on a majority; a record of a topic goes to no region that no rule
//! names, and what decides that is the rule that stands when it is written to the connection.
//!
//! Never: merge two histories. Where tags differ the partition stops and says so.

mod bond;
mod border;
mod cap;
mod flow;
mod frame;
mod greeting;
mod inbox;
mod lapse;
mod line;
pub mod links;
mod message;
mod outbox;
pub mod policy;
mod quiet;
mod ration;
mod session;
mod shares;
mod shipment;
mod source;
mod stripe;
mod taker;
mod target;

pub use links::{LinkSettings, Links};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is kept under a lock. No holder of one leaves anything half done.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
