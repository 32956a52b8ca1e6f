//! The table of metrics and the page about them.

use super::names::ALL;
use std::collections::BTreeSet;

#[test]
fn the_page_names_every_metric_with_its_kind_and_no_other() {
    let page = include_str!("../../../../docs/METRICS.md");
    for metric in ALL {
        let row = format!("| `{}` | {} | {} |", metric.name, metric.kind.name(), metric.help);
        assert!(page.contains(&row), "docs/METRICS.md lacks\n{row}");
    }
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `fulmar_"));
    assert_eq!(rows.count(), ALL.len(), "docs/METRICS.md names a metric that there is not");
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len(), "no name is there twice");
    for metric in ALL {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(metric.name.starts_with("fulmar_") && metric.name.bytes().all(plain));
        let counts = metric.name.ends_with("_total");
        assert_eq!(counts, metric.kind.name() == "counter", "{}", metric.name);
        assert!(!metric.help.contains(['\n', '\\', '|']), "{}", metric.name);
    }
}
