//! Client histories: what is recorded, the file of a failure folder, and every check both ways.

use fulmar_sim::history::checks::{self, Violation};
use fulmar_sim::history::{
    Action, Batch, Budget, ChangeOutcome, ClientId, History, Kept, Marker, Operation,
    PartitionName, Payload, ProduceOutcome, ProducerTag, ReadAnswer, ReadBack, ReadOutcome,
    SeenRecord, Time,
};
use fulmar_sim::prng::Prng;
use fulmar_types::{Offset, PartitionIndex};
use proptest::prelude::*;

fn partition() -> PartitionName {
    PartitionName { site: "north".into(), topic: "orders".into(), partition: PartitionIndex(0) }
}

/// A history that is written a line at a time; every operation takes one millisecond.
#[derive(Default)]
struct Story {
    history: History,
    now_ms: u64,
    /// Where the log begins, as it is told.
    start: u64,
}

impl Story {
    fn begin(&mut self, client: u32, action: Action) -> (fulmar_sim::history::OperationId, Time) {
        let invoked = Time(self.now_ms * 1_000_000);
        self.now_ms += 1;
        let returned = Time(self.now_ms * 1_000_000);
        self.now_ms += 1;
        (self.history.begin(ClientId(client), partition(), invoked, action), returned)
    }

    fn batch(sequence: u64, payloads: &[u64]) -> Batch {
        let payloads = payloads.iter().map(|hash| Payload(*hash)).collect();
        Batch { producer: ProducerTag(1), sequence, payloads, idempotent: true, bytes_max: 100 }
    }

    fn produce(mut self, sequence: u64, payloads: &[u64], outcome: ProduceOutcome) -> Self {
        let (id, returned) = self.begin(1, Action::produce(Self::batch(sequence, payloads)));
        self.history.produced(id, returned, outcome);
        self
    }

    fn acked(self, sequence: u64, payloads: &[u64], base: u64) -> Self {
        self.produce(sequence, payloads, ProduceOutcome::Acked(Offset(base)))
    }

    fn plain(mut self, sequence: u64, payload: u64, outcome: Option<u64>) -> Self {
        let batch = Batch { idempotent: false, ..Self::batch(sequence, &[payload]) };
        let (id, returned) = self.begin(1, Action::produce(batch));
        let outcome = outcome.map(|base| ProduceOutcome::Acked(Offset(base)));
        self.history.produced(id, returned, outcome.unwrap_or_default());
        self
    }

    fn read(mut self, from: u64, payloads: &[u64], high_watermark: u64) -> Self {
        let (id, returned) = self.begin(2, Action::read(Offset(from)));
        let answer = ReadAnswer {
            records: records(from, payloads),
            high_watermark: Offset(high_watermark),
            log_start: Offset(self.start),
        };
        self.history.read(id, returned, ReadOutcome::Answer(answer));
        self
    }

    fn out_of_range(mut self, from: u64) -> Self {
        let (id, returned) = self.begin(2, Action::read(Offset(from)));
        self.history.read(id, returned, ReadOutcome::OutOfRange);
        self
    }

    fn earliest(mut self, start: u64) -> Self {
        let (id, returned) = self.begin(3, Action::earliest());
        self.history.earliest(id, returned, Some(Offset(start)));
        self.start = start;
        self
    }

    fn kept(mut self, for_ms: Option<u64>, bytes: Option<u64>) -> Self {
        let for_ns = for_ms.map(|ms| ms * 1_000_000);
        self.history.keep(partition(), Kept { for_ns, bytes, ..Kept::default() });
        self
    }

    /// A change of how long records are kept.
    fn keep(mut self, for_ms: Option<u64>, bytes: Option<u64>, outcome: ChangeOutcome) -> Self {
        let for_ns = for_ms.map(|ms| ms * 1_000_000);
        let (id, returned) = self.begin(4, Action::keep(Kept { for_ns, bytes, ..Kept::default() }));
        self.history.changed(id, returned, outcome);
        self
    }

