//! `fulmar node`: one node, until it is told to stop.

use super::client::{keys_of, unusable, with_keys};
use super::output::say;
use super::stats::{self, CountingObserver};
use super::{Stop, config_file};
use clap::Args;
use fulmar_host::net::Network;
use fulmar_host::real::tls::{Asked, TlsLinks};
use fulmar_host::{Host, task};
use fulmar_types::config::{ClientTls, Config};
use fulmar_types::limits::CLIENT_CONNECTIONS_MAX;
use fulmar_types::{ExitCode, NodeId};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Run one node of a site until Ctrl-C or SIGTERM.
///
/// When it serves clients it says so in one line on standard output. What else it says goes to
/// standard error; the environment variable FULMAR_LOG chooses how much
/// (error, warn, info, debug, trace; `warn,openraft=error` by default).
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The configuration of the site, the same file for all of its nodes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of the nodes in it this is.
    #[arg(long, value_name = "N")]
    id: u64,
    /// Write counters to this file every second.
    #[arg(long, value_name = "FILE", hide = true)]
    stats_file: Option<PathBuf>,
    /// Let the system write an image of the memory when the node crashes. It has in it what no rule lets go: keep
    /// it within the site.
    #[arg(long)]
    core_dumps: bool,
}

/// Files and connections that a node must be able to hold open: its clients, and room for segments,
/// transfers and peers. Without it, many clients would look like a disk that fails.
const OPEN_FILES_MIN: u64 = CLIENT_CONNECTIONS_MAX as u64 + 512;

/// Lets this process open as many files as the system allows it to.
fn raise_open_files() -> Result<(), Stop> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours to write to.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if known && limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: the struct is only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    if known && limit.rlim_cur < OPEN_FILES_MIN {
        return Err(Stop::usage(format!(
            "this process may open {} files, and a node needs {OPEN_FILES_MIN}. Raise the limit \
             (`ulimit -Hn`, or LimitNOFILE= of the service).",
            limit.rlim_cur
        )));
    }
    Ok(())
}

/// Sees to it that no image of the memory is written when this process crashes, nor read by other processes of
/// the same user: records are in it that may not leave the site, and keys.
fn keep_memory_private() {
    // SAFETY: only a flag of this process is set.
    let done = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    assert_eq!(done, 0, "the system knows this flag since Linux 2.4");
}

/// Puts TLS on the connections that the configuration wants it on. Those to other sites always have
/// it: without keys there are none.
fn secured(host: Host, config: &Config, id: NodeId) -> Result<Host, Stop> {
    let Some(tls) = &config.tls else { return Ok(host) };
    let keys = keys_of(config, tls, id)?;
    let network = |asked| with_keys(&keys, asked, host.observer.clone());
    let peers = network(Asked::Certificate)?;
    let serving = |tls, plain: &Arc<dyn Network>| match tls {
        ClientTls::Off => Ok(plain.clone()),
        ClientTls::Server => network(Asked::Nothing),
        ClientTls::Mutual => network(Asked::Certificate),
    };
    let http = serving(config.http.tls, &host.http)?;
    let network = serving(config.kafka.tls, &host.network)?;
    let links = TlsLinks::with_keys(&keys, host.observer.clone()).map_err(unusable)?;
    Ok(Host { http, peers, network, links: Arc::new(links), ..host })
}

/// Runs the node.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    if !options.core_dumps {
        keep_memory_private();
    }
    let id = NodeId(options.id);
    let config = config_file::read(&options.config)?;
    config_file::node(&config, id, &options.config)?;
    raise_open_files()?;
    let observer = Arc::new(CountingObserver::default());
    let host = Host::real(Arc::clone(&observer) as Arc<dyn fulmar_host::Observer>);
    let host = host.map_err(|error| {
        Stop::failed(format!("the system gives no threads for input and output: {error}."))
    })?;
    let host = secured(host, &config, id)?;
    // Before the start, so that a signal during a long recovery is not lost.
    let mut stop = StopSignal::listen()?;
    let starting = fulmar_node::start(&config, id, host);
    let node = tokio::select! {
        biased;
        started = starting => started.map_err(|error| Stop {
            code: error.exit_code(),
            message: format!("node {id} cannot start: {error}."),
        })?,
        () = stop.wait() => return Ok(ExitCode::Ok),
    };
    say(format!(
        "node {id} of site {} serves Kafka clients at {}",
        config.site,
        node.kafka_address()
    ));
    let _writing = options
        .stats_file
        .map(|path| task::spawn_owned(async move { stats::keep_writing(observer, &path).await }));
    stop.wait().await;
    tracing::info!("stopping");
    node.stop().await;
    Ok(ExitCode::Ok)
}

/// Ctrl-C, SIGTERM, or the end of the terminal.
pub struct StopSignal([tokio::signal::unix::Signal; 3]);

impl StopSignal {
    /// Listens from now on.
    pub fn listen() -> Result<Self, Stop> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Stop::failed(format!("cannot listen for signals: {error}.")))
        };
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one of them.
    pub async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
