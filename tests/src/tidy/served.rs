//! Pages that say what is served, and with which numbers, against the sources that do it.
//!
//! Invariant: a list that is compared is not empty, so a source that is written in another way fails
//! the test instead of emptying it.

use super::Finding;
use super::repository::TextFile;
use std::collections::BTreeMap;

/// The rows of the table of APIs, as `cluster/wire/src/api/mod.rs` declares them.
pub fn api_rows(source: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let (name, rest) = line.trim().split_once(" = ")?;
        let (key, rest) = rest.split_once(", advertised ")?;
        let (advertised, rest) = rest.split_once(", served ")?;
        let (served, flexible) = rest.split_once(", flexible from ")?;
        let cells = [name, key, advertised, served, flexible.trim_end_matches(',')];
        Some((name.to_owned(), format!("| {} |", cells.join(" | ").replace("..=", "-"))))
    };
    source.lines().filter_map(row).collect()
}

/// Rows that the page of APIs does not have.
pub fn missing_rows(page: &TextFile, rows: &BTreeMap<String, String>) -> Vec<Finding> {
    let is_missing = |row: &&String| !page.text.lines().any(|line| line == row.as_str());
    let missing = rows.values().filter(is_missing);
    missing.map(|row| Finding::new(&page.path, 1, format!("there is no row `{row}`"))).collect()
}

/// The settings of topics in the table of the same page, and what each is about: `retention` for
/// `retention.ms`.
pub fn settings(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in page.lines() {
        let name = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
        if let Some((name, (head, _))) =
            name.and_then(|(name, _)| Some((name, name.split_once('.')?)))
        {
            found.extend([name.to_owned(), head.to_owned()]);
        }
    }
    found
}

/// What a page lists under "Not yet" although it is served: an API anywhere in it, a setting as an
/// item of the list.
pub fn listed_as_missing(page: &TextFile, apis: &[String], settings: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_inside = false;
    for (at, line) in page.text.lines().enumerate() {
        if line.starts_with('#') {
            is_inside = line.trim_start_matches('#').trim() == "Not yet";
        }
        if !is_inside {
            continue;
        }
        let words = line.split(|c: char| !c.is_alphanumeric());
        let items = line.split(',').map(|item| item.trim().trim_matches(['.', '`']));
        let named = words.filter(|word| apis.iter().any(|api| api == word));
        let named =
            named.chain(items.filter(|item| settings.iter().any(|setting| setting == item)));
        findings.extend(named.map(|name| {
            Finding::new(&page.path, at + 1, format!("`{name}` is served: take it off the list"))
        }));
    }
    findings
}

/// The numbers that `encode` of a type writes for its variants, in words: `14 unknown producer`.
pub fn written_codes(source: &str, of_type: &str) -> Vec<String> {
    let begin = format!("impl {of_type} {{");
    let body = source.lines().skip_while(|line| *line != begin).take_while(|line| *line != "}");
    let code = |line: &str| {
        let (variant, rest) = line.trim().strip_prefix("Self::")?.split_once("=> put(out, ")?;
        let name = variant.split([' ', '{']).next()?;
        let number = rest.split(',').next()?;
        Some(format!("{number} {}", in_words(name)))
    };
    body.filter_map(code).collect()
}

/// `UnknownProducer` as "unknown producer".
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

/// The numbers that a page draws on the lines that begin with this word, without the fields.
pub fn drawn_codes(page: &str, word: &str) -> Vec<String> {
    let mut lines = page.lines();
    let first = lines.find_map(|line| line.strip_prefix(word).filter(|rest| rest.contains(" | ")));
    let more = lines.take_while(|line| line.trim_start().starts_with('|'));
    let text: Vec<&str> = first.into_iter().chain(more).collect();
    let text = text.join(" ");
    let cells = text.split('|').map(|cell| cell.split(':').next().unwrap_or_default().trim());
    cells.filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> TextFile {
        TextFile { path: "docs/A.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn the_table_of_apis_is_compared_with_the_source() {
        let source = "    Produce = 0, advertised 0..=9, served 3..=9, flexible from 9,\n        \
                      ProduceRequest => ProduceResponse;\n";
        let rows = api_rows(source);
        assert_eq!(rows["Produce"], "| Produce | 0 | 0-9 | 3-9 | 9 |");
        assert!(missing_rows(&page("| Produce | 0 | 0-9 | 3-9 | 9 |\n"), &rows).is_empty());
        assert_eq!(missing_rows(&page("| Produce | 0 | 0-8 | 3-8 | 9 |\n"), &rows).len(), 1);
    }

    #[test]
    fn what_is_served_is_not_listed_as_missing() {
        let settings = settings("| `retention.ms` | -1 |\n| a batch | 1 MiB |\n| `x` | y |\n");
        assert_eq!(settings, ["retention.ms", "retention"]);
        let apis = ["AlterConfigs".to_owned()];
        let page = page(
            "AlterConfigs, retention.\n## Not yet\n\nTLS and AlterConfigs,\nquotas, retention, \
             compaction.\nretention of logs, IncrementalAlterConfigs\n## Limits\nAlterConfigs\n",
        );
        let findings = listed_as_missing(&page, &apis, &settings);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [4, 5], "{findings:?}");
    }

    #[test]
    fn codes_are_read_from_the_source_and_from_the_page() {
        let source = "impl Other {\n    Self::No => put(out, 1, &[]),\n}\nimpl Refusal {\n    \
                      Self::UnknownTopic => put(out, 1, &[]),\n    \
                      Self::Fenced { number } => put(out, 2, &[number]),\n    \
                      1 => Self::UnknownTopic,\n}\n";
        assert_eq!(written_codes(source, "Refusal"), ["1 unknown topic", "2 fenced"]);
        let drawn = "refusal    tag u8\nrefusals   1 unknown topic | 2 fenced: number\n           \
                     | 3 more: a, b\n```\n| 4 other\n";
        assert_eq!(drawn_codes(drawn, "refusals"), ["1 unknown topic", "2 fenced", "3 more"]);
    }
}
