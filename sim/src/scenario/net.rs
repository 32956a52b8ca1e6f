//! How the network of a scenario behaves when no fault is active.
//!
//! Every directed link has a latency of its own: a range, out of which each message takes a value.
//! The file gives the range out of which these ranges are drawn; single links can be given as they
//! are. Links within a site are one per pair of nodes and one per node and direction for all
//! clients of the site; between two sites there is one per direction. A link that has a bandwidth is a
//! line, which all that takes it shares.
//!
//! Invariant: a drawn network has every link that a message can take.

use super::fields::{Fields, Value, expected};
use super::param::{Draw, Drawn, Line, Param, Printed, Written, params, quoted, ranges};
use super::quantity::{Bandwidth, Mix, Probability, Span};
use super::source::Problem;
use super::target::{NodeAddress, SiteName, Sites};
use crate::prng::Prng;
use fulmar_types::units::HumanDuration;
use std::fmt;

/// Where a message comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node.
    Node(NodeAddress),
    /// The clients that are at a site.
    Clients(SiteName),
    /// Anything at a site, seen from another site.
    Site(SiteName),
}

impl Place {
    /// The site where it is.
    pub fn site(&self) -> &SiteName {
        match self {
            Self::Node(address) => &address.site,
            Self::Clients(site) | Self::Site(site) => site,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(address) => address.fmt(f),
            Self::Clients(site) => write!(f, "clients of {site}"),
            Self::Site(site) => write!(f, "site {site}"),
        }
    }
}

impl Param for Place {
    type Drawn = Self;
    const EXPECTED: &'static str = "\"node 2 of SITE\", \"clients of SITE\" or \"site SITE\"";

    fn read(value: &Value<'_>, sites: &Sites) -> Result<Self, Problem> {
        let Some(text) = value.get_ref().as_str() else {
            return expected(Self::EXPECTED, value);
        };
        let named =
            |name: &str| sites.find(name.trim()).map_err(|error| Problem::new(value.span(), error));
        if let Some(site) = text.strip_prefix("clients of ") {
            return named(site).map(Self::Clients);
        }
        if let Some(site) = text.strip_prefix("site ") {
            return named(site).map(Self::Site);
        }
        NodeAddress::read(value, sites).map(Self::Node)
    }

    fn draw(&self, _draw: &mut Draw<'_>) -> Self {
        self.clone()
    }
}

impl Printed for Place {
    fn printed(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

fn ms(low: u64, high: u64) -> Span<HumanDuration> {
    let (low, high) = (HumanDuration::from_millis(low), HumanDuration::from_millis(high));
    Span::new(low, high).expect("the defaults run forwards")
}

ranges! {
    /// Ranges out of which every link draws its own.
    struct LinkRanges {
        /// The time that a message takes within a site, also from and to clients.
        latency = "latency": Span<HumanDuration>, or ms(1, 5);
        /// The time that a message takes from one site to another.
        between_sites = "between_sites": Span<HumanDuration>, or ms(20, 100);
        /// How likely a message is lost and sent again.
        loss = "loss": Span<Probability>, or Span::fixed(Probability::default());
        /// The same for links from one site to another, if they are different.
        loss_between = "loss_between_sites": Option<Span<Probability>>, or None;
        /// How much a link from one site to another carries; without a limit if left out.
        bandwidth_between = "bandwidth_between_sites": Option<Span<Bandwidth>>, or None;
    }
}

params! {
    /// What is the same for all links.
    struct NetShape {
        /// How long after it a lost message is sent again; all behind it wait.
        retransmit = "retransmit": Mix<HumanDuration>, or Mix::of(ms(200, 800));
        /// How likely a message takes much longer than its link usually needs.
        tail = "tail": Span<Probability>, or Span::fixed(Probability::default());
        /// How much longer it takes then.
        tail_latency = "tail_latency": Mix<HumanDuration>, or Mix::of(ms(20, 200));
        /// How long what is last in the full queue of a link with a bandwidth waits.
        queue = "queue": Span<HumanDuration>, or ms(200, 200);
    }
}

params! {
    /// One directed link.
    struct Link {
        /// Where messages come from.
        from = "from": Place;
        /// Where they go.
        to = "to": Place;
        /// The time that a message takes.
        latency = "latency": Mix<HumanDuration>;
        /// How likely a message is lost and sent again; where there is a bandwidth, a packet.
        loss = "loss": Span<Probability>, or Span::fixed(Probability::default());
        /// How much it carries, headers included; without a limit if left out.
        bandwidth = "bandwidth": Option<Span<Bandwidth>>, or None;
    }
}

/// The network as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    ranges: LinkRanges,
    shape: NetShape<Written>,
    links: Vec<Link<Written>>,
}

impl Net {
    pub(super) fn read(file: &Fields<'_>) -> Result<Self, Problem> {
        let known: &[&[&str]] = &[LinkRanges::KEYS, NetShape::<Written>::KEYS, &["link"]];
        let Some(fields) = file.table("net", known)? else {
            let none = Fields::none(file.sites());
            return Ok(Self {
                ranges: LinkRanges::from_fields(&none)?,
                shape: NetShape::from_fields(&none)?,
                links: Vec::new(),
            });
        };
        let mut links: Vec<Link<Written>> = Vec::new();
        for row in fields.list("link")? {
            let row = Fields::open(row, "a link", &[Link::<Written>::KEYS], file.sites())?;
            let link = Link::from_fields(&row)?;
            if !all_links(file.sites()).contains(&(link.from.clone(), link.to.clone())) {
                return Err(Problem::new(
                    row.span(),
                    format!("there is no link from {} to {}", link.from, link.to),
                )
                .help("links join two nodes of a site, a node and its clients, or two sites"));
            }
            if links.iter().any(|known| known.from == link.from && known.to == link.to) {
                return Err(Problem::new(row.span(), "this link is given twice"));
            }
            links.push(link);
        }
        Ok(Self {
            ranges: LinkRanges::from_fields(&fields)?,
            shape: NetShape::from_fields(&fields)?,
            links,
        })
    }

