//! How large the maps must be for all services there are: a guess from above, so that they grow once and not time and
//! again while the first services come in.

use std::sync::Arc;

use crate::backend::Need;
use crate::desired::NodeView;
use crate::objects::{ServiceView, SliceView};

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What services and slices take at most, but for services whose sets differ inside and outside.
pub(super) fn need(services: &[Arc<ServiceView>], slices: &[Arc<SliceView>], node: &NodeView) -> Need {
    let (mut frontends, mut sets, mut ranges, mut sticky) = (0, 0, 0, 0);
    for served in services.iter().filter_map(|service| service.served.as_deref()) {
        let node_ports = served.ports.iter().filter(|port| port.node_port != 0).count();
        frontends +=
            served.ports.len() * served.addresses.len() + node_ports * node.node_port_addresses.len();
        let families = served.families.iter().filter(|has| **has).count();
        sets += served.ports.len() * families;
        ranges += served.ranges.as_ref().map_or(0, |ranges| ranges.len() * served.ports.len());
        sticky += usize::from(served.affinity_seconds > 0);
    }
    let backends: usize = slices.iter().map(|slice| slice.ports.len() * slice.endpoints.len()).sum();
    Need {
        frontends: number(frontends),
        sets: number(sets),
        slots: number(backends),
        backends: number(backends),
        // As if the sticky services were like the others.
        affinity: number(backends.saturating_mul(sticky).checked_div(services.len()).unwrap_or(0)),
        ranges: number(ranges),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_addresses_and_endpoints_multiply() {
        let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"type": "NodePort",
            "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"], "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]}});
        let slice = json!({"metadata": {}, "addressType": "IPv4",
            "ports": [{"port": 8080}, {"port": 8081}],
            "endpoints": [{"addresses": ["10.244.0.5"]}, {"addresses": ["10.244.0.6"]}]});
        let services = [Arc::new(ServiceView::of(&serde_json::from_value(service).expect("a service")))];
        let slices = [Arc::new(SliceView::of(&serde_json::from_value(slice).expect("a slice"), "n1"))];
        let addresses = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().expect("an address"));
        let node = NodeView { node_port_addresses: addresses.to_vec(), ..NodeView::default() };
        let expected = Need { frontends: 6, sets: 4, slots: 4, backends: 4, affinity: 4, ranges: 0 };
        assert_eq!(need(&services, &slices, &node), expected);
        assert_eq!(need(&[], &[], &node), Need::default());
    }
}
