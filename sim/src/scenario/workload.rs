//! The kinds of workloads: what clients do while the faults happen.
//!
//! A workload runs from the start of the warm-up until the site has converged. Its clients are at
//! the site whose nodes they talk to, and speak Kafka over the simulated network.

use super::fields::{Value, expected};
use super::param::{Draw, Param, Printed, kinds, quoted, words};
use super::quantity::{Count, Mix, Probability, Rate, Span};
use super::source::Problem;
use super::target::{SiteName, Sites};
use fulmar_types::units::{HumanDuration, HumanSize};
use std::fmt;

/// The name of a topic: letters, digits, `.`, `_`, `-`, as Kafka allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicName(String);

impl TopicName {
    /// The plain name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Param for TopicName {
    type Drawn = Self;
    const EXPECTED: &'static str = "the name of a topic: 1 to 200 letters, digits, `.`, `_`, `-`";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match value.get_ref().as_str() {
            Some(name)
                if (1..=200).contains(&name.len())
                    && name.bytes().all(allowed)
                    && !matches!(name, "." | "..") =>
            {
                Ok(Self(name.to_owned()))
            }
            _ => expected(Self::EXPECTED, value),
        }
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        self.clone()
    }
}

impl Printed for TopicName {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

words! {
    /// When a produce request is answered (Kafka's `acks`).
    enum Acks, "acks" {
        /// Never: the outcome stays unknown.
        None = "0",
        /// After the flush on a majority, as for `all`.
        Leader = "1",
        /// After the flush on a majority.
        All = "all",
    }
}

words! {
    /// How urgent a topic is on a link (`fulmar.priority`).
    enum Priority, "priority" {
        /// Before everything else.
        Urgent = "urgent",
        /// As usual.
        Normal = "normal",
        /// There is time.
        Bulk = "bulk",
    }
}

words! {
    /// What a value is filled up with.
    enum Filling, "filling" {
        /// Dots, which become nothing when they are compressed.
        Dots = "dots",
        /// Random letters, which do not.
        Letters = "letters",
    }
}

words! {
    /// Where a reading client begins.
    enum ReadFrom, "place to read from" {
        /// At the first offset, again and again: the whole log is compared.
        Start = "start",
        /// At the end, following what is appended.
        End = "end",
        /// At an offset that is drawn for every read.
        Anywhere = "anywhere",
    }
}

words! {
    /// Which side of a link dials the other one.
    enum Dials, "side that dials" {
        /// The site with the mirror.
        Mirror = "mirror",
        /// The site with the origin, as one behind an address translation has to.
        Origin = "origin",
        /// Both.
        Both = "both",
    }
}

words! {
    /// What goes when `retention_bytes` are reached and other sites lack what would have to go.
    enum Policy, "policy of a budget" {
        /// The oldest.
        KeepNewest = "keep-newest",
        /// What comes.
        KeepOldest = "keep-oldest",
        /// Nothing: what comes has to wait.
        Block = "block",
    }
}

words! {
    /// What a pipeline does with its rows.
    enum Does, "thing that a pipeline does" {
        /// Row by row.
        Plain = "plain",
        /// Row by row, in several queries.
        Several = "several",
        /// A join with a table.
        Enrich = "enrich",
        /// Groups in windows that follow one another.
        Tumble = "tumble",
        /// Groups in windows that overlap.
        Hop = "hop",
        /// Groups in sessions.
        Session = "session",
        /// Windows of two streams, joined.
        Join = "join",
        /// Windows of two topics, joined.
        Pairs = "pairs",
    }
}

words! {
    /// What somebody does to a pipeline while it runs.
    enum Tend, "thing that is done to a pipeline" {
        /// It is paused, and goes on.
        Pause = "pause",
        /// Its file is changed, in what becomes of bad records.
        File = "file",
        /// It is made to stop at a bad record, and is mended.
        Fail = "fail",
        /// Savepoints are taken, and it is put back to them, or begins anew.
        Restore = "restore",
    }
}

fn one_in_twenty() -> Probability {
    Probability::from_ppm(50_000).expect("it is less than one")
}

kinds! {
    /// What a group of clients does.
    enum Workload, "workload";

    /// Clients append records with keys and with values that name producer and sequence number.
    Produce = "produce_keyed" {
        /// The site that they produce to.
        site = "site": SiteName;
        /// The topic; created if need be.
        topic = "topic": TopicName;
        /// Partitions of the topic.
        partitions = "partitions": Span<Count>, or Span::fixed(Count::of(1));
        /// How many clients, each with connections of its own.
        clients = "clients": Span<Count>, or Span::fixed(Count::of(2));
        /// Records per second of all clients together.
        rate = "rate": Span<Rate>;
        /// Bytes of a value.
        value_bytes = "value_bytes": Mix<HumanSize>, or Mix::fixed(HumanSize(100));
        /// When a request is answered.
        acks = "acks": Acks, or Acks::All;
        /// Whether the clients number their batches, so that a retry gives no duplicate.
        idempotent = "idempotent": bool, or true;
        /// Records in one batch.
        batch_records = "batch_records": Span<Count>, or Span::fixed(Count::of(1));
        /// How long a topic is produced to before the next one takes its place: `topic-1` after
        /// `topic-0`. The old one is read back and deleted. For good if left out.
        renew = "renew": Option<Span<HumanDuration>>, or None;
        /// For how long records are kept at least; for good if left out.
        retention = "retention": Option<Span<HumanDuration>>, or None;
        /// How many bytes of each partition are kept at least; all if left out.
        retention_bytes = "retention_bytes": Option<Span<HumanSize>>, or None;
        /// What goes when these are reached and other sites lack what would have to go.
        budget = "budget": Policy, or Policy::KeepNewest;
        /// When the topic gets what it is kept for, as a change of its settings after the start of
        /// the clients; it is created with it if this is left out.
        retention_from = "retention_from": Option<Span<HumanDuration>>, or None;
        /// How long that holds; then twice as much is kept, or everything, for as long, and so on by
        /// turns. For good if left out.
        retention_for = "retention_for": Option<Span<HumanDuration>>, or None;
        /// How many keys there are.
        keys = "keys": Span<Count>, or Span::fixed(Count::of(100));
        /// Whether each record has a header.
        headers = "headers": bool, or false;
        /// How urgent the topic is on links.
        priority = "priority": Priority, or Priority::Normal;
        /// What the rest of a value is.
        filling = "filling": Filling, or Filling::Dots;
    }

    /// Clients read records and remember what they saw at which offset.
    Read = "read" {
        /// The site that they read from.
        site = "site": SiteName;
        /// The topic; a workload of this scenario produces to it.
        topic = "topic": TopicName;
        /// How many clients, each with connections of its own.
        clients = "clients": Span<Count>, or Span::fixed(Count::of(1));
        /// Requests per second of all clients together.
        rate = "rate": Span<Rate>;
        /// Where they begin.
        from = "from": ReadFrom, or ReadFrom::End;
        /// Bytes that one request asks for.
        max_bytes = "max_bytes": Span<HumanSize>, or Span::fixed(HumanSize(64 << 10));
        /// How long a request may wait for records that are not there yet.
        wait = "wait": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(100));
    }

