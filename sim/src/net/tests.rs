//! What the network does to connections, seen from both of their ends.

use super::{Line, Link};
use crate::spread::Spread;
use crate::testing::{World, at, simulate};
use fulmar_host::net::{BACKLOG, Connection, Listener};
use fulmar_host::time::{Duration, Instant, now, sleep, timeout};
use fulmar_host::{Host, conformance};
use madsim::task::NodeId;
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MS: Duration = Duration::from_millis(1);

/// Two machines with a connection between them.
struct Pair {
    world: World,
    one: NodeId,
    other: NodeId,
    /// Kept, for as long as it lives its port is taken.
    _listener: Box<dyn Listener>,
    near: Connection,
    far: Connection,
    near_host: Host,
}

impl Pair {
    async fn new(world: World) -> Self {
        let (one, other) = (world.machine(1), world.machine(2));
        let (near_host, far_host) = (world.machines.boot(one), world.machines.boot(other));
        let mut listener = far_host.network.listen(at(2, 9092)).await.unwrap();
        let near = near_host.network.connect(at(2, 9092)).await.unwrap();
        let far = listener.accept().await.unwrap();
        Self { world, one, other, _listener: listener, near, far, near_host }
    }

    fn cut(&self) {
        self.world.machines.network().cut(self.one, self.other);
        self.world.machines.network().cut(self.other, self.one);
    }

    fn heal(&self) {
        self.world.machines.network().heal(self.one, self.other);
        self.world.machines.network().heal(self.other, self.one);
    }

    async fn connect_again(&self) -> Result<(), ErrorKind> {
        match timeout(1_000 * MS, self.near_host.network.connect(at(2, 9092))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.kind()),
            Err(_) => Err(ErrorKind::TimedOut),
        }
    }
}

async fn read(connection: &mut Connection, patience: Duration) -> Result<Vec<u8>, ErrorKind> {
    let mut buffer = [0; 64];
    match timeout(patience, connection.reader.read(&mut buffer)).await {
        Ok(Ok(count)) => Ok(buffer[..count].to_vec()),
        Ok(Err(error)) => Err(error.kind()),
        Err(_) => Err(ErrorKind::TimedOut),
    }
}

async fn write(connection: &mut Connection, bytes: &[u8]) -> Result<(), ErrorKind> {
    connection.writer.write_all(bytes).await.map_err(|error| error.kind())
}

fn passed(since: Instant) -> Duration {
    now() - since
}

#[test]
fn the_network_conforms() {
    simulate(1, |world| async move {
        let (one, other) = (world.machine(1), world.machine(2));
        let (client, server) = (world.machines.boot(one), world.machines.boot(other));
        conformance::network(&server, &client, at(2, 0)).await;
        conformance::network(&server, &server, at(2, 0)).await;
        conformance::network(&server, &server, "127.0.0.1:0".parse().unwrap()).await;
    });
}

#[test]
fn the_network_conforms_under_loss() {
    simulate(1, |world| async move {
        let (one, other) = (world.machine(1), world.machine(2));
        let (client, server) = (world.machines.boot(one), world.machines.boot(other));
        let retransmit = Spread::from_micros(500, 5_000);
        let link = Link { loss_ppm: 100_000, retransmit, ..Link::default() };
        world.machines.network().set_default_link(link);
        conformance::network(&server, &client, at(2, 0)).await;
        assert!(world.machines.network().counts().resent > 100);
    });
}

#[test]
fn the_network_between_sites_conforms() {
    simulate(1, |world| async move {
        let (one, other) = (world.machine(1), world.machine(2));
        let (client, server) = (world.machines.boot(one), world.machines.boot(other));
        let (written, came) = conformance::links(&server, &client, at(2, 0)).await;
        assert!(came <= written, "{came} of {written}");
        conformance::links(&server, &server, at(2, 0)).await;
    });
}

