//! The only crate that knows openraft: log store, state machine driver, peer network, group handle.
