//! What a certificate calls its owner for people: the common name of its subject.
//!
//! ```text
//! subject   the RDNs, one after the other
//! RDN       SET of attributes
//! attribute SEQUENCE of: OBJECT IDENTIFIER, a string      2.5.4.3 is the common name
//! ```
//!
//! Source: X.501 and RFC 5280, section 4.1.2.4, in DER.
//!
//! Invariant: any bytes give a name or none. Nobody is trusted for this name: it says in words who it was
//! that a verified certificate let in.

use tokio_rustls::rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The common name of a certificate, which has been verified.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    in_subject(certificate.subject())
}

fn in_subject(subject: &[u8]) -> Option<String> {
    let mut rest = subject;
    while let Some((tag, set, behind)) = element(rest) {
        rest = behind;
        if tag != SET {
            return None;
        }
        let mut attributes = set;
        while let Some((SEQUENCE, attribute, behind)) = element(attributes) {
            attributes = behind;
            let (OBJECT_IDENTIFIER, kind, value) = element(attribute)? else { return None };
            if kind == COMMON_NAME
                && let (UTF8_STRING | PRINTABLE_STRING, text, _) = element(value)?
            {
                return std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
    }
    None
}

/// The tag and the content of the first element, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // The length has one or two bytes of its own: a name is no longer.
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    Some((*tag, content, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C=DE, CN=carol
    const SUBJECT: &[u8] = b"\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE\
        \x31\x0e\x30\x0c\x06\x03\x55\x04\x03\x0c\x05carol";

    #[test]
    fn the_common_name_is_found_among_others() {
        assert_eq!(in_subject(SUBJECT).as_deref(), Some("carol"));
        assert_eq!(in_subject(&SUBJECT[..13]), None, "a country is no name");
        assert_eq!(in_subject(b""), None);
        for len in 0..SUBJECT.len() {
            assert_eq!(in_subject(&SUBJECT[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn any_bytes_give_a_name_or_none() {
        for at in 0..SUBJECT.len() {
            for byte in 0..=u8::MAX {
                let mut changed = SUBJECT.to_vec();
                changed[at] = byte;
                for len in at..=changed.len() {
                    let name = in_subject(&changed[..len]);
                    assert!(name.is_none_or(|name| name.len() < SUBJECT.len()));
                }
            }
        }
    }
}
