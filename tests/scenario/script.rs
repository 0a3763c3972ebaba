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
    /// The behaviours of `checklist.txt`, and of the conformance list, that it holds.
    #[serde(default)]
    pub(crate) holds: Vec<String>,
    /// The back ends it is for, if not for all.
    pub(crate) modes: Option<Vec<String>>,
    pub(crate) steps: Vec<Step>,
}

/// Changes, then what must be so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) apply: Vec<Object>,
    /// `service/NAME` or `slice/NAME`.
    #[serde(default)]
    pub(crate) delete: Vec<String>,
    /// Labels and taints of the node, merged into it.
    pub(crate) node: Option<Value>,
    /// Words for `ip` in the node, before anything else.
    #[serde(default)]
    pub(crate) ip: Vec<String>,
    /// Ports of pods that are bound on the node, by pod: `ports` of a container. Pods that are not named keep theirs.
    #[serde(default)]
    pub(crate) bind: BTreeMap<String, Value>,
    /// Ends the proxy and starts it again, in this mode if one is given, and with these options.
    pub(crate) restart: Option<Restart>,
    /// Removes all rules behind the proxy's back.
    #[serde(default)]
    pub(crate) flush: bool,
    /// Flows to open, by name.
    #[serde(default)]
    pub(crate) open: BTreeMap<String, Dial>,
    #[serde(default)]
    pub(crate) check: Vec<Check>,
}

/// How the proxy comes back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    pub(crate) mode: Option<String>,
    /// Until the next `bind` nobody tells the proxy which ports are bound.
    #[serde(default)]
    pub(crate) blind: bool,
    #[serde(default)]
    pub(crate) options: Options,
}

/// Options of the proxy, as kube-proxy names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Options {
    pub(crate) masquerade_all: bool,
    pub(crate) maglev: bool,
    pub(crate) node_port_addresses: Vec<String>,
}

/// A service, or some of its endpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Object {
    /// A Service: `spec` and `status` as the API has them.
    Service {
        service: String,
        spec: Value,
        #[serde(default)]
        labels: Value,
        #[serde(default)]
        status: Value,
    },
    /// An EndpointSlice.
    Slice {
        /// The slice's name.
        slice: String,
        /// Its service's name.
        of: String,
        /// As the API has them.
        ports: Value,
        #[serde(default)]
        v6: bool,
        endpoints: Vec<Endpoint>,
    },
}

/// An endpoint: a pod, or one with conditions and hints.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Endpoint {
    Name(String),
    Full {
        pod: String,
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
        hints: Option<Value>,
    },
}

/// From where, to where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dial {
    /// A name of the world; `POD/wire`: past the programs of sockets, as a pod that has opted out.
    pub(crate) from: String,
    /// `tcp ADDRESS:PORT` or `udp ADDRESS:PORT`; `udp-each`: over a socket that is not connected.
    pub(crate) to: String,
}

/// What must be so.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Check {
    /// Fresh connections.
    Dial {
        from: Vec<String>,
        to: String,
        /// Exactly these pods answer; or `refused`, or `dropped`.
        answers: Vec<String>,
        /// Whose address the pods see: a name of the world, or `self` for the one who asks.
        sees: Option<String>,
        /// Every connection of one asker leads to the same pod.
        #[serde(default)]
        sticky: bool,
        count: Option<usize>,
        /// Milliseconds between connections.
        #[serde(default)]
        gap: u64,
        /// Milliseconds that it may take to come true.
        patience: Option<u64>,
        /// Bytes of a question, and of its answer.
        size: Option<usize>,
    },
    /// An open flow.
    Flow { flow: String, answers: Vec<String> },
    /// Open flows, each by itself.
    Flows { flows: Vec<String>, answers: Vec<String> },
    /// A GET to a port of the node.
    Get { get: String, status: u16, body: Option<String> },
    /// The kernel holds nothing of these modes.
    Left { left: Vec<String> },
}

/// What names stand for.
pub(crate) trait Names {
    /// A pod's address of a family, and its node.
    fn pod(&self, name: &str, v6: bool) -> Result<(String, String)>;
}

impl Object {
    /// Resource, name and object.
    pub(crate) fn build(&self, names: &impl Names) -> Result<(&'static str, String, Value)> {
        Ok(match self {
            Self::Service { service, spec, labels, status } => {
                let mut object = json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
                    "metadata": {"name": service, "namespace": "default", "uid": service}});
                if !labels.is_null() {
                    object["metadata"]["labels"] = labels.clone();
                }
                if !status.is_null() {
                    object["status"] = status.clone();
                }
                ("services", service.clone(), object)
            }
            Self::Slice { slice, of, ports, v6, endpoints } => {
                let endpoints: Vec<Value> =
                    endpoints.iter().map(|endpoint| endpoint.build(names, *v6)).collect::<Result<_>>()?;
                let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "addressType": if *v6 { "IPv6" } else { "IPv4" }, "ports": ports, "endpoints": endpoints,
                    "metadata": {"name": slice, "namespace": "default", "uid": slice,
                        "labels": {"kubernetes.io/service-name": of}}});
                ("endpointslices", slice.clone(), object)
            }
        })
    }
}

impl Endpoint {
    fn build(&self, names: &impl Names, v6: bool) -> Result<Value> {
        let (pod, conditions, hints) = match self {
            Self::Name(pod) => (pod, json!({"ready": true, "serving": true, "terminating": false}), None),
            Self::Full { pod, ready, serving, terminating, hints } => {
                let ready = ready.unwrap_or(true);
                let conditions = json!({"ready": ready, "serving": serving.unwrap_or(ready),
                    "terminating": terminating.unwrap_or(false)});
                (pod, conditions, hints.clone())
            }
        };
        let (address, node) = names.pod(pod, v6).with_context(|| format!("endpoint {pod}"))?;
        let mut object = json!({"addresses": [address], "nodeName": node, "conditions": conditions});
        if let Some(hints) = hints {
            object["hints"] = hints;
        }
        Ok(object)
    }
}
