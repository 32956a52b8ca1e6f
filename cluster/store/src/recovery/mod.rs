//! From a directory to a log that can be trusted.
//!
//! [`table`] decides, [`scan`] looks, and this file drives them: it reads everything, asks the
//! table, and only then changes what the table allows: wipes a torn tail, repairs a vote slot,
//! finishes an interrupted installation or removal.
//!
//! Invariants: nothing is changed before everything was judged, so a node that stops leaves its
//! files as it found them (an installation that was already decided excepted). What was read is
//! flushed before it is trusted, because after a crash of the process alone it may only be in the
//! page cache.

pub(crate) mod scan;
mod sealed;
pub(crate) mod table;
mod tail;

pub(crate) use sealed::{SealedSegment, follows, open_sealed};

use crate::error::{Damage, DiskError, OpenError};
use crate::files::{
    forget_cached, open_if_there, read_around, read_small, remove_if_there, sync_dir,
};
use crate::format::identity::{IDENTITY_BYTES_MAX, Identity};
use crate::format::life::{LIFE_BYTES_MAX, Life};
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::format::vote::{VOTE_FILE_BYTES, VOTE_SLOTS_AT, VoteSlot};
use crate::install;
use crate::log::OpenLog;
use crate::paths::{Name, Paths, name_of};
use crate::snapshot::Snapshots;
use crate::store::StoreSettings;
use crate::writer::OpenFile;
use fulmar_host::Host;
use fulmar_host::disk::{File, Flush, Open, Write};
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, LogPosition, Probe};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use table::{DirectoryVerdict, SmallFile, SmallFiles, SnapshotVerdict, VoteVerdict};

/// Everything that was found in a directory.
pub(crate) struct Found {
    /// `None` for an empty directory.
    pub node: Option<FoundNode>,
    /// Numbers of the spare files.
    pub spares: Vec<u64>,
    pub snapshots: Snapshots,
}

/// What was found in the directory of an initialised node.
pub(crate) struct FoundNode {
    pub identity: Identity,
    pub vote: VoteSlot,
    pub manifest: Manifest,
    pub log: OpenLog,
    pub files: BTreeMap<LogIndex, OpenFile>,
    pub sealed: Vec<SealedSegment>,
    /// Entries below this index are committed, as the log itself says.
    pub claim: LogIndex,
    pub cut_bytes: u64,
}

/// What `log/` contains.
#[derive(Default)]
pub(crate) struct Listing {
    pub segments: Vec<LogIndex>,
    pub spares: Vec<u64>,
}

/// Recovers a directory that this process has locked.
pub(crate) async fn recover(
    host: &Host,
    paths: &Paths,
    settings: &StoreSettings,
) -> Result<Found, OpenError> {
    let disk = host.disk.as_ref();
    for directory in [&paths.root, &paths.log, &paths.snapshots, &paths.incoming] {
        disk.create_dir(directory).await.map_err(DiskError::with("create", directory))?;
        // A rename may be visible and not yet durable, if only the process had crashed.
        sync_dir(disk, directory).await?;
    }
    let identity = read_identity(host, paths, settings).await?;
    if identity.is_some() {
        install::resume(host, paths, settings.segment_bytes).await?;
    }
    let snapshots =
        Snapshots::open(host, paths.snapshots.clone()).await.map_err(DiskError::from)?;
    for damaged in snapshots.damaged() {
        tracing::warn!(path = %damaged.path.display(), error = %damaged.error, "damaged snapshot");
    }
    let manifest = read_small(disk, &paths.manifest(), MANIFEST_BYTES_MAX).await?;
    let manifest = manifest.map(|bytes| Manifest::decode(&bytes));
    let listing = list(host, paths).await?;
    let has_entries = snapshots.latest().is_some()
        || listing.segments.iter().any(|base| base.0 > 0)
        || tail::has_first_frame(host, paths).await?;
    let seen = |there: bool, good: bool| match (there, good) {
        (false, _) => SmallFile::Missing,
        (true, false) => SmallFile::Damaged,
        (true, true) => SmallFile::Good,
    };
    let life = read_small(disk, &paths.life(), LIFE_BYTES_MAX).await?;
    let life = life.map(|bytes| Life::decode(&bytes));
    let files = SmallFiles {
        identity: seen(identity.is_some(), identity.flatten().is_some()),
        manifest: seen(manifest.is_some(), manifest.as_ref().is_some_and(Option::is_some)),
        life: seen(life.is_some(), life.as_ref().is_some_and(Option::is_some)),
        initialised: life.as_ref().and_then(Option::as_ref).is_some_and(|life| life.initialised),
    };
    match table::judge_directory(&files, has_entries) {
        DirectoryVerdict::Node => {}
        DirectoryVerdict::Empty => {
            return Ok(Found { node: None, spares: listing.spares, snapshots });
        }
        DirectoryVerdict::Damaged(name) => {
            return Err(Damage::new(&paths.root.join(name), None, "its checksum is wrong").into());
        }
        DirectoryVerdict::Lost(name) => {
            let what = "it is missing, and this directory is a node's";
            return Err(Damage::new(&paths.root.join(name), None, what).into());
        }
    }
    let identity = identity.flatten().expect("judged good");
    let manifest = manifest.flatten().expect("judged good");
    let life = life.flatten().expect("judged good");
    if life.incarnation != identity.incarnation {
        let what = "`life` is of another life of this directory than `identity`".to_owned();
        return Err(OpenError::Identity { path: paths.life(), what });
    }
    recover_node(host, paths, Everything { identity, manifest, listing, snapshots }).await
}

