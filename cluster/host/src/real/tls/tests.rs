//! Who is let in, who is not, and what both sides say about it.

use super::keys::{AUTHORITY_FILE, authority_of};
use super::{Asked, KeyFiles, KeysError, TlsLinks, TlsNetwork};
use crate::net::{Connection, Distrust, LinkNetwork, Network, PeerIdentity};
use crate::real::{RealNetwork, TracingObserver};
use crate::task::block_on;
use crate::time::{Duration, sleep, timeout};
use crate::{Host, Observer, conformance};
use fulmar_types::{Event, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Use, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn directory(name: &str) -> Directory {
    let path = std::env::temp_dir().join(format!("fulmar-tls-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a directory for temporary files");
    Directory(path)
}

/// Makes an authority in a directory.
fn authority(directory: &Path) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(directory.join(AUTHORITY_FILE), certificate.pem()).expect("written");
    Issuer::new(params, key)
}

fn params() -> CertificateParams {
    let names = vec!["node-1.north".to_owned(), "box.example".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.extended_key_usages = vec![Use::ServerAuth, Use::ClientAuth];
    params
}

fn sign(directory: &Path, issuer: &Issuer<'_, KeyPair>, params: &CertificateParams) {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    fs::write(directory.join("node-1.crt"), certificate.pem()).expect("written");
    fs::write(directory.join("node-1.key"), key.serialize_pem()).expect("written");
}

#[derive(Default)]
struct Said(Mutex<Vec<(&'static str, bool)>>);

impl Observer for Said {
    fn observe(&self, event: &Event) {
        if let Event::Distrusted { reason, by_peer, .. } = event {
            self.0.lock().expect("no panic").push((reason, *by_peer));
        }
    }
}

/// A side of a connection with what it said.
struct Side {
    network: Arc<dyn Network>,
    said: Arc<Said>,
}

impl Side {
    fn of(directory: &Path, asked: Asked) -> Self {
        let said = Arc::new(Said::default());
        let keys = KeyFiles::named(directory, "node-1").expect("keys");
        let network = TlsNetwork::with_keys(&keys, asked, said.clone()).expect("they fit");
        Self { network: Arc::new(network), said }
    }

    fn without_keys(directory: &Path) -> Self {
        let said = Arc::new(Said::default());
        let authority = directory.join(AUTHORITY_FILE);
        let network = TlsNetwork::trusting(&authority, said.clone()).expect("an authority");
        Self { network: Arc::new(network), said }
    }

    fn plain() -> Self {
        Self { network: Arc::new(RealNetwork), said: Arc::default() }
    }

    fn said(&self) -> Vec<(&'static str, bool)> {
        self.said.0.lock().expect("no panic").clone()
    }
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Whether one side reaches the other and both can speak.
async fn meet(server: &Side, client: &Side) -> Option<(Connection, Connection)> {
    let mut listener = server.network.listen(any()).await.expect("a free port");
    let at = listener.local_address();
    let both = async {
        let connecting = async {
            let mut near = client.network.connect(at).await.ok()?;
            near.writer.write_all(b"hello").await.ok()?;
            near.writer.flush().await.ok()?;
            let mut answer = [0; 5];
            near.reader.read_exact(&mut answer).await.ok()?;
            Some(near)
        };
        let accepting = async {
            let mut far = listener.accept().await.ok()?;
            let mut greeting = [0; 5];
            far.reader.read_exact(&mut greeting).await.ok()?;
            far.writer.write_all(&greeting).await.ok()?;
            far.writer.flush().await.ok()?;
            Some(far)
        };
        tokio::join!(connecting, accepting)
    };
    let (near, far) = timeout(Duration::from_millis(500), both).await.ok()?;
    near.zip(far)
}

/// That they do not come together, and what each of them says of it.
fn parted(server: &Side, client: &Side, server_says: &str, client_says: &str) {
    block_on(async {
        assert!(meet(server, client).await.is_none(), "{server_says}, {client_says}");
        sleep(Duration::from_millis(20)).await;
    });
    let said = |side: &Side| {
        let mut said: Vec<String> = side
            .said()
            .into_iter()
            .map(|(reason, by_peer)| format!("{}{reason}", if by_peer { "peer: " } else { "" }))
            .collect();
        said.dedup();
        said.join(", ")
    };
    assert_eq!((said(server).as_str(), said(client).as_str()), (server_says, client_says));
}

#[test]
fn it_keeps_the_promises_of_a_network() {
    let dir = directory("conformance");
    sign(&dir.0, &authority(&dir.0), &params());
    let real = Host::real(Arc::new(TracingObserver::default())).expect("threads");
    let network = Side::of(&dir.0, Asked::Certificate).network;
    let host = Host { network, ..real };
    block_on(conformance::network(&host, &host, any()));
}

#[test]
fn both_sides_learn_the_names_that_are_proved() {
    let dir = directory("names");
    sign(&dir.0, &authority(&dir.0), &params());
    let names = Some(vec!["node-1.north".to_owned(), "box.example".to_owned()]);
    block_on(async {
        let (server, client) =
            (Side::of(&dir.0, Asked::Certificate), Side::of(&dir.0, Asked::Certificate));
        let (near, far) = meet(&server, &client).await.expect("they trust each other");
        assert_eq!((near.peer.names.clone(), far.peer.names), (names.clone(), names.clone()));
        let server = Side::of(&dir.0, Asked::Nothing);
        let anonymous = Side::without_keys(&dir.0);
        let (near, far) = meet(&server, &anonymous).await.expect("nothing is asked");
        assert_eq!((near.peer.names.clone(), far.peer.names), (names, None));
        let refused = anonymous.network.listen(any()).await.map(|_| ());
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Unsupported));
    });
}

#[test]
fn strangers_are_refused_by_name_on_both_sides() {
    let (ours, theirs) = (directory("ours"), directory("theirs"));
    let issuer = authority(&ours.0);
    sign(&ours.0, &issuer, &params());
    sign(&theirs.0, &authority(&theirs.0), &params());
    let server = |asked| Side::of(&ours.0, asked);
    let other = "certificate-of-another-authority";
    // The client meets the certificate of the server first.
    let stranger = Side::of(&theirs.0, Asked::Certificate);
    parted(&server(Asked::Certificate), &stranger, &format!("peer: {other}"), other);
    let nobody = Side::without_keys(&ours.0);
    let missing = "certificate-missing";
    parted(&server(Asked::Certificate), &nobody, missing, &format!("peer: {missing}"));
    parted(&server(Asked::Certificate), &Side::plain(), "no-tls", "");

    // One who trusts us, whom we do not trust: his own certificate is of another authority.
    fs::copy(ours.0.join(AUTHORITY_FILE), theirs.0.join(AUTHORITY_FILE)).expect("copied");
    let stranger = Side::of(&theirs.0, Asked::Certificate);
    parted(&server(Asked::Certificate), &stranger, other, &format!("peer: {other}"));
    let reached = block_on(meet(&server(Asked::Nothing), &Side::of(&theirs.0, Asked::Nothing)));
    assert!(reached.is_some(), "where nothing is asked nothing is judged");
}

#[test]
fn certificates_count_in_their_time_and_for_their_use() {
    let (ours, theirs) = (directory("good"), directory("bad"));
    let issuer = authority(&ours.0);
    sign(&ours.0, &issuer, &params());
    fs::copy(ours.0.join(AUTHORITY_FILE), theirs.0.join(AUTHORITY_FILE)).expect("copied");
    let but = |change: fn(&mut CertificateParams)| {
        let mut params = params();
        change(&mut params);
        params
    };
    let late = but(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = but(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let to_listen = but(|params| params.extended_key_usages = vec![Use::ServerAuth]);
    let to_connect = but(|params| params.extended_key_usages = vec![Use::ClientAuth]);
    let (expired, not_yet) = ("certificate-expired", "certificate-not-yet-valid");
    let other_use = "certificate-for-another-use";
    // There is one word on the wire for too early and too late.
    let rows = [(late, expired, expired), (early, not_yet, expired)];
    let uses = [(to_listen, other_use, other_use)];
    for (params, here, there) in rows.iter().chain(&uses) {
        sign(&theirs.0, &issuer, params);
        let (good, bad) =
            (Side::of(&ours.0, Asked::Certificate), Side::of(&theirs.0, Asked::Nothing));
        parted(&good, &bad, here, &format!("peer: {there}"));
    }
    for (params, here, there) in rows.iter().chain(&[(to_connect, other_use, other_use)]) {
        sign(&theirs.0, &issuer, params);
        let (good, bad) = (Side::of(&ours.0, Asked::Nothing), Side::of(&theirs.0, Asked::Nothing));
        parted(&bad, &good, &format!("peer: {there}"), here);
    }
}

#[test]
fn one_who_answers_in_plain_is_told_from_one_who_does_not_answer() {
    let dir = directory("plain");
    sign(&dir.0, &authority(&dir.0), &params());
    block_on(async {
        let client = Side::of(&dir.0, Asked::Nothing);
        let mut listener = RealNetwork.listen(any()).await.expect("a free port");
        let at = listener.local_address();
        for (answer, said) in [(&b""[..], None), (&b"what do you want?"[..], Some("no-tls"))] {
            let (connected, ()) = tokio::join!(client.network.connect(at), async {
                let mut far = listener.accept().await.expect("the client");
                far.writer.write_all(answer).await.expect("it takes this");
            });
            assert!(connected.is_err());
            assert_eq!(client.said().last().map(|(reason, _)| *reason), said);
        }
    });
}

#[test]
fn a_caller_who_says_nothing_holds_up_nobody() {
    let dir = directory("silent");
    sign(&dir.0, &authority(&dir.0), &params());
    block_on(async {
        let side = Side::of(&dir.0, Asked::Certificate);
        let mut listener = side.network.listen(any()).await.expect("a free port");
        let at = listener.local_address();
        let silent = RealNetwork.connect(at).await.expect("the system takes it");
        let connected = side.network.connect(at).await;
        let accepted = timeout(Duration::from_secs(2), listener.accept()).await;
        assert!(connected.is_ok() && accepted.is_ok_and(|accepted| accepted.is_ok()));
        drop(silent);
    });
}

/// A side of links between sites, and whom it would pin.
struct Site {
    dir: Directory,
    issuer: Issuer<'static, KeyPair>,
}

impl Site {
    fn new(name: &str) -> Self {
        let dir = directory(name);
        let issuer = authority(&dir.0);
        Self { dir, issuer }
    }

    fn links(&self, params: &CertificateParams) -> Arc<TlsLinks> {
        sign(&self.dir.0, &self.issuer, params);
        let keys = KeyFiles::named(&self.dir.0, "node-1").expect("keys");
        Arc::new(TlsLinks::with_keys(&keys, Arc::new(Said::default())).expect("they fit"))
    }

    fn authority(&self) -> Vec<u8> {
        authority_of(&self.dir.0.join(AUTHORITY_FILE)).expect("there is one")
    }
}

#[test]
fn connections_between_sites_keep_their_promises() {
    let north = Site::new("links");
    let real = Host::real(Arc::new(TracingObserver::default())).expect("threads");
    let host = Host { links: north.links(&params()), ..real };
    let (written, came) = block_on(conformance::links(&host, &host, any()));
    assert!(
        came < written,
        "{came} of {written} bytes came: what waited to leave is to be dropped"
    );
}

#[test]
fn between_sites_everybody_is_judged_by_the_authority_that_is_asked_for() {
    let (north, south, other) = (Site::new("north"), Site::new("south"), Site::new("other"));
    let ours = north.links(&params());
    let both = [other.authority(), south.authority()].concat();
    assert_eq!(ours.check_authority(&both), Ok(()));
    // What the side that dialled is taken for, and what the side that listens is.
    let judged = |theirs: Arc<TlsLinks>, authority: &[u8]| {
        let side = |network: Arc<dyn Network>| Side { network, said: Arc::default() };
        let (near, far) = block_on(async {
            let (server, client) = (side(ours.clone()), side(theirs.clone()));
            meet(&server, &client).await.expect("the handshake refuses nobody with a key")
        });
        let names = Some(vec!["node-1.north".to_owned(), "box.example".to_owned()]);
        assert_eq!((&near.peer.names, near.peer.shown.len()), (&names, 1));
        assert_eq!(theirs.judge(&near.peer, &north.authority()), Ok(()));
        ours.judge(&far.peer, authority)
    };
    assert_eq!(judged(south.links(&params()), &south.authority()), Ok(()));
    assert_eq!(judged(south.links(&params()), &both), Ok(()), "while the authority changes");
    let refused = |change: fn(&mut CertificateParams)| {
        let mut params = params();
        change(&mut params);
        judged(south.links(&params), &south.authority()).expect_err("refused")
    };
    assert_eq!(refused(|p| p.not_after = date_time_ymd(2000, 1, 1)), Distrust::Expired);
    assert_eq!(refused(|p| p.not_before = date_time_ymd(3000, 1, 1)), Distrust::NotYetValid);
    // A Kafka client of the other site is not a node of it, whatever name it has.
    let of_client = refused(|p| p.extended_key_usages = vec![Use::ClientAuth]);
    assert_eq!(of_client, Distrust::OtherUse);
    assert_eq!(refused(|p| p.extended_key_usages.clear()), Distrust::OtherUse, "for nothing");
    let stranger = || other.links(&params());
    assert_eq!(judged(stranger(), &south.authority()), Err(Distrust::OtherAuthority));
    for nobody in [&[][..], &[0x30, 0x01, 0], b"south"] {
        assert_eq!(judged(stranger(), nobody), Err(Distrust::OtherAuthority));
    }
    let unproved = PeerIdentity::unproved(any());
    assert_eq!(ours.judge(&unproved, &south.authority()), Err(Distrust::Missing));
}

#[test]
fn between_sites_a_long_chain_is_not_looked_at() {
    let (north, south) = (Site::new("short"), Site::new("long"));
    let theirs = south.links(&params());
    let own = fs::read_to_string(south.dir.0.join("node-1.crt")).expect("there");
    fs::write(south.dir.0.join("node-1.crt"), own.repeat(5)).expect("written");
    let keys = KeyFiles::named(&south.dir.0, "node-1").expect("keys");
    let long = TlsLinks::with_keys(&keys, Arc::new(Said::default())).expect("they fit");
    let said = Arc::new(Said::default());
    let ours = Side {
        network: Arc::new(
            TlsLinks::with_keys(
                &{
                    sign(&north.dir.0, &north.issuer, &params());
                    KeyFiles::named(&north.dir.0, "node-1").expect("keys")
                },
                said.clone(),
            )
            .expect("they fit"),
        ),
        said,
    };
    let side = |network: Arc<dyn Network>| Side { network, said: Arc::default() };
    assert!(block_on(meet(&ours, &side(theirs))).is_some());
    assert!(block_on(meet(&ours, &side(Arc::new(long)))).is_none());
    assert_eq!(ours.said(), [("certificate-malformed", false)]);
}

#[test]
fn between_sites_nobody_gets_in_without_a_certificate() {
    let north = Site::new("bare");
    let ours = Side { network: north.links(&params()), said: Arc::default() };
    for bare in [Side::plain(), Side::without_keys(&north.dir.0)] {
        assert!(block_on(meet(&ours, &bare)).is_none());
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let dir = directory("files");
    let issuer = authority(&dir.0);
    let read = || KeyFiles::of_node(&dir.0, NodeId(1), "node-1.north").map(|_| ());
    let problem = || match read().expect_err("it does not fit") {
        KeysError::File { file, problem } => {
            format!("{}: {problem}", file.file_name().unwrap_or_default().display())
        }
        KeysError::Unfit { error, .. } => error.to_string(),
    };
    assert_eq!(problem(), "node-1.key: there is no such file; `fulmar keys` makes it");
    sign(&dir.0, &issuer, &params());
    read().expect("all is there");
    let other = KeyFiles::of_node(&dir.0, NodeId(1), "node-1.south").map(|_| ());
    let text = other.expect_err("another site").to_string();
    assert!(
        text.ends_with("it is not for node-1.south, but for node-1.north, box.example"),
        "{text}"
    );
    fs::write(dir.0.join("node-1.crt"), "nothing").expect("written");
    assert_eq!(problem(), "node-1.crt: it holds no certificate in PEM");
    sign(&dir.0, &issuer, &params());
    fs::write(dir.0.join(AUTHORITY_FILE), "").expect("written");
    assert_eq!(problem(), "authority.crt: it holds no certificate in PEM");

    authority(&dir.0);
    let key = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(dir.0.join("node-1.key"), key).expect("written");
    let keys = KeyFiles::named(&dir.0, "node-1").expect("each file is good");
    let observer = Arc::new(Said::default());
    let unfit = TlsNetwork::with_keys(&keys, Asked::Nothing, observer).map(|_| ());
    assert!(matches!(unfit, Err(KeysError::Unfit { .. })), "a key of another certificate");
}
