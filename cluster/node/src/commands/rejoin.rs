//! `fulmar rejoin`: prepares the empty directory of a node whose old one is lost.
//!
//! Never: empty a directory. Whoever runs this has moved the old one away.

use super::output::say;
use super::{Stop, config_file};
use clap::Args;
use fulmar_host::Host;
use fulmar_host::real::TracingObserver;
use fulmar_node::RejoinError;
use fulmar_types::{ExitCode, NodeId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Prepare a node whose data directory is lost to take part in its site again.
///
/// The directory must be empty: move what is left of the old one away first. Then start the node as
/// usual. It gets the whole log from the others, and has no vote until it has caught up; both of
/// them must be running for that.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The configuration of the site, the same file for all of its nodes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of the nodes in it this is.
    #[arg(long, value_name = "N")]
    id: u64,
}

/// Prepares the directory.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let id = NodeId(options.id);
    let config = config_file::read(&options.config)?;
    let own = config_file::node(&config, id, &options.config)?;
    let host = Host::real(Arc::new(TracingObserver::default())).map_err(|error| {
        Stop::failed(format!("the system gives no threads for input and output: {error}."))
    })?;
    fulmar_node::prepare_rejoin(&config, id, host)
        .await
        .map_err(|error| refused(id, &own.data, &error))?;
    say(format!("Node {id} is prepared in {}.", own.data.display()));
    say(format!("Start it as usual: fulmar node --config {} --id {id}", options.config.display()));
    Ok(ExitCode::Ok)
}

fn refused(id: NodeId, data: &Path, error: &RejoinError) -> Stop {
    let data = data.display();
    match error {
        RejoinError::NotEmpty => Stop::usage(format!(
            "{data} is not empty, and nothing in it was touched. If the data of node {id} is lost \
             for good, move the directory away and run this again; otherwise start the node as \
             usual."
        )),
        RejoinError::Directory(error) if error.exit_code() == ExitCode::Locked => {
            Stop { code: ExitCode::Locked, message: format!("{data} cannot be used: {error}.") }
        }
        RejoinError::Directory(error) => Stop {
            code: error.exit_code(),
            message: format!(
                "{data} cannot be used: {error}. If it holds a damaged node, move it away and run \
                 this again."
            ),
        },
        other => Stop::usage(format!("node {id} cannot rejoin: {other}.")),
    }
}