struct Everything {
    identity: Identity,
    manifest: Manifest,
    listing: Listing,
    snapshots: Snapshots,
}

async fn recover_node(
    host: &Host,
    paths: &Paths,
    everything: Everything,
) -> Result<Found, OpenError> {
    let Everything { identity, mut manifest, listing, snapshots } = everything;
    let newest = snapshots.latest().map(|snapshot| snapshot.last);
    let removed = manifest.removed.values().next_back().copied();
    if let SnapshotVerdict::Stop(stop) = table::judge_snapshot(newest, removed) {
        let path = snapshots.damaged().last().map_or(&paths.snapshots, |damaged| &damaged.path);
        return Err(Damage::new(path, None, stop).into());
    }
    lower_floor(&mut manifest, newest);
    let vote = read_vote(host, paths).await?;
    let sealed = sealed::open_all(host, paths, &identity, &manifest).await?;
    let tail = tail::Tail::read(
        host,
        paths,
        &tail::Known {
            identity,
            manifest: &manifest,
            sealed: &sealed,
            segments: &listing.segments,
            snapshot: newest,
        },
    )
    .await?;

    // Everything was judged; from here on files change.
    settle_vote(host, paths, vote).await?;
    let mut spares = listing.spares;
    let leftover: Vec<LogIndex> = listing
        .segments
        .iter()
        .filter(|base| manifest.is_removed(**base) && !manifest.sealed.contains_key(base))
        .copied()
        .collect();
    for base in leftover {
        spares.push(retire(host, paths, base, next_spare(&spares)).await?);
    }
    let settled = tail.settle(host, paths, &mut manifest, &mut spares).await?;
    Ok(Found {
        node: Some(FoundNode {
            identity,
            vote,
            manifest,
            log: settled.log,
            files: settled.files,
            sealed,
            claim: settled.claim,
            cut_bytes: settled.cut_bytes,
        }),
        spares,
        snapshots,
    })
}

/// The state begins at the newest good snapshot, so the floor may not be above it. Raising the
/// floor deletes nothing, so taking it back is safe as long as nothing above was removed, which the
/// table has checked.
fn lower_floor(manifest: &mut Manifest, newest: Option<LogPosition>) {
    let index = |position: Option<LogPosition>| position.map(|p| p.index);
    if index(manifest.floor) > index(newest) {
        manifest.floor = newest;
    }
}

/// The outer `None`: no file. The inner one: a file that cannot be believed.
async fn read_identity(
    host: &Host,
    paths: &Paths,
    settings: &StoreSettings,
) -> Result<Option<Option<Identity>>, OpenError> {
    let disk = host.disk.as_ref();
    let Some(bytes) = read_small(disk, &paths.identity(), IDENTITY_BYTES_MAX).await? else {
        return Ok(None);
    };
    let Some(identity) = Identity::decode(&bytes) else { return Ok(Some(None)) };
    let refused = |what: String| OpenError::Identity { path: paths.identity(), what };
    if identity.node != settings.node {
        let (is, wants) = (identity.node, settings.node);
        return Err(refused(format!(
            "this directory belongs to node {is}, and node {wants} was started with it"
        )));
    }
    if identity.segment_bytes != settings.segment_bytes {
        let (is, wants) = (identity.segment_bytes, settings.segment_bytes);
        return Err(refused(format!(
            "this site has segments of {is} bytes since it was initialised, and the configuration \
             says log.segment_bytes = {wants} bytes; it cannot be changed"
        )));
    }
    Ok(Some(Some(identity)))
}

