//! Reading pinned maps and links without loading anything: for `skep net …`, also while no agent runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Flow, FlowKey};
use skep_ebpf_abi::node::{Endpoint, NodeConfig};
use skep_ebpf_abi::service::{Affinity, AffinityKey};

use crate::data_plane::KernelPolicyMaps;
use crate::error::{Error, Result};
use crate::kernel_map::KernelMap;
use crate::pins::Pins;
use crate::policy::{DeniedFlows, PolicyTables};
use crate::service_maps::KernelServiceMaps;
use crate::sys;
use crate::tables::{ServiceMaps, Tables};

/// A data plane seen from outside.
#[derive(Debug)]
pub struct Inspector {
    pins: Pins,
}

/// A pinned link.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LinkState {
    /// The pin's name.
    pub name: String,
    /// The id of the program in it.
    pub program: u32,
}

/// How full a map is.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MapState {
    /// The map's name.
    pub name: String,
    /// Elements in use, where they are counted.
    pub used: Option<usize>,
    /// Elements possible.
    pub limit: u32,
    /// The kernel's memory for it.
    pub bytes: u64,
}

impl Inspector {
    /// Looks at the pins in `pin_dir`.
    pub fn new(pin_dir: &Path) -> Self {
        Self { pins: Pins::new(pin_dir) }
    }

    /// The tables of services.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn tables(&self) -> Result<Tables> {
        KernelServiceMaps::open(&self.pins.maps())?.read()
    }

    /// The flows.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>> {
        KernelMap::open(&self.pins.maps(), "flows")?.entries()
    }

    /// Who sticks to what.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn affinity(&self) -> Result<Vec<(AffinityKey, Affinity)>> {
        KernelServiceMaps::open(&self.pins.maps())?.affinity.entries()
    }

    /// The addresses of this node and its pods.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn endpoints(&self) -> Result<Vec<(Addr, Endpoint)>> {
        KernelMap::open(&self.pins.maps(), "endpoints")?.entries()
    }

    /// The tables of policies.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn policy(&self) -> Result<PolicyTables> {
        KernelPolicyMaps::open(&self.pins.maps())?.read()
    }

    /// What policies did not let through.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn denied(&self) -> Result<DeniedFlows> {
        KernelPolicyMaps::open(&self.pins.maps())?.denied()
    }

    /// The node's entry.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn node(&self) -> Result<Option<NodeConfig>> {
        KernelMap::<u32, NodeConfig>::open(&self.pins.maps(), "node")?.get(&0)
    }

    /// The links and what is in them.
    ///
    /// # Errors
    /// When a pin cannot be opened.
    pub fn links(&self) -> Result<Vec<LinkState>> {
        let mut links = Vec::new();
        for name in self.pins.link_names()? {
            let path = self.pins.links().join(&name);
            let action = || format!("opening pinned link {}", path.display());
            let fd = sys::open_pinned(&path).map_err(Error::on(action()))?;
            let info = sys::link_info(fd.as_fd()).map_err(Error::on(action()))?;
            links.push(LinkState { name, program: info.program });
        }
        links.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(links)
    }

    /// Every map: how full it is and what it costs.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn usage(&self) -> Result<Vec<MapState>> {
        let maps = self.pins.maps();
        let flows: KernelMap<FlowKey, Flow> = KernelMap::open(&maps, "flows")?;
        let mut used: BTreeMap<&str, usize> = KernelServiceMaps::open(&maps)?
            .usage()?
            .into_iter()
            .map(|(name, used, _)| (name, used))
            .collect();
        used.insert("flows", flows.count()?);
        let action = || format!("listing {}", maps.display());
        let mut states = Vec::new();
        for entry in fs::read_dir(&maps).map_err(Error::on(action()))? {
            let path = entry.map_err(Error::on(action()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let action = || format!("describing map {name}");
            let fd = sys::open_pinned(&path).map_err(Error::on(action()))?;
            let limit = sys::map_info(fd.as_fd()).map_err(Error::on(action()))?.max_entries;
            let bytes = memory(fd.as_fd()).map_err(Error::on(action()))?;
            states.push(MapState { used: used.get(name.as_str()).copied(), limit, bytes, name });
        }
        states.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(states)
    }

    /// The counters, summed over all processors.
    ///
    /// # Errors
    /// When nothing is pinned there or the kernel refuses.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>> {
        let path = self.pins.maps().join("counters");
        let map =
            sys::open_pinned(&path).map_err(Error::on(format!("opening pinned map {}", path.display())))?;
        let mut values = vec![0; possible_processors()?];
        let mut counters = Vec::new();
        for (counter, name) in Counter::ALL {
            match sys::map_get_per_cpu(map.as_fd(), counter as u32, &mut values) {
                Ok(()) => counters.push((name, values.iter().sum())),
                // A map that an older build has pinned counts less.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => counters.push((name, 0)),
                Err(error) => return Err(Error::kernel("reading counters", error)),
            }
        }
        Ok(counters)
    }
}

/// What a map costs, as the kernel tells it beside the descriptor.
fn memory(map: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    bytes.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The kernel copies one value for every processor there could ever be, so the buffer must be that large.
pub(crate) fn possible_processors() -> Result<usize> {
    let path = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(path).map_err(Error::on(format!("reading {path}")))?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1)
        .ok_or_else(|| Error::kernel(format!("reading {path}"), io::ErrorKind::InvalidData.into()))
}
