//! The files' vocabulary.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What it shows.
    #[serde(rename = "about")]
    pub(crate) _about: String,
    /// The proxy modes it is for, if not for all.
    pub(crate) modes: Option<Vec<String>>,
    pub(crate) steps: Vec<Step>,
}

/// Changes, then what must be so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Flows to open before anything changes, by name.
    #[serde(default)]
    pub(crate) open: BTreeMap<String, Dial>,
    #[serde(default)]
    pub(crate) apply: Vec<Object>,
    /// `policy/NAMESPACE/NAME`, `service/NAME` or `slice/NAME`.
    #[serde(default)]
    pub(crate) delete: Vec<String>,
    /// Ends the agents of these nodes and starts them again.
    #[serde(default)]
    pub(crate) restart: Vec<String>,
    #[serde(default)]
    pub(crate) check: Vec<Check>,
}

/// What is applied.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Object {
    /// A NetworkPolicy of namespace `a`, or of another.
    Policy {
        policy: String,
        #[serde(default)]
        namespace: Option<String>,
        spec: Value,
    },
    /// Other labels of a pod.
    Pod { pod: String, labels: Value },
    /// Labels of a namespace.
    Namespace { namespace: String, labels: Value },
    /// A Service.
    Service { service: String, spec: Value },
    /// An EndpointSlice; endpoints are names of the world.
    Slice { slice: String, of: String, ports: Value, endpoints: Vec<String> },
}

/// From where, to where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dial {
    pub(crate) from: String,
    /// `tcp NAME:PORT` or `udp NAME:PORT`; `NAME/6` is its IPv6 address; an address stands for itself.
    pub(crate) to: String,
}

/// What must be so.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Check {
    /// Fresh connections.
    Dial {
        from: Vec<String>,
        to: Vec<String>,
        /// These answer; or `refused`, or `dropped`; `itself`: who was dialled.
        answers: Vec<String>,
    },
    /// An open flow.
    Flow { flow: String, answers: Vec<String> },
    /// Something was denied, and it is known by which policies.
    Denied { denied: String, direction: String, by: String },
    /// What `skep net policy explain` says of `FROM -> TO`.
    Explain { explain: String, says: Vec<String> },
    /// These pods have programs of their own for policy, and no others.
    Policed { policed: Vec<String> },
}

/// What names stand for.
pub(crate) trait Names {
    /// An address of a name, and its node.
    fn place(&self, name: &str) -> Result<(String, String)>;
}

impl Object {
    /// Resource, key and object.
    pub(crate) fn build(&self, names: &impl Names) -> Result<(&'static str, String, Value)> {
        Ok(match self {
            Self::Policy { policy, namespace, spec } => {
                let namespace = namespace.as_deref().unwrap_or("a");
                let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec,
                    "metadata": {"name": policy, "namespace": namespace, "uid": policy}});
                ("networkpolicies", format!("{namespace}/{policy}"), object)
            }
            Self::Pod { .. } => anyhow::bail!("labels of pods are merged"),
            Self::Namespace { namespace, labels } => {
                ("namespaces", namespace.clone(), self::namespace(namespace, labels))
            }
            Self::Service { service, spec } => {
                let object = json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
                    "metadata": {"name": service, "namespace": "default", "uid": service}});
                ("services", service.clone(), object)
            }
            Self::Slice { slice, of, ports, endpoints } => {
                let endpoint = |name: &String| {
                    let (address, node) = names.place(name).with_context(|| format!("endpoint {name}"))?;
                    Ok(json!({"addresses": [address], "nodeName": node,
                        "conditions": {"ready": true, "serving": true, "terminating": false}}))
                };
                let endpoints = endpoints.iter().map(endpoint).collect::<Result<Vec<Value>>>()?;
                let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
                    "metadata": {"name": slice, "namespace": "default", "uid": slice,
                        "labels": {"kubernetes.io/service-name": of}}});
                ("endpointslices", slice.clone(), object)
            }
        })
    }
}

/// A namespace as the server has it: its name is a label too.
pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}});
    let mut all = labels.as_object().cloned().unwrap_or_default();
    all.insert("kubernetes.io/metadata.name".into(), name.into());
    object["metadata"]["labels"] = Value::Object(all);
    object
}
