//! Repository checks, conformance and end-to-end tests with real processes and foreign clients.

pub mod tidy;
