//! Nodes that share no segment: pods reach each other through the tunnel.
//!
//! ```text
//! one 192.168.1.1 --- left ===(a narrow link)=== right --- 192.168.2.1 two
//! ```
//! The routers know nothing of pods, so whatever arrives went through the tunnel.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use skep_ebpf_abi::{
    TCP, UDP,
    service::{Backend, Frontend, FrontendKey, Set, SlotKey, frontend},
};
use skep_ebpf_loader::{DataPlane, tables::Change};
use skep_network::{Peer, PodAttachment, PodNetwork, PodRouting};
use skep_tests::{
    NetBox, Segment,
    load::{self, Mode, Plan},
    netbox::run_in,
};

use super::{
    TestNode, eventually,
    plane::Plane,
    pod,
    traffic::{serve, talk},
};

const LIMIT: Duration = Duration::from_secs(1);

/// What carries the tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underlay {
    V4,
    V6,
}

/// Two nodes with a routed network between them, and a client on the first one's segment.
struct World {
    // In the order of dropping: what is pinned in a namespace before the namespace.
    _planes: [Plane; 2],
    planes: [Arc<DataPlane>; 2],
    one: TestNode,
    two: TestNode,
    client: NetBox,
    _routers: [NetBox; 2],
    _segments: [Segment; 2],
}

impl World {
    fn new(label: &str, underlay: Underlay, routing: PodRouting, narrow: u32) -> Result<Option<Self>> {
        let segments = [Segment::new(&format!("{label}-l"))?, Segment::new(&format!("{label}-r"))?];
        let routers = [NetBox::new("left")?, NetBox::new("right")?];
        let [left, right] = &routers;
        left.ip(&format!("link add wire type veth peer name wire netns {}", right.name()))?;
        for (router, n) in [(left, 1), (right, 2)] {
            router.ip(&format!("address add 192.168.0.{n}/24 dev wire"))?;
            router.ip(&format!("address add fd00::{n}/64 dev wire nodad"))?;
            router.ip(&format!("link set wire mtu {narrow} up"))?;
            segments[n - 1].plug(
                router,
                &[format!("192.168.{n}.254/24").parse()?, format!("fd0{n}::254/64").parse()?],
            )?;
            router.run(|| {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
            })??;
        }
        left.ip("route add 192.168.2.0/24 via 192.168.0.2")?;
        left.ip("-6 route add fd02::/64 via fd00::2")?;
        right.ip("route add 192.168.1.0/24 via 192.168.0.1")?;
        right.ip("-6 route add fd01::/64 via fd00::1")?;
        let (mut one, mut two) = (TestNode::new("one")?, TestNode::new("two")?);
        for (node, n) in [(&mut one, 1), (&mut two, 2)] {
            let addresses: Vec<IpAddr> = match underlay {
                Underlay::V4 => vec![format!("192.168.{n}.1").parse()?],
                Underlay::V6 => vec![format!("fd0{n}::1").parse()?],
            };
            let nets = addresses.iter().map(|ip| match ip {
                IpAddr::V4(v4) => format!("{v4}/24").parse(),
                IpAddr::V6(v6) => format!("{v6}/64").parse(),
            });
            segments[n - 1].plug(&node.netbox, &nets.collect::<Result<Vec<_>, _>>()?)?;
            match underlay {
                Underlay::V4 => node.ip(&format!("route add default via 192.168.{n}.254"))?,
                Underlay::V6 => node.ip(&format!("-6 route add default via fd0{n}::254"))?,
            };
            node.config.node_ips = addresses;
            node.config.pod_cidrs =
                vec![format!("10.244.{n}.0/24").parse()?, format!("fd00:10:244:{n}::/64").parse()?];
            node.config.cluster_cidrs = vec!["10.244.0.0/16".parse()?, "fd00:10:244::/56".parse()?];
            node.config.routing = routing;
        }
        let client = NetBox::new("client")?;
        segments[0].plug(&client, &["192.168.1.9/24".parse()?, "fd01::9/64".parse()?])?;
        let (Some(a), Some(b)) = (Plane::load(&mut one)?, Plane::load(&mut two)?) else { return Ok(None) };
        let planes = [Arc::clone(&a.data_plane), Arc::clone(&b.data_plane)];
        Ok(Some(Self { _planes: [a, b], planes, one, two, client, _routers: routers, _segments: segments }))
    }

