//! Connections over a line: how much of it they use, and that bytes stay what they are whatever
//! becomes of their packets.

use super::{Line, Link};
use crate::spread::Spread;
use crate::testing::{World, at, simulate};
use crate::trace::TraceDigest;
use fulmar_host::net::{Connection, Listener};
use fulmar_host::time::{Duration, sleep, timeout};
use fulmar_host::{Host, conformance};
use madsim::task::NodeId;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Bytes of the stream in a full packet, and with its headers.
const SEGMENT: f64 = 1_448.0;
const PACKET: f64 = 1_500.0;

/// A line of 300 ms there and back.
fn line(bits_per_s: u64, loss_ppm: u32) -> Link {
    Link {
        latency: Spread::from_micros(150_000, 150_000),
        loss_ppm,
        trunk: Some(1),
        line: Some(Line { bits_per_s, queue_ns: 200_000_000 }),
        ..Link::default()
    }
}

/// Two machines with a line between them.
struct Pair {
    world: World,
    one: NodeId,
    other: NodeId,
    near: Host,
    listener: Box<dyn Listener>,
}

impl Pair {
    async fn new(world: World, link: Link) -> Self {
        let (one, other) = (world.machine(1), world.machine(2));
        let (near, far) = (world.machines.boot(one), world.machines.boot(other));
        let listener = far.network.listen(at(2, 9092)).await.unwrap();
        let pair = Self { world, one, other, near, listener };
        pair.set(link);
        pair
    }

    fn set(&self, link: Link) {
        let network = self.world.machines.network();
        network.set_link(self.one, self.other, link);
        network.set_link(self.other, self.one, Link { trunk: Some(2), ..link });
    }

    async fn connect(&mut self) -> (Connection, Connection) {
        let near = self.near.network.connect(at(2, 9092)).await.unwrap();
        (near, self.listener.accept().await.unwrap())
    }

    /// A connection that is filled from one end and emptied at the other; counts what arrived.
    async fn bulk(&mut self) -> Arc<AtomicU64> {
        let (mut near, mut far) = self.connect().await;
        let arrived = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&arrived);
        drop(madsim::task::spawn(async move {
            while near.writer.write_all(&[7; 64 << 10]).await.is_ok() {}
        }));
        drop(madsim::task::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(bytes) = far.reader.read(&mut buffer).await {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }));
        arrived
    }
}

/// What some connections carry in a time, each, in bytes per second, when they have settled.
async fn rates(world: World, link: Link, flows: usize, seconds: u64) -> Vec<f64> {
    let mut pair = Pair::new(world, link).await;
    let mut counts = Vec::new();
    for _ in 0..flows {
        counts.push(pair.bulk().await);
        sleep(SECOND).await;
    }
    sleep(10 * SECOND).await;
    let now = |counts: &[Arc<AtomicU64>]| -> Vec<u64> {
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    };
    let before = now(&counts);
    sleep(Duration::from_secs(seconds)).await;
    let carried = now(&counts).into_iter().zip(before).map(|(now, before)| now - before);
    carried.map(|bytes| bytes as f64 / seconds as f64).collect()
}

fn rates_of(link: Link, flows: usize, seconds: u64) -> (Vec<f64>, TraceDigest) {
    simulate(3, move |world| rates(world, link, flows, seconds))
}

/// The share of a line that some connections use, of what full packets leave of it.
fn share(rates: &[f64], bits_per_s: u64) -> f64 {
    rates.iter().sum::<f64>() * 8.0 * PACKET / SEGMENT / bits_per_s as f64
}

/// What one connection carries by the formula of Mathis, Semke, Mahdavi and Ott (1997), in bytes per second.
fn mathis(round_trip_s: f64, loss: f64) -> f64 {
    SEGMENT / round_trip_s * (3.0f64 / 2.0).sqrt() / loss.sqrt()
}

#[test]
fn one_connection_fills_a_line_that_loses_nothing() {
    let (rates, _) = rates_of(line(2_000_000, 0), 1, 60);
    let share = share(&rates, 2_000_000);
    assert!((0.97..1.001).contains(&share), "{share}");
}

#[test]
fn loss_holds_one_connection_back_and_eight_carry_eight_times_as_much() {
    let formula = mathis(0.3, 0.02);
    let (alone, _) = rates_of(line(20_000_000, 20_000), 1, 300);
    let ratio = alone[0] / formula;
    assert!((0.7..1.3).contains(&ratio), "{ratio} of the formula");
    let (eight, _) = rates_of(line(20_000_000, 20_000), 8, 300);
    let times = eight.iter().sum::<f64>() / alone[0];
    assert!((6.8..9.2).contains(&times), "{times} times as much");
    // The same over a line that is too slow for eight.
    let (alone, _) = rates_of(line(2_000_000, 20_000), 1, 300);
    let used = share(&alone, 2_000_000);
    assert!((0.1..0.25).contains(&used), "{used}");
    let (eight, _) = rates_of(line(2_000_000, 20_000), 8, 300);
    let used = share(&eight, 2_000_000);
    assert!((0.85..0.981).contains(&used), "{used}");
}

