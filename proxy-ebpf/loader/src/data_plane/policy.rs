//! Network policy in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use skep_ebpf_abi::conntrack::{State, ticks};
use skep_ebpf_abi::flow::{FlowKey, Tuple};
use skep_ebpf_abi::node::{self, endpoint};
use skep_ebpf_abi::policy::{BlockKey, Denied, DeniedKey, Policed, RuleKey, Verdict, sender_is_low};
use skep_ebpf_abi::{Addr, Plain, TCP, UDP};

use super::DataPlane;
use crate::error::{Error, Result};
use crate::kernel_map::KernelMap;
use crate::links;
use crate::policy::{BlockEntry, DeniedFlows, PolicyChange, PolicyMaps, PolicyTables, RuleEntry};
use crate::programs::COLLECT_VERDICTS;
use crate::service_maps::Prefix;
use crate::sys;

impl Plain for Prefix<RuleKey> {}
impl Plain for Prefix<BlockKey> {}

/// The maps of policies.
#[derive(Debug)]
pub(crate) struct KernelPolicyMaps {
    identities: KernelMap<Addr, u32>,
    rules: KernelMap<Prefix<RuleKey>, u32>,
    blocks: KernelMap<Prefix<BlockKey>, u32>,
    pub(crate) policed: KernelMap<Addr, Policed>,
    denied: KernelMap<DeniedKey, Denied>,
}

fn rule(entry: &RuleEntry) -> Prefix<RuleKey> {
    Prefix { bits: entry.bits, data: entry.key }
}

fn block(entry: &BlockEntry) -> Prefix<BlockKey> {
    Prefix { bits: entry.bits, data: entry.key }
}

fn split<K, V: Copy, T>(elements: &[(K, V)], key: impl Fn(&K) -> T) -> (Vec<T>, Vec<V>) {
    elements.iter().map(|(k, v)| (key(k), *v)).unzip()
}

impl KernelPolicyMaps {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            identities: KernelMap::open(folder, "identities")?,
            rules: KernelMap::open(folder, "policy_rules")?,
            blocks: KernelMap::open(folder, "policy_blocks")?,
            policed: KernelMap::open(folder, "policed")?,
            denied: KernelMap::open(folder, "denied")?,
        })
    }

    pub(crate) fn read(&self) -> Result<PolicyTables> {
        let rules = self.rules.entries()?;
        let blocks = self.blocks.entries()?;
        Ok(PolicyTables {
            identities: self.identities.entries()?.into_iter().collect(),
            rules: rules
                .into_iter()
                .map(|(key, id)| (RuleEntry { bits: key.bits, key: key.data }, id))
                .collect(),
            blocks: blocks
                .into_iter()
                .map(|(key, class)| (BlockEntry { bits: key.bits, key: key.data }, class))
                .collect(),
            policed: self.policed.entries()?.into_iter().collect(),
        })
    }

    pub(crate) fn denied(&self) -> Result<DeniedFlows> {
        self.denied.entries()
    }
}

impl PolicyMaps for DataPlane {
    fn apply(&self, change: &PolicyChange) -> Result<()> {
        let maps = &self.policy;
        match change {
            PolicyChange::PutRules(rules) => {
                let (keys, ids) = split(rules, rule);
                maps.rules.put_all(&keys, &ids).1
            }
            PolicyChange::RemoveRules(rules) => {
                maps.rules.remove_all(&rules.iter().map(rule).collect::<Vec<_>>()).1
            }
            PolicyChange::PutBlocks(blocks) => {
                let (keys, classes) = split(blocks, block);
                maps.blocks.put_all(&keys, &classes).1
            }
            PolicyChange::RemoveBlocks(blocks) => {
                maps.blocks.remove_all(&blocks.iter().map(block).collect::<Vec<_>>()).1
            }
            PolicyChange::PutIdentities(identities) => {
                let (keys, ids) = split(identities, |addr| *addr);
                maps.identities.put_all(&keys, &ids).1
            }
            PolicyChange::RemoveIdentities(gone) => maps.identities.remove_all(gone).1,
            PolicyChange::Police(pods) => {
                pods.iter().try_for_each(|(addr, policed)| self.police(addr, policed))
            }
            PolicyChange::Release(pods) => pods.iter().try_for_each(|addr| self.release(addr)),
        }
    }

    fn read(&self) -> Result<PolicyTables> {
        self.policy.read()
    }
}

impl DataPlane {
    /// The entry first: what asks for it must find it. The pod's interface is what the endpoint says.
    fn police(&self, addr: &Addr, policed: &Policed) -> Result<()> {
        let ifindex = self.endpoints.get(addr)?.map_or(policed.ifindex, |place| place.ifindex);
        let before = self.policy.policed.get(addr)?;
        self.policy.policed.put(addr, &Policed { ifindex, ..*policed })?;
        self.flag_endpoint(addr, endpoint::POLICED)?;
        // Most often only the epoch has changed, and the programs are there.
        if before.is_some_and(|before| before.ifindex == ifindex) {
            Ok(())
        } else {
            self.refresh_pod(ifindex)
        }
    }