    fn wait(mut self, ms: u64) -> Self {
        self.now_ms += ms;
        self
    }

    fn read_back_from(mut self, start: u64, payloads: &[u64]) -> Self {
        let at = Time(self.now_ms * 1_000_000);
        let records = records(start, payloads);
        self.history.read_back(
            partition(),
            ReadBack { start: Offset(start), at, records, ..ReadBack::default() },
        );
        self
    }

    /// A budget, which is a maximum unless the newest are kept.
    fn budget(mut self, bytes: u64, budget: Budget) -> Self {
        let kept = Kept { for_ns: None, bytes: Some(bytes), budget };
        self.history.keep(partition(), kept);
        self
    }

    /// What the site says to be missing for the budget.
    fn marked(mut self, markers: &[(u64, u64, u64)]) -> Self {
        let marker = |(first, end, count): &(u64, u64, u64)| Marker {
            first: Offset(*first),
            end: Offset(*end),
            count: *count,
            reason: "budget".to_owned(),
        };
        self.history.mark(partition(), markers.iter().map(marker).collect());
        self
    }

    fn latest(mut self, end: u64) -> Self {
        let (id, returned) = self.begin(3, Action::latest());
        self.history.latest(id, returned, Some(Offset(end)));
        self
    }

    fn read_back(self, payloads: &[u64]) -> Self {
        self.read_back_from(0, payloads)
    }

    /// The names of the checks that object.
    fn objections(&self) -> Vec<&'static str> {
        checks::check(&self.history).iter().map(Violation::check).collect()
    }

    /// What the named check says.
    fn objection(&self, check: &str) -> String {
        let found = checks::check(&self.history);
        let found = found.iter().find(|violation| violation.check() == check);
        found.map_or_else(|| panic!("{check} has no objection"), ToString::to_string)
    }
}

fn records(from: u64, payloads: &[u64]) -> Vec<SeenRecord> {
    let record = |(at, hash): (usize, &u64)| SeenRecord {
        offset: Offset(from + at as u64),
        payload: Payload(*hash),
    };
    payloads.iter().enumerate().map(record).collect()
}

/// Two batches acknowledged, one lost on the way, and a reader who sees all.
fn good() -> Story {
    Story::default()
        .acked(0, &[10, 11], 0)
        .read(0, &[10], 2)
        .produce(2, &[12], ProduceOutcome::Unknown)
        .latest(3)
        .acked(3, &[13], 3)
        .read(1, &[11, 12, 13], 4)
        .produce(4, &[14], ProduceOutcome::Failed)
        .read(4, &[], 4)
}

#[test]
fn no_check_objects_to_what_a_log_would_answer() {
    assert_eq!(good().read_back(&[10, 11, 12, 13]).objections(), [""; 0]);
    assert_eq!(good().objections(), [""; 0], "nothing was read back");
    assert_eq!(Story::default().objections(), [""; 0]);
}

#[test]
fn a_lost_record_is_found() {
    let story = good().acked(5, &[15, 16], 4).read_back(&[10, 11, 12, 13, 15]);
    insta::assert_snapshot!("acked_lost", story.objection("no_acked_record_lost"));
    let none = good().read_back(&[]);
    assert!(none.objections().contains(&"no_acked_record_lost"));
}

#[test]
fn an_invented_record_is_found() {
    let never = good().read_back(&[10, 11, 12, 13, 99]);
    insta::assert_snapshot!("invented", never.objection("nothing_invented"));
    let failed = good().read_back(&[10, 11, 12, 13, 14]);
    assert!(failed.objection("nothing_invented").contains("refused for good"));
    let early = good().read(4, &[17], 5).acked(5, &[17], 4);
    assert!(early.objection("nothing_invented").contains("before it was produced"));
}

