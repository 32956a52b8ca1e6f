//! The stage: the machines of a scenario, their nodes, and what state they are in.
//!
//! A node is started by the function that `main` uses, on a host made of simulated parts.
//!
//! What faults do to links and disks is in `overlay`.
//!
//! Invariants: a machine that is down is started by one task only; between the end of a process
//! and its next start at least a millisecond passes.

mod overlay;

pub use overlay::Overlay;

use super::sink::Sink;
use crate::check::SiteNode;
use crate::disk::DiskCopy;
use crate::machine::Machines;
use crate::net::Papers;
use crate::scenario::{
    DrawnScenario, KAFKA_PORT, NodeAddress, Place, Roles, SiteName, Target, address,
};
use fulmar_types::config::{Config, certificate_name};
use fulmar_types::{ExitCode, NodeId};
use madsim::runtime::Handle;
use madsim::task::NodeId as Machine;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The host part of the address of the clients of a site.
const CLIENTS: [u8; 2] = [1, 1];

/// Nobody runs here right after a kill: madsim drops the old tasks in this time.
const REST: Duration = Duration::from_millis(2);

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed; the machine goes on.
    Crash,
    /// The machine loses power.
    PowerCut,
}

#[derive(Clone, Copy, Debug, Default)]
struct Status {
    down: bool,
    /// It ended with damage and stays down.
    gone: bool,
    /// Which life of its process this is: who paused one does not wake the next.
    life: u32,
    pauses: u32,
    /// How long after it ends by itself it is started again.
    restart_after: Option<Duration>,
}

impl Status {
    /// The process ends. Whether it stood still.
    fn end(&mut self) -> bool {
        self.down = true;
        self.life += 1;
        std::mem::take(&mut self.pauses) > 0
    }

    /// Another pause begins. Whether the process stands still from now on.
    fn pause(&mut self) -> bool {
        self.pauses += 1;
        self.pauses == 1
    }

    /// A pause of a life is over. Whether the process goes on.
    fn resume(&mut self, life: u32) -> bool {
        if self.life != life || self.pauses == 0 {
            return false;
        }
        self.pauses -= 1;
        self.pauses == 0
    }
}

#[derive(Default)]
struct Mutable {
    status: BTreeMap<NodeAddress, Status>,
    overlays: BTreeMap<(Machine, Machine), Vec<Overlay>>,
    slow: BTreeMap<NodeAddress, Vec<Duration>>,
    /// What fits on disks that somebody else's files fill.
    full: BTreeMap<NodeAddress, Vec<u64>>,
}

/// What the disks of all nodes of a site held at one moment.
pub struct SiteCopy {
    /// The site.
    pub site: SiteName,
    disks: BTreeMap<NodeAddress, DiskCopy>,
}

/// Machines, nodes and clients of a run.
pub struct Stage {
    /// The scenario.
    pub drawn: DrawnScenario,
    /// The machines.
    pub machines: Machines,
    /// What is known.
    pub sink: Arc<Sink>,
    sites: Vec<SiteName>,
    nodes: BTreeMap<NodeAddress, Machine>,
    clients: BTreeMap<SiteName, Machine>,
    /// Nodes whose directory is to be prepared at their next start, because it was emptied.
    emptied: BTreeMap<NodeAddress, Arc<AtomicBool>>,
    mutable: Mutex<Mutable>,
}

impl Stage {
    /// Builds all machines and starts all nodes.
    ///
    /// # Errors
    /// If the configuration of a site is not valid.
    pub fn build(
        drawn: &DrawnScenario,
        machines: Machines,
        sink: Arc<Sink>,
    ) -> Result<Arc<Self>, String> {
        let sites: Vec<SiteName> = drawn.sites.iter().map(|(site, _)| site.clone()).collect();
        let mut stage = Self {
            drawn: drawn.clone(),
            machines,
            sink,
            sites: sites.clone(),
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            emptied: BTreeMap::new(),
            mutable: Mutex::default(),
        };
        for (number, site) in sites.iter().enumerate() {
            let config = Arc::new(drawn.site_config(number, site)?);
            for node in config.nodes.iter().map(|node| node.id) {
                stage.build_node(number, site, node, &config);
            }
            let ip = address(number, CLIENTS);
            let clients =
                Handle::current().create_node().name(format!("clients of {site}")).ip(ip).build();
            stage.machines.attach(clients.id(), ip);
            stage.clients.insert(site.clone(), clients.id());
        }
        stage.set_links();
        stage.set_disks();
        for clock in &drawn.clocks {
            let machine = stage.machine(&clock.node);
            let offset_ms = clock.offset.as_nanos() / 1_000_000;
            stage.machines.clocks().set_offset_ms(machine, offset_ms);
        }
        Ok(Arc::new(stage))
    }

