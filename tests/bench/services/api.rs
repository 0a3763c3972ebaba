//! An API server of services and slices, as much of it as a proxy asks for: lists in chunks, watches, events thrown
//! away. Objects are encoded once, so that what is measured is the agent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::stage::node::vip;
use crate::stage::server::{PORTS, WIRE_PORTS};

/// The service that loses and gets endpoints: its name, and its number among the cluster IPs.
pub(crate) const MOVING: (&str, usize) = ("m-moving", 2);
/// The ports of its two endpoints.
pub(crate) const MOVING_PORTS: [u16; 2] = [6001, 6002];

struct Shared {
    /// By resource, in order.
    objects: BTreeMap<&'static str, Vec<Bytes>>,
    watchers: broadcast::Sender<(&'static str, Bytes)>,
    revision: Mutex<u64>,
    server: IpAddr,
}

/// The server; it ends with the runtime it was started in.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// A service with a port for each protocol.
fn service(name: &str, number: usize, protocols: &[&str]) -> Value {
    let address = vip(number);
    let ports: Vec<Value> = protocols
        .iter()
        .map(|protocol| {
            json!({"name": protocol.to_lowercase(), "port": address.port(), "targetPort": 8080,
                "protocol": protocol})
        })
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "bench", "uid": format!("s-{number}"), "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": name}},
        "spec": {"type": "ClusterIP", "clusterIP": address.ip(), "clusterIPs": [address.ip()],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "selector": {"app": name},
            "ports": ports},
        "status": {"loadBalancer": {}},
    })
}

