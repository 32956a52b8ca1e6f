//! Who a role is and which links it has, when a fault fires.
//!
//! Invariant: the answer depends on the scenario, on who leads and on who owns pipelines, on nothing else, and is ordered,
//! so that the same run applies the same faults in the same order.

use super::fault::Others;
use super::net::Place;
use super::target::{Between, Direction, End, EndOf, NodeAddress, SiteName, Sites, Target};
use fulmar_types::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Who leads each site that has a leader, and who owns its first pipeline, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Roles<'a> {
    /// The sites of the scenario.
    pub sites: &'a Sites,
    /// The leaders.
    pub leaders: &'a BTreeMap<SiteName, NodeId>,
    /// The owners of the first pipelines.
    pub owners: &'a BTreeMap<SiteName, NodeId>,
}

/// Directed links, each from a place to another.
pub type Links = BTreeSet<(Place, Place)>;

impl Roles<'_> {
    fn nodes_of(&self, site: &SiteName) -> Vec<NodeId> {
        (1..=self.sites.node_count(site)).map(|node| NodeId(u64::from(node))).collect()
    }

    /// The nodes that are meant, ordered. None if nobody has the role.
    pub fn nodes(&self, target: &Target) -> Vec<NodeAddress> {
        let leader = self.leaders.get(target.site()).copied();
        let nodes = match target {
            Target::Nodes(_, nodes) => nodes.clone(),
            Target::Leader(_) => leader.into_iter().collect(),
            Target::Owner(site) => self.owners.get(site).copied().into_iter().collect(),
            Target::All(site) => self.nodes_of(site),
            Target::Follower(site, position) => {
                let mut followers = self.nodes_of(site);
                followers.retain(|node| Some(*node) != leader);
                let at = (*position as usize).saturating_sub(1) % followers.len().max(1);
                followers.get(at).copied().into_iter().collect()
            }
        };
        let site = target.site();
        nodes.into_iter().map(|node| NodeAddress { site: site.clone(), node }).collect()
    }

    fn places(&self, end: &End) -> Vec<Place> {
        let nodes = |target| self.nodes(target).into_iter().map(Place::Node);
        match end {
            EndOf::Nodes(target) => nodes(target).collect(),
            EndOf::Clients(site) => vec![Place::Clients(site.clone())],
            EndOf::Site(site) => {
                nodes(&Target::All(site.clone())).chain([Place::Clients(site.clone())]).collect()
            }
        }
    }

    /// The links between two ends, in the direction given.
    pub fn links(&self, between: &Between, direction: Direction) -> Links {
        product(&self.places(&between.from), &self.places(&between.to), direction)
    }

    /// The links between a target and the others. Those between the nodes of the target stay.
    pub fn links_to(&self, target: &Target, others: Others, direction: Direction) -> Links {
        let inside = self.nodes(target);
        let peers = self
            .sites
            .nodes()
            .filter(|node| !inside.contains(node))
            .filter(|node| others == Others::Everyone || node.site == *target.site())
            .map(Place::Node);
        let clients = self
            .sites
            .iter()
            .filter(|(site, _)| others == Others::Everyone || *site == target.site())
            .map(|(site, _)| Place::Clients(site.clone()));
        let outside: Vec<Place> = match others {
            Others::Peers => peers.collect(),
            Others::Clients => clients.collect(),
            Others::Everyone => peers.chain(clients).collect(),
        };
        let inside: Vec<Place> = inside.into_iter().map(Place::Node).collect();
        product(&inside, &outside, direction)
    }
}

/// Every link from one place to another; clients have none among themselves.
fn product(from: &[Place], to: &[Place], direction: Direction) -> Links {
    let mut links = Links::new();
    for from in from {
        for to in to.iter().filter(|to| *to != from) {
            if matches!((from, to), (Place::Clients(_), Place::Clients(_))) {
                continue;
            }
            if direction != Direction::In {
                links.insert((from.clone(), to.clone()));
            }
            if direction != Direction::Out {
                links.insert((to.clone(), from.clone()));
            }
        }
    }
    links
}