#[test]
fn what_had_not_left_when_a_connection_ended_abruptly_never_comes() {
    for is_line in [false, true] {
        simulate(1, move |world| async move {
            let (one, other) = (world.machine(1), world.machine(2));
            let (client, server) = (world.machines.boot(one), world.machines.boot(other));
            if is_line {
                let line = Line { bits_per_s: 1_000_000, queue_ns: 100_000_000 };
                let link = Link { trunk: Some(1), line: Some(line), ..Link::default() };
                world.machines.network().set_link(one, other, link);
            }
            for is_abrupt in [false, true] {
                let mut listener = server.links.listen(at(2, 0)).await.unwrap();
                let to = listener.local_address();
                let mut near = client.links.connect(to).await.unwrap();
                let mut far = listener.accept().await.unwrap();
                write(&mut near, b"before").await.unwrap();
                assert_eq!(read(&mut far, 1_000 * MS).await.unwrap(), b"before");
                world.machines.network().cut(one, other);
                write(&mut near, b"meanwhile").await.unwrap();
                sleep(10 * MS).await;
                if is_abrupt {
                    near.abrupt.as_ref().unwrap().end_abruptly().unwrap();
                }
                drop(near);
                world.machines.network().heal(one, other);
                let came = read(&mut far, 5_000 * MS).await;
                if is_abrupt {
                    // The reset comes once the link has healed, or is lost with its packet.
                    let ends = [Err(ErrorKind::ConnectionReset), Err(ErrorKind::TimedOut)];
                    assert!(ends.contains(&came), "{came:?}");
                } else {
                    assert_eq!(came, Ok(b"meanwhile".to_vec()));
                }
            }
        });
    }
}

#[test]
fn bytes_wait_for_the_healing_of_a_cut() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        // Under way when the cut begins: lost, and sent again.
        write(&mut pair.near, b"a").await.unwrap();
        pair.cut();
        let cut_at = now();
        write(&mut pair.near, b"b").await.unwrap();
        assert_eq!(read(&mut pair.far, 5_000 * MS).await, Err(ErrorKind::TimedOut));
        assert_eq!(pair.connect_again().await, Err(ErrorKind::TimedOut));
        pair.heal();
        write(&mut pair.near, b"c").await.unwrap();
        let mut all = [0; 3];
        pair.far.reader.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"abc");
        // The sender doubles its pauses from 200..300 ms on; it does not know of the healing.
        assert!((6_000 * MS..14_000 * MS).contains(&passed(cut_at)), "{:?}", passed(cut_at));
        assert_eq!(pair.connect_again().await, Ok(()));
    });
}

#[test]
fn cuts_are_counted() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.cut();
        pair.cut();
        pair.heal();
        write(&mut pair.near, b"a").await.unwrap();
        assert_eq!(read(&mut pair.far, 1_000 * MS).await, Err(ErrorKind::TimedOut));
        assert!(pair.world.machines.network().is_cut(pair.one, pair.other));
        pair.world.machines.network().heal_all();
        assert_eq!(read(&mut pair.far, 9_000 * MS).await.as_deref(), Ok(&b"a"[..]));
        pair.heal();
        assert!(!pair.world.machines.network().is_cut(pair.one, pair.other));
    });
}

#[test]
fn a_cut_one_way_leaves_the_other_way_open() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.network().cut(pair.one, pair.other);
        write(&mut pair.near, b"lost").await.unwrap();
        write(&mut pair.far, b"seen").await.unwrap();
        assert_eq!(read(&mut pair.near, 100 * MS).await.as_deref(), Ok(&b"seen"[..]));
        assert_eq!(read(&mut pair.far, 3_000 * MS).await, Err(ErrorKind::TimedOut));
        pair.world.machines.network().heal(pair.one, pair.other);
        assert_eq!(read(&mut pair.far, 9_000 * MS).await.as_deref(), Ok(&b"lost"[..]));

        pair.world.machines.network().cut(pair.other, pair.one);
        assert_eq!(pair.connect_again().await, Err(ErrorKind::TimedOut), "no answer gets back");
        // Bytes pass, but what was read is not confirmed: the window closes.
        let mut sent = 0;
        while let Ok(Ok(count)) = timeout(100 * MS, pair.near.writer.write(&[0; 65_536])).await {
            sent += count;
            let _ = timeout(10 * MS, pair.far.reader.read_exact(&mut vec![0; count])).await;
        }
        assert_eq!(sent, (256 << 10) - "lost".len());
    });
}

