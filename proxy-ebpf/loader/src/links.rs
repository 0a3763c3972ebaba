//! Attaching programs so that they outlive the process, and swapping them in place.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::programs::tc::{NlOptions, TcAttachOptions, TcError, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{Program, ProgramError, TcAttachType};
use aya::util::KernelVersion;

use crate::error::{Error, Result};
use crate::pins::Pins;
use crate::programs::{
    HOST_OUT, POD_IN, POD_IN_POLICED, POD_OUT_POLICED, Programs, TUNNEL_IN, TUNNEL_OUT, UPLINK_IN, XDP,
};
use crate::sys;

/// Which way packets pass a tc program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    In,
    Out,
}

impl Side {
    /// The kernel's number of the TCX hook.
    fn tcx(self) -> u32 {
        match self {
            Self::In => 46,
            Self::Out => 47,
        }
    }

    fn clsact(self) -> TcAttachType {
        match self {
            Self::In => TcAttachType::Ingress,
            Self::Out => TcAttachType::Egress,
        }
    }
}

/// One attachment of a tc program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub(crate) pin: &'static str,
    pub(crate) program: &'static str,
    pub(crate) side: Side,
}

/// What a pod's interface gets.
pub(crate) const POD_HOOKS: [Hook; 2] = [
    Hook { pin: "pod", program: POD_IN, side: Side::In },
    Hook { pin: "pod-out", program: HOST_OUT, side: Side::Out },
];
/// What the interface of a pod gets that network policies select: other programs in the same places.
const POLICED_POD_HOOKS: [Hook; 2] =
    [Hook { program: POD_IN_POLICED, ..POD_HOOKS[0] }, Hook { program: POD_OUT_POLICED, ..POD_HOOKS[1] }];

/// What a pod's interface gets.
pub(crate) fn pod_hooks(policed: bool) -> [Hook; 2] {
    if policed { POLICED_POD_HOOKS } else { POD_HOOKS }
}

/// What an uplink gets.
pub(crate) const UPLINK_HOOKS: [Hook; 2] = [
    Hook { pin: "uplink-in", program: UPLINK_IN, side: Side::In },
    Hook { pin: "uplink-out", program: HOST_OUT, side: Side::Out },
];

/// What the tunnel's device gets.
pub(crate) const TUNNEL_HOOKS: [Hook; 2] = [
    Hook { pin: "tunnel-in", program: TUNNEL_IN, side: Side::In },
    Hook { pin: "tunnel-out", program: TUNNEL_OUT, side: Side::Out },
];

/// Every attachment to an interface.
fn all_hooks() -> impl Iterator<Item = Hook> {
    POD_HOOKS.into_iter().chain(UPLINK_HOOKS).chain(TUNNEL_HOOKS)
}