    /// Clients ask for the end of the partitions.
    ListOffsets = "list_offsets" {
        /// The site that they ask.
        site = "site": SiteName;
        /// The topic; a workload of this scenario produces to it.
        topic = "topic": TopicName;
        /// How many clients, each with connections of its own.
        clients = "clients": Span<Count>, or Span::fixed(Count::of(1));
        /// Requests per second of all clients together.
        rate = "rate": Span<Rate>;
    }

    /// Clients ask any node which topics there are.
    ListTopics = "list_topics" {
        /// The site that they ask.
        site = "site": SiteName;
        /// How many clients; every question goes over a connection of its own.
        clients = "clients": Span<Count>, or Span::fixed(Count::of(1));
        /// Questions per second of all clients together.
        rate = "rate": Span<Rate>;
    }

    /// Clients append a record with a producer id that the site will hand out next, ask for an id,
    /// and append another record with that, as a client of another site and an honest one would.
    ForeignIds = "foreign_ids" {
        /// The site that they produce to.
        site = "site": SiteName;
        /// The topic; a workload of this scenario produces to it.
        topic = "topic": TopicName;
        /// How many clients, each with connections of its own.
        clients = "clients": Span<Count>, or Span::fixed(Count::of(1));
        /// Pairs of records per second of all clients together.
        rate = "rate": Span<Rate>;
    }