#[test]
fn wishes_that_nobody_confirms_are_forgotten() {
    simulate(1, |world| async move {
        let pair = Pair::new(world).await;
        pair.world.machines.network().cut(pair.other, pair.one);
        for _ in 0..BACKLOG {
            let wish = pair.near_host.network.connect(at(2, 9092));
            assert!(timeout(6 * MS, wish).await.is_err(), "the answer does not come back");
        }
        pair.world.machines.network().heal(pair.other, pair.one);
        assert_eq!(
            pair.connect_again().await,
            Err(ErrorKind::ConnectionRefused),
            "the backlog is full"
        );
        sleep(63_000 * MS).await;
        assert_eq!(pair.connect_again().await, Ok(()));
    });
}

#[test]
fn a_reset_breaks_both_ends() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        write(&mut pair.near, b"read before the reset").await.unwrap();
        sleep(100 * MS).await;
        assert_eq!(pair.world.machines.network().reset(pair.one, pair.other), 2);
        assert!(read(&mut pair.far, MS).await.is_ok());
        for end in [&mut pair.near, &mut pair.far] {
            assert_eq!(read(end, MS).await, Err(ErrorKind::ConnectionReset));
            assert_eq!(write(end, b"x").await, Err(ErrorKind::ConnectionReset));
        }
        assert_eq!(pair.connect_again().await, Ok(()));
        assert_eq!(pair.world.machines.network().counts().resets, 2);
    });
}

#[test]
fn refusals_are_counted_and_leave_open_connections_alone() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.network().refuse(pair.one, pair.other);
        assert_eq!(pair.world.machines.network().turned_away(pair.one, pair.other), 0);
        assert_eq!(pair.connect_again().await, Err(ErrorKind::ConnectionRefused));
        write(&mut pair.near, b"on").await.unwrap();
        assert!(read(&mut pair.far, 100 * MS).await.is_ok());
        pair.world.machines.network().allow(pair.one, pair.other);
        assert_eq!(pair.connect_again().await, Ok(()));
        assert_eq!(pair.world.machines.network().counts().refused, 1);
        assert_eq!(pair.world.machines.network().turned_away(pair.one, pair.other), 1);
        assert_eq!(pair.world.machines.network().turned_away(pair.other, pair.one), 0);
        let nobody = pair.near_host.network.connect(at(99, 1));
        assert!(timeout(60_000 * MS, nobody).await.is_err(), "no machine, no answer");
    });
}

#[test]
fn the_system_of_a_dead_process_closes_its_connections() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        write(&mut pair.far, b"last words").await.unwrap();
        pair.world.machines.crash(pair.other);
        assert_eq!(read(&mut pair.near, 100 * MS).await.as_deref(), Ok(&b"last words"[..]));
        assert_eq!(read(&mut pair.near, 100 * MS).await.as_deref(), Ok(&b""[..]));
        assert_eq!(pair.connect_again().await, Err(ErrorKind::ConnectionRefused));
        write(&mut pair.near, b"anybody?").await.unwrap();
        sleep(100 * MS).await;
        assert_eq!(write(&mut pair.near, b"anybody?").await, Err(ErrorKind::BrokenPipe));
        assert_eq!(write(&mut pair.far, b"x").await, Err(ErrorKind::ConnectionAborted), "stale");
    });
    simulate(2, |world| async move {
        let mut pair = Pair::new(world).await;
        write(&mut pair.near, b"unread").await.unwrap();
        sleep(100 * MS).await;
        pair.world.machines.crash(pair.other);
        assert_eq!(read(&mut pair.near, 100 * MS).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_power_cut_leaves_the_survivor_in_the_dark() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.power_cut(pair.other);
        assert_eq!(read(&mut pair.near, 60_000 * MS).await, Err(ErrorKind::TimedOut));
        assert_eq!(pair.connect_again().await, Err(ErrorKind::TimedOut));
        sleep(MS).await;
        let _host = pair.world.machines.boot(pair.other);
        assert_eq!(read(&mut pair.near, 60_000 * MS).await, Err(ErrorKind::TimedOut));
        assert_eq!(pair.connect_again().await, Err(ErrorKind::ConnectionRefused));
        write(&mut pair.near, b"are you there?").await.unwrap();
        assert_eq!(read(&mut pair.near, 100 * MS).await, Err(ErrorKind::ConnectionReset));
        drop(pair.far);
    });
}

