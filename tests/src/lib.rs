//! Repository checks, conformance and end-to-end tests with real processes and foreign clients.

pub mod cargo;
pub mod power_cut;
pub mod tidy;
pub mod tools;
