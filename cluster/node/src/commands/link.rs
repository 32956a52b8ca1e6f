//! `fulmar link`: the links of a site to other ones.
//!
//! Invariant: a change takes effect only on the link that was looked at; somebody else's change in
//! between is not undone.

use super::apply::carry::{links, out};
use super::apply::names::check_link;
use super::apply::plan::{Change, settings_of};
use super::apply::{authority, plain_list};
use super::client::Reaching;
use super::output::{say, utc};
use super::rule::history_of;
use super::{Stop, client, link_status};
use clap::{Args, Subcommand};
use fulmar_client::{ChangeTold, Cluster, LaidDown, LinkStatus};
use fulmar_host::time::Duration;
use fulmar_types::ExitCode;
use fulmar_types::link::{
    self, COPIES_PARTITIONS_DEFAULT, CopyLimits, LINK_CONNECTIONS_DEFAULT, LinkDefinition, NO_CAP,
};
use std::path::PathBuf;

/// The links of a site to other sites: what they are, and whether anything passes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Link this site to another one. The other site needs a link to this one as well.
    Create(Create),
    /// Name the links of a site.
    List(Of),
    /// Show what becomes of the links of a site: whether they are up, what has arrived, what is behind.
    Status(Asked),
    /// Show which records will never come over a link, and why.
    Gaps(Named),
    /// Show what a link is.
    Describe(Named),
    /// Show who changed links, when, and what; of one link or of all.
    History(History),
    /// Let nothing pass over a link for now.
    Pause(Named),
    /// Let a paused link go on.
    Resume(Named),
    /// Remove a link. The copies that it brought stay, and end where they are.
    Delete(Named),
}

#[derive(Clone, Debug, Args)]
struct Of {
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Asked {
    /// Of which link; of all, if it is left out.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    reaching: Reaching,
}

/// What has changed.
#[derive(Clone, Debug, Args)]
pub struct History {
    /// Of what; of all, if it is left out.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Named {
    /// The name of the link.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Create {
    /// What the link is called on this site.
    #[arg(value_name = "NAME")]
    name: String,
    /// The name of the other site, as in its site.toml, if it is not that of the link.
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// Where the other site lies: what rules speak of.
    #[arg(long, value_name = "REGION")]
    region: String,
    /// The certificate of the other site's authority (its `authority.crt`), by which its nodes prove
    /// who they are.
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// Where its nodes listen for other sites, with commas between. Left out, it has to dial this one.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    dial: Vec<String>,
    /// The topics of the other site that are copied to this one, with commas between; `*` for all.
    #[arg(long, value_name = "TOPIC,...", value_delimiter = ',')]
    take: Vec<String>,
    /// The most bytes that this side sends in any second, as in 256KiB; `none` for as many as the line
    /// takes.
    #[arg(long, value_name = "SIZE")]
    cap: Option<String>,
    /// How many connections carry the link, from 1 to 8; the lesser number of the two sides counts.
    #[arg(long, value_name = "NUMBER", default_value_t = LINK_CONNECTIONS_DEFAULT)]
    connections: u8,
    /// The partitions that all copies of the link may have here together.
    #[arg(long, value_name = "NUMBER", default_value_t = COPIES_PARTITIONS_DEFAULT)]
    partitions_max: u32,
    /// The most bytes that are kept of a partition of a copy, as in 1GiB; `none` for as many as its origin
    /// keeps.
    #[arg(long, value_name = "SIZE", default_value = NO_CAP)]
    retention_bytes_max: String,
    #[command(flatten)]
    reaching: Reaching,
}

impl Create {
    fn definition(&self) -> Result<LinkDefinition, Stop> {
        plain_list("a place to dial", &self.dial)?;
        plain_list("a topic", &self.take)?;
        let of = |number: u32| number.to_string();
        let copies = CopyLimits {
            partitions_max: link::partitions_max(&of(self.partitions_max)).map_err(Stop::usage)?,
            retention_bytes_max: link::retention_bytes_max(&self.retention_bytes_max)
                .map_err(Stop::usage)?,
        };
        let link = LinkDefinition {
            site: self.site.clone().unwrap_or_else(|| self.name.clone()),
            region: self.region.clone(),
            authority: authority(&self.authority)?,
            dial: self.dial.clone(),
            take: self.take.clone(),
            paused: false,
            cap: self.cap.as_deref().map_or(Ok(None), link::cap).map_err(Stop::usage)?,
            connections: link::connections(&of(self.connections.into())).map_err(Stop::usage)?,
            copies,
        };
        check_link(&self.name, &link)?;
        Ok(link)
    }
}

const CLIENT: &str = "fulmar-link";

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.command {
        Command::Create(create) => {
            let after = create.definition()?;
            let cluster = create.reaching.reached(CLIENT).await?;
            let there = links(&cluster).await?;
            if there.contains_key(&create.name) {
                return Err(Stop::usage(format!(
                    "there is a link {} already; remove it first, or change it with `fulmar apply`.",
                    create.name
                )));
            }
            change(&cluster, Change::Link { name: create.name, before: None, after: Some(after) })
                .await
        }
        Command::List(of) => list(&of.reaching.reached(CLIENT).await?).await,
        Command::Status(of) => {
            status(&of.reaching.reached(CLIENT).await?, of.name.as_deref()).await
        }
        Command::Gaps(of) => gaps(of).await,
        Command::Describe(of) => {
            let link = link(&of.reaching.reached(CLIENT).await?, &of.name).await?;
            say(format!("link {}", of.name));
            for (key, value) in settings_of(&link.is) {
                say(format!("    {key:<11}  {value}"));
            }
            say(format!("    {:<11}  {}", "changed", changed(&link.changed)));
            Ok(ExitCode::Ok)
        }
        Command::History(asked) => history("link", asked).await,
        Command::Pause(of) => set_paused(of, true).await,
        Command::Resume(of) => set_paused(of, false).await,
        Command::Delete(of) => {
            let cluster = of.reaching.reached(CLIENT).await?;
            let before = Some(Box::new(link(&cluster, &of.name).await?));
            change(&cluster, Change::Link { name: of.name, before, after: None }).await
        }
    }
}

