//! Who sees a pod under which address.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use skep_network::{Peer, PodNetwork};
use skep_tests::{NetBox, Segment, netbox::run_in};

use super::{
    TestNode,
    plane::Plane,
    pod,
    traffic::{serve, talk},
};

/// The address under which `receiver`, in a namespace, sees a datagram from another namespace.
fn seen_as(receiver: &Path, at: IpAddr, sender: &Path) -> Result<IpAddr> {
    let socket = run_in(receiver, || UdpSocket::bind(SocketAddr::new(at, 0)))??;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let to = socket.local_addr()?;
    run_in(sender, || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any)?.send_to(b"?", to)
    })??;
    Ok(socket.recv_from(&mut [0; 8])?.1.ip())
}

#[test]
fn other_nodes_see_pods_themselves_and_strangers_see_the_node() -> Result<()> {
    if !skep_tests::require("other_nodes_see_pods_themselves_and_strangers_see_the_node") {
        return Ok(());
    }
    let (one, mut two) = (TestNode::new("node-one")?, TestNode::new("node-two")?);
    let (segment, world) = (Segment::new("masquerade")?, NetBox::new("world")?);
    for (netbox, n) in [(&one.netbox, 1), (&two.netbox, 2), (&world, 9)] {
        segment.plug(netbox, &[format!("192.168.9.{n}/24").parse()?, format!("fd09::{n}/64").parse()?])?;
    }
    let addresses =
        |n| -> Result<[IpAddr; 2]> { Ok([format!("192.168.9.{n}").parse()?, format!("fd09::{n}").parse()?]) };
    // Node one has its own range; only its processes matter here.
    one.ip("route add 10.244.2.0/24 via 192.168.9.2")?;
    one.ip("-6 route add fd00:10:244:2::/64 via fd09::2")?;
    world.ip("route add 10.244.2.0/24 via 192.168.9.2")?;
    world.ip("-6 route add fd00:10:244:2::/64 via fd09::2")?;
    two.config.node_ips = addresses(2)?.to_vec();
    two.config.pod_cidrs = vec!["10.244.2.0/24".parse()?, "fd00:10:244:2::/64".parse()?];
    two.config.cluster_cidrs = vec!["10.244.0.0/16".parse()?, "fd00:10:244::/56".parse()?];
    let Some(_plane) = Plane::load(&mut two)? else { return Ok(()) };
    let peer = Peer {
        pod_cidrs: vec!["10.244.1.0/24".parse()?, "fd00:10:244:1::/64".parse()?],
        node_ips: addresses(1)?.to_vec(),
    };
    let (one, world) = (one.netbox.netns_path(), world.netns_path());
    two.test(|network: PodNetwork| async move {
        network.set_peers(vec![peer]).await?;
        let made = network.setup(&pod("a")).await?;
        for (family, ip) in made.ips.iter().enumerate() {
            let (at_one, at_world, node) =
                (addresses(1)?[family], addresses(9)?[family], addresses(2)?[family]);
            let server = serve(&made.netns, *ip)?;
            talk(&one, server.address())?;
            ensure!(seen_as(&one, at_one, &made.netns)? == *ip, "node one sees the pod itself");
            ensure!(seen_as(&world, at_world, &made.netns)? == node, "a stranger sees the node");
            // One that knows the way to the pod is answered by the pod.
            talk(&world, server.address())?;
        }
        // A peer that left is a stranger.
        network.set_peers(vec![]).await?;
        ensure!(seen_as(&one, addresses(1)?[0], &made.netns)? == addresses(2)?[0]);
        Ok(())
    })
}
