//! `fulmar keys`: an authority for a site, and certificates for its nodes and clients.
//!
//! Invariants: nothing that is there is written over or removed; a private key is readable by its
//! owner alone.
//!
//! Never: put the private key of the authority where a node looks for its own. Whoever has it can
//! pass for every node of the site.

use super::client::unusable;
use super::output::say;
use super::{Stop, config_file};
use clap::Args;
use fulmar_host::clock::Clock;
use fulmar_host::real::tls::keys::{AUTHORITY_FILE, node_files};
use fulmar_host::real::{RealClock, tls};
use fulmar_types::ExitCode;
use fulmar_types::config::{Config, NodeConfig, certificate_name};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The private key of the authority.
const AUTHORITY_KEY_FILE: &str = "authority.key";

/// How long an authority lasts. To replace it means to visit every node twice.
const AUTHORITY_DAYS: u32 = 36_500;

const DAY: Duration = Duration::from_secs(86_400);

/// The year 2300: what comes after it has lost its way.
const NOW_MAX: Duration = Duration::from_secs(330 * 365 * 86_400);

/// Make the keys of a site: an authority, and certificates for its nodes.
///
/// What is there already is kept, so that it can be run again for a new client or a lost file. Give
/// each node the certificate of the authority and its own two files, and keep the authority's key
/// away from all of them.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The configuration of the site.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the keys are written. Without it, the directory that the configuration names under
    /// `[tls]`, or `keys` beside the configuration.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also a certificate for a Kafka client of this name; may be given several times.
    #[arg(long = "client", value_name = "NAME", value_parser = client_name)]
    clients: Vec<String>,
    /// How many days the certificates of nodes and clients last.
    #[arg(long, value_name = "N", default_value_t = 3_650,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// A name that makes a file and a certificate, and no node's.
fn client_name(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_taken = text == "authority" || text.starts_with("node-");
    if text.is_empty() || text.len() > 63 || !text.bytes().all(is_plain) || is_taken {
        return Err("use 1 to 63 lower-case letters, digits and `-`; not `authority`, and not \
                    beginning with `node-`"
            .to_owned());
    }
    Ok(text.to_owned())
}

/// Makes what is missing and says what is where.
pub fn run(options: Options) -> Result<ExitCode, Stop> {
    let config = config_file::read(&options.config)?;
    let beside = options.config.parent().unwrap_or(Path::new("")).join("keys");
    let dir = options.dir.or_else(|| config.tls.as_ref().map(|tls| tls.keys.clone()));
    let dir = dir.unwrap_or(beside);
    let told = make(&config, &dir, &options.clients, options.days)?;
    say(told.join("\n"));
    say(advice(&dir, &config));
    Ok(ExitCode::Ok)
}

/// Makes what is missing, with certificates that last so many days. Returns a line about each pair.
pub fn make(
    config: &Config,
    dir: &Path,
    clients: &[String],
    days: u32,
) -> Result<Vec<String>, Stop> {
    let keys = Keys::in_directory(dir, &config.site)?;
    let mut told = vec![keys.authority.told(dir)];
    for node in &config.nodes {
        let (stem, params) = (node_files(node.id), of_node(config, node));
        told.push(keys.pair(&stem, params.and_then(|params| lasting(params, days))?)?);
    }
    for name in clients {
        told.push(keys.pair(name, lasting(of_client(name), days)?)?);
    }
    Ok(told)
}

fn advice(dir: &Path, config: &Config) -> String {
    let mut text = format!(
        "Each node needs {AUTHORITY_FILE} and its own two files. Move {AUTHORITY_KEY_FILE} to a safe \
         place: whoever has it can pass for any node."
    );
    if config.tls.is_none() {
        text += &format!(
            "\nTo use them, add to the configuration of all nodes, and start all of them anew:\n\n\
             [tls]\nkeys = \"{}\"",
            dir.display()
        );
    }
    text
}

/// The authority of a site, and where it keeps what it signs.
struct Keys {
    dir: PathBuf,
    authority: Authority,
}

struct Authority {
    is_new: bool,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn told(&self, dir: &Path) -> String {
        told(self.is_new, &dir.join(AUTHORITY_FILE), &dir.join(AUTHORITY_KEY_FILE))
    }
}

fn told(is_new: bool, certificate: &Path, key: &Path) -> String {
    let what = if is_new { "made" } else { "kept" };
    format!("{what} {} and {}", certificate.display(), key.display())
}

