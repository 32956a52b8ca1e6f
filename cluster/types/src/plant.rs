//! Planted bugs: each names one line of our own code that is removed or swapped, to prove that the
//! simulator would catch the mistake.
//!
//! A plant is chosen at run time, and only a simulator build can choose one: `fulmar_host::planted`
//! is the constant `false` everywhere else.

macro_rules! plants {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Plant {
            $($(#[doc = $doc])* $name,)*
        }

        impl Plant {
            /// Every plant, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the plant does, one sentence.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)*),)* }
            }
        }
    };
}

plants! {
    /// Report an append as flushed before the flush has run.
    AckBeforeFlush = "ack-before-flush",
    /// Answer a vote before it is flushed.
    SkipVoteFlush = "skip-vote-flush",
    /// Leave the producers out of the snapshot.
    ForgetProducers = "forget-producers",
    /// Cut the log at any bad checksum, flushed or not.
    CutAtAnyDamage = "cut-at-any-damage",
    /// Serve reads beyond the committed position.
    ReadAboveCommit = "read-above-commit",
    /// Believe whatever valid frames an earlier life of a recycled segment left behind.
    TrustRecycledTail = "trust-recycled-tail",
    /// Let a restarted leader resume the term it had.
    LeaderRestore = "leader-restore",
    /// Purge the log before the snapshot that covers it is durable.
    PurgeBeforeSnapshot = "purge-before-snapshot",
    /// Apply all of the log at a start, committed or not.
    ReplayEverything = "replay-everything",
    /// Tell which topics there are before all that was known before the start is known again.
    TellTopicsAtOnce = "tell-topics-at-once",
    /// Leave the copy of the block that the next group is written to out of the flush mark.
    NoTailCopy = "no-tail-copy",
    /// Leave out the flush of the directory after a rename.
    LoseRename = "lose-rename",
    /// Take a wiped node back with its old vote.
    WipedNodeVotes = "wiped-node-votes",
    /// Answer a read without asking whether the lease still holds.
    ReadWithoutLease = "read-without-lease",
    /// Take openraft's word for the lease, which an answer to an older question may have renewed.
    LeaseOfOlderAnswer = "lease-of-older-answer",
    /// Let a node vote at its start, although an earlier life may have granted a lease.
    ForgetGrant = "forget-grant",
    /// Believe at a start what the page cache says, although a flush may have failed.
    TrustPageCache = "trust-page-cache",
    /// Do not look for duplicates of an idempotent producer.
    NoDuplicateCheck = "no-duplicate-check",
    /// Take batches with producer ids that the site has not handed out.
    AnyProducerId = "any-producer-id",
    /// Take the base offset of a batch from a counter that is not part of the state.
    OffsetFromMemory = "offset-from-memory",
    /// Take the wall clock of the leader for the age of the site.
    AgeByWallClock = "age-by-wall-clock",
    /// Let a node that is ahead of a new leader in the age of the site stay ahead.
    AgeRunsAhead = "age-runs-ahead",
    /// Let records go by the age of the first one of their span.
    ExpireByFirst = "expire-by-first",
    /// Go on with the retention from before when the settings of a topic change.
    KeepOldRetention = "keep-old-retention",
    /// Let one span more go than retention by bytes allows.
    ExpireTooMuch = "expire-too-much",
    /// Move a start as far as was proposed, whatever retention says by then.
    AdvanceUnchecked = "advance-unchecked",
    /// Answer a fetch with what is left if the start moved while it was read.
    FetchBehindStart = "fetch-behind-start",
    /// Keep leading with a disk that is too full for what clients send.
    FullLeaderStays = "full-leader-stays",
    /// Take entries without asking whether there is room for them on the disk.
    NoRoomCheck = "no-room-check",
    /// Ship over a link what lies in the log and is not committed yet.
    ShipUncommitted = "ship-uncommitted",
    /// Ship without asking the rules.
    ShipWithoutRule = "ship-without-rule",
    /// Ask the rules when a topic is offered, and not when its records are written to the link.
    RuleAtOfferOnly = "rule-at-offer-only",
    /// Go on under the rule that stood when a link began, after it was changed.
    OldRuleUsed = "old-rule-used",
    /// Send the first batch of a partition that a link goes on with as it is stored.
    RuleSkippedOnRetry = "rule-skipped-on-retry",
    /// Send batches as they are stored that a producer has compressed.
    CompressedGoesRaw = "compressed-goes-raw",
    /// Let headers go, whatever their rule says.
    HeadersGo = "headers-go",
    /// Let what was written to a connection leave when the session has ended, whatever the rules are then.
    WithheldClosesGently = "withheld-closes-gently",
    /// A link believes everybody who says that he is the other site.
    TakeAnybody = "take-anybody",
    /// A link believes whoever answers where it dials.
    DialAnybody = "dial-anybody",
    /// Tell a mirror that all there is has expired, where the oldest has.
    GapTooWide = "gap-too-wide",
    /// Send what is urgent in the row of all others.
    PriorityStarved = "priority-starved",
    /// Let nothing urgent go between the parts of another frame.
    UrgentAfterFrame = "urgent-after-frame",
    /// Put much of what is urgent on its way at once, in parts that are as long as any.
    UrgentFloods = "urgent-floods",
    /// Leave what is urgent on a connection that nothing comes through.
    UrgentStaysStuck = "urgent-stays-stuck",
    /// Go on taking what a link does not take any more.
    OldLinkUsed = "old-link-used",
    /// Wait for a site to have what it has said that it does not take.
    DeclinesUnheard = "declines-unheard",
    /// Send over a link whatever the line takes.
    CapIgnored = "cap-ignored",
    /// Take what comes over several connections as it comes.
    StripeReorder = "stripe-reorder",
    /// Leave the gap markers out of the snapshot, so that the next leader may not know them.
    MarkerLostAtLeaderChange = "marker-lost-at-leader-change",
    /// Tell a mirror of one record less than is missing.
    MarkerCountWrong = "marker-count-wrong",
    /// Let go what no other site has, whatever the policy of the budget says.
    BudgetDropsUnsent = "budget-drops-unsent",
    /// Acknowledge what is refused because a budget is reached.
    BlockAcknowledges = "block-acknowledges",
    /// Go on with any mirror, whatever tag it shows.
    VerifyNothing = "verify-nothing",
    /// Offer a copy to the sites that it has come through, and take whatever is offered.
    LoopNotCut = "loop-not-cut",
    /// Leave the settings of a mirror as they were when it was made.
    SettingsStay = "settings-stay",
    /// Forget on whose behalf a node hands a change over to the leader.
    ForWhomForgotten = "for-whom-forgotten",
    /// Tell the other side that nothing of what it offers is wanted here.
    DeclinesAll = "declines-all",
    /// Say that a mirror has a batch before it is committed.
    ProgressBeforeRecords = "progress-before-records",
    /// Go on with a mirror one record behind where it is.
    ResumeOffByOne = "resume-off-by-one",
    /// Keep the progress of a mirror in the memory of a session, and take what comes at whatever
    /// offset is next.
    ProgressInMemory = "progress-in-memory",
    /// Let what pipelines write go as it is wherever any topic may go.
    OutputGoesFreely = "output-goes-freely",
    /// Let what pipelines write go by the rules of what they read, also where these withhold something.
    WithholdingNotInherited = "withholding-not-inherited",
    /// Let what pipelines write go where one of the topics that they read may go.
    LaxestInputDecides = "laxest-input-decides",
    /// Append what comes out of an epoch before the epoch is in the log.
    OutputsBeforeCommit = "outputs-before-commit",
    /// A new owner of a pipeline goes on from the last delta, and leaves out the epochs behind it.
    TakeoverSkipsReplay = "takeover-skips-replay",
    /// A new owner of a pipeline loads all deltas but the last one.
    DeltaLostAtTakeover = "delta-lost-at-takeover",
    /// Do not set the timers of sessions when the state of a pipeline is loaded.
    TimerNotSaved = "timer-not-saved",
    /// Take the watermark of a stream from the partition that is furthest, not from the one that is last.
    WatermarkFromFastestPartition = "watermark-from-fastest-partition",
    /// Let windows of two streams that are joined end by the time of one of them.
    OneSideDecides = "one-side-decides",
    /// Take rows on the left of two streams that are joined for late when their window is over.
    LeftRowsLate = "left-rows-late",
    /// Let an operator of a pipeline pass a barrier on when it has come on one of its inputs.
    BarrierNotAligned = "barrier-not-aligned",
    /// Count a row as late, and do not write it to the topic for late rows.
    LateRowDropped = "late-row-dropped",
    /// Leave out the first group of each step but the first when what ends a window is made in several.
    StepLosesGroup = "step-loses-group",
    /// Write what comes out of a window twice.
    WindowFiresTwice = "window-fires-twice",
    /// Read the partitions of an epoch in an order that depends on the node.
    CanonicalOrderIgnored = "canonical-order-ignored",
    /// Take the epoch of an owner that is none any more, whatever others have committed since.
    FencingNotChecked = "fencing-not-checked",
    /// Note the last record that an epoch has read as the next one to read.
    InputOffsetOffByOne = "input-offset-off-by-one",
    /// Go on with the next epoch though not all appends of the last one are there.
    EpochAppendsUnchecked = "epoch-appends-unchecked",
    /// Let inputs go that whoever takes over a pipeline would have to read again.
    ReplayFloorIgnored = "replay-floor-ignored",
    /// Let a pipeline that is put back read on where it was, and not where its state is.
    RestoreReadsOn = "restore-reads-on",
    /// Let another file go on with a pipeline though epochs of the old one are not covered by its state.
    FileChangedUnsettled = "file-changed-unsettled",
    /// Drop bad records where a pipeline is to stop at them.
    PoisonPassedOver = "poison-passed-over",
    /// Let a pipeline read on whatever memory its state takes.
    MemoryNotAsked = "memory-not-asked",
    /// Let a pipeline that has no memory left read nothing, so that no window ends.
    MemoryStandsStill = "memory-stands-still",
    /// Let a pipeline that has no memory left read what event time does not wait for.
    BeyondReadsAll = "beyond-reads-all",
    /// Let a pipeline that has little memory left read some partitions far beyond the others.
    ReadsFarAhead = "reads-far-ahead",
    /// Let a pipeline that has waited for memory once wait for good.
    MemoryNeverFree = "memory-never-free",
    /// Take for the delta of an owner what the one before had begun to write.
    DeltaOfOtherFenceTaken = "delta-of-other-fence-taken",
    /// Leave out the epochs without records that idle partitions are for.
    IdleEpochLeftOut = "idle-epoch-left-out",
    /// Let a partition become idle of which something is there that was not read.
    UnreadCountsAsSilence = "unread-counts-as-silence",
    /// Take of a batch that is damaged what can be read, and say nothing of the rest.
    DamagedBatchHalfRead = "damaged-batch-half-read",
    /// Do not count what a query leaves out.
    FateNotCounted = "fate-not-counted",
    /// Let the state of a pipeline go that a savepoint needs, once no delta does.
    SavepointPartsFreed = "savepoint-parts-freed",
    /// Do not count records that were gone before a pipeline has read them.
    MissedNotCounted = "missed-not-counted",
    /// Let a node speak of what its leader has applied before the segments with it are in their place, and take for
    /// offsets without records what cannot be read.
    StateBeforeSegments = "state-before-segments",
    /// Give the records of a copy other times than those of their origin.
    CopyStampsTime = "copy-stamps-time",
    /// Take it that a copy comes over its link as long as there is a link of that name.
    NameIsEnough = "name-is-enough",
    /// Never look again at what another site offers and what could not be taken.
    HeldForGood = "held-for-good",
    /// Let a pipeline begin elsewhere while an epoch is not all there.
    EpochLeftUnfinished = "epoch-left-unfinished",
    /// Leave where it is how far dead letters were put through again.
    RetryNotCommitted = "retry-not-committed",
    /// Forget how far dead letters were put through when a pipeline begins another time with a file that does
    /// not write their topic.
    LettersForgotten = "letters-forgotten",
    /// Put a dead letter through another query of its stream than it failed behind.
    LetterForAnother = "letter-for-another",
    /// Write the offset behind it to the headers of a dead letter.
    LetterNamesNextOffset = "letter-names-next-offset",
    /// Send batches that are larger than the other site takes.
    TooLargeGoes = "too-large-goes",
    /// Let a node carry a link that does not know whether it still leads its site.
    LinkWithoutLease = "link-without-lease",
    /// Leave to a line what was written to it under a lease that has run out.
    LapseUnheeded = "lapse-unheeded",
    /// Take what is not there for what it was when somebody looked, whatever has happened to it since.
    LateHeeded = "late-heeded",
    /// Change the links and rules of one request one by one.
    DefinitionsApart = "definitions-apart",
    /// Let all connections of a link together have as much on their way as they like, however slow the line is.
    LineUnmeasured = "line-unmeasured",
    /// Note how far another site is only in sessions that last for five seconds.
    NotedLate = "noted-late",
    /// Keep the place of what a leader has proposed until it is answered, also when another one leads.
    DeposedProposalsCount = "deposed-proposals-count",
    /// Carry a link whose other site has heard more of this one than this one knows.
    BondNotAsked = "bond-not-asked",
    /// Take whoever resumes a link for one who has looked at a site that was put back, whenever that is.
    PardonInAdvance = "pardon-in-advance",
    /// Give a bond only where progress is noted at the moment at which it has to be.
    BondAtTheTick = "bond-at-the-tick",
    /// Leave out of the log what the other site of a link has given.
    BondNotLogged = "bond-not-logged",
    /// Take two histories for one where they have parted and what could be compared is gone.
    PartedForgotten = "parted-forgotten",
    /// Hash what a rule withholds without the key of the site.
    HashUnkeyed = "hash-unkeyed",
    /// Make one of the two oldest markers of a partition that has too many, whatever their reasons.
    MarkersMergedBlindly = "markers-merged-blindly",
}

impl Plant {
    /// The plant with this name on the command line.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name() == name)
    }
}
