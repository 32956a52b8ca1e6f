//! Which crate may depend on which, read from the `Cargo.toml` files.
//!
//! A crate exists to make a forbidden import impossible. This table is the one of
//! docs/ARCHITECTURE.md; a crate that it does not know is refused until somebody has thought about
//! where it belongs.

use super::Finding;
use toml::Table;

/// A crate and the Fulmar crates that it may depend on.
pub struct Layer {
    /// The name of the package.
    name: &'static str,
    /// What it may depend on, for tests too.
    may: &'static [&'static str],
}

const TYPES: &str = "fulmar-types";
const HOST: &str = "fulmar-host";
const WIRE: &str = "fulmar-wire";
const STORE: &str = "fulmar-store";
const CONSENSUS: &str = "fulmar-consensus";
const CLIENT: &str = "fulmar-client";
const BROKER: &str = "fulmar-broker";
const MIRROR: &str = "fulmar-mirror";
const FLOW: &str = "fulmar-flow";
const PIPELINES: &str = "fulmar-pipelines";
const NODE: &str = "fulmar-node";
const SIM: &str = "fulmar-sim";
const REFERENCE: &str = "fulmar-reference";

const LAYERS: &[Layer] = &[
    Layer { name: TYPES, may: &[] },
    Layer { name: HOST, may: &[TYPES] },
    Layer { name: WIRE, may: &[TYPES] },
    Layer { name: STORE, may: &[HOST, TYPES] },
    Layer { name: CONSENSUS, may: &[STORE, WIRE, HOST, TYPES] },
    Layer { name: CLIENT, may: &[WIRE, HOST, TYPES] },
    Layer { name: BROKER, may: &[CONSENSUS, STORE, WIRE, HOST, TYPES] },
    Layer { name: MIRROR, may: &[BROKER, STORE, WIRE, HOST, TYPES] },
    Layer { name: FLOW, may: &[WIRE, HOST, TYPES, REFERENCE] },
    Layer { name: PIPELINES, may: &[FLOW, BROKER, STORE, WIRE, HOST, TYPES] },
    Layer {
        name: NODE,
        may: &[PIPELINES, FLOW, MIRROR, BROKER, CLIENT, CONSENSUS, STORE, WIRE, HOST, TYPES],
    },
    Layer { name: SIM, may: &[NODE, CLIENT, CONSENSUS, WIRE, HOST, TYPES, REFERENCE] },
    Layer { name: "fulmar-tests", may: &[SIM, REFERENCE] },
    Layer { name: "fulmar-preload", may: &[] },
    Layer { name: REFERENCE, may: &[] },
    Layer { name: "fulmar-nexmark", may: &[FLOW, WIRE] },
];

/// A foreign crate that only some of ours may depend on.
struct Foreign {
    name: &'static str,
    only: &'static [&'static str],
    /// Whether it may only be a dev-dependency.
    dev: bool,
    teach: &'static str,
}

const FOREIGN: &[Foreign] = &[
    Foreign { name: "openraft", only: &[CONSENSUS], dev: false, teach: "one crate knows it" },
    Foreign { name: "openraft-rt", only: &[CONSENSUS], dev: false, teach: "one crate knows it" },
    Foreign {
        name: "openraft-rt-sim",
        only: &[CONSENSUS],
        dev: false,
        teach: "one crate knows it",
    },
    Foreign {
        name: "openraft-rt-tokio",
        only: &[CONSENSUS],
        dev: false,
        teach: "one crate knows it",
    },
    Foreign { name: "madsim", only: &[HOST, SIM], dev: false, teach: "the seam is in the host" },
    Foreign { name: "getrandom", only: &[HOST], dev: false, teach: "use `fulmar_host::random`" },
    Foreign {
        name: "libc",
        only: &[HOST, NODE, "fulmar-tests", "fulmar-preload"],
        dev: false,
        teach: "system calls go through the host",
    },
    Foreign {
        name: "tokio",
        only: &[HOST, STORE, CONSENSUS, CLIENT, BROKER, MIRROR, PIPELINES, NODE, SIM],
        dev: false,
        teach: "types and wire have no I/O",
    },
    Foreign { name: "sqlparser", only: &[FLOW], dev: false, teach: "SQL is read in one crate" },
    Foreign {
        name: "bincode",
        only: &[CONSENSUS, STORE],
        dev: false,
        teach: "it is unmaintained; peer messages and manifests only, with a length limit",
    },
    Foreign {
        name: "nexmark",
        only: &["fulmar-nexmark"],
        dev: false,
        teach: "the events of a benchmark are for the benchmark",
    },
    Foreign {
        name: "kafka-protocol",
        only: &[WIRE],
        dev: true,
        teach: "it aborts on hostile lengths; the other side of differential tests only",
    },
];

