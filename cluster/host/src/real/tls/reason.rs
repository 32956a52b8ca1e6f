//! Why one side of a connection does not trust the other.

use crate::net::Distrust;
use std::io;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Reasons that have nothing to do with a certificate, as they stand in the log and in the runbook.
const NO_TLS: &str = "no-tls";
const FAILED: &str = "tls-failed";

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// What for.
    pub name: &'static str,
    /// Whether the other side refuses this one.
    pub by_peer: bool,
}

impl Reason {
    /// The reason behind an error of a connection; `None` if the connection just broke.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match inner {
            Error::AlertReceived(alert) => Self { name: of_alert(*alert)?, by_peer: true },
            Error::InvalidCertificate(error) => {
                Self { name: of_certificate(error).name(), by_peer: false }
            }
            Error::NoCertificatesPresented => {
                Self { name: Distrust::Missing.name(), by_peer: false }
            }
            Error::InvalidMessage(_) => Self { name: NO_TLS, by_peer: false },
            _ => Self { name: FAILED, by_peer: false },
        })
    }
}

/// What is wrong with a certificate.
fn of_certificate(error: &CertificateError) -> Distrust {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Distrust::NotYetValid
        }
        // A signature of another key under the name of the authority that is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Distrust::OtherAuthority
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Distrust::OtherUse
        }
        _ => Distrust::Malformed,
    }
}

/// What the other side may say (RFC 8446, section 6.2). It has one word for too early and too late.
fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateExpired => Some(Distrust::Expired.name()),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            Some(Distrust::OtherAuthority.name())
        }
        AlertDescription::UnsupportedCertificate => Some(Distrust::OtherUse.name()),
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            Some(Distrust::Missing.name())
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            Some(Distrust::Malformed.name())
        }
        // The end of a connection that was well.
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => None,
        _ => Some(FAILED),
    }
}
