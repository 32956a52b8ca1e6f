//! A client of a site, for the commands.

use super::Stop;
use clap::Args;
use fulmar_client::{CallError, Cluster, Metadata, OffsetAt, Place, Settings, TopicPartition};
use fulmar_host::Observer;
use fulmar_host::net::Network;
use fulmar_host::real::tls::keys::AUTHORITY_FILE;
use fulmar_host::real::tls::{Asked, KeyFiles, KeysError, TlsNetwork};
use fulmar_host::real::{RealNetwork, TracingObserver};
use fulmar_host::time::{self, Duration};
use fulmar_types::config::{ClientTls, Config, TlsConfig, certificate_name};
use fulmar_types::{NodeId, Offset, PartitionIndex};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long a node may take to answer at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach a site.
#[derive(Clone, Debug, Args)]
pub struct Reaching {
    /// The addresses of some of its nodes for Kafka clients, with commas between.
    #[arg(long, value_name = "HOST:PORT,...", value_parser = parse_bootstrap)]
    bootstrap: Bootstrap,
    /// For a site that speaks TLS with its clients: a directory with the certificate of its
    /// authority, `authority.crt`.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// For a site that asks its clients who they are: whose keys, `NAME.crt` and `NAME.key` in the
    /// same directory.
    #[arg(long = "as", value_name = "NAME", requires = "keys")]
    identity: Option<String>,
}

impl Reaching {
    /// A client of the site that calls itself so.
    pub fn cluster(self, client: &str) -> Result<Cluster, Stop> {
        let network = match &self.keys {
            Some(keys) => network_with(keys, self.identity.as_deref())?,
            None => plain(),
        };
        Ok(cluster(network, self.bootstrap.0, client))
    }

    /// The same, once a node has answered: what asks the leader of a site tries for long, and a mistyped
    /// address is to be told at once.
    pub async fn reached(self, client: &str) -> Result<Cluster, Stop> {
        let cluster = self.cluster(client)?;
        cluster.refresh(time::now() + TIMEOUT).await.map_err(|error| silent(&error))?;
        Ok(cluster)
    }
}

/// How to reach a site, for a command that can do without.
#[derive(Clone, Debug, Args)]
pub struct OptionalReaching {
    /// The addresses of some of a site's nodes for Kafka clients, with commas between.
    #[arg(long, value_name = "HOST:PORT,...", value_parser = parse_bootstrap)]
    bootstrap: Option<Bootstrap>,
    /// For a site that speaks TLS with its clients: a directory with the certificate of its
    /// authority, `authority.crt`.
    #[arg(long, value_name = "DIR", requires = "bootstrap")]
    keys: Option<PathBuf>,
    /// For a site that asks its clients who they are: whose keys, `NAME.crt` and `NAME.key` in the
    /// same directory.
    #[arg(long = "as", value_name = "NAME", requires = "keys")]
    identity: Option<String>,
}

