//! What a node counts about itself, written to a file for `fulmar bench` to read.
//!
//! ```text
//! flushes 1234
//! entries 5678
//! bytes 9012345
//! ```
//!
//! Invariant: the file is replaced whole, so a reader never sees half of it.

use fulmar_host::Observer;
use fulmar_host::real::TracingObserver;
use fulmar_host::time::{self, Duration};
use fulmar_types::Event;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often the file is replaced.
pub const REWRITE_EVERY: Duration = Duration::from_secs(1);

/// The names of the counters, in the order of the file.
pub const NAMES: [&str; 3] = ["flushes", "entries", "bytes"];

/// Counts flushes, and hands every event on to the log.
#[derive(Debug, Default)]
pub struct CountingObserver {
    counters: [AtomicU64; 3],
    tracing: TracingObserver,
}

impl Observer for CountingObserver {
    fn observe(&self, event: &Event) {
        if let Event::Flushed { entries, bytes, .. } = event {
            for (counter, more) in self.counters.iter().zip([1, u64::from(*entries), *bytes]) {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.tracing.observe(event);
    }
}

impl CountingObserver {
    fn text(&self) -> String {
        let values = self.counters.iter().map(|counter| counter.load(Ordering::Relaxed));
        NAMES.iter().zip(values).map(|(name, value)| format!("{name} {value}\n")).collect()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, self.text())?;
        fs::rename(&fresh, path)
    }
}

/// Rewrites the file for ever.
pub async fn keep_writing(observer: Arc<CountingObserver>, path: &Path) {
    loop {
        if let Err(error) = observer.write(path) {
            tracing::warn!(%error, path = %path.display(), "cannot write the counters");
        }
        time::sleep(REWRITE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::{LogIndex, LogPosition, Term};

    #[test]
    fn flushes_are_counted() {
        let observer = CountingObserver::default();
        let last = LogPosition { term: Term(1), index: LogIndex(2) };
        observer.observe(&Event::Flushed { last, entries: 3, bytes: 4096 });
        observer.observe(&Event::Flushed { last, entries: 1, bytes: 512 });
        observer.observe(&Event::Ready);
        assert_eq!(observer.text(), "flushes 2\nentries 4\nbytes 4608\n");
    }
}
