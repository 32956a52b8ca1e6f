//! Who asks, as far as a node knows: the name in the certificate that was proved, or where he is.
//!
//! A node that does not lead hands a change over to the leader, and says for whom. What it says counts
//! if it has proved that it is a node of the site; without certificates nobody has proved anything, and
//! what it says counts as long as it names nobody.
//!
//! Invariant: a name that stands alone was proved.

use fulmar_host::net::PeerIdentity;
use fulmar_types::Plant;
use fulmar_types::link::LINK_TEXT_BYTES_MAX;
use std::sync::Arc;

/// How everybody is called who has no certificate, before his address.
const ANONYMOUS: &str = "anonymous at ";

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What he is called.
    pub name: Arc<str>,
    /// He has proved that he is a node of the site.
    is_node: bool,
    /// He has proved who he is.
    is_proved: bool,
}

impl Principal {
    /// Whoever is on the other side of a connection. `is_node` says whether a name is that of a node.
    pub fn of(peer: &PeerIdentity, is_node: impl Fn(&str) -> bool) -> Self {
        let names = peer.names.as_deref();
        let anonymous = || format!("{ANONYMOUS}{}", peer.address.ip());
        let name = match (names, &peer.common_name) {
            (None, _) => anonymous(),
            // A client of whom `fulmar keys` or another authority knows has a common name.
            (Some(_), Some(name)) => plain(name),
            (Some(names), None) => names.first().map_or_else(anonymous, |name| plain(name)),
        };
        Self {
            name: name.into(),
            is_node: names.unwrap_or_default().iter().any(|name| is_node(name)),
            is_proved: names.is_some(),
        }
    }

    /// The one for whom he asks, if he says that he asks for somebody.
    pub fn acting_for(&self, said: Option<&str>) -> Arc<str> {
        if fulmar_host::planted(Plant::ForWhomForgotten) {
            return self.name.clone();
        }
        match said {
            Some(said) if self.is_node => plain(said).into(),
            Some(said) if !self.is_proved && said.starts_with(ANONYMOUS) => plain(said).into(),
            _ => self.name.clone(),
        }
    }
}

/// A name without what a terminal would not show, of a length that can be kept.
fn plain(name: &str) -> String {
    let mut plain: String = name.chars().filter(|character| !character.is_control()).collect();
    while plain.len() > LINK_TEXT_BYTES_MAX {
        plain.pop();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(names: Option<&[&str]>) -> PeerIdentity {
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let address = ([10, 0, 0, 7], 4_000).into();
        PeerIdentity { names, ..PeerIdentity::unproved(address) }
    }

    fn principal(names: Option<&[&str]>) -> Principal {
        Principal::of(&peer(names), |name| name == "node-2.plant")
    }

    #[test]
    fn a_name_that_stands_alone_was_proved() {
        assert_eq!(&*principal(Some(&["dashboard"])).name, "dashboard");
        let common_name = Some("carol".to_owned());
        let client = PeerIdentity { common_name, ..peer(Some(&[])) };
        assert_eq!(&*Principal::of(&client, |_| false).name, "carol");
        assert_eq!(&*principal(None).name, "anonymous at 10.0.0.7");
        assert_eq!(&*principal(Some(&["a\x1b[31m\n"])).name, "a[31m");
        assert_eq!(principal(Some(&[&"ä".repeat(300)])).name.len(), 248);
    }

    #[test]
    fn only_a_node_says_for_whom_it_asks() {
        let (other, anonymous) = (Some("carol"), Some("anonymous at 10.0.0.9"));
        let node = principal(Some(&["node-2.plant"]));
        assert_eq!(&*node.acting_for(other), "carol");
        assert_eq!(&*node.acting_for(None), "node-2.plant");
        assert_eq!(&*principal(Some(&["mallory"])).acting_for(other), "mallory");
        assert_eq!(&*principal(None).acting_for(other), "anonymous at 10.0.0.7");
        assert_eq!(&*principal(None).acting_for(anonymous), "anonymous at 10.0.0.9");
    }
}