fn slice(name: &str, number: usize, protocols: &[&str], endpoints: &[SocketAddr], revision: u64) -> Value {
    let port = endpoints.first().map_or(8080, SocketAddr::port);
    let ports: Vec<Value> = protocols
        .iter()
        .map(|protocol| json!({"name": protocol.to_lowercase(), "port": port, "protocol": protocol}))
        .collect();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            json!({"addresses": [endpoint.ip()], "nodeName": "bench-node", "zone": "a",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("{name}-{}", endpoint.ip()),
                    "uid": format!("p-{number}")}})
        })
        .collect();
    json!({
        "metadata": {"name": format!("{name}-{port}"), "namespace": "bench", "uid": format!("e-{number}-{port}"),
            "resourceVersion": revision.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "generateName": format!("{name}-"),
            "labels": {"kubernetes.io/service-name": name, "app": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// The address of an endpoint of a service that nobody dials.
fn filler(number: usize, endpoint: usize, endpoints: usize) -> SocketAddr {
    let host = u32::try_from(number * endpoints + endpoint).expect("few endpoints");
    SocketAddr::new(IpAddr::V4((u32::from(Ipv4Addr::new(10, 128, 0, 0)) + host).into()), 8080)
}

impl Api {
    /// Makes `services` services: two that are dialled, one that moves, and others with `endpoints` each. By name the
    /// dialled ones are in the middle, where rules that are looked through one by one find them on average.
    pub(crate) fn new(services: usize, endpoints: usize, server: IpAddr) -> Self {
        let at = |port: u16| vec![SocketAddr::new(server, port)];
        let mut objects: BTreeMap<&'static str, Vec<Bytes>> = BTreeMap::new();
        let mut put = |resource, object: &Value| {
            objects.entry(resource).or_default().push(object.to_string().into());
        };
        for (number, (name, ports)) in [("m-dialled", PORTS), ("m-wire", WIRE_PORTS)].into_iter().enumerate()
        {
            put("services", &service(name, number, &["TCP", "UDP"]));
            // Each port is an endpoint, so each has a slice of its own.
            for port in ports {
                put("endpointslices", &slice(name, number, &["TCP", "UDP"], &at(port), 1));
            }
        }
        put("services", &service(MOVING.0, MOVING.1, &["UDP"]));
        put("endpointslices", &slice(MOVING.0, MOVING.1, &["UDP"], &at(MOVING_PORTS[0]), 1));
        for number in 3..services.max(3) {
            let name = format!("{}-{number:06}", if number.is_multiple_of(2) { "a" } else { "z" });
            put("services", &service(&name, number, &["TCP"]));
            let members: Vec<SocketAddr> =
                (0..endpoints).map(|endpoint| filler(number, endpoint, endpoints)).collect();
            put("endpointslices", &slice(&name, number, &["TCP"], &members, 1));
        }
        put("nodes", &json!({"metadata": {"name": "bench-node", "uid": "n", "resourceVersion": "1"}}));
        let shared =
            Shared { objects, watchers: broadcast::Sender::new(4096), revision: Mutex::new(10), server };
        Self(Arc::new(shared))
    }

    /// Serves over an already bound socket, until the runtime ends.
    pub(crate) async fn serve(self, listener: std::net::TcpListener) -> Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = Router::new().fallback(answer).with_state(self);
        Ok(axum::serve(listener, router).await?)
    }

    fn changed(&self, object: impl FnOnce(u64) -> Value) {
        let mut revision = self.0.revision.lock().unwrap_or_else(PoisonError::into_inner);
        *revision += 1;
        let frame = format!("{}\n", json!({"type": "MODIFIED", "object": object(*revision)}));
        // Nobody watches before the agent has started.
        let _ = self.0.watchers.send(("endpointslices", frame.into()));
    }

    /// Moves the moving service to its first or second endpoint.
    pub(crate) fn move_to(&self, which: usize) {
        let (name, number) = MOVING;
        let server = self.0.server;
        self.changed(|revision| {
            // The slice stays the same object: its name is that of the first port.
            let mut moved =
                slice(name, number, &["UDP"], &[SocketAddr::new(server, MOVING_PORTS[which])], revision);
            moved["metadata"]["name"] = format!("{name}-{}", MOVING_PORTS[0]).into();
            moved["metadata"]["uid"] = format!("e-{number}-{}", MOVING_PORTS[0]).into();
            moved
        });
    }

    /// Gives a service that nobody dials one endpoint more or less.
    pub(crate) fn resize(&self, number: usize, endpoints: usize, members: usize) {
        self.changed(|revision| {
            let name = format!("{}-{number:06}", if number.is_multiple_of(2) { "a" } else { "z" });
            let members: Vec<SocketAddr> =
                (0..members).map(|endpoint| filler(number, endpoint, endpoints)).collect();
            slice(&name, number, &["TCP"], &members, revision)
        });
    }
}

async fn answer(State(api): State<Api>, uri: Uri, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let known = ["services", "endpointslices", "nodes"];
    let Some(resource) = known.into_iter().find(|known| uri.path().ends_with(known)) else {
        // Events; whoever writes them goes on without.
        return StatusCode::NOT_FOUND.into_response();
    };
    if query.get("watch").is_some_and(|value| value != "false") {
        let changes = api.0.watchers.subscribe();
        let stream = futures::stream::unfold(changes, move |mut changes| async move {
            // One that lags behind has its watch ended, and lists again.
            loop {
                match changes.recv().await {
                    Ok((of, frame)) if of == resource => return Some((Ok::<_, Infallible>(frame), changes)),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        });
        return Response::new(Body::from_stream(stream));
    }
    let all = api.0.objects.get(resource).map_or(&[][..], Vec::as_slice);
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0).min(all.len());
    let to = from.saturating_add(number("limit").unwrap_or(usize::MAX)).min(all.len());
    let mut body = Vec::with_capacity(all[from..to].iter().map(|item| item.len() + 1).sum::<usize>() + 200);
    let token = if to < all.len() { to.to_string() } else { String::new() };
    let head = json!({"resourceVersion": "10", "continue": token});
    body.extend_from_slice(
        format!("{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{head},\"items\":[").as_bytes(),
    );
    for (index, item) in all[from..to].iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
