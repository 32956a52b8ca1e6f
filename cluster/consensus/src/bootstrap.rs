//! How three empty nodes become a site, once.
//!
//! 1. Every node draws its incarnation at its first start and keeps it in its `life` file.
//! 2. The node with the lowest id asks the others who they are. When all are empty it draws the
//!    site id and writes both it and everybody's incarnation to its own `life` file: from here
//!    on the site exists.
//! 3. The others keep asking. Who meets a node of an existing site looks for its own incarnation
//!    in that node's list: if it is there, it joins; if not, its directory was wiped or replaced
//!    after the site began, and it refuses to start.
//!
//! A directory that was prepared by [`prepare_rejoin`] asks the leader for a new place instead
//! (see the module `rejoin`).
//!
//! Invariants: only one node ever draws a site id, and it is durable before anybody hears of it,
//! so two sites can never come out of one configuration; a node whose directory was emptied never
//! votes with the identity of the old one, because what it had promised is gone.
//!
//! Never: go on without all nodes. A site that begins with two could begin twice.

use crate::group::{GroupSettings, StartError, store_settings};
use crate::peer::connection::{DialError, PeerContext, dial};
use crate::peer::message::{Introduction, Purpose, Refusal, Standing, kind};
use crate::rejoin;
use fulmar_host::{Host, planted, random, time};
use fulmar_store::{Identity, Life, Poisoned, Store};
use fulmar_types::{ExitCode, Incarnation, NodeId, Plant, SiteId, Uuid};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// When to say for whom the first start waits.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// The beginning of a site, seen from one node.
pub struct Bootstrap {
    context: Arc<PeerContext>,
    store: Arc<Store>,
}

enum Step {
    Done,
    Again,
}

impl Bootstrap {
    /// For this node.
    pub fn new(context: Arc<PeerContext>, store: Arc<Store>) -> Self {
        Self { context, store }
    }

    /// What this directory knows of itself; a new one draws its incarnation here, durably, and one
    /// that will grant longer leases than before takes note of that first.
    ///
    /// # Errors
    /// The disk's.
    pub async fn incarnate(store: &Store, settings: &GroupSettings) -> io::Result<Life> {
        let known = store.life().await?;
        let draw = || Life::new(Incarnation(Uuid::from_random(random::random_16())));
        let mut life = known.clone().unwrap_or_else(draw);
        life.lease_ms = life.lease_ms.max(lease_ms(settings.election_timeout_max));
        if known.as_ref() != Some(&life) {
            store.save_life(&life).await?;
        }
        initialise(store, life, settings.node, settings.segment_bytes).await
    }

    /// What this node says of itself.
    pub fn introduction(&self) -> Introduction {
        let me = self.context.acquaintance();
        Introduction {
            node: self.context.node,
            incarnation: me.incarnation,
            site: me.site,
            known: me.known.into_iter().collect(),
        }
    }