    /// Clients create topics, append a record to each and delete them again.
    TopicChurn = "topic_churn" {
        /// The site where the topics are.
        site = "site": SiteName;
        /// How their names begin.
        prefix = "prefix": TopicName;
        /// Creations per second of all clients together.
        rate = "rate": Span<Rate>;
        /// How many of them exist at one time, at most.
        topics_max = "topics_max": Span<Count>, or Span::fixed(Count::of(10));
        /// Partitions of each.
        partitions = "partitions": Span<Count>, or Span::fixed(Count::of(1));
    }
    /// A topic of another site is copied to this one, over a link between the two that is laid down
    /// with a rule that lets the topic go. A client reads from the copy, anywhere in it.
    Mirror = "mirror" {
        /// The site that has the copy.
        site = "site": SiteName;
        /// The site that has the origin.
        of = "of": SiteName;
        /// The topic there; a workload of this scenario produces to it.
        topic = "topic": TopicName;
        /// The site that it comes through, if not from its origin at once; it has a copy too.
        through = "through": Option<SiteName>, or None;
        /// The site that it comes through lets it go without its headers.
        drops_headers = "drops_headers": bool, or false;
        /// The site with the copy lets it go on to every site that it has a link to.
        onward = "onward": bool, or false;
        /// Which side dials.
        dials = "dials": Dials, or Dials::Mirror;
        /// How often the copy is deleted, to be made anew; never if left out.
        renew = "renew": Option<Span<HumanDuration>>, or None;
        /// How long a topic of somebody else has the name of the copy, whenever that was deleted; not at all if left
        /// out.
        in_the_way = "in_the_way": Option<Span<HumanDuration>>, or None;
        /// The site with the copy keeps all of it, however long the origin does. What is missing in it
        /// then has to be marked, and the markers are compared with it.
        keeps_all = "keeps_all": bool, or false;
        /// The largest batch that the site with the copy takes, if some that are produced are larger: they are
        /// missing in it and marked.
        batch_bytes = "batch_bytes": Option<Span<HumanSize>>, or None;
        /// How long the rule lets the topic go; then it is taken back for as long, and so on by turns.
        /// For good if left out.
        rule_for = "rule_for": Option<Span<HumanDuration>>, or None;
        /// Whoever takes the rule back has little patience, and asks again and again until it is done.
        insists = "insists": bool, or false;
        /// How long the rule lets the topic go, and what a pipeline makes of it not; then both go by other rules for as
        /// long, and so on by turns, together. For good if left out.
        swaps_for = "swaps_for": Option<Span<HumanDuration>>, or None;
        /// How long the link of the site with the copy takes the topic; then it does not for as long,
        /// and so on by turns. For good if left out.
        take_for = "take_for": Option<Span<HumanDuration>>, or None;
        /// How long the link of the site with the copy runs; then it is paused for as long, and so on by turns.
        /// For good if left out.
        runs_for = "runs_for": Option<Span<HumanDuration>>, or None;
        /// How long the link of the site with the copy has its name; then it has that of another link of the
        /// site, which has this one's, for as long, and so on by turns. For good if left out.
        named_for = "named_for": Option<Span<HumanDuration>>, or None;
        /// Topics of the site with the origin that may come over the link as well, and that the site
        /// with the copy never takes.
        untaken = "untaken": Vec<TopicName>, or Vec::new();
        /// The most bytes that the site with the origin sends in any second; no cap if left out.
        cap = "cap": Option<Span<HumanSize>>, or None;
        /// How many connections carry the link.
        connections = "connections": Span<Count>, or Span::fixed(Count::of(4));
        /// Reads per second.
        rate = "rate": Span<Rate>;
    }

