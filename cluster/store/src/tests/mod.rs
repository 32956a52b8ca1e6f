//! Tests of the whole store over a disk in memory.

mod basic;
pub mod disk;
pub mod fixture;
