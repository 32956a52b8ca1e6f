//! `fulmar up`: a site of three nodes on this machine.
//!
//! Never: start a node again by itself. A node that ended has a reason that somebody should read.

use super::node::StopSignal;
use super::output::{complain, say, seconds};
use super::site::Site;
use super::{Stop, client, exit_text};
use clap::Args;
use fulmar_host::net::Network;
use fulmar_host::time::{self, Duration};
use fulmar_types::{ExitCode, NodeId};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::sync::watch;

/// How long the first start may take.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the nodes are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Run a site of three nodes on this machine until Ctrl-C, each in a process of its own.
///
/// The directory keeps everything: the configuration (site.toml, written if it is missing), the
/// data of the nodes and their logs. The same command starts the same site again. It ends with 0
/// after Ctrl-C, or with 1 if a node had ended before.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where the site lives.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The port of the first node for Kafka clients, if site.toml is to be written; the others get
    /// the next two, talk to each other 100 above, and tell of metrics and health over HTTP 300 above. 9092
    /// if it is left out.
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
}

/// Runs the site.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let mut stop = StopSignal::listen()?;
    let mut site = Site::lasting(&options.dir, options.base_port).await?;
    say(format!("Site `{}` in {}", site.config.site, site.dir.display()));
    site.start_all()?;
    for (child, kafka) in site.listening() {
        let http = site.config.node(child.id).and_then(|node| node.http);
        let http = http.map_or_else(String::new, |http| format!("  http {http}"));
        say(format!(
            "  node {}  kafka {kafka}{http}  process {}  log {}",
            child.id,
            child.pid(),
            child.log.display()
        ));
    }
    tokio::select! {
        biased;
        () = stop.wait() => {}
        ended = attend(&mut site) => {
            complain("every node has ended.");
            return Ok(ended);
        }
    }
    say("stopping");
    site.stop().await?;
    Ok(ExitCode::Ok)
}

/// Says when the site is ready, and when a node ends. Returns when all have ended.
async fn attend(site: &mut Site) -> ExitCode {
    let nodes = site.listening().map(|(child, kafka)| (child.ready(), kafka)).collect();
    let text = site.bootstrap_text();
    let network = site.network.clone();
    let ready = Cell::new(false);
    let announce = async {
        match wait_until_serving(network, nodes).await {
            Ok((leader, took)) => {
                ready.set(true);
                say(format!("Ready after {took}, node {leader} leads. Bootstrap addresses:"));
                say(&text);
                say("Ctrl-C stops the site.");
            }
            Err(stop) => complain(&stop.message),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        code = look_after(site, &ready) => code,
        () = announce => ExitCode::Ok,
    }
}

/// Waits until the site takes records. Asks only nodes that have bound their addresses: before
/// that, another site may answer there.
async fn wait_until_serving(
    network: Arc<dyn Network>,
    nodes: Vec<(watch::Receiver<bool>, SocketAddr)>,
) -> Result<(NodeId, String), Stop> {
    let began = time::now();
    let bound = loop {
        let bound = nodes.iter().filter(|(ready, _)| *ready.borrow());
        let bound = bound.map(|(_, address)| *address).collect::<Vec<_>>();
        if bound.len() > nodes.len() / 2 {
            break bound;
        }
        if time::now() - began > READY_TIMEOUT {
            let ready_s = READY_TIMEOUT.as_secs();
            return Err(Stop::failed(format!(
                "most nodes serve nobody after {ready_s} s; their logs may say why."
            )));
        }
        time::sleep(Duration::from_millis(20)).await;
    };
    let cluster = client::cluster(network, bound, "fulmar-up");
    let leader = client::wait_until_serving(&cluster, READY_TIMEOUT).await?;
    Ok((leader, seconds(time::now() - began)))
}

async fn look_after(site: &mut Site, ready: &Cell<bool>) -> ExitCode {
    let mut ended: Vec<NodeId> = Vec::new();
    let config = site.config_path.clone();
    loop {
        let all = site.nodes().len();
        for node in site.nodes_mut() {
            if ended.contains(&node.id) {
                continue;
            }
            let Some(status) = node.ended() else { continue };
            ended.push(node.id);
            let left = all - ended.len();
            let words = node.last_words();
            complain(ended_message((node.id, &config), status, left, (ready.get(), &words)));
        }
        if ended.len() == all {
            return ExitCode::Failed;
        }
        time::sleep(LOOK_EVERY).await;
    }
}

fn ended_message(
    (id, config): (NodeId, &Path),
    status: ExitStatus,
    left: usize,
    (ready, log): (bool, &str),
) -> String {
    let how = exit_text::describe(status);
    let site = match left {
        1 | 2 if !ready => "The site was not ready yet, and may need this node to become so.",
        2 => "The site goes on with the other two.",
        1 => {
            "One node of this command is left; the site takes nothing more until a second one runs."
        }
        _ => "No node of this command is left.",
    };
    let ports = match status.code() == Some(i32::from(ExitCode::Bind.code())) {
        true => {
            format!(
                " Its ports are in {}; a new site, in another --dir, gets others with --base-port.",
                config.display()
            )
        }
        false => String::new(),
    };
    let log = if log.is_empty() { String::new() } else { format!("  It last said:\n{log}") };
    format!(
        "node {id} {how}.{ports} {site} It is not started again by itself: see to the cause, then run \
         `fulmar node --config {} --id {id}` beside this, or stop with Ctrl-C and run `fulmar up` \
         again.\n{log}",
        config.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_end_of_a_node_is_told() {
        let log = "    fulmar: the address 127.0.0.1:9092 is in use\n";
        let config = Path::new("site/site.toml");
        let bind = ExitStatus::from_raw(i32::from(ExitCode::Bind.code()) << 8);
        insta::assert_snapshot!(ended_message((NodeId(2), config), bind, 2, (true, log)));
        insta::assert_snapshot!(ended_message((NodeId(1), config), bind, 2, (false, log)));
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        insta::assert_snapshot!(ended_message((NodeId(3), config), killed, 1, (true, "")));
    }
}