    /// Runs a test with a pod on each node; the second node's network is not watched.
    fn test<F>(&self, work: impl FnOnce(PodNetwork, PodAttachment, PodAttachment) -> F + Send) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let outcome = self.one.test(|network| async move {
            let far = self.two.netbox.run_async(|| async {
                let network = PodNetwork::new(self.two.config.clone()).await?;
                network.set_peers(vec![peer(&self.one)]).await?;
                anyhow::Ok(network.setup(&pod("far")).await?)
            })??;
            network.set_peers(vec![peer(&self.two)]).await?;
            let near = network.setup(&pod("near")).await?;
            work(network, near, far).await
        });
        let config = &self.two.config;
        self.two.netbox.run_async(|| PodNetwork::purge(&config.run_dir, &config.state_dir))??;
        outcome
    }
}

fn peer(node: &TestNode) -> Peer {
    Peer { pod_cidrs: node.config.pod_cidrs.clone(), node_ips: node.config.node_ips.clone() }
}

fn everyone_talks(world: &World, near: &PodAttachment, far: &PodAttachment) -> Result<()> {
    let (host_one, host_two) = (world.one.netbox.netns_path(), world.two.netbox.netns_path());
    for (to, ip) in near.ips.iter().map(|ip| (near, ip)).chain(far.ips.iter().map(|ip| (far, ip))) {
        let server = serve(&to.netns, *ip)?;
        for from in [&near.netns, &far.netns, &host_one, &host_two] {
            talk(from, server.address()).map_err(|e| e.context(format!("{} to {ip}", from.display())))?;
        }
    }
    // Pods reach the other node itself too, in their own node's name.
    for (node, from) in [(&world.one, far), (&world.two, near)] {
        let server = serve(&node.netbox.netns_path(), node.config.node_ips[0])?;
        talk(&from.netns, server.address())?;
    }
    Ok(())
}

#[test]
fn pods_behind_routers_reach_each_other_over_ipv4() -> Result<()> {
    reach_each_other("pods_behind_routers_reach_each_other_over_ipv4", Underlay::V4, 1450)
}

#[test]
fn pods_behind_routers_reach_each_other_over_ipv6() -> Result<()> {
    reach_each_other("pods_behind_routers_reach_each_other_over_ipv6", Underlay::V6, 1430)
}

fn reach_each_other(name: &str, underlay: Underlay, mtu: u32) -> Result<()> {
    if !skep_tests::require(name) {
        return Ok(());
    }
    let Some(world) = World::new("tunnel", underlay, PodRouting::Auto, 1500)? else { return Ok(()) };
    world.test(|network, near, far| {
        let world = &world;
        async move {
            let one = &world.one;
            let link = one.in_pod(&near.netns, "link show eth0")?;
            ensure!(link.contains(&format!("mtu {mtu}")), "{link}");
            everyone_talks(world, &near, &far)?;
            // The first pod got its MTU when the peer was known; one that was there before follows.
            network.set_peers(vec![]).await?;
            ensure!(one.in_pod(&near.netns, "link show eth0")?.contains("mtu 1500"), "nothing is tunnelled");
            let left = [one.ip("link")?, one.ip("route")?, one.ip("-6 route")?, one.ip("neigh")?].concat();
            ensure!(!left.contains("skep-vxlan"), "{left}");
            network.set_peers(vec![peer(&world.two)]).await?;
            ensure!(one.in_pod(&near.netns, "link show eth0")?.contains(&format!("mtu {mtu}")));
            everyone_talks(world, &near, &far)
        }
    })
}

/// Writes a node port for the endpoints, as the service proxy does.
fn node_port(
    plane: &DataPlane,
    set: u32,
    frontend_at: SocketAddr,
    protocol: u8,
    endpoint: SocketAddr,
) -> Result<()> {
    let backend =
        Backend { addr: endpoint.ip().into(), port_be: endpoint.port().to_be(), protocol, state: 0 };
    let key = FrontendKey::new(frontend_at.ip().into(), frontend_at.port().to_be(), protocol);
    let value = Frontend { external_set: set, internal_set: set, flags: frontend::NODE_PORT };
    for change in [
        Change::PutBackend(set, backend),
        Change::PutSlot(SlotKey { set, slot: 1 }, set),
        Change::PutSet(set, Set { count: 1, ..Set::default() }),
        Change::PutFrontend(key, value),
    ] {
        plane.services().apply(&change)?;
    }
    Ok(())
}

