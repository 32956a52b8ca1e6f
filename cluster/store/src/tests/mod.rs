//! Tests of the whole store over a disk in memory.

mod basic;
mod crash;
mod damage;
pub mod disk;
pub mod fixture;
mod full;
mod install;
