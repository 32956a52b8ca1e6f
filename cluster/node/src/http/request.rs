//! The request that comes over HTTP, as far as this node has to understand it: what is asked for.
//!
//! ```text
//! GET /metrics?x=y HTTP/1.1 CRLF
//! name: value CRLF              passed over: no header changes the answer, and no request that is
//! ...                           answered has a body
//! CRLF
//! ```
//!
//! Invariants: any bytes give a request, a wish for more, or an error; nothing is copied but the path;
//! what is looked at is bounded by [`HEAD_BYTES_MAX`].
//!
//! Never: believe anything that a header says.

/// The longest head of a request, in bytes. Browsers with cookies send a few KiB.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// The longest method, in bytes: `PROPPATCH` and its like.
const METHOD_BYTES_MAX: usize = 32;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for, without what stands behind `?`.
    pub path: String,
    /// Whether only the head of the answer is wanted.
    pub head_only: bool,
}

/// Why a request is not answered with what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// It is no request.
    Malformed,
    /// It wants something else than to look.
    Method,
    /// Its head is too long.
    TooLong,
    /// It speaks another version.
    Version,
}

/// Reads a request from the bytes that have come so far. `None` if more has to come.
///
/// # Errors
/// If these bytes do not begin a request that can be answered.
pub fn read(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
    let looked_at = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    if !ends(looked_at) {
        return if bytes.len() >= HEAD_BYTES_MAX { Err(BadRequest::TooLong) } else { Ok(None) };
    }
    let line = looked_at.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| BadRequest::Malformed)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadRequest::Malformed);
    };
    let is_method = (1..=METHOD_BYTES_MAX).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    let is_target = target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_method || !is_target {
        return Err(BadRequest::Malformed);
    }
    match version {
        "HTTP/1.0" | "HTTP/1.1" => {}
        other if other.starts_with("HTTP/") => return Err(BadRequest::Version),
        _ => return Err(BadRequest::Malformed),
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(BadRequest::Method);
    }
    if !target.starts_with('/') {
        return Err(BadRequest::Malformed);
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Some(Request { path, head_only: method == "HEAD" }))
}

/// Whether the empty line is there that ends a head.
fn ends(bytes: &[u8]) -> bool {
    let empty = |two: &[u8]| two == b"\n\n";
    bytes.windows(2).any(empty) || bytes.windows(3).any(|three| three == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(path: &str) -> Result<Option<Request>, BadRequest> {
        Ok(Some(Request { path: path.to_owned(), head_only: false }))
    }

    #[test]
    fn what_people_and_programs_ask() {
        let scrape = b"GET /metrics HTTP/1.1\r\nHost: a:9392\r\nAccept-Encoding: gzip\r\n\r\n";
        assert_eq!(read(scrape), get("/metrics"));
        assert_eq!(read(b"GET /readyz?verbose=1 HTTP/1.0\n\n"), get("/readyz"));
        let head = Request { path: "/healthz".to_owned(), head_only: true };
        assert_eq!(read(b"HEAD /healthz HTTP/1.1\r\n\r\n"), Ok(Some(head)));
        for part in 0..scrape.len() {
            assert_eq!(read(&scrape[..part]), Ok(None), "{part} bytes");
        }
    }

    #[test]
    fn what_is_no_question_has_a_name() {
        for (bytes, why) in [
            (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], BadRequest::Method),
            (b"DELETE / HTTP/1.1\r\n\r\nbody", BadRequest::Method),
            (b"GET /metrics HTTP/2.0\r\n\r\n", BadRequest::Version),
            (b"GET /metrics\r\n\r\n", BadRequest::Malformed),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"GET metrics HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"GET /m\xffx HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"GET /m\x01x HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"\r\n\r\n", BadRequest::Malformed),
            (&[b'a'; HEAD_BYTES_MAX][..], BadRequest::TooLong),
        ] {
            assert_eq!(read(bytes), Err(why), "{}", String::from_utf8_lossy(bytes));
        }
        let mut long = b"GET / HTTP/1.1\r\n".to_vec();
        long.resize(HEAD_BYTES_MAX, b'x');
        long.extend(b"\r\n\r\n");
        assert_eq!(read(&long), Err(BadRequest::TooLong), "the end comes too late");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_a_wish_or_an_error(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..400),
                "[A-Z]{0,6} {0,2}[/a-z?=]{0,20} {0,2}HTTP/[0-9.]{0,4}\r?\n(a: b\r?\n){0,3}\r?\n?"
                    .prop_map(String::into_bytes),
            ],
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = read(&bytes);
            if let Ok(Some(request)) = &whole {
                prop_assert!(request.path.starts_with('/') && request.path.len() < bytes.len());
                prop_assert!(!request.path.contains(['?', ' ', '\r', '\n']));
            }
            // What has come of it so far says the same, or asks for more.
            let part = read(&bytes[..cut.index(bytes.len() + 1)]);
            prop_assert!(part == whole || part == Ok(None), "{part:?} and then {whole:?}");
        }
    }
}
