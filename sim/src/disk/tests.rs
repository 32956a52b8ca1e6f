//! What the disks keep, lose and do wrong.

use super::image::Image;
use super::names::{FileId, Names};
use super::{DiskConfig, DiskOp, PowerLoss, Rot, Trouble, any_file};
use crate::prng::Prng;
use crate::testing::{World, simulate};
use fulmar_host::disk::{File, Flush, Open, Write};
use fulmar_host::time::{Duration, now, sleep};
use fulmar_host::{Host, conformance, task};
use fulmar_types::limits::SECTOR_BYTES;
use madsim::task::NodeId;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const ALWAYS_TORN: PowerLoss =
    PowerLoss { torn_file_ppm: 1_000_000, torn_sector_ppm: 100_000, lost_name_ppm: 500_000 };
const NEVER_TORN: PowerLoss =
    PowerLoss { torn_file_ppm: 0, torn_sector_ppm: 1_000_000, lost_name_ppm: 1_000_000 };

async fn prepare(world: &World) -> (NodeId, Host) {
    let machine = world.machine(1);
    let host = world.machines.boot(machine);
    host.disk.create_dir(Path::new("/data")).await.unwrap();
    (machine, host)
}

async fn put(file: &Arc<dyn File>, at: u64, bytes: &[u8], flush: Flush) {
    file.write(vec![Write::one(at, bytes.to_vec())], flush).await.unwrap();
}

async fn durable_file(host: &Host, name: &str) -> Arc<dyn File> {
    let file = host.disk.open(&Path::new("/data").join(name), Open::New).await.unwrap();
    host.disk.sync_dir(Path::new("/data")).await.unwrap();
    file
}

fn contents(world: &World, machine: NodeId, name: &str) -> Option<Vec<u8>> {
    world.machines.disks().contents(machine, &Path::new("/data").join(name))
}

#[test]
fn the_disk_conforms() {
    for seed in 0..20 {
        simulate(seed, |world| async move {
            let host = world.machines.boot(world.machine(1));
            conformance::disk(&host, Path::new("/data")).await;
            conformance::disk(&host, Path::new("relative")).await;
        });
    }
}

/// openraft's own tests of a log store and a state machine, on this disk.
#[test]
fn the_log_store_and_the_state_machine_pass_the_suite_of_openraft() {
    for seed in 0..3 {
        let (ran, _) = simulate(seed, |world| async move {
            let host = world.machines.boot(world.machine(1));
            let number = AtomicU32::new(0);
            let directory =
                move || PathBuf::from(format!("/data/{}", number.fetch_add(1, Ordering::Relaxed)));
            fulmar_consensus::suite::run(host, directory).await
        });
        assert_eq!(ran, 45, "of seed {seed}");
    }
}

/// openraft's own tests of a runtime, on simulated time.
#[test]
fn the_runtime_passes_the_suite_of_openraft() {
    let ran = std::thread::spawn(fulmar_consensus::suite::run_runtime).join();
    assert!(ran.is_ok(), "the panic is above");
}

#[test]
fn what_was_flushed_survives_and_nothing_else_by_itself() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let config = DiskConfig { power_loss: NEVER_TORN, ..DiskConfig::default() };
        world.machines.disks().set_config(machine, config);
        let file = durable_file(&host, "log").await;
        put(&file, 0, &[1; 2_000], Flush::Data).await;
        put(&file, 2_000, &[2; 2_000], Flush::No).await;
        let lost = host.disk.open(Path::new("/data/lost"), Open::New).await.unwrap();
        put(&lost, 0, b"flushed, but without a durable name", Flush::Data).await;
        world.machines.power_cut(machine);
        assert_eq!(contents(&world, machine, "log"), Some(vec![1; 2_000]));
        assert_eq!(contents(&world, machine, "lost"), None);
        assert_eq!(world.machines.disks().counts(machine).lost_names, 1);
        assert!(file.read(0, 1).await.is_err(), "a handle dies with its process");
        let again = world.machines.boot(machine);
        let file = again.disk.open(Path::new("/data/log"), Open::Existing).await.unwrap();
        assert_eq!(file.len_bytes().await.unwrap(), 2_000);
    });
}