#[test]
fn a_damaged_answer_is_found() {
    let mut story = good();
    for at in [2, 3] {
        let (id, returned) = story.begin(2, Action::read(Offset(at)));
        let text = "a damaged batch: bad checksum".to_owned();
        story.history.read(id, returned, ReadOutcome::Damaged(text));
    }
    assert_eq!(story.objections(), ["damaged_answer"]);
    insta::assert_snapshot!("damaged_answer", story.objection("damaged_answer"));
    let loaded = History::from_json_lines(&story.history.to_json_lines()).expect("our own file");
    assert_eq!(loaded, story.history);
}

#[test]
fn a_read_of_what_was_never_committed_is_found() {
    let unknown = ProduceOutcome::Unknown;
    let story = good().produce(5, &[15], unknown).read(4, &[15], 5);
    assert_eq!(story.objections(), [""; 0], "nothing was read back");
    let story = story.read_back(&[10, 11, 12, 13]);
    assert_eq!(story.objections()[0], "uncommitted_read");
    insta::assert_snapshot!("uncommitted_read", story.objection("uncommitted_read"));
    let replaced = good()
        .produce(5, &[15], unknown)
        .read(4, &[15], 5)
        .produce(6, &[16], unknown)
        .read_back(&[10, 11, 12, 13, 16]);
    assert_eq!(replaced.objections()[0], "uncommitted_read");
    assert!(replaced.objection("uncommitted_read").contains("has record 0000000000000010 there"));
    let kept = good().produce(5, &[15], unknown).read(4, &[15], 5);
    assert_eq!(kept.read_back(&[10, 11, 12, 13, 15]).objections(), [""; 0]);
}

#[test]
fn a_record_out_of_order_is_found() {
    let swapped = Story::default()
        .produce(0, &[10], ProduceOutcome::Unknown)
        .acked(1, &[11], 0)
        .read_back(&[11, 10]);
    insta::assert_snapshot!("out_of_order", swapped.objection("producer_order"));
    let unknown = ProduceOutcome::Unknown;
    let batch = Story::default().produce(0, &[10, 11], unknown).read_back(&[11, 10]);
    assert!(batch.objections().contains(&"producer_order"));
}

/// Without numbers a batch of unknown outcome may arrive late; one of known outcome may not.
#[test]
fn a_producer_without_numbers_may_be_overtaken_by_what_is_unknown() {
    let unknown = Story::default().plain(0, 10, None).plain(1, 11, Some(0)).read_back(&[11, 10]);
    assert_eq!(unknown.objections(), [""; 0]);
    let known = Story::default().plain(0, 10, Some(1)).plain(1, 11, Some(0)).read_back(&[11, 10]);
    assert!(known.objections().contains(&"producer_order"));
}

#[test]
fn a_duplicate_is_found() {
    let story = good().read_back(&[10, 11, 12, 13, 13]);
    insta::assert_snapshot!("duplicate", story.objection("retry_once"));
    let acked_elsewhere = Story::default().acked(0, &[10], 0).read(3, &[10], 4);
    assert!(acked_elsewhere.objections().contains(&"retry_once"));
    let plain = Story::default().plain(0, 10, Some(0)).read_back(&[10, 10]);
    assert_eq!(plain.objections(), ["linearizable"]);
}

#[test]
fn an_offset_that_changed_is_found() {
    let story = good().read(2, &[13], 4);
    insta::assert_snapshot!("changed", story.objection("one_offset_one_content"));
    let two_acks = Story::default().acked(0, &[10], 0).acked(1, &[11], 0);
    assert!(two_acks.objections().contains(&"one_offset_one_content"));
}

