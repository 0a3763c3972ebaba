//! The node agent's handle on the data plane.

mod peers;
mod policy;
mod room;
mod skip;
mod stale;
mod xdp;

pub use peers::{Tunnel, TunnelRange};
pub(crate) use policy::KernelPolicyMaps;
pub use xdp::{XdpChoice, XdpMode, XdpState};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::conntrack::Timeouts;
use skep_ebpf_abi::node::{self, DEFAULT_PORTS, NodeConfig, endpoint, flags, keep};

use crate::collect;
use crate::error::{Error, Result};
use crate::kernel_map::KernelMap;
use crate::links::{self, POD_HOOKS, UPLINK_HOOKS};
use crate::migrate::Before;
use crate::pins::{self, Pins};
use crate::programs::{BIND_PROGRAMS, COLLECT, Programs, SOCKET_PROGRAMS, XDP, socket_programs};
use crate::service_maps::{KernelServiceMaps, Prefix};
use crate::sizes;
use crate::sockets::Cookies;
use crate::sys;
use crate::tables::{Change, ServiceMaps, Tables};

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where maps and links are pinned; one folder a node.
    pub pin_dir: PathBuf,
    /// The cgroup whose processes get socket load balancing; the root when absent. A relative path is taken inside
    /// the cgroup v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Sizes of maps to begin with, other than the built-in ones. A pinned map keeps its size until it grows.
    pub map_sizes: BTreeMap<String, u32>,
    /// How many bytes all maps may take when they are full; an eighth of the machine's memory when absent.
    pub map_memory: Option<u64>,
    /// Programs to load in place of the built-in ones.
    pub object: Option<Vec<u8>>,
    /// Leave services to someone else: the socket programs are not attached. What is pinned stays as it is until
    /// [`DataPlane::leave_services`].
    pub pods_only: bool,
    /// Let processes of the node bind ports that are node ports of services.
    pub free_node_ports: bool,
    /// How packets to services with backends elsewhere are forwarded at uplinks before the kernel's stack.
    pub xdp: XdpChoice,
}

/// A pod's place on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The host's end of the pod's interface pair.
    pub ifindex: u32,
    /// The pod's hardware address.
    pub pod_mac: [u8; 6],
    /// The hardware address of the host's end.
    pub host_mac: [u8; 6],
}

/// The loaded data plane. Dropping it changes nothing in the kernel: what is pinned works on.
pub struct DataPlane {
    pins: Pins,
    cgroup: PathBuf,
    programs: Mutex<Programs>,
    /// Replaced when maps have grown.
    services: RwLock<Arc<KernelServiceMaps>>,
    /// Whether the socket programs are attached.
    sockets: AtomicBool,
    cap: u64,
    cookies: Mutex<Cookies>,
    free_node_ports: bool,
    xdp: XdpChoice,
    xdp_states: Mutex<BTreeMap<u32, XdpState>>,
    object: Option<Vec<u8>>,
    endpoints: KernelMap<Addr, node::Endpoint>,
    keep_source: KernelMap<Prefix<Addr>, u32>,
    policy: KernelPolicyMaps,
    node: KernelMap<u32, NodeConfig>,
    // Reading and rewriting entries that several own must not interleave.
    node_update: Mutex<()>,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane")
            .field("pins", &self.pins)
            .field("cgroup", &self.cgroup)
            .finish_non_exhaustive()
    }
}

impl ServiceMaps for DataPlane {
    fn apply(&self, change: &Change) -> Result<()> {
        self.tables().apply(change)
    }

    fn apply_all(&self, changes: &[Change]) -> (usize, Result<()>) {
        self.tables().apply_all(changes)
    }

    fn read(&self) -> Result<Tables> {
        self.tables().read()
    }
}

