//! What a planted bug shows or ships: batches that lie in the log and are not committed yet, as if
//! they were.

use crate::broker::Broker;
use fulmar_store::entry::{Entry, Operation};
use fulmar_store::{StoredBatch, StreamId};
use fulmar_types::{LogPosition, Offset};
use fulmar_wire::batch::BatchHeader;

impl Broker {
    /// The batches of a stream behind the last applied entry, with the offsets that they would get if
    /// all of it were committed; `next` is the first of these.
    pub async fn unapplied(
        &self,
        stream: StreamId,
        applied: Option<LogPosition>,
        mut next: Offset,
    ) -> Vec<StoredBatch> {
        let term = self.group.leadership().term;
        let mut batches = Vec::new();
        for payload in self.records.unapplied(applied).await {
            let Ok(entry) = Entry::decode(payload) else { continue };
            for operation in entry.units().flat_map(|unit| unit.operations().collect::<Vec<_>>()) {
                let Operation::Append { topic, partition, batch } = operation else { continue };
                let found = self.site.read(|s| s.topics().get(topic)?.stream(partition));
                let bytes = batch.bytes().clone();
                let Ok(header) = BatchHeader::read(&bytes) else { continue };
                if found == Some(stream) {
                    let records = u32::try_from(header.record_count).unwrap_or(0);
                    let base_offset = next;
                    next = next.plus(u64::from(records));
                    batches.push(StoredBatch { base_offset, term, records, bytes });
                }
            }
        }
        batches
    }
}