/// Whether tc programs can be attached by links.
pub(crate) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Attaches programs of sockets at `cgroup`, or swaps them into the links that are there.
pub(crate) fn attach_sockets(
    programs: &Programs,
    pins: &Pins,
    cgroup: &Path,
    which: &[(&'static str, u32)],
) -> Result<()> {
    let folder = fs::File::open(cgroup).map_err(Error::on(format!("opening cgroup {}", cgroup.display())))?;
    // The kernel's id of a cgroup is the inode number of its folder.
    let id = folder.metadata().map_err(Error::on(format!("describing cgroup {}", cgroup.display())))?.ino();
    for &(name, attach_type) in which {
        let pin = pins.links().join(name.trim_start_matches("skep_"));
        let program = programs.fd(name)?;
        adopt_or_create(
            &pin,
            program,
            |info| info.cgroup() == id,
            folder.as_raw_fd().cast_unsigned(),
            (attach_type, 0),
        )
        .map_err(Error::on(format!("attaching {name} at {}", cgroup.display())))?;
    }
    Ok(())
}

/// Detaches programs of sockets; not attached is success.
pub(crate) fn detach_sockets(pins: &Pins, which: &[(&'static str, u32)]) -> Result<()> {
    for (name, _) in which {
        let pin = pins.links().join(name.trim_start_matches("skep_"));
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::kernel(format!("detaching {name}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Attaches one tc program to an interface, or swaps it in.
pub(crate) fn attach_interface(programs: &mut Programs, pins: &Pins, ifindex: u32, hook: Hook) -> Result<()> {
    let action = || format!("attaching {} to interface {ifindex}", hook.program);
    if has_tcx() {
        let pin = pins.links().join(format!("{}-{ifindex}", hook.pin));
        let program = programs.fd(hook.program)?;
        return adopt_or_create(
            &pin,
            program,
            |info| info.ifindex() == ifindex,
            ifindex,
            (hook.side.tcx(), 0),
        )
        .map_err(Error::on(action()));
    }
    let interface = interface_name(ifindex).map_err(Error::on(action()))?;
    attach_clsact(programs, &interface, hook).map_err(|error| Error::kernel(action(), error))
}

pub(crate) fn adopt_or_create(
    pin: &Path,
    program: std::os::fd::BorrowedFd<'_>,
    is_target: impl Fn(&sys::LinkInfo) -> bool,
    target: u32,
    (attach_type, flags): (u32, u32),
) -> io::Result<()> {
    match sys::open_pinned(pin) {
        Ok(link) => {
            // A link whose interface or cgroup went and came back points to nothing, or to a namesake.
            if sys::link_info(link.as_fd()).is_ok_and(|info| is_target(&info))
                && sys::link_update(link.as_fd(), program).is_ok()
            {
                return Ok(());
            }
            drop(link);
            fs::remove_file(pin)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let link = sys::link_create(program, target, attach_type, flags)?;
    sys::pin(link.as_fd(), pin)
}

/// Detaches what [`attach_interface`] attached; nothing attached is success.
pub(crate) fn detach_interface(pins: &Pins, ifindex: u32, hook: Hook) -> Result<()> {
    let action = || format!("detaching {} from interface {ifindex}", hook.program);
    if has_tcx() {
        let pin = pins.links().join(format!("{}-{ifindex}", hook.pin));
        return match fs::remove_file(pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::kernel(action(), error)),
            _ => Ok(()),
        };
    }
    match interface_name(ifindex) {
        Ok(name) => detach_clsact(&name, hook).map_err(Error::on(action())),
        // The filters went with the interface.
        Err(_) => Ok(()),
    }
}

/// Swaps the loaded programs into every link that is already pinned to an interface; those of pods that are policed
/// get the programs for them.
pub(crate) fn refresh_interfaces(
    programs: &mut Programs,
    pins: &Pins,
    policed: &BTreeSet<u32>,
) -> Result<()> {
    for name in pins.link_names()? {
        if name.starts_with("xdp-") {
            refresh_xdp(programs, &pins.links().join(&name))?;
        }
        let Some((hook, ifindex)) = parse_name(&name) else { continue };
        let of_pod = pod_hooks(policed.contains(&ifindex)).into_iter().find(|other| other.pin == hook.pin);
        let hook = of_pod.unwrap_or(hook);
        if interface_name(ifindex).is_ok() {
            attach_interface(programs, pins, ifindex, hook)?;
        } else {
            detach_interface(pins, ifindex, hook)?;
        }
    }
    Ok(())
}

/// Swaps the XDP program into a link; one whose interface is gone goes, and so does one when there is no program.
fn refresh_xdp(programs: &Programs, pin: &Path) -> Result<()> {
    let link = sys::open_pinned(pin).map_err(Error::on(format!("opening pinned link {}", pin.display())))?;
    let is_there = sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex() != 0);
    let swapped = match programs.fd(XDP) {
        Ok(program) if is_there => sys::link_update(link.as_fd(), program).is_ok(),
        _ => false,
    };
    if swapped {
        return Ok(());
    }
    tracing::debug!(pin = %pin.display(), "an XDP program is detached");
    fs::remove_file(pin).map_err(Error::on(format!("detaching {}", pin.display())))
}

/// Whether a pod's interface has programs.
pub(crate) fn is_pod_attached(pins: &Pins, ifindex: u32) -> bool {
    if has_tcx() {
        return pins.links().join(format!("{}-{ifindex}", POD_HOOKS[0].pin)).exists();
    }
    // No pin tells: attaching what is attached already is a replacement.
    interface_name(ifindex).is_ok()
}

fn parse_name(name: &str) -> Option<(Hook, u32)> {
    let (kind, ifindex) = name.rsplit_once('-')?;
    let hook = all_hooks().find(|hook| hook.pin == kind)?;
    Some((hook, ifindex.parse().ok()?))
}

fn interface_name(ifindex: u32) -> io::Result<String> {
    let name = nix::net::if_::if_indextoname(ifindex).map_err(io::Error::from)?;
    name.into_string().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Below 6.6 there are no links for tc. A filter stays by itself; replacing one has a short gap, in which packets of
/// translated flows pass as they are and are sent again.
fn attach_clsact(programs: &mut Programs, interface: &str, hook: Hook) -> io::Result<()> {
    if let Err(error) = qdisc_add_clsact(interface) {
        // Usually it is there already; if it is not, attaching fails and says so.
        tracing::debug!(interface, %error, "clsact was not added");
    }
    detach_clsact(interface, hook)?;
    let Some(Program::SchedClassifier(program)) = programs.object().program_mut(hook.program) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let attached = program.attach_with_options(interface, hook.side.clsact(), options);
    let link = attached
        .and_then(|id| program.take_link(id))
        .map_err(|error: ProgramError| io::Error::other(error))?;
    // Dropping it would detach the filter, which must outlive us; it owns no descriptor.
    std::mem::forget(link);
    Ok(())
}

/// Takes away whichever program is in a hook's place.
fn detach_clsact(interface: &str, hook: Hook) -> io::Result<()> {
    for other in all_hooks().chain(POLICED_POD_HOOKS).filter(|other| other.pin == hook.pin) {
        match qdisc_detach_program(interface, other.side.clsact(), other.program) {
            Ok(()) => {}
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(())
}

/// Detaches clsact filters of ours from every interface, for kernels where no pin tells which have one.
pub(crate) fn detach_all_clsact() -> Result<()> {
    let interfaces =
        nix::net::if_::if_nameindex().map_err(|errno| Error::kernel("listing interfaces", errno.into()))?;
    for interface in &interfaces {
        let name = interface.name().to_string_lossy();
        for hook in all_hooks() {
            detach_clsact(&name, hook).map_err(Error::on(format!("detaching from {name}")))?;
        }
    }
    Ok(())
}