#[test]
fn services_lead_through_the_tunnel() -> Result<()> {
    if !skep_tests::require("services_lead_through_the_tunnel") {
        return Ok(());
    }
    let Some(world) = World::new("services", Underlay::V4, PodRouting::Auto, 1500)? else { return Ok(()) };
    world.test(|network, near, far| {
        let world = &world;
        async move {
            let _watched = network;
            let server = serve(&far.netns, far.ips[0])?;
            let port = SocketAddr::new(world.one.config.node_ips[0], 30080);
            let vip: SocketAddr = "10.96.0.7:80".parse()?;
            for (set, protocol) in [(1, TCP), (3, UDP)] {
                node_port(&world.planes[0], set, port, protocol, server.address())?;
                node_port(&world.planes[0], set + 1, vip, protocol, server.address())?;
            }
            talk(&world.client.netns_path(), port)?;
            // This process is in no cgroup of the node's: the pod dials the service on the wire.
            talk(&near.netns, vip)?;
            Ok(())
        }
    })
}

/// As much as goes through in a moment; all of it must be packets that fit.
fn stream(netns: &Path, target: SocketAddr) -> Result<f64> {
    let plan = Plan { mode: Mode::Stream, target, connections: 1, time: Duration::from_millis(600) };
    let report = run_in(netns, || load::run(&plan))??;
    ensure!(report.errors == 0, "{report:?}");
    Ok(report.bits_per_second)
}

#[test]
fn a_narrow_hop_is_told_to_pods_over_ipv4() -> Result<()> {
    narrow("a_narrow_hop_is_told_to_pods_over_ipv4", Underlay::V4, 1350)
}

#[test]
fn a_narrow_hop_is_told_to_pods_over_ipv6() -> Result<()> {
    narrow("a_narrow_hop_is_told_to_pods_over_ipv6", Underlay::V6, 1330)
}

fn narrow(name: &str, underlay: Underlay, fits: u32) -> Result<()> {
    if !skep_tests::require(name) {
        return Ok(());
    }
    let Some(world) = World::new("narrow", underlay, PodRouting::Auto, 1400)? else { return Ok(()) };
    world.test(|network, near, far| {
        let world = &world;
        async move {
            let _watched = network;
            let host = world.one.netbox.netns_path();
            for ip in &far.ips {
                let server = serve(&far.netns, *ip)?;
                for from in [&near.netns, &host] {
                    // A connection whose large packets vanish carries what fits into the first window.
                    let speed = stream(from, server.address())?;
                    println!("{ip} from {}: {:.0} Mbit/s", from.display(), speed / 1e6);
                    ensure!(speed > 50e6, "{speed} bit/s to {ip}");
                }
                let known = world.one.in_pod(&near.netns, &format!("route get {ip}"))?;
                ensure!(known.contains(&format!("mtu {fits}")), "the pod was not told: {known}");
            }
            Ok(())
        }
    })
}

#[test]
fn a_client_outside_is_told_what_fits_through_the_tunnel() -> Result<()> {
    if !skep_tests::require("a_client_outside_is_told_what_fits_through_the_tunnel") {
        return Ok(());
    }
    let Some(world) = World::new("told", Underlay::V4, PodRouting::Auto, 1400)? else { return Ok(()) };
    world.test(|network, _near, far| {
        let world = &world;
        async move {
            let _watched = network;
            let server = serve(&far.netns, far.ips[0])?;
            let port = SocketAddr::new(world.one.config.node_ips[0], 30081);
            node_port(&world.planes[0], 1, port, TCP, server.address())?;
            let client = world.client.netns_path();
            let speed = stream(&client, port)?;
            ensure!(speed > 50e6, "{speed} bit/s");
            let known = world.client.ip(&format!("route get {}", port.ip()))?;
            ensure!(known.contains("mtu 1350"), "{known}");
            Ok(())
        }
    })
}

