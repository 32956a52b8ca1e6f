//! The configuration of a site, one TOML file for all of its nodes.
//!
//! Invariants: unknown keys are refused with line and column; a configuration that parses has
//! passed [`Config::validate`]; every default is written here and nowhere else.
//!
//! Never: read a file or an environment variable here. The node's command line does that.

use crate::NodeId;
use crate::limits::{PARTITIONS_PER_TOPIC_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use crate::units::{HumanDuration, HumanSize};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use thiserror::Error;

/// The shortest time that a producer is remembered.
const PRODUCER_EXPIRY_MIN: HumanDuration = HumanDuration::from_millis(60_000);

/// The bounds of `kafka.request_timeout_max`.
const REQUEST_TIMEOUT_MIN: HumanDuration = HumanDuration::from_millis(100);
const REQUEST_TIMEOUT_MAX: HumanDuration = HumanDuration::from_millis(3_600_000);

/// The longest that a site may be without a leader for want of suspicion.
const ELECTION_TIMEOUT_MAX: HumanDuration = HumanDuration::from_millis(600_000);

/// What is said of TLS without `[tls]`.
const NEEDS_KEYS: &str = "needs the keys of this site: a table `[tls]` with `keys`";

/// A site: its nodes and how they behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the site, for people and for mirror topics: lower-case letters, digits, `-`.
    pub site: String,
    /// The nodes: one for a trial, three for a site.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
    /// How the nodes agree.
    #[serde(default)]
    pub consensus: ConsensusConfig,
    /// How the log lies on disk.
    #[serde(default)]
    pub log: LogConfig,
    /// How clients are served.
    #[serde(default)]
    pub kafka: KafkaConfig,
    /// How metrics and health are served.
    #[serde(default, skip_serializing_if = "HttpConfig::is_default")]
    pub http: HttpConfig,
    /// How pipelines run.
    #[serde(default, skip_serializing_if = "PipelinesConfig::is_default")]
    pub pipelines: PipelinesConfig,
    /// How the nodes prove to each other who they are. Without it whoever reaches their ports is
    /// believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

/// One node of the site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its number, from 1.
    pub id: NodeId,
    /// Where its data lives. Nothing else may be kept there.
    pub data: PathBuf,
    /// Where it listens for Kafka clients.
    #[serde(deserialize_with = "address")]
    pub kafka: SocketAddr,
    /// What it tells Kafka clients to connect to, where that is not `kafka`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,
    /// Where it listens for the other nodes.
    #[serde(deserialize_with = "address")]
    pub peer: SocketAddr,
    /// Where it listens for other sites. Without it no other site can dial this node.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address_if_any")]
    pub link: Option<SocketAddr>,
    /// Where it tells of its metrics and its health over HTTP. Without it, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address_if_any")]
    pub http: Option<SocketAddr>,
}

fn address_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    address(from).map(Some)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        de::Error::custom(format!(
            "`{text}` is no address to listen on: write the number of one and a port, as in \
             \"127.0.0.1:9092\"; a name may stand in `advertised`"
        ))
    })
}

/// How the nodes agree. The defaults fit solid-state disks; see [`Profile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsensusConfig {
    /// A set of defaults for the other values of this table.
    pub profile: Profile,
    /// How often a leader speaks when it has nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HumanDuration>,
    /// The shortest silence after which a follower asks for votes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_timeout_min: Option<HumanDuration>,
    /// The longest such silence. It is also the length of the leader's lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_timeout_max: Option<HumanDuration>,
}

/// Which kind of disk the site runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Solid-state disk: a flush takes a few milliseconds.
    #[default]
    Ssd,
    /// Memory card, eMMC or spinning disk: a flush may take a tenth of a second.
    SlowDisk,
}

/// How the log lies on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The size of a segment file. All nodes of a site must have the same, since segments are
    /// byte-identical; it is fixed when the site is initialised.
    pub segment_bytes: HumanSize,
    /// Empty segments that are kept ready for use.
    pub spare_segments: u32,
    /// Room that is kept on every disk for entries without records, so that a topic can be deleted
    /// when the disks are full. At most a quarter of a segment counts.
    pub reserve_bytes: HumanSize,
    /// Full segments that the Raft floor stays behind the newest snapshot, so that a node which is
    /// only a little behind gets entries instead of whole segments.
    pub purge_lag_segments: u32,
}

/// How clients are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Create a topic when a client asks for metadata of one that does not exist and allows it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub default_partitions: u32,
    /// How long an idempotent producer is remembered after its last batch.
    pub producer_expiry: HumanDuration,
    /// How long a produce request may wait for its majority before the answer is "unknown".
    pub request_timeout_max: HumanDuration,
    /// Whether clients are spoken to in TLS.
    pub tls: ClientTls,
}

/// How metrics and health are served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Whether whoever asks is spoken to in TLS.
    pub tls: ClientTls,
}

