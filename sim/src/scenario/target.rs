//! Who is meant: nodes, roles and the ends of links.
//!
//! A target is written by role ("leader of north") and may leave a choice open ("any of north").
//! Drawing closes every choice that can be closed before the run. A role stays a role, because
//! only the run knows who leads; where several nodes have it, the number of the one is drawn.
//!
//! Invariant: a target names a site and nodes that the scenario has.

use super::fields::{Value, expected};
use super::param::{Draw, Param, Printed, pick_node, quoted, words};
use super::source::Problem;
use fulmar_types::NodeId;
use std::collections::BTreeMap;
use std::fmt;

/// The name of a site: lower-case letters, digits, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteName(String);

impl SiteName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(plain);
        fits.then(|| Self(text.to_owned()))
    }

    /// The plain name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sites of a scenario and how many nodes each has, numbered from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    pub(super) nodes: BTreeMap<SiteName, u32>,
}

impl Sites {
    /// The sites, ordered by name, with the number of their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&SiteName, u32)> {
        self.nodes.iter().map(|(site, nodes)| (site, *nodes))
    }

    /// How many nodes a site has; 0 for one that the scenario does not have.
    pub fn node_count(&self, site: &SiteName) -> u32 {
        self.nodes.get(site).copied().unwrap_or(0)
    }

    /// Every node of every site.
    pub fn nodes(&self) -> impl Iterator<Item = NodeAddress> {
        self.iter().flat_map(|(site, nodes)| {
            (1..=nodes).map(|node| NodeAddress { site: site.clone(), node: node_id(node) })
        })
    }

    fn names(&self) -> Vec<&str> {
        self.nodes.keys().map(SiteName::as_str).collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<SiteName, String> {
        let known = self.nodes.keys().find(|site| site.as_str() == name).cloned();
        known.ok_or_else(|| {
            format!("there is no site `{name}`; the sites are: {}", self.names().join(", "))
        })
    }

    fn node(&self, site: &SiteName, number: &str) -> Result<NodeId, String> {
        let count = self.node_count(site);
        match number.trim().parse::<u32>() {
            Ok(node) if (1..=count).contains(&node) => Ok(node_id(node)),
            _ => Err(format!("site `{site}` has the nodes 1 to {count}, not `{}`", number.trim())),
        }
    }
}

fn node_id(number: u32) -> NodeId {
    NodeId(u64::from(number))
}

/// One node of one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Its site.
    pub site: SiteName,
    /// Its number in the site, from 1.
    pub node: NodeId,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of {}", self.node, self.site)
    }
}

/// Nodes, as the run resolves them when the fault fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These nodes of one site, ordered; at least one.
    Nodes(SiteName, Vec<NodeId>),
    /// Whoever leads at that time. Nobody, if nobody does.
    Leader(SiteName),
    /// The followers in order of their numbers: the one at this position, from 1, counted round
    /// if there are fewer.
    Follower(SiteName, u32),
    /// Whoever owns the first pipeline of the site, by name, at that time. Nobody, if nobody does.
    Owner(SiteName),
    /// All nodes of a site.
    All(SiteName),
}

impl Target {
    /// The site of the nodes.
    pub fn site(&self) -> &SiteName {
        match self {
            Self::Nodes(site, _)
            | Self::Leader(site)
            | Self::Follower(site, _)
            | Self::Owner(site)
            | Self::All(site) => site,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(site, nodes) => {
                let numbers: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                let word = if numbers.len() == 1 { "node" } else { "nodes" };
                write!(f, "{word} {} of {site}", numbers.join(", "))
            }
            Self::Leader(site) => write!(f, "leader of {site}"),
            Self::Follower(site, position) => write!(f, "follower {position} of {site}"),
            Self::Owner(site) => write!(f, "owner of {site}"),
            Self::All(site) => write!(f, "all of {site}"),
        }
    }
}

/// Nodes, with a choice that the seed may have to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetChoice {
    /// No choice to make.
    One(Target),
    /// Any node of any site.
    Any,
    /// Any node of this site.
    AnyOf(SiteName),
    /// Any of the followers of this site.
    FollowerOf(SiteName),
    /// Any nodes of this site, as many as may fail without losing the majority.
    MinorityOf(SiteName),
}

/// How targets are written, for error messages.
const TARGETS: &str = "\"leader of SITE\", \"follower of SITE\", \"owner of SITE\", \"node 2 of SITE\", \
     \"nodes 1, 2 of SITE\", \"any of SITE\", \"minority of SITE\", \"all of SITE\", \"any\"";

