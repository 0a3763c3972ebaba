//! Packets between pods, nodes and segments.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use skep_network::{Peer, PodNetwork};
use skep_tests::{
    NetBox, Segment,
    load::{self, Mode, Plan, Server},
    netbox::run_in,
};

use super::{TestNode, eventually, fake, plane::Plane, pod};

pub(crate) fn serve(netns: &Path, ip: IpAddr) -> Result<Server> {
    run_in(netns, || load::serve(SocketAddr::new(ip, 0)))?
}

/// A few transactions from a namespace, of which none may fail.
pub(crate) fn talk(netns: &Path, target: SocketAddr) -> Result<()> {
    for mode in Mode::ALL {
        let plan = Plan { mode, target, connections: 1, time: Duration::from_millis(50) };
        let report = run_in(netns, || load::run(&plan))??;
        ensure!(report.errors == 0 && report.transactions > 0, "{report:?}");
    }
    Ok(())
}

fn unreachable(netns: &Path, target: &str) -> Result<bool> {
    let target: SocketAddr = target.parse()?;
    let outcome = run_in(netns, || std::net::TcpStream::connect_timeout(&target, Duration::from_secs(2)))?;
    Ok(outcome.is_err_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable)
    }))
}

/// Holds NE-25, NE-26.
#[test]
fn pods_and_host_reach_each_other_and_untranslated_services_fail_at_once() -> Result<()> {
    if !skep_tests::require("pods_and_host_reach_each_other_and_untranslated_services_fail_at_once") {
        return Ok(());
    }
    let mut node = TestNode::new("traffic")?;
    node.ip("address add 192.168.7.1/32 dev lo")?;
    node.ip("address add fd07::1/128 dev lo")?;
    node.config.node_ips = vec!["192.168.7.1".parse()?, "fd07::1".parse()?];
    node.test(|network| {
        let node = &node;
        async move {
            let (a, b) = (network.setup(&pod("a")).await?, network.setup(&pod("b")).await?);
            let host = node.netbox.netns_path();
            for ip in &b.ips {
                let server = serve(&b.netns, *ip)?;
                talk(&a.netns, server.address())?;
                talk(&b.netns, server.address())?;
                talk(&host, server.address())?;
            }
            let server = serve(&host, "192.168.7.1".parse()?)?;
            talk(&a.netns, server.address())?;
            let route = node.ip(&format!("route get {}", a.ips[0]))?;
            ensure!(route.contains("src 192.168.7.1"), "{route}");
            for dead in ["10.96.0.1:443", "10.244.1.250:80", "10.244.77.1:80", "[fd00:10:96::1]:443"] {
                // A pod each: the kernel sends few ICMP errors a second to one address.
                let asking = network.setup(&pod(&dead.replace(['.', ':', '[', ']'], "-"))).await?;
                ensure!(unreachable(&asking.netns, dead)?, "{dead} from a pod");
                ensure!(unreachable(&host, dead)?, "{dead} from the host");
            }
            Ok(())
        }
    })
}

#[test]
fn the_mtu_follows_the_uplink() -> Result<()> {
    if !skep_tests::require("the_mtu_follows_the_uplink") {
        return Ok(());
    }
    let (mut node, segment) = (TestNode::new("mtu")?, Segment::new("mtu-segment")?);
    let data_path = fake();
    node.config.data_plane = Some(Arc::clone(&data_path) as _);
    let uplink = segment.plug(&node.netbox, &["192.168.8.1/24".parse()?])?;
    node.ip(&format!("link set {uplink} mtu 1400"))?;
    node.ip("route add default via 192.168.8.254")?;
    node.test(|network| {
        let (node, data_path) = (&node, &data_path);
        async move {
            let made = network.setup(&pod("a")).await?;
            let link = node.in_pod(&made.netns, "link show eth0")?;
            ensure!(link.contains("mtu 1400"), "{link}");
            ensure!(node.ip(&format!("link show {}", made.host_interface))?.contains("mtu 1400"));
            ensure!(data_path.state().uplinks.len() == 1, "{:?}", data_path.state());
            node.ip("route del default")?;
            let none = || Ok(data_path.state().uplinks.is_empty());
            eventually("the interface is no uplink any more", Duration::from_secs(1), none).await?;
            Ok(())
        }
    })
}

