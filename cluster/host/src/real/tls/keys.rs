//! Certificates and keys, read from a directory.
//!
//! ```text
//! keys/
//!   authority.crt   who signs the nodes of the site; one certificate, or several while it changes
//!   node-N.crt      the certificate of node N, and those between it and the authority, if any
//!   node-N.key      its private key
//! ```
//!
//! All of them are PEM. A node reads the authority and its own two files; `fulmar keys` makes them,
//! and those of another tool do as well.
//!
//! Never: read the private key of the authority. It belongs on no node.

use super::links::Anybody;
use super::network::names_of;
use fulmar_types::NodeId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

/// The file of the authority's certificate.
pub const AUTHORITY_FILE: &str = "authority.crt";

/// What the names of the files of a node begin with.
pub fn node_files(node: NodeId) -> String {
    format!("node-{node}")
}

/// Why keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// A file is missing, cannot be read, or holds something else.
    #[error("{}: {problem}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The files do not fit together.
    #[error("the keys in {} do not fit together: {error}", directory.display())]
    Unfit {
        /// Where they are.
        directory: PathBuf,
        /// What does not fit.
        error: rustls::Error,
    },
}

/// What one participant of a site proves itself with, and whom it trusts.
pub struct KeyFiles {
    directory: PathBuf,
    authority: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl KeyFiles {
    /// Reads the keys of a node, whose certificate must give it a name that the others know it by.
    ///
    /// # Errors
    /// If a file is missing or holds something else, or the certificate is not this node's.
    pub fn of_node(directory: &Path, node: NodeId, name: &str) -> Result<Self, KeysError> {
        let keys = Self::named(directory, &node_files(node))?;
        let names = keys.chain.first().map(names_of).transpose();
        let names = names.ok().flatten().unwrap_or_default();
        if names.iter().any(|own| own == name) {
            return Ok(keys);
        }
        let file = directory.join(format!("{}.crt", node_files(node)));
        let problem = format!("it is not for {name}, but for {}", names.join(", "));
        Err(KeysError::File { file, problem })
    }

    /// Reads the keys of whoever `NAME.crt` and `NAME.key` are of.
    ///
    /// # Errors
    /// If a file is missing or holds something else.
    pub fn named(directory: &Path, name: &str) -> Result<Self, KeysError> {
        let (authority, chain) =
            (directory.join(AUTHORITY_FILE), directory.join(format!("{name}.crt")));
        let key_file = directory.join(format!("{name}.key"));
        let key = PrivateKeyDer::from_pem_file(&key_file)
            .map_err(|error| unreadable(&key_file, "private key", &error))?;
        Ok(Self {
            authority: Arc::new(roots(&authority)?),
            chain: certificates(&chain)?,
            directory: directory.to_owned(),
            key,
        })
    }

    fn unfit(&self, error: rustls::Error) -> KeysError {
        KeysError::Unfit { directory: self.directory.clone(), error }
    }

    /// How to listen. `is_mutual` is whether those who connect must prove who they are.
    pub(super) fn server(&self, is_mutual: bool) -> Result<ServerConfig, KeysError> {
        let verifier = || {
            let provider = Arc::new(ring::default_provider());
            let builder =
                WebPkiClientVerifier::builder_with_provider(self.authority.clone(), provider);
            builder.build().map_err(|error| self.unfit(rustls::Error::General(error.to_string())))
        };
        let verifier = is_mutual.then(verifier).transpose()?;
        self.listening(verifier, rustls::DEFAULT_VERSIONS)
    }

    /// How to listen for other sites, and to connect to them; `anybody` checks that who shows a
    /// certificate has its key.
    pub(super) fn links(
        &self,
        anybody: Arc<Anybody>,
    ) -> Result<(ClientConfig, ServerConfig), KeysError> {
        let newest = &[&rustls::version::TLS13];
        let client = connecting(anybody.clone(), Some(self.own()), newest);
        Ok((client.map_err(|error| self.unfit(error))?, self.listening(Some(anybody), newest)?))
    }

    /// How to connect to a node of the site.
    pub(super) fn client(&self) -> Result<ClientConfig, KeysError> {
        let verifier = Arc::new(AnyNode::of(self.authority.clone()));
        let client = connecting(verifier, Some(self.own()), rustls::DEFAULT_VERSIONS);
        client.map_err(|error| self.unfit(error))
    }

    fn own(&self) -> Own {
        (self.chain.clone(), self.key.clone_key())
    }

    /// How to listen to those whom somebody has verified, or to anybody.
    fn listening(
        &self,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerConfig, KeysError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| self.unfit(error))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = self.own();
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| self.unfit(error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// A certificate, those between it and its authority, and its private key.
type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How somebody without a certificate of his own connects to a node of the site.
pub(super) fn anonymous(authority: &Path) -> Result<ClientConfig, KeysError> {
    let unfit = |error| KeysError::Unfit { directory: authority.to_owned(), error };
    let verifier = Arc::new(AnyNode::of(Arc::new(roots(authority)?)));
    connecting(verifier, None, rustls::DEFAULT_VERSIONS).map_err(unfit)
}

/// How to connect to those whom somebody has verified, with or without a certificate of one's own.
fn connecting(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<Own>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn unreadable(file: &Path, what: &str, error: &pem::Error) -> KeysError {
    let problem = match error {
        pem::Error::NoItemsFound => format!("it holds no {what} in PEM"),
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file; `fulmar keys` makes it".to_owned()
        }
        pem::Error::Io(error) => error.to_string(),
        error => format!("it holds no {what} in PEM: {error}"),
    };
    KeysError::File { file: file.to_owned(), problem }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let problem = |error: pem::Error| unreadable(file, "certificate", &error);
    let found = CertificateDer::pem_file_iter(file).map_err(problem)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(problem)?;
    if found.is_empty() {
        return Err(problem(pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// All certificates of an authority, as they are signed, one behind the other: what a link pins.
///
/// # Errors
/// If the file holds none.
pub fn authority_of(file: &Path) -> Result<Vec<u8>, KeysError> {
    Ok(certificates(file)?.iter().flat_map(|certificate| certificate.iter().copied()).collect())
}

/// The SHA-256 of certificates, as `openssl x509 -fingerprint -sha256` shows that of one.
pub fn fingerprint(certificates: &[u8]) -> String {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let Some(suite) = suite.tls13() else { return String::new() };
    let hash = suite.common.hash_provider.hash(certificates);
    let bytes: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// The first certificate in a file, as it is signed.
///
/// # Errors
/// If there is none.
pub fn certificate(file: &Path) -> Result<Vec<u8>, KeysError> {
    Ok(certificates(file)?.swap_remove(0).to_vec())
}

fn roots(file: &Path) -> Result<RootCertStore, KeysError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| KeysError::File {
            file: file.to_owned(),
            problem: format!("a certificate in it cannot be used as an authority: {error}"),
        })?;
    }
    Ok(roots)
}

/// Trusts whoever the authority gave a certificate for listening, under whatever name: the authority
/// is the site's own, and gives such certificates to nodes of the site only.
#[derive(Debug)]
struct AnyNode {
    authority: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyNode {
    fn of(authority: Arc<RootCertStore>) -> Self {
        Self { authority, algorithms: ring::default_provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.authority,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
