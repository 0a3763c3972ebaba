//! What can go wrong between the kernel and us.

use std::io;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program was built without the eBPF object.
    #[error("this build holds no eBPF object: run `cargo xtask ebpf`, then build again")]
    NoObject,
    /// A bpf(2) or netlink call failed.
    #[error("{action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The object could not be read or its maps not be made.
    #[error("loading the eBPF object")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program was refused.
    #[error("the kernel refuses program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The kernel's reasons.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a program.
    #[error("the eBPF object has no program {0}: it and this build do not fit together")]
    MissingProgram(&'static str),
    /// A pinned map has another shape than this build expects.
    #[error("pinned map {} has keys of {key} and values of {value} bytes, expected {wanted_key} and {wanted_value}", path.display())]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Its key size.
        key: u32,
        /// Its value size.
        value: u32,
        /// The expected key size.
        wanted_key: u32,
        /// The expected value size.
        wanted_value: u32,
    },
    /// A node was left with a layout of maps that this build cannot carry over.
    #[error("maps of layout {from} cannot be carried over to {to}: this build is too new for them")]
    NoStep {
        /// The layout that is there.
        from: u32,
        /// The next one.
        to: u32,
    },
    /// Maps may not grow any more.
    #[error("no room for larger maps: {wanted} bytes are asked for, {cap} are allowed")]
    NoMemory {
        /// What all maps would take when they are full.
        wanted: u64,
        /// What they may take.
        cap: u64,
    },
    /// Programs cannot be exchanged while they work.
    #[error("maps cannot grow while they are used: this kernel has no TCX (Linux 6.6)")]
    CannotExchange,
    /// A map has no room.
    #[error("map {name} is full ({limit} entries)")]
    Full {
        /// The map's name.
        name: String,
        /// Its size.
        limit: u32,
    },
    /// There is no cgroup v2 hierarchy.
    #[error("no cgroup v2 hierarchy is mounted: socket load balancing needs one")]
    NoCgroup,
    /// A path is not in the cgroup v2 hierarchy.
    #[error("{} is not in a cgroup v2 hierarchy", .0.display())]
    NotCgroup(PathBuf),
}

impl Error {
    /// Names what was tried.
    pub(crate) fn kernel(action: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel { action: action.into(), source }
    }

    /// For `map_err`.
    pub(crate) fn on(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source }
    }
}
