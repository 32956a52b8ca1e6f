//! ApiVersions (key 18). A request of an unknown version never gets here: its body has a form that
//! nobody knows, so the server answers it from the header alone (KIP-511).

use fulmar_wire::ApiVersionsResponse;

/// What is advertised is the table of the wire crate.
pub(super) fn handle() -> ApiVersionsResponse {
    ApiVersionsResponse::advertised()
}
