//! Events: persons, auctions and bids, 1 to 3 to 46.
//!
//! ```text
//! {"event_type":0,"date_time":ms,"person":{"id","name","email_address","credit_card","city","state","extra"}}
//! {"event_type":1,"date_time":ms,"auction":{"id","item_name","description","initial_bid","reserve","expires",
//!                                           "seller","category","extra"}}
//! {"event_type":2,"date_time":ms,"bid":{"auction","bidder","price","channel","url","extra"}}
//! ```

use bytes::Bytes;
use fulmar_wire::batch::BatchBuilder;
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;
use serde_json::json;

/// The time of the first event: 2026-01-01.
pub const BASE_TIME_MS: u64 = 1_767_225_600_000;

/// How many events a second of event time has, if nothing else is said.
pub const PER_SECOND: usize = 10_000;

/// Where events lie.
pub const TOPIC: &str = "nexmark";

/// Where the table of [`side_input`] lies.
pub const SIDE_INPUT: &str = "side_input";

/// Rows of that table.
const SIDE_ROWS: u64 = 10_000;

/// A batch takes no more records once it has so many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// The first events, so many to a second of event time.
pub fn events(count: usize, per_second: usize) -> impl Iterator<Item = Event> {
    let config = NexmarkConfig {
        base_time: BASE_TIME_MS,
        first_rate: per_second,
        next_rate: per_second,
        ..NexmarkConfig::default()
    };
    EventGenerator::new(config).take(count)
}

/// An event as a payload.
pub fn payload(event: &Event) -> String {
    let (number, name, body) = match event {
        Event::Person(of) => {
            let body = json!({
                "id": of.id, "name": of.name, "email_address": of.email_address,
                "credit_card": of.credit_card, "city": of.city, "state": of.state,
                "extra": of.extra,
            });
            (0, "person", body)
        }
        Event::Auction(of) => {
            let body = json!({
                "id": of.id, "item_name": of.item_name, "description": of.description,
                "initial_bid": of.initial_bid, "reserve": of.reserve, "expires": of.expires,
                "seller": of.seller, "category": of.category, "extra": of.extra,
            });
            (1, "auction", body)
        }
        Event::Bid(of) => {
            let body = json!({
                "auction": of.auction, "bidder": of.bidder, "price": of.price,
                "channel": of.channel, "url": of.url, "extra": of.extra,
            });
            (2, "bid", body)
        }
    };
    let at = event.timestamp();
    format!(r#"{{"event_type":{number},"date_time":{at},"{name}":{body}}}"#)
}

/// What [`payload`] says of the time of an event.
///
/// # Panics
/// If it is no such payload.
pub fn time_of(payload: &[u8]) -> u64 {
    // Behind `{"event_type":0,"date_time":`.
    let digits = payload[28..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |time, digit| time * 10 + u64::from(digit - b'0'))
}

/// The rows of the table that q13 joins.
pub fn side_input() -> impl Iterator<Item = String> {
    (0..SIDE_ROWS).map(|key| json!({ "key": key, "value": format!("value {key}") }).to_string())
}

/// A stored batch: its first offset, its bytes.
pub type Stored = (i64, Bytes);

/// Payloads as a producer would have batched them.
///
/// # Panics
/// If one is too long for a batch.
pub fn stored<'a>(from: i64, payloads: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<Stored> {
    let (mut batches, mut open, mut base) = (Vec::new(), BatchBuilder::new(), from);
    for (at_ms, payload) in payloads {
        if open.batch_bytes() >= BATCH_BYTES {
            let count = i64::from(open.record_count());
            let full = std::mem::take(&mut open).build().expect("it has records");
            batches.push((base, full));
            base += count;
        }
        let at_ms = i64::try_from(at_ms).expect("a time of this century");
        open.push(at_ms, None, Some(payload), &[]).expect("it is short");
    }
    batches.extend(open.build().map(|last| (base, last)));
    batches
}
