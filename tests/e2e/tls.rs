//! A site with TLS on all of its connections: kcat, unmodified, writes and reads with a certificate
//! of the site, across the death of a leader, at names that the nodes advertise; who has none, or one of another authority, is refused,
//! and the node says why. A change that a follower hands over is that of whoever sent it.

use fulmar_tests::kafka::Client;
use fulmar_tests::kcat::Kcat;
use fulmar_tests::site::{How, NODES, Site, binary, eventually};
use fulmar_tests::tools;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const CONFIG: &str = "\n[tls]\nkeys = \"keys\"\n\n[kafka]\ntls = \"mutual\"\n";

fn fulmar(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary was built")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the directories of tests have plain names")
}

/// Lets the nodes tell clients a name, which certificates and clients have to be right about.
fn advertise_names(site: &Site) {
    let config = fs::read_to_string(site.config()).expect("it was just written");
    let named = config.lines().map(|line| match line.strip_prefix("kafka = \"127.0.0.1:") {
        Some(port) => format!("{line}\nadvertised = \"localhost:{port}\n"),
        None => format!("{line}\n"),
    });
    fs::write(site.config(), named.collect::<String>()).expect("the configuration");
}

/// The settings of a client: the authority that it trusts, and its own keys.
fn ssl(authority: &Path, own: Option<&Path>) -> Vec<String> {
    let mut settings = vec!["security.protocol=ssl".to_owned()];
    settings.push(format!("ssl.ca.location={}/authority.crt", authority.display()));
    if let Some(own) = own {
        settings.push(format!("ssl.certificate.location={}/sensor.crt", own.display()));
        settings.push(format!("ssl.key.location={}/sensor.key", own.display()));
    }
    settings.into_iter().flat_map(|setting| ["-X".to_owned(), setting]).collect()
}

fn kcat(site: &Site, arguments: &[&str], ssl: &[String]) -> Kcat {
    let all: Vec<&str> = arguments.iter().copied().chain(ssl.iter().map(String::as_str)).collect();
    Kcat::start(&site.bootstrap(), &all)
}

/// Whether kcat gets the metadata of the site, with these settings.
fn is_served(site: &Site, ssl: &[String]) -> bool {
    let mut kcat = Command::new("kcat");
    kcat.args(["-L", "-m", "3", "-b", &site.bootstrap()]).args(ssl);
    kcat.output().expect("kcat is there").status.success()
}

/// Who leads, once the site says so.
fn leader(site: &Site) -> i32 {
    let keys = site.directory().join("keys");
    let bootstrap = site.bootstrap();
    let asked = ["status", "--bootstrap", &bootstrap, "--keys", text(&keys), "--as", "sensor"];
    let found = eventually(|| {
        let output = fulmar(&asked);
        let told = String::from_utf8_lossy(&output.stdout);
        let leads = |line: &str| -> Option<i32> {
            let (node, rest) = line.trim().strip_prefix("node ")?.split_once(' ')?;
            rest.contains("leads").then(|| node.parse().ok())?
        };
        told.lines().find_map(leads).filter(|_| output.status.success()).ok_or_else(|| {
            io::Error::other(format!("{told}{}", String::from_utf8_lossy(&output.stderr)))
        })
    });
    found.unwrap_or_else(|error| panic!("nobody leads: {error}"))
}

fn said(site: &Site, what: &str) -> bool {
    (1..=3).any(|id| {
        let log = site.directory().join(format!("node-{id}.log"));
        fs::read_to_string(log).is_ok_and(|log| log.contains(what))
    })
}