impl TargetChoice {
    fn parse(text: &str, sites: &Sites) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let Some((role, site)) = text.split_once(" of ") else {
            return Err(format!("`{text}` is no target"));
        };
        let site = sites.find(site.trim())?;
        let (word, rest) = role.trim().split_once(' ').unwrap_or((role.trim(), ""));
        match (word, rest) {
            ("any", "") => Ok(Self::AnyOf(site)),
            ("all", "") => Ok(Self::One(Target::All(site))),
            ("leader", "") => Ok(Self::One(Target::Leader(site))),
            ("owner", "") => Ok(Self::One(Target::Owner(site))),
            ("minority" | "follower", "") if sites.node_count(&site) < 2 => {
                Err(format!("site `{site}` has one node and so no {word}"))
            }
            ("minority", "") if sites.node_count(&site) < 3 => {
                Err(format!("site `{site}` has two nodes and so no minority"))
            }
            ("minority", "") => Ok(Self::MinorityOf(site)),
            ("follower", "") => Ok(Self::FollowerOf(site)),
            ("follower", position) => {
                let followers = sites.node_count(&site) - 1;
                match position.parse::<u32>() {
                    Ok(at) if (1..=followers).contains(&at) => {
                        Ok(Self::One(Target::Follower(site, at)))
                    }
                    _ => Err(format!("site `{site}` has {followers} followers, not `{position}`")),
                }
            }
            ("node" | "nodes", numbers) if !numbers.is_empty() => {
                let nodes: Result<Vec<NodeId>, String> =
                    numbers.split(',').map(|number| sites.node(&site, number)).collect();
                let mut nodes = nodes?;
                nodes.sort_unstable();
                nodes.dedup();
                Ok(Self::One(Target::Nodes(site, nodes)))
            }
            _ => Err(format!("`{text}` is no target")),
        }
    }

    fn choose(&self, draw: &mut Draw<'_>) -> Target {
        match self {
            Self::One(target) => target.clone(),
            Self::Any => {
                let nodes: Vec<NodeAddress> = draw.sites.nodes().collect();
                let node = draw.prng.pick(&nodes).expect("a scenario has a site with a node");
                Target::Nodes(node.site.clone(), vec![node.node])
            }
            Self::AnyOf(site) => {
                let count = draw.sites.node_count(site);
                Target::Nodes(site.clone(), vec![pick_node(draw, count)])
            }
            Self::FollowerOf(site) => {
                let followers = draw.sites.node_count(site) - 1;
                let position = draw.prng.between(1, u64::from(followers));
                let position = u32::try_from(position).expect("a site has few nodes");
                Target::Follower(site.clone(), position)
            }
            Self::MinorityOf(site) => {
                let count = draw.sites.node_count(site);
                let mut nodes: Vec<NodeId> = (1..=count).map(node_id).collect();
                draw.prng.shuffle(&mut nodes);
                nodes.truncate((count as usize - 1) / 2);
                nodes.sort_unstable();
                Target::Nodes(site.clone(), nodes)
            }
        }
    }
}

/// Reads a string with a parser of its own.
fn text_of<T>(
    value: &Value<'_>,
    how: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Problem> {
    let Some(text) = value.get_ref().as_str() else {
        return expected(how, value);
    };
    parse(text).map_err(|error| Problem::new(value.span(), error).help(format!("expected {how}")))
}

impl Param for TargetChoice {
    type Drawn = Target;
    const EXPECTED: &'static str = "a target such as \"leader of SITE\"";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        text_of(value, &format!("one of: {TARGETS}"), |text| Self::parse(text, sites))
    }

    fn draw(&self, draw: &mut Draw<'_>) -> Target {
        self.choose(draw)
    }
}

impl Printed for Target {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Param for SiteName {
    type Drawn = Self;
    const EXPECTED: &'static str = "the name of a site";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        text_of(value, Self::EXPECTED, |text| sites.find(text))
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        self.clone()
    }
}

impl Printed for SiteName {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

impl Param for NodeAddress {
    type Drawn = Self;
    const EXPECTED: &'static str = "a node such as \"node 2 of SITE\"";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        text_of(value, Self::EXPECTED, |text| match TargetChoice::parse(text, sites)? {
            TargetChoice::One(Target::Nodes(site, nodes)) if nodes.len() == 1 => {
                Ok(Self { site, node: nodes[0] })
            }
            _ => Err(format!("`{text}` is not one node")),
        })
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        self.clone()
    }
}

impl Printed for NodeAddress {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// One end of a set of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndOf<T> {
    /// Nodes.
    Nodes(T),
    /// The clients that are at a site.
    Clients(SiteName),
    /// Everything that is at a site: its nodes and its clients.
    Site(SiteName),
}

/// One end of a set of links, as the run resolves it.
pub type End = EndOf<Target>;

