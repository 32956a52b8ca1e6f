//! The broker's two ends on the consensus crate: its state machine is what the group drives, and
//! the group is what its handlers propose to.

use crate::group::{GroupHandle, Leadership, ProposeError, Proposed, ReadError, ReadPoint};
use crate::site::SiteMachine;
use bytes::Bytes;
use fulmar_consensus::{Applied, ApplyError, Group, Machine, RestoreError};
use fulmar_host::BoxFuture;
use fulmar_store::entry::EntryError;
use fulmar_store::{Section, StreamId};
use fulmar_types::{ExitCode, LogPosition, Offset};

impl Machine for SiteMachine {
    fn apply(&mut self, position: LogPosition, payload: &Bytes) -> Result<Applied, ApplyError> {
        SiteMachine::apply(self, position, payload).map_err(|error: EntryError| {
            let what = error.to_string();
            match error.exit_code() {
                ExitCode::UnknownEntry => ApplyError::UnknownOperation { position, what },
                _ => ApplyError::Malformed { position, what },
            }
        })
    }

    // Blank entries and memberships leave no mark on the state.
    fn pass(&mut self, _: LogPosition) {}

    fn snapshot(&self) -> Vec<Section> {
        self.state().snapshot()
    }

    fn restore(&mut self, _: LogPosition, sections: &[Section]) -> Result<(), RestoreError> {
        SiteMachine::restore(self, sections).map_err(|error| match error.exit_code() {
            ExitCode::UnknownEntry => RestoreError::UnknownSection(error.to_string()),
            _ => RestoreError::Malformed(error.to_string()),
        })
    }

    fn keeps_stream(&self, stream: StreamId) -> bool {
        self.state().keeps_stream(stream)
    }

    fn starts(&self) -> Vec<(StreamId, Offset)> {
        self.state().starts()
    }

    fn wall_ms(&self) -> u64 {
        self.state().entry_ms()
    }

    fn state_hash(&self) -> u128 {
        self.state().hash()
    }
}

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