#[test]
fn the_end_of_a_process_loses_nothing_but_the_next_power_cut_does() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let config = DiskConfig { power_loss: NEVER_TORN, ..DiskConfig::default() };
        world.machines.disks().set_config(machine, config);
        let file = durable_file(&host, "log").await;
        put(&file, 0, b"unflushed", Flush::No).await;
        let lock = host.disk.lock(Path::new("/data")).await.unwrap();
        world.machines.crash(machine);
        assert_eq!(contents(&world, machine, "log").as_deref(), Some(&b"unflushed"[..]));
        sleep(Duration::from_millis(1)).await;
        let again = world.machines.boot(machine);
        let held = again.disk.lock(Path::new("/data")).await.unwrap();
        drop(lock);
        let refused = again.disk.lock(Path::new("/data")).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock, "a stale lock takes no other's along");
        drop(held);
        world.machines.power_cut(machine);
        assert_eq!(contents(&world, machine, "log").as_deref(), Some(&b""[..]));
    });
}

/// What became of every sector of a file in many power cuts.
#[test]
fn unflushed_sectors_are_old_new_or_garbage_independently() {
    let (mut old, mut new, mut garbage, mut mixed) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut prng = Prng::new(seed, "test");
        let mut image = Image::default();
        image.write(0, &[1; 16 * SECTOR_BYTES]);
        let flush = image.begin_flush();
        image.end_flush(flush);
        image.write(0, &[2; 16 * SECTOR_BYTES]);
        image.lose_power(&mut prng, &ALWAYS_TORN);
        assert!(image.is_clean());
        let kinds: Vec<u8> = image
            .live()
            .chunks(SECTOR_BYTES)
            .map(|sector| match sector[0] {
                byte @ (1 | 2) if sector.iter().all(|other| *other == byte) => byte,
                _ => 3,
            })
            .collect();
        assert_eq!(kinds.len(), 16, "the length was durable");
        old += kinds.iter().filter(|kind| **kind == 1).count();
        new += kinds.iter().filter(|kind| **kind == 2).count();
        garbage += kinds.iter().filter(|kind| **kind == 3).count();
        mixed += usize::from(kinds.contains(&1) && kinds.contains(&2));
    }
    // 6400 sectors; a tenth is garbage, of the rest 52 % are new.
    assert!((560..720).contains(&garbage), "{garbage}");
    assert!((2_400..3_500).contains(&old), "{old}");
    assert!((2_400..3_600).contains(&new), "{new}");
    assert!((150..250).contains(&mixed), "{mixed}: some cuts keep all, some nothing");
}

#[test]
fn a_write_endangers_the_flushed_neighbours_in_its_block_and_no_others() {
    const BLOCK: usize = fulmar_types::limits::BLOCK_BYTES;
    let (mut in_sector, mut in_block) = (0, 0);
    for seed in 0..200 {
        let mut prng = Prng::new(seed, "test");
        let mut image = Image::default();
        image.write(0, &[1; BLOCK + 700]);
        let flush = image.begin_flush();
        image.end_flush(flush);
        image.write(BLOCK as u64 + 700, &[2; 2_000]);
        image.lose_power(&mut prng, &ALWAYS_TORN);
        assert_eq!(image.live()[..BLOCK], [1; BLOCK], "a block that was not written is safe");
        in_block += usize::from(image.live()[BLOCK..][..512] != [1; 512]);
        in_sector += usize::from(image.live()[BLOCK..][512..700] != [1; 188]);
    }
    for damaged in [in_sector, in_block] {
        assert!((5..40).contains(&damaged), "{damaged} of about 20");
    }
}

#[test]
fn a_sector_that_is_written_again_as_it_is_has_no_older_version() {
    let model = PowerLoss { torn_sector_ppm: 0, ..ALWAYS_TORN };
    for seed in 0..100 {
        let mut image = Image::default();
        image.write(0, &[1; 1_024]);
        let flush = image.begin_flush();
        image.end_flush(flush);
        image.write(512, &[2; 512]);
        let _under_way = image.begin_flush();
        image.write(0, &[3; 512]);
        image.lose_power(&mut Prng::new(seed, "test"), &model);
        assert!(matches!(image.live()[0], 1 | 3) && matches!(image.live()[512], 1 | 2));
    }
}

