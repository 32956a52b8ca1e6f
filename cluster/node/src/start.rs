//! Starting a node: store and group first, then the broker on top of them, the listener last.
//!
//! Invariant: nobody is served before the node belongs to its site and has recovered its state.

use crate::health;
use crate::http::HttpServer;
use crate::node_view::{NodeView, Serving};
use fulmar_broker::settings::SettingsError;
use fulmar_broker::{Broker, BrokerSettings, Site, server::Server, stored::StoredRecords};
use fulmar_consensus::{Group, GroupSettings, Leadership};
use fulmar_host::Host;
use fulmar_mirror::{LinkSettings, Links};
use fulmar_pipelines::{PipelineSettings, Pipelines};
use fulmar_types::config::Config;
use fulmar_types::limits::batch_bytes_max;
use fulmar_types::{Event, ExitCode, NodeId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How long a planned stop waits for another node to take over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store, the peers or the consensus core.
    #[error(transparent)]
    Group(#[from] fulmar_consensus::StartError),
    /// The configuration does not fit this node.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address cannot be listened on.
    #[error("cannot listen for {whom} on {address}: {error}")]
    Bind {
        /// Who would come there.
        whom: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

impl StartError {
    /// The exit code of a process that meets this at its start.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Group(error) => error.exit_code(),
            Self::Settings(_) => ExitCode::Usage,
            Self::Bind { .. } => ExitCode::Bind,
        }
    }
}

/// A node that runs. Dropping it stops it where it is, as a crash would; see [`RunningNode::stop`].
pub struct RunningNode {
    /// First, since it looks at everything below.
    http: Option<HttpServer>,
    node: NodeId,
    peers: Vec<NodeId>,
    server: Server,
    /// Before the broker, whose group they use.
    links: Links,
    pipelines: Pipelines,
    serving: Arc<Serving>,
}

fn group_settings(config: &Config, node: NodeId) -> Result<GroupSettings, SettingsError> {
    let own = config.node(node).ok_or(SettingsError::UnknownNode(node))?;
    Ok(GroupSettings {
        node,
        peers: config.nodes.iter().map(|node| (node.id, node.peer)).collect(),
        site_name: config.site.clone(),
        directory: own.data.clone(),
        segment_bytes: config.log.segment_bytes.0,
        spare_segments: config.log.spare_segments,
        reserve_bytes: config.log.reserve_bytes.0,
        purge_lag_segments: config.log.purge_lag_segments,
        heartbeat: config.consensus.heartbeat().0,
        election_timeout_min: config.consensus.election_timeout_min().0,
        election_timeout_max: config.consensus.election_timeout_max().0,
    })
}

/// Why an empty directory was not prepared for a node that takes part again.
#[derive(Debug, Error)]
pub enum RejoinError {
    /// The configuration does not fit this node.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is nobody to get the log from.
    #[error("node {0} is the only node of its site, so no other node has its data")]
    OnlyNode(NodeId),
    /// The directory holds a node, or the beginnings of one.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(fulmar_consensus::StartError),
}

/// Prepares the empty directory of a node whose old one is lost: at its next start the node takes
/// part again, without a vote until it has caught up. To do it again only gives it another life.
///
/// # Errors
/// If the directory is not empty, the site has no other node, or the disk fails.
pub async fn prepare_rejoin(config: &Config, node: NodeId, host: Host) -> Result<(), RejoinError> {
    let settings = group_settings(config, node)?;
    if settings.peers.len() == 1 {
        return Err(RejoinError::OnlyNode(node));
    }
    match fulmar_consensus::prepare_rejoin(host, &settings).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(RejoinError::NotEmpty),
        Err(error) => Err(RejoinError::Directory(error)),
    }
}

/// Starts a node. Returns when clients can connect.
///
/// # Errors
/// If the directory cannot be recovered, an address cannot be bound, or the configuration does not
/// fit.
pub async fn start(config: &Config, node: NodeId, host: Host) -> Result<RunningNode, StartError> {
    let own = config.node(node).ok_or(SettingsError::UnknownNode(node))?;
    let settings = group_settings(config, node)?;
    let address = own.kafka;
    let cannot_bind = |error| StartError::Bind { whom: "clients", address, error };
    // Clients are let in at the end only. But an address that is not to be had is said before the
    // directory is touched, and before the other nodes count on this one for the first start.
    drop(host.network.listen(address).await.map_err(cannot_bind)?);
    let (view, host) = NodeView::before_start(&config.site, node, host);
    // Before the node waits for anything, so that it can say for what.
    let http = match own.http {
        Some(address) => {
            let answers = health::answers(view.clone());
            let started = HttpServer::start(host.http.as_ref(), address, answers).await;
            let whom = "metrics and health";
            Some(started.map_err(|error| StartError::Bind { whom, address, error })?)
        }
        None => None,
    };
    let site = Site::new();
    let group = Group::start(host.clone(), settings, site.machine()).await?;
    let broker = Broker::start(
        host.clone(),
        Arc::new(group.clone()),
        Arc::new(StoredRecords(group.store().clone())),
        site,
        BrokerSettings::from_config(config, node, group.site())?,
    );
    let links = LinkSettings {
        site: config.site.clone(),
        node,
        listen: own.link,
        batch_bytes_max: batch_bytes_max(config.log.segment_bytes.0),
    };
    let cannot_link = |error| {
        let address = own.link.unwrap_or(address);
        StartError::Bind { whom: "other sites", address, error }
    };
    let links = Links::start(host.clone(), broker.clone(), links).await.map_err(cannot_link)?;
    let settings = PipelineSettings {
        node,
        memory_bytes: usize::try_from(config.pipelines.memory_bytes.0).unwrap_or(usize::MAX),
        subtasks: usize::try_from(config.pipelines.subtasks).unwrap_or(1),
    };
    let pipelines = Pipelines::start(host.clone(), broker.clone(), settings);
    let server = Server::start(broker.clone()).await.map_err(cannot_bind)?;
    let (figures, pipeline_memory) = (pipelines.figures(), pipelines.memory());
    let serving = Arc::new(Serving { group, broker, pipelines: figures, pipeline_memory });
    view.serves(&serving);
    host.report(Event::Ready);
    let peers = config.nodes.iter().map(|peer| peer.id).filter(|peer| *peer != node).collect();
    Ok(RunningNode { http, node, peers, server, links, pipelines, serving })
}

impl RunningNode {
    /// Where clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where metrics and health are told, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Who leads the site, as far as this node knows.
    pub fn leadership(&self) -> Leadership {
        self.serving.group.leadership()
    }

    /// Stops the node in an orderly way: another one takes over first, if this one leads.
    pub async fn stop(self) {
        let seen = self.serving.group.leadership();
        if seen.is_me
            && let Some(peer) = self.peers.first()
        {
            tracing::info!(node = %self.node, to = %peer, "handing over the leadership");
            self.serving.group.hand_over(*peer).await;
            let changed = self.serving.group.wait_leadership_change(seen);
            let _ = fulmar_host::time::timeout(HAND_OVER_PATIENCE, changed).await;
        }
        drop(self.links);
        drop(self.pipelines);
        self.serving.group.shutdown().await;
        let _ = self.serving.group.store().close().await;
    }
}