/// Everything in `log/` that has a name of ours, segments in ascending order.
pub(crate) async fn list(host: &Host, paths: &Paths) -> Result<Listing, DiskError> {
    let listed = host.disk.list(&paths.log).await.map_err(DiskError::with("list", &paths.log))?;
    let mut listing = Listing::default();
    for file in listed {
        match name_of(&file.name) {
            Name::Segment(base) if !file.is_dir => listing.segments.push(base),
            Name::Spare(number) if !file.is_dir => listing.spares.push(number),
            _ => tracing::warn!(name = file.name, "unknown file in log/, left alone"),
        }
    }
    listing.segments.sort_unstable();
    listing.spares.sort_unstable();
    Ok(listing)
}

/// A number that no spare has.
pub(crate) fn next_spare(spares: &[u64]) -> u64 {
    spares.iter().max().map_or(0, |number| number + 1)
}

/// Makes a segment file a spare, durably.
pub(crate) async fn retire(
    host: &Host,
    paths: &Paths,
    base: LogIndex,
    number: u64,
) -> Result<u64, DiskError> {
    let from = paths.segment(base);
    let disk = host.disk.as_ref();
    disk.rename(&from, &paths.spare(number)).await.map_err(DiskError::with("rename", &from))?;
    sync_dir(disk, &paths.log).await?;
    Ok(number)
}

/// The vote, and whether a slot does not say so.
async fn read_vote(host: &Host, paths: &Paths) -> Result<VoteSlot, OpenError> {
    let path = paths.vote();
    let bytes = match open_if_there(host.disk.as_ref(), &path).await? {
        None => None,
        Some(file) => {
            forget_cached(file.as_ref()).await.map_err(DiskError::with("flush", &path))?;
            let slots = read_around(file.as_ref(), 0, VOTE_FILE_BYTES).await;
            Some(slots.map_err(DiskError::with("read", &path))?)
        }
    };
    match table::judge_vote(bytes.map(|bytes| VOTE_SLOTS_AT.map(|at| slot_at(&bytes, at)))) {
        VoteVerdict::Use(slot) | VoteVerdict::Repair(slot) => Ok(slot),
        VoteVerdict::Stop(stop) => Err(Damage::new(&path, None, stop).into()),
    }
}

fn slot_at(bytes: &[u8], at: u64) -> Option<VoteSlot> {
    let at = usize::try_from(at).ok()?;
    VoteSlot::decode(bytes.get(at..at + SECTOR_BYTES)?)
}

/// Makes both slots say the same, durably. The good slot is flushed before the other is touched:
/// after a crash of the process alone it may only be in the page cache.
async fn settle_vote(host: &Host, paths: &Paths, slot: VoteSlot) -> Result<(), DiskError> {
    let path = paths.vote();
    let disk = host.disk.as_ref();
    let file = disk.open(&path, Open::Existing).await.map_err(DiskError::with("open", &path))?;
    let settled: std::io::Result<()> = async {
        let bytes = read_around(file.as_ref(), 0, VOTE_FILE_BYTES).await?;
        file.sync().await?;
        for at in VOTE_SLOTS_AT {
            if slot_at(&bytes, at) != Some(slot) {
                file.write(vec![Write::one(at, slot.encode())], Flush::Data).await?;
            }
        }
        Ok(())
    }
    .await;
    settled.map_err(DiskError::with("write", &path))
}

/// Removes what an interrupted transfer left in `incoming/`.
pub(crate) async fn clean_incoming(host: &Host, paths: &Paths) -> Result<(), DiskError> {
    let disk = host.disk.as_ref();
    let directory = &paths.incoming;
    let listed = disk.list(directory).await.map_err(DiskError::with("list", directory))?;
    for file in listed {
        let path: PathBuf = directory.join(&file.name);
        let ours =
            path == paths.incoming_snapshot() || matches!(name_of(&file.name), Name::Segment(_));
        if ours && !file.is_dir {
            remove_if_there(disk, &path).await?;
        }
    }
    Ok(())
}

/// Reports what recovery did that a sweep of the simulator must have seen.
pub(crate) fn report_stop(host: &Host, stop: &table::Stop) {
    use table::Stop;
    if matches!(stop, Stop::FlushedFrame(_) | Stop::CompletedFrame(_) | Stop::MarkDisagrees) {
        host.probe(Probe::RotRefused);
    }
}

/// A file that was opened for a segment.
pub(crate) type SegmentFile = Arc<dyn File>;
