//! What the cluster publishes of its authorities: to servers that are aggregated, and to machines that
//! want to join.

use serde_json::{Value, json};

use super::Trust;

fn map(namespace: &str, name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    })
}

/// `extension-apiserver-authentication`: how an aggregated server finds out who asks.
pub(super) fn authentication(trust: &Trust) -> Option<Value> {
    if trust.client_ca.is_empty() {
        return None;
    }
    let mut data = json!({"client-ca-file": trust.client_ca});
    if !trust.front_proxy_ca.is_empty() {
        let headers = &trust.front_proxy_headers;
        let list = |list: &[String]| json!(list).to_string().into();
        let told: [(&str, Value); 6] = [
            ("requestheader-client-ca-file", trust.front_proxy_ca.as_str().into()),
            ("requestheader-allowed-names", list(&trust.front_proxy_names)),
            ("requestheader-username-headers", list(&headers.username)),
            ("requestheader-uid-headers", list(&headers.uid)),
            ("requestheader-group-headers", list(&headers.group)),
            ("requestheader-extra-headers-prefix", list(&headers.extra_prefix)),
        ];
        for (key, value) in told {
            data[key] = value;
        }
    }
    Some(map("kube-system", "extension-apiserver-authentication", &data))
}

/// `cluster-info`: where the cluster is, for machines that do not trust it yet. Signatures with bootstrap
/// tokens are added by a controller.
pub(super) fn cluster_info(trust: &Trust) -> Option<Value> {
    use base64::Engine;
    if trust.cluster_ca.is_empty() || trust.url.is_empty() {
        return None;
    }
    let authority = base64::engine::general_purpose::STANDARD.encode(&trust.cluster_ca);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    \
         certificate-authority-data: {authority}\n    server: {}\ncontexts: []\ncurrent-context: \"\"\n\
         users: []\n",
        trust.url
    );
    Some(map("kube-public", "cluster-info", &json!({"kubeconfig": kubeconfig})))
}