    /// A pipeline runs at a site, over records that clients append for it. What it has given is compared with
    /// what the reference gives over the epochs that the site has logged.
    Pipeline = "pipeline" {
        /// The site.
        site = "site": SiteName;
        /// The pipeline; the names of its topics begin with it.
        name = "name": TopicName;
        /// What it does; drawn from the seed if left out.
        does = "does": Option<Does>, or None;
        /// Records per second of all its inputs together.
        rate = "rate": Span<Rate>;
        /// Partitions of the stream that it reads.
        partitions = "partitions": Span<Count>, or Span::fixed(Count::of(3));
        /// How much later than others a record may come.
        delay = "delay": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(1_000));
        /// After which silence a partition does not hold the others up; never if left out.
        idle = "idle": Option<Span<HumanDuration>>, or None;
        /// For how long a partition falls silent, again and again; never if left out.
        silent = "silent": Option<Span<HumanDuration>>, or None;
        /// How many records come too late.
        late = "late": Span<Probability>, or Span::fixed(one_in_twenty());
        /// How many records are no rows.
        bad = "bad": Span<Probability>, or Span::fixed(one_in_twenty());
        /// How many records of the stream begin a batch of a few that is compressed, with any codec.
        packed = "packed": Span<Probability>, or Span::fixed(Probability::NEVER);
        /// How many of these batches nobody can read.
        damaged = "damaged": Span<Probability>, or Span::fixed(Probability::NEVER);
        /// How many devices the rows are of.
        devices = "devices": Span<Count>, or Span::fixed(Count::of(5));
        /// For how long the records of the inputs are kept at least; for good if left out.
        retention = "retention": Option<Span<HumanDuration>>, or None;
        /// How often somebody asks for the dead letters to be put through again; never if left out.
        retries = "retries": Option<Span<HumanDuration>>, or None;
        /// The site that has copies of the outputs; a workload of kind `mirror` links the two. They may go
        /// there because the inputs may.
        copied_to = "copied_to": Option<SiteName>, or None;
        /// The site whose clients append what the pipeline reads, and which is copied to its own; a workload
        /// of kind `mirror` links the two. It is the pipeline's own if left out.
        fed_from = "fed_from": Option<SiteName>, or None;
        /// What somebody does to it, again and again; nothing if left out.
        tend = "tend": Option<Tend>, or None;
        /// How often.
        tend_every = "tend_every": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(5_000));
        /// How long the pipeline waits at least between two commits.
        latency = "latency": Span<HumanDuration>, or Span::fixed(HumanDuration::from_millis(50));
    }

    /// Clients append records with secrets in them, which the rule of the topic withholds: canaries in
    /// fields, keys and headers that must not cross between the two sites. They are at stake in the run
    /// if there are at least a hundred.
    Secrets = "secrets" {
        /// The site that they produce to.
        site = "site": SiteName;
        /// The site that has the copy; a workload of kind `mirror` links the two.
        to = "to": SiteName;
        /// The topic; nobody else produces to it.
        topic = "topic": TopicName;
        /// Batches per second.
        rate = "rate": Span<Rate>;
        /// Records in one batch.
        batch_records = "batch_records": Span<Count>, or Span::fixed(Count::of(4));
        /// How many bytes of the topic are kept at least. Its policy is to keep the oldest; the copy keeps all. All are
        /// kept if left out.
        retention_bytes = "retention_bytes": Option<Span<HumanSize>>, or None;
        /// When the rule withholds one more field.
        stricter_after = "stricter_after": Span<HumanDuration>;
        /// Whether a pipeline reads the topic too, and writes some outputs that have no rule, and one that
        /// has.
        piped = "piped": bool, or false;
    }

    /// Somebody dials a site, says that he is of another one that it has a link to, and shows papers
    /// that do not prove it. He must never be welcomed.
    Stranger = "stranger" {
        /// The site that he dials.
        site = "site": SiteName;
        /// The site that he says he is of.
        claims = "claims": SiteName;
        /// Attempts per second.
        rate = "rate": Span<Rate>;
    }

    /// Somebody waits where a site dials another one, in front of that one's nodes, and shows papers
    /// that do not prove that he is of it. Nothing must be said to him that is for that site.
    Impostor = "impostor" {
        /// The site that dials him.
        site = "site": SiteName;
        /// The site that it means to dial.
        claims = "claims": SiteName;
    }
}
