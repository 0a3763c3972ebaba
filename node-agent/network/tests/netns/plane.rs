//! The real data plane of a test's node; gone with its pins when dropped.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_tests::cgroup::CgroupTree;

use super::TestNode;

/// The loaded programs, with the cgroup they are attached at.
pub(crate) struct Plane {
    pub(crate) data_plane: Arc<DataPlane>,
    pub(crate) pin_dir: PathBuf,
    netns: PathBuf,
    _cgroup: CgroupTree,
}

impl Plane {
    /// Loads it in the node's namespace and tells the node of it. `None`, loudly, where the kernel cannot and tests
    /// may skip.
    pub(crate) fn load(node: &mut TestNode) -> Result<Option<Self>> {
        let cgroup = CgroupTree::create(node.netbox.name())?;
        let pin_dir = Path::new("/sys/fs/bpf").join(node.netbox.name());
        let options = LoadOptions {
            pin_dir: pin_dir.clone(),
            cgroup: cgroup.unified().map(Path::to_owned),
            ..LoadOptions::default()
        };
        let loaded = node.netbox.run(|| {
            let plane = DataPlane::load(options)?;
            plane.set_node_addresses(&node.config.node_ips)?;
            let networks = node.config.cluster_cidrs.iter().map(|net| (net.network(), net.prefix_len()));
            plane.set_masquerade(&networks.collect::<Vec<_>>())?;
            Ok(plane)
        })?;
        let data_plane = match loaded {
            Ok(loaded) => Arc::new(loaded),
            Err(error @ skep_ebpf_loader::Error::NoObject) if skep_tests::may_skip() => {
                eprintln!("SKIPPED: no data plane: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        node.config.data_plane = Some(Arc::clone(&data_plane) as _);
        Ok(Some(Self { data_plane, pin_dir, netns: node.netbox.netns_path(), _cgroup: cgroup }))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let purged = skep_tests::netbox::run_in(&self.netns, || DataPlane::purge(&self.pin_dir));
        match purged {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("pins are left in {}: {error}", self.pin_dir.display()),
            Err(error) => eprintln!("pins are left in {}: {error:#}", self.pin_dir.display()),
        }
    }
}
