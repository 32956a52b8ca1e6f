//! The records of all partitions, out of the store of this node.

use crate::group::{Records, RecordsError};
use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_store::{EntryKind, Poisoned, Row, Store, StoredBatch, StreamId};
use fulmar_types::limits::APPEND_MESSAGE_TARGET_BYTES;
use fulmar_types::{LogIndex, LogPosition, Offset};
use std::ops::Range;
use std::sync::Arc;

impl From<Poisoned> for RecordsError {
    fn from(_: Poisoned) -> Self {
        Self
    }
}

/// A store as a source of records.
pub struct StoredRecords(pub Arc<Store>);

impl Records for StoredRecords {
    fn read(
        &self,
        stream: StreamId,
        range: Range<Offset>,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredBatch>, RecordsError>> {
        let store = self.0.clone();
        Box::pin(async move { Ok(store.read_stream(stream, range, max_bytes).await?) })
    }

    fn by_timestamp(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Row>, RecordsError>> {
        let store = self.0.clone();
        Box::pin(async move { Ok(store.row_by_timestamp(stream, timestamp_ms).await?) })
    }

    fn unapplied(&self, applied: Option<LogPosition>) -> BoxFuture<'static, Vec<Bytes>> {
        let store = self.0.clone();
        Box::pin(async move {
            let from = applied.map_or(LogIndex(0), |applied| applied.index.next());
            let end = store.last().map_or(LogIndex(0), |last| last.index.next());
            let entries = store.entries(from..end, APPEND_MESSAGE_TARGET_BYTES).await;
            let normal = entries.unwrap_or_default().into_iter();
            normal.filter(|e| e.kind == EntryKind::Normal).map(|e| e.payload).collect()
        })
    }
}
