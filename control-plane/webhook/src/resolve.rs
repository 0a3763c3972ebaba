//! From a service to addresses.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use rand::seq::SliceRandom;
use serde_json::Value;
use skep_api::object::ObjectExt;

use crate::Error;

/// Finds the addresses behind a service.
#[async_trait]
pub trait ServiceResolver: Send + Sync + 'static {
    /// The addresses behind a port of a service, in the order they are to be tried; never empty.
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Vec<SocketAddr>, Error>;
}

/// For a client that calls no services.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

#[async_trait]
impl ServiceResolver for NoServices {
    async fn resolve(&self, namespace: &str, name: &str, _port: u16) -> Result<Vec<SocketAddr>, Error> {
        Err(Error::Resolve(format!("service {namespace}/{name} can't be reached from here")))
    }
}

/// Where a service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To these addresses: ready endpoints in random order, then the service's own.
    Addresses(Vec<SocketAddr>),
    /// To a host outside.
    Name(String, u16),
}

/// Where a port of a service leads, given its EndpointSlices.
///
/// Endpoints are taken directly: the API server need not sit behind a service proxy, and a connection
/// never goes to an endpoint known not to be ready. The ClusterIP comes last, for the case that pods
/// can't be reached from here but the service can.
pub fn destination<'a>(
    service: &Value,
    slices: impl IntoIterator<Item = &'a Value>,
    port: u16,
) -> Result<Destination, Error> {
    let name = service.name();
    if service.text(&["spec", "type"]) == "ExternalName" {
        return Ok(Destination::Name(service.text(&["spec", "externalName"]).to_owned(), port));
    }
    let ports = service.items(&["spec", "ports"]);
    let known = ports.iter().find(|known| known.int(&["port"]) == Some(i64::from(port)));
    let Some(known) = known else {
        return Err(Error::Resolve(format!("no service port {port} found for service {name:?}")));
    };
    let mut found: Vec<SocketAddr> =
        slices.into_iter().flat_map(|slice| ready(slice, known.text(&["name"]))).collect();
    if found.is_empty() {
        return Err(Error::Resolve(format!("no endpoints available for service {name:?}")));
    }
    found.sort_unstable();
    found.dedup();
    found.shuffle(&mut rand::rng());
    if let Ok(address) = service.text(&["spec", "clusterIP"]).parse::<IpAddr>() {
        found.push(SocketAddr::new(address, port));
    }
    Ok(Destination::Addresses(found))
}

/// The ready endpoints of one slice.
fn ready<'a>(slice: &'a Value, port_name: &str) -> impl Iterator<Item = SocketAddr> + use<'a> {
    let port = slice.items(&["ports"]).iter().find(|port| port.text(&["name"]) == port_name);
    let port = port.and_then(|port| port.int(&["port"])).and_then(|port| u16::try_from(port).ok());
    slice.items(&["endpoints"]).iter().filter_map(move |endpoint| {
        let ready = endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true);
        let address = endpoint.items(&["addresses"]).first()?.as_str()?.parse().ok()?;
        ready.then_some(SocketAddr::new(address, port?))
    })
}
