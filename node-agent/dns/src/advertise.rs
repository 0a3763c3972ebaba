//! The Service of the cluster's DNS, and this node's endpoints of it.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::json;
use skep_client::{Client, Error, Result};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::feed::SERVICE_LABEL;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const MANAGER: &str = "dns.skep";
/// How often the slices are looked at when nothing happens.
const PERIOD: Duration = Duration::from_secs(60);
const BACK_OFF: Duration = Duration::from_secs(2);

/// Where this node answers.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// The node's name.
    pub node_name: String,
    /// Its addresses that are answered on.
    pub addresses: Vec<IpAddr>,
    /// The port, UDP and TCP.
    pub port: u16,
}

/// The Service that leads to the answerers: without a selector, and local to each node. Made by whoever may,
/// once a cluster.
///
/// # Panics
/// Never: its fields are those of the type.
#[must_use]
pub fn service(cluster_ips: &[IpAddr], port: u16) -> Service {
    let first = cluster_ips.first().map(ToString::to_string);
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": port});
    let families: Vec<&str> =
        cluster_ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    serde_json::from_value(json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first,
            "clusterIPs": cluster_ips,
            "ipFamilies": families,
            "ipFamilyPolicy": policy,
            "internalTrafficPolicy": "Local",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    }))
    .expect("a service")
}

/// Keeps this node's EndpointSlices of the DNS service true until cancelled: ready when the answerer is.
pub async fn advertise(
    client: Client,
    what: Advertisement,
    mut ready: watch::Receiver<bool>,
    cancel: CancellationToken,
) {
    let keep = async {
        loop {
            let is_ready = *ready.borrow_and_update();
            let pause = match publish(&client, &what, is_ready).await {
                Ok(()) => PERIOD,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot advertise DNS; trying again"
                    );
                    BACK_OFF
                }
            };
            // Cancel-safe. When the answerer is gone, its last word stands.
            tokio::select! {
                changed = ready.changed() => if changed.is_err() { time::sleep(pause).await },
                () = time::sleep(pause) => {}
            }
        }
    };
    cancel.run_until_cancelled(keep).await;
}

async fn publish(client: &Client, what: &Advertisement, ready: bool) -> Result<()> {
    let api = client.namespaced::<EndpointSlice>(NAMESPACE);
    // The slice goes with the node.
    let node = client.all::<Node>().get_opt(&what.node_name).await?;
    let owner = node.and_then(|node| node.metadata.uid);
    for family in ["IPv4", "IPv6"] {
        let ips: Vec<IpAddr> =
            what.addresses.iter().copied().filter(|ip| ip.is_ipv4() == (family == "IPv4")).collect();
        if ips.is_empty() {
            continue;
        }
        let wanted = slice(what, family, &ips, ready, owner.as_deref());
        let name = slice_name(&what.node_name, family);
        match api.get_opt(&name).await? {
            None => match api.create(&wanted).await {
                // The next pass sees what is there.
                Err(error) if error.is_already_exists() => {}
                outcome => drop(outcome?),
            },
            Some(there) if same(&there, &wanted) => {}
            Some(there) => {
                let mut wanted = wanted;
                wanted.metadata.resource_version = there.metadata.resource_version;
                drop(api.replace(&name, &wanted).await?);
            }
        }
    }
    Ok::<(), Error>(())
}

fn slice_name(node: &str, family: &str) -> String {
    format!("{NAME}-{node}-{}", family.to_ascii_lowercase())
}

fn slice(
    what: &Advertisement,
    family: &str,
    ips: &[IpAddr],
    ready: bool,
    owner: Option<&str>,
) -> EndpointSlice {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": what.port, "protocol": protocol});
    let endpoints: Vec<_> = ips
        .iter()
        .map(|ip| {
            json!({"addresses": [ip], "nodeName": what.node_name,
                   "conditions": {"ready": ready, "serving": ready, "terminating": false}})
        })
        .collect();
    let owners: Vec<_> = owner
        .map(|uid| json!({"apiVersion": "v1", "kind": "Node", "name": what.node_name, "uid": uid}))
        .into_iter()
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": slice_name(&what.node_name, family),
            "namespace": NAMESPACE,
            "labels": {SERVICE_LABEL: NAME, "endpointslice.kubernetes.io/managed-by": MANAGER},
            "ownerReferences": owners,
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
    }))
    .expect("an endpoint slice")
}

fn same(there: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    there.endpoints == wanted.endpoints
        && there.ports == wanted.ports
        && there.metadata.labels == wanted.metadata.labels
        && there.metadata.owner_references.as_deref().unwrap_or_default()
            == wanted.metadata.owner_references.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_and_its_slices_fit_together() {
        let ips: Vec<IpAddr> = ["10.96.0.10", "fd00::a"].map(|ip| ip.parse().expect("an address")).into();
        let made = service(&ips, 10053);
        let spec = made.spec.expect("a spec");
        assert_eq!(spec.selector, None);
        assert_eq!(spec.internal_traffic_policy.as_deref(), Some("Local"));
        assert_eq!(spec.ip_family_policy.as_deref(), Some("RequireDualStack"));
        let what = Advertisement { node_name: "n1".into(), addresses: ips.clone(), port: 10053 };
        let one = slice(&what, "IPv4", &ips[..1], true, Some("uid"));
        let names = |ports: Vec<Option<String>>| ports.into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(
            names(one.ports.clone().expect("ports").into_iter().map(|port| port.name).collect()),
            names(spec.ports.expect("ports").into_iter().map(|port| port.name).collect()),
        );
        assert!(same(&one, &one.clone()));
        assert!(!same(&one, &slice(&what, "IPv4", &ips[..1], false, Some("uid"))));
    }
}
