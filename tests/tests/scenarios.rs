//! Every scenario file of the repository parses: one that does not has stopped proving anything.

use fulmar_sim::scenario::Scenario;
use fulmar_tests::tidy::Repository;

#[test]
fn every_scenario_file_parses() {
    let repository = Repository::read();
    let files = repository.ending(".toml").filter(|file| file.path.starts_with("scenarios/"));
    let mut problems = Vec::new();
    let mut count = 0;
    for file in files {
        count += 1;
        if let Err(error) = Scenario::parse(&file.path, &file.text) {
            problems.push(error.to_string());
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    assert!(count > 0, "there are no scenarios");
}
