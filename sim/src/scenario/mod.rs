//! Scenario files: what happens in a run, as data.
//!
//! ```text
//! text --parse--> Scenario --draw(seed)--> DrawnScenario --print--> text
//!        fields     ranges, choices          one value each          replays alone
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `model` | the two stages of a scenario |
//! | `workload`, `fault`, `check` | the kinds, one table of parameters each |
//! | `net`, `disk`, `clock`, `overrides` | the world when no fault is active |
//! | `target`, `trigger` | who and when |
//! | `quantity`, `param` | values with units, ranges; how a parameter is read, drawn, printed |
//! | `fields`, `source`, `parse`, `validate` | strict reading, errors with line and column |
//! | `draw`, `print` | from seed to run, and back to a file |
//! | `resolve` | who a role is and which links it has, when a fault fires |
//!
//! Invariants: an unknown key or kind is refused; a drawn scenario has no range and no choice left,
//! and printed, parsed and drawn again with any seed it is the same.
//!
//! Never: loops, conditions or arithmetic in a scenario file. What needs them is written in Rust.

mod clock;
mod disk;
mod draw;
mod fields;
mod model;
mod net;
mod overrides;
mod param;
mod parse;
mod print;
mod quantity;
mod resolve;
mod site;
mod source;
mod target;
mod trigger;
mod validate;

pub mod check;
pub mod fault;
pub mod workload;

pub use check::Check;
pub use clock::{Clock, NodeClock};
pub use disk::{Disk, DiskShape, DrawnDisk, NodeDisk};
pub use fault::Fault;
pub use model::{Class, DrawnScenario, Phases, PlannedFault, Scenario, ScheduledFault};
pub use net::{DrawnNet, Link, Net, NetShape, Place};
pub use param::{Drawn, Kind, Stage, Written};
pub use quantity::{ClockShift, Count, Mix, Probability, Quantity, Rate, Span};
pub use resolve::{Links, Roles, describe};
pub use site::{KAFKA_PORT, LINK_PORT, address};
pub use source::ScenarioError;
pub use target::{
    Between, BetweenOf, Direction, DirectionChoice, End, EndOf, NodeAddress, SiteName, Sites,
    Target, TargetChoice,
};
pub use trigger::{After, EventKind, FixedTrigger, Trigger};
pub use validate::{CHAOS_MIN, FAULTS_PER_MINUTE_MIN, RECORDS_MIN};
pub use workload::Workload;