impl HttpConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Shares of an operator of a pipeline: each has its own part of every channel.
const SUBTASKS_MAX: u32 = 64;

/// How pipelines run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelinesConfig {
    /// What the state of all pipelines of a node may take in memory; more of it takes no more input.
    pub memory_bytes: HumanSize,
    /// In how many shares an operator works that keeps something; what comes out does not depend on it.
    pub subtasks: u32,
}

impl PipelinesConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the nodes of the site prove who they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The directory with the keys: `authority.crt`, and `node-N.crt` and `node-N.key` of the node
    /// that runs here.
    pub keys: PathBuf,
}

/// Whether those who are not nodes are spoken to in TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientTls {
    /// No: whoever reaches the port is served, and whoever is in between can listen.
    #[default]
    Off,
    /// The node proves who it is.
    Server,
    /// The client does too, with a certificate of the site's authority.
    Mutual,
}

/// Whether a site can have this name.
pub fn is_site_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name that the certificate of a node gives it.
pub fn certificate_name(site: &str, node: NodeId) -> String {
    format!("node-{node}.{site}")
}

impl NodeConfig {
    /// The host and the port that Kafka clients are told: `advertised`, else `kafka`.
    ///
    /// # Errors
    /// If nobody could connect to that.
    pub fn client_address(&self) -> Result<(String, u16), ConfigError> {
        let Some(text) = &self.advertised else {
            if self.kafka.ip().is_unspecified() {
                let problem = format!(
                    "{} is every address of the machine, which no client can connect to; say with \
                     `advertised = \"host:{}\"` what clients are told",
                    self.kafka,
                    self.kafka.port()
                );
                return Err(invalid("node.kafka", problem));
            }
            return Ok((self.kafka.ip().to_string(), self.kafka.port()));
        };
        host_and_port(text).ok_or_else(|| {
            let problem = "is no address for clients; write host:port, or [address]:port for IPv6";
            invalid("node.advertised", format!("`{text}` {problem}"))
        })
    }
}

/// Reads what a client is told. Nothing is resolved: a name may mean something to clients only.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
        None => host.to_owned(),
    };
    let is_wildcard = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_plain = !host.is_empty()
        && host.len() <= 255
        && (host.parse::<Ipv6Addr>().is_ok() && text.starts_with('[') || host.bytes().all(is_name));
    (is_plain && !is_wildcard).then_some((host, port))
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            profile: Profile::Ssd,
            heartbeat: None,
            election_timeout_min: None,
            election_timeout_max: None,
        }
    }
}

impl ConsensusConfig {
    fn of_profile(&self, ssd_ms: u64, slow_disk_ms: u64) -> HumanDuration {
        HumanDuration::from_millis(match self.profile {
            Profile::Ssd => ssd_ms,
            Profile::SlowDisk => slow_disk_ms,
        })
    }

    /// How often a leader speaks when it has nothing to say.
    pub fn heartbeat(&self) -> HumanDuration {
        self.heartbeat.unwrap_or_else(|| self.of_profile(100, 250))
    }

    /// The shortest silence after which a follower asks for votes.
    pub fn election_timeout_min(&self) -> HumanDuration {
        self.election_timeout_min.unwrap_or_else(|| self.of_profile(300, 1_500))
    }

    /// The longest silence after which a follower asks for votes, and the length of the lease.
    pub fn election_timeout_max(&self) -> HumanDuration {
        self.election_timeout_max.unwrap_or_else(|| self.of_profile(600, 3_000))
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: HumanSize(SEGMENT_BYTES_DEFAULT),
            spare_segments: 1,
            reserve_bytes: HumanSize(16 << 20),
            purge_lag_segments: 1,
        }
    }
}