impl Keys {
    /// The authority in a directory, made first if there is none.
    fn in_directory(dir: &Path, site: &str) -> Result<Self, Stop> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
            Stop::failed(format!("cannot make the directory {}: {error}.", dir.display()))
        })?;
        let (certificate, key) = (dir.join(AUTHORITY_FILE), dir.join(AUTHORITY_KEY_FILE));
        let params = of_authority(site)?;
        let (is_new, key) = match (certificate.exists(), key.exists()) {
            (true, true) => (false, read_authority(&certificate, &key, site)?),
            (false, false) => {
                let pair = new_key()?;
                let signed = params.self_signed(&pair).map_err(failed)?;
                write_pair((&certificate, &signed), (&key, &pair))?;
                (true, pair)
            }
            (there, _) => {
                let (there, missing) = if there { (certificate, key) } else { (key, certificate) };
                return Err(Stop::usage(format!(
                    "{} is there and {} is not; run this where the authority of the site is kept \
                     whole.",
                    there.display(),
                    missing.display()
                )));
            }
        };
        let authority = Authority { is_new, issuer: Issuer::new(params, key) };
        Ok(Self { dir: dir.to_owned(), authority })
    }

    /// A certificate and its key, made unless they are there. Returns a line that says which.
    fn pair(&self, stem: &str, params: CertificateParams) -> Result<String, Stop> {
        let certificate = self.dir.join(format!("{stem}.crt"));
        let key = self.dir.join(format!("{stem}.key"));
        let is_new = match (certificate.exists(), key.exists()) {
            (true, true) => false,
            (false, false) => {
                let pair = new_key()?;
                let signed = params.signed_by(&pair, &self.authority.issuer).map_err(failed)?;
                write_pair((&certificate, &signed), (&key, &pair))?;
                true
            }
            (there, _) => {
                let lone = if there { &certificate } else { &key };
                return Err(Stop::usage(format!(
                    "{} is there without its other half, and is of no use; move it away and run \
                     this again.",
                    lone.display()
                )));
            }
        };
        Ok(told(is_new, &certificate, &key))
    }
}

fn failed(error: rcgen::Error) -> Stop {
    Stop::failed(format!("a certificate could not be made: {error}."))
}

fn new_key() -> Result<KeyPair, Stop> {
    // ECDSA on P-256: every Kafka client knows it.
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)
}

fn authority_name(site: &str) -> String {
    format!("Fulmar authority of site {site}")
}

/// The key of an authority that is there.
fn read_authority(certificate: &Path, key: &Path, site: &str) -> Result<KeyPair, Stop> {
    let foreign = |what: &str| {
        Stop::usage(format!(
            "{what}. The authority in {} is not one that `fulmar keys` made for site {site}; sign \
             the certificates with the tool that made it, or choose another --dir.",
            certificate.parent().unwrap_or(Path::new(".")).display()
        ))
    };
    let text = fs::read_to_string(key)
        .map_err(|error| Stop::failed(format!("cannot read {}: {error}.", key.display())))?;
    let pair = KeyPair::from_pem(&text)
        .map_err(|error| foreign(&format!("{} holds no key: {error}", key.display())))?;
    let held = tls::keys::certificate(certificate).map_err(unusable)?;
    let holds = |wanted: &[u8]| held.windows(wanted.len()).any(|bytes| bytes == wanted);
    if !holds(authority_name(site).as_bytes()) {
        return Err(foreign(&format!("{} names another one", certificate.display())));
    }
    if !holds(rcgen::PublicKeyData::der_bytes(&pair)) {
        return Err(foreign(&format!("{} is of another key", certificate.display())));
    }
    Ok(pair)
}

/// Writes a certificate and its key; the key first, so that none is left without.
fn write_pair(
    (certificate, signed): (&Path, &Certificate),
    (key, pair): (&Path, &KeyPair),
) -> Result<(), Stop> {
    write_new(key, 0o600, &pair.serialize_pem())?;
    write_new(certificate, 0o644, &signed.pem())
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Stop> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| Stop::failed(format!("cannot write {}: {error}.", path.display())))
}

fn of_authority(site: &str) -> Result<CertificateParams, Stop> {
    let mut params = named(&authority_name(site));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(params, AUTHORITY_DAYS)
}

/// A node listens, and connects to others. It is known by its name in the site and by the addresses
/// that clients are told.
fn of_node(config: &Config, node: &NodeConfig) -> Result<CertificateParams, Stop> {
    let name = certificate_name(&config.site, node.id);
    let mut params = named(&name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut hosts = vec![name, node.kafka.ip().to_string(), node.peer.ip().to_string()];
    let advertised = node.client_address();
    hosts.extend(advertised.map(|(host, _)| host));
    if node.kafka.ip().is_loopback() {
        hosts.push("localhost".to_owned());
    }
    hosts.sort();
    hosts.dedup();
    for host in hosts {
        match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => {}
            Ok(address) => params.subject_alt_names.push(SanType::IpAddress(address)),
            Err(_) => {
                let host = host.try_into().map_err(failed)?;
                params.subject_alt_names.push(SanType::DnsName(host));
            }
        }
    }
    Ok(params)
}