/// Dependencies that break the layers.
pub fn layers(path: &str, text: &str) -> Vec<Finding> {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(path, 1, format!("no TOML: {error}"))],
    };
    let Some(name) = manifest.get("package").and_then(|p| p.get("name")?.as_str()) else {
        return Vec::new();
    };
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        let message = format!("`{name}` has no layer: add it to tests/src/tidy/layers.rs");
        return vec![Finding::new(path, 1, message)];
    };
    let mut findings = Vec::new();
    for (dependency, dev) in dependencies(&manifest) {
        let line = text.lines().position(|l| l.starts_with(&dependency)).map_or(1, |at| at + 1);
        if dependency.starts_with("fulmar-") && !layer.may.contains(&dependency.as_str()) {
            let message = format!(
                "`{name}` may not depend on `{dependency}`, only on: {}. Pass what it needs in, or \
                 move the shared part down",
                if layer.may.is_empty() { "none".to_owned() } else { layer.may.join(", ") }
            );
            findings.push(Finding::new(path, line, message));
        }
        let foreign = FOREIGN.iter().find(|foreign| foreign.name == dependency);
        if let Some(foreign) = foreign
            && (!foreign.only.contains(&name) || (foreign.dev && !dev))
        {
            let message = format!("`{name}` may not depend on `{dependency}`: {}", foreign.teach);
            findings.push(Finding::new(path, line, message));
        }
    }
    findings
}

/// Every dependency, and whether it is one for tests.
fn dependencies(manifest: &Table) -> Vec<(String, bool)> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|targets| targets.as_table()) {
        tables.extend(targets.values().filter_map(|target| target.as_table()));
    }
    let mut found = Vec::new();
    for table in tables {
        for (key, dev) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let names = table.get(key).and_then(|names| names.as_table());
            found.extend(names.into_iter().flat_map(|n| n.keys()).map(|n| (n.clone(), dev)));
        }
    }
    found
}

/// Dependencies of the workspace that the page of decisions does not explain.
pub fn unexplained(path: &str, text: &str, page: &str) -> Vec<Finding> {
    let manifest: Table = text.parse().unwrap_or_default();
    let workspace = manifest.get("workspace").and_then(|workspace| workspace.as_table());
    let mut names = dependencies(&manifest);
    names.extend(workspace.map(dependencies).unwrap_or_default());
    let mut findings = Vec::new();
    for (name, _) in names {
        if !name.starts_with("fulmar-") && !page.contains(&format!("\n| `{name}` |")) {
            let line = text.lines().position(|l| l.starts_with(&name)).map_or(1, |at| at + 1);
            let message = format!(
                "`{name}` has no line in docs/decisions/dependencies.md: say what it is for and why \
                 we do not write it ourselves"
            );
            findings.push(Finding::new(path, line, message));
        }
    }
    findings
}

/// Settings that would make a build depend on one machine's registry.
pub fn registry(path: &str, text: &str) -> Vec<Finding> {
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let foreign_source =
            path == "Cargo.lock" && line.starts_with("source = ") && line != public;
        let redirected = path == ".cargo/config.toml"
            && ["[source", "[registr", "replace-with"].iter().any(|word| line.starts_with(word));
        if foreign_source || redirected {
            let message = "dependencies come from the public registry, on every machine";
            findings.push(Finding::new(path, at + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n{rest}\n");
        layers("Cargo.toml", &text).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn a_dependency_against_the_layers_is_found() {
        assert_eq!(found("fulmar-store", "[dependencies]\nfulmar-host.workspace = true"), [""; 0]);
        for rest in [
            "[dependencies]\nfulmar-broker.workspace = true",
            "[dev-dependencies]\nfulmar-node = { path = \"../node\" }",
            "[target.'cfg(madsim)'.dependencies]\nmadsim.workspace = true",
            "[dependencies]\nopenraft = \"1\"",
            "[build-dependencies]\nfulmar-sim.workspace = true",
        ] {
            assert_eq!(found("fulmar-store", rest).len(), 1, "{rest}");
        }
        assert_eq!(found("fulmar-wire", "[dependencies]\ntokio.workspace = true").len(), 1);
        assert_eq!(found("fulmar-wire", "[dependencies]\nkafka-protocol = \"1\"").len(), 1);
        assert_eq!(found("fulmar-wire", "[dev-dependencies]\nkafka-protocol = \"1\""), [""; 0]);
    }

    #[test]
    fn an_unknown_crate_is_refused() {
        assert!(found("fulmar-extra", "")[0].contains("has no layer"));
        assert_eq!(layers("Cargo.toml", "[workspace]\nmembers = []"), []);
    }

    #[test]
    fn an_unexplained_dependency_is_found() {
        let page = "# Dependencies\n\n| `bytes` | buffers |\n";
        let found = |text: &str| unexplained("Cargo.toml", text, page).len();
        assert_eq!(found("[workspace.dependencies]\nbytes = \"1\"\nfulmar-x = \"1\""), 0);
        assert_eq!(found("[workspace.dependencies]\nserde = \"1\""), 1);
        assert_eq!(found("[target.'cfg(madsim)'.dependencies]\nmadsim = \"1\""), 1);
    }

    #[test]
    fn a_registry_of_one_machine_is_found() {
        let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        assert_eq!(registry("Cargo.lock", public), []);
        assert_eq!(registry("Cargo.lock", "source = \"registry+https://mirror.test/\"").len(), 1);
        assert_eq!(registry(".cargo/config.toml", "[source.crates-io]").len(), 1);
    }
}
