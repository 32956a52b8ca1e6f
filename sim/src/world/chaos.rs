//! Fires the faults of a scenario and takes them back.
//!
//! Every fault is a task of the harness: it waits for its trigger, fires if the chaos still lasts,
//! and heals when its time is over. A fault that changes nothing is not counted: it finds no leader,
//! the node is down already, its way is cut already, loses more or carries less anyway, nothing reads
//! from the disk, nobody connects.

use super::sink::Sink;
use super::stage::{Death, Overlay, Stage};
use crate::check::Harm;
use crate::disk::{DiskOp, PathMatch};
use crate::history::{History, Time};
use crate::scenario::fault::{Others, RotPlace, Which};
use crate::scenario::{
    Between, Direction, Drawn, Fault, FixedTrigger, Links, NodeAddress, Place, ScheduledFault,
    SiteName, Target, describe,
};
use fulmar_types::Probe;
use madsim::task::NodeId as Machine;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the harness looks whether a disk that was to fail has done so.
const ARMED_LOOK: Duration = Duration::from_millis(20);

/// A directed way between two machines.
type Way = (Machine, Machine);

/// The chaos of one run.
pub struct Chaos {
    stage: Arc<Stage>,
    history: Arc<Mutex<History>>,
    over: AtomicBool,
}

impl Chaos {
    /// Starts the timetable. Times count from now.
    pub fn begin(stage: Arc<Stage>, history: Arc<Mutex<History>>) -> Arc<Self> {
        let chaos = Arc::new(Self { stage, history, over: AtomicBool::new(false) });
        for scheduled in chaos.stage.drawn.faults.clone() {
            drop(madsim::task::spawn(chaos.clone().wait_and_fire(scheduled)));
        }
        chaos
    }

