//! TLS over the sockets of this machine: who is on the other side is proved, and nobody in between
//! reads or changes what is said.
//!
//! | module | what |
//! |---|---|
//! | [`keys`] | certificates and keys, read from a directory |
//! | `network` | connecting and listening |
//! | `links` | the same between sites, where each has its own authority |
//! | `halves` | the two halves of a connection |
//! | `reason` | why one side does not trust the other, by name |
//! | `subject` | what a certificate calls its owner for people |
//!
//! Invariants: a certificate counts only if the authority of the site signed it (between sites: that
//! which the link pins), for the use it is put to, and its time has come and has not passed; every refusal is reported with its reason, by
//! the side that refuses and by the side that is refused; sessions are never resumed, so every
//! connection is judged anew.
//!
//! Never: look at the name in a certificate here. It is handed on, and who knows which node it wants
//! to speak to compares it.

mod halves;
pub mod keys;
mod links;
mod network;
mod reason;
mod subject;

#[cfg(test)]
mod tests;

pub use keys::{KeyFiles, KeysError, fingerprint};
pub use links::TlsLinks;
pub use network::{Asked, TlsNetwork};
