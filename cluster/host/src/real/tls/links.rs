//! TLS between sites, each of which has an authority of its own.
//!
//! Which authority is the right one is known only when the other side has said which site it is of. So
//! the handshake proves no more than that the other side has the key of the certificate that it shows,
//! and whoever has asked for its site has that certificate judged.
//!
//! Invariants: TLS 1.3 and nothing older; both sides show a certificate; one for clients of a site does
//! not make a node of it.
//!
//! Never: hand a connection to anybody who does not know that it is to be judged first.

use super::keys::{KeyFiles, KeysError};
use super::network::TlsNetwork;
use crate::net::{Connection, Distrust, LinkNetwork, Listener, Network, PeerIdentity};
use crate::{BoxFuture, Observer};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

/// The network between sites.
pub struct TlsLinks(TlsNetwork);

impl TlsLinks {
    /// That of a node with keys.
    ///
    /// # Errors
    /// If the keys do not fit together.
    pub fn with_keys(keys: &KeyFiles, observer: Arc<dyn Observer>) -> Result<Self, KeysError> {
        Ok(Self(TlsNetwork::for_links(keys.links(Arc::new(Anybody::new()))?, observer)))
    }
}

impl Network for TlsLinks {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.0.listen(address)
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        self.0.connect(address)
    }

    fn connect_to_name<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        self.0.connect_to_name(name)
    }
}

impl LinkNetwork for TlsLinks {
    fn check_authority(&self, authority: &[u8]) -> Result<(), String> {
        roots(authority).map(drop)
    }

    fn judge(&self, peer: &PeerIdentity, authority: &[u8]) -> Result<(), Distrust> {
        let [own, between @ ..] = peer.shown.as_slice() else { return Err(Distrust::Missing) };
        let roots = roots(authority).map_err(|_| Distrust::OtherAuthority)?;
        let between: Vec<_> = between.iter().map(|der| CertificateDer::from(&der[..])).collect();
        let own = CertificateDer::from(&own[..]);
        let own = EndEntityCert::try_from(&own).map_err(|_| Distrust::Malformed)?;
        // A certificate for listening, whoever dialled: the authority gives those to nodes only.
        let (algorithms, usage) = (
            ring::default_provider().signature_verification_algorithms.all,
            KeyUsage::required(SERVER_AUTH),
        );
        let now = UnixTime::now();
        own.verify_for_usage(algorithms, &roots.roots, &between, now, usage, None, None)
            .map(drop)
            .map_err(|error| distrust(&error))
    }
}

/// The use of a certificate for listening in TLS (RFC 5280, section 4.2.1.12), in DER.
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

fn distrust(error: &webpki::Error) -> Distrust {
    match error {
        webpki::Error::CertExpired { .. } => Distrust::Expired,
        webpki::Error::CertNotValidYet { .. } => Distrust::NotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) => Distrust::OtherUse,
        // A signature of another key under the name of the authority that is trusted.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            Distrust::OtherAuthority
        }
        _ => Distrust::Malformed,
    }
}

/// The authorities whose certificates lie one behind the other.
fn roots(authority: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut rest = authority;
    while !rest.is_empty() {
        let length = der_len(rest).filter(|length| *length <= rest.len());
        let length = length.ok_or("the authority is no row of certificates in DER")?;
        let (certificate, behind) = rest.split_at(length);
        roots
            .add(CertificateDer::from(certificate))
            .map_err(|error| format!("the authority cannot be used as one: {error}"))?;
        rest = behind;
    }
    if roots.is_empty() {
        return Err("a link needs the certificate of the other site's authority".to_owned());
    }
    Ok(roots)
}

/// The length of the sequence at the beginning, its header included (X.690, section 8.1.3).
fn der_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0x30, length, ..] if length < 0x80 => Some(2 + usize::from(length)),
        [0x30, 0x81, length, ..] => Some(3 + usize::from(length)),
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// Takes anybody who has the key of the certificate that he shows.
#[derive(Debug)]
pub(super) struct Anybody(WebPkiSupportedAlgorithms);

impl Anybody {
    fn new() -> Self {
        Self(ring::default_provider().signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_certificates_is_taken_apart_where_they_end() {
        assert_eq!(der_len(&[0x30, 0x05]), Some(7));
        assert_eq!(der_len(&[0x30, 0x81, 0x80]), Some(0x83));
        assert_eq!(der_len(&[0x30, 0x82, 0x01, 0x02]), Some(0x106));
        for bad in [&[][..], &[0x30], &[0x31, 0x05], &[0x30, 0x80], &[0x30, 0x83, 1, 1, 1]] {
            assert_eq!(der_len(bad), None);
        }
        for bad in [&[0x30, 0x05, 0][..], &[0x30, 0x01, 0], b"no certificate"] {
            roots(bad).map(drop).expect_err("no authority");
        }
        assert!(roots(&[]).expect_err("none").contains("needs the certificate"));
    }
}
