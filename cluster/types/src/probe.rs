//! Probes: rare states that a sweep of the simulator must have reached, or it proves nothing
//! about them. Production code reports them as events at the place where they happen.

macro_rules! probes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A rare state, reported where it happens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Probe {
            $($(#[doc = $doc])* $name,)*
        }

        impl Probe {
            /// Every probe, in the order of the summary.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in scenario files and summaries.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

probes! {
    /// A follower removed entries that conflict with its leader's.
    ConflictingSuffixTruncated = "conflicting suffix truncated",
    /// A leader restarted without entries that it had appended and not flushed.
    LeaderUnflushedTailLost = "leader's unflushed tail lost",
    /// A batch that an earlier leader appended was sent again and answered as a duplicate.
    DuplicateAnsweredAfterLeaderChange = "duplicate answered after a leader change",
    /// A node took segments from one leader and the rest from the next.
    SegmentsShippedAcrossLeaderChange = "segments shipped across a leader change",
    /// Recovery met a valid frame of an earlier life of a recycled segment, and refused it.
    StaleFrameRefused = "stale frame in a recycled segment refused",
    /// A leader could not prove that it leads and refused a read, when a later term had a leader.
    DeposedLeaderRefusedRead = "deposed leader refused a read",
    /// A leader could send and not receive, or receive and not send.
    LeaderCutOneWay = "leader cut one way",
    /// Recovery cut off a torn last group.
    TornTailCut = "torn tail cut",
    /// Recovery wrote back a block that a power cut had torn, from the copy in a flush mark.
    TornBlockMended = "torn block mended",
    /// Recovery refused a frame that had been flushed and is bad now.
    RotRefused = "rot refused",
    /// A node installed a snapshot and segments from a peer.
    SegmentsInstalled = "segments installed",
    /// A node whose disk was lost got its vote back.
    WipedNodeVotesAgain = "emptied node votes again",
    /// A producer was answered that its sequence number is out of order.
    SequenceRefused = "sequence out of order refused",
    /// A producer was answered that the site has not handed out its id.
    ProducerIdRefused = "producer id not handed out refused",
    /// A conflicting truncation reached back into an earlier segment.
    TruncatedAcrossSegments = "truncated across segments",
    /// A leader refused a request because too few disks have room.
    RefusedForSpace = "refused for lack of space",
    /// A follower without room refused entries before they reached the core.
    AppendRefusedForSpace = "append refused by a full follower",
    /// A leader without room handed over to a node that has some.
    FullLeaderHandedOver = "full leader handed over",
    /// A snapshot was left out because the disk was full.
    SnapshotLeftOut = "snapshot left out on a full disk",
    /// The oldest records of a partition had had their time, and went.
    RecordsExpired = "records expired",
    /// Records that a leader proposed to let go had a longer retention by then, and stayed.
    ExpiryHeldBack = "expiry held back",
    /// A link went on where an earlier session had left a mirror.
    LinkResumed = "link resumed",
    /// The origin of a mirror has another leader, who sends again what the one before had sent in vain.
    OriginResumedMidBatch = "origin resumed mid-batch",
    /// The site of a mirror has another leader, to whom comes again what the one before had not committed.
    CopyResumedMidBatch = "copy resumed mid-batch",
    /// A link lost one of its connections, and went on with the others.
    StripeLost = "stripe lost",
    /// What came over one connection of a link waited for what was to come over another before it.
    StripeOvertook = "stripe overtook another",
    /// What is urgent went past a connection that was stuck.
    StuckPassed = "stuck stripe passed",
    /// A batch was on its way to another site when its rule was taken back, and did not leave.
    RuleChangedInFlight = "rule changed in flight",
    /// A batch left without some of what is in it, as its rule says.
    FieldWithheld = "field withheld",
    /// Nothing of a batch could leave, as its rule says.
    BatchWithheld = "batch withheld",
    /// A batch did not go since the other site does not take one as large.
    BatchTooLarge = "batch too large for the other site",
    /// Somebody said that he is of another site, and could not prove it.
    StrangerRefused = "stranger refused",
    /// A site found out that it was put back to an older copy of itself.
    PutBackNoticed = "put back noticed",
    /// A link refused a mirror whose tag is not the one of the origin.
    ForkRefused = "fork refused",
    /// A mirror was told what it will never have.
    GapMirrored = "gap mirrored",
    /// The oldest records went before some other site was known to have them.
    WentUnsent = "went unsent",
    /// A record was acknowledged and not kept, since the budget was reached.
    NotKept = "not kept for the budget",
    /// A producer was held back, since the budget was reached.
    HeldBack = "held back for the budget",
    /// A node took a pipeline over while windows were open.
    TakeoverWithOpenWindows = "takeover with open windows",
    /// Whoever took a pipeline over came to the outputs of a logged epoch.
    EpochMadeAgain = "epoch made again",
    /// An owner of a pipeline that is none any more was refused a commit.
    StaleCommitRefused = "stale commit refused",
    /// An owner of a pipeline did not hear whether an epoch was logged, and found it in the log.
    EpochFoundLogged = "epoch found logged",
    /// The outputs of an epoch that one owner had logged were appended by the next.
    EpochCompletedByAnother = "epoch completed by another owner",
    /// The outputs of an epoch did not fit the entry that logged it.
    LargeEpoch = "large epoch",
    /// An owner of a pipeline took a delta of its state.
    DeltaTaken = "delta taken",
    /// Outputs that were made anew differ from those of the logged epoch.
    Diverged = "diverged",
    /// A pipeline waited for room: in its outputs, in the log, or in its memory.
    WaitedForRoom = "pipeline waited for room",
    /// A pipeline had no memory left, and read what lets event time go on.
    ReadBeyondMemory = "read past a full memory",
    /// A pipeline with little memory left read no more of a partition, since others were behind it.
    HeldAtHorizon = "partition held at the horizon",
    /// A pipeline ended an epoch without records, since partitions were idle.
    IdleEpoch = "idle epoch",
    /// An epoch of a pipeline left input unread that was there.
    InputLeftUnread = "input left unread",
    /// An operator of a pipeline had the barrier of one input, and waited for that of another.
    AlignedBarrierWaited = "aligned barrier waited",
    /// A pipeline put dead letters through again.
    LettersRetried = "dead letters retried",
    /// A leader proposed a unit for another node.
    ProposedForPeer = "proposed for a peer",
    /// A node asked the leader to propose a unit, and was not told what became of it.
    ProposalForPeerUnknown = "proposal for a peer unknown",
}

impl Probe {
    /// The probe with this name in a scenario file.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|probe| probe.name() == name)
    }
}