/// Keys of the nodes and of a client called `sensor`.
fn make_keys(site: &Site, dir: &Path) {
    let config = site.config();
    let made = ["keys", "--config", text(&config), "--dir", text(dir), "--client", "sensor"];
    let output = fulmar(&made);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The certificate of an authority as a link has it. Needs `openssl`.
fn authority_in_hex(keys: &Path) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-outform", "DER", "-in"]).arg(keys.join("authority.crt"));
    let der = openssl.output().expect("openssl runs").stdout;
    der.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rules and links, as AlterConfigs knows them.
const RULE: i8 = 121;
const LINK: i8 = 120;

/// What the command says, of a site whose clients have keys.
fn told(site: &Site, command: &[&str]) -> String {
    let (keys, bootstrap) = (site.directory().join("keys"), site.bootstrap());
    let how = ["--bootstrap", &bootstrap, "--keys", text(&keys), "--as", "sensor"];
    let all: Vec<&str> = command.iter().copied().chain(how).collect();
    let output = fulmar(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_change_that_a_follower_hands_over_counts_as_made_by_who_sent_it() {
    if !tools::is_there("openssl") {
        return;
    }
    let mut site = Site::new("tls-forward", CONFIG);
    let keys = site.directory().join("keys");
    make_keys(&site, &keys);
    site.start_all(How::Plain);
    let authority = authority_in_hex(&keys);
    for name in ["first", "second"] {
        let (rule, link) = (format!("{name}-topic"), format!("{name}-link"));
        let settings = [("site", name), ("region", "eu"), ("authority", &*authority)];
        by_follower(&site, &keys, (RULE, &rule), &[("regions", "eu")]);
        by_follower(&site, &keys, (LINK, &link), &settings);
        for (kind, name) in [("rule", rule), ("link", link)] {
            let history = told(&site, &[kind, "history", &name]);
            assert!(history.contains("sensor"), "{history}");
            assert!(
                !history.contains("anonymous") && !history.contains("tls-forward"),
                "{history}"
            );
        }
    }
}

/// Changes something by way of a node that does not lead, neither before nor afterwards.
fn by_follower(site: &Site, keys: &Path, what: (i8, &str), settings: &[(&str, &str)]) {
    let changed = eventually(|| {
        let first = leader(site);
        let follower = NODES.into_iter().find(|id| *id != first).expect("there are three");
        let mut client = Client::connect_as(site.kafka(follower), keys, "sensor")?;
        client.alter(what, settings)?;
        if leader(site) == first { Ok(()) } else { Err(io::Error::other("another one leads")) }
    });
    assert!(changed.is_ok(), "{what:?}: {changed:?}");
}

#[test]
fn who_has_a_certificate_of_the_site_is_served_and_nobody_else() {
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("tls", CONFIG);
    advertise_names(&site);
    let (keys, others) = (site.directory().join("keys"), site.directory().join("others"));
    for dir in [&keys, &others] {
        make_keys(&site, dir);
    }
    site.start_all(How::Plain);
    let first = leader(&site);

    let ours = ssl(&keys, Some(&keys));
    let written: Vec<String> = (0..3_000).map(|number| format!("reading {number}")).collect();
    let mut writer =
        kcat(&site, &["-P", "-t", "readings", "-p", "0", "-X", "enable.idempotence=true"], &ours);
    for (number, chunk) in written.chunks(100).enumerate() {
        writer.feed((chunk.join("\n") + "\n").as_bytes());
        std::thread::sleep(Duration::from_millis(50));
        if number == 10 {
            site.kill(first);
        }
    }
    writer.finish(Duration::from_secs(60));
    let reader = ["-C", "-t", "readings", "-p", "0", "-o", "beginning", "-e", "-q"];
    let read =
        fulmar_tests::kcat::lines(&kcat(&site, &reader, &ours).finish(Duration::from_secs(60)));
    assert_eq!(read, written, "in order, none lost, none twice");
    assert_ne!(leader(&site), first);
    assert!(!said(&site, "trust"), "all nodes know each other");

    assert!(!is_served(&site, &[]), "no TLS");
    assert!(eventually_said(&site, "no-tls"));
    assert!(!is_served(&site, &ssl(&keys, None)), "no certificate");
    assert!(eventually_said(&site, "certificate-missing"));
    assert!(!is_served(&site, &ssl(&keys, Some(&others))), "a certificate of another authority");
    assert!(eventually_said(&site, "certificate-of-another-authority"));
    assert!(!is_served(&site, &ssl(&others, Some(&keys))), "a client that does not trust the site");
    assert!(eventually_said(&site, "the other side does not trust this node"));
    assert!(is_served(&site, &ours), "nobody else is disturbed");
}

fn eventually_said(site: &Site, what: &str) -> bool {
    let look = || {
        if said(site, what) { Ok(()) } else { Err(io::Error::other("not said")) }
    };
    eventually(look).is_ok()
}
