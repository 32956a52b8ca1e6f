//! The configuration as a file: read with errors for people, and written for a site on loopback.
//!
//! Invariant: a relative directory, of data or of keys, is meant relative to the file, so that a directory with a
//! site in it can be moved.

use super::Stop;
use fulmar_types::NodeId;
use fulmar_types::config::{Config, NodeConfig};
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Reads the configuration of a site.
pub fn read(path: &Path) -> Result<Config, Stop> {
    let text = fs::read_to_string(path).map_err(|error| {
        Stop::usage(format!(
            "cannot read the configuration {}: {error}. \
             `fulmar up --dir DIR` writes one for three nodes on this machine.",
            path.display()
        ))
    })?;
    let mut config = parse(&text, &path.display().to_string())?;
    let base = path.parent().unwrap_or(Path::new("."));
    for node in &mut config.nodes {
        node.data = base.join(&node.data);
    }
    if let Some(tls) = &mut config.tls {
        tls.keys = base.join(&tls.keys);
    }
    Ok(config)
}

fn parse(text: &str, name: &str) -> Result<Config, Stop> {
    let refused = |error| Stop::usage(format!("the configuration {name} is not valid.\n{error}"));
    Config::parse(text).map_err(refused)
}

/// The node with this number.
pub fn node<'a>(config: &'a Config, id: NodeId, path: &Path) -> Result<&'a NodeConfig, Stop> {
    config.node(id).ok_or_else(|| {
        let ids = config.nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>();
        Stop::usage(format!(
            "{} has no node {id}. Its nodes are {}; choose one with --id.",
            path.display(),
            ids.join(", ")
        ))
    })
}

/// A name for a site, made of the name of its directory: lower-case letters, digits and `-`.
fn site_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name = name.chars().map(plain).take(64).collect::<String>();
    let name = name.trim_matches('-');
    if name.is_empty() { "site".to_owned() } else { name.to_owned() }
}

/// The addresses of a node on loopback: for Kafka clients and for the other nodes.
pub type Addresses = (SocketAddr, SocketAddr);

/// Addresses from a base port on: Kafka clients at the base, the nodes among themselves 100 above, metrics
/// and health 300 above; 200 above is where links are in the examples.
pub fn from_base_port(base_port: u16) -> Result<Fresh, Stop> {
    let at = |offset: u16| {
        let port = base_port.checked_add(offset).ok_or_else(|| {
            let highest = u16::MAX - 302;
            Stop::usage(format!("--base-port {base_port} is too high; use at most {highest}."))
        })?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    Ok(Fresh {
        addresses: vec![(at(0)?, at(100)?), (at(1)?, at(101)?), (at(2)?, at(102)?)],
        links: None,
        http: Some(vec![at(300)?, at(301)?, at(302)?]),
        extra: String::new(),
    })
}

/// What a new configuration says.
pub struct Fresh {
    /// Where the nodes listen, one or three.
    pub addresses: Vec<Addresses>,
    /// Where each listens for other sites.
    pub links: Option<Vec<SocketAddr>>,
    /// Where each tells of metrics and health.
    pub http: Option<Vec<SocketAddr>>,
    /// Further tables, as TOML.
    pub extra: String,
}

/// The text of a configuration for nodes on loopback, with their data beside it.
fn text(dir: &Path, fresh: &Fresh) -> String {
    let nodes = if fresh.addresses.len() == 1 { "one node" } else { "three nodes" };
    let mut text = format!(
        "# A Fulmar site of {nodes} on one machine, written by `fulmar up`.\n\
         # Change it as you like; it is not written again.\n\
         site = \"{}\"\n",
        site_name(dir)
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    for (at, (kafka, peer)) in fresh.addresses.iter().enumerate() {
        let id = at + 1;
        line(format!("\n[[node]]\nid = {id}\ndata = \"node-{id}\""));
        line(format!("kafka = \"{kafka}\"\npeer = \"{peer}\""));
        if let Some(links) = &fresh.links {
            line(format!("link = \"{}\"", links[at]));
        }
        if let Some(http) = &fresh.http {
            line(format!("http = \"{}\"", http[at]));
        }
    }
    text + &fresh.extra
}

/// The configuration in a directory; written first if there is none.
pub fn read_or_write(
    dir: &Path,
    fresh: impl FnOnce() -> Result<Fresh, Stop>,
) -> Result<(PathBuf, Config), Stop> {
    let dir = &absolute(dir)?;
    let path = dir.join("site.toml");
    if !path.exists() {
        let written = fs::write(&path, text(dir, &fresh()?));
        written.map_err(|error| {
            Stop::usage(format!("cannot write {}: {error}. Choose another --dir.", path.display()))
        })?;
    }
    let config = read(&path)?;
    Ok((path, config))
}

/// Makes a directory, and its path absolute, because child processes are told of it.
pub fn absolute(dir: &Path) -> Result<PathBuf, Stop> {
    let made = fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
    made.map_err(|error| {
        Stop::usage(format!("cannot use the directory {}: {error}.", dir.display()))
    })
}

/// The same for a directory in which there must be nothing.
pub fn empty(dir: &Path) -> Result<PathBuf, Stop> {
    let dir = absolute(dir)?;
    let is_empty = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty {
        return Err(Stop::usage(format!(
            "the directory {} is not empty; choose a new one.",
            dir.display()
        )));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Fresh {
        from_base_port(9092).expect("low enough")
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = text(Path::new("/srv/Plant 7"), &fresh());
        let config = parse(&text, "site.toml").expect("valid");
        assert_eq!(config.nodes.len(), 3);
        assert_eq!(config.site, "plant-7");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn site_names_are_plain() {
        assert_eq!(site_name(Path::new("/")), "site");
        assert_eq!(site_name(Path::new("/a/--x--")), "x");
        assert_eq!(site_name(Path::new(&"a".repeat(80))).len(), 64);
    }

    #[test]
    fn errors_name_what_to_do() {
        let unreadable = read(Path::new("/does/not/exist.toml")).expect_err("not there").message;
        insta::assert_snapshot!(unreadable);
        let good = text(Path::new("/srv/plant"), &fresh());
        let unknown = parse(&format!("{good}kafak = 1\n"), "site.toml").expect_err("unknown key");
        insta::assert_snapshot!(unknown.message);
        let clash = parse(&good.replace("9192", "9092"), "site.toml").expect_err("twice");
        insta::assert_snapshot!(clash.message);
        let config = parse(&good, "site.toml").expect("valid");
        let missing = node(&config, NodeId(7), Path::new("site.toml")).expect_err("no node 7");
        insta::assert_snapshot!(missing.message);
        insta::assert_snapshot!(from_base_port(65_500).err().expect("too high").message);
    }
}
