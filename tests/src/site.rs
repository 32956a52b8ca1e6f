//! Real nodes on loopback.
//!
//! Invariants: one site, or one pair, at a time per process, because the tests measure what they wait for; every
//! node is dead when its site is dropped; the directory of a failed test stays, and its path is
//! printed.
//!
//! Never: a sleep in the place of a condition. A node is ready when its Kafka port answers.

use crate::cargo;
use crate::kafka::{Client, Metadata};
use crate::power_cut::{Lost, PowerCut};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a site may take until it answers: a start, a recovery and an election, on a busy
/// machine.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The numbers of the nodes.
pub const NODES: [i32; 3] = [1, 2, 3];

/// The binary `fulmar`, built once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| cargo::build("fulmar-node", "fulmar"))
}

/// A directory of its own for a test.
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Scratch {
    /// Makes it, once no other test of this process has one.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(name: &str) -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("fulmar-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        let path = path.canonicalize().expect("it was just made");
        Self { path, _one_at_a_time: guard }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("what the nodes wrote is in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How a node is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// As it is.
    #[default]
    Plain,
    /// With a journal of what it has not flushed.
    PowerCut,
    /// As before, and its flushes do nothing.
    LyingFlush,
    /// With a trace of its system calls, beside its data.
    Strace,
    /// With a log that nothing can be written to, as on a full disk.
    FullLog,
}

/// One node.
struct Node {
    id: i32,
    kafka: SocketAddr,
    link: SocketAddr,
    http: SocketAddr,
    power_cut: PowerCut,
    running: Option<Running>,
}

struct Running {
    /// The node, or the tracer above it.
    child: Child,
    traced: bool,
}

/// Three nodes.
pub struct Site {
    nodes: Vec<Node>,
    directory: PathBuf,
    /// `None` for one that lies in the directory of another.
    scratch: Option<Scratch>,
}

impl Site {
    /// Prepares a site; nothing is started. `extra` is put at the end of its configuration.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn new(name: &str, extra: &str) -> Self {
        let scratch = Scratch::new(name);
        let mut site = Self::prepare(&scratch.path, name, extra, false);
        site.scratch = Some(scratch);
        site
    }

    /// Prepares two sites whose nodes listen for each other. The second lies in the directory of the
    /// first, and has to be dropped before it.
    ///
    /// # Panics
    /// If their files cannot be written.
    pub fn pair(names: [&str; 2], extra: &str) -> [Self; 2] {
        let scratch = Scratch::new(names[0]);
        let within = scratch.path.join(names[1]);
        fs::create_dir_all(&within).expect("a directory in a temporary one");
        let mut first = Self::prepare(&scratch.path, names[0], extra, true);
        first.scratch = Some(scratch);
        [first, Self::prepare(&within, names[1], extra, true)]
    }

    fn prepare(directory: &Path, name: &str, extra: &str, has_links: bool) -> Self {
        let ports = free_ports(4 * NODES.len());
        let mut config = format!("site = \"{name}\"\n");
        let mut nodes = Vec::new();
        for (id, ports) in NODES.into_iter().zip(ports.chunks(4)) {
            let data = directory.join(format!("node-{id}"));
            config.push_str(&format!(
                "\n[[node]]\nid = {id}\ndata = \"{}\"\nkafka = \"{}\"\npeer = \"{}\"\nhttp = \"{}\"\n",
                data.display(),
                ports[0],
                ports[1],
                ports[3]
            ));
            if has_links {
                config.push_str(&format!("link = \"{}\"\n", ports[2]));
            }
            let side = directory.join(format!("node-{id}.undo"));
            let power_cut = PowerCut::new(&data, &side).expect("directories for a node");
            let (kafka, link, http) = (ports[0], ports[2], ports[3]);
            nodes.push(Node { id, kafka, link, http, power_cut, running: None });
        }
        config.push_str(extra);
        let site = Self { nodes, directory: directory.to_owned(), scratch: None };
        fs::write(site.config(), config).expect("the configuration");
        site
    }

    /// Where its nodes listen for another site, as a link takes them.
    pub fn links(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.link.to_string()).collect();
        addresses.join(",")
    }

    /// What a node answers over HTTP: the status, and what it says.
    ///
    /// # Errors
    /// If it does not answer, or what it answers is not HTTP.
    pub fn http(&self, id: i32, path: &str) -> io::Result<(u16, String)> {
        let node = self.nodes.iter().find(|node| node.id == id);
        let address = node.unwrap_or_else(|| panic!("there is no node {id}")).http;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let unclear = || io::Error::other(format!("no answer of HTTP: {answer}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unclear)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(unclear)?, body.to_owned()))
    }

    /// The values of the metrics of a node, by name and labels.
    ///
    /// # Panics
    /// If it does not tell them.
    pub fn metrics(&self, id: i32) -> BTreeMap<String, f64> {
        let (status, text) = self.http(id, "/metrics").expect("it answers");
        assert_eq!(status, 200, "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        samples.map(|line| sample(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }

    /// Waits until a node says that it can serve, or that it cannot, with this in its reason.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_health(&self, id: i32, status: u16, reason: &str) {
        let said = eventually(|| match self.http(id, "/readyz")? {
            (found, text) if found == status && text.contains(reason) => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        });
        said.unwrap_or_else(|error| panic!("node {id}, {status} {reason}: {error}"));
    }

    /// The configuration of the site.
    pub fn config(&self) -> PathBuf {
        self.directory.join("site.toml")
    }

    /// The directory of the site: configuration, data, logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the trace of a node is: one file per thread, with this prefix.
    pub fn trace_prefix(&self, id: i32) -> PathBuf {
        self.directory.join(format!("strace-{id}"))
    }

    /// Where a node keeps its data.
    pub fn data(&self, id: i32) -> PathBuf {
        self.directory.join(format!("node-{id}"))
    }

    /// The Kafka addresses, as clients take them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.kafka.to_string()).collect();
        addresses.join(",")
    }

    /// The Kafka address of a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn kafka(&self, id: i32) -> SocketAddr {
        let found = self.nodes.iter().find(|node| node.id == id);
        found.map(|node| node.kafka).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    fn node(&mut self, id: i32) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// Starts a node; it need not be ready yet.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn start(&mut self, id: i32, how: How) {
        let log = match how {
            How::FullLog => PathBuf::from("/dev/full"),
            _ => self.directory.join(format!("node-{id}.log")),
        };
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let mut command = match how {
            How::Strace => crate::strace::command(binary(), &self.trace_prefix(id)),
            _ => Command::new(binary()),
        };
        let config = self.config();
        let node = self.node(id);
        assert!(node.running.is_none(), "node {id} runs already");
        if matches!(how, How::PowerCut | How::LyingFlush) {
            node.power_cut.watch(&mut command, how == How::LyingFlush);
        }
        if how == How::FullLog {
            command.env("FULMAR_LOG", "debug");
        }
        let child = command
            .arg("node")
            .arg("--config")
            .arg(config)
            .args(["--id", &id.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("a node starts");
        node.running = Some(Running { child, traced: how == How::Strace });
    }

    /// Starts all nodes.
    pub fn start_all(&mut self, how: How) {
        for id in NODES {
            self.start(id, how);
        }
    }

    /// Kills a node with SIGKILL and waits until it is dead.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, id: i32) {
        self.kill_each(&[id]);
    }

    /// Kills all nodes with SIGKILL, as nearly at once as can be, and waits until they are dead.
    pub fn kill_all(&mut self) {
        self.kill_each(&NODES);
    }

    fn kill_each(&mut self, ids: &[i32]) {
        let is_meant = |node: &&mut Node| ids.contains(&node.id) && node.running.is_some();
        let mut running: Vec<&mut Node> = self.nodes.iter_mut().filter(is_meant).collect();
        let pids: Vec<u32> =
            running.iter().flat_map(|node| node.running.as_ref().map(Running::pid)).collect();
        for pid in pids {
            signal(pid, libc::SIGKILL);
        }
        for node in &mut running {
            let mut dead = node.running.take().expect("it was running");
            dead.child.wait().expect("a child can be waited for");
        }
    }

    /// Takes back what the dead nodes had not flushed.
    ///
    /// # Panics
    /// If a file cannot be restored.
    pub fn cut_power(&self) -> Lost {
        let mut total = Lost::default();
        for node in &self.nodes {
            assert!(node.running.is_none(), "node {} is not dead", node.id);
            let lost = node.power_cut.cut().expect("what was lost can be taken back");
            total.writes += lost.writes;
            total.names += lost.names;
        }
        total
    }

    /// Waits until every node that runs answers on its Kafka port.
    ///
    /// # Panics
    /// If one has ended, or does not answer in time.
    pub fn wait_ready(&mut self) {
        for node in &mut self.nodes {
            let Some(running) = &mut node.running else { continue };
            let (id, address) = (node.id, node.kafka);
            let answers = eventually(|| {
                if let Some(status) = running.child.try_wait().expect("a child can be asked") {
                    panic!("node {id} has ended: {status}");
                }
                Client::connect(address)?.api_versions()
            });
            if let Err(error) = answers {
                panic!("node {id} does not answer on {address}: {error}");
            }
        }
    }

    /// What the site says about a topic, once every partition has a leader that runs.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn metadata(&self, topic: &str) -> Metadata {
        let running = self.nodes.iter().filter(|node| node.running.is_some());
        let running: Vec<(i32, SocketAddr)> = running.map(|node| (node.id, node.kafka)).collect();
        let found = eventually(|| {
            let mut last = io::Error::from(io::ErrorKind::NotConnected);
            for (_, address) in &running {
                let asked = Client::connect(*address).and_then(|mut c| c.metadata(topic));
                match asked {
                    Ok(metadata) => {
                        let led = |leader| running.iter().any(|(id, _)| *id == leader);
                        let partitions = &metadata.partitions;
                        if !partitions.is_empty() && partitions.iter().all(|p| led(p.leader)) {
                            return Ok(metadata);
                        }
                        last = io::Error::other(format!("no leader yet: {metadata:?}"));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        found.unwrap_or_else(|error| panic!("topic {topic} has no leader: {error}"))
    }

    /// Creates a topic, on whichever node can.
    ///
    /// # Panics
    /// If none can in time.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let created = eventually(|| {
            let mut last = io::Error::from(io::ErrorKind::NotConnected);
            for node in &self.nodes {
                let asked = Client::connect(node.kafka);
                match asked.and_then(|mut client| client.create_topic(topic, partitions)) {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        created.unwrap_or_else(|error| panic!("topic {topic} cannot be created: {error}"));
        self.metadata(topic);
    }

    /// The node that leads the first partition of a topic.
    pub fn leader(&self, topic: &str) -> i32 {
        self.metadata(topic).partitions[0].leader
    }

    /// A connection to the node that leads the first partition of a topic, and that node.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub fn connect_to_leader(&self, topic: &str) -> (Client, i32) {
        let metadata = self.metadata(topic);
        let leader = metadata.partitions[0].leader;
        let client = Client::connect(metadata.brokers[&leader]).expect("the leader listens");
        (client, leader)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill_all();
        drop(self.scratch.take());
    }
}

impl Running {
    /// The process of the node itself, also below a tracer.
    fn pid(&self) -> u32 {
        let child = self.child.id();
        if !self.traced {
            return child;
        }
        let children = fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
        let first = children.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
        first.unwrap_or(child)
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, number: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: no memory is involved; the process is one of ours and has not been waited for.
    unsafe { libc::kill(pid, number) };
}

/// Tries until it goes well.
///
/// # Errors
/// The last one, after [`READY_TIMEOUT`].
pub fn eventually<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > READY_TIMEOUT => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

/// Loopback addresses that nobody listens on, different ones for each site of a process. All are
/// held until all are found. They lie below the ports that systems lend to connections: any of
/// those may be lent before its node starts.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(50);
    let mut listeners = Vec::new();
    while listeners.len() < count {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < 10_000, "there are no {count} free ports on loopback");
        let port = 10_000 + (first.wrapping_add(tried) % 10_000) as u16;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    listeners.iter().map(|l| l.local_addr().expect("it is bound")).collect()
}