/// Four batches are acknowledged, and the second and the last are not kept.
fn with_holes(budget: Budget) -> Story {
    let mut story = Story::default()
        .budget(1_000, budget)
        .acked(0, &[10, 11], 0)
        .acked(2, &[12, 13], 2)
        .acked(4, &[14], 4)
        .acked(5, &[15], 5);
    let mut seen = records(1, &[11]);
    seen.extend(records(4, &[14]));
    let (id, returned) = story.begin(2, Action::read(Offset(1)));
    let (high_watermark, log_start) = (Offset(6), Offset(0));
    let answer = ReadAnswer { records: seen, high_watermark, log_start };
    story.history.read(id, returned, ReadOutcome::Answer(answer));
    story = story.read(5, &[], 6);
    let mut seen = records(0, &[10, 11]);
    seen.extend(records(4, &[14]));
    let whole = ReadBack { records: seen, told_end: Offset(6), ..ReadBack::default() };
    story.history.read_back(partition(), whole);
    story
}

#[test]
fn what_is_declared_not_to_be_kept_is_no_loss_and_nothing_else_is_excused() {
    let holes = [(2, 4, 2), (5, 6, 1)];
    let story = with_holes(Budget::KeepOldest).marked(&holes);
    assert_eq!(story.objections(), [""; 0]);
    let loaded = History::from_json_lines(&story.history.to_json_lines()).expect("our own file");
    assert_eq!(loaded, story.history);
    assert_eq!(with_holes(Budget::KeepOldest).objections(), [""; 0], "nobody was asked");

    let less = with_holes(Budget::KeepOldest).marked(&[(2, 4, 1), (5, 6, 1)]);
    assert_eq!(less.objections(), ["gaps_counted"]);
    assert!(less.objection("gaps_counted").contains("2 are missing"));
    let part = with_holes(Budget::KeepOldest).marked(&[(2, 3, 1), (5, 6, 1)]);
    assert_eq!(part.objections(), ["no_acked_record_lost", "offsets_dense"]);
    let end = with_holes(Budget::KeepOldest).marked(&[(2, 4, 2)]);
    assert_eq!(end.objections(), ["no_acked_record_lost"]);
    for budget in [Budget::KeepNewest, Budget::Block] {
        let found = with_holes(budget).marked(&holes).objections();
        assert!(found.contains(&"no_acked_record_lost"), "{found:?}");
        assert!(found.contains(&"offsets_dense"), "{found:?}");
    }
    let blocked = Story::default().budget(1_000, Budget::Block).marked(&[(0, 4, 4)]);
    let blocked = blocked.read_back_from(4, &[]);
    assert!(blocked.objection("gaps_counted").contains("only hold producers back"));
}

#[test]
fn more_than_a_budget_is_found() {
    let three = |bytes, budget| {
        let story = Story::default().budget(bytes, budget).acked(0, &[10], 0).acked(1, &[11], 1);
        story.acked(2, &[12], 2).read(0, &[10, 11, 12], 3).marked(&[]).objections()
    };
    for budget in [Budget::KeepOldest, Budget::Block] {
        assert_eq!(three(150, budget), ["budget_kept"]);
        assert_eq!(three(300, budget), [""; 0]);
    }
    assert_eq!(three(150, Budget::KeepNewest), [""; 0], "that is a minimum");
    let one = Story::default().budget(10, Budget::Block).acked(0, &[10], 0).read(0, &[10], 1);
    assert_eq!(one.objections(), [""; 0], "one batch fits always");
}

#[test]
fn a_skipped_offset_is_found() {
    let mut story = good();
    let mut seen = records(0, &[10, 11]);
    seen.extend(records(3, &[13]));
    let whole = ReadBack { records: seen, ..ReadBack::default() };
    story.history.read_back(partition(), whole);
    insta::assert_snapshot!("not_dense", story.objection("offsets_dense"));
}

#[test]
fn a_stale_read_is_found() {
    let story = good().latest(3);
    assert_eq!(story.objections(), ["linearizable"]);
    insta::assert_snapshot!("not_linearizable", story.objection("linearizable"));
}