#[test]
fn unflushed_lengths_may_or_may_not_survive() {
    let mut lengths = std::collections::BTreeMap::new();
    for seed in 0..300 {
        let mut prng = Prng::new(seed, "test");
        let mut image = Image::default();
        image.write(0, &[1; 1_000]);
        let flush = image.begin_flush();
        image.end_flush(flush);
        image.set_len(100);
        image.write(1_500, &[2; 500]);
        image.lose_power(&mut prng, &PowerLoss { torn_sector_ppm: 0, ..ALWAYS_TORN });
        *lengths.entry(image.len_bytes()).or_insert(0) += 1;
        assert!(image.live().len() >= 100 && image.live().len() <= 2_000);
        assert_eq!(image.live()[..100], [1; 100], "what was not touched");
    }
    assert!(lengths[&1_000] > 60 && lengths[&2_000] > 60 && lengths.len() > 20, "{lengths:?}");
}

#[test]
fn a_flush_covers_what_was_written_before_it_began() {
    for seed in 0..100 {
        let mut prng = Prng::new(seed, "test");
        let mut image = Image::default();
        image.write(0, &[1; 512]);
        let first = image.begin_flush();
        image.write(0, &[2; 512]);
        let second = image.begin_flush();
        image.write(0, &[3; 512]);
        image.write(512, &[3; 512]);
        // The second ends before the first, and covers it.
        image.end_flush(second);
        image.end_flush(first);
        assert!(!image.is_clean());
        let model = PowerLoss { torn_sector_ppm: 0, ..ALWAYS_TORN };
        image.lose_power(&mut prng, &model);
        assert!(matches!(image.live()[0], 2 | 3), "version 1 was replaced for good");
    }
}

#[test]
fn a_failed_flush_may_leave_dirty_pages_that_are_called_clean() {
    let mut image = Image::default();
    let next = fulmar_types::limits::BLOCK_BYTES;
    for block in [0, next as u64] {
        image.write(block, &[1; 512]);
    }
    let flush = image.begin_flush();
    image.end_flush(flush);
    for block in [0, next as u64] {
        image.write(block, &[2; 512]);
    }
    let failed = image.begin_flush();
    image.write(next as u64, &[3; 512]);
    image.fail_flush(failed, true);
    let fine = image.begin_flush();
    image.end_flush(fine);
    assert!(!image.is_clean());
    assert_eq!(image.live()[0], 2, "a read still sees what was written");
    image.lose_power(&mut Prng::new(1, "test"), &NEVER_TORN);
    assert_eq!(image.live()[0], 1, "the second flush succeeded and wrote nothing");
    assert_eq!(image.live()[next], 3, "what was written again was dirty again");

    image.write(0, &[4; 512]);
    let failed = image.begin_flush();
    image.fail_flush(failed, false);
    let fine = image.begin_flush();
    image.end_flush(fine);
    assert!(image.is_clean());
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_and_never_missing() {
    let (mut old, mut new, mut left) = (0, 0, 0);
    for seed in 0..200 {
        let mut prng = Prng::new(seed, "test");
        let mut names = Names::default();
        names.create_directory(Path::new("/d")).unwrap();
        names.create("/d/vote".into(), FileId(1)).unwrap();
        let end = names.begin_flush();
        names.end_flush(Path::new("/d"), end);
        names.create("/d/new".into(), FileId(2)).unwrap();
        names.rename("/d/new".into(), "/d/vote".into()).unwrap();
        names.lose_power(&mut prng, 500_000);
        match names.file(Path::new("/d/vote")).unwrap() {
            FileId(1) => old += 1,
            _ => new += 1,
        }
        left += usize::from(names.file(Path::new("/d/new")).is_ok());
    }
    assert!(old > 100 && new > 30, "{old} {new}");
    assert!(left > 20 && left < old, "{left}: the temporary file alone may survive");
}

#[test]
fn renames_survive_in_their_order_and_other_steps_by_themselves() {
    let mut gaps = 0;
    for seed in 0..300 {
        let mut prng = Prng::new(seed, "test");
        let mut names = Names::default();
        names.create_directory(Path::new("/d")).unwrap();
        let path = |kind: &str, number: u64| PathBuf::from(format!("/d/{kind}{number}"));
        for number in 0..4 {
            names.create(path("from", number), FileId(number)).unwrap();
        }
        let end = names.begin_flush();
        names.end_flush(Path::new("/d"), end);
        for number in 0..4 {
            names.rename(path("from", number), path("to", number)).unwrap();
            names.create(path("other", number), FileId(100 + number)).unwrap();
        }
        // A new file under the old name: it must not make the old file vanish.
        names.create(path("from", 0), FileId(200)).unwrap();
        names.lose_power(&mut prng, 300_000);
        let survived = |kind: &str| -> Vec<bool> {
            (0..4).map(|number| names.file(&path(kind, number)).is_ok()).collect()
        };
        let renamed = survived("to");
        assert!(renamed.is_sorted_by(|one, next| one >= next), "{renamed:?}");
        for (number, renamed) in (0..4).zip(&renamed) {
            let name = path(if *renamed { "to" } else { "from" }, number);
            assert_eq!(names.file(&name).unwrap(), FileId(number), "no file vanishes");
        }
        gaps += usize::from(!survived("other").is_sorted_by(|one, next| one >= next));
    }
    assert!(gaps > 100, "{gaps}: creations do not wait for one another");
}

#[test]
fn the_flush_of_a_directory_takes_along_what_its_steps_rest_on() {
    let mut names = Names::default();
    names.create_directory(Path::new("/a")).unwrap();
    names.create_directory(Path::new("/b")).unwrap();
    names.create("/a/x".into(), FileId(1)).unwrap();
    names.create("/a/y".into(), FileId(2)).unwrap();
    names.rename("/a/x".into(), "/b/x".into()).unwrap();
    let end = names.begin_flush();
    names.create("/b/late".into(), FileId(3)).unwrap();
    names.end_flush(Path::new("/b"), end);
    assert_eq!(names.lose_power(&mut Prng::new(1, "test"), 1_000_000), 2);
    assert_eq!(names.file(Path::new("/b/x")).unwrap(), FileId(1));
    assert!(names.file(Path::new("/a/x")).is_err());
    assert!(names.file(Path::new("/a/y")).is_err());
    assert!(names.file(Path::new("/b/late")).is_err());
}

#[test]
fn a_flush_under_way_at_the_power_cut_may_have_done_anything() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let (outcome, _) = simulate(seed, |world| async move {
            let (machine, host) = prepare(&world).await;
            let file = durable_file(&host, "log").await;
            put(&file, 0, &[1; 1_024], Flush::Data).await;
            let writer = task::spawn(async move {
                put(&file, 0, &[2; 1_024], Flush::Data).await;
            });
            sleep(Duration::from_micros(250)).await;
            world.machines.power_cut(machine);
            writer.abort();
            let bytes = contents(&world, machine, "log").unwrap();
            (bytes[0].min(3), bytes[512].min(3))
        });
        outcomes.insert(outcome);
    }
    for outcome in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        assert!(outcomes.contains(&outcome), "{outcome:?} of {outcomes:?}");
    }
}