impl DataPlane {
    /// Loads the programs onto the pinned maps (made if missing) and swaps them into the pinned links. What maps of an
    /// earlier layout hold is carried over. If the kernel refuses anything, what ran before runs on.
    ///
    /// # Errors
    /// When the build has no object, there is no cgroup v2, or the kernel refuses.
    pub fn load(options: LoadOptions) -> Result<Self> {
        let LoadOptions { pin_dir, cgroup, map_sizes, map_memory, object, pods_only, free_node_ports, xdp } =
            options;
        let pins = Pins { root: pin_dir };
        let cgroup = pins::cgroup(cgroup.as_deref())?;
        pins.prepare()?;
        let mut before = Before::look(&pins)?;
        let sizes = before.sizes(sizes::start(links::has_tcx(), &map_sizes))?;
        let loaded = Programs::load(object.as_deref(), before.maps(), &sizes, &BTreeSet::new());
        let mut programs = loaded.inspect_err(|_| before.abandon(&pins))?;
        let carried = before.carry_over(&pins)?;
        let maps = pins.maps();
        let services = KernelServiceMaps::open(&maps)?;
        let plane_node = KernelMap::open(&maps, "node")?;
        if plane_node.get(&0)?.is_none_or(|config: NodeConfig| config.port_max == 0) {
            plane_node.put(&0, &fresh_node())?;
        }
        if !pods_only {
            links::attach_sockets(&programs, &pins, &cgroup, socket_programs(free_node_ports))?;
            if free_node_ports {
                links::detach_sockets(&pins, BIND_PROGRAMS)?;
            }
        }
        let policy = KernelPolicyMaps::open(&maps)?;
        links::refresh_interfaces(&mut programs, &pins, &Self::policed_interfaces(&policy.policed)?)?;
        before.end(&pins, carried)?;
        Ok(Self {
            endpoints: KernelMap::open(&maps, "endpoints")?,
            keep_source: KernelMap::open(&maps, "keep_source")?,
            policy,
            node: plane_node,
            node_update: Mutex::new(()),
            programs: Mutex::new(programs),
            pins,
            cgroup,
            services: RwLock::new(Arc::new(services)),
            sockets: AtomicBool::new(!pods_only),
            cap: map_memory.unwrap_or_else(sizes::usual_cap),
            cookies: Mutex::default(),
            free_node_ports,
            xdp,
            xdp_states: Mutex::default(),
            object,
        })
    }