    /// Waits until this node belongs to a site.
    ///
    /// # Errors
    /// The disk's.
    pub async fn run(&self) -> io::Result<()> {
        let rejoins = self.context.acquaintance().rejoins && !planted(Plant::WipedNodeVotes);
        let mut told = None;
        let begun = time::now();
        while self.context.acquaintance().site.is_none() {
            let step = if rejoins {
                self.rejoin(&mut told).await?
            } else {
                self.step(begun.elapsed() >= TELL_AFTER, &mut told).await?
            };
            match step {
                Step::Done => break,
                Step::Again => time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    async fn step(&self, tells: bool, told: &mut Option<String>) -> io::Result<Step> {
        let me = self.context.acquaintance();
        let mut lives = BTreeMap::from([(self.context.node, me.incarnation)]);
        for node in self.context.addresses.keys().copied() {
            if node == self.context.node {
                continue;
            }
            let Some(answer) = self.ask(node).await else { continue };
            if let Some(site) = answer.site {
                return self.join(node, site, answer.known).await;
            }
            lives.insert(node, answer.incarnation);
        }
        let everybody = lives.len() == self.context.addresses.len();
        let lowest = self.context.addresses.keys().next() == Some(&self.context.node);
        if everybody && lowest {
            let site = SiteId(Uuid::from_random(random::random_16()));
            self.begin(site, lives).await?;
            return Ok(Step::Done);
        }
        if tells && !everybody {
            let missing = self.context.addresses.iter().filter(|(id, _)| !lives.contains_key(id));
            let missing = missing.map(|(node, address)| format!("node {node} at {address}"));
            let waits = missing.collect::<Vec<_>>().join(" and ");
            if rejoin::is_news(told, &waits) {
                tracing::warn!("the site begins when all its nodes are up: waiting for {waits}");
            }
        }
        Ok(Step::Again)
    }

    /// Asks the leader for a new place in a site that exists.
    async fn rejoin(&self, told: &mut Option<String>) -> io::Result<Step> {
        match rejoin::ask(&self.context).await {
            Some(Standing::Learner { site, known }) => {
                self.begin(site, known.into_iter().collect()).await?;
                Ok(Step::Done)
            }
            // A vote for a node that knows nothing of its site: somebody has its incarnation.
            Some(Standing::Voter) => {
                let message = format!(
                    "node {} has an empty data directory, and the site says that it has a vote \
                     already. Prepare the directory once more with `fulmar rejoin`: it gets another \
                     life.",
                    self.context.node
                );
                self.context.host.fatal(ExitCode::Identity, message).await
            }
            answer => {
                rejoin::tell(told, answer.as_ref());
                Ok(Step::Again)
            }
        }
    }

    async fn ask(&self, node: NodeId) -> Option<Introduction> {
        let mut connection = match dial(&self.context, node, Purpose::Control).await {
            Ok(connection) => connection,
            Err(DialError::Refused(Refusal::OtherIncarnation)) => {
                self.refuse(node).await;
                return None;
            }
            Err(error) => {
                tracing::debug!(%node, %error, "not reached yet");
                return None;
            }
        };
        connection.ask(kind::INTRODUCE, &(), self.context.stall_timeout).await.ok()
    }

    async fn join(
        &self,
        node: NodeId,
        site: SiteId,
        known: Vec<(NodeId, Incarnation)>,
    ) -> io::Result<Step> {
        let mut known: BTreeMap<_, _> = known.into_iter().collect();
        let mine = self.context.acquaintance().incarnation;
        if known.get(&self.context.node) != Some(&mine) {
            if !planted(Plant::WipedNodeVotes) {
                self.refuse(node).await;
            }
            known.insert(self.context.node, mine);
        }
        self.begin(site, known).await?;
        Ok(Step::Done)
    }

    async fn begin(&self, site: SiteId, known: BTreeMap<NodeId, Incarnation>) -> io::Result<()> {
        let life = Life { site: Some(site), known, ..self.context.acquaintance() };
        self.store.save_life(&life).await?;
        let (node, segment_bytes) = (self.context.node, self.context.segment_bytes);
        self.context.acquaint(initialise(&self.store, life, node, segment_bytes).await?);
        tracing::info!(%site, "this node belongs to the site");
        Ok(())
    }

    async fn refuse(&self, by: NodeId) {
        let message = format!(
            "node {} has an empty data directory, but the site exists: node {by} knows an earlier \
             life of this node.\nIf the old directory can be found, put it back. If it is lost, \
             `fulmar rejoin` prepares this one to take part again.",
            self.context.node
        );
        self.context.host.fatal(ExitCode::Identity, message).await
    }
}

/// A node with fewer peers than its site has would count majorities that are none. What a directory
/// knows may lack a node that was about to come back when this one did.
///
/// # Errors
/// If the configuration names other nodes than the site has.
pub fn check_nodes(life: &Life, settings: &GroupSettings) -> Result<(), StartError> {
    let lacks_some = life.known.keys().any(|node| !settings.peers.contains_key(node));
    let is_trial = life.known.len() == 1 && settings.peers.len() > 1;
    if life.site.is_none() || !(lacks_some || is_trial) {
        return Ok(());
    }
    let named =
        |nodes: Vec<&NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(StartError::OtherNodes {
        has: named(life.known.keys().collect()),
        configured: named(settings.peers.keys().collect()),
    })
}

/// The length of a lease in whole milliseconds.
fn lease_ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Takes note that this node grants shorter leases than an earlier life of it, once none of those
/// can hold any more.
pub async fn note_shorter_lease(context: &PeerContext, store: &Store, length: Duration) {
    if context.acquaintance().lease_ms <= lease_ms(length) {
        return;
    }
    while !context.earlier_grant.is_over() {
        time::sleep(PAUSE).await;
    }
    // As it is on disk: in memory it follows the membership, which lacks a node that comes back.
    let Ok(Some(life)) = store.life().await else { return };
    let lease_ms = lease_ms(length);
    // Else the next start waits longer than it would have to.
    if store.note_life(&Life { lease_ms, ..life }).await.is_ok_and(|noted| noted) {
        context.grants(lease_ms);
    }
}

/// Prepares an empty directory for a node whose old one is lost: at its next start it asks the
/// leader for a new place in the site. Durable on return. `false` if the directory is not empty. One
/// that a node began and that never belonged to a site counts as empty, for it holds no promise:
/// such a start is how most people learn that they need this. Each time the node gets a new
/// incarnation: the site may know the one before as a voter, if it began when this was done first.
///
/// # Errors
/// If the directory cannot be opened, or the disk fails.
pub async fn prepare_rejoin(host: Host, settings: &GroupSettings) -> Result<bool, StartError> {
    let disk = |error: Poisoned| StartError::Core(error.to_string());
    let (store, _) = Store::open(host, store_settings(settings)).await?;
    let life = store.life().await.map_err(disk)?;
    let young = life.is_none_or(|life| life.site.is_none());
    let empty = young && store.identity().is_none();
    if empty {
        let incarnation = Incarnation(Uuid::from_random(random::random_16()));
        let life = Life { rejoins: true, ..Life::new(incarnation) };
        store.save_life(&life).await.map_err(disk)?;
    }
    store.close().await.map_err(disk)?;
    Ok(empty)
}

/// Makes the directory that of a site's node, if the site is known and nobody has done it: a crash
/// may come between the steps. Returns what the directory knows of itself then.
async fn initialise(
    store: &Store,
    life: Life,
    node: NodeId,
    segment_bytes: u64,
) -> io::Result<Life> {
    let Some(site) = life.site else { return Ok(life) };
    if store.identity().is_none() {
        let incarnation = life.incarnation;
        store.initialise(Identity { site, node, incarnation, segment_bytes }).await?;
    }
    if life.initialised {
        return Ok(life);
    }
    // Last: from here on a directory without an identity has lost it, and is not begun anew. On a
    // full disk the next start takes note of it.
    let noted = Life { initialised: true, ..life.clone() };
    Ok(if store.note_life(&noted).await? { noted } else { life })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::peer_context;
    use crate::space::Space;
    use crate::testing::Bench;
    use fulmar_host::task::block_on;

    fn settings(bench: &Bench) -> GroupSettings {
        GroupSettings {
            site_name: "north".to_owned(),
            node: NodeId(0),
            peers: BTreeMap::new(),
            directory: bench.directory.clone(),
            segment_bytes: 128 << 10,
            spare_segments: 1,
            reserve_bytes: 0,
            purge_lag_segments: 1,
            heartbeat: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
        }
    }

    #[test]
    fn the_longest_lease_that_may_have_been_granted_is_remembered() {
        block_on(async {
            let bench = Bench::new("lease");
            let mut lives = Vec::new();
            for length_ms in [300, 3_000, 600] {
                let election_timeout_max = Duration::from_millis(length_ms);
                let settings = GroupSettings { election_timeout_max, ..settings(&bench) };
                let opened = Store::open(bench.host.clone(), store_settings(&settings)).await;
                let (store, _) = opened.expect("opens");
                let life = Bootstrap::incarnate(&store, &settings).await.expect("works");
                assert_eq!(store.life().await.expect("reads").as_ref(), Some(&life));
                lives.push(life.lease_ms);
                store.close().await.expect("works");
            }
            assert_eq!(lives, [300, 3_000, 3_000]);
        });
    }

    fn lives(nodes: &[u64]) -> BTreeMap<NodeId, Incarnation> {
        nodes.iter().map(|node| (NodeId(*node), Incarnation(Uuid([*node as u8; 16])))).collect()
    }

    #[test]
    fn a_shorter_lease_is_noted_and_nothing_else() {
        block_on(async {
            let bench = Bench::new("shorter");
            let settings = settings(&bench);
            let opened = Store::open(bench.host.clone(), store_settings(&settings)).await;
            let (store, _) = opened.expect("opens");
            let longest = lease_ms(settings.election_timeout_max) + 1;
            let life = Bootstrap::incarnate(&store, &settings).await.expect("works");
            let life = Life { lease_ms: longest, known: lives(&[1, 2, 3]), ..life };
            store.save_life(&life).await.expect("works");
            let space = Arc::new(Space::new(bench.host.clone(), store.clone(), 0));
            let context = peer_context(&settings, life, space, None);
            // The third is about to come back, and out of the membership until then.
            context.members(lives(&[1, 2]));
            note_shorter_lease(&context, &store, settings.election_timeout_max).await;
            let noted = store.life().await.expect("reads").expect("there");
            assert_eq!((noted.lease_ms, noted.known), (longest - 1, lives(&[1, 2, 3])));
            let acquaintance = context.acquaintance();
            assert_eq!((acquaintance.lease_ms, acquaintance.known), (longest - 1, lives(&[1, 2])));
            store.close().await.expect("works");
        });
    }

    #[test]
    fn a_site_keeps_its_nodes() {
        let bench = Bench::new("nodes");
        let check = |known: &[u64], configured: &[u64]| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let peers = configured.iter().map(|node| (NodeId(*node), address)).collect();
            let site = Some(SiteId(Uuid([1; 16])));
            let life = Life { site, known: lives(known), ..Life::new(Incarnation(Uuid::NIL)) };
            check_nodes(&life, &GroupSettings { peers, ..settings(&bench) })
        };
        assert!(check(&[1, 2, 3], &[1, 2, 3]).is_ok() && check(&[1], &[1]).is_ok());
        assert!(check(&[1, 3], &[1, 2, 3]).is_ok(), "node 2 was about to come back");
        for (known, configured) in
            [(&[1, 2, 3][..], &[2][..]), (&[1, 2, 3], &[1, 2, 4]), (&[1], &[1, 2])]
        {
            let error = check(known, configured).expect_err("another site");
            assert_eq!(error.exit_code(), ExitCode::Identity);
        }
    }

    #[test]
    fn an_empty_directory_gets_another_incarnation_each_time_it_is_prepared() {
        block_on(async {
            let bench = Bench::new("prepared");
            let settings = settings(&bench);
            let mut lives = Vec::new();
            for _ in 0..2 {
                assert!(prepare_rejoin(bench.host.clone(), &settings).await.expect("works"));
                let opened = Store::open(bench.host.clone(), store_settings(&settings)).await;
                let (store, _) = opened.expect("opens");
                lives.extend(store.life().await.expect("reads"));
            }
            assert!(lives.iter().all(|life| life.rejoins));
            assert!(lives.len() == 2 && lives[0].incarnation != lives[1].incarnation);
        });
    }
}
