//! Why one side of a connection does not trust the other.

use std::io;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// The names of the reasons, as they stand in the log and in the runbook.
const EXPIRED: &str = "certificate-expired";
const NOT_YET_VALID: &str = "certificate-not-yet-valid";
const OTHER_AUTHORITY: &str = "certificate-of-another-authority";
const OTHER_USE: &str = "certificate-for-another-use";
const MISSING: &str = "certificate-missing";
const MALFORMED: &str = "certificate-malformed";
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
                Self { name: of_certificate(error), by_peer: false }
            }
            Error::NoCertificatesPresented => Self { name: MISSING, by_peer: false },
            Error::InvalidMessage(_) => Self { name: NO_TLS, by_peer: false },
            _ => Self { name: FAILED, by_peer: false },
        })
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            NOT_YET_VALID
        }
        // A signature of another key under the name of the authority that is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => OTHER_AUTHORITY,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            OTHER_USE
        }
        _ => MALFORMED,
    }
}

/// What the other side may say (RFC 8446, section 6.2). It has one word for too early and too late.
fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateExpired => Some(EXPIRED),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Some(OTHER_AUTHORITY),
        AlertDescription::UnsupportedCertificate => Some(OTHER_USE),
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Some(MISSING),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => Some(MALFORMED),
        // The end of a connection that was well.
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => None,
        _ => Some(FAILED),
    }
}