impl EndOf<TargetChoice> {
    fn parse(text: &str, sites: &Sites) -> Result<Self, String> {
        if let Some(site) = text.strip_prefix("site ") {
            return sites.find(site.trim()).map(Self::Site);
        }
        if let Some(site) = text.strip_prefix("clients of ") {
            return sites.find(site.trim()).map(Self::Clients);
        }
        TargetChoice::parse(text, sites).map(Self::Nodes)
    }

    fn choose(&self, draw: &mut Draw<'_>) -> End {
        match self {
            Self::Nodes(choice) => EndOf::Nodes(choice.choose(draw)),
            Self::Clients(site) => EndOf::Clients(site.clone()),
            Self::Site(site) => EndOf::Site(site.clone()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(target) => target.fmt(f),
            Self::Clients(site) => write!(f, "clients of {site}"),
            Self::Site(site) => write!(f, "site {site}"),
        }
    }
}

/// The links between two ends: every one from a member of the first to a member of the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BetweenOf<T> {
    /// The first end.
    pub from: EndOf<T>,
    /// The second end.
    pub to: EndOf<T>,
}

/// The links between two ends, as the run resolves them.
pub type Between = BetweenOf<Target>;

impl Param for BetweenOf<TargetChoice> {
    type Drawn = Between;
    const EXPECTED: &'static str =
        "two ends such as [\"leader of SITE\", \"follower of SITE\"] or [\"site A\", \"site B\"]";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        let how = format!("one of: {TARGETS}, \"clients of SITE\", \"site SITE\"");
        let ends = match value.get_ref().as_array() {
            Some(ends) if ends.len() == 2 => ends,
            _ => return expected(Self::EXPECTED, value),
        };
        let end = |at: usize| text_of(&ends[at], &how, |text| EndOf::parse(text, sites));
        let (from, to) = (end(0)?, end(1)?);
        let one_node = |end: &EndOf<TargetChoice>| {
            !matches!(
                end,
                EndOf::Nodes(
                    TargetChoice::Any
                        | TargetChoice::AnyOf(_)
                        | TargetChoice::FollowerOf(_)
                        | TargetChoice::MinorityOf(_)
                        | TargetChoice::One(Target::All(_))
                ) | EndOf::Site(_)
            )
        };
        if from == to && one_node(&from) {
            return Err(Problem::new(value.span(), "both ends are the same"));
        }
        Ok(Self { from, to })
    }

    fn draw(&self, draw: &mut Draw<'_>) -> Between {
        let from = self.from.choose(draw);
        // Two open choices may fall on the same node, which has no link to itself: draw again. A
        // handful of tries is enough unless there is nothing else to draw.
        let mut to = self.to.choose(draw);
        for _ in 0..16 {
            if to != from {
                break;
            }
            to = self.to.choose(draw);
        }
        Between { from, to }
    }
}

impl Printed for Between {
    fn printed(&self) -> Option<String> {
        Some(format!("[{}, {}]", quoted(&self.from.to_string()), quoted(&self.to.to_string())))
    }
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

words! {
    /// Which way a fault on links works.
    enum Direction, "direction" {
        /// Both ways.
        Both = "both",
        /// From the first end to the second; for one target, what it sends.
        Out = "out",
        /// From the second end to the first; for one target, what it receives.
        In = "in",
    }
}

/// Which way, or one of the three, drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectionChoice {
    /// This way.
    One(Direction),
    /// One way, out or in.
    OneWay,
    /// Both ways or one way, each equally likely.
    Any,
}

impl Param for DirectionChoice {
    type Drawn = Direction;
    const EXPECTED: &'static str = "one of \"both\", \"out\", \"in\", \"one_way\", \"any\"";

    fn read(value: &Value<'_>, _sites: &Sites) -> Result<Self, Problem> {
        let Some(word) = value.get_ref().as_str() else {
            return expected(Self::EXPECTED, value);
        };
        match word {
            "both" => Ok(Self::One(Direction::Both)),
            "out" => Ok(Self::One(Direction::Out)),
            "in" => Ok(Self::One(Direction::In)),
            "one_way" => Ok(Self::OneWay),
            "any" => Ok(Self::Any),
            _ => Err(Problem::unknown(
                value.span(),
                "direction",
                word,
                &["both", "out", "in", "one_way", "any"],
            )),
        }
    }

    fn draw(&self, draw: &mut Draw<'_>) -> Direction {
        let out_or_in = |draw: &mut Draw<'_>| match draw.prng.below(2) {
            0 => Direction::Out,
            _ => Direction::In,
        };
        match self {
            Self::One(direction) => *direction,
            Self::OneWay => out_or_in(draw),
            Self::Any if draw.prng.below(2) == 0 => Direction::Both,
            Self::Any => out_or_in(draw),
        }
    }
}
