//! The repository keeps its own rules. Each check has tests of its own beside it, in `src/tidy/`.

use fulmar_tests::tidy::{
    Repository, Source, TextFile, assert_clean, docs, forbidden, layers, markers, served, size,
    words,
};
use std::io::Write;

/// Functions that are longer than they may be. It only gets shorter, and is empty.
const LONG_FUNCTIONS: &[size::LongFunction] = &[];

/// How often a crate may say `cfg(madsim)`: each is a place where the two worlds can drift apart.
const MADSIM_CFGS_MAX: &[(&str, usize)] = &[("cluster/host/", 16), ("sim/", 16)];

fn sources(repository: &Repository) -> Vec<Source> {
    let mut sources: Vec<Source> =
        repository.rust().map(|file| Source::new(&file.path, &file.text)).collect();
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let is_inside = |test: &String| test.ends_with('/') && source.path.starts_with(test);
        if tests.iter().any(|test| *test == source.path || is_inside(test)) {
            source.set_test();
        }
    }
    sources
}

#[test]
fn files_and_functions_are_short() {
    let repository = Repository::read();
    let mut findings: Vec<_> =
        repository.rust().filter_map(|file| size::file_lengths(&file.path, &file.text)).collect();
    for source in sources(&repository) {
        findings.extend(size::function_lengths(&source, LONG_FUNCTIONS));
    }
    for (path, lines) in size::long_files(repository.rust()) {
        // Past the test harness, which shows the output of failed tests only.
        let _ = writeln!(std::io::stderr(), "tidy: {path} has {lines} lines: time for a seam");
    }
    assert_clean(findings);
}

#[test]
fn nothing_goes_around_the_seam() {
    let mut findings = Vec::new();
    for source in sources(&Repository::read()) {
        findings.extend(forbidden::names(&source));
        findings.extend(forbidden::selects(&source));
    }
    assert_clean(findings);
}

#[test]
fn the_two_worlds_differ_in_few_places() {
    let sources = sources(&Repository::read());
    for (place, max) in MADSIM_CFGS_MAX {
        let inside = sources.iter().filter(|source| source.path.starts_with(place));
        let cfgs: usize = inside.map(forbidden::madsim_cfgs).sum();
        assert!(cfgs <= *max, "{place} says cfg(madsim) {cfgs} times, at most {max}");
    }
}

#[test]
fn crates_depend_downwards_only() {
    let repository = Repository::read();
    let mut findings = Vec::new();
    for manifest in repository.ending("Cargo.toml") {
        findings.extend(layers::layers(&manifest.path, &manifest.text));
    }
    for file in &repository.files {
        findings.extend(layers::registry(&file.path, &file.text));
    }
    assert_clean(findings);
}

#[test]
fn every_dependency_is_a_decision() {
    let repository = Repository::read();
    let page = repository.ending("docs/decisions/dependencies.md").next();
    let page = page.expect("the page of decisions about dependencies");
    let manifests = repository.ending("Cargo.toml");
    assert_clean(
        manifests.flat_map(|m| layers::unexplained(&m.path, &m.text, &page.text)).collect(),
    );
}

#[test]
fn every_module_says_what_it_is() {
    assert_clean(sources(&Repository::read()).iter().filter_map(markers::header).collect());
}

#[test]
fn nothing_is_left_unfinished() {
    assert_clean(sources(&Repository::read()).iter().flat_map(markers::unfinished).collect());
}

#[test]
fn links_between_pages_lead_somewhere() {
    assert_clean(docs::broken_links(&Repository::read()));
}

fn file<'a>(repository: &'a Repository, path: &str) -> &'a TextFile {
    let found = repository.files.iter().find(|file| file.path == path);
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

#[test]
fn pages_say_which_apis_are_served() {
    let repository = Repository::read();
    let rows = served::api_rows(&file(&repository, "cluster/wire/src/api/mod.rs").text);
    let compat = file(&repository, "docs/KAFKA_COMPAT.md");
    let (apis, settings) =
        (rows.keys().cloned().collect::<Vec<_>>(), served::settings(&compat.text));
    assert!(apis.len() > 8 && settings.len() > 8, "{apis:?} {settings:?}");
    let mut findings = served::missing_rows(compat, &rows);
    for page in repository.ending(".md") {
        findings.extend(served::listed_as_missing(page, &apis, &settings));
    }
    assert_clean(findings);
}

#[test]
fn the_codes_of_outcomes_are_drawn_as_they_are_written() {
    let repository = Repository::read();
    let source = &file(&repository, "cluster/broker/src/machine/outcome.rs").text;
    let page = &file(&repository, "docs/design/broker.md").text;
    for (of_type, word) in [("OperationResult", "results"), ("Refusal", "refusals")] {
        let written = served::written_codes(source, of_type);
        assert!(written.len() > 8, "{of_type}: {written:?}");
        assert_eq!(served::drawn_codes(page, word), written, "docs/design/broker.md, {word}");
    }
}

#[test]
fn no_word_of_a_workplace_is_shipped() {
    let repository = Repository::read();
    let files = repository.files.iter();
    assert_clean(files.flat_map(|file| words::words(&file.path, &file.text)).collect());
}
