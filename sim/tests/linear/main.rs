//! The linearizability checker against histories that are right by construction, against planted
//! violations, and against a checker that tries every order.

mod brute;
mod generate;
mod planted;

use fulmar_sim::history::Operation;
use fulmar_sim::linear;
use fulmar_sim::prng::Prng;
use generate::Shape;

fn verdict(operations: &[Operation]) -> Result<(), linear::Violation> {
    let operations: Vec<&Operation> = operations.iter().collect();
    linear::check(&operations)
}

fn listed(operations: &[Operation]) -> String {
    operations.iter().map(|operation| format!("{operation:?}\n")).collect()
}

#[test]
fn histories_of_one_log_are_linearizable() {
    for seed in 0..400 {
        let operations = generate::history(seed, &Shape::large(200));
        if let Err(violation) = verdict(&operations) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn thousands_of_operations_take_no_time() {
    let operations = generate::history(1, &Shape::large(50_000));
    assert!(verdict(&operations).is_ok());
}

/// The two checkers share no idea: one tries every order, the other never tries any.
#[test]
fn small_histories_get_the_verdict_of_the_checker_that_tries_every_order() {
    let mut linearizable = 0u32;
    let mut violations = 0u32;
    for seed in 0..60_000 {
        let mut operations = generate::history(seed, &Shape::small(seed));
        let mut prng = Prng::new(seed, "mutate");
        for _ in 0..prng.below(4) {
            generate::mutate(&mut operations, &mut prng);
        }
        let wanted = brute::linearizable(&operations);
        let found = verdict(&operations);
        assert_eq!(
            found.is_ok(),
            wanted,
            "seed {seed}: {}\n{}",
            found.err().map_or_else(|| "no violation found".to_owned(), |v| v.to_string()),
            listed(&operations)
        );
        if wanted { linearizable += 1 } else { violations += 1 }
    }
    assert!(linearizable > 15_000, "only {linearizable} of the histories are linearizable");
    assert!(violations > 15_000, "only {violations} of the histories are not");
}

/// The order in which operations are handed in has no meaning.
#[test]
fn the_verdict_does_not_depend_on_the_order_of_the_operations() {
    for seed in 0..3_000 {
        let mut operations = generate::history(seed, &Shape::small(seed));
        let mut prng = Prng::new(seed, "shuffle");
        generate::mutate(&mut operations, &mut prng);
        let before = verdict(&operations).is_ok();
        prng.shuffle(&mut operations);
        assert_eq!(verdict(&operations).is_ok(), before, "seed {seed}");
    }
}
