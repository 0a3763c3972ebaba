//! This node's endpoints of the cluster's DNS.
//!
//! The service itself is the API server's: without a selector. The endpoints are hinted at their own nodes, so that
//! each node's pods are answered by it for as long as it does, and then by others.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use serde_json::json;
use skep_client::{Client, Error, ListParams, Result};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::feed::SERVICE_LABEL;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const MANAGER: &str = "dns.skep";
/// How often the slices are looked at when nothing happens.
const PERIOD: Duration = Duration::from_secs(60);
const BACK_OFF: Duration = Duration::from_secs(2);
/// How long an answerer may take to become ready before others are to be asked.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What the proxies need to follow it.
const SETTLE: Duration = Duration::from_millis(300);

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

/// Keeps this node's EndpointSlices of the DNS service true until cancelled: ready when the answerer is.
///
/// An answerer that is not ready has [`PATIENCE`] to become so, for an earlier life's word still stands and it answers
/// with what that knew. The last word is that it is not ready, if others are.
pub async fn advertise(
    client: Client,
    what: Advertisement,
    mut ready: watch::Receiver<bool>,
    cancel: CancellationToken,
) {
    let mut told = false;
    let keep = async {
        loop {
            // When the answerer is gone, its last word stands.
            let becomes_ready = async { ready.wait_for(|ready| *ready).await.is_ok() };
            let is_ready = match time::timeout(PATIENCE, becomes_ready).await {
                Ok(true) => true,
                Ok(false) => return std::future::pending().await,
                Err(_) => false,
            };
            let pause = match publish(&client, &what, is_ready).await {
                Ok(()) => {
                    told = is_ready;
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot advertise DNS; trying again"
                    );
                    BACK_OFF
                }
            };
            let changes = async { ready.wait_for(|ready| *ready != is_ready).await.is_ok() };
            if !time::timeout(pause, changes).await.unwrap_or(true) {
                return std::future::pending().await;
            }
        }
    };
    cancel.run_until_cancelled(keep).await;
    if told && time::timeout(LAST_WORD, hand_over(&client, &what)).await.is_err() {
        tracing::warn!("the API server does not hear that DNS ends here");
    }
}

