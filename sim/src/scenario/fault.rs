//! The kinds of faults.
//!
//! Each fires at its trigger (see [`super::Trigger`]) and, where it lasts, heals by itself. When
//! the chaos ends the run heals everything that is left and restarts every node that is down.

use super::param::{kinds, words};
use super::quantity::{Bandwidth, ClockShift, Count, Probability, Span};
use super::target::{BetweenOf, Direction, DirectionChoice, TargetChoice};
use fulmar_types::units::{HumanDuration, HumanSize};

words! {
    /// From whom a node is cut off.
    enum Others, "group of others" {
        /// From the other nodes of its site; clients still reach it.
        Peers = "peers",
        /// From clients; the nodes still reach one another.
        Clients = "clients",
        /// From everybody.
        Everyone = "everyone",
    }
}

words! {
    /// Which of the connections between two ends.
    enum Which, "choice of connections" {
        /// Every one.
        All = "all",
        /// One of them.
        One = "one",
    }
}

words! {
    /// Which file of a node rots.
    enum RotPlace, "place to rot" {
        /// Any file that has bytes, picked when the fault fires.
        Anywhere = "anywhere",
        /// A segment that is sealed.
        SealedSegment = "sealed_segment",
        /// The segment that is being written, where it has been flushed.
        ActiveSegment = "active_segment",
        /// A snapshot.
        Snapshot = "snapshot",
        /// A vote slot.
        Vote = "vote",
    }
}

const BOTH: DirectionChoice = DirectionChoice::One(Direction::Both);

kinds! {
    /// What goes wrong.
    enum Fault, "fault";

    /// The process dies. Its connections are reset; what it wrote is kept, flushed or not.
    Crash = "crash" {
        /// The nodes.
        target = "target": TargetChoice;
        /// How long until the first of them starts again.
        down = "down": Span<HumanDuration>;
        /// How long after one node the next starts.
        stagger = "stagger": Span<HumanDuration>, or Span::fixed(HumanDuration::default());
    }

    /// The machine loses power. What was not flushed is lost, in whole or in part.
    PowerCut = "power_cut" {
        /// The nodes; all of them in the same instant.
        target = "target": TargetChoice;
        /// How long until the first of them starts again.
        down = "down": Span<HumanDuration>;
        /// How long after one node the next starts.
        stagger = "stagger": Span<HumanDuration>, or Span::fixed(HumanDuration::default());
    }

    /// The process stands still and then goes on, as after a suspended virtual machine.
    Pause = "pause" {
        /// The nodes.
        target = "target": TargetChoice;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Nothing passes between two ends. Connections stay open and stall.
    Cut = "cut" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Which way nothing passes.
        direction = "direction": DirectionChoice, or BOTH;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Nothing passes between the target and the others.
    Isolate = "isolate" {
        /// The nodes; among themselves they are not cut.
        target = "target": TargetChoice;
        /// From whom.
        others = "from": Others, or Others::Peers;
        /// Which way nothing passes.
        direction = "direction": DirectionChoice, or BOTH;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Everything between two ends takes longer.
    LatencySpike = "latency_spike" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Which way.
        direction = "direction": DirectionChoice, or BOTH;
        /// How much longer.
        by = "by": Span<HumanDuration>;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Messages are lost and sent again, so that they and all behind them arrive late.
    Loss = "loss" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Which way.
        direction = "direction": DirectionChoice, or BOTH;
        /// How likely a message is lost.
        share = "share": Span<Probability>;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// What is between two ends carries less.
    SlowLine = "slow_line" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Which way.
        direction = "direction": DirectionChoice, or BOTH;
        /// How much passes each way while it lasts.
        bandwidth = "bandwidth": Span<Bandwidth>;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Open connections between two ends are reset; what was under way is lost.
    Reset = "reset" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Which of them.
        which = "which": Which, or Which::All;
    }

    /// One of the open connections between two ends is held up: nothing of it passes, either way, while the
    /// others go on. What is sent over it meanwhile is lost and sent again.
    Stall = "stall" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// New connections from the first end to the second are refused; open ones go on.
    Refuse = "refuse" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
        /// Whose connections: `out` those that the first end opens.
        direction = "direction": DirectionChoice, or BOTH;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// The first end forgets its open connections to the second, which is not told and learns of
    /// it only when it sends.
    HalfOpen = "half_open" {
        /// The two ends.
        between = "between": BetweenOf<TargetChoice>;
    }

    /// Every flush takes longer.
    SlowDisk = "slow_disk" {
        /// The nodes.
        target = "target": TargetChoice;
        /// How much longer.
        by = "by": Span<HumanDuration>;
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// Somebody else's files fill the disk.
    DiskFull = "disk_full" {
        /// The nodes.
        target = "target": TargetChoice;
        /// How many bytes stay free.
        leaves = "leaves": Span<HumanSize>, or Span::fixed(HumanSize(0));
        /// For how long.
        lasts = "for": Span<HumanDuration>;
    }

    /// The next flush fails and leaves open what is on disk. The node must end itself.
    FsyncError = "fsync_error" {
        /// The nodes.
        target = "target": TargetChoice;
        /// How long after it ended the node starts again, on a disk that works.
        down = "down": Span<HumanDuration>;
    }

    /// The next reads fail.
    ReadError = "read_error" {
        /// The nodes.
        target = "target": TargetChoice;
        /// How many reads.
        reads = "reads": Span<Count>, or Span::fixed(Count::of(1));
        /// How long after it ended, if it did, the node starts again.
        down = "down": Span<HumanDuration>;
    }

    /// The wall clock jumps.
    ClockStep = "clock_step" {
        /// The nodes.
        target = "target": TargetChoice;
        /// By how much; negative is backwards.
        by = "by": Span<ClockShift>;
        /// How long until it jumps back; left out, it stays.
        lasts = "for": Option<Span<HumanDuration>>, or None;
    }

    /// The disk of a node is lost. The node comes back with an empty one that was prepared for it.
    Wipe = "wipe" {
        /// The nodes, one after another; one whose site would be left without a majority is spared.
        target = "target": TargetChoice;
        /// How long until the node starts again.
        down = "down": Span<HumanDuration>;
    }

    /// Somebody puts a site back to an older copy of itself: all of its nodes, to what their disks held
    /// when the fault fired. What was acknowledged since is lost, by intention.
    Restore = "restore" {
        /// The site of whoever is meant, all of it.
        target = "target": TargetChoice;
        /// How old the copy is when it is put back.
        age = "age": Span<HumanDuration>;
        /// How long after it was put back the first node starts.
        down = "down": Span<HumanDuration>;
    }

    /// Bits of a file on disk flip.
    Rot = "rot" {
        /// The nodes.
        target = "target": TargetChoice;
        /// Which file.
        file = "file": RotPlace, or RotPlace::Anywhere;
        /// How many bits.
        bits = "bits": Span<Count>, or Span::fixed(Count::of(1));
        /// How long after it ended, if it did, the node starts again.
        down = "down": Span<HumanDuration>;
    }
}
