//! Three nodes of this program as child processes: for a demonstration or a measurement in a
//! directory of its own, or for a site that is to stay.
//!
//! Invariant: a temporary directory is removed when the site is dropped, after its nodes are dead,
//! unless somebody asked to keep it.

use super::apply::authority;
use super::child::{ChildNode, NodeCommand, OnParentDeath};
use super::config_file::{self, Addresses, Fresh};
use super::{Stop, client, exit_text, keys};
use fulmar_client::{Cluster, Connection, Settings};
use fulmar_host::disk::{DirectoryLock, Disk};
use fulmar_host::net::Network;
use fulmar_host::real::RealDisk;
use fulmar_host::real::tls::keys::AUTHORITY_FILE;
use fulmar_host::time::{self, Duration};
use fulmar_types::config::Config;
use fulmar_types::link::LinkDefinition;
use fulmar_types::{ExitCode, NodeId};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long a node may take to stop in order.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a configuration says of keys beside it.
const TLS: &str = "\n[tls]\nkeys = \"keys\"\n";

/// How long the certificates of a temporary site last.
const KEYS_DAYS: u32 = 30;

/// A directory for several sites, which is removed at the end if it is temporary and nobody keeps it. The
/// sites must be gone by then.
pub struct Ground {
    /// The directory, which was empty.
    pub dir: PathBuf,
    remove: bool,
}

impl Ground {
    /// The directory that was chosen, or a temporary one.
    pub fn new(chosen: Option<&Path>, purpose: &str) -> Result<Self, Stop> {
        let name = format!("fulmar-{purpose}-{}", std::process::id());
        let dir = chosen.map_or_else(|| std::env::temp_dir().join(name), Path::to_owned);
        Ok(Self { dir: config_file::empty(&dir)?, remove: chosen.is_none() })
    }

    /// Keeps the directory.
    pub fn keep(&mut self) {
        self.remove = false;
    }

