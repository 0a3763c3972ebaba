//! Carrying out the steps of a plan.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteMessage, RouteScope, RouteType},
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{Netlink, PROTOCOL, is_absent};
use crate::{
    Error, Result,
    model::{Address, Neighbour, Op, Route, Target, WantedLink},
    names,
};

/// Dead ends lose against any route to the same range that someone else makes.
const DEAD_END_METRIC: u32 = 8192;
/// The metric IPv6 gives by default, said so that deletion finds the route.
const IPV6_METRIC: u32 = 1024;

/// Indexes by name.
type Indexes = BTreeMap<String, u32>;

/// Whether an address is link-local: such gateways need their interface named.
pub(super) fn is_pod_gateway(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

impl Netlink {
    /// Carries out the steps in order. One that fails does not hold up the others: a gateway that cannot be
    /// reached must not cost a pod its route. The first error is returned at the end.
    pub(crate) async fn apply(&self, ops: &[Op]) -> Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let indexes: Indexes =
            self.links().await?.into_iter().map(|(name, link)| (name, link.index)).collect();
        let mut outcome = Ok(());
        for op in ops {
            tracing::trace!(?op, "network step");
            if let Err(error) = self.step(op, &indexes).await {
                tracing::debug!(?op, error = &error as &dyn std::error::Error, "network step failed");
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn step(&self, op: &Op, indexes: &Indexes) -> Result<()> {
        match op {
            Op::DeleteLink(name) => self.delete_link(name, indexes).await,
            Op::SetLink(link) => self.set_link(link, indexes).await,
            Op::AddAddress(address) => self.add_address(address, indexes).await,
            Op::ReplaceNeighbour(neighbour) => self.replace_neighbour(neighbour, indexes).await,
            Op::DeleteNeighbour(neighbour) => self.delete_neighbour(neighbour, indexes).await,
            Op::ReplaceRoute(route) => self.replace_route(route, indexes).await,
            Op::DeleteRoute(route) => self.delete_route(route, indexes).await,
        }
    }

    async fn delete_link(&self, name: &str, indexes: &Indexes) -> Result<()> {
        let Some(index) = indexes.get(name) else { return Ok(()) };
        match self.handle.link().del(*index).execute().await {
            Err(error) if !is_absent(&error) => {
                Err(Error::netlink(format!("delete interface {name}"), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn set_link(&self, link: &WantedLink, indexes: &Indexes) -> Result<()> {
        let mut message = LinkMessageBuilder::<LinkUnspec>::new().index(index_of(&link.name, indexes)?);
        if let Some(mtu) = link.mtu {
            message = message.mtu(mtu);
        }
        if let Some(mac) = link.mac {
            message = message.address(mac.to_vec());
        }
        if let Some(alias) = &link.alias {
            message = message.alias(alias.clone());
        }
        self.handle
            .link()
            .set(message.up().build())
            .execute()
            .await
            .map_err(|e| Error::netlink(format!("set up interface {}", link.name), e))
    }

    async fn add_address(&self, address: &Address, indexes: &Indexes) -> Result<()> {
        let index = index_of(&address.interface, indexes)?;
        let mut request =
            self.handle.address().add(index, address.net.addr(), address.net.prefix_len()).replace();
        if address.net.addr().is_ipv6() {
            // Addresses are unique by assignment; without this one could not be bound for a second.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request
            .execute()
            .await
            .map_err(|e| Error::netlink(format!("add address {} to {}", address.net, address.interface), e))
    }

    async fn replace_neighbour(&self, neighbour: &Neighbour, indexes: &Indexes) -> Result<()> {
        let index = index_of(&neighbour.interface, indexes)?;
        self.handle
            .neighbours()
            .add(index, neighbour.address)
            .link_layer_address(&neighbour.mac)
            .replace()
            .execute()
            .await
            .map_err(|e| {
                let Neighbour { interface, address, .. } = neighbour;
                Error::netlink(format!("set neighbour {address} on {interface}"), e)
            })
    }

    async fn delete_neighbour(&self, neighbour: &Neighbour, indexes: &Indexes) -> Result<()> {
        let Some(index) = indexes.get(&neighbour.interface) else { return Ok(()) };
        let mut message = NeighbourMessage::default();
        let (family, address) = match neighbour.address {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        message.header.family = family;
        message.header.ifindex = *index;
        message.attributes.push(NeighbourAttribute::Destination(address));
        match self.handle.neighbours().del(message).execute().await {
            Err(error) if !is_absent(&error) => {
                let Neighbour { interface, address, .. } = neighbour;
                Err(Error::netlink(format!("delete neighbour {address} of {interface}"), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn replace_route(&self, route: &Route, indexes: &Indexes) -> Result<()> {
        let message = route_message(route, indexes)?;
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .map_err(|e| Error::netlink(format!("set route to {}", route.destination), e))
    }

    async fn delete_route(&self, route: &Route, indexes: &Indexes) -> Result<()> {
        // A route over an interface that is gone is gone with it.
        let Ok(message) = route_message(route, indexes) else { return Ok(()) };
        match self.handle.route().del(message).execute().await {
            Err(error) if !is_absent(&error) => {
                Err(Error::netlink(format!("delete route to {}", route.destination), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn index_of(name: &str, indexes: &Indexes) -> Result<u32> {
    indexes.get(name).copied().ok_or_else(|| Error::Vanished(name.to_owned()))
}

fn route_message(route: &Route, indexes: &Indexes) -> Result<RouteMessage> {
    let prefix_len = route.destination.prefix_len();
    let metric = match (&route.target, route.destination.addr()) {
        (Target::Unreachable, _) => Some(DEAD_END_METRIC),
        (_, IpAddr::V6(_)) => Some(IPV6_METRIC),
        (_, IpAddr::V4(_)) => None,
    };
    match route.destination.network() {
        IpAddr::V4(v4) => {
            let mut builder =
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, prefix_len).protocol(PROTOCOL);
            if let Some(IpAddr::V4(source)) = route.source {
                builder = builder.pref_source(source);
            }
            builder = match &route.target {
                Target::Interface(name) => {
                    builder.scope(RouteScope::Link).output_interface(index_of(name, indexes)?)
                }
                Target::Gateway(IpAddr::V4(gateway), name) => {
                    builder.gateway(*gateway).output_interface(index_of(name, indexes)?)
                }
                Target::Via(IpAddr::V4(gateway)) => builder.gateway(*gateway),
                Target::Tunnel(IpAddr::V4(gateway)) => {
                    builder.gateway(*gateway).output_interface(index_of(names::TUNNEL, indexes)?).onlink()
                }
                Target::Unreachable => builder.kind(RouteType::Unreachable),
                Target::Gateway(IpAddr::V6(_), _)
                | Target::Via(IpAddr::V6(_))
                | Target::Tunnel(IpAddr::V6(_)) => {
                    return Err(Error::Config(format!("{} through an IPv6 gateway", route.destination)));
                }
            };
            Ok(with_metric(builder, metric).build())
        }
        IpAddr::V6(v6) => {
            let mut builder =
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, prefix_len).protocol(PROTOCOL);
            if let Some(IpAddr::V6(source)) = route.source {
                builder = builder.pref_source(source);
            }
            builder = match &route.target {
                Target::Interface(name) => builder.output_interface(index_of(name, indexes)?),
                Target::Gateway(IpAddr::V6(gateway), name) => {
                    builder.gateway(*gateway).output_interface(index_of(name, indexes)?)
                }
                Target::Via(IpAddr::V6(gateway)) => builder.gateway(*gateway),
                Target::Tunnel(IpAddr::V6(gateway)) => {
                    builder.gateway(*gateway).output_interface(index_of(names::TUNNEL, indexes)?).onlink()
                }
                Target::Unreachable => builder.kind(RouteType::Unreachable),
                Target::Gateway(IpAddr::V4(_), _)
                | Target::Via(IpAddr::V4(_))
                | Target::Tunnel(IpAddr::V4(_)) => {
                    return Err(Error::Config(format!("{} through an IPv4 gateway", route.destination)));
                }
            };
            Ok(with_metric(builder, metric).build())
        }
    }
}

fn with_metric<T>(builder: RouteMessageBuilder<T>, metric: Option<u32>) -> RouteMessageBuilder<T> {
    match metric {
        Some(metric) => builder.priority(metric),
        None => builder,
    }
}