/// Holds NE-23, NE-24.
#[test]
fn pods_of_two_nodes_on_one_segment_reach_each_other() -> Result<()> {
    if !skep_tests::require("pods_of_two_nodes_on_one_segment_reach_each_other") {
        return Ok(());
    }
    let (mut one, mut two) = (TestNode::new("one")?, TestNode::new("two")?);
    let segment = Segment::new("two-nodes")?;
    for (node, n) in [(&mut one, 1), (&mut two, 2)] {
        segment
            .plug(&node.netbox, &[format!("192.168.9.{n}/24").parse()?, format!("fd09::{n}/64").parse()?])?;
        node.config.node_ips = vec![format!("192.168.9.{n}").parse()?, format!("fd09::{n}").parse()?];
        node.config.pod_cidrs =
            vec![format!("10.244.{n}.0/24").parse()?, format!("fd00:10:244:{n}::/64").parse()?];
    }
    let peer = |node: &TestNode| Peer {
        pod_cidrs: node.config.pod_cidrs.clone(),
        node_ips: node.config.node_ips.clone(),
    };
    let (peer_one, peer_two) = (peer(&one), peer(&two));
    one.test(|network_one| {
        let (one, two) = (&one, &two);
        async move {
            network_one.set_peers(vec![peer_two]).await?;
            let a = network_one.setup(&pod("a")).await?;
            // The other node's network must live in its own namespace, so on its own thread.
            let b = two.netbox.run_async(|| async {
                let network_two = PodNetwork::new(two.config.clone()).await?;
                network_two.set_peers(vec![peer_one]).await?;
                anyhow::Ok(network_two.setup(&pod("b")).await?)
            })??;
            for (server_of, asker) in [(&b, &a), (&a, &b)] {
                for ip in &server_of.ips {
                    let server = serve(&server_of.netns, *ip)?;
                    talk(&asker.netns, server.address())?;
                }
            }
            network_one.set_peers(vec![]).await?;
            ensure!(!one.ip("route")?.contains("10.244.2.0/24"), "the peer's route goes with the peer");
            purge(two)
        }
    })
}

fn purge(node: &TestNode) -> Result<()> {
    let netbox: &NetBox = &node.netbox;
    netbox.run_async(|| PodNetwork::purge(&node.config.run_dir, &node.config.state_dir))??;
    Ok(())
}

#[test]
fn pods_reach_each_other_through_the_data_plane_and_purge_leaves_no_pin() -> Result<()> {
    if !skep_tests::require("pods_reach_each_other_through_the_data_plane_and_purge_leaves_no_pin") {
        return Ok(());
    }
    let mut node = TestNode::new("ebpf")?;
    let Some(plane) = Plane::load(&mut node)? else { return Ok(()) };
    node.test(|network| async move {
        let (a, b) = (network.setup(&pod("a")).await?, network.setup(&pod("b")).await?);
        for ip in &b.ips {
            let server = serve(&b.netns, *ip)?;
            talk(&a.netns, server.address())?;
        }
        network.teardown("b").await?;
        let unreachable = run_in(&a.netns, || {
            std::net::TcpStream::connect_timeout(&SocketAddr::new(b.ips[0], 80), Duration::from_secs(2))
        })?;
        ensure!(unreachable.is_err(), "a pod that is gone answers");
        Ok(())
    })?;
    let pin_dir = plane.pin_dir.clone();
    drop(plane);
    ensure!(!pin_dir.exists(), "pins are left");
    Ok(())
}
