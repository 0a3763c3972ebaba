//! All slices of a service, merged into the endpoints of one port.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::names::BackendName;
use crate::objects::{EndpointView, SliceView};

/// One endpoint of one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint<'a> {
    pub(crate) backend: BackendName,
    pub(crate) view: &'a EndpointView,
}

/// The endpoints of `port` in one family, by address and port, whatever slices they come from. An endpoint that
/// appears twice (slices are written one after another) counts as ready if it is ready anywhere.
pub(crate) fn endpoints_of<'a>(
    slices: &'a [Arc<SliceView>],
    port_name: &str,
    protocol: u8,
    v6: bool,
) -> Vec<Endpoint<'a>> {
    let mut merged: BTreeMap<BackendName, Endpoint<'a>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.v6 == v6) {
        let ports = slice.ports.iter().filter(|port| *port.name == *port_name && port.protocol == protocol);
        for number in ports.map(|port| port.number) {
            for view in &slice.endpoints {
                let backend = BackendName { addr: view.addr, port: number, protocol };
                match merged.get(&backend) {
                    Some(known) if known.view.ready || !view.ready => {}
                    _ => drop(merged.insert(backend, Endpoint { backend, view })),
                }
            }
        }
    }
    merged.into_values().collect()
}
