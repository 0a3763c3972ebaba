//! Who knows a name: the servers of its domain, or those for everything else. Pure.

use std::{net::SocketAddr, rc::Rc};

use hickory_proto::rr::Name;

use super::servers::{Group, Server};

/// Name servers by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// The servers for all names, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains with servers of their own.
    pub stub_domains: Vec<(Name, Vec<SocketAddr>)>,
}

/// The groups of servers.
#[derive(Debug)]
pub(super) struct Routes {
    everything: Rc<Group>,
    /// By the domain's bytes on the wire, lower case; the longest first.
    domains: Vec<(Vec<u8>, Rc<Group>)>,
}

impl Default for Routes {
    fn default() -> Self {
        Self::new(&Upstreams::default())
    }
}

impl Routes {
    pub(super) fn new(upstreams: &Upstreams) -> Self {
        let mut domains: Vec<_> = upstreams
            .stub_domains
            .iter()
            .map(|(domain, servers)| (wire(domain), Rc::new(Group::new(servers))))
            .collect();
        domains.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        Self { everything: Rc::new(Group::new(&upstreams.servers)), domains }
    }

    /// The servers that know a name, given as its lower-case bytes on the wire.
    pub(super) fn of(&self, name: &[u8]) -> Rc<Group> {
        let found = self.domains.iter().find(|(domain, _)| is_below(name, domain));
        Rc::clone(found.map_or(&self.everything, |(_, group)| group))
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Rc<Server>> {
        self.domains.iter().flat_map(|(_, group)| group.servers()).chain(self.everything.servers())
    }
}

/// A name's bytes on the wire, lower case.
pub(crate) fn wire(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 1);
    for label in name {
        bytes.push(u8::try_from(label.len()).expect("a label has 63 bytes at most"));
        bytes.extend(label.to_ascii_lowercase());
    }
    bytes.push(0);
    bytes
}

/// Whether a name is a domain or below it; both as [`wire`] makes them.
pub(crate) fn is_below(name: &[u8], domain: &[u8]) -> bool {
    let Some(above) = name.len().checked_sub(domain.len()) else { return false };
    if &name[above..] != domain {
        return false;
    }
    // The tail must begin where a label does: bytes of a label may look like one.
    let mut at = 0;
    while at < above {
        at += 1 + usize::from(name[at]);
    }
    at == above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    #[test]
    fn the_longest_domain_wins_and_labels_are_whole() {
        let at = |last| SocketAddr::from(([192, 0, 2, last], 53));
        let upstreams = Upstreams {
            servers: vec![at(1)],
            stub_domains: vec![(name("example."), vec![at(2)]), (name("Corp.Example."), vec![at(3), at(4)])],
        };
        let routes = Routes::new(&upstreams);
        let whom = |text: &str| {
            let group = routes.of(&wire(&name(text)));
            group.servers().iter().map(|server| server.address).collect::<Vec<_>>()
        };
        assert_eq!(whom("a.test."), [at(1)]);
        assert_eq!(whom("example."), [at(2)]);
        assert_eq!(whom("corp.example."), [at(3), at(4)]);
        assert_eq!(whom("a.CORP.example."), [at(3), at(4)]);
        assert_eq!(whom("xcorp.example."), [at(2)]);
        assert_eq!(whom("notexample."), [at(1)]);
        assert_eq!(whom("."), [at(1)]);
        assert_eq!(routes.servers().count(), 4);
        // A label that contains what looks like the domain.
        assert!(!is_below(b"\x0aa\x07example\0\0", b"\x07example\0"));
    }
}