#[test]
fn partitions_are_judged_apart() {
    let mut history = good().history;
    let other = PartitionName { topic: "payments".into(), ..partition() };
    let batch = Story::batch(0, &[100]);
    let id = history.begin(ClientId(1), other.clone(), Time(5), Action::produce(batch));
    history.produced(id, Time(6), ProduceOutcome::Acked(Offset(0)));
    assert!(checks::check(&history).is_empty());
    history.read_back(other, ReadBack::default());
    let violations = checks::check(&history);
    assert!(violations.iter().all(|violation| violation.to_string().starts_with("payments/0")));
    assert_eq!(violations[0].check(), "no_acked_record_lost");
}

#[test]
fn what_is_counted_for_the_summary() {
    let story = good();
    assert_eq!(story.history.acked_records(), 3);
    assert_eq!(story.history.unknown_outcomes(), 1);
}

#[test]
#[should_panic(expected = "produced before")]
fn a_payload_is_produced_once() {
    let _ = Story::default().acked(0, &[10], 0).acked(1, &[10], 1);
}

#[test]
fn a_file_for_people() {
    let mut story = good().read_back(&[10, 11, 12, 13]);
    let _ = story.begin(1, Action::produce(Story::batch(7, &[20])));
    insta::assert_snapshot!("file", story.history.to_json_lines());
}

#[test]
fn a_damaged_file_is_refused_with_its_line() {
    let text = good().history.to_json_lines();
    let lines: Vec<&str> = text.lines().collect();
    let refused = |text: &str| History::from_json_lines(text).expect_err("damaged").to_string();
    assert!(refused(&format!("{}\n{{\n", lines[0])).starts_with("line 2: "));
    assert!(refused(&format!("{}\n{}\n", lines[0], lines[0])).starts_with("line 2: the batch"));
    let empty = lines[0].replace("\"000000000000000a\",\"000000000000000b\"", "");
    assert!(refused(&empty).contains("empty"));
}

/// A random history, right or wrong.
fn any_history(seed: u64) -> History {
    let mut prng = Prng::new(seed, "any history");
    let mut history = History::default();
    for at in 0..prng.below(30) {
        let action = match prng.below(5) {
            0 => Action::produce(Story::batch(at, &[at * 2, at * 2 + 1])),
            1 => Action::read(Offset(prng.below(9))),
            2 => Action::earliest(),
            3 => Action::keep(Kept { for_ns: Some(prng.below(99)), ..Kept::default() }),
            _ => Action::latest(),
        };
        let client = ClientId(prng.below(4) as u32);
        let id = history.begin(client, partition(), Time(at * 10), action.clone());
        let returned = Time(at * 10 + prng.below(50));
        match action {
            _ if prng.below(5) == 0 => {}
            Action::Produce { .. } => {
                history.produced(id, returned, ProduceOutcome::Acked(Offset(prng.below(9))));
            }
            Action::Read { from, .. } => {
                let answer = ReadAnswer {
                    records: records(from.get(), &[prng.below(60)]),
                    high_watermark: Offset(9),
                    log_start: Offset(prng.below(3)),
                };
                history.read(id, returned, ReadOutcome::Answer(answer));
            }
            Action::Latest { .. } => history.latest(id, returned, None),
            Action::Earliest { .. } => history.earliest(id, returned, Some(Offset(prng.below(3)))),
            Action::Keep { .. } => history.changed(id, returned, ChangeOutcome::Done),
        }
    }
    if prng.below(2) == 0 {
        let whole = ReadBack {
            start: Offset(2),
            at: Time(7),
            records: records(2, &[1, 2, 3]),
            told_end: Offset(9),
            ..ReadBack::default()
        };
        history.read_back(partition(), whole);
        history.keep(partition(), Kept { for_ns: Some(prng.below(9)), ..Kept::default() });
    }
    history
}

