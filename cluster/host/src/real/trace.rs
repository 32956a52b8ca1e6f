//! Events as lines of the log.

use crate::Observer;
use fulmar_types::Event;

/// Hands every event to `tracing`: what an operator wants to see at `info`, what happens per entry
/// at `trace`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn observe(&self, event: &Event) {
        match event {
            Event::Fatal { code, message } => {
                tracing::error!(code = code.code(), "{message}");
            }
            Event::PeerRefused { peer, reason } => {
                tracing::warn!(?peer, reason, "peer refused");
            }
            Event::Recovered { last, snapshot, cut_bytes } => {
                tracing::info!(?last, ?snapshot, cut_bytes, "recovered");
            }
            Event::Ready => tracing::info!("ready"),
            Event::RoleChanged { role, term, leader } => {
                tracing::info!(?role, %term, ?leader, "role changed");
            }
            // Somebody waits for it, and the level that is on by default is this one.
            Event::Rejoined => tracing::warn!("this node votes again"),
            Event::SnapshotInstalled { last, segments, .. } => {
                tracing::info!(%last, segments, "snapshot installed");
            }
            Event::VoteSaved { term, voted_for, committed } => {
                tracing::debug!(%term, %voted_for, committed, "vote saved");
            }
            Event::Truncated { from } => tracing::debug!(%from, "truncated"),
            Event::Purged { to } => tracing::debug!(%to, "purged"),
            Event::SnapshotSaved { last, state } => {
                tracing::debug!(%last, state = format_args!("{state:032x}"), "snapshot saved");
            }
            Event::SegmentSealed { base, last, hash } => {
                tracing::debug!(%base, %last, hash = format_args!("{hash:032x}"), "segment sealed");
            }
            Event::Probe(probe) => tracing::debug!(probe = probe.name(), "probe"),
            Event::Appended { .. }
            | Event::Flushed { .. }
            | Event::Applied { .. }
            | Event::QueueDepth { .. } => tracing::trace!(?event),
            // The vocabulary grows; an event that has no line of its own is still worth one.
            other => tracing::debug!(event = ?other),
        }
    }
}
