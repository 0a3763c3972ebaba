//! What still leads to backends that are gone: translated sockets, and flows of UDP.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;

use skep_ebpf_abi::flow::{Flow, FlowKey, kind};
use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_abi::{Addr, TCP, UDP};

use super::DataPlane;
use crate::error::Result;
use crate::kernel_map::KernelMap;
use crate::sockets::{self, Destroyed, Gone, Translated};

impl DataPlane {
    /// Destroys the translated sockets to backends that are gone, here and in each of `namespaces`, which are visited
    /// only when there is such a socket, and until all are found.
    ///
    /// # Errors
    /// When the kernel does not tell which sockets were translated.
    pub fn destroy_sockets(&self, gone: &[Gone], namespaces: &[PathBuf]) -> Result<Destroyed> {
        let wanted: BTreeSet<Gone> = gone.iter().copied().collect();
        if wanted.is_empty() {
            return Ok(Destroyed::default());
        }
        let mut translated = Translated::default();
        self.tables().connected.visit(|cookie, connected| {
            let [low, high] = connected.namespace;
            let namespace = u64::from(low) | (u64::from(high) << 32);
            for set in [connected.reverse.set, Gone::ANY_SET] {
                // Where the protocol was not noted the set tells it, and a cookie is found under one only.
                let protocols = if connected.protocol == 0 { [UDP, TCP] } else { [connected.protocol; 2] };
                for protocol in protocols {
                    let gone = Gone { set, addr: connected.backend, port_be: connected.port_be, protocol };
                    if wanted.contains(&gone) {
                        translated.add(cookie, &gone, namespace);
                    }
                }
            }
        })?;
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sockets::destroy(translated, namespaces, &mut cookies))
    }

    /// The UDP backends that translated sockets and flows lead to, each with the set that it was taken from. One that
    /// its set does not have (any more) is gone for them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn translated(&self) -> Result<BTreeSet<Gone>> {
        let mut found = BTreeSet::new();
        self.tables().connected.visit(|_, connected| {
            let (set, addr, port_be) = (connected.reverse.set, connected.backend, connected.port_be);
            if matches!(connected.protocol, UDP | 0) {
                found.insert(Gone { set, addr, port_be, protocol: UDP });
            }
        })?;
        // Where a socket's protocol was not noted, that of its backend is, and few are of both.
        let mut udp = BTreeSet::new();
        self.tables().visit_backends(|backend| {
            if backend.protocol == UDP {
                udp.insert((backend.addr, backend.port_be));
            }
        })?;
        found.retain(|gone| udp.contains(&(gone.addr, gone.port_be)));
        let flows: KernelMap<FlowKey, Flow> = KernelMap::open(&self.pins.maps(), "flows")?;
        let mut ways = BTreeSet::new();
        flows.visit(|key, flow| {
            if key.protocol == UDP && flow.kind & kind::DESTINATION != 0 {
                ways.insert((
                    flow.outer.dst,
                    flow.outer.dst_port_be,
                    flow.kind & kind::FROM_OUTSIDE,
                    flow.inner.dst,
                    flow.inner.dst_port_be,
                ));
            }
        })?;
        for (dst, dst_port_be, from_outside, addr, port_be) in ways {
            let frontend = self.tables().frontend(&FrontendKey::new(dst, dst_port_be, UDP))?;
            let set = frontend.map_or(Gone::NO_SET, |frontend| {
                if from_outside == 0 { frontend.internal_set } else { frontend.external_set }
            });
            found.insert(Gone { set, addr, port_be, protocol: UDP });
        }
        Ok(found)
    }

    /// Forgets the UDP flows to backends that are gone: a client that goes on sending over one socket would keep its
    /// flow, and so a dead backend, for ever. The next packet chooses anew. Says how many there were.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_flows(&self, gone: &[Gone]) -> Result<usize> {
        let udp: Vec<&Gone> = gone.iter().filter(|gone| gone.protocol == UDP).collect();
        if udp.is_empty() {
            return Ok(0);
        }
        let maps = self.pins.maps();
        let flows: KernelMap<FlowKey, Flow> = KernelMap::open(&maps, "flows")?;
        let index: KernelMap<FlowKey, FlowKey> = KernelMap::open(&maps, "flow_index")?;
        let places: BTreeSet<(Addr, u16)> = udp.iter().map(|gone| (gone.addr, gone.port_be)).collect();
        let mut found = Vec::new();
        flows.visit(|key, flow| {
            let to_gone = places.contains(&(flow.inner.dst, flow.inner.dst_port_be));
            if key.protocol == UDP && to_gone && flow.kind & kind::DESTINATION != 0 {
                found.push((key, flow));
            }
        })?;
        let mut forgotten = 0;
        for (key, flow) in found {
            if self.is_still_served(&flow, &udp)? {
                continue;
            }
            // In the order in which programs look: what is found in the index must lead somewhere.
            index.remove(&FlowKey::new(&flow.outer, key.protocol))?;
            flows.remove(&key)?;
            forgotten += 1;
        }
        Ok(forgotten)
    }

    /// Whether a flow came through a set that keeps the backend.
    fn is_still_served(&self, flow: &Flow, gone: &[&Gone]) -> Result<bool> {
        let dialled = FrontendKey::new(flow.outer.dst, flow.outer.dst_port_be, UDP);
        let Some(frontend) = self.tables().frontend(&dialled)? else { return Ok(false) };
        let set =
            if flow.kind & kind::FROM_OUTSIDE == 0 { frontend.internal_set } else { frontend.external_set };
        let is_it = |gone: &Gone| {
            let in_set = gone.set == set || gone.set == Gone::ANY_SET;
            in_set && gone.addr == flow.inner.dst && gone.port_be == flow.inner.dst_port_be
        };
        Ok(!gone.iter().any(|gone| is_it(gone)))
    }
}
