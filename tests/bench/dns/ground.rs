//! Where it is measured: a box that asks and a box with the servers, between them a pair of devices as between a pod
//! and its node.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use skep_tests::{NetBox, dns};

use crate::answerer;

/// The one who asks.
const CLIENT: &str = "10.1.0.1/24";

/// A server; it is killed with its value.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("{} does not end: {error}", self.name);
        }
    }
}

/// Everything that must live while measuring. Servers are dropped first, then boxes.
pub(crate) struct Ground {
    servers: Vec<Server>,
    client: NetBox,
    node: NetBox,
}

impl Ground {
    pub(crate) fn prepare(services: usize) -> Result<Self> {
        let (client, node) = (NetBox::new("dns-pod")?, NetBox::new("dns-node")?);
        client.ip(&format!("link add eth0 type veth peer name eth0 netns {}", node.name()))?;
        client.ip(&format!("address add {CLIENT} dev eth0"))?;
        client.ip("link set eth0 up")?;
        node.ip("link set eth0 up")?;
        let mut ground = Self { servers: Vec::new(), client, node };
        ground.add("Skep", 2, |ground, address| {
            let mut command = ground.on_the_node(&std::env::current_exe()?);
            command.args(["answerer", "--listen", &address.to_string(), "--services", &services.to_string()]);
            Ok(command)
        })?;
        ground.add("dnsmasq", 3, |ground, address| {
            let hosts = ground.hosts(services)?;
            let mut command = ground.on_the_node("dnsmasq".as_ref());
            command.args(["--keep-in-foreground", "--conf-file=", "--pid-file=", "--user=root"]);
            command.args(["--no-resolv", "--no-hosts", "--local=/cluster.local/", "--local-ttl=30"]);
            command.args([format!("--addn-hosts={hosts}"), format!("--listen-address={}", address.ip())]);
            command.arg("--bind-interfaces");
            Ok(command)
        })?;
        ground.add("a socket that echoes", 4, |ground, address| {
            let mut command = ground.on_the_node(env!("CARGO_BIN_EXE_dnsload").as_ref());
            command.args(["echo", &address.to_string()]);
            Ok(command)
        })?;
        Ok(ground)
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The load tool in the client's place.
    pub(crate) fn client(&self) -> Command {
        self.client.command(env!("CARGO_BIN_EXE_dnsload"))
    }

    /// A server's program: on the second processor, where there is one.
    fn on_the_node(&self, program: &std::path::Path) -> Command {
        if std::thread::available_parallelism().is_ok_and(|count| count.get() > 1) {
            let mut command = self.node.command("taskset");
            command.args(["-c", "1"]).arg(program);
            return command;
        }
        self.node.command(program)
    }

    /// What dnsmasq knows.
    fn hosts(&self, services: usize) -> Result<String> {
        let mut text = String::new();
        for number in 0..services {
            writeln!(text, "{} {}", answerer::address(number), answerer::name(&number.to_string()))?;
        }
        let path = self.node.dir()?.join("hosts");
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// Starts a server on an address of its own, and waits until it answers.
    fn add(
        &mut self,
        name: &'static str,
        host: u8,
        command: impl FnOnce(&Self, SocketAddr) -> Result<Command>,
    ) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::new(10, 1, 0, host), 53));
        self.node.ip(&format!("address add {}/24 dev eth0", address.ip()))?;
        let mut command = command(self, address)?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = child.spawn().with_context(|| format!("start {name}"))?;
        // Read on, so that no one who writes there is held up.
        let lines = BufReader::new(child.stdout.take().context("the server's output")?).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.servers.push(Server { name, address, child });
        self.client.run(|| answers(address))?.with_context(|| name)
    }
}

/// Waits until the first name is answered.
fn answers(address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    let question = dns::question(1, &answerer::name("0"));
    let mut buffer = [0; 512];
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(address)?;
        let received = socket.send(&question).and_then(|_| socket.recv(&mut buffer));
        if received.is_ok_and(|length| dns::is_answer(&buffer[..length])) {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("no answer from {address}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
