//! From the embedded object to loaded programs on pinned maps.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::programs::{Program, ProgramError};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use crate::error::{Error, Result};
use crate::pins::NEXT;

/// The built-in object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/skep.o"));

/// The maps that outlive the process. The scratch maps hold nothing between packets.
pub(crate) const PINNED_MAPS: [&str; 27] = [
    "frontends",
    "sets",
    "slots",
    "maglev",
    "backends",
    "affinity",
    "affinity_match",
    "connected",
    "reverse",
    "skip_socket",
    "flows",
    "flow_index",
    "endpoints",
    "source_ranges",
    "keep_source",
    "tunnels",
    "tunnel",
    "policed",
    "identities",
    "policy_rules",
    "policy_blocks",
    "verdicts",
    "policy_pairs",
    "denied",
    "node",
    "hold",
    "counters",
];

/// The cgroup programs: their names and the kernel's numbers of their hooks. The last two keep node ports for services.
pub(crate) const SOCKET_PROGRAMS: &[(&str, u32)] = &[
    ("skep_connect4", 10),
    ("skep_connect6", 11),
    ("skep_sendmsg4", 14),
    ("skep_sendmsg6", 15),
    ("skep_recvmsg4", 19),
    ("skep_recvmsg6", 20),
    ("skep_getpeername4", 29),
    ("skep_getpeername6", 30),
    ("skep_release", 34),
    ("skep_bind4", 8),
    ("skep_bind6", 9),
];

/// Those that keep node ports for services.
pub(crate) const BIND_PROGRAMS: &[(&str, u32)] = SOCKET_PROGRAMS.split_at(9).1;

/// Those to attach.
pub(crate) fn socket_programs(free_node_ports: bool) -> &'static [(&'static str, u32)] {
    if free_node_ports { SOCKET_PROGRAMS.split_at(9).0 } else { SOCKET_PROGRAMS }
}

/// What comes in over an uplink.
pub(crate) const UPLINK_IN: &str = "skep_uplink_in";
/// What the node's own sockets send, over an uplink or to a pod.
pub(crate) const HOST_OUT: &str = "skep_host_out";
/// What comes from a pod.
pub(crate) const POD_IN: &str = "skep_pod_in";
/// The same of pods that network policies select.
pub(crate) const POD_IN_POLICED: &str = "skep_pod_in_policed";
/// What the stack sends to such pods.
pub(crate) const POD_OUT_POLICED: &str = "skep_pod_out_policed";
/// What comes from other nodes through the tunnel.
pub(crate) const TUNNEL_IN: &str = "skep_tunnel_in";
/// What goes to other nodes through the tunnel.
pub(crate) const TUNNEL_OUT: &str = "skep_tunnel_out";
/// What comes in over an uplink, before anything else.
pub(crate) const XDP: &str = "skep_xdp";
/// The collector of ended flows.
pub(crate) const COLLECT: &str = "skep_collect";
/// The collector of what was decided about flows that are over.
pub(crate) const COLLECT_VERDICTS: &str = "skep_collect_verdicts";

/// Programs in the kernel, attached to nothing yet.
pub(crate) struct Programs {
    object: Ebpf,
    has_collect: bool,
    without_xdp: Option<String>,
}

impl Programs {
    /// Loads all programs onto the maps pinned in `maps`, making those that are missing. Those in `next` are others,
    /// that are about to take their place.
    pub(crate) fn load(
        object: Option<&[u8]>,
        maps: &Path,
        sizes: &BTreeMap<String, u32>,
        next: &BTreeSet<&str>,
    ) -> Result<Self> {
        let bytes = object.unwrap_or(OBJECT);
        if bytes.is_empty() {
            return Err(Error::NoObject);
        }
        let kernel = KernelVersion::current().map_err(|error| {
            Error::kernel("asking for the kernel's version", std::io::Error::other(error))
        })?;
        let has_set_retval = u32::from(kernel >= KernelVersion::new(5, 18, 0));
        let has_collect = kernel >= KernelVersion::new(5, 13, 0);
        let mut loader = EbpfLoader::new();
        loader.override_global("HAS_SET_RETVAL", &has_set_retval, true);
        // Older kernels do not tell; the programs then take the machine's first namespace for the node's.
        let namespace = crate::sys::netns_cookie().unwrap_or(0);
        loader.override_global("NODE_NETNS", &namespace, true);
        for name in PINNED_MAPS {
            let suffix = if next.contains(name) { NEXT } else { "" };
            loader.map_pin_path(name, maps.join(format!("{name}{suffix}")));
        }
        for (name, size) in sizes {
            loader.map_max_entries(name, *size);
        }
        let mut object = loader.load(bytes).map_err(|error| Error::Object(Box::new(error)))?;
        for (name, _) in SOCKET_PROGRAMS {
            load_one(&mut object, name)?;
        }
        for name in [UPLINK_IN, HOST_OUT, POD_IN, POD_IN_POLICED, POD_OUT_POLICED, TUNNEL_IN, TUNNEL_OUT] {
            load_one(&mut object, name)?;
        }
        if has_collect {
            load_one(&mut object, COLLECT)?;
            load_one(&mut object, COLLECT_VERDICTS)?;
        }
        // Nobody needs it: what it would do is done without it.
        let without_xdp = if kernel < KernelVersion::new(5, 18, 0) {
            Some("the XDP program needs Linux 5.18".to_owned())
        } else if let Err(error) = load_one(&mut object, XDP) {
            tracing::warn!(error = &error as &dyn std::error::Error, "nothing is forwarded by XDP");
            Some(error.to_string())
        } else {
            None
        };
        Ok(Self { object, has_collect, without_xdp })
    }

    /// Whether flows can be collected in the kernel.
    pub(crate) fn has_collect(&self) -> bool {
        self.has_collect
    }

    /// Why the XDP program is not loaded, if it is not.
    pub(crate) fn without_xdp(&self) -> Option<&str> {
        self.without_xdp.as_deref()
    }

    /// A loaded program's descriptor.
    pub(crate) fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>> {
        let program = self.object.program(name).ok_or(Error::MissingProgram(name))?;
        Ok(program.fd().map_err(|error| refused(name, error))?.as_fd())
    }

    /// How many instructions the verifier looked at, program by program; none before 5.16.
    pub(crate) fn verified(&self) -> Result<Vec<(String, Option<u32>)>> {
        let mut verified = Vec::new();
        for (name, program) in self.object.programs() {
            let info = match program {
                Program::CgroupSockAddr(program) => program.info(),
                Program::CgroupSock(program) => program.info(),
                Program::SchedClassifier(program) => program.info(),
                Program::Xdp(program) => program.info(),
                _ => continue,
            };
            match info {
                Ok(info) => verified.push((name.to_owned(), info.verified_instruction_count())),
                // Not for this kernel.
                Err(ProgramError::NotLoaded) => {}
                Err(error) => return Err(Error::Object(Box::new(error.into()))),
            }
        }
        verified.sort();
        Ok(verified)
    }

    /// The object, for the fallback that attaches through it.
    pub(crate) fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }
}

fn load_one(object: &mut Ebpf, name: &'static str) -> Result<()> {
    match object.program_mut(name) {
        Some(Program::CgroupSockAddr(program)) => program.load(),
        Some(Program::CgroupSock(program)) => program.load(),
        Some(Program::SchedClassifier(program)) => program.load(),
        Some(Program::Xdp(program)) => program.load(),
        _ => return Err(Error::MissingProgram(name)),
    }
    .map_err(|error| refused(name, error))
}

fn refused(name: &'static str, error: ProgramError) -> Error {
    Error::Program { name, source: Box::new(error) }
}