#[test]
fn faults_fire_as_often_as_they_were_armed() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let disks = world.machines.disks();
        let file = durable_file(&host, "log").await;
        let other = durable_file(&host, "other").await;
        put(&file, 0, b"here", Flush::Data).await;
        let only_log = |path: &Path| path.ends_with("log");
        let met = disks.fail_next(machine, DiskOp::Read, 2, Arc::new(only_log));
        assert!(other.read(0, 4).await.is_ok());
        assert_eq!(disks.trouble(machine), Trouble::default());
        assert!(!met.load(Ordering::Relaxed));
        assert_eq!(file.read(0, 4).await.unwrap_err().raw_os_error(), Some(5));
        assert!(met.load(Ordering::Relaxed));
        assert_eq!(disks.trouble(machine), Trouble { read_failed: true, ..Trouble::default() });
        assert!(file.read(0, 4).await.is_err());
        assert_eq!(file.read(0, 4).await.unwrap(), "here");
        disks.fail_next(machine, DiskOp::Sync, 1, any_file());
        assert!(file.sync().await.is_err());
        assert!(file.sync().await.is_ok());
        disks.fail_next(machine, DiskOp::Sync, 1, any_file());
        assert!(host.disk.sync_dir(Path::new("/data")).await.is_err());
        disks.fail_next(machine, DiskOp::Write, 1, any_file());
        assert!(file.write(vec![Write::one(0, "x")], Flush::No).await.is_err());
        disks.fail_next(machine, DiskOp::Write, 1, any_file());
        disks.repair(machine);
        assert!(file.write(vec![Write::one(0, "x")], Flush::No).await.is_ok());
        assert_eq!(disks.counts(machine).errors, 5);
        assert!(disks.trouble(machine).flush_failed);
        disks.process_died(machine);
        assert_eq!(disks.trouble(machine), Trouble::default(), "the next process met nothing yet");
    });
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_space_back() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let config = DiskConfig { capacity_bytes: 64 << 10, ..DiskConfig::default() };
        world.machines.disks().set_config(machine, config);
        let free = async || host.disk.free_bytes(Path::new("/data")).await.unwrap();
        let file = durable_file(&host, "log").await;
        put(&file, 0, &[1; 60 << 10], Flush::Data).await;
        assert_eq!(free().await, 4 << 10);
        let full = file.write(vec![Write::one(60 << 10, vec![2; 8 << 10])], Flush::No).await;
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.len_bytes().await.unwrap(), 64 << 10);
        put(&file, 0, &[3; 60 << 10], Flush::Data).await;
        assert_eq!(free().await, 0, "what is overwritten takes no more space");
        file.set_len(10 << 10).await.unwrap();
        assert_eq!(free().await, 52 << 10);
        drop(file);
        host.disk.remove(Path::new("/data/log")).await.unwrap();
        host.disk.sync_dir(Path::new("/data")).await.unwrap();
        drop(durable_file(&host, "next").await);
        assert_eq!(free().await, 64 << 10);
        let sparse = durable_file(&host, "sparse").await;
        sparse.set_len(64 << 10).await.unwrap();
        assert_eq!(free().await, 64 << 10, "a hole takes no space, so it promises none");
    });
}