#[test]
fn the_tunnel_comes_back() -> Result<()> {
    if !skep_tests::require("the_tunnel_comes_back") {
        return Ok(());
    }
    let Some(world) = World::new("back", Underlay::V4, PodRouting::Auto, 1500)? else { return Ok(()) };
    world.test(|network, near, far| {
        let world = &world;
        async move {
            let _watched = network;
            let server = serve(&far.netns, far.ips[0])?;
            let node = &world.one;
            let cases = [
                ("route", "route del 10.244.2.0/24", "route", "10.244.2.0/24 via 10.244.2.1 dev skep-vxlan"),
                ("neighbour", "neigh del 10.244.2.1 dev skep-vxlan", "neigh", "10.244.2.1 dev skep-vxlan"),
                ("address", "address del 10.244.1.1/32 dev skep-vxlan", "address", "10.244.1.1/32"),
                ("link down", "link set skep-vxlan down", "route", "10.244.2.0/24 via 10.244.2.1"),
                ("MTU", "link set skep-vxlan mtu 1300", "link show skep-vxlan", "mtu 1450"),
                ("device", "link del skep-vxlan", "route", "10.244.2.0/24 via 10.244.2.1"),
                (
                    "a device of another kind",
                    "link set skep-vxlan name elsewhere",
                    "route",
                    "10.244.2.0/24 via 10.244.2.1 dev skep-vxlan",
                ),
            ];
            for (what, break_it, look, want) in cases {
                ensure!(node.ip(look)?.contains(want), "{what}: not there before: {}", node.ip(look)?);
                if what == "a device of another kind" {
                    node.ip("link set skep-vxlan down")?;
                }
                node.ip(break_it)?;
                if what == "a device of another kind" {
                    // It keeps the port: without it gone there cannot be another.
                    node.ip("link del elsewhere")?;
                }
                let took = eventually(what, LIMIT, || Ok(node.ip(look)?.contains(want))).await?;
                println!("{what}: back after {took:?}");
                eventually(what, LIMIT, || Ok(talk(&near.netns, server.address()).is_ok())).await?;
            }
            Ok(())
        }
    })
}

#[test]
fn the_tunnel_can_be_asked_for_and_refused_between_neighbours() -> Result<()> {
    if !skep_tests::require("the_tunnel_can_be_asked_for_and_refused_between_neighbours") {
        return Ok(());
    }
    let (mut one, mut two) = (TestNode::new("one")?, TestNode::new("two")?);
    let segment = Segment::new("neighbours")?;
    for (node, n) in [(&mut one, 1), (&mut two, 2)] {
        segment.plug(&node.netbox, &[format!("192.168.3.{n}/24").parse()?])?;
        node.config.node_ips = vec![format!("192.168.3.{n}").parse()?];
        node.config.pod_cidrs = vec![format!("10.244.{n}.0/24").parse()?];
    }
    let (Some(_a), Some(_b)) = (Plane::load(&mut one)?, Plane::load(&mut two)?) else { return Ok(()) };
    for routing in [PodRouting::Vxlan, PodRouting::Native, PodRouting::Auto, PodRouting::Vxlan] {
        (one.config.routing, two.config.routing) = (routing, routing);
        let tunnelled = routing == PodRouting::Vxlan;
        // Not purged in between: a node that starts with another setting finds what the last one left.
        let set_up = |node: &TestNode, other: &TestNode| {
            node.netbox.run_async(|| async {
                let network = PodNetwork::new(node.config.clone()).await?;
                network.set_peers(vec![peer(other)]).await?;
                anyhow::Ok(network.setup(&pod("a")).await?)
            })?
        };
        let (near, far) = (set_up(&one, &two)?, set_up(&two, &one)?);
        let server = serve(&far.netns, far.ips[0])?;
        talk(&near.netns, server.address()).with_context(|| format!("{routing}: from a pod"))?;
        talk(&one.netbox.netns_path(), server.address())
            .with_context(|| format!("{routing}: from the node"))?;
        let seen = [one.ip("link")?, one.ip("route")?].concat();
        ensure!(seen.contains("skep-vxlan") == tunnelled, "{routing}: {seen}");
        let mtu = if tunnelled { "mtu 1450" } else { "mtu 1500" };
        ensure!(one.in_pod(&near.netns, "link show eth0")?.contains(mtu), "{routing}");
    }
    for node in [&one, &two] {
        node.netbox.run_async(|| PodNetwork::purge(&node.config.run_dir, &node.config.state_dir))??;
        ensure!(!node.ip("link")?.contains("skep"), "purge leaves a device");
    }
    Ok(())
}
