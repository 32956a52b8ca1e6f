//! What a broker is told by its configuration.
//!
//! Invariant: addresses that clients are sent to come from the configuration and nowhere else; the
//! address of a listening socket says nothing about how a client reaches it.

use fulmar_types::config::{Config, ConfigError, NodeConfig, certificate_name};
use fulmar_types::limits::batch_bytes_max;
use fulmar_types::{NodeId, SiteId};
use std::net::SocketAddr;
use std::time::Duration;

/// A node as its clients and its peers reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The node.
    pub node: NodeId,
    /// The host that clients are told.
    pub host: String,
    /// The port that clients are told.
    pub port: u16,
    /// Where the other nodes of the site reach its Kafka listener.
    pub internal: SocketAddr,
}

/// What a broker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    /// This node.
    pub node: NodeId,
    /// The name of its site.
    pub site_name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// All nodes of the site, by id.
    pub nodes: Vec<Endpoint>,
    /// What clients are told as the id of the cluster.
    pub cluster_id: String,
    /// The size of a segment file, which bounds batches and entries.
    pub segment_bytes: u64,
    /// Create topics that clients ask for.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub default_partitions: u32,
    /// How long an idempotent producer is remembered.
    pub producer_expiry: Duration,
    /// The longest that a request may wait for its majority.
    pub request_timeout_max: Duration,
}

/// Why the settings could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The node is not in the configuration.
    #[error("node {0} is not among the configured nodes")]
    UnknownNode(NodeId),
    /// A value of the configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BrokerSettings {
    /// The settings of one node.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_config(config: &Config, node: NodeId, site: SiteId) -> Result<Self, SettingsError> {
        let own = config.node(node).ok_or(SettingsError::UnknownNode(node))?;
        let mut nodes = config.nodes.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        nodes.sort_by_key(|endpoint| endpoint.node);
        Ok(Self {
            node,
            site_name: config.site.clone(),
            listen: own.kafka,
            nodes,
            cluster_id: site.to_string(),
            segment_bytes: config.log.segment_bytes.0,
            auto_create_topics: config.kafka.auto_create_topics,
            default_partitions: config.kafka.default_partitions,
            producer_expiry: config.kafka.producer_expiry.0,
            request_timeout_max: config.kafka.request_timeout_max.0,
        })
    }

    /// The largest record batch that the site takes.
    pub fn batch_bytes_max(&self) -> usize {
        batch_bytes_max(self.segment_bytes)
    }

    /// How many nodes must have flushed a record before it is acknowledged.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// Whether a name is the one in the certificate of a node of the site.
    pub fn is_node_name(&self, name: &str) -> bool {
        self.nodes.iter().any(|at| certificate_name(&self.site_name, at.node) == name)
    }

    /// How a node is reached.
    pub fn endpoint(&self, node: NodeId) -> Option<&Endpoint> {
        self.nodes.iter().find(|endpoint| endpoint.node == node)
    }
}

fn endpoint(node: &NodeConfig) -> Result<Endpoint, SettingsError> {
    let (host, port) = node.client_address()?;
    // A wildcard cannot be dialled; the peer address is one that the other nodes do dial.
    let internal = if node.kafka.ip().is_unspecified() {
        SocketAddr::new(node.peer.ip(), node.kafka.port())
    } else {
        node.kafka
    };
    Ok(Endpoint { node: node.id, host, port, internal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    fn settings(kafka: &str, advertised: &str) -> BrokerSettings {
        let text = format!(
            "site = \"a\"\n[[node]]\nid = 1\ndata = \"d\"\nkafka = \"{kafka}\"\n\
             peer = \"10.0.0.1:9192\"\n{advertised}"
        );
        let config = Config::parse(&text).expect("a configuration");
        BrokerSettings::from_config(&config, NodeId(1), SiteId(Uuid([1; 16]))).expect("settings")
    }

    #[test]
    fn the_advertised_address_is_what_clients_are_told() {
        let plain = settings("10.0.0.1:9092", "");
        assert_eq!((plain.nodes[0].host.as_str(), plain.nodes[0].port), ("10.0.0.1", 9092));
        let named = settings("0.0.0.0:9092", "advertised = \"plant.example:19092\"");
        assert_eq!((named.nodes[0].host.as_str(), named.nodes[0].port), ("plant.example", 19092));
        assert_eq!(named.nodes[0].internal, "10.0.0.1:9092".parse().expect("an address"));
    }
}
