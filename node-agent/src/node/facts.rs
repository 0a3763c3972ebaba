//! What the machine is: read once from the kernel's files.

use std::{fs, path::Path};

use skep_agent_core::fields::NodeFacts;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Number of CPUs.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system of the state folder.
    pub storage: i64,
    /// Kernel release.
    pub kernel: String,
    /// The distribution's pretty name.
    pub os_image: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// DMI's system UUID.
    pub system_uuid: String,
    /// Changes at each boot.
    pub boot_id: String,
    /// Architecture in Go's spelling.
    pub architecture: String,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn probe(state_dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let memory = field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) * 1024;
        let os_image = read("/etc/os-release")
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .unwrap_or("Linux")
            .trim_matches('"')
            .to_owned();
        let storage = nix::sys::statvfs::statvfs(state_dir)
            .map_or(0, |s| i64::try_from(s.blocks() * s.fragment_size()).unwrap_or(i64::MAX));
        let system_uuid = read("/sys/class/dmi/id/product_uuid");
        let machine_id = read("/etc/machine-id");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            memory,
            storage,
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image,
            system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            architecture: skep_runtime::image::manifest::architecture().to_owned(),
        }
    }

    /// Allocatable memory: what the system keeps for itself is taken off.
    #[must_use]
    pub fn allocatable_memory(&self) -> i64 {
        (self.memory - (100 << 20)).max(0)
    }

    /// What containers without limits may use.
    #[must_use]
    pub fn node_facts(&self) -> NodeFacts {
        NodeFacts {
            milli_cpu: self.cpus * 1000,
            memory: self.allocatable_memory(),
            ephemeral_storage: self.storage / 10 * 9,
        }
    }
}

/// Memory that is free for use, in bytes.
pub(super) fn available_memory() -> Option<i64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib * 1024)
}

fn field(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
