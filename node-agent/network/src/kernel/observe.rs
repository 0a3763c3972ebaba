//! Reading what a namespace has.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType},
};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, PROTOCOL};
use crate::{
    Error, Result,
    model::{Address, Link, Mac, Neighbour, Route, Seen, Target},
};

/// Names by index.
type Names = BTreeMap<u32, String>;

impl Netlink {
    /// Everything of the namespace that plans look at.
    pub(crate) async fn observe(&self) -> Result<Seen> {
        let _one_at_a_time = self.dumping.lock().await;
        let links = self.dump_links().await?;
        let names: Names = links.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let addresses = self.addresses(&names).await?;
        let mut routes = self.routes(&names, RouteMessageBuilder::<Ipv4Addr>::new()).await?;
        routes.extend(self.routes(&names, RouteMessageBuilder::<Ipv6Addr>::new()).await?);
        let neighbours = self.neighbours(&names).await?;
        let uplink = self.uplink(&names).await;
        Ok(Seen { links, addresses, routes, neighbours, uplink })
    }

    /// The interfaces by name.
    pub(crate) async fn links(&self) -> Result<BTreeMap<String, Link>> {
        let _one_at_a_time = self.dumping.lock().await;
        self.dump_links().await
    }

    async fn dump_links(&self) -> Result<BTreeMap<String, Link>> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| Error::netlink("list interfaces", e))?;
        Ok(messages.iter().filter_map(link).collect())
    }

    async fn addresses(&self, names: &Names) -> Result<Vec<Address>> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| Error::netlink("list addresses", e))?;
        let mut found = Vec::with_capacity(messages.len());
        for message in messages {
            let Some(interface) = names.get(&message.header.index) else { continue };
            // `Local` is the interface's own address on point-to-point links, where `Address` is the peer's.
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let plain = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            if let Some(net) = local.or(plain).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok()) {
                found.push(Address { interface: interface.clone(), net });
            }
        }
        Ok(found)
    }

    async fn routes<T>(&self, names: &Names, filter: RouteMessageBuilder<T>) -> Result<Vec<Route>> {
        let filter = filter.protocol(PROTOCOL).scope(RouteScope::Universe).kind(RouteType::Unspec).build();
        let messages: Vec<RouteMessage> = self
            .handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(|e| Error::netlink("list routes", e))?;
        // A kernel that ignores the filter sends all routes: the protocol is checked again.
        Ok(messages
            .iter()
            .filter(|m| m.header.protocol == PROTOCOL)
            .filter_map(|m| route(m, names))
            .collect())
    }

    async fn neighbours(&self, names: &Names) -> Result<Vec<Neighbour>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let messages: Vec<NeighbourMessage> = self
                .handle
                .neighbours()
                .get()
                .set_address_family(family)
                .execute()
                .try_collect()
                .await
                .map_err(|e| Error::netlink("list neighbours", e))?;
            found.extend(messages.iter().filter_map(|m| neighbour(m, names)));
        }
        Ok(found)
    }

    /// The interface towards the world, if there is a way there.
    async fn uplink(&self, names: &Names) -> Option<String> {
        let mut question =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::new(192, 88, 99, 1), 32);
        let header = &mut question.get_mut().header;
        *header = netlink_packet_route::route::RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: 32,
            ..Default::default()
        };
        let answer: Vec<RouteMessage> =
            match self.handle.route().get(question.build()).execute().try_collect().await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, "no route to the world");
                    return None;
                }
            };
        answer.iter().flat_map(|m| &m.attributes).find_map(|a| match a {
            RouteAttribute::Oif(index) => names.get(index).cloned(),
            _ => None,
        })
    }
}

fn link(message: &LinkMessage) -> Option<(String, Link)> {
    let mut name = None;
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: [0; 6],
        alias: String::new(),
        peer: None,
        tunnel_port: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::IfAlias(text) => link.alias.clone_from(text),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => link.tunnel_port = infos.iter().find_map(tunnel_port),
            _ => {}
        }
    }
    Some((name?, link))
}

/// The port of a VXLAN device without peers of its own.
fn tunnel_port(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vxlan(settings)) = info else { return None };
    let collects = settings.contains(&InfoVxlan::CollectMetadata(true));
    let port = settings.iter().find_map(|setting| match setting {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    });
    port.filter(|_| collects)
}

fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let (mut destination, mut gateway, mut interface, mut source) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => interface = names.get(index).cloned(),
            _ => {}
        }
    }
    let any = || match message.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let destination =
        IpNet::new(destination.unwrap_or_else(any), message.header.destination_prefix_length).ok()?;
    let target = match (message.header.kind, gateway, interface) {
        (RouteType::Unreachable, _, _) => Target::Unreachable,
        (_, Some(gateway), Some(interface)) if interface == crate::names::TUNNEL => Target::Tunnel(gateway),
        (_, Some(gateway), Some(interface)) if super::apply::is_pod_gateway(gateway) => {
            Target::Gateway(gateway, interface)
        }
        (_, Some(gateway), _) => Target::Via(gateway),
        (_, None, Some(interface)) => Target::Interface(interface),
        (_, None, None) => return None,
    };
    Some(Route { destination, target, source })
}

fn neighbour(message: &NeighbourMessage, names: &Names) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let interface = names.get(&message.header.ifindex)?.clone();
    let (mut address, mut hardware) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(bytes),
            _ => {}
        }
    }
    Some(Neighbour { interface, address: address?, mac: hardware? })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}
