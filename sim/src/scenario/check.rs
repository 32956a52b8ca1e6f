//! The kinds of checks that a scenario asks for, beyond those that are always on.
//!
//! Safety is never listed: it holds in every run. What stands here is how well a site did.

use super::param::kinds;
use super::quantity::{Count, Probability, Span};
use super::target::SiteName;
use super::workload::TopicName;
use fulmar_types::units::HumanDuration;

kinds! {
    /// What has to hold at the end of the run.
    enum Check, "check";

    /// So many records were acknowledged, so that the run was not idle.
    AckedAtLeast = "acked_at_least" {
        /// The site.
        site = "site": SiteName;
        /// The topic.
        topic = "topic": TopicName;
        /// How many records.
        records = "records": Span<Count>;
    }

    /// The partitions of a topic begin behind so many records at the end, all together.
    ExpiredAtLeast = "expired_at_least" {
        /// The site.
        site = "site": SiteName;
        /// The topic.
        topic = "topic": TopicName;
        /// How many records.
        records = "records": Span<Count>;
    }

    /// So much happened in the whole run that it was not a quiet one. Every chaos scenario has this
    /// check with the numbers of its class.
    BusyAtLeast = "busy_at_least" {
        /// Records that were acknowledged.
        records = "records": Span<Count>;
        /// Faults that took effect.
        faults = "faults": Span<Count>;
    }

    /// The site never went longer without acknowledging a record while the chaos lasted.
    SilenceAtMost = "silence_at_most" {
        /// The site.
        site = "site": SiteName;
        /// The topic.
        topic = "topic": TopicName;
        /// The longest silence that is good enough.
        lasts = "for": Span<HumanDuration>;
    }

    /// While records of one topic of a site waited to be sent over a link, those of an urgent one were
    /// in its mirror soon.
    UrgentOvertakes = "urgent_overtakes" {
        /// The site with the mirrors.
        site = "site": SiteName;
        /// The site with the origins.
        of = "of": SiteName;
        /// The urgent topic.
        topic = "topic": TopicName;
        /// The other one.
        over = "over": TopicName;
        /// How many records of it wait at least.
        backlog = "backlog": Span<Count>;
        /// The longest time from the acknowledgement at the origin that is good enough.
        lasts = "for": Span<HumanDuration>;
        /// How many urgent records must have met such a backlog.
        times = "times": Span<Count>;
    }

    /// The leader changed so many times, so that the faults hit what they were meant to hit.
    LeaderChangesAtLeast = "leader_changes_at_least" {
        /// The site.
        site = "site": SiteName;
        /// How many times.
        times = "times": Span<Count>;
    }

    /// Copies used so much of the line between two sites while they had a backlog: bytes of record
    /// batches, as a share of what it carries.
    LineShareAtLeast = "line_share_at_least" {
        /// The site with the origins.
        of = "of": SiteName;
        /// The site with the copies; a workload of this scenario copies something to it.
        site = "site": SiteName;
        /// The share.
        share = "share": Span<Probability>;
        /// The share of it that anything took that came out of connections.
        delivered = "delivered": Span<Probability>, or Span::fixed(Probability::NEVER);
    }
}
