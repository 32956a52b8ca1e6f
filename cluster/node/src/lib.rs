//! Composition: configuration to running node, and the binary fulmar.
