//! The consensus crate's group as the broker's handlers see it.

use crate::group::{GroupHandle, Leadership, ProposeError, Proposed, ReadError, ReadPoint};
use bytes::Bytes;
use fulmar_consensus::Group;
use fulmar_host::BoxFuture;
use fulmar_types::LogPosition;

impl GroupHandle for Group {
    fn propose(&self, payload: Bytes) -> BoxFuture<'static, Result<Proposed, ProposeError>> {
        let group = self.clone();
        Box::pin(async move { Group::propose(&group, payload).await })
    }

    fn wait_flushed(&self) -> BoxFuture<'static, ()> {
        let group = self.clone();
        Box::pin(async move { Group::wait_flushed(&group).await })
    }

    fn leadership(&self) -> Leadership {
        Group::leadership(self)
    }

    fn wait_leadership_change(&self, seen: Leadership) -> BoxFuture<'static, ()> {
        let group = self.clone();
        Box::pin(async move { Group::wait_leadership_change(&group, seen).await })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<ReadPoint, ReadError>> {
        let group = self.clone();
        Box::pin(async move { Group::read_barrier(&group).await })
    }

    fn applied(&self) -> Option<LogPosition> {
        Group::applied(self)
    }
}