    fn build_node(&mut self, number: usize, site: &SiteName, node: NodeId, config: &Arc<Config>) {
        let ip = address(number, [0, u8::try_from(node.get()).expect("few nodes")]);
        let machines = self.machines.clone();
        // Each node cuts the work of pipelines in its own way, so whoever takes one over compares what comes out.
        let mut config = Config::clone(config);
        config.pipelines.subtasks = 1 + ((self.drawn.stream_seed + node.get()) % 4) as u32;
        let config = Arc::new(config);
        let emptied = Arc::new(AtomicBool::new(false));
        let address = NodeAddress { site: site.clone(), node };
        self.emptied.insert(address.clone(), emptied.clone());
        let built = Handle::current()
            .create_node()
            .name(format!("node {node} of {site}"))
            .ip(ip)
            .init(move || {
                let machines = machines.clone();
                let config = config.clone();
                let emptied = emptied.clone();
                async move {
                    let host = machines.boot(madsim::plugin::node());
                    if emptied.load(Ordering::Relaxed) {
                        let prepared = fulmar_node::prepare_rejoin(&config, node, host.clone());
                        if let Err(error) = prepared.await {
                            host.fatal(ExitCode::Identity, error.to_string()).await
                        }
                        emptied.store(false, Ordering::Relaxed);
                    }
                    match fulmar_node::start(&config, node, host.clone()).await {
                        Ok(running) => {
                            let _running = running;
                            std::future::pending::<()>().await;
                        }
                        Err(error) => host.fatal(error.exit_code(), error.to_string()).await,
                    }
                }
            })
            .build();
        self.machines.attach(built.id(), ip);
        let papers = Papers {
            authority: Papers::authority_of(site.as_str()),
            name: certificate_name(site.as_str(), node),
            flaw: None,
        };
        self.machines.give_papers(built.id(), papers);
        let site_number = u16::try_from(number).expect("few sites");
        self.sink.name(site_number, site.clone());
        self.sink.introduce(built.id(), SiteNode { site: site_number, node });
        self.nodes.insert(address, built.id());
    }

    fn mutable(&self) -> MutexGuard<'_, Mutable> {
        self.mutable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a site, by which events name it.
    pub fn site_number(&self, site: &SiteName) -> u16 {
        let at = self.sites.iter().position(|known| known == site);
        u16::try_from(at.expect("targets name sites of the scenario")).expect("few sites")
    }

    /// A node as events name it.
    pub fn site_node(&self, node: &NodeAddress) -> SiteNode {
        SiteNode { site: self.site_number(&node.site), node: node.node }
    }

