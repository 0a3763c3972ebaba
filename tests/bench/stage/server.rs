//! The load tool serving.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result};
use skep_tests::{cgroup::CgroupTree, netbox::command_in};

/// The ports of the server, each an endpoint of the service.
pub(crate) const PORTS: [u16; 3] = [5001, 5002, 5003];
/// The endpoints of the service that is dialled on the wire. Not the same: the kernel chooses TCP timestamps by
/// the address that is dialled, so connections that ended on one way would hold up those on another.
pub(crate) const WIRE_PORTS: [u16; 3] = [5011, 5012, 5013];

/// The load tool answering; it ends with this value.
pub(crate) struct ServerProcess(Child);

impl ServerProcess {
    pub(crate) fn start(netns: &Path, cgroup: Option<&CgroupTree>, ip: IpAddr) -> Result<Self> {
        let mut command = command_in(netns, cgroup, env!("CARGO_BIN_EXE_netload"));
        command.args(["server", "--cpu", "1"]);
        for port in PORTS.into_iter().chain(WIRE_PORTS) {
            command.args(["--listen", &SocketAddr::new(ip, port).to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("the server's output")?).lines();
        let made = Self(child);
        for port in PORTS.into_iter().chain(WIRE_PORTS) {
            lines.next().with_context(|| format!("the server does not answer on {port}"))??;
        }
        Ok(made)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Its input closes, so it ends by itself.
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("a server does not end: {error}");
        }
    }
}
