//! Pods as far as policies look at them: every node keeps all pods of the cluster, so what is kept of each is little.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize};
use skep_api::resource::GroupVersionResource;
use skep_client::{Api, Client, Stored};

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodBrief {
    /// Name, namespace, uid, revision and labels.
    #[serde(deserialize_with = "trimmed")]
    pub metadata: ObjectMeta,
    /// Of its spec.
    #[serde(default)]
    pub spec: Spec,
    /// Of its status.
    #[serde(default)]
    pub status: Status,
}

/// What of the spec counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Its node.
    pub node_name: Option<String>,
    /// In the node's network.
    pub host_network: bool,
    /// The containers.
    pub containers: Vec<Container>,
    /// The init containers, of which sidecars go on.
    pub init_containers: Vec<Container>,
}

/// What of a container counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// `Always` makes an init container a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Its ports.
    pub ports: Vec<ContainerPort>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its name, by which policies may name it.
    pub name: Option<String>,
    /// Its number.
    pub container_port: i32,
    /// Its protocol.
    pub protocol: Option<String>,
}

/// What of the status counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Whether it is over.
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodIp {
    /// It.
    pub ip: String,
}

/// Managed fields and annotations are most of an object.
fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let ObjectMeta { name, namespace, uid, resource_version, labels, .. } =
        ObjectMeta::deserialize(deserializer)?;
    Ok(ObjectMeta { name, namespace, uid, resource_version, labels, ..ObjectMeta::default() })
}

impl Stored for PodBrief {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// All pods.
pub(crate) fn pods(client: &Client) -> Api<PodBrief> {
    client.resource(GroupVersionResource::new("", "v1", "pods"), None)
}