    /// The sites in the order of their numbers.
    pub fn sites(&self) -> &[SiteName] {
        &self.sites
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeAddress> {
        self.nodes.keys()
    }

    /// The machine of a node.
    pub fn machine(&self, node: &NodeAddress) -> Machine {
        *self.nodes.get(node).expect("targets name nodes of the scenario")
    }

    /// The machine of the clients of a site.
    pub fn client_machine(&self, site: &SiteName) -> Machine {
        *self.clients.get(site).expect("targets name sites of the scenario")
    }

    /// Where the clients of a site are.
    pub fn client_address(&self, site: &SiteName) -> IpAddr {
        address(usize::from(self.site_number(site)), CLIENTS)
    }

    /// Where clients of a site find its nodes.
    pub fn bootstrap(&self, site: &SiteName) -> Vec<SocketAddr> {
        let number = usize::from(self.site_number(site));
        (1..=self.drawn.sites.node_count(site))
            .map(|node| {
                let host = u8::try_from(node).expect("few nodes");
                SocketAddr::new(address(number, [0, host]), KAFKA_PORT)
            })
            .collect()
    }

    /// Who has which role, as of now.
    pub fn with_roles<T>(&self, look: impl FnOnce(&Roles<'_>) -> T) -> T {
        let leads = |site: &SiteName| {
            let leader = self.sink.leader(self.site_number(site))?;
            Some((site.clone(), leader))
        };
        let owns = |site: &SiteName| {
            let owner = self.sink.owner(self.site_number(site))?;
            Some((site.clone(), owner))
        };
        let leaders = self.sites.iter().filter_map(leads).collect();
        let owners = self.sites.iter().filter_map(owns).collect();
        look(&Roles { sites: &self.drawn.sites, leaders: &leaders, owners: &owners })
    }

    /// The nodes that are meant, as of now.
    pub fn resolve(&self, target: &Target) -> Vec<NodeAddress> {
        self.with_roles(|roles| roles.nodes(target))
    }

    /// The way between machines that a link stands for.
    pub fn way(&self, (from, to): &(Place, Place)) -> (Machine, Machine) {
        let machine = |place: &Place| match place {
            Place::Node(node) => self.machine(node),
            Place::Clients(site) | Place::Site(site) => self.client_machine(site),
        };
        (machine(from), machine(to))
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: &NodeAddress) -> bool {
        !self.mutable().status.get(node).copied().unwrap_or_default().down
    }

    /// Whether a node has ended for good, with damage that it refuses to go on with.
    pub fn is_gone(&self, node: &NodeAddress) -> bool {
        self.mutable().status.get(node).copied().unwrap_or_default().gone
    }

    /// Ends the process of a node. `false` if it is down already.
    pub fn take_down(&self, node: &NodeAddress, death: Death) -> bool {
        {
            let mut mutable = self.mutable();
            let status = mutable.status.entry(node.clone()).or_default();
            if status.down {
                return false;
            }
            if status.end() {
                self.machines.resume(self.machine(node));
            }
        }
        self.sink.killed(self.site_node(node));
        match death {
            Death::Crash => self.machines.crash(self.machine(node)),
            Death::PowerCut => self.machines.power_cut(self.machine(node)),
        }
        true
    }

    /// Empties the disk of a node, whose process ends; at its next start it rejoins. `false` if the
    /// node is down and may come back by itself, or if another one of its site has no vote or stays
    /// down: one node alone cannot keep what three had promised.
    pub fn wipe(&self, node: &NodeAddress) -> bool {
        let mut others = self.nodes.keys().filter(|at| at.site == node.site && *at != node);
        if others.any(|at| self.is_gone(at) || self.sink.view(self.site_node(at)).rejoins) {
            return false;
        }
        if !self.take_down(node, Death::Crash) && !self.is_gone(node) {
            return false;
        }
        self.mutable().status.entry(node.clone()).or_default().gone = false;
        self.machines.disks().wipe(self.machine(node));
        self.sink.wiped(self.site_node(node));
        self.emptied.get(node).expect("every node has one").store(true, Ordering::Relaxed);
        true
    }

    fn nodes_of(&self, site: &SiteName) -> Vec<NodeAddress> {
        self.nodes.keys().filter(|node| node.site == *site).cloned().collect()
    }

    /// Whether every node of a site is what it was set up as.
    fn is_whole(&self, site: &SiteName) -> bool {
        let lacks =
            |at: &NodeAddress| self.is_gone(at) || self.sink.view(self.site_node(at)).rejoins;
        !self.nodes_of(site).iter().any(lacks)
    }

    /// Copies the disks of a site, all at one moment. `None` if a node of it is damaged.
    pub fn copy_site(&self, site: &SiteName) -> Option<SiteCopy> {
        let disks = self.machines.disks();
        let copy = |node: NodeAddress| {
            let copy = disks.copy(self.machine(&node));
            (node, copy)
        };
        let disks = || self.nodes_of(site).into_iter().map(copy).collect();
        self.is_whole(site).then(|| SiteCopy { site: site.clone(), disks: disks() })
    }

    /// Ends all nodes of a site and puts their disks back to a copy. Returns the nodes, which are down;
    /// `None` if one was damaged since.
    pub fn put_back(&self, copy: &SiteCopy) -> Option<Vec<NodeAddress>> {
        if !self.is_whole(&copy.site) {
            return None;
        }
        for (node, disk) in &copy.disks {
            self.take_down(node, Death::Crash);
            self.machines.disks().put_back(self.machine(node), disk);
        }
        self.sink.put_back(self.site_number(&copy.site));
        Some(copy.disks.keys().cloned().collect())
    }

    /// Starts a node that is down, unless it is gone for good.
    pub async fn bring_up(&self, node: &NodeAddress) {
        madsim::time::sleep(REST).await;
        {
            let mut mutable = self.mutable();
            let status = mutable.status.entry(node.clone()).or_default();
            if !status.down || status.gone {
                return;
            }
            status.down = false;
        }
        self.sink.say(self.machines.now_ns(), || format!("{node} starts"));
        self.machines.restart(self.machine(node));
    }

    /// Says how long after it ends by itself a node is to be started again.
    pub fn restart_after(&self, node: &NodeAddress, after: Duration) {
        self.mutable().status.entry(node.clone()).or_default().restart_after = Some(after);
    }

    /// Looks after the processes that end by themselves, like a supervisor would: it starts them
    /// again, unless they ended because of damage that people have to look at.
    pub async fn supervise(self: Arc<Self>) {
        loop {
            let exit = self.sink.next_exit().await;
            let found = self.nodes.iter().find(|(_, machine)| **machine == exit.machine);
            let Some((node, _)) = found.map(|(node, machine)| (node.clone(), *machine)) else {
                continue;
            };
            if !self.take_down(&node, Death::Crash) {
                continue;
            }
            let stays_down =
                matches!(exit.code, ExitCode::Damaged | ExitCode::Identity | ExitCode::Diverged);
            let after = {
                let mut mutable = self.mutable();
                let status = mutable.status.entry(node.clone()).or_default();
                status.gone = stays_down;
                status.restart_after.take().unwrap_or(Duration::from_secs(1))
            };
            // The operation that failed does so once: the disk works when the node comes back.
            self.machines.disks().repair(exit.machine);
            if !stays_down {
                let stage = self.clone();
                drop(madsim::task::spawn(async move {
                    madsim::time::sleep(after).await;
                    stage.bring_up(&node).await;
                }));
            }
        }
    }

    /// Lets a node stand still. Returns which life of it does, for [`Stage::resume`]; `None` if it
    /// is down.
    pub fn pause(&self, node: &NodeAddress) -> Option<u32> {
        let mut mutable = self.mutable();
        let status = mutable.status.entry(node.clone()).or_default();
        if status.down {
            return None;
        }
        if status.pause() {
            self.machines.pause(self.machine(node));
        }
        Some(status.life)
    }

    /// Ends one pause of a life of a node, which goes on if no other lasts.
    pub fn resume(&self, node: &NodeAddress, life: u32) {
        let mut mutable = self.mutable();
        let status = mutable.status.entry(node.clone()).or_default();
        if status.resume(life) {
            self.machines.resume(self.machine(node));
        }
    }

    /// Heals everything and starts every node that is down.
    pub async fn heal(&self) {
        {
            let mut mutable = self.mutable();
            mutable.overlays.clear();
            mutable.slow.clear();
            mutable.full.clear();
        }
        self.machines.network().heal_all();
        self.set_links();
        self.set_disks();
        for (node, machine) in &self.nodes {
            self.machines.disks().repair(*machine);
            let status = self.mutable().status.get(node).copied().unwrap_or_default();
            for _ in 0..status.pauses {
                self.resume(node, status.life);
            }
        }
        let nodes: Vec<NodeAddress> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.bring_up(&node).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_with_the_life_that_it_began_in() {
        let mut status = Status::default();
        assert!(status.pause());
        assert!(!status.pause(), "it stands still already");
        let life = status.life;
        assert!(!status.resume(life), "another pause lasts");
        assert!(status.end(), "killed while it stood still");
        status.down = false;
        assert!(status.pause());
        assert!(!status.resume(life), "a pause of the life before");
        assert!(status.resume(status.life));
        assert!(!status.resume(status.life), "nothing is left to end");
        assert!(!status.end());
    }
}