    pub(super) fn draw(&self, seed: u64, sites: &Sites) -> DrawnNet {
        let mut draw = Draw { prng: Prng::new(seed, "scenario/net"), sites };
        let shape = self.shape.draw(&mut draw);
        let links = all_links(sites)
            .into_iter()
            .map(|(from, to)| {
                let salt = format!("scenario/net/{from}/{to}");
                let mut draw = Draw { prng: Prng::new(seed, &salt), sites };
                match self.links.iter().find(|link| link.from == from && link.to == to) {
                    Some(link) => link.draw(&mut draw),
                    None => self.draw_link(from, to, &mut draw),
                }
            })
            .collect();
        DrawnNet { shape, links }
    }

    fn draw_link(&self, from: Place, to: Place, draw: &mut Draw<'_>) -> Link<Drawn> {
        let ranges = &self.ranges;
        let (latency, loss, bandwidth) = if from.site() == to.site() {
            (ranges.latency, ranges.loss, None)
        } else {
            let loss = ranges.loss_between.unwrap_or(ranges.loss);
            (ranges.between_sites, loss, ranges.bandwidth_between)
        };
        let latency = Mix::within(latency, &mut draw.prng);
        let loss = loss.draw(draw);
        Link { from, to, latency, loss, bandwidth: bandwidth.draw(draw) }
    }
}

/// Every link that a message can take, ordered.
fn all_links(sites: &Sites) -> Vec<(Place, Place)> {
    let mut links = Vec::new();
    let nodes: Vec<NodeAddress> = sites.nodes().collect();
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.site == from.site && *to != from) {
            links.push((Place::Node(from.clone()), Place::Node(to.clone())));
        }
        let clients = Place::Clients(from.site.clone());
        links.push((clients.clone(), Place::Node(from.clone())));
        links.push((Place::Node(from.clone()), clients));
    }
    for (from, _) in sites.iter() {
        for (to, _) in sites.iter().filter(|(to, _)| *to != from) {
            links.push((Place::Site(from.clone()), Place::Site(to.clone())));
        }
    }
    links.sort();
    links
}

/// The network as a seed has drawn it.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnNet {
    /// What is the same for all links.
    pub shape: NetShape<Drawn>,
    /// Every link, ordered by its ends.
    links: Vec<Link<Drawn>>,
}

impl DrawnNet {
    /// Every link, ordered by its ends.
    pub fn links(&self) -> &[Link<Drawn>] {
        &self.links
    }

    /// The link that a message takes, and its number; between two sites that of the sites. `None` between two
    /// clients, which never talk, and for places that the scenario does not have.
    pub fn link(&self, from: &Place, to: &Place) -> Option<(usize, &Link<Drawn>)> {
        let ends = if from.site() == to.site() {
            (from.clone(), to.clone())
        } else {
            (Place::Site(from.site().clone()), Place::Site(to.site().clone()))
        };
        let at =
            self.links.binary_search_by(|link| (&link.from, &link.to).cmp(&(&ends.0, &ends.1)));
        at.ok().and_then(|at| Some((at, self.links.get(at)?)))
    }

    pub(super) fn print(&self, out: &mut String) {
        out.push_str("\n[net]\n");
        let mut line = Line::default();
        self.shape.print(&mut line);
        line.finish_lines(out);
        let rows = self.links.iter().map(|link| {
            let mut line = Line::default();
            link.print(&mut line);
            line
        });
        Line::print_list("link", rows, out);
    }
}