/// Links as people read them, those that are there in both directions once.
pub fn describe(links: &Links) -> String {
    let is_both = |(from, to): &&(Place, Place)| links.contains(&(to.clone(), from.clone()));
    let (both, one): (Vec<_>, Vec<_>) = links.iter().partition(is_both);
    let both = both.into_iter().filter(|(from, to)| from < to);
    let both = both.map(|(from, to)| format!("{from} <-> {to}"));
    let one = one.into_iter().map(|(from, to)| format!("{from} -> {to}"));
    both.chain(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        SiteName::parse(name).expect("a name")
    }

    fn sites() -> Sites {
        Sites { nodes: BTreeMap::from([(site("north"), 3), (site("south"), 1)]) }
    }

    fn text(links: &Links) -> Vec<String> {
        links.iter().map(|(from, to)| format!("{from} -> {to}")).collect()
    }

    #[test]
    fn links_are_described_once() {
        let node = |id| Place::Node(NodeAddress { site: site("north"), node: NodeId(id) });
        let clients = Place::Clients(site("north"));
        let links = Links::from([
            (node(2), node(1)),
            (node(1), node(2)),
            (clients.clone(), node(1)),
            (node(1), node(3)),
        ]);
        assert_eq!(
            describe(&links),
            "node 1 of north <-> node 2 of north, node 1 of north -> node 3 of north, \
             clients of north -> node 1 of north"
        );
    }

    #[test]
    fn roles_are_found() {
        let sites = sites();
        let leaders = BTreeMap::from([(site("north"), NodeId(2))]);
        let roles = Roles { sites: &sites, leaders: &leaders, owners: &BTreeMap::new() };
        let numbers = |target: &Target| -> Vec<u64> {
            roles.nodes(target).iter().map(|node| node.node.get()).collect()
        };
        assert_eq!(numbers(&Target::Leader(site("north"))), [2]);
        assert_eq!(numbers(&Target::Leader(site("south"))), [0; 0], "nobody leads there");
        assert_eq!(numbers(&Target::Follower(site("north"), 1)), [1]);
        assert_eq!(numbers(&Target::Follower(site("north"), 2)), [3]);
        assert_eq!(numbers(&Target::Follower(site("north"), 3)), [1], "counted round");
        assert_eq!(numbers(&Target::All(site("north"))), [1, 2, 3]);
        let two = Target::Nodes(site("north"), vec![NodeId(1), NodeId(3)]);
        assert_eq!(numbers(&two), [1, 3]);
        let alone = BTreeMap::from([(site("south"), NodeId(1))]);
        let roles = Roles { sites: &sites, leaders: &alone, owners: &BTreeMap::new() };
        assert!(roles.nodes(&Target::Follower(site("south"), 1)).is_empty());
    }

    #[test]
    fn links_go_the_way_that_is_asked() {
        let sites = sites();
        let leaders = BTreeMap::from([(site("north"), NodeId(2))]);
        let roles = Roles { sites: &sites, leaders: &leaders, owners: &BTreeMap::new() };
        let between = Between {
            from: EndOf::Nodes(Target::Leader(site("north"))),
            to: EndOf::Nodes(Target::All(site("north"))),
        };
        let out = ["node 2 of north -> node 1 of north", "node 2 of north -> node 3 of north"];
        assert_eq!(text(&roles.links(&between, Direction::Out)), out);
        assert_eq!(roles.links(&between, Direction::In).len(), 2);
        assert_eq!(roles.links(&between, Direction::Both).len(), 4);
        let across = Between { from: EndOf::Site(site("north")), to: EndOf::Site(site("south")) };
        // Four places there, two here, less the pair of clients, both ways.
        assert_eq!(roles.links(&across, Direction::Both).len(), 14);
    }

    #[test]
    fn an_isolated_target_keeps_its_own_links() {
        let sites = sites();
        let leaders = BTreeMap::new();
        let roles = Roles { sites: &sites, leaders: &leaders, owners: &BTreeMap::new() };
        let two = Target::Nodes(site("north"), vec![NodeId(1), NodeId(3)]);
        let peers = roles.links_to(&two, Others::Peers, Direction::In);
        let wanted = ["node 2 of north -> node 1 of north", "node 2 of north -> node 3 of north"];
        assert_eq!(text(&peers), wanted);
        let clients = roles.links_to(&two, Others::Clients, Direction::Out);
        assert_eq!(clients.len(), 2);
        // Node 2, the node of the other site and the clients of both.
        assert_eq!(roles.links_to(&two, Others::Everyone, Direction::Both).len(), 16);
        let nobody = Target::Leader(site("north"));
        assert!(roles.links_to(&nobody, Others::Everyone, Direction::Both).is_empty());
    }
}