    /// Whether the directory stays.
    pub fn is_kept(&self) -> bool {
        !self.remove
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.remove {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A site of child processes.
pub struct Site {
    /// The directory of the site.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: Config,
    /// How to be a client of it.
    pub network: Arc<dyn Network>,
    /// Its configuration file.
    pub config_path: PathBuf,
    with_stats: bool,
    on_parent_death: OnParentDeath,
    nodes: Vec<ChildNode>,
    remove: bool,
    /// Held as long as the site is: the lock goes with it.
    _lock: Box<dyn DirectoryLock>,
}

/// The port of the first node of a new site.
const BASE_PORT: u16 = 9092;

impl Site {
    /// The site in a directory, with a new configuration if there is none. Nothing is started.
    pub async fn lasting(dir: &Path, base_port: Option<u16>) -> Result<Self, Stop> {
        let fresh = || config_file::from_base_port(base_port.unwrap_or(BASE_PORT));
        let (config_path, config) = config_file::read_or_write(dir, fresh)?;
        let first = config.nodes.first().map(|node| node.kafka.port());
        if let (Some(asked), Some(first)) = (base_port, first)
            && asked != first
        {
            return Err(Stop::usage(format!(
                "{} is there already, and its first node has port {first}. Change the ports there, \
                 or leave --base-port out.",
                config_path.display()
            )));
        }
        let dir = config_file::absolute(dir)?;
        Ok(Self {
            _lock: lock(&dir).await?,
            dir,
            network: client::network_of(&config)?,
            config,
            config_path,
            with_stats: false,
            on_parent_death: OnParentDeath::Stop,
            nodes: Vec::new(),
            remove: false,
        })
    }

    /// A site on free ports, in an empty directory that is removed at the end unless it was
    /// chosen by the user. `extra` is added to its configuration.
    pub async fn temporary(
        chosen: Option<&Path>,
        purpose: &str,
        extra: String,
    ) -> Result<Self, Stop> {
        let mut ground = Ground::new(chosen, purpose)?;
        // The site sees to it from now on.
        ground.keep();
        let dir = ground.dir.clone();
        let ports = free_ports(9).await?;
        let addresses = pairs(&ports[..6]);
        let fresh = Fresh { addresses, links: None, http: Some(ports[6..].to_vec()), extra };
        let mut site = Self::fresh(dir, fresh).await?;
        site.with_stats = true;
        site.remove = chosen.is_none();
        Ok(site)
    }

    /// Two sites on free ports whose nodes listen for each other, with keys, in a directory each below
    /// one that must be there. What they are called is the names of their directories.
    pub async fn linked(within: &Path, names: [&str; 2]) -> Result<[Self; 2], Stop> {
        let mut ports = free_ports(24).await?;
        let others = ports.split_off(12);
        Ok([
            Self::with_links(within.join(names[0]), ports).await?,
            Self::with_links(within.join(names[1]), others).await?,
        ])
    }

    /// A site of three nodes with keys that listens for others.
    async fn with_links(dir: PathBuf, ports: Vec<SocketAddr>) -> Result<Self, Stop> {
        let fresh = Fresh {
            addresses: pairs(&ports[..6]),
            links: Some(ports[6..9].to_vec()),
            http: Some(ports[9..].to_vec()),
            extra: TLS.to_owned(),
        };
        Self::with_keys(dir, fresh).await
    }

    /// A hub, and as many sites of one node each that can dial it, as [`Self::linked`]. The small ones keep
    /// small segments.
    pub async fn star(within: &Path, hub: &str, sites: usize) -> Result<(Self, Vec<Self>), Stop> {
        let mut ports = free_ports(12 + 2 * sites).await?;
        let places = pairs(&ports.split_off(12));
        let hub = Self::with_links(within.join(hub), ports).await?;
        let mut around = Vec::new();
        for (at, place) in (1..).zip(places) {
            let small = "\n[log]\nsegment_bytes = \"1MiB\"\n";
            let extra = format!("{TLS}{small}");
            let fresh = Fresh { addresses: vec![place], links: None, http: None, extra };
            around.push(Self::with_keys(within.join(format!("site-{at}")), fresh).await?);
        }
        Ok((hub, around))
    }

    async fn with_keys(dir: PathBuf, fresh: Fresh) -> Result<Self, Stop> {
        let site = Self::fresh(config_file::absolute(&dir)?, fresh).await?;
        keys::make(&site.config, &site.dir.join("keys"), &[], KEYS_DAYS)?;
        Ok(site)
    }

    /// Has its nodes, once they are started, write down what they count.
    pub fn counting(mut self) -> Self {
        self.with_stats = true;
        self
    }

    /// A link to this site, as another one lays it down: neither dials nor takes anything yet.
    pub fn as_peer(&self, region: &str) -> Result<LinkDefinition, Stop> {
        Ok(LinkDefinition {
            site: self.config.site.clone(),
            region: region.to_owned(),
            authority: authority(&self.dir.join("keys").join(AUTHORITY_FILE))?,
            ..LinkDefinition::default()
        })
    }

    /// A new site in an empty directory, which stays. Its nodes die with this process.
    async fn fresh(dir: PathBuf, fresh: Fresh) -> Result<Self, Stop> {
        let (config_path, config) = config_file::read_or_write(&dir, || Ok(fresh))?;
        Ok(Self {
            _lock: lock(&dir).await?,
            dir,
            network: client::network_of(&config)?,
            config,
            config_path,
            with_stats: false,
            on_parent_death: OnParentDeath::Kill,
            nodes: Vec::new(),
            remove: false,
        })
    }

    /// Where its nodes listen for other sites.
    pub fn links(&self) -> Vec<SocketAddr> {
        self.config.nodes.iter().filter_map(|node| node.link).collect()
    }

    /// A client of this site.
    pub fn cluster(&self, name: &str) -> Cluster {
        client::cluster(self.network.clone(), self.bootstrap(), name)
    }

    /// The addresses for Kafka clients.
    pub fn bootstrap(&self) -> Vec<SocketAddr> {
        self.config.nodes.iter().map(|node| node.kafka).collect()
    }

    /// The addresses for Kafka clients, as an argument.
    pub fn bootstrap_text(&self) -> String {
        let addresses = self.bootstrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        addresses.join(",")
    }

    /// Where a node writes its counters.
    pub fn stats_file(&self, id: NodeId) -> PathBuf {
        self.dir.join(format!("node-{id}.stats"))
    }

    /// Starts a node.
    pub fn start(&mut self, id: NodeId) -> Result<(), Stop> {
        let command = NodeCommand {
            config: self.config_path.clone(),
            id,
            log: self.dir.join(format!("node-{id}.log")),
            stats_file: self.with_stats.then(|| self.stats_file(id)),
            on_parent_death: self.on_parent_death,
        };
        let node = ChildNode::start(&command)?;
        self.nodes.retain(|other| other.id != id);
        self.nodes.push(node);
        self.nodes.sort_by_key(|node| node.id);
        Ok(())
    }

    /// Starts every node.
    pub fn start_all(&mut self) -> Result<(), Stop> {
        for id in self.config.nodes.iter().map(|node| node.id).collect::<Vec<_>>() {
            self.start(id)?;
        }
        Ok(())
    }

    /// The nodes that were started.
    pub fn nodes(&self) -> &[ChildNode] {
        &self.nodes
    }

    /// The nodes that were started, each with its address for Kafka clients. The configuration may
    /// name them in another order.
    pub fn listening(&self) -> impl Iterator<Item = (&ChildNode, SocketAddr)> {
        self.nodes.iter().filter_map(|child| Some((child, self.config.node(child.id)?.kafka)))
    }

    /// The nodes that were started.
    pub fn nodes_mut(&mut self) -> &mut [ChildNode] {
        &mut self.nodes
    }

    /// A node that was started.
    pub fn node_mut(&mut self, id: NodeId) -> Result<&mut ChildNode, Stop> {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        found.ok_or_else(|| Stop::failed(format!("node {id} does not run.")))
    }

    /// Whether every node that was started runs.
    pub fn check(&mut self) -> Result<(), Stop> {
        for node in &mut self.nodes {
            if let Some(status) = node.ended() {
                return Err(Stop::failed(format!(
                    "node {} {}.\n  The end of {}:\n{}",
                    node.id,
                    exit_text::describe(status),
                    node.log.display(),
                    node.last_words()
                )));
            }
        }
        Ok(())
    }

    /// Waits until a node answers its clients; fails at once if a node ends.
    pub async fn wait_answering(&mut self, id: NodeId, timeout: Duration) -> Result<(), Stop> {
        let address = self.config.node(id).map(|node| node.kafka);
        let address = address.ok_or_else(|| Stop::failed(format!("there is no node {id}.")))?;
        let deadline = time::now() + timeout;
        loop {
            let opened =
                Connection::open(self.network.as_ref(), address.into(), &Settings::default()).await;
            let error = match opened {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            self.check()?;
            if time::now() > deadline {
                return Err(Stop::failed(format!("node {id} does not answer: {error}.")));
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the site takes entries into its log; fails at once if a node ends. Returns who
    /// leads.
    pub async fn wait_serving(
        &mut self,
        cluster: &Cluster,
        timeout: Duration,
    ) -> Result<NodeId, Stop> {
        let dying = async {
            loop {
                if let Err(stop) = self.check() {
                    return stop;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            biased;
            stop = dying => Err(stop),
            leader = client::wait_until_serving(cluster, timeout) => leader,
        }
    }

    /// Keeps the directory.
    pub fn keep(&mut self) {
        self.remove = false;
    }

    /// Whether the directory will be there when the site is dropped.
    pub fn is_kept(&self) -> bool {
        !self.remove
    }

    /// Stops every node that runs, one after the other.
    ///
    /// # Errors
    /// If one had to be killed, or ended in another way than it should, or before it was told to.
    pub async fn stop(&mut self) -> Result<(), Stop> {
        let mut result = self.check();
        for mut node in std::mem::take(&mut self.nodes) {
            if node.ended().is_some() {
                continue;
            }
            let problem = match node.stop(STOP_TIMEOUT).await {
                Ok(status) if status.success() => continue,
                Ok(status) => exit_text::describe(status),
                Err(error) => format!("cannot be stopped: {error}"),
            };
            result = Err(Stop::failed(format!("node {} {problem}.", node.id)));
        }
        result
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Children are killed when they are dropped.
        self.nodes.clear();
        if self.remove {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Takes the directory of a site for this process. The nodes lock what is theirs; this lock is for
/// one clear sentence before three of them fail on their addresses.
async fn lock(dir: &Path) -> Result<Box<dyn DirectoryLock>, Stop> {
    let locked = async { RealDisk::new()?.lock(dir).await };
    locked.await.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => Stop {
            code: ExitCode::Locked,
            message: format!("a site runs from {} already.", dir.display()),
        },
        _ => Stop::failed(format!("the directory {} cannot be locked: {error}", dir.display())),
    })
}

/// Where the ports of temporary sites begin: below those that systems lend to connections, of which
/// any may be lent between the choice of a port and the start of its node.
const TEMPORARY_PORTS: u16 = 10_000;

/// The ports that each process tries first, more than two linked sites have, and the processes until they
/// come round.
const PORTS_PER_PROCESS: u16 = 40;
const PROCESSES: u16 = 239;

/// The addresses of nodes, from those for Kafka clients and as many for the other nodes.
fn pairs(ports: &[SocketAddr]) -> Vec<Addresses> {
    let (kafka, peer) = ports.split_at(ports.len() / 2);
    kafka.iter().copied().zip(peer.iter().copied()).collect()
}

/// Loopback addresses that nobody listens on. All are held until all are found. Processes that
/// choose at the same time begin at different ports.
async fn free_ports(count: usize) -> Result<Vec<SocketAddr>, Stop> {
    let network = client::plain();
    let process = (std::process::id() % u32::from(PROCESSES)) as u16;
    let first = process * PORTS_PER_PROCESS;
    let all = PROCESSES * PORTS_PER_PROCESS;
    let mut held = Vec::new();
    let mut last = None;
    for port in (first..all).chain(0..first).map(|at| TEMPORARY_PORTS + at) {
        match network.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Ok(listener) => held.push(listener),
            Err(error) => last = Some(error),
        }
        if held.len() == count {
            return Ok(held.iter().map(|held| held.local_address()).collect());
        }
    }
    let why = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(Stop::failed(format!("there are no {count} free ports on loopback{why}.")))
}
