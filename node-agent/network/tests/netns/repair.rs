//! What someone deletes comes back within a second.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use skep_network::Peer;
use skep_tests::Segment;

use super::{TestNode, eventually, fake, pod};

const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn deleted_routes_neighbours_and_devices_come_back() -> Result<()> {
    if !skep_tests::require("deleted_routes_neighbours_and_devices_come_back") {
        return Ok(());
    }
    let mut node = TestNode::new("repair")?;
    let data_path = fake();
    node.config.data_plane = Some(Arc::clone(&data_path) as _);
    node.test(|network| {
        let (node, data_path) = (&node, &data_path);
        async move {
            let made = network.setup(&pod("a")).await?;
            let (v4, v6, device) = (made.ips[0], made.ips[1], &made.host_interface);
            let cases = [
                ("pod route", format!("route del {v4}"), "route", v4.to_string()),
                ("IPv6 pod route", format!("-6 route del {v6}"), "-6 route", v6.to_string()),
                ("dead end", "route del unreachable 10.96.0.0/16".into(), "route", "10.96.0.0/16".into()),
                ("neighbour", format!("neigh del {v4} dev {device}"), "neigh", v4.to_string()),
                ("link down", format!("link set {device} down"), "route", format!("{v4} dev {device}")),
                ("device", format!("link del {device}"), "route", format!("{v4} dev {device}")),
            ];
            for (what, break_it, look, want) in cases {
                let index = data_path.state().endpoints[&v4].host_ifindex;
                ensure!(node.ip(look)?.contains(&want), "{what}: not there before");
                node.ip(&break_it)?;
                let took = eventually(what, LIMIT, || Ok(node.ip(look)?.contains(&want))).await?;
                println!("{what}: back after {took:?}");
                if what == "device" {
                    let state = || data_path.state().endpoints[&v4].host_ifindex;
                    eventually("the endpoint follows", LIMIT, || Ok(state() != index)).await?;
                    let routes = node.in_pod(&made.netns, "route")?;
                    ensure!(routes.contains("default via 169.254.1.1"), "{routes}");
                }
            }
            Ok(())
        }
    })
}

#[test]
fn a_pod_that_was_taken_down_stays_down() -> Result<()> {
    if !skep_tests::require("a_pod_that_was_taken_down_stays_down") {
        return Ok(());
    }
    let node = TestNode::new("stays-down")?;
    node.test(|network| {
        let node = &node;
        async move {
            let made = network.setup(&pod("a")).await?;
            network.teardown("a").await?;
            // Wakes the watcher once more; its pass is over when the dead end is back.
            node.ip("route del unreachable 10.96.0.0/16")?;
            eventually("a pass", LIMIT, || Ok(node.ip("route")?.contains("10.96.0.0/16"))).await?;
            ensure!(!node.ip("link")?.contains(&made.host_interface));
            Ok(())
        }
    })
}

#[test]
fn routes_of_others_are_left_alone() -> Result<()> {
    if !skep_tests::require("routes_of_others_are_left_alone") {
        return Ok(());
    }
    let node = TestNode::new("others")?;
    node.ip("link add other type veth peer name other-peer")?;
    node.ip("link set other up")?;
    node.ip("route add 192.0.2.0/24 dev other")?;
    node.test(|network| async move {
        network.setup(&pod("a")).await?;
        network.reconcile(&[]).await?;
        Ok(())
    })?;
    ensure!(node.ip("route")?.contains("192.0.2.0/24"), "a stranger's route is gone");
    ensure!(node.ip("link")?.contains("other-peer"), "a stranger's device is gone");
    Ok(())
}

#[test]
fn a_peer_out_of_reach_costs_nobody_else_a_route() -> Result<()> {
    if !skep_tests::require("a_peer_out_of_reach_costs_nobody_else_a_route") {
        return Ok(());
    }
    let (node, segment) = (TestNode::new("far-peer")?, Segment::new("far-peer-segment")?);
    segment.plug(&node.netbox, &["192.168.10.1/24".parse()?])?;
    let peer = |cidr: &str, ip: &str| -> Result<Peer> {
        Ok(Peer { pod_cidrs: vec![cidr.parse()?], node_ips: vec![ip.parse()?] })
    };
    let peers = vec![peer("10.244.7.0/24", "203.0.113.1")?, peer("10.244.8.0/24", "192.168.10.8")?];
    node.test(|network| {
        let node = &node;
        async move {
            ensure!(network.set_peers(peers).await.is_err(), "a gateway that is on no segment");
            ensure!(node.ip("route")?.contains("10.244.8.0/24 via 192.168.10.8"), "{}", node.ip("route")?);
            let made = network.setup(&pod("a")).await?;
            let route = format!("{} dev", made.ips[0]);
            node.ip(&format!("route del {}", made.ips[0]))?;
            eventually("the pod's route", LIMIT, || Ok(node.ip("route")?.contains(&route))).await?;
            Ok(())
        }
    })
}
