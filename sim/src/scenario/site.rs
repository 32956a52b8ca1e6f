//! The addresses and the configuration of the sites of a scenario.
//!
//! ```text
//! site 0: nodes 10.1.0.1, 10.1.0.2, ...   clients 10.1.1.1
//! site 1: nodes 10.2.0.1, ...             clients 10.2.1.1
//! ```
//!
//! A node reads its configuration as it does anywhere else: what a scenario sets is laid over the
//! text, and the node's own parser judges the result.

use super::model::DrawnScenario;
use super::overrides::lay_over;
use super::target::SiteName;
use super::workload::Workload;
use fulmar_types::config::Config;
use fulmar_types::units::HumanSize;
use std::net::{IpAddr, Ipv4Addr};

/// Where every node listens for clients.
pub const KAFKA_PORT: u16 = 9092;
const PEER_PORT: u16 = 9192;
/// Where every node waits for other sites.
pub const LINK_PORT: u16 = 9292;

/// The table in a scenario's configuration with what only one site has, by its name.
const OF_SITES: &str = "of";

/// Small segments, so that a minute of a scenario seals, ships and recycles many of them.
const SEGMENT_BYTES: u64 = 256 << 10;

/// The address of a machine of the site with this number.
pub fn address(site: usize, host: [u8; 2]) -> IpAddr {
    let site = u8::try_from(site + 1).expect("a scenario has fewer than 255 sites");
    IpAddr::V4(Ipv4Addr::new(10, site, host[0], host[1]))
}

impl DrawnScenario {
    /// The configuration of one site, the scenario's overrides included.
    ///
    /// # Errors
    /// If the overrides do not fit.
    pub fn site_config(&self, number: usize, site: &SiteName) -> Result<Config, String> {
        let has_links = self.workloads.iter().any(|of| matches!(of, Workload::Mirror(_)));
        let mut nodes = String::new();
        for node in 1..=self.sites.node_count(site) {
            let ip = address(number, [0, u8::try_from(node).map_err(|_| "too many nodes")?]);
            nodes.push_str(&format!(
                "[[node]]\nid = {node}\ndata = \"/data\"\nkafka = \"{ip}:{KAFKA_PORT}\"\npeer = \
                 \"{ip}:{PEER_PORT}\"\n"
            ));
            if has_links {
                nodes.push_str(&format!("link = \"{ip}:{LINK_PORT}\"\n"));
            }
        }
        let text = format!(
            "site = \"{site}\"\n[log]\nsegment_bytes = \"{}\"\n{nodes}",
            HumanSize(SEGMENT_BYTES)
        );
        let mut table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let mut own = self.config.clone();
        let of_sites = own.remove(OF_SITES);
        lay_over(&mut table, &own);
        let of_sites = of_sites.as_ref().and_then(toml::Value::as_table);
        for (name, of_site) in of_sites.into_iter().flatten() {
            if !self.sites.iter().any(|(site, _)| site.as_str() == name) {
                return Err(format!("`config.{OF_SITES}.{name}`: there is no such site"));
            }
            if let Some(keys) = of_site.as_table().filter(|_| site.as_str() == name) {
                lay_over(&mut table, keys);
            }
        }
        let text = toml::to_string(&table).map_err(|error| error.to_string())?;
        Config::parse(&text).map_err(|error| {
            // Line and column are of a text that nobody has seen.
            let error = error.to_string();
            let problem = error.trim_end().lines().last().unwrap_or_default();
            format!("the configuration of site {site}: {problem}")
        })
    }
}