proptest! {
    #[test]
    fn a_history_comes_back_from_its_file(seed: u64) {
        let history = any_history(seed);
        let loaded = History::from_json_lines(&history.to_json_lines()).expect("our own file");
        prop_assert_eq!(&loaded, &history);
        let found: Vec<String> = checks::check(&history).iter().map(ToString::to_string).collect();
        let again: Vec<String> = checks::check(&loaded).iter().map(ToString::to_string).collect();
        prop_assert_eq!(found, again);
    }

    /// What the single checks find, the linearizability checker finds too: they explain better,
    /// and it is the last word. Only a batch that is not numbered is beyond them, and what has gone.
    #[test]
    fn what_any_check_finds_is_not_linearizable(seed: u64) {
        let history = any_history(seed);
        let violations = checks::check(&history);
        let names: Vec<&str> = violations.iter().map(Violation::check).collect();
        let beyond = |name: &&str| matches!(*name, "producer_order" | "kept_as_declared");
        prop_assert!(names.iter().all(beyond) || names.contains(&"linearizable"), "{:?}", names);
    }
}

#[test]
fn operations_read_well() {
    let story = good();
    let text: Vec<String> = story.history.operations().iter().map(Operation::to_string).collect();
    insta::assert_snapshot!("operations", text.join("\n"));
}

/// Two batches, and half a second later a third.
fn aging(for_ms: Option<u64>, bytes: Option<u64>) -> Story {
    Story::default()
        .kept(for_ms, bytes)
        .acked(0, &[10, 11], 0)
        .acked(2, &[12, 13], 2)
        .wait(500)
        .acked(4, &[14], 4)
}

#[test]
fn records_that_had_their_time_may_be_gone_for_good() {
    let old = || aging(Some(500), None);
    let seen = old().earliest(2).out_of_range(0).out_of_range(1).read(4, &[14], 5);
    assert_eq!(seen.read_back_from(4, &[14]).objections(), [""; 0]);
    // Of three batches of at most 100 bytes, 200 bytes are left.
    let many = || aging(None, Some(200));
    assert_eq!(many().earliest(2).read_back_from(2, &[12, 13, 14]).objections(), [""; 0]);
    assert_eq!(aging(Some(1), Some(10_000)).read_back_from(4, &[14]).objections(), [""; 0]);
}

/// The end of what is known is within the log: whoever reads there is out of range only if more came,
/// which nobody acknowledged, and has gone as well.
#[test]
fn a_reader_at_the_end_is_told_that_more_came_and_went() {
    let more = || aging(Some(500), None).produce(5, &[15], ProduceOutcome::Unknown).wait(600);
    assert_eq!(more().out_of_range(5).earliest(6).objections(), [""; 0]);
    assert_eq!(more().read(4, &[14, 15], 6).out_of_range(6).objections(), [""; 0]);
    assert_eq!(more().out_of_range(7).objections(), [""; 0], "nothing is known of it");
}

#[test]
fn a_record_that_goes_before_its_time_is_missed() {
    let early = "kept_as_declared";
    assert_eq!(aging(Some(506), None).earliest(4).objections(), [early]);
    assert_eq!(aging(Some(600), None).read_back_from(4, &[14]).objections(), [early]);
    assert_eq!(aging(Some(600), None).out_of_range(0).objections(), [early]);
    assert_eq!(aging(None, Some(201)).earliest(2).objections(), [early]);
    assert_eq!(aging(Some(600), Some(201)).earliest(2).objections(), [early]);
    // Where nothing may go, an answer out of range is what it always was.
    let kept = good().out_of_range(2).read_back(&[10, 11, 12, 13]);
    assert_eq!(kept.objections(), ["linearizable"]);
    insta::assert_snapshot!(aging(Some(600), Some(201)).earliest(2).objection(early));
}

#[test]
fn what_has_gone_stays_away() {
    let back = "kept_as_declared";
    assert_eq!(aging(Some(1), None).earliest(4).earliest(2).objections(), [back]);
    let read = aging(Some(1), None).out_of_range(1).read(0, &[10], 5);
    assert_eq!(read.objections(), [back]);
    insta::assert_snapshot!(aging(Some(1), None).earliest(4).earliest(2).objection(back));
}