async fn gaps(of: Named) -> Result<ExitCode, Stop> {
    let cluster = of.reaching.reached(CLIENT).await?;
    link(&cluster, &of.name).await?;
    let status = status_of(&cluster, &of.name).await?;
    let found = cluster.link_gaps(&of.name, TIMEOUT).await.map_err(|error| {
        Stop::failed(format!("the gaps of the link {} are not known: {error}.", of.name))
    })?;
    let found = found.unwrap_or_default();
    match link_status::gaps(&found) {
        none if none.is_empty() && !found.is_truncated => say("no gaps"),
        gaps => say(gaps.trim_end()),
    }
    if !status.sends.is_empty() {
        say("what a rule withholds of topics that this site sends is counted at the other site");
    }
    if found.is_truncated {
        say(
            "... and there may be more: the node that leads is of an older build, and does not tell all",
        );
        return Ok(ExitCode::Failed);
    }
    Ok(ExitCode::Ok)
}

async fn list(cluster: &Cluster) -> Result<ExitCode, Stop> {
    let links = links(cluster).await?;
    if links.is_empty() {
        say("no links");
    }
    for (name, LaidDown { is: link, .. }) in links {
        let paused = if link.paused { ", paused" } else { "" };
        say(format!("link {name}: to site {} in region {}{paused}", link.site, link.region));
    }
    Ok(ExitCode::Ok)
}

/// Who made something what it is, and when.
pub fn changed((who, wall_ms): &(String, u64)) -> String {
    format!("{} by {who}", utc(*wall_ms))
}

/// Shows the last changes of links, or of rules. A site remembers some hundred of both together.
pub async fn history(kind: &str, asked: History) -> Result<ExitCode, Stop> {
    let mut changes = history_of(&asked.reaching.reached(CLIENT).await?).await?;
    let is_asked = |change: &ChangeTold| {
        change.of == kind && asked.name.as_ref().is_none_or(|name| *name == change.name)
    };
    changes.retain(is_asked);
    if changes.is_empty() {
        say("no changes are remembered");
    }
    for ChangeTold { of, name, wall_ms, who, what } in changes {
        say(format!("{}  {of} {name}  by {who}: {what}", utc(wall_ms)));
    }
    Ok(ExitCode::Ok)
}

/// Ends with 1 if a link is down, or does not copy something that it should.
async fn status(cluster: &Cluster, of: Option<&str>) -> Result<ExitCode, Stop> {
    let mut code = ExitCode::Ok;
    let mut links = links(cluster).await?;
    if let Some(name) = of {
        let link = links.remove(name).ok_or_else(|| no_link(name))?;
        links = [(name.to_owned(), link)].into();
    }
    if links.is_empty() {
        say("no links");
    }
    let mirrors = client::mirrors(cluster, TIMEOUT).await;
    for (name, LaidDown { is: link, .. }) in links {
        let status = status_of(cluster, &name).await?;
        if !matches!(&*status.state, "up" | "paused") || !status.stopped.is_empty() {
            code = ExitCode::Failed;
        }
        say(link_status::render(&name, &link, &status).trim_end());
        let copies = mirrors.values().filter(|(over, _)| *over == name);
        let lacking = link_status::lacking(&link, &status, copies.map(|(_, origin)| &**origin));
        lacking.iter().for_each(say);
    }
    Ok(code)
}

async fn status_of(cluster: &Cluster, name: &str) -> Result<LinkStatus, Stop> {
    let found = cluster.link_status(name, TIMEOUT).await;
    let found = found.map_err(|error| {
        Stop::failed(format!("the state of the link {name} is not known: {error}."))
    })?;
    Ok(found.unwrap_or_default())
}

async fn set_paused(of: Named, paused: bool) -> Result<ExitCode, Stop> {
    let cluster = of.reaching.reached(CLIENT).await?;
    let before = link(&cluster, &of.name).await?;
    if before.is.paused == paused {
        let is = if paused { "is paused already" } else { "is not paused" };
        say(format!("the link {} {is}", of.name));
        return Ok(ExitCode::Ok);
    }
    let after = Some(LinkDefinition { paused, ..before.is.clone() });
    change(&cluster, Change::Link { name: of.name, before: Some(Box::new(before)), after }).await
}

async fn change(cluster: &Cluster, change: Change) -> Result<ExitCode, Stop> {
    out(cluster, std::slice::from_ref(&change)).await?;
    say(&change);
    Ok(ExitCode::Ok)
}

async fn link(cluster: &Cluster, name: &str) -> Result<LaidDown<LinkDefinition>, Stop> {
    links(cluster).await?.remove(name).ok_or_else(|| no_link(name))
}

fn no_link(name: &str) -> Stop {
    Stop::usage(format!("there is no link {name}; `fulmar link list` names them."))
}