fn of_client(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// From long ago, so that a box whose clock has lost the date can still start, until so many days
/// from today.
fn lasting(mut params: CertificateParams, days: u32) -> Result<CertificateParams, Stop> {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(RealClock.wall_ms());
    if now > NOW_MAX {
        return Err(Stop::failed("the clock of this machine is centuries ahead; set it first."));
    }
    params.not_before = epoch;
    params.not_after = epoch + now + DAY * days;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::real::tls::KeyFiles;
    use fulmar_types::NodeId;
    use std::os::unix::fs::PermissionsExt;

    /// A site of one node in a directory that is removed at the end.
    struct Site(PathBuf);

    impl Drop for Site {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn site(name: &str) -> Site {
        let dir = std::env::temp_dir().join(format!("fulmar-keys-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory for temporary files");
        let text = "site = \"north\"\n[[node]]\nid = 1\ndata = \"d\"\nkafka = \"0.0.0.0:9092\"\n\
                    advertised = \"box.example:9092\"\npeer = \"10.0.0.1:9192\"\n";
        fs::write(dir.join("site.toml"), text).expect("written");
        Site(dir)
    }

    fn options(site: &Site, clients: &[&str]) -> Options {
        Options {
            config: site.0.join("site.toml"),
            dir: None,
            clients: clients.iter().map(|name| (*name).to_owned()).collect(),
            days: 30,
        }
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_kept() {
        let site = site("made");
        let keys = site.0.join("keys");
        run(options(&site, &[])).expect("made");
        let read = |name: &str| fs::read(keys.join(name)).expect("it is there");
        let before = (read("authority.crt"), read("authority.key"), read("node-1.crt"));
        run(options(&site, &["sensor"])).expect("made");
        assert_eq!((read("authority.crt"), read("authority.key"), read("node-1.crt")), before);
        for name in ["authority.key", "node-1.key", "sensor.key"] {
            let mode = fs::metadata(keys.join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name} is for its owner alone");
        }
        KeyFiles::of_node(&keys, NodeId(1), "node-1.north").expect("a node can use them");
        KeyFiles::named(&keys, "sensor").expect("a client can use them");
        let config = config_file::read(&site.0.join("site.toml")).expect("good");
        let names = of_node(&config, &config.nodes[0]).expect("plain names").subject_alt_names;
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let told = names.join(" ");
        for name in ["10.0.0.1", "box.example", "node-1.north"] {
            assert!(told.contains(name), "{told}");
        }
        assert!(!told.contains("0.0.0.0)") && names.len() == 3, "{told}");
    }

    #[test]
    fn halves_and_strangers_are_refused_and_nothing_is_written_over() {
        let site = site("refused");
        let keys = site.0.join("keys");
        run(options(&site, &["sensor"])).expect("made");
        let refused = |clients: &[&str]| run(options(&site, clients)).expect_err("refused").message;
        let key = fs::read(keys.join("sensor.key")).expect("there");
        fs::remove_file(keys.join("sensor.key")).expect("removed");
        assert!(refused(&["sensor"]).contains("sensor.crt is there without its other half"));
        // A key that does not belong to the authority.
        fs::rename(keys.join("authority.key"), keys.join("old.key")).expect("moved");
        assert!(refused(&[]).contains("authority.key is not"));
        fs::write(keys.join("authority.key"), &key).expect("written");
        assert!(refused(&[]).contains("is of another key"));
        fs::write(keys.join("authority.key"), "nothing").expect("written");
        assert!(refused(&[]).contains("holds no key"));
        fs::copy(keys.join("old.key"), keys.join("authority.key")).expect("copied");
        let other = fs::read_to_string(site.0.join("site.toml")).expect("there");
        fs::write(site.0.join("site.toml"), other.replace("north", "south")).expect("written");
        assert!(refused(&[]).contains("names another one"));
    }

    #[test]
    fn names_of_clients_are_plain_and_no_nodes() {
        assert_eq!(client_name("sensor-7"), Ok("sensor-7".to_owned()));
        for bad in ["", "node-1", "authority", "a/b", "..", "Sensor", &"a".repeat(64)] {
            assert!(client_name(bad).is_err(), "{bad}");
        }
    }
}