/// After the limit was taken away: everybody who asks is told that nothing has gone.
fn raised(outcome: ChangeOutcome) -> Story {
    aging(Some(500), None).keep(None, None, outcome).earliest(0)
}

#[test]
fn what_is_there_after_a_longer_retention_was_acknowledged_stays() {
    let early = "kept_as_declared";
    let done = ChangeOutcome::Done;
    // The two old batches had had their time; but one was told after the change that they are there.
    assert_eq!(raised(done).earliest(0).objections(), [""; 0]);
    assert_eq!(raised(done).earliest(4).objections(), [early]);
    assert_eq!(raised(done).read_back_from(4, &[14]).objections(), [early]);
    assert_eq!(raised(done).out_of_range(0).objections(), [early]);
    let read = aging(Some(500), None).keep(None, None, done).read(0, &[10], 5);
    assert_eq!(read.earliest(2).objections(), [early]);
    // Without such an answer they may have gone before the change.
    assert_eq!(aging(Some(500), None).keep(None, None, done).earliest(4).objections(), [""; 0]);
    let before = aging(Some(500), None).earliest(0).keep(None, None, done);
    assert_eq!(before.earliest(4).objections(), [""; 0]);
    insta::assert_snapshot!(raised(done).earliest(4).objection(early));
}

#[test]
fn a_larger_limit_lets_go_what_has_had_its_time_by_it() {
    let early = "kept_as_declared";
    let raised = || aging(Some(100), None).keep(Some(800), None, ChangeOutcome::Done).earliest(0);
    assert_eq!(raised().earliest(2).objections(), [early]);
    assert_eq!(raised().wait(300).earliest(4).objections(), [""; 0]);
    assert_eq!(raised().wait(300).earliest(5).objections(), [early], "the third is young");
    let by_bytes = || aging(None, Some(100)).keep(None, Some(200), ChangeOutcome::Done);
    assert_eq!(by_bytes().earliest(0).earliest(2).objections(), [""; 0]);
    assert_eq!(by_bytes().earliest(0).earliest(4).objections(), [early]);
    assert_eq!(by_bytes().earliest(4).objections(), [""; 0], "before the change, perhaps");
}

#[test]
fn a_limit_that_came_later_lets_nothing_go_before() {
    let early = "kept_as_declared";
    let lowered = |outcome| aging(None, None).keep(Some(100), None, outcome);
    assert_eq!(
        aging(None, None).earliest(2).keep(Some(100), None, ChangeOutcome::Done).objections(),
        [early]
    );
    assert_eq!(lowered(ChangeOutcome::Done).earliest(4).objections(), [""; 0]);
    assert_eq!(lowered(ChangeOutcome::Unknown).earliest(4).objections(), [""; 0]);
    assert_eq!(lowered(ChangeOutcome::Failed).earliest(4).objections(), [early]);
}

#[test]
fn a_change_whose_outcome_nobody_knows_may_hold_or_not_at_any_time() {
    let (done, unknown) = (ChangeOutcome::Done, ChangeOutcome::Unknown);
    let early = "kept_as_declared";
    assert_eq!(raised(unknown).earliest(4).objections(), [""; 0], "it may never have come");
    // One that was called before another may still take effect after it.
    let late = || aging(None, None).keep(Some(100), None, unknown).keep(None, None, done);
    assert_eq!(late().earliest(0).earliest(4).objections(), [""; 0]);
    // One that is known to have taken effect does so no more.
    let known = || aging(None, None).keep(Some(100), None, done).keep(None, None, done);
    assert_eq!(known().earliest(0).earliest(4).objections(), [early]);
    assert_eq!(known().keep(Some(100), None, unknown).earliest(4).objections(), [""; 0]);
    let again = raised(done).keep(Some(500), None, done).earliest(4);
    assert_eq!(again.objections(), [""; 0]);
}
