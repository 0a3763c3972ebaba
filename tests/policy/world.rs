//! Two nodes with pods of two namespaces, and a client outside.
//!
//! ```text
//! client 192.0.2.9 --- segment --- n1 192.0.2.1: a1 (web), a2 (client), b1 (client)
//!                             \--- n2 192.0.2.2: a3 (web), b2 (other)
//! ```
//! The first letter of a pod is its namespace, the word its label `app`. Pods answer at 8080 and 8081, of which the
//! first is named `http`; nodes at 10053, as the cluster's DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use skep_ebpf_abi::node::endpoint;
use skep_ebpf_loader::{inspect::Inspector, policy::direction_name};
use skep_network::{NetworkConfig, Peer, PodRouting};
use skep_network_policy::{
    engine::{LocalPod, Names as PolicyNames},
    explain::{Cluster, explain},
    model::{Identity, NamedPort, ObjectName},
};
use skep_service_proxy::ProxyMode;
use skep_tests::{NetBox, Segment};

use crate::{
    api::Api,
    node::{Node, Plan},
    probe::{Manner, Running, Spot},
    script::{Check, Names, Object, Scenario, Step, namespace},
};

/// How long a change may take to have its effect.
const PATIENCE: Duration = Duration::from_secs(8);
pub(crate) const CLUSTER: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
pub(crate) const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
const CLIENT: &str = "192.0.2.9";
/// A node's name, its address, and its pods with their `app`.
type NodeOfPods = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const PODS: [NodeOfPods; 2] = [
    ("n1", "192.0.2.1", &[("a1", "web"), ("a2", "client"), ("b1", "client")]),
    ("n2", "192.0.2.2", &[("a3", "web"), ("b2", "other")]),
];
const PORTS: [u16; 2] = [8080, 8081];
const DNS: u16 = 10053;

pub(crate) fn nets(list: &[&str]) -> Result<Vec<IpNet>> {
    list.iter().map(|text| Ok(text.parse()?)).collect()
}

/// Everything that scenarios run in.
pub(crate) struct World {
    // In the order of dropping: what runs inside first.
    flows: BTreeMap<String, Running>,
    _servers: Vec<Running>,
    nodes: Vec<Node>,
    client: NetBox,
    _segment: Segment,
    api: Api,
}

fn pod_object(pod: &LocalPod, node: &str, ips: &[IpAddr]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": pod.name.namespace, "name": pod.name.name, "uid": pod.name.name,
            "labels": pod.identity.labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": ips}})
}