#[test]
fn two_connections_share_a_line() {
    let (rates, _) = rates_of(line(2_000_000, 0), 2, 300);
    assert!(share(&rates, 2_000_000) > 0.97, "{rates:?}");
    let part = rates[0] / (rates[0] + rates[1]);
    assert!((0.35..0.65).contains(&part), "{part}");
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| simulate(seed, |world| rates(world, line(2_000_000, 20_000), 2, 20));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn a_line_conforms_whatever_it_loses() {
    simulate(1, |world| async move {
        let (one, other) = (world.machine(1), world.machine(2));
        let (client, server) = (world.machines.boot(one), world.machines.boot(other));
        let link = Link { latency: Spread::from_micros(500, 5_000), ..line(8_000_000, 50_000) };
        world.machines.network().set_default_link(link);
        conformance::network(&server, &client, at(2, 0)).await;
        assert!(world.machines.network().counts().resent > 100);
    });
}

/// What is sent here, by its place in the stream.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

#[test]
fn bytes_arrive_in_order_while_the_link_becomes_a_line_and_is_none_again() {
    simulate(1, |world| async move {
        let plain = Link { latency: Spread::from_micros(1_000, 40_000), ..Link::default() };
        let mut pair = Pair::new(world, plain).await;
        let (mut near, mut far) = pair.connect().await;
        drop(madsim::task::spawn(async move {
            for piece in 0..2_000usize {
                let bytes: Vec<u8> = (piece * 300..(piece + 1) * 300).map(byte_at).collect();
                near.writer.write_all(&bytes).await.unwrap();
                sleep(MS).await;
            }
            near.writer.shutdown().await.unwrap();
        }));
        let reading = madsim::task::spawn(async move {
            let mut all = Vec::new();
            far.reader.read_to_end(&mut all).await.unwrap();
            all
        });
        for round in 0..10u32 {
            sleep(200 * MS).await;
            let loss_ppm = 20_000 * (round % 3);
            pair.set(if round % 2 == 0 { line(4_000_000, loss_ppm) } else { plain });
        }
        let all = reading.await.unwrap();
        assert_eq!(all.len(), 600_000);
        assert!(all.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
    });
}

#[test]
fn a_writer_is_held_back_and_a_closed_window_opens_again() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world, line(50_000_000, 10_000)).await;
        let (mut near, mut far) = pair.connect().await;
        pair.world.machines.network().cut(pair.one, pair.other);
        let mut taken = 0;
        while let Ok(count) = timeout(SECOND, near.writer.write(&[1; 65_536])).await {
            taken += count.unwrap();
        }
        assert_eq!(taken, 20 * 1_448, "twice the first window");
        pair.world.machines.network().heal_all();
        // Nobody reads: the other end fills up, then this one.
        while let Ok(count) = timeout(60 * SECOND, near.writer.write(&[1; 65_536])).await {
            taken += count.unwrap();
        }
        assert!((4 << 20..9 << 20).contains(&taken), "{taken}");
        let writing = madsim::task::spawn(async move {
            near.writer.write_all(&[1; 1 << 20]).await.unwrap();
            near.writer.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        far.reader.read_to_end(&mut all).await.unwrap();
        writing.await.unwrap();
        assert_eq!(all.len(), taken + (1 << 20));
    });
}

#[test]
fn what_was_written_arrives_after_its_process_is_gone() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world, line(2_000_000, 100_000)).await;
        let (mut near, mut far) = pair.connect().await;
        near.writer.write_all(&[9; 20_000]).await.unwrap();
        pair.world.machines.crash(pair.one);
        let mut all = Vec::new();
        far.reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [9; 20_000]);
        drop(near);
    });
}

#[test]
fn a_line_that_is_cut_is_silent_and_then_given_up() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world, line(2_000_000, 0)).await;
        let (mut near, mut far) = pair.connect().await;
        near.writer.write_all(b"a").await.unwrap();
        let mut byte = [0];
        far.reader.read_exact(&mut byte).await.unwrap();
        let network = pair.world.machines.network();
        network.cut(pair.one, pair.other);
        near.writer.write_all(b"b").await.unwrap();
        assert!(timeout(20 * SECOND, far.reader.read_exact(&mut byte)).await.is_err());
        network.heal_all();
        // Nobody says that it has healed: tries come at doubling intervals.
        assert!(timeout(22 * SECOND, far.reader.read_exact(&mut byte)).await.is_ok());
        network.cut(pair.one, pair.other);
        near.writer.write_all(b"c").await.unwrap();
        // As long as Linux tries: some 15 minutes.
        let read = timeout(1_200 * SECOND, near.reader.read_exact(&mut byte)).await;
        assert_eq!(read.expect("given up").map_err(|e| e.kind()), Err(ErrorKind::TimedOut));
    });
}

#[test]
fn a_machine_without_power_answers_with_a_reset_when_it_is_back() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world, line(2_000_000, 0)).await;
        let (mut near, far) = pair.connect().await;
        pair.world.machines.power_cut(pair.other);
        near.writer.write_all(b"are you there?").await.unwrap();
        let mut byte = [0];
        assert!(timeout(5 * SECOND, near.reader.read_exact(&mut byte)).await.is_err());
        pair.world.machines.network().power_on(pair.other);
        let read = timeout(10 * SECOND, near.reader.read_exact(&mut byte)).await;
        assert_eq!(
            read.expect("answered").map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionReset)
        );
        drop(far);
    });
}

#[test]
fn a_full_queue_drops() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world, line(500_000, 0)).await;
        let _arrived = pair.bulk().await;
        sleep(30 * SECOND).await;
        assert!(pair.world.machines.network().counts().dropped > 0);
    });
}