#[test]
fn a_slow_disk_is_slow() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let file = durable_file(&host, "log").await;
        let begun = now();
        file.sync().await.unwrap();
        assert!(now() - begun < Duration::from_millis(3));
        let slow = Duration::from_millis(100);
        let config = DiskConfig { slow_percent: 200, slow_sync: slow, ..DiskConfig::default() };
        world.machines.disks().set_config(machine, config);
        let begun = now();
        file.sync().await.unwrap();
        assert!(now() - begun > Duration::from_millis(200));
    });
}

#[test]
fn bits_rot_at_rest_where_they_were_flushed() {
    simulate(1, |world| async move {
        let (machine, host) = prepare(&world).await;
        let disks = world.machines.disks();
        let file = durable_file(&host, "log").await;
        put(&file, 0, &[0; 8_192], Flush::Data).await;
        put(&file, 4_096, &[0; 512], Flush::No).await;
        let rotten = disks.rot(machine, 3, Arc::new(|path: &Path| path.ends_with("log")), false);
        assert_eq!(rotten.len(), 3);
        assert!(rotten.iter().all(|rot| rot.at < 4_096), "not in a block under way: {rotten:?}");
        let bytes = file.read(0, 8_192).await.unwrap();
        assert!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>() > 0);
        assert!(disks.rot(machine, 1, Arc::new(|_: &Path| false), false).is_empty());
        put(&file, 0, &[1; 512], Flush::Data).await;
        let rotten = disks.rot(machine, 3, Arc::new(|path: &Path| path.ends_with("log")), true);
        assert!(rotten.iter().all(|rot| rot.at >= 512), "spares the last flush: {rotten:?}");
        let given = Rot { path: "/data/log".into(), at: 1_000, mask: 0x11 };
        assert!(disks.rot_at(machine, &given));
        assert_eq!(file.read(1_000, 1).await.unwrap().as_ref(), [0x11]);
        assert!(!disks.rot_at(machine, &Rot { at: 9_000, ..given }));
        world.machines.disks().wipe(machine);
        assert!(disks.files(machine).is_empty());
    });
}

#[test]
fn a_crash_can_come_in_the_middle_of_a_long_write() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let (length, _) = simulate(seed, |world| async move {
            let (machine, host) = prepare(&world).await;
            let file = durable_file(&host, "log").await;
            let writer = task::spawn(async move {
                put(&file, 0, &[1; 16 << 10], Flush::No).await;
            });
            sleep(Duration::from_micros(2)).await;
            world.machines.crash(machine);
            writer.abort();
            contents(&world, machine, "log").unwrap().len()
        });
        lengths.insert(length);
    }
    assert!(lengths.contains(&0) && lengths.len() > 1, "{lengths:?}");
    assert!(lengths.iter().all(|length| length % 4_096 == 0));
}
