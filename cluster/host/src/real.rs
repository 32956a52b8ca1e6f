//! The implementations for a real machine.
