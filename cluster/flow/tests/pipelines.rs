//! The pipelines of docs/pipelines: their own tests pass, and their pictures are looked at.

use fulmar_flow::{plan, run_fixtures};
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_tests_of_the_pipelines_pass() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pipelines");
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("a text");
        let plan =
            plan(&text).unwrap_or_else(|problems| panic!("{}: {problems:#?}", file.display()));
        let verdicts = run_fixtures(&Arc::new(plan));
        assert!(verdicts.len() >= 2, "{}: few tests", file.display());
        for verdict in verdicts {
            let differences = verdict.differences.join("\n");
            assert!(differences.is_empty(), "{}: {}:\n{differences}", file.display(), verdict.name);
        }
    }
}
