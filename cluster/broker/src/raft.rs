//! The consensus crate's group as the broker's handlers see it.

use crate::group::{
    Answerer, AskError, GroupHandle, Leadership, NodeSeen, ProposeError, Proposed, ReadError,
    ReadPoint,
};
use bytes::Bytes;
use fulmar_consensus::Group;
use fulmar_host::BoxFuture;
use fulmar_host::time::Instant;
use fulmar_types::{LogIndex, LogPosition};
use std::sync::Arc;
use std::time::Duration;

impl GroupHandle for Group {
    fn propose(&self, payload: Bytes) -> BoxFuture<'static, Result<Proposed, ProposeError>> {
        let group = self.clone();
        Box::pin(async move { Group::propose(&group, payload).await })
    }

    fn takes_records(&self) -> bool {
        Group::takes_records(self, 0)
    }

    fn room_for(&self, payload_bytes: usize, has_records: bool) -> BoxFuture<'static, bool> {
        let group = self.clone();
        Box::pin(async move { Group::room_for(&group, payload_bytes, has_records).await })
    }

    fn log_end(&self) -> LogIndex {
        self.store().last().map_or(LogIndex(0), |last| last.index.next())
    }

    fn wait_flushed(&self, through: LogIndex) -> BoxFuture<'static, ()> {
        let store = self.store().clone();
        Box::pin(async move {
            let mut flushed = store.flushed();
            while flushed.is_none_or(|flushed| flushed.index < through) {
                match store.flush_progress(flushed).await {
                    Ok(progress) => flushed = Some(progress),
                    // A store that is closed ends the process.
                    Err(_) => return,
                }
            }
        })
    }

    fn leadership(&self) -> Leadership {
        Group::leadership(self)
    }

    fn lease_until(&self) -> Option<Instant> {
        Group::lease_until(self)
    }

    fn wait_leadership_change(&self, seen: Leadership) -> BoxFuture<'static, ()> {
        let group = self.clone();
        Box::pin(async move { Group::wait_leadership_change(&group, seen).await })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<ReadPoint, ReadError>> {
        let group = self.clone();
        Box::pin(async move { Group::read_barrier(&group).await })
    }

    fn alive(&self) -> Vec<NodeSeen> {
        Group::alive(self)
    }

    fn ask_leader(
        &self,
        question: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, AskError>> {
        let group = self.clone();
        Box::pin(async move { Group::ask_leader(&group, question, patience).await })
    }

    fn answer_with(&self, answerer: Arc<dyn Answerer>) {
        Group::answer_with(self, answerer);
    }

    fn applied(&self) -> Option<LogPosition> {
        Group::applied(self)
    }

    fn has_caught_up(&self) -> bool {
        Group::has_caught_up(self)
    }
}
