//! What the queries must give, from the events themselves: everything is held in memory, windows are looked for
//! one after the other, and nothing is known of watermarks, since nothing comes late.

use nexmark::event::{Bid, Event};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000;

/// Rows, each as JSON with its members in the order of their names, sorted.
pub type Rows = Vec<String>;

/// What a query gives over events.
///
/// # Panics
/// If there is no such query.
pub fn rows(query: &str, events: &[Event]) -> Rows {
    let bids: Vec<&Bid> = events.iter().filter_map(bid).collect();
    let rows: Vec<Value> = match query {
        "q0" => bids.iter().map(|bid| whole(bid, bid.price.to_string())).collect(),
        "q1" => bids.iter().map(|bid| whole(bid, in_dollars(bid.price))).collect(),
        "q2" => {
            let some = bids.iter().filter(|bid| bid.auction % 123 == 0);
            some.map(|bid| json!({ "auction": bid.auction, "price": bid.price })).collect()
        }
        "q5" => hot_items(&bids),
        "q7" => highest(&bids),
        "q8" => new_sellers(events),
        "q11" => sessions(&bids),
        "q13" => bids.iter().map(|bid| beside_table(bid)).collect(),
        other => panic!("there is no query {other}"),
    };
    let mut rows: Rows = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

fn bid(event: &Event) -> Option<&Bid> {
    if let Event::Bid(bid) = event { Some(bid) } else { None }
}

/// 0.908 of a price, to the last digit.
fn in_dollars(price: usize) -> String {
    let thousandths = price * 908;
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

fn number(text: &str) -> Value {
    serde_json::from_str(text).expect("digits are a number")
}

fn whole(bid: &Bid, price: String) -> Value {
    json!({
        "auction": bid.auction, "bidder": bid.bidder, "price": number(&price),
        "date_time": bid.date_time, "extra": bid.extra,
    })
}

fn beside_table(bid: &Bid) -> Value {
    json!({
        "auction": bid.auction, "bidder": bid.bidder, "price": bid.price,
        "date_time": bid.date_time, "value": format!("value {}", bid.auction % 10_000),
    })
}

/// A time as it is written, without a library of ours.
fn shown(ms: u64) -> String {
    // All events lie within January 2026.
    let since = ms - super::events::BASE_TIME_MS;
    let (day, second) = (since / 86_400_000 + 1, since / SECOND % 86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since % SECOND)
}

fn shown_or_before(ms: u64) -> String {
    let base = super::events::BASE_TIME_MS;
    if ms >= base {
        return shown(ms);
    }
    let second = 60 - (base - ms) / SECOND;
    format!("2025-12-31T23:59:{second:02}.000Z")
}

fn hot_items(bids: &[&Bid]) -> Vec<Value> {
    let (slide, size) = (2 * SECOND, 10 * SECOND);
    let mut rows = Vec::new();
    let (Some(first), Some(last)) = (bids.first(), bids.last()) else { return rows };
    let mut end = first.date_time / slide * slide + slide;
    while end - size <= last.date_time {
        let start = end - size;
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for bid in bids.iter().filter(|bid| (start..end).contains(&bid.date_time)) {
            *counts.entry(bid.auction).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        for (auction, num) in counts.into_iter().filter(|(_, num)| *num == most) {
            let (window_start, window_end) = (shown_or_before(start), shown(end));
            rows.push(json!({
                "auction": auction, "num": num,
                "window_start": window_start, "window_end": window_end,
            }));
        }
        end += slide;
    }
    rows
}

fn highest(bids: &[&Bid]) -> Vec<Value> {
    let window = |bid: &Bid| bid.date_time / (10 * SECOND);
    let mut prices: BTreeMap<u64, usize> = BTreeMap::new();
    for bid in bids {
        let highest = prices.entry(window(bid)).or_default();
        *highest = bid.price.max(*highest);
    }
    let are_highest = bids.iter().filter(|bid| prices[&window(bid)] == bid.price);
    are_highest.map(|bid| whole(bid, bid.price.to_string())).collect()
}

fn new_sellers(events: &[Event]) -> Vec<Value> {
    let window = |at_ms: u64| at_ms / (10 * SECOND);
    let mut sellers: BTreeSet<(u64, usize)> = BTreeSet::new();
    for event in events {
        if let Event::Auction(auction) = event {
            sellers.insert((window(auction.date_time), auction.seller));
        }
    }
    let person = |event: &Event| {
        let Event::Person(person) = event else { return None };
        let window = window(person.date_time);
        sellers.contains(&(window, person.id)).then(|| {
            let start = shown(window * 10 * SECOND);
            json!({ "id": person.id, "name": person.name, "window_start": start })
        })
    };
    events.iter().filter_map(person).collect()
}

fn sessions(bids: &[&Bid]) -> Vec<Value> {
    let mut times: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for bid in bids {
        times.entry(bid.bidder).or_default().push(bid.date_time);
    }
    let mut rows = Vec::new();
    for (bidder, times) in times {
        let is_same = |one: &u64, next: &u64| next - one <= 10 * SECOND;
        for session in times.chunk_by(is_same) {
            let (first, last) = (session[0], session[session.len() - 1]);
            rows.push(json!({
                "bidder": bidder, "bid_count": session.len(),
                "window_start": shown(first), "window_end": shown(last + 10 * SECOND),
            }));
        }
    }
    rows
}
