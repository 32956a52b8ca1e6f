//! Links between pages.

use super::Finding;
use super::repository::Repository;

/// A link of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// The line, from 1.
    pub line: usize,
    /// Where it leads, as it is written.
    pub target: String,
}

/// The relative links of a page; code is no text.
pub fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every other piece between backquotes is code.
        for prose in line.split('`').step_by(2) {
            for rest in prose.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default().trim();
                if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                    found.push(Link { line: at + 1, target: target.to_owned() });
                }
            }
        }
    }
    found
}

/// The anchors that the headings of a page make.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.replace(' ', "-");
            kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        })
        .collect()
}

/// Links that lead nowhere.
pub fn broken_links(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in repository.ending(".md") {
        for link in links(&page.text) {
            if let Some(problem) = broken(repository, &page.path, &link.target) {
                findings.push(Finding::new(&page.path, link.line, problem));
            }
        }
    }
    findings
}

fn broken(repository: &Repository, page: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { page.to_owned() } else { resolve(page, file) };
    if !repository.holds(&file) {
        return Some(format!("the link to `{target}` leads nowhere: there is no {file}"));
    }
    let text = repository.files.iter().find(|other| other.path == file);
    let known = anchor.is_empty()
        || text.is_none_or(|other| anchors(&other.text).iter().any(|known| known == anchor));
    (!known).then(|| format!("{file} has no heading for `#{anchor}`"))
}

/// A relative path, seen from a page, as one from the root.
fn resolve(page: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::TextFile;
    use super::*;
    use std::path::PathBuf;

    fn repository(pages: &[(&str, &str)]) -> Repository {
        let file = |(path, text): &(&str, &str)| TextFile {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Repository {
            root: PathBuf::new(),
            files: pages.iter().map(file).collect(),
            paths: pages.iter().map(|(path, _)| (*path).to_owned()).collect(),
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let page = "[a](../README.md) [b](../nowhere.md)\n[c](#good-heading) [d](#bad)\n\
                    [e](../README.md#top) [f](../README.md#bottom) [g](../docs)\n\
                    # Good heading!\n";
        let findings = broken_links(&repository(&[("docs/A.md", page), ("README.md", "# Top\n")]));
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2, 3], "{findings:?}");
    }

    #[test]
    fn links_are_taken_out_of_text_and_not_out_of_code() {
        let page =
            "[a](b.md) and [c](d/e.md#f)\n`[g](h.md)`\n```\n[i](j.md)\n```\n[k](https://l)\n";
        let targets: Vec<String> = links(page).into_iter().map(|link| link.target).collect();
        assert_eq!(targets, ["b.md", "d/e.md#f"]);
    }

    #[test]
    fn relative_paths_are_followed() {
        assert_eq!(resolve("docs/design/store.md", "../GLOSSARY.md"), "docs/GLOSSARY.md");
        assert_eq!(resolve("README.md", "./docs/A.md"), "docs/A.md");
    }
}