    /// No fault fires any more; those under way are healed by the stage.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn sink(&self) -> &Sink {
        &self.stage.sink
    }

    async fn wait_and_fire(self: Arc<Self>, scheduled: ScheduledFault) {
        match &scheduled.trigger {
            FixedTrigger::At(at) => madsim::time::sleep(at.0).await,
            FixedTrigger::After(after) => {
                let site = after.site.as_ref().map(|site| self.stage.site_number(site));
                let kind = after.of;
                // Events count from the start of the chaos.
                let before = self.sink().counted(kind, site);
                let target = before + u64::from(after.events.get());
                self.sink().wait_counted(kind, site, target).await;
            }
        }
        if !self.is_over() {
            self.fire(&scheduled.fault).await;
        }
    }

    fn took_effect(&self, fault: &Fault<Drawn>, what: &str) {
        self.sink().fault(fault.kind(), self.stage.machines.now_ns(), what);
    }

    /// Says in the trace that a fault that took effect is over.
    fn ended(&self, fault: &Fault<Drawn>, what: &str) {
        let now_ns = self.stage.machines.now_ns();
        self.sink().say(now_ns, || format!("fault {} is over: {what}", fault.kind()));
    }

    async fn last(&self, time: Duration) {
        madsim::time::sleep(time).await;
    }

    async fn fire(&self, fault: &Fault<Drawn>) {
        match fault {
            Fault::Crash(crash) => {
                self.die(fault, &crash.target, Death::Crash, (crash.down.0, crash.stagger.0)).await;
            }
            Fault::PowerCut(cut) => {
                self.die(fault, &cut.target, Death::PowerCut, (cut.down.0, cut.stagger.0)).await;
            }
            Fault::Pause(pause) => self.pause(fault, &pause.target, pause.lasts.0).await,
            Fault::Cut(cut) => {
                let links = self.links(&cut.between, cut.direction);
                self.cut(fault, &links, cut.lasts.0).await;
            }
            Fault::Isolate(isolate) => {
                let links = self.isolating(&isolate.target, isolate.others, isolate.direction);
                self.cut(fault, &links, isolate.lasts.0).await;
            }
            Fault::LatencySpike(spike) => {
                let links = self.links(&spike.between, spike.direction);
                let overlay = Overlay { delay: spike.by.0, ..Overlay::default() };
                self.overlay(fault, &links, overlay, spike.lasts.0).await;
            }
            Fault::Loss(loss) => {
                let links = self.links(&loss.between, loss.direction);
                let overlay = Overlay { loss_ppm: loss.share.ppm(), ..Overlay::default() };
                self.overlay(fault, &links, overlay, loss.lasts.0).await;
            }
            Fault::SlowLine(slow) => {
                let links = self.links(&slow.between, slow.direction);
                let bits_per_s = Some(slow.bandwidth.bits_per_s());
                let overlay = Overlay { bits_per_s, ..Overlay::default() };
                self.overlay(fault, &links, overlay, slow.lasts.0).await;
            }
            Fault::Reset(reset) => self.reset(fault, &reset.between, reset.which),
            Fault::Stall(stall) => self.stall(fault, &stall.between, stall.lasts.0).await,
            Fault::Refuse(refuse) => {
                let links = self.links(&refuse.between, refuse.direction);
                self.refuse(fault, &links, refuse.lasts.0).await;
            }
            Fault::HalfOpen(half_open) => self.half_open(fault, &half_open.between),
            Fault::SlowDisk(slow) => {
                self.slow_disk(fault, &slow.target, (slow.by.0, slow.lasts.0)).await;
            }
            Fault::DiskFull(full) => {
                self.disk_full(fault, &full.target, (full.leaves.0, full.lasts.0)).await;
            }
            Fault::FsyncError(error) => {
                self.fail_next(fault, &error.target, DiskOp::Sync, (1, error.down.0)).await;
            }
            Fault::ReadError(error) => {
                let reads = error.reads.get();
                self.fail_next(fault, &error.target, DiskOp::Read, (reads, error.down.0)).await;
            }
            Fault::ClockStep(step) => {
                let by_ms = step.by.as_nanos() / 1_000_000;
                let lasts = step.lasts.map(|lasts| lasts.0);
                self.clock_step(fault, &step.target, by_ms, lasts).await;
            }
            Fault::Wipe(wipe) => self.wipe(fault, &wipe.target, wipe.down.0).await,
            Fault::Restore(restore) => {
                self.restore(fault, &restore.target, (restore.age.0, restore.down.0)).await;
            }
            Fault::Rot(rot) => {
                let many = (rot.bits.get(), rot.down.0);
                self.rot(fault, &rot.target, rot.file, many);
            }
        }
    }

    async fn die(
        &self,
        fault: &Fault<Drawn>,
        target: &Target,
        death: Death,
        times: (Duration, Duration),
    ) {
        let (down, stagger) = times;
        let mut fallen = Vec::new();
        for node in self.stage.resolve(target) {
            if self.stage.take_down(&node, death) {
                self.took_effect(fault, &node.to_string());
                fallen.push(node);
            }
        }
        let mut wait = down;
        for node in fallen {
            self.last(wait).await;
            self.stage.bring_up(&node).await;
            wait = stagger;
        }
    }

    async fn wipe(&self, fault: &Fault<Drawn>, target: &Target, down: Duration) {
        for node in self.stage.resolve(target) {
            if self.stage.wipe(&node) {
                self.took_effect(fault, &node.to_string());
                self.last(down).await;
                self.stage.bring_up(&node).await;
            }
        }
    }

    /// Keeps a copy of the sites of a target, and puts them back to it later.
    async fn restore(&self, fault: &Fault<Drawn>, target: &Target, times: (Duration, Duration)) {
        let (age, down) = times;
        let nodes = self.stage.resolve(target);
        let sites: BTreeSet<SiteName> = nodes.into_iter().map(|node| node.site).collect();
        let copies: Vec<_> = sites.iter().filter_map(|site| self.stage.copy_site(site)).collect();
        let copied = Time(self.stage.machines.now_ns());
        self.last(age).await;
        if self.is_over() {
            return;
        }
        for copy in copies {
            let Some(nodes) = self.stage.put_back(&copy) else { continue };
            self.forget(&copy.site, copied);
            self.took_effect(fault, &format!("{}, to what it was at {copied}", copy.site));
            self.last(down).await;
            for node in nodes {
                self.stage.bring_up(&node).await;
            }
        }
    }

    /// What a site has answered since it was copied does not hold any more.
    fn forget(&self, site: &SiteName, copied: Time) {
        let now = Time(self.stage.machines.now_ns());
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.put_back(site.as_str(), (copied, now));
    }

    async fn pause(&self, fault: &Fault<Drawn>, target: &Target, lasts: Duration) {
        let mut paused = Vec::new();
        for node in self.stage.resolve(target) {
            if let Some(life) = self.stage.pause(&node) {
                self.took_effect(fault, &node.to_string());
                paused.push((node, life));
            }
        }
        self.last(lasts).await;
        for (node, life) in paused {
            self.stage.resume(&node, life);
            self.ended(fault, &node.to_string());
        }
    }

    /// The directed links between two ends.
    fn links(&self, between: &Between, direction: Direction) -> Links {
        self.stage.with_roles(|roles| roles.links(between, direction))
    }

    fn isolating(&self, target: &Target, others: Others, direction: Direction) -> Links {
        self.stage.with_roles(|roles| roles.links_to(target, others, direction))
    }

    fn ways(&self, links: &Links) -> Vec<Way> {
        links.iter().map(|link| self.stage.way(link)).collect()
    }

    /// Whether some ways that were cut just now leave a leader with a peer that it can only send
    /// to, or only hear.
    fn cut_leader_probe(&self, closed: &[Way]) {
        let network = self.stage.machines.network();
        for site in self.stage.sites() {
            let Some(leader) = self.sink().leader(self.stage.site_number(site)) else { continue };
            let leader = self.stage.machine(&NodeAddress { site: site.clone(), node: leader });
            let clients = self.stage.client_machine(site);
            let one_way = |(from, to): &Way| {
                (*from == leader && *to != clients || *to == leader && *from != clients)
                    && !network.is_cut(*to, *from)
            };
            if closed.iter().any(one_way) {
                self.sink().probe(Probe::LeaderCutOneWay);
            }
        }
    }

    async fn cut(&self, fault: &Fault<Drawn>, links: &Links, lasts: Duration) {
        let network = self.stage.machines.network();
        let open = |link: &&(Place, Place)| {
            let (from, to) = self.stage.way(link);
            !network.is_cut(from, to)
        };
        let closed: Links = links.iter().filter(open).cloned().collect();
        let ways = self.ways(links);
        for (from, to) in &ways {
            network.cut(*from, *to);
        }
        if !closed.is_empty() {
            self.took_effect(fault, &describe(&closed));
            self.cut_leader_probe(&self.ways(&closed));
        }
        self.last(lasts).await;
        if !self.is_over() {
            for (from, to) in &ways {
                network.heal(*from, *to);
            }
            if !closed.is_empty() {
                self.ended(fault, &describe(&closed));
            }
        }
    }

    async fn overlay(
        &self,
        fault: &Fault<Drawn>,
        links: &Links,
        overlay: Overlay,
        lasts: Duration,
    ) {
        let network = self.stage.machines.network();
        let worse = |link: &&(Place, Place)| {
            let (from, to) = self.stage.way(link);
            overlay.worsens(&network.link(from, to))
        };
        let worse: Links = links.iter().filter(worse).cloned().collect();
        if !worse.is_empty() {
            self.took_effect(fault, &describe(&worse));
        }
        let ways = self.ways(links);
        self.stage.overlay(&ways, overlay);
        self.last(lasts).await;
        self.stage.lift(&ways, overlay);
        if !worse.is_empty() {
            self.ended(fault, &describe(&worse));
        }
    }

    fn reset(&self, fault: &Fault<Drawn>, between: &Between, which: Which) {
        let links = self.links(between, Direction::Out);
        let (network, ways) = (self.stage.machines.network(), self.ways(&links));
        let broken: usize = match which {
            Which::All => ways.iter().map(|(from, to)| network.reset(*from, *to)).sum(),
            Which::One => network.reset_one(&ways),
        };
        if broken > 0 {
            self.took_effect(fault, &format!("{broken} ends of {}", describe(&links)));
        }
    }

    async fn stall(&self, fault: &Fault<Drawn>, between: &Between, lasts: Duration) {
        let links = self.links(between, Direction::Out);
        let (network, ways) = (self.stage.machines.network(), self.ways(&links));
        let Some(connection) = network.stall_one(&ways, lasts) else { return };
        let what = format!("connection {connection} of {}", describe(&links));
        self.took_effect(fault, &what);
        self.last(lasts).await;
        if !self.is_over() {
            self.ended(fault, &what);
        }
    }

    async fn refuse(&self, fault: &Fault<Drawn>, links: &Links, lasts: Duration) {
        let network = self.stage.machines.network();
        let ways = self.ways(links);
        let turned_away = || ways.iter().map(|(from, to)| network.turned_away(*from, *to)).sum();
        let before: u64 = turned_away();
        for (from, to) in &ways {
            network.refuse(*from, *to);
        }
        self.last(lasts).await;
        let met = turned_away() - before;
        if met > 0 {
            self.took_effect(fault, &format!("{met} connections, {}", describe(links)));
        }
        if !self.is_over() {
            for (from, to) in &ways {
                network.allow(*from, *to);
            }
        }
    }

    fn half_open(&self, fault: &Fault<Drawn>, between: &Between) {
        let mut forgotten = 0;
        let links = self.links(between, Direction::Out);
        for (from, to) in self.ways(&links) {
            forgotten += self.stage.machines.network().forget(from, to);
        }
        if forgotten > 0 {
            self.took_effect(fault, &format!("{forgotten} ends of {}", describe(&links)));
        }
    }

    /// The nodes of a target whose process runs.
    fn running(&self, target: &Target) -> Vec<NodeAddress> {
        let mut nodes = self.stage.resolve(target);
        nodes.retain(|node| self.stage.is_up(node));
        nodes
    }

    async fn slow_disk(&self, fault: &Fault<Drawn>, target: &Target, times: (Duration, Duration)) {
        let (by, lasts) = times;
        let nodes = self.running(target);
        for node in &nodes {
            self.took_effect(fault, &node.to_string());
            self.stage.slow_disk(node, by);
        }
        self.last(lasts).await;
        for node in &nodes {
            self.stage.fast_disk(node, by);
            self.ended(fault, &node.to_string());
        }
    }

    async fn disk_full(&self, fault: &Fault<Drawn>, target: &Target, much: (u64, Duration)) {
        let (leaves_bytes, lasts) = much;
        let nodes = self.running(target);
        let mut filled = Vec::new();
        for node in &nodes {
            self.took_effect(fault, &node.to_string());
            filled.push(self.stage.fill_disk(node, leaves_bytes));
        }
        self.last(lasts).await;
        for (node, capacity_bytes) in nodes.iter().zip(filled) {
            self.stage.free_disk(node, capacity_bytes);
            self.ended(fault, &node.to_string());
        }
    }

    /// Makes the next operations of a kind fail. The fault takes effect with the first of them,
    /// which may be long after, or never.
    async fn fail_next(
        &self,
        fault: &Fault<Drawn>,
        target: &Target,
        operation: DiskOp,
        many: (u32, Duration),
    ) {
        let (count, down) = many;
        let disks = self.stage.machines.disks();
        let mut armed = Vec::new();
        for node in self.running(target) {
            self.stage.restart_after(&node, down);
            let machine = self.stage.machine(&node);
            armed.push((node, disks.fail_next(machine, operation, count, any_path())));
        }
        while !armed.is_empty() && !self.is_over() {
            self.last(ARMED_LOOK).await;
            armed.retain(|(node, met)| {
                let met = met.load(Ordering::Relaxed);
                if met {
                    self.took_effect(fault, &node.to_string());
                }
                !met
            });
        }
    }

    async fn clock_step(
        &self,
        fault: &Fault<Drawn>,
        target: &Target,
        by_ms: i64,
        lasts: Option<Duration>,
    ) {
        // Clocks tell whole milliseconds.
        if by_ms == 0 {
            return;
        }
        let nodes = self.running(target);
        for node in &nodes {
            self.took_effect(fault, &node.to_string());
            self.stage.machines.clocks().step_ms(self.stage.machine(node), by_ms);
        }
        let Some(lasts) = lasts else { return };
        self.last(lasts).await;
        for node in &nodes {
            self.stage.machines.clocks().step_ms(self.stage.machine(node), -by_ms);
            self.ended(fault, &node.to_string());
        }
    }

    fn rot(&self, fault: &Fault<Drawn>, target: &Target, place: RotPlace, many: (u32, Duration)) {
        let (bits, down) = many;
        for node in self.stage.resolve(target) {
            let machine = self.stage.machine(&node);
            let disks = self.stage.machines.disks();
            let matches = files_of(place, disks.files(machine).into_iter().map(|(path, _)| path));
            // Rot in the last flushed group of the log looks like a torn write (ARCHITECTURE, "Not
            // covered"), so it is outside of what the checks demand.
            let spare_latest = matches!(place, RotPlace::ActiveSegment | RotPlace::Anywhere);
            let rotten = disks.rot(machine, bits, matches, spare_latest);
            if let Some(first) = rotten.first() {
                self.took_effect(fault, &format!("{node}, {}", first.path.display()));
                self.sink().harmed(self.stage.site_node(&node), Harm::Rot);
                self.stage.restart_after(&node, down);
            }
        }
    }
}

fn any_path() -> PathMatch {
    Arc::new(|_: &Path| true)
}

/// The files that a place stands for, by the names that the store gives them.
fn files_of(place: RotPlace, files: impl Iterator<Item = PathBuf>) -> PathMatch {
    let extension = |path: &Path, wanted: &str| path.extension().is_some_and(|e| e == wanted);
    // Named by their first index in a fixed width, so the last one is the one that is written.
    let is_segment = move |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        extension(path, "seg") && name.starts_with(|first: char| first.is_ascii_digit())
    };
    let active = files.filter(|path| is_segment(path)).max();
    match place {
        RotPlace::Anywhere => any_path(),
        RotPlace::ActiveSegment => Arc::new(move |path: &Path| Some(path) == active.as_deref()),
        RotPlace::SealedSegment => {
            Arc::new(move |path: &Path| is_segment(path) && Some(path) != active.as_deref())
        }
        RotPlace::Snapshot => Arc::new(move |path: &Path| extension(path, "snap")),
        RotPlace::Vote => Arc::new(|path: &Path| path.ends_with("vote")),
    }
}
