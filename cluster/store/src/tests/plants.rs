//! Planted bugs of the store, each of which the crash enumeration must catch. Not run by default,
//! because a plant holds for the whole process:
//! `cargo test --profile sim --config "build.rustflags=['--cfg','madsim']" --target-dir target/sim
//! -p fulmar-store --lib -- --ignored --test-threads 1 plants`

use super::crash::cut_everywhere;
use fulmar_types::Plant;
use std::panic::catch_unwind;

#[test]
#[ignore = "plants hold for the whole process"]
fn plants_are_caught() {
    cut_everywhere();
    let plants =
        [Plant::AckBeforeFlush, Plant::SkipVoteFlush, Plant::LoseRename, Plant::TrustRecycledTail];
    for plant in plants {
        fulmar_host::plant(plant);
        let caught = catch_unwind(cut_everywhere).is_err();
        fulmar_host::clear_plants();
        assert!(caught, "{}", plant.name());
    }
}
