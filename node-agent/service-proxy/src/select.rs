//! Which endpoints serve: readiness, the fallback to terminating ones, traffic policy, topology.

use std::collections::BTreeSet;

use crate::endpoints::Endpoint;
use crate::names::{BackendName, Scope};

/// The endpoints that a set holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Selected {
    pub(crate) backends: BTreeSet<BackendName>,
    /// Empty only because the policy leaves out endpoints elsewhere.
    pub(crate) only_elsewhere: bool,
}

/// Selects for `scope` as kube-proxy does: the ready ones (near ones if the hints of all of them allow it), and when
/// no endpoint is ready, those that terminate but still serve (KEP-1669).
pub(crate) fn select(endpoints: &[Endpoint<'_>], scope: Scope, zone: Option<&str>) -> Selected {
    match scope {
        Scope::Cluster => {
            let ready: Vec<&Endpoint<'_>> = endpoints.iter().filter(|endpoint| endpoint.view.ready).collect();
            if ready.is_empty() {
                return Selected { backends: names(last_resort(endpoints.iter())), only_elsewhere: false };
            }
            Selected { backends: names(near(&ready, zone).unwrap_or(ready)), only_elsewhere: false }
        }
        // A local policy is stricter than any hint.
        Scope::Local => {
            let local = || endpoints.iter().filter(|endpoint| endpoint.view.local);
            let mut backends = names(local().filter(|endpoint| endpoint.view.ready));
            if backends.is_empty() {
                backends = names(last_resort(local()));
            }
            let elsewhere = endpoints.iter().any(|endpoint| endpoint.view.ready || endpoint.view.serving);
            let only_elsewhere = backends.is_empty() && elsewhere;
            Selected { backends, only_elsewhere }
        }
    }
}

fn last_resort<'e, 'a: 'e>(
    endpoints: impl Iterator<Item = &'e Endpoint<'a>>,
) -> impl Iterator<Item = &'e Endpoint<'a>> {
    endpoints.filter(|endpoint| endpoint.view.serving && endpoint.view.terminating)
}

/// The endpoints hinted at this node or zone; `None` when the hints cannot be followed.
fn near<'e, 'a>(ready: &[&'e Endpoint<'a>], zone: Option<&str>) -> Option<Vec<&'e Endpoint<'a>>> {
    if ready.iter().all(|endpoint| endpoint.view.node_hint.is_some()) {
        let here: Vec<&Endpoint<'_>> =
            ready.iter().copied().filter(|endpoint| endpoint.view.node_hint == Some(true)).collect();
        if !here.is_empty() {
            return Some(here);
        }
    }
    let zone = zone?;
    if ready.iter().any(|endpoint| endpoint.view.zones.is_none()) {
        return None;
    }
    let is_here = |endpoint: &&Endpoint<'_>| {
        endpoint.view.zones.as_ref().is_some_and(|zones| zones.iter().any(|name| **name == *zone))
    };
    let here: Vec<&Endpoint<'_>> = ready.iter().copied().filter(is_here).collect();
    if here.is_empty() { None } else { Some(here) }
}

fn names<'e, 'a: 'e>(endpoints: impl IntoIterator<Item = &'e Endpoint<'a>>) -> BTreeSet<BackendName> {
    endpoints.into_iter().map(|endpoint| endpoint.backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::EndpointView;
    use std::net::IpAddr;

    /// `1 ready local zone=a node=n1`, seen from the node n1.
    fn endpoint(text: &str) -> EndpointView {
        let mut words = text.split(' ');
        let last = words.next().expect("a number");
        let address: IpAddr = format!("10.244.0.{last}").parse().expect("an address");
        let mut endpoint = EndpointView {
            addr: address.into(),
            zones: None,
            ready: false,
            serving: false,
            terminating: false,
            local: false,
            node_hint: None,
        };
        for word in words {
            match word.split_once('=') {
                None if word == "ready" => (endpoint.ready, endpoint.serving) = (true, true),
                None if word == "serving" => endpoint.serving = true,
                None if word == "terminating" => endpoint.terminating = true,
                None if word == "local" => endpoint.local = true,
                Some(("zone", zone)) => endpoint.zones = Some([zone.into()].into()),
                Some(("node", node)) => endpoint.node_hint = Some(node == "n1"),
                _ => panic!("{word}"),
            }
        }
        endpoint
    }

    #[track_caller]
    fn check(endpoints: &[&str], scope: Scope, expected: &str) {
        let views: Vec<EndpointView> = endpoints.iter().map(|text| endpoint(text)).collect();
        let named = |view: &'_ EndpointView| BackendName { addr: view.addr, port: 80, protocol: 6 };
        let endpoints: Vec<Endpoint<'_>> =
            views.iter().map(|view| Endpoint { backend: named(view), view }).collect();
        let selected = select(&endpoints, scope, Some("a"));
        let mut found: Vec<String> = selected
            .backends
            .iter()
            .map(|backend| backend.addr.to_string().trim_start_matches("10.244.0.").to_owned())
            .collect();
        if selected.only_elsewhere {
            found.push("drop".to_owned());
        }
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn ready_ones_serve_and_terminating_ones_only_when_there_is_no_other() {
        check(&["1 ready", "2", "3 serving terminating"], Scope::Cluster, "1");
        check(&["2", "3 serving terminating", "4 terminating"], Scope::Cluster, "3");
        check(&["2", "4 terminating"], Scope::Cluster, "");
    }

    #[test]
    fn a_local_policy_keeps_to_the_node_and_falls_back_there() {
        check(&["1 ready", "2 ready local"], Scope::Local, "2");
        check(&["1 ready", "2 serving terminating local"], Scope::Local, "2");
        check(&["1 ready"], Scope::Local, "drop");
        check(&["1"], Scope::Local, "");
    }

    #[test]
    fn zone_hints_are_followed_only_when_all_have_one_and_the_zone_is_served() {
        check(&["1 ready zone=a", "2 ready zone=b"], Scope::Cluster, "1");
        check(&["1 ready zone=a", "2 ready"], Scope::Cluster, "1 2");
        check(&["1 ready zone=b", "2 ready zone=c"], Scope::Cluster, "1 2");
        check(&["1 ready zone=b", "2 serving terminating zone=a"], Scope::Cluster, "1");
    }

    #[test]
    fn node_hints_come_before_zone_hints() {
        check(&["1 ready zone=a node=n1", "2 ready zone=a node=n2"], Scope::Cluster, "1");
        check(&["1 ready zone=a node=n3", "2 ready zone=a node=n2"], Scope::Cluster, "1 2");
    }

    #[test]
    fn a_local_policy_ignores_hints() {
        check(&["1 ready local zone=b", "2 ready zone=a"], Scope::Local, "1");
    }
}