impl World {
    pub(crate) fn new(mode: ProxyMode, routing: PodRouting) -> Result<Self> {
        let (segment, client, api) = (Segment::new("wire")?, NetBox::new("client")?, Api::new());
        segment.plug(&client, &[format!("{CLIENT}/24").parse()?])?;
        let cidrs = |n: usize| nets(&[&format!("10.244.{n}.0/24"), &format!("fd00:10:244:{n}::/64")]);
        let ips = |n: usize| -> Result<Vec<IpAddr>> {
            Ok(vec![PODS[n].1.parse()?, format!("2001:db8::{}", n + 1).parse()?])
        };
        let mut nodes = Vec::new();
        for (n, (name, address, pods)) in PODS.iter().enumerate() {
            api.put(
                "nodes",
                name,
                json!({"metadata": {"name": name}, "spec": {"podCIDRs": cidrs(n + 1)?},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}}),
            );
            let local = |(pod, app): &(&str, &str)| {
                let namespace = pod[..1].to_owned();
                let labels = [("app".to_owned(), (*app).to_owned())].into();
                let port = NamedPort { name: "http".into(), protocol: skep_ebpf_abi::TCP, port: PORTS[0] };
                let identity = Identity { namespace: namespace.clone(), labels, ports: [port].into() };
                (
                    (*pod).to_owned(),
                    LocalPod { name: ObjectName::new(&namespace, pod), identity, ..LocalPod::default() },
                )
            };
            let other = 1 - n;
            let config = NetworkConfig {
                pod_cidrs: cidrs(n + 1)?,
                service_cidrs: nets(&SERVICES)?,
                cluster_cidrs: nets(&CLUSTER)?,
                node_ips: ips(n)?,
                routing,
                ..NetworkConfig::default()
            };
            let plan = Plan {
                name: (*name).to_owned(),
                mode,
                config,
                peers: vec![Peer { pod_cidrs: cidrs(other + 1)?, node_ips: ips(other)? }],
                pods: pods.iter().map(local).collect(),
                api: api.clone(),
            };
            let node = Node::new(plan, &segment)?;
            node.netbox.ip(&format!("route add default via {CLIENT}"))?;
            client.ip(&format!("route add 10.244.{}.0/24 via {address}", n + 1))?;
            nodes.push(node);
        }
        for name in ["a", "b", "kube-system"] {
            api.put("namespaces", name, namespace(name, &json!({"team": name})));
        }
        let mut world =
            Self { flows: BTreeMap::new(), _servers: Vec::new(), nodes, client, _segment: segment, api };
        for node in &mut world.nodes {
            node.start()?;
        }
        world.put_pods();
        world.serve()?;
        Ok(world)
    }

    fn put_pods(&self) {
        for node in &self.nodes {
            for (name, pod) in &node.plan.pods {
                let ips = node.pods.get(name).map(|made| made.ips.clone()).unwrap_or_default();
                self.api.put("pods", &pod.name.to_string(), pod_object(pod, &node.plan.name, &ips));
            }
        }
    }

    fn serve(&mut self) -> Result<()> {
        let mut servers = Vec::new();
        for node in &self.nodes {
            for name in node.pods.keys() {
                servers.push(Running::serve(self.spot(name)?, name, &PORTS, &[])?);
            }
            servers.push(Running::serve(self.spot(&node.plan.name)?, &node.plan.name, &[DNS], &[])?);
        }
        servers.push(Running::serve(self.spot("client")?, "client", &PORTS, &[])?);
        self._servers = servers;
        Ok(())
    }

    fn node_of(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.plan.name == name || node.pods.contains_key(name))
    }

    fn spot(&self, name: &str) -> Result<Spot<'_>> {
        if name == "client" {
            // A path must outlive the spot; namespaces of boxes have fixed ones.
            let netns: &'static Path = Box::leak(self.client.netns_path().into_boxed_path());
            return Ok(Spot { netns, cgroup: None });
        }
        let node = self.node_of(name).with_context(|| format!("{name} is nobody here"))?;
        if let Some(pod) = node.pods.get(name) {
            return Ok(Spot { netns: &pod.netns, cgroup: Some(&node.cgroup) });
        }
        let netns: &'static Path = Box::leak(node.netbox.netns_path().into_boxed_path());
        Ok(Spot { netns, cgroup: Some(&node.cgroup) })
    }

    fn address(&self, name: &str, v6: bool) -> Result<IpAddr> {
        if let Ok(ip) = name.parse() {
            return Ok(ip);
        }
        if name == "client" {
            return Ok(CLIENT.parse()?);
        }
        let node = self.node_of(name).with_context(|| format!("{name} is nobody here"))?;
        let ips = node.pods.get(name).map_or(&node.plan.config.node_ips, |pod| &pod.ips);
        ips.iter().copied().find(|ip| ip.is_ipv6() == v6).context("no address of this family")
    }

    /// Protocol, address and port of a target.
    fn target(&self, text: &str) -> Result<(String, String, String)> {
        let (protocol, rest) = text.split_once(' ').with_context(|| format!("{text:?} is no target"))?;
        let (name, port) = rest.rsplit_once(':').with_context(|| format!("{text:?} has no port"))?;
        let (name, v6) = name.strip_suffix("/6").map_or((name, false), |name| (name, true));
        let address = std::net::SocketAddr::new(self.address(name, v6)?, port.parse()?);
        Ok((protocol.to_owned(), address.to_string(), name.to_owned()))
    }

    /// Runs a scenario and cleans up after it, whatever came of it.
    pub(crate) fn run(&mut self, scenario: &Scenario) -> Result<()> {
        let mut result = Ok(());
        for (number, step) in scenario.steps.iter().enumerate() {
            result = self.step(step).with_context(|| format!("step {}", number + 1));
            if result.is_err() {
                break;
            }
        }
        self.flows.clear();
        for resource in ["networkpolicies", "endpointslices", "services"] {
            for name in self.api.names(resource) {
                self.api.delete(resource, &name);
            }
        }
        self.put_pods();
        for name in ["a", "b", "kube-system"] {
            self.api.put("namespaces", name, namespace(name, &json!({"team": name})));
        }
        let clean = self.until(PATIENCE, |world| world.policed_are(&[])).context("policies are left");
        result.and(clean)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        for (name, dial) in &step.open {
            let (protocol, address, _) = self.target(&dial.to)?;
            let mut flow = Running::flow(self.spot(&dial.from)?, &protocol, &address)?;
            // Once: a connection is made with the first question.
            flow.ask()?;
            self.flows.insert(name.clone(), flow);
        }
        for object in &step.apply {
            if let Object::Pod { pod, labels } = object {
                let key = format!("{}/{pod}", &pod[..1]);
                let mut known = self.api.get("pods", &key).with_context(|| format!("pod {pod}"))?;
                known["metadata"]["labels"] = labels.clone();
                self.api.put("pods", &key, known);
                continue;
            }
            let (resource, name, object) = object.build(self)?;
            self.api.put(resource, &name, object);
        }
        for path in &step.delete {
            let (kind, name) = path.split_once('/').context("KIND/NAME")?;
            let resource = match kind {
                "policy" => "networkpolicies",
                "slice" => "endpointslices",
                "pod" => "pods",
                _ => "services",
            };
            self.api.delete(resource, name);
        }
        for name in &step.restart {
            let node = self.nodes.iter_mut().find(|node| node.plan.name == *name).context("no such node")?;
            node.stop()?;
            node.start()?;
        }
        step.check.iter().try_for_each(|check| self.until(PATIENCE, |world| world.look(check)))
    }

    /// Changes take their time: what does not hold yet is looked at again.
    fn until(&mut self, patience: Duration, mut look: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = look(self) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn look(&mut self, check: &Check) -> Result<()> {
        match check {
            Check::Dial { from, to, answers } => {
                // All at once: most of the time of what is dropped is waiting.
                let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
                let world = &*self;
                thread::scope(|scope| {
                    let dial = |(from, to): (&'_ String, &'_ String)| {
                        world.look_at_dial(from, to, answers).with_context(|| format!("{from} to {to}"))
                    };
                    let dials: Vec<_> = pairs.map(|pair| scope.spawn(move || dial(pair))).collect();
                    let outcome = |dial: thread::ScopedJoinHandle<'_, Result<()>>| {
                        dial.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    };
                    dials.into_iter().try_for_each(outcome)
                })
            }
            Check::Flow { flow, answers } => {
                let answer = self.flows.get_mut(flow).context("no such flow")?.ask()?;
                let name = answer.split(' ').next().unwrap_or_default();
                ensure!(
                    answers.iter().any(|wanted| wanted == name),
                    "flow {flow}: {answer}, not {answers:?}"
                );
                Ok(())
            }
            Check::Denied { denied, direction, by } => self.look_at_denied(denied, direction, by),
            Check::Explain { explain, says } => {
                let text = self.explain(explain)?;
                let missing: Vec<_> = says.iter().filter(|part| !text.contains(*part)).collect();
                ensure!(missing.is_empty(), "{explain}: no {missing:?} in\n{text}");
                Ok(())
            }
            Check::Policed { policed } => self.policed_are(policed),
        }
    }

    fn look_at_dial(&self, from: &str, to: &str, answers: &[String]) -> Result<()> {
        let (protocol, address, name) = self.target(to)?;
        // Waiting for nothing is slow: once is enough.
        let silent = matches!(answers, [word] if word == "dropped");
        let (count, patience) = if silent { (1, 400) } else { (2 * answers.len().pow(2) + 1, 1000) };
        let manner = Manner { count, gap: 0, patience, size: 1 };
        let lines = self.spot(from)?.dial(&protocol, &address, manner)?;
        let named: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        let wanted: BTreeSet<&str> =
            answers.iter().map(|word| if word == "itself" { name.as_str() } else { word.as_str() }).collect();
        ensure!(named == wanted, "{named:?}, not {wanted:?}");
        Ok(())
    }

    /// The pods whose endpoints say so, by name.
    fn policed_are(&self, wanted: &[String]) -> Result<()> {
        let mut policed = BTreeSet::new();
        for node in &self.nodes {
            for (address, place) in Inspector::new(&node.pins).endpoints()? {
                if place.flags & endpoint::POLICED != 0 {
                    let ip = IpAddr::from(address);
                    let owner = node.pods.iter().find(|(_, pod)| pod.ips.contains(&ip));
                    policed.insert(owner.map_or_else(|| ip.to_string(), |(name, _)| name.clone()));
                }
            }
        }
        let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
        ensure!(policed == wanted, "policed are {policed:?}, not {wanted:?}");
        Ok(())
    }

    fn look_at_denied(&self, pod: &str, direction: &str, by: &str) -> Result<()> {
        let node = self.node_of(pod).context("nobody")?;
        let names = PolicyNames::read(&node.names_file())?;
        let ips = &node.pods.get(pod).context("no pod")?.ips;
        let denied = Inspector::new(&node.pins).denied()?;
        let found = denied.iter().any(|(key, _)| {
            ips.contains(&key.pod.into())
                && direction_name(key.direction) == direction
                && names.tables.get(&key.table).is_some_and(|table| table.policies.join(",") == by)
        });
        ensure!(found, "nothing denied by {by}: {denied:?} {names:?}");
        Ok(())
    }

    fn explain(&self, text: &str) -> Result<String> {
        let (from, to) = text.split_once(' ').context("FROM TO")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster = runtime.block_on(Cluster::load(&self.api.client(), DNS))?;
        Ok(explain(&cluster, &from.parse()?, &to.parse()?)?.to_string())
    }
}

impl Names for World {
    fn place(&self, name: &str) -> Result<(String, String)> {
        let node = self.node_of(name).map_or_else(|| "n1".to_owned(), |node| node.plan.name.clone());
        Ok((self.address(name, false)?.to_string(), node))
    }
}