#[test]
fn what_was_sent_to_a_machine_without_power_is_answered_when_it_is_back() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.power_cut(pair.other);
        write(&mut pair.near, b"are you there?").await.unwrap();
        assert_eq!(read(&mut pair.near, 5_000 * MS).await, Err(ErrorKind::TimedOut));
        pair.world.machines.network().power_on(pair.other);
        assert_eq!(read(&mut pair.near, 9_000 * MS).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn what_a_machine_had_to_send_again_dies_with_its_power() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.network().cut(pair.other, pair.one);
        write(&mut pair.far, b"never").await.unwrap();
        sleep(100 * MS).await;
        pair.world.machines.power_cut(pair.other);
        pair.world.machines.network().heal_all();
        assert_eq!(read(&mut pair.near, 60_000 * MS).await, Err(ErrorKind::TimedOut));
    });
}

#[test]
fn a_forgotten_connection_is_half_open() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        assert_eq!(pair.world.machines.network().forget(pair.other, pair.one), 1);
        assert_eq!(read(&mut pair.far, MS).await, Err(ErrorKind::ConnectionAborted));
        assert_eq!(read(&mut pair.near, 60_000 * MS).await, Err(ErrorKind::TimedOut));
        write(&mut pair.near, b"still there?").await.unwrap();
        assert_eq!(read(&mut pair.near, 100 * MS).await, Err(ErrorKind::ConnectionReset));
    });
    simulate(2, |world| async move {
        let mut pair = Pair::new(world).await;
        pair.world.machines.network().forget(pair.other, pair.one);
        drop(pair.far);
        write(&mut pair.near, b"still there?").await.unwrap();
        assert_eq!(read(&mut pair.near, 100 * MS).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn links_have_their_own_latency_each_way() {
    simulate(1, |world| async move {
        let mut pair = Pair::new(world).await;
        let network = pair.world.machines.network();
        let slow = Link { latency: Spread::from_micros(50_000, 60_000), ..Link::default() };
        network.set_link(pair.one, pair.other, slow);
        assert_eq!(network.link(pair.one, pair.other), slow);
        let begun = now();
        write(&mut pair.near, b"slow").await.unwrap();
        read(&mut pair.far, 1_000 * MS).await.unwrap();
        assert!((50 * MS..61 * MS).contains(&passed(begun)), "{:?}", passed(begun));
        let begun = now();
        write(&mut pair.far, b"fast").await.unwrap();
        read(&mut pair.near, 1_000 * MS).await.unwrap();
        assert!(passed(begun) < MS, "{:?}", passed(begun));
    });
}

#[test]
fn a_given_up_connection_leaves_nothing_behind() {
    simulate(1, |world| async move {
        let (one, other) = (world.machine(1), world.machine(2));
        let (near, far) = (world.machines.boot(one), world.machines.boot(other));
        let mut listener = far.network.listen(at(2, 9092)).await.unwrap();
        let slow = Link { latency: Spread::from_micros(50_000, 50_000), ..Link::default() };
        world.machines.network().set_default_link(slow);
        assert!(timeout(60 * MS, near.network.connect(at(2, 9092))).await.is_err());
        let accepted = timeout(1_000 * MS, listener.accept()).await;
        assert!(accepted.is_err(), "the accepting end was told before anybody accepted it");
    });
}

#[test]
fn one_connection_is_held_up_and_the_other_goes_on() {
    simulate(5, |world| async move {
        let mut pair = Pair::new(world).await;
        let mut near = pair.near_host.network.connect(at(2, 9092)).await.unwrap();
        let mut far = pair._listener.accept().await.unwrap();
        let network = pair.world.machines.network();
        let held = network.stall_one(&[(pair.one, pair.other)], 5_000 * MS);
        let (held_up, goes_on) = match held {
            Some(1) => ((&mut pair.near, &mut pair.far), (&mut near, &mut far)),
            other => {
                assert_eq!(other, Some(2));
                ((&mut near, &mut far), (&mut pair.near, &mut pair.far))
            }
        };
        let began = now();
        write(held_up.0, b"later").await.unwrap();
        write(goes_on.0, b"soon").await.unwrap();
        assert_eq!(read(goes_on.1, 1_000 * MS).await, Ok(b"soon".to_vec()));
        assert_eq!(read(held_up.1, 10_000 * MS).await, Ok(b"later".to_vec()));
        assert!((5_000 * MS..7_000 * MS).contains(&passed(began)));
    });
}
