//! What can go wrong between a request and its answer.
//!
//! Invariant: [`CallError::may_have_happened`] is false only if the node cannot have carried out
//! the request. Everything that decides about a write rests on it.

use fulmar_types::NodeId;
use fulmar_wire::{ApiKey, DecodeError, EncodeError, ErrorCode};
use std::io;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The other side refused, or the network is down.
    #[error("cannot connect: {0}")]
    Io(io::ErrorKind),
    /// Nobody answered in time.
    #[error("no connection within the time for it")]
    TimedOut,
    /// The connection was closed during the handshake.
    #[error(
        "the connection was closed during the handshake; a site that speaks TLS with its clients does \
         that to whoever brings no --keys, or proves nothing (--as)"
    )]
    Closed,
    /// The answer to ApiVersions is an error.
    #[error("the node answered the handshake with {0}")]
    Refused(ErrorCode),
    /// The answer to ApiVersions is not one.
    #[error("the answer to the handshake is damaged: {0}")]
    Malformed(#[from] DecodeError),
    /// The name that the node advertises stands for no address.
    #[error("{0} cannot be found: there is no such name, or nobody who knows it answers")]
    Name(String),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to send it on.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The metadata knows no such node.
    #[error("no node {0} is known")]
    UnknownNode(NodeId),
    /// The node does not speak this API in any version that we speak.
    #[error("the node does not offer {0}")]
    NotOffered(ApiKey),
    /// The request has no form in the version that was negotiated.
    #[error("the request cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// It was never written to the connection, which broke or was too busy.
    #[error("the request was not sent")]
    NotSent,
    /// The connection broke after the request was sent.
    #[error("the connection broke before the answer came")]
    Lost,
    /// No answer came in time.
    #[error("no answer within the time for it")]
    TimedOut,
    /// The node stayed silent, and another one leads by now.
    #[error("the node gave no answer and leads no more")]
    LeaderMoved,
    /// The answer is damaged.
    #[error("the answer is damaged: {0}")]
    Malformed(#[from] DecodeError),
}

impl CallError {
    /// Whether the node may have carried out the request.
    pub const fn may_have_happened(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::UnknownNode(_)
            | Self::NotOffered(_)
            | Self::Encode(_)
            | Self::NotSent => false,
            Self::Lost | Self::TimedOut | Self::LeaderMoved | Self::Malformed(_) => true,
        }
    }

    /// Whether another attempt, with fresh metadata, may succeed.
    pub const fn is_retriable(&self) -> bool {
        !matches!(self, Self::NotOffered(_) | Self::Encode(_))
    }
}

/// Why no leader of a partition could be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaderError {
    /// No node answered a request for metadata before the deadline.
    #[error("no node of the site answered: {0}")]
    Unreachable(CallError),
    /// The nodes that answered know no leader.
    #[error("the site has no leader for the partition: {0}")]
    NoLeader(ErrorCode),
    /// The topic does not exist, or is not allowed to.
    #[error("the topic cannot be used: {0}")]
    Topic(ErrorCode),
    /// The topic has no such partition.
    #[error("the topic has no such partition")]
    NoPartition,
    /// The leader could not be connected to.
    #[error("the leader cannot be reached: {0}")]
    Leader(CallError),
}
