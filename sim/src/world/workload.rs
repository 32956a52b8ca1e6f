//! The clients of all sites: where they run, what each is told to do, and how they end.
//!
//! The clients of a site run on one machine of their own, and speak Kafka to the same listener that every client
//! meets. Each has connections of its own and a stream of random numbers of its own (`client.rs`). What they call
//! and what they are answered goes into the history, with virtual times.
//!
//! Invariants: every record is unique, because its value names its producer and its number; topics are
//! there before anybody begins.

use super::client::Client;
use super::eavesdrop::{Eavesdropper, For};
use super::line::Line;
use super::mirroring::{Mirrors, later};
use super::operator::Operator;
use super::pipelines::Pipelines;
use super::reading::Reader;
use super::secrets::Secrecy;
use super::series::Series;
use super::stage::Stage;
use super::stranger::{Knocking, Waiting, Welcomed};
use crate::history::{ClientId, History, PartitionName};
use crate::prng::Prng;
use crate::report::{Canaries, Verdict};
use crate::scenario::workload::{Impostor, Mirror, Stranger};
use crate::scenario::{Drawn, Fault, LINK_PORT, SiteName, Workload};
use fulmar_client::admin::CreateTopicError;
use fulmar_client::{Cluster, Settings};
use fulmar_host::Host;
use fulmar_types::PartitionIndex;
use madsim::runtime::Handle;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How long a client waits for the answer to a read.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// A topic of a site.
pub type SiteTopic = (SiteName, String);

/// All clients of a run.
pub struct Workloads {
    stage: Arc<Stage>,
    history: Arc<Mutex<History>>,
    hosts: Mutex<BTreeMap<SiteName, Host>>,
    stop: Arc<AtomicBool>,
    busy: Arc<Semaphore>,
    next_client: AtomicU32,
    /// By site and name, since several workloads may produce to one topic.
    series: BTreeMap<SiteTopic, Arc<Series>>,
    mirrors: Mirrors,
    welcomed: Welcomed,
    secrecy: Secrecy,
    ear: Eavesdropper,
    pipelines: Pipelines,
}

/// More clients than any scenario has: each holds a permit while it works.
const CLIENTS_MAX: u32 = 100_000;

impl Workloads {
    /// The clients of a scenario; none has begun.
    pub fn new(stage: Arc<Stage>, history: Arc<Mutex<History>>) -> Self {
        let mut series = BTreeMap::new();
        for workload in &stage.drawn.workloads {
            if let Workload::Produce(produce) = workload {
                let key = (produce.site.clone(), produce.topic.as_str().to_owned());
                series.entry(key).or_insert_with(|| Arc::new(Series::new(produce)));
            }
        }
        let mirrors = Mirrors::new(&stage.drawn.workloads);
        let is_turned = |workload: &Workload<Drawn>| match workload {
            Workload::Mirror(mirror) => mirror.rule_for.is_some(),
            _ => false,
        };
        let ear = Eavesdropper::new(For {
            tokens: stage.drawn.workloads.iter().any(|of| matches!(of, Workload::Secrets(_))),
            departures: stage.drawn.workloads.iter().any(is_turned),
        });
        Self {
            mirrors,
            welcomed: Welcomed::default(),
            secrecy: Secrecy::new(&stage.drawn.workloads, ear.clone(), stage.drawn.stream_seed),
            ear,
            pipelines: Pipelines::new(&stage.drawn.workloads, stage.drawn.stream_seed),
            stage,
            history,
            series,
            hosts: Mutex::default(),
            stop: Arc::default(),
            busy: Arc::new(Semaphore::new(CLIENTS_MAX as usize)),
            next_client: AtomicU32::new(0),
        }
    }

    /// Every topic that clients produce to at this moment.
    pub fn topics(&self) -> BTreeSet<SiteTopic> {
        self.series.values().map(|series| (series.site.clone(), series.current())).collect()
    }

