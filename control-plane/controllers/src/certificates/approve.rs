//! Which requests are a node's, and what must hold for them.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use skep_auth::certificates::{Request, signer};

/// A request that may be approved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The right its author needs, as a subresource of requests.
    pub(super) asks: Option<&'static str>,
    /// What is written down.
    pub(super) message: &'static str,
}

/// `node` is the one the request is for, if it is there.
pub(super) fn recognize(
    csr: &CertificateSigningRequest,
    request: &Request,
    node: Option<&Node>,
) -> Option<Verdict> {
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    let own = csr.spec.username.as_deref() == Some(request.common_name());
    match csr.spec.signer_name.as_str() {
        signer::KUBELET_CLIENT if signer::is_node_client(request, usages).is_ok() => Some(if own {
            Verdict {
                asks: Some("selfnodeclient"),
                message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
            }
        } else {
            Verdict {
                asks: Some("nodeclient"),
                message: "Auto approving kubelet client certificate after SubjectAccessReview.",
            }
        }),
        // Only for itself, and only under the names that its Node object has.
        signer::KUBELET_SERVING if own && signer::is_node_serving(request, usages).is_ok() => {
            node.filter(|node| names_are_its(request, node)).map(|_| Verdict {
                asks: None,
                message: "Auto approving kubelet serving certificate: its names are the node's.",
            })
        }
        _ => None,
    }
}

fn names_are_its(request: &Request, node: &Node) -> bool {
    let addresses: Vec<&str> = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
        .map(|address| address.address.as_str())
        .collect();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let is_address = |ip: &IpAddr| addresses.iter().any(|own| own.parse() == Ok(*ip));
    request.addresses().iter().all(is_address)
        && request.dns_names().iter().all(|dns| dns == name || addresses.contains(&dns.as_str()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn csr(signer: &str, user: &str, usage: &str, names: &[&str]) -> (CertificateSigningRequest, Request) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let spec = CertificateSigningRequestSpec {
            request: ByteString(pem.clone().into_bytes()),
            signer_name: signer.to_owned(),
            username: Some(user.to_owned()),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        };
        let csr = CertificateSigningRequest { spec, ..CertificateSigningRequest::default() };
        (csr, Request::from_pem(pem.as_bytes()).expect("reads"))
    }

    fn node() -> Node {
        let address = |kind: &str, address: &str| NodeAddress { type_: kind.into(), address: address.into() };
        Node {
            metadata: ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() },
            status: Some(NodeStatus {
                addresses: Some(vec![address("InternalIP", "192.0.2.1"), address("Hostname", "host-a")]),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn nodes_get_what_is_theirs() {
        let asked = |signer, user, usage, names: &[&str]| {
            let (csr, request) = csr(signer, user, usage, names);
            recognize(&csr, &request, Some(&node())).map(|verdict| verdict.asks)
        };
        let (client, serving) = (signer::KUBELET_CLIENT, signer::KUBELET_SERVING);
        assert_eq!(asked(client, "system:bootstrap:abcdef", "client auth", &[]), Some(Some("nodeclient")));
        assert_eq!(asked(client, "system:node:a", "client auth", &[]), Some(Some("selfnodeclient")));
        assert_eq!(asked(client, "system:node:a", "server auth", &[]), None);
        assert_eq!(asked(serving, "system:node:a", "server auth", &["a", "host-a", "192.0.2.1"]), Some(None));
        assert_eq!(asked(serving, "system:node:a", "server auth", &["a", "192.0.2.2"]), None);
        assert_eq!(asked(serving, "system:node:a", "server auth", &["kubernetes.default.svc"]), None);
        assert_eq!(asked(serving, "system:node:b", "server auth", &["a"]), None);
        assert_eq!(asked(signer::API_CLIENT, "system:node:a", "client auth", &[]), None);
        let (csr, request) = csr(serving, "system:node:a", "server auth", &["a"]);
        assert_eq!(recognize(&csr, &request, None), None, "before the node is there");
    }
}
