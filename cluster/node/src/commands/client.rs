//! A client of a site, for the commands.

use super::Stop;
use fulmar_client::{Cluster, Settings};
use fulmar_host::net::Network;
use fulmar_host::real::RealNetwork;
use fulmar_host::time::{self, Duration};
use fulmar_types::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;

/// The network of this machine.
pub fn network() -> Arc<dyn Network> {
    Arc::new(RealNetwork)
}

/// A client of the site with these addresses.
pub fn cluster(bootstrap: Vec<SocketAddr>, name: &str) -> Cluster {
    let settings = Settings {
        client_id: name.to_owned(),
        leader_check: Duration::from_millis(250),
        ..Settings::default()
    };
    Cluster::new(network(), bootstrap, settings)
}

/// Reads `127.0.0.1:9092,127.0.0.1:9093`.
pub fn parse_bootstrap(text: &str) -> Result<Bootstrap, String> {
    let address = |part: &str| {
        part.trim().parse().map_err(|_| {
            format!(
                "`{part}` is no address; write numbers as in 127.0.0.1:9092, with commas between"
            )
        })
    };
    text.split(',').map(address).collect::<Result<Vec<_>, _>>().map(Bootstrap)
}

/// The addresses to begin with.
#[derive(Clone, Debug)]
pub struct Bootstrap(pub Vec<SocketAddr>);

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