/// Leaves the node's pods to the answerers of other nodes, if there are any; the proxy has time to see to it.
async fn hand_over(client: &Client, what: &Advertisement) {
    let params = ListParams::labels(format!("{SERVICE_LABEL}={NAME}"));
    let outcome = async {
        let slices = client.namespaced::<EndpointSlice>(NAMESPACE).list(&params).await?;
        let others = slices.items.iter().any(|slice| is_served_by_another(slice, &what.node_name));
        if others {
            publish(client, what, false).await?;
            time::sleep(SETTLE).await;
        }
        Ok::<_, Error>(others)
    };
    match outcome.await {
        Ok(handed_over) => tracing::info!(handed_over, "DNS ends here"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot hand DNS over"),
    }
}

fn is_served_by_another(slice: &EndpointSlice, node: &str) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| {
        endpoint.node_name.as_deref().is_some_and(|name| name != node)
            && endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
    })
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
    Ok(())
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
                   "conditions": {"ready": ready, "serving": ready, "terminating": false},
                   // This node's pods are answered here, those of others when theirs do not answer.
                   "hints": {"forNodes": [{"name": what.node_name}]}})
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
    use std::{
        collections::BTreeMap,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
    };

    use axum::{
        Json, Router,
        extract::Path,
        http::StatusCode,
        routing::{get, post},
    };
    use serde_json::Value;

    use super::*;

    /// The slices that the API holds, by name, and how often they were written.
    #[derive(Default)]
    struct FakeApi {
        slices: Mutex<BTreeMap<String, Value>>,
        writes: AtomicU32,
    }

    impl FakeApi {
        fn client(self: &Arc<Self>) -> Client {
            let folder = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices";
            let (reads, creates, replaces) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
            let lists = Arc::clone(self);
            let list = move || async move {
                let items: Vec<Value> =
                    lists.slices.lock().expect("not poisoned").values().cloned().collect();
                Json(
                    json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {}, "items": items}),
                )
            };
            let read = move |Path(name): Path<String>| async move {
                match reads.slices.lock().expect("not poisoned").get(&name) {
                    Some(slice) => (StatusCode::OK, Json(slice.clone())),
                    None => absent(),
                }
            };
            let create = move |Json(slice): Json<Value>| async move {
                let name = slice["metadata"]["name"].as_str().expect("a name").to_owned();
                (StatusCode::CREATED, Json(creates.write(name, slice)))
            };
            let replace = move |Path(name): Path<String>, Json(slice): Json<Value>| async move {
                Json(replaces.write(name, slice))
            };
            let node =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "node-uid"}});
            let router = Router::new()
                .route(folder, post(create).get(list))
                .route(&format!("{folder}/{{name}}"), get(read).put(replace))
                .route("/api/v1/nodes/n1", get(|| async { Json(node) }))
                .fallback(|| async { absent() });
            Client::in_process(router, skep_api::user::UserInfo::default())
        }

        fn write(&self, name: String, mut slice: Value) -> Value {
            let count = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
            slice["metadata"]["resourceVersion"] = count.to_string().into();
            self.slices.lock().expect("not poisoned").insert(name, slice.clone());
            slice
        }

        fn ready(&self, name: &str) -> Value {
            self.slices.lock().expect("not poisoned")[name]["endpoints"][0]["conditions"]["ready"].clone()
        }
    }

    fn absent() -> (StatusCode, Json<Value>) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
        (StatusCode::NOT_FOUND, Json(status))
    }

    #[tokio::test]
    async fn a_slice_a_family_follows_readiness_and_is_written_only_when_it_changes() {
        let api = Arc::new(FakeApi::default());
        let client = api.client();
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into();
        let what = Advertisement { node_name: "n1".into(), addresses, port: 10053 };
        for ready in [false, true] {
            for _ in 0..2 {
                publish(&client, &what, ready).await.expect("is published");
            }
            for name in ["kube-dns-n1-ipv4", "kube-dns-n1-ipv6"] {
                assert_eq!(api.ready(name), ready);
            }
        }
        assert_eq!(api.writes.load(Ordering::Relaxed), 4, "two made, two changed");
        let slices = api.slices.lock().expect("not poisoned");
        let one = &slices["kube-dns-n1-ipv4"];
        assert_eq!(one["metadata"]["labels"][SERVICE_LABEL], NAME);
        assert_eq!(one["metadata"]["ownerReferences"][0]["uid"], "node-uid");
        assert_eq!(one["endpoints"][0]["nodeName"], "n1");
        assert_eq!(one["endpoints"][0]["hints"]["forNodes"][0]["name"], "n1");
        let ports: Vec<_> =
            one["ports"].as_array().expect("ports").iter().map(|port| &port["name"]).collect();
        assert_eq!(ports, ["dns", "dns-tcp"]);
    }

    fn one() -> Advertisement {
        let addresses = vec!["192.0.2.1".parse().expect("an address")];
        Advertisement { node_name: "n1".into(), addresses, port: 10053 }
    }

    /// Waits, by the paused clock, until the API has this said of the node.
    async fn until(api: &FakeApi, ready: bool) {
        while api.slices.lock().expect("not poisoned").get("kube-dns-n1-ipv4").is_none()
            || api.ready("kube-dns-n1-ipv4") != ready
        {
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_word_stands_while_the_answerer_starts() {
        let api = Arc::new(FakeApi::default());
        publish(&api.client(), &one(), true).await.expect("is published");
        let (say, ready) = watch::channel(false);
        let cancel = CancellationToken::new();
        let keep = tokio::spawn(advertise(api.client(), one(), ready, cancel.clone()));
        time::sleep(PATIENCE - Duration::from_secs(1)).await;
        assert_eq!(api.ready("kube-dns-n1-ipv4"), true);
        until(&api, false).await;
        say.send_replace(true);
        until(&api, true).await;
        // There is nobody else: the word stands.
        cancel.cancel();
        keep.await.expect("no panic");
        assert_eq!(api.ready("kube-dns-n1-ipv4"), true);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_leaves_the_pods_to_others() {
        let api = Arc::new(FakeApi::default());
        let two = Advertisement { node_name: "n2".into(), ..one() };
        publish(&api.client(), &two, true).await.expect("is published");
        let (_say, ready) = watch::channel(true);
        let cancel = CancellationToken::new();
        let keep = tokio::spawn(advertise(api.client(), one(), ready, cancel.clone()));
        until(&api, true).await;
        cancel.cancel();
        keep.await.expect("no panic");
        assert_eq!(api.ready("kube-dns-n1-ipv4"), false);
        assert_eq!(api.ready("kube-dns-n2-ipv4"), true);
    }
}