impl Default for PipelinesConfig {
    fn default() -> Self {
        Self { memory_bytes: HumanSize(256 << 20), subtasks: 1 }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            default_partitions: 4,
            producer_expiry: HumanDuration::from_millis(7 * 86_400_000),
            request_timeout_max: HumanDuration::from_millis(30_000),
            tls: ClientTls::Off,
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// It is not TOML, or a key is unknown, missing or of the wrong kind. The text names line and
    /// column and shows the line.
    #[error("{0}")]
    Syntax(String),
    /// The values do not fit together.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key that is to blame.
        key: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

fn invalid(key: impl Into<String>, problem: impl fmt::Display) -> ConfigError {
    ConfigError::Invalid { key: key.into(), problem: problem.to_string() }
}

impl Config {
    /// Reads and validates a configuration.
    ///
    /// # Errors
    /// If the text is not TOML, names an unknown key, or its values do not fit together.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// The first key that is to blame, and what is wrong with it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_nodes()?;
        self.validate_consensus()?;
        self.validate_tls()?;
        let segment = self.log.segment_bytes.0;
        let sizes = SEGMENT_BYTES_MIN..=1 << 30;
        if !sizes.contains(&segment) || !segment.is_multiple_of(4096) {
            return Err(invalid(
                "log.segment_bytes",
                format!(
                    "{} must be a multiple of 4KiB from {} to 1GiB",
                    self.log.segment_bytes,
                    HumanSize(SEGMENT_BYTES_MIN)
                ),
            ));
        }
        if !(1..=SUBTASKS_MAX).contains(&self.pipelines.subtasks) {
            let problem = format!("must be from 1 to {SUBTASKS_MAX}");
            return Err(invalid("pipelines.subtasks", problem));
        }
        self.validate_kafka()
    }

    fn validate_nodes(&self) -> Result<(), ConfigError> {
        if !is_site_name(&self.site) {
            return Err(invalid("site", "use 1 to 64 lower-case letters, digits and `-`"));
        }
        if self.nodes.len() != 1 && self.nodes.len() != 3 {
            return Err(invalid(
                "node",
                format!("a site has three nodes (or one, for a trial), not {}", self.nodes.len()),
            ));
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            if node.id.get() == 0 || node.id.get() > 1_000 {
                return Err(invalid("node.id", format!("{} must be from 1 to 1000", node.id)));
            }
            if !ids.insert(node.id) {
                return Err(invalid("node.id", format!("{} is used twice", node.id)));
            }
            let own = [("node.kafka", node.kafka), ("node.peer", node.peer)];
            let link = node.link.map(|at| ("node.link", at));
            let http = node.http.map(|at| ("node.http", at));
            for (key, address) in own.into_iter().chain(link).chain(http) {
                if address.port() == 0 {
                    return Err(invalid(key, format!("{address} needs a port")));
                }
                if !addresses.insert(address) {
                    return Err(invalid(key, format!("{address} is used twice")));
                }
            }
            if node.peer.ip().is_unspecified() {
                let problem =
                    "is every address of the machine; the other nodes need one to connect to";
                return Err(invalid("node.peer", format!("{} {problem}", node.peer)));
            }
            node.client_address()?;
        }
        Ok(())
    }

    fn validate_kafka(&self) -> Result<(), ConfigError> {
        let partitions = 1..=PARTITIONS_PER_TOPIC_MAX;
        if !partitions.contains(&self.kafka.default_partitions) {
            let problem = format!("must be from 1 to {PARTITIONS_PER_TOPIC_MAX}");
            return Err(invalid("kafka.default_partitions", problem));
        }
        if self.kafka.producer_expiry < PRODUCER_EXPIRY_MIN {
            let problem = format!(
                "{} must be at least {PRODUCER_EXPIRY_MIN}: a producer that was forgotten while it \
                 tries again could write twice",
                self.kafka.producer_expiry
            );
            return Err(invalid("kafka.producer_expiry", problem));
        }
        let timeout = self.kafka.request_timeout_max;
        if !(REQUEST_TIMEOUT_MIN..=REQUEST_TIMEOUT_MAX).contains(&timeout) {
            let problem =
                format!("{timeout} must be from {REQUEST_TIMEOUT_MIN} to {REQUEST_TIMEOUT_MAX}");
            return Err(invalid("kafka.request_timeout_max", problem));
        }
        Ok(())
    }

    fn validate_tls(&self) -> Result<(), ConfigError> {
        match &self.tls {
            None if self.kafka.tls != ClientTls::Off => Err(invalid("kafka.tls", NEEDS_KEYS)),
            None if self.http.tls != ClientTls::Off => Err(invalid("http.tls", NEEDS_KEYS)),
            // It is a part of the names in the certificates (RFC 1123, section 2.1).
            Some(_) if self.site.len() > 63 || self.site.trim_matches('-') != self.site => {
                let problem = "with `[tls]` use 63 characters at most, and no `-` at either end";
                Err(invalid("site", problem))
            }
            _ => Ok(()),
        }
    }

    fn validate_consensus(&self) -> Result<(), ConfigError> {
        let heartbeat = self.consensus.heartbeat();
        let min = self.consensus.election_timeout_min();
        let max = self.consensus.election_timeout_max();
        if heartbeat.as_millis() < 10 {
            return Err(invalid("consensus.heartbeat", "must be at least 10ms"));
        }
        if min.as_millis() < 2 * heartbeat.as_millis() {
            return Err(invalid(
                "consensus.election_timeout_min",
                format!("{min} must be at least twice the heartbeat of {heartbeat}"),
            ));
        }
        if max <= min {
            return Err(invalid(
                "consensus.election_timeout_max",
                format!("{max} must be above election_timeout_min, {min}"),
            ));
        }
        if max > ELECTION_TIMEOUT_MAX {
            let problem = format!("{max} must be at most {ELECTION_TIMEOUT_MAX}");
            return Err(invalid("consensus.election_timeout_max", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