    fn release(&self, addr: &Addr) -> Result<()> {
        let Some(policed) = self.policy.policed.get(addr)? else { return Ok(()) };
        self.flag_endpoint(addr, 0)?;
        self.policy.policed.remove(addr)?;
        self.refresh_pod(policed.ifindex)
    }

    fn flag_endpoint(&self, addr: &Addr, flags: u32) -> Result<()> {
        match self.endpoints.get(addr)? {
            Some(place) if place.flags != flags => {
                self.endpoints.put(addr, &node::Endpoint { flags, ..place })
            }
            _ => Ok(()),
        }
    }

    /// Gives an attached interface the programs that its pod needs now.
    fn refresh_pod(&self, ifindex: u32) -> Result<()> {
        if links::is_pod_attached(&self.pins, ifindex) { self.attach_pod(ifindex) } else { Ok(()) }
    }

    /// The flags of a pod's endpoint; a pod that is policed stays so when its interface is made anew.
    pub(super) fn endpoint_flags(&self, addr: &Addr, ifindex: u32) -> Result<u32> {
        let Some(policed) = self.policy.policed.get(addr)? else { return Ok(0) };
        if policed.ifindex != ifindex {
            self.policy.policed.put(addr, &Policed { ifindex, ..policed })?;
            self.refresh_pod(ifindex)?;
        }
        Ok(endpoint::POLICED)
    }

    /// The interfaces of pods that are policed.
    pub(super) fn policed_interfaces(policed: &KernelMap<Addr, Policed>) -> Result<BTreeSet<u32>> {
        Ok(policed.entries()?.into_iter().map(|(_, policed)| policed.ifindex).collect())
    }

    /// Removes what was decided about flows that are over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn collect_verdicts(&self) -> Result<()> {
        let programs = self.programs();
        if !programs.has_collect() {
            return Ok(());
        }
        let program = programs.fd(COLLECT_VERDICTS)?;
        sys::test_run(program, &[0; 64], 1).map(|_| ()).map_err(Error::on("collecting verdicts"))
    }

    /// What was not let through.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn denied(&self) -> Result<DeniedFlows> {
        self.policy.denied()
    }
}

/// What a pod's sockets tell of a flow: its tuple from the opener's side, and the protocol.
fn open_flows(addresses: &BTreeSet<Addr>) -> io::Result<Vec<(Tuple, u8)>> {
    let netlink = sys::open_diag()?;
    let mut flows = Vec::new();
    for protocol in [TCP, UDP] {
        let mut sockets = sys::list_sockets(&netlink, libc::AF_INET as u8, protocol)?;
        sockets.extend(sys::list_sockets(&netlink, libc::AF_INET6 as u8, protocol)?);
        let listening: BTreeSet<u16> =
            sockets.iter().filter(|socket| socket.is_listening()).map(sys::DiagSocket::own_port_be).collect();
        for socket in sockets.iter().filter(|socket| socket.peer_port_be() != 0) {
            let own = Tuple {
                src: socket.own(),
                dst: socket.peer(),
                src_port_be: socket.own_port_be(),
                dst_port_be: socket.peer_port_be(),
            };
            if addresses.contains(&own.src) {
                // A connection to a port that somebody listens at was opened by the other side.
                let is_dialled = protocol == TCP && listening.contains(&own.src_port_be);
                flows.push((if is_dialled { own.reversed() } else { own }, protocol));
            }
        }
    }
    Ok(flows)
}

impl DataPlane {
    /// Notes the flows that a pod has open, in the namespace that it has, before it is policed for the first time:
    /// who opened each. Nothing is decided about them; that is done with the next packet of each.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel refuses.
    pub fn note_flows(&self, netns: &Path, ips: &[IpAddr]) -> Result<()> {
        let addresses: BTreeSet<Addr> = ips.iter().map(|ip| Addr::from(*ip)).collect();
        let action = || format!("listing the sockets of {}", netns.display());
        // A thread of its own: the namespace of a thread that runs other work must not change.
        let listed = std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                let file = fs::File::open(netns)?;
                setns(file, CloneFlags::CLONE_NEWNET)?;
                open_flows(&addresses)
            });
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let verdicts: KernelMap<FlowKey, Verdict> = KernelMap::open(&self.pins.maps(), "verdicts")?;
        let now = ticks(sys::boot_time().map_err(Error::on("reading the clock"))?);
        for (tuple, protocol) in listed.map_err(Error::on(action()))? {
            let key = FlowKey::new(&tuple, protocol);
            if verdicts.get(&key)?.is_some() {
                continue;
            }
            let mut verdict = Verdict::opened(sender_is_low(&key, &tuple), protocol, 0, now);
            verdict.state |= State::REPLIED | State::ESTABLISHED;
            verdicts.put(&key, &verdict)?;
        }
        Ok(())
    }
}