impl OptionalReaching {
    /// A client of the site, if one was named, once a node has answered.
    pub async fn reached(self, client: &str) -> Result<Option<Cluster>, Stop> {
        let Self { bootstrap, keys, identity } = self;
        let reaching = bootstrap.map(|bootstrap| Reaching { bootstrap, keys, identity });
        match reaching {
            Some(reaching) => reaching.reached(client).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The network of this machine, for a site without TLS.
pub fn plain() -> Arc<dyn Network> {
    Arc::new(RealNetwork)
}

/// How to be a client of a site that runs on this machine.
pub fn network_of(config: &Config) -> Result<Arc<dyn Network>, Stop> {
    let (Some(tls), Some(node)) = (&config.tls, config.nodes.first()) else { return Ok(plain()) };
    if config.kafka.tls == ClientTls::Off {
        return Ok(plain());
    }
    as_client(&keys_of(config, tls, node.id)?)
}

/// How to be a client with the keys in a directory: those of `name`, or none of one's own.
pub fn network_with(keys: &Path, name: Option<&str>) -> Result<Arc<dyn Network>, Stop> {
    match name {
        Some(name) => as_client(&KeyFiles::named(keys, name).map_err(unusable)?),
        None => {
            let authority = keys.join(AUTHORITY_FILE);
            let network = TlsNetwork::trusting(&authority, Arc::new(TracingObserver::default()));
            Ok(Arc::new(network.map_err(unusable)?))
        }
    }
}

fn as_client(keys: &KeyFiles) -> Result<Arc<dyn Network>, Stop> {
    with_keys(keys, Asked::Nothing, Arc::new(TracingObserver::default()))
}

/// The keys of a node.
pub fn keys_of(config: &Config, tls: &TlsConfig, node: NodeId) -> Result<KeyFiles, Stop> {
    let name = certificate_name(&config.site, node);
    KeyFiles::of_node(&tls.keys, node, &name).map_err(unusable)
}

/// The network of somebody with keys, who asks this of those who connect to him.
pub fn with_keys(
    keys: &KeyFiles,
    asked: Asked,
    observer: Arc<dyn Observer>,
) -> Result<Arc<dyn Network>, Stop> {
    Ok(Arc::new(TlsNetwork::with_keys(keys, asked, observer).map_err(unusable)?))
}

/// What is said of keys that cannot be used.
pub fn unusable(error: KeysError) -> Stop {
    Stop::usage(format!("the keys cannot be used: {error}."))
}

/// A client of the site with nodes at these places.
pub fn cluster<P: Into<Place>>(
    network: Arc<dyn Network>,
    bootstrap: Vec<P>,
    name: &str,
) -> Cluster {
    let settings = Settings {
        client_id: name.to_owned(),
        leader_check: Duration::from_millis(250),
        ..Settings::default()
    };
    Cluster::new(network, bootstrap, settings)
}

/// Reads `127.0.0.1:9092,plant.example:9093`.
pub fn parse_bootstrap(text: &str) -> Result<Bootstrap, String> {
    let mut places = Vec::new();
    for part in text.split(',').map(str::trim) {
        let host_and_port = part.rsplit_once(':');
        if !host_and_port
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            return Err(format!(
                "`{part}` is no address; write host:port as in 127.0.0.1:9092, with commas between"
            ));
        }
        places.push(Place::from(part));
    }
    Ok(Bootstrap(places))
}

/// The nodes to begin with.
#[derive(Clone, Debug)]
pub struct Bootstrap(pub Vec<Place>);

/// What nodes and topics there are.
pub async fn metadata(cluster: &Cluster, timeout: Duration) -> Result<Metadata, Stop> {
    cluster.refresh_all(timeout).await.map_err(|error| silent(&error))
}

fn silent(error: &CallError) -> Stop {
    Stop::failed(format!(
        "no node of the site answers: {error}. Check --bootstrap, that the nodes run, and --keys if they \
         speak TLS; at the first start of a site all of them must run, or none serves clients."
    ))
}

/// The topics that are copies: the link of each, and its name at the other site. None if the site does
/// not say.
pub async fn mirrors(cluster: &Cluster, timeout: Duration) -> Mirrors {
    cluster.mirrors(timeout).await.unwrap_or_default()
}

/// The ends of the partitions of a topic, if the site tells all of them.
pub async fn ends(
    cluster: &Cluster,
    topic: &str,
    partitions: u32,
    timeout: Duration,
) -> Option<Vec<Offset>> {
    let mut ends = Vec::new();
    for partition in (0..partitions).map(PartitionIndex) {
        let of = TopicPartition::new(topic, partition);
        let found = cluster.find_offset(&of, OffsetAt::Latest, timeout).await;
        ends.push(found.ok()?.offset.unwrap_or_default());
    }
    Some(ends)
}

/// Topics that are copies.
pub type Mirrors = BTreeMap<String, (String, String)>;

/// What is said of a topic that is a copy.
pub fn copy_of(mirrors: &Mirrors, topic: &str) -> String {
    let copy =
        |(link, origin): &(String, String)| format!(", a copy of {origin} over the link {link}");
    mirrors.get(topic).map(copy).unwrap_or_default()
}

/// Waits until the site takes entries into its log. Returns who leads. A node that was just
/// started may still name the leader of its last life, so the metadata alone would not do.
pub async fn wait_until_serving(cluster: &Cluster, timeout: Duration) -> Result<NodeId, Stop> {
    let deadline = time::now() + timeout;
    cluster.init_producer_id(deadline).await.map_err(|error| {
        let seconds = timeout.as_secs();
        Stop::failed(format!("the site takes nothing after {seconds} s: {error}."))
    })?;
    wait_for_leader(cluster, deadline.saturating_duration_since(time::now())).await
}

/// Waits until a node of the site names a leader. Returns it.
pub async fn wait_for_leader(cluster: &Cluster, timeout: Duration) -> Result<NodeId, Stop> {
    let deadline = time::now() + timeout;
    let mut last = "nobody answered".to_owned();
    while time::now() < deadline {
        match cluster.refresh_all(Duration::from_secs(1)).await {
            Ok(metadata) => match metadata.controller {
                Some(leader) => return Ok(leader),
                None => "the nodes have no leader yet".clone_into(&mut last),
            },
            Err(error) => last = error.to_string(),
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    Err(Stop::failed(format!("the site has no leader after {} s: {last}.", timeout.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_addresses_are_numbers_or_names() {
        let read = |text| parse_bootstrap(text).map(|bootstrap| bootstrap.0);
        let two = read("127.0.0.1:9092, plant.example:9093").expect("an address and a name");
        let number = Place::Address("127.0.0.1:9092".parse().expect("an address"));
        assert_eq!(two, [number, Place::Name("plant.example:9093".to_owned())]);
        for bad in ["", "localhost", "127.0.0.1:x", "127.0.0.1:9092,", ":9092"] {
            assert!(read(bad).expect_err(bad).contains("is no address"), "{bad}");
        }
    }
}