    /// Boots the client machines and creates the topics.
    pub async fn prepare(&self) {
        for site in self.stage.sites() {
            let host = self.boot(site).await;
            self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), host);
        }
        for series in self.series.values() {
            let cluster = self.cluster(&series.site);
            let topic = series.current();
            note_kept(&self.history, series, &topic);
            while !create(&cluster, &topic, series).await {
                madsim::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // Whoever else knocks at such a port is no part of a link.
        let nodes = self.stage.nodes().map(|node| self.stage.machine(node)).collect();
        self.stage.machines.network().meter(LINK_PORT, nodes);
        if self.ear.listens() {
            self.stage.machines.overhear(Arc::new(self.ear.clone()));
        }
        self.mirrors.lay_down(self).await;
        self.secrecy.lay_down(self).await;
        self.pipelines.lay_down(self).await;
    }

    /// The partitions of a topic that somebody produces to.
    pub(super) fn partitions(&self, site: &SiteName, topic: &str) -> u32 {
        let series = self.series.get(&(site.clone(), topic.to_owned()));
        series.expect("checked with the scenario: somebody produces to it").partitions
    }

    /// What the run takes place on.
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// What was at stake where a rule withholds something.
    pub(super) fn canaries(&self) -> Option<Canaries> {
        self.secrecy.counted()
    }

    /// What was heard at the lines between sites.
    pub(super) fn ear(&self) -> &Eavesdropper {
        &self.ear
    }

    /// What was seen of the line between sites.
    pub(super) fn line(&self) -> &Line {
        self.mirrors.line()
    }

    /// What the clients saw.
    pub(super) fn history(&self) -> &Mutex<History> {
        &self.history
    }

    /// Whether no stranger was welcomed; then compares the mirrors with their origins, which have been
    /// read back, and what pipelines gave with the reference.
    pub(super) async fn compare(&self, deadline_ns: u64) -> Option<Verdict> {
        if let Some(verdict) = self.welcomed.verdict() {
            return Some(verdict);
        }
        self.ear.over();
        if let Some(verdict) = self.secrecy.crossed() {
            return Some(verdict);
        }
        let deadline_ns = later(deadline_ns, &self.stage);
        if let Some(verdict) = self.mirrors.compare(self, deadline_ns).await {
            return Some(verdict);
        }
        match self.secrecy.verdict(self, deadline_ns).await {
            Some(verdict) => Some(verdict),
            None => self.pipelines.verdict(self, deadline_ns).await,
        }
    }

    async fn boot(&self, site: &SiteName) -> Host {
        let machine = self.stage.client_machine(site);
        let node = Handle::current().get_node(machine).expect("the stage built it");
        let machines = self.stage.machines.clone();
        let (sender, receiver) = oneshot::channel();
        drop(node.spawn(async move {
            let _ = sender.send(machines.boot(machine));
        }));
        receiver.await.expect("the client machine is up")
    }

    /// A client of a site, with connections of its own.
    pub fn cluster(&self, site: &SiteName) -> Cluster {
        self.cluster_of(site, self.stage.bootstrap(site))
    }

    /// For each node of a site a client that has heard of no other.
    fn one_by_one(&self, site: &SiteName) -> Vec<Cluster> {
        let addresses = self.stage.bootstrap(site).into_iter();
        addresses.map(|address| self.cluster_of(site, vec![address])).collect()
    }

    fn host(&self, site: &SiteName) -> Host {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(site).expect("the client machines are booted first").clone()
    }

    fn cluster_of(&self, site: &SiteName, bootstrap: Vec<SocketAddr>) -> Cluster {
        let host = self.host(site);
        let settings = Settings {
            client_id: "sim".to_owned(),
            request_timeout: Duration::from_secs(3),
            ..Settings::default()
        };
        Cluster::new(host.network, bootstrap, settings)
    }

    /// Starts all clients.
    pub fn begin(&self) {
        let workloads = self.stage.drawn.workloads.clone();
        for (number, workload) in workloads.iter().enumerate() {
            let (site, clients) = match workload {
                Workload::Produce(produce) => (&produce.site, produce.clients.get()),
                Workload::Read(read) => (&read.site, read.clients.get()),
                Workload::ListOffsets(list) => (&list.site, list.clients.get()),
                Workload::ListTopics(list) => (&list.site, list.clients.get()),
                Workload::ForeignIds(foreign) => (&foreign.site, foreign.clients.get()),
                Workload::TopicChurn(churn) => (&churn.site, 1),
                Workload::Mirror(mirror) => (&mirror.site, 1),
                Workload::Stranger(stranger) => (&stranger.site, 1),
                Workload::Impostor(impostor) => (&impostor.site, 1),
                Workload::Secrets(secrets) => (&secrets.site, 1),
                Workload::Pipeline(of) => (of.fed_from.as_ref().unwrap_or(&of.site), 1),
            };
            for index in 0..clients.max(1) {
                let client = self.client(site, clients.max(1), &format!("{number}/{index}"));
                self.start(workload.clone(), client);
            }
        }
        for (key, series) in &self.series {
            if let Some(renew) = series.renew {
                let client = self.client(&series.site, 1, &format!("renew/{}", key.1));
                self.on_client_machine(&series.site, client.renew(series.clone(), renew));
            }
            if let Some(from) = series.kept_from {
                let client = self.client(&series.site, 1, &format!("retention/{}", key.1));
                self.on_client_machine(&series.site, client.limit(series.clone(), from));
            }
        }
        self.watch_lines();
        self.look_after();
    }

    /// Watches the lines between sites, from beside the machines.
    fn watch_lines(&self) {
        for watching in self.mirrors.watching(self, &self.stage) {
            drop(madsim::task::spawn(watching.run()));
        }
    }

    /// Whether a site was put back to an older copy of itself.
    pub(super) fn was_put_back(&self, site: &SiteName) -> bool {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.was_put_back(site.as_str())
    }

    /// Looks after the sites that are put back, to the end of the run.
    fn look_after(&self) {
        let mut faults = self.stage.drawn.faults.iter();
        if !faults.any(|scheduled| matches!(scheduled.fault, Fault::Restore(_))) {
            return;
        }
        for site in self.stage.sites() {
            let (links, rules) = self.mirrors.of_site(site, &self.stage);
            let operator = Operator {
                site: self.stage.site_number(site),
                cluster: self.cluster(site),
                sink: self.stage.sink.clone(),
                links,
                rules,
                secrets: self.secrecy.of_site(site),
                copies: self.secrecy.copies_at(site),
                prng: Prng::new(self.stage.drawn.stream_seed, &format!("operator/{site}")),
            };
            let machine = self.stage.client_machine(site);
            let node = Handle::current().get_node(machine).expect("the stage built it");
            drop(node.spawn(operator.run()));
        }
    }

    fn client(&self, site: &SiteName, clients: u32, stream: &str) -> Client {
        Client {
            id: ClientId(self.next_client.fetch_add(1, Ordering::Relaxed)),
            site: site.clone(),
            clients,
            cluster: self.cluster(site),
            stage: self.stage.clone(),
            history: self.history.clone(),
            stop: self.stop.clone(),
            prng: Prng::new(self.stage.drawn.stream_seed, &format!("workload/{stream}")),
        }
    }

    /// Runs something on the machine of the clients; the run waits for its end.
    fn on_client_machine(&self, site: &SiteName, work: impl Future<Output = ()> + Send + 'static) {
        let permit = self.busy.clone().try_acquire_owned().expect("no scenario has so many");
        let machine = self.stage.client_machine(site);
        let node = Handle::current().get_node(machine).expect("the stage built it");
        drop(node.spawn(async move {
            let _permit = permit;
            work.await;
        }));
    }

    fn start(&self, workload: Workload<Drawn>, client: Client) {
        let site = client.site.clone();
        let series = |topic: &str| {
            let series = self.series.get(&(site.clone(), topic.to_owned()));
            series.expect("checked with the scenario: somebody produces to it").clone()
        };
        match workload {
            Workload::Produce(produce) => {
                let series = series(produce.topic.as_str());
                self.on_client_machine(&site, client.produce(produce, series));
            }
            Workload::Read(read) => {
                let partitions = series(read.topic.as_str()).partitions;
                self.on_client_machine(&site, client.read(read, partitions));
            }
            Workload::ListOffsets(list) => {
                let partitions = series(list.topic.as_str()).partitions;
                self.on_client_machine(&site, client.list_offsets(list, partitions));
            }
            Workload::ListTopics(list) => {
                let nodes = self.one_by_one(&site);
                self.on_client_machine(&site, client.list_topics(list, nodes));
            }
            Workload::ForeignIds(foreign) => {
                let partitions = series(foreign.topic.as_str()).partitions;
                self.on_client_machine(&site, client.foreign_ids(foreign, partitions));
            }
            Workload::TopicChurn(churn) => self.on_client_machine(&site, client.churn(churn)),
            Workload::Mirror(mirror) => self.start_mirror(&mirror, client),
            Workload::Impostor(impostor) => self.start_impostor(impostor, client),
            Workload::Stranger(stranger) => self.start_stranger(stranger, client),
            Workload::Pipeline(pipeline) => {
                let piping = self.pipelines.piping(&pipeline);
                let stop = client.stop.clone();
                let (stopped, at) = (move || stop.load(Ordering::Relaxed), &pipeline.site);
                let remembering = piping.clone().remember(self.cluster(at), stopped.clone());
                self.on_client_machine(at, remembering);
                let retrying = piping.clone().retry(self.cluster(at), stopped.clone());
                self.on_client_machine(at, retrying);
                if let Some(bytes_max) = piping.memory(&self.stage) {
                    let weighing = piping.tending(self.cluster(at));
                    self.on_client_machine(at, weighing.weigh(bytes_max, stopped.clone()));
                }
                if let Some(tend) = pipeline.tend {
                    let (how, stream) = ((tend, pipeline.tend_every.0), &pipeline.name);
                    let prng = self.client(at, 1, &format!("tend/{stream}")).prng;
                    let tending = piping.tending(self.cluster(at));
                    self.on_client_machine(at, tending.run(how, prng, stopped.clone()));
                }
                self.on_client_machine(&site, piping.run(client.cluster, client.prng, stopped));
            }
            Workload::Secrets(secrets) => {
                let keeping = self.secrecy.keeping(&secrets);
                let stop = client.stop.clone();
                let stopped = move || stop.load(Ordering::Relaxed);
                self.on_client_machine(&site, keeping.run(client.cluster, client.prng, stopped));
            }
        }
    }

    fn start_mirror(&self, mirror: &Mirror<Drawn>, client: Client) {
        let of = (mirror.of.clone(), mirror.topic.as_str().to_owned());
        let series = self.series.get(&of).expect("checked with the scenario");
        let reading = self.mirrors.reading(mirror, series.partitions);
        let reading = reading(client.cluster, client.prng);
        let stop = client.stop.clone();
        let stopped = move || stop.load(Ordering::Relaxed);
        let machines = self.stage.machines.clone();
        self.on_client_machine(&mirror.site, reading.run(move || machines.now_ns(), stopped));
        if let Some(turning) = self.mirrors.turning(mirror) {
            let turning = turning(self.cluster(&mirror.of), self.stage.clone());
            let stop = client.stop.clone();
            let stopped = move || stop.load(Ordering::Relaxed);
            self.on_client_machine(&mirror.of, turning.run(stopped));
        }
        if let Some(swapping) = self.mirrors.swapping(mirror, self.cluster(&mirror.of)) {
            let stop = client.stop.clone();
            let stopped = move || stop.load(Ordering::Relaxed);
            self.on_client_machine(&mirror.of, swapping.run(stopped));
        }
        if let Some(naming) = self.mirrors.naming(mirror, self.cluster(&mirror.site), &self.stage) {
            let stop = client.stop.clone();
            let stopped = move || stop.load(Ordering::Relaxed);
            self.on_client_machine(&mirror.site, naming.run(stopped));
        }
        let there = (self.cluster(&mirror.site), self.stage.clone());
        if let Some(declining) = self.mirrors.declining(mirror, there) {
            let stop = client.stop;
            let stopped = move || stop.load(Ordering::Relaxed);
            self.on_client_machine(&mirror.site, declining.run(stopped));
        }
    }

    fn start_impostor(&self, impostor: Impostor<Drawn>, client: Client) {
        let site = client.site;
        let machine = self.stage.client_machine(&site);
        let waiting = Waiting {
            network: self.host(&site).links,
            at: self.stage.client_address(&site),
            claims: impostor.claims,
            prng: client.prng,
            welcomed: self.welcomed.clone(),
        };
        self.stage.machines.give_papers(machine, waiting.papers());
        let stop = client.stop;
        self.on_client_machine(&site, waiting.run(move || stop.load(Ordering::Relaxed)));
    }

    fn start_stranger(&self, stranger: Stranger<Drawn>, client: Client) {
        let site = client.site;
        let (machines, machine) = (self.stage.machines.clone(), self.stage.client_machine(&site));
        let knocking = Knocking {
            network: self.host(&site).links,
            doors: self.stage.bootstrap(&site).iter().map(SocketAddr::ip).collect(),
            stranger,
            prng: client.prng,
            welcomed: self.welcomed.clone(),
            show: move |papers| machines.give_papers(machine, papers),
        };
        let stop = client.stop;
        self.on_client_machine(&site, knocking.run(move || stop.load(Ordering::Relaxed)));
    }

    /// Tells the clients to stop, and waits until the last one has the outcome of its last call.
    pub async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let _all = self.busy.acquire_many(CLIENTS_MAX).await;
    }

    /// Reads every partition from its first offset to its end, and writes it into the history. One
    /// that cannot be read does not hide what is wrong with the others.
    ///
    /// # Errors
    /// The first partition that could not be read, and why.
    pub async fn read_back(&self) -> Result<(), String> {
        let mut whole = Ok(());
        for series in self.series.values() {
            let reader = Reader {
                id: ClientId::LAST_READER,
                site: &series.site,
                cluster: &self.cluster(&series.site),
                stage: &self.stage,
                history: &self.history,
            };
            for topic in series.living() {
                whole = whole.and(reader.read_back(&topic, series.partitions).await);
            }
        }
        whole
    }
}

/// Notes how long the records of a topic are kept, before anybody can write to it.
pub(super) fn note_kept(history: &Mutex<History>, series: &Series, topic: &str) {
    let Some(kept) = series.kept_at_first() else { return };
    let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
    for partition in (0..series.partitions).map(PartitionIndex) {
        let (site, topic) = (series.site.as_str().to_owned(), topic.to_owned());
        history.keep(PartitionName { site, topic, partition }, kept);
    }
}

pub(super) async fn create(cluster: &Cluster, topic: &str, series: &Series) -> bool {
    let (partitions, settings) = (series.partitions, series.settings());
    let limit = Duration::from_secs(2);
    let created = cluster.create_topic_with(topic, partitions, &settings, limit).await;
    matches!(created, Ok(_) | Err(CreateTopicError::Exists))
}