    /// Removes every pin, link and filter under `pin_dir`, and the mount if it is ours. Nothing there is success.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn purge(pin_dir: &Path) -> Result<()> {
        Pins::new(pin_dir).remove_all()?;
        if links::has_tcx() { Ok(()) } else { links::detach_all_clsact() }
    }

    /// The tables of services.
    pub fn services(&self) -> &dyn ServiceMaps {
        self
    }

    /// The tables of services, as they are now.
    fn tables(&self) -> Arc<KernelServiceMaps> {
        // Replacing the handle leaves no half state behind that a panic could expose.
        Arc::clone(&self.services.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Attaches the programs of sockets, or swaps them into their links.
    fn attach_sockets(&self, programs: &Programs) -> Result<()> {
        links::attach_sockets(programs, &self.pins, &self.cgroup, socket_programs(self.free_node_ports))
    }

    fn serves_sockets(&self) -> bool {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Runs the pod program on what comes from a pod. Again is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_pod(&self, host_ifindex: u32) -> Result<()> {
        let policed = Self::policed_interfaces(&self.policy.policed)?;
        let mut programs = self.programs();
        links::pod_hooks(policed.contains(&host_ifindex))
            .into_iter()
            .try_for_each(|hook| links::attach_interface(&mut programs, &self.pins, host_ifindex, hook))
    }

    /// Undoes [`attach_pod`](Self::attach_pod); not attached is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_pod(&self, host_ifindex: u32) -> Result<()> {
        POD_HOOKS.into_iter().try_for_each(|hook| links::detach_interface(&self.pins, host_ifindex, hook))
    }

    /// Runs the uplink programs on an interface to the world. Again is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_uplink(&self, ifindex: u32) -> Result<()> {
        let mut programs = self.programs();
        UPLINK_HOOKS
            .into_iter()
            .try_for_each(|hook| links::attach_interface(&mut programs, &self.pins, ifindex, hook))?;
        drop(programs);
        self.follow_xdp(ifindex)
    }

    /// Undoes [`attach_uplink`](Self::attach_uplink); not attached is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_uplink(&self, ifindex: u32) -> Result<()> {
        self.forget_xdp(ifindex)?;
        UPLINK_HOOKS.into_iter().try_for_each(|hook| links::detach_interface(&self.pins, ifindex, hook))
    }

    /// Tells the programs where a pod's address lives.
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    pub fn set_endpoint(&self, pod_ip: IpAddr, place: &Endpoint) -> Result<()> {
        let value = node::Endpoint {
            ifindex: place.ifindex,
            flags: self.endpoint_flags(&pod_ip.into(), place.ifindex)?,
            pod_mac: place.pod_mac,
            host_mac: place.host_mac,
        };
        self.endpoints.put(&pod_ip.into(), &value)
    }

    /// Forgets a pod's address; absent is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_endpoint(&self, pod_ip: IpAddr) -> Result<()> {
        self.endpoints.remove(&pod_ip.into())
    }

    /// Tells the programs the node's own addresses. The first of each family that is not loopback becomes the source
    /// of translated packets.
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    pub fn set_node_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let wanted: BTreeSet<Addr> = addresses.iter().map(|&address| address.into()).collect();
        for addr in &wanted {
            self.endpoints.put(addr, &node::Endpoint { flags: endpoint::HOST, ..Default::default() })?;
        }
        for (addr, value) in self.endpoints.entries()? {
            if value.flags & endpoint::HOST != 0 && !wanted.contains(&addr) {
                self.endpoints.remove(&addr)?;
            }
        }
        let first = |v4: bool| {
            let mut usable =
                addresses.iter().filter(|address| address.is_ipv4() == v4 && !address.is_loopback());
            usable.next().map_or(Addr::UNSPECIFIED, |&address| address.into())
        };
        self.update_node(|config| {
            config.source_v4 = first(true);
            config.source_v6 = first(false);
        })
    }

    /// Gives pods' packets the node's address when they leave for anything outside `networks` (the ranges of pods,
    /// and others that know the pods' addresses).
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    pub fn set_masquerade(&self, networks: &[(IpAddr, u8)]) -> Result<()> {
        self.keep(keep::NETWORKS, networks)?;
        self.update_node(|config| config.flags |= flags::MASQUERADE)
    }

    /// Leaves services to the packet filter: no new translation, no masquerading, no way around the host's stack;
    /// the socket programs are detached and the tables of services emptied. Translated connections go on.
    ///
    /// # Errors
    /// When the kernel refuses; what is done stays done.
    pub fn leave_services(&self) -> Result<()> {
        self.update_node(|config| config.flags = (config.flags | flags::STACK) & !flags::MASQUERADE)?;
        let tables = self.tables().read()?;
        let frontends = tables.frontends.keys().map(|key| Change::RemoveFrontend(*key));
        let sets = tables.sets.keys().map(|id| Change::RemoveSet(*id));
        let slots = tables.slots.keys().map(|key| Change::RemoveSlot(*key));
        let affinity = tables.affinity.iter().map(|key| Change::RemoveAffinity(*key));
        let ranges = tables.ranges.iter().map(|key| Change::RemoveRange(*key));
        let hashed = tables.hashed.keys().map(|set| Change::RemoveTable(*set));
        let backends = tables.backends.keys().map(|id| Change::RemoveBackend(*id));
        let members = slots.chain(affinity).chain(ranges).chain(hashed);
        let all = frontends.chain(sets).chain(members).chain(backends);
        self.tables().apply_all(&all.collect::<Vec<Change>>()).1?;
        self.sockets.store(false, Ordering::Relaxed);
        self.detach_every_xdp()?;
        links::detach_sockets(&self.pins, SOCKET_PROGRAMS)
    }

    /// Takes services back from the packet filter, once the tables are full.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_services(&self) -> Result<()> {
        if self.node.get(&0)?.is_some_and(|config| config.flags & flags::STACK == 0) {
            return Ok(());
        }
        self.update_node(|config| config.flags &= !flags::STACK)
    }

    /// Sets how long flows live without a packet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_timeouts(&self, timeouts: Timeouts) -> Result<()> {
        self.update_node(|config| config.timeouts = timeouts)
    }

    /// Removes flows that are over; says how full the maps were that programs fill, by name, where the kernel can
    /// count (Linux 5.13).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn collect_flows(&self) -> Result<Vec<(&'static str, u32)>> {
        let programs = self.programs();
        if !programs.has_collect() {
            let node = self.node.get(&0)?.unwrap_or_else(fresh_node);
            return collect::collect(&self.pins.maps(), &node).map(|()| Vec::new());
        }
        let program = programs.fd(COLLECT)?;
        // The kernel wants at least an Ethernet header's worth of packet.
        let ran = sys::test_run(program, &[0; 64], 1).map_err(Error::on("collecting flows"))?;
        let counts = ran.packet.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes));
        Ok(["flows", "flow_index", "connected", "affinity", "reverse"].into_iter().zip(counts).collect())
    }

    /// Runs an attached-to-nothing copy of a tc program on a packet; for tests and measurements.
    ///
    /// # Errors
    /// When there is no such program or the kernel refuses.
    pub fn test_run(&self, program: &'static str, packet: &[u8], repeat: u32) -> Result<TestRun> {
        let programs = self.programs();
        let ran =
            sys::test_run(programs.fd(program)?, packet, repeat).map_err(Error::on("running a program"))?;
        Ok(TestRun { verdict: ran.verdict, packet: ran.packet, nanoseconds: ran.duration })
    }

    /// Runs the XDP program on a packet that comes in at an interface of this thread's network namespace, where it is
    /// attached natively; for tests and measurements.
    ///
    /// # Errors
    /// When the program is not loaded or the kernel refuses.
    pub fn test_run_xdp(&self, ifindex: u32, packet: &[u8], repeat: u32) -> Result<TestRun> {
        let programs = self.programs();
        let ran = sys::test_run_at(programs.fd(XDP)?, packet, repeat, ifindex)
            .map_err(Error::on("running a program"))?;
        Ok(TestRun { verdict: ran.verdict, packet: ran.packet, nanoseconds: ran.duration })
    }

    /// How many instructions the kernel's verifier looked at for each program; it gives up at a million. None where the
    /// kernel does not tell (before 5.16).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn verified(&self) -> Result<Vec<(String, Option<u32>)>> {
        self.programs().verified()
    }

    /// The cgroup the socket programs are attached at.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Where the pins are.
    pub fn pin_dir(&self) -> &Path {
        &self.pins.root
    }

    fn update_node(&self, change: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        let _guard = self.node_guard();
        let mut config = self.node.get(&0)?.unwrap_or_else(fresh_node);
        change(&mut config);
        self.node.put(&0, &config)
    }

    fn node_guard(&self) -> MutexGuard<'_, ()> {
        self.node_update.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        // Attaching leaves no half state behind that a panic could expose.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a test run of a program gave.
#[derive(Debug)]
pub struct TestRun {
    /// What the program returned.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The time of one run.
    pub nanoseconds: u32,
}

fn fresh_node() -> NodeConfig {
    NodeConfig {
        port_min: u32::from(DEFAULT_PORTS.0),
        port_max: u32::from(DEFAULT_PORTS.1),
        timeouts: Timeouts::default(),
        ..NodeConfig::default()
    }
}

/// Checks at compile time that the handle may be shared between tasks.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<DataPlane>();
};

impl DataPlane {
    /// The usage of the service maps: name, used, possible.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn usage(&self) -> Result<Vec<(&'static str, usize, u32)>> {
        self.tables().usage()
    }

    /// Whether the maps can still be read, the cheapest sign of life.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn check(&self) -> Result<()> {
        sys::map_info(self.node.fd().as_fd()).map(|_| ()).map_err(Error::on("describing a map"))
    }
}
