//! The state of a pipeline as a list of names and values, for `fulmar pipeline status`.
//!
//! ```text
//! owner              the node that runs it, or -
//! fence              the number of its claim
//! epoch, age-ms      the last epoch, and the age of the site at its end
//! delta-epoch        the epoch up to which its state is in the log
//! site-age-ms        how old the site is now
//! failed             why it cannot go on
//! facts              what its owner said with the last epoch, in hexadecimal
//! input/T/P          "next end missed ms": the offset that is read next, that of the next record, records
//!                    that were gone before they were read, and how long ago the oldest that waits came
//! letters/T/P        "next until": where dead letters are read next that are put through again, and up to
//!                    where; of those that are not through
//! truncated          there is more than one answer holds
//! ```
//!
//! What the facts mean is known to whoever runs pipelines, and not here.

use crate::broker::Broker;
use crate::limits::LINK_STATUS_VALUES_MAX;
use crate::machine::pipelines::Run;
use crate::machine::state::State;
use fulmar_store::StreamId;
use fulmar_types::Offset;
use std::fmt::Write;

type Values = Vec<(String, String)>;

/// The state of a pipeline, if there is one of the name.
pub(super) fn values(broker: &Broker, name: &str) -> Option<Values> {
    let age_ms = broker.age_ms();
    broker.site.read(|state| {
        let mut values = of_run(state.run(name)?);
        values.push(("site-age-ms".to_owned(), age_ms.to_string()));
        let mut facts = String::new();
        for byte in state.facts(name).into_iter().flatten() {
            let _ = write!(facts, "{byte:02x}");
        }
        values.push(("facts".to_owned(), facts));
        for input in state.inputs(name).unwrap_or_default() {
            if values.len() >= LINK_STATUS_VALUES_MAX - 1 {
                values.push(("truncated".to_owned(), "true".to_owned()));
                break;
            }
            let (next, missed) = (input.position.next, input.position.missed);
            let Some(known) = state.partition(input.stream) else { continue };
            let behind_ms = match next < known.next {
                true => waits_ms(state, input.stream, next.max(known.log_start), age_ms),
                false => 0,
            };
            let of = format!("input/{}/{}", input.topic.name, input.partition);
            values.push((of, format!("{next} {} {missed} {behind_ms}", known.next)));
        }
        for of in state.letters(name) {
            let (next, until) = (of.letters.next, of.letters.until);
            if next < until && values.len() < LINK_STATUS_VALUES_MAX {
                let name = format!("letters/{}/{}", of.topic.name, of.partition);
                values.push((name, format!("{next} {until}")));
            }
        }
        Some(values)
    })
}

fn of_run(run: &Run) -> Values {
    let owner = run.owner.map_or_else(|| "-".to_owned(), |node| node.to_string());
    let mut values = vec![
        ("owner", owner),
        ("fence", run.fence.to_string()),
        ("epoch", run.epoch.to_string()),
        ("age-ms", run.age_ms.to_string()),
        ("delta-epoch", run.delta_epoch.to_string()),
    ];
    values.extend(run.failed.clone().map(|failed| ("failed", failed)));
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How long ago the record at an offset came, at most.
fn waits_ms(state: &State, stream: StreamId, at: Offset, age_ms: u64) -> u64 {
    let span = state.spans(stream).rev().find(|span| span.first <= at);
    span.map_or(0, |span| age_ms.saturating_sub(span.first_age_ms))
}
