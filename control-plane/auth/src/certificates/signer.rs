//! The built-in signers and what they take.

use super::Request;

/// Certificates that the API server takes for clients.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Certificates of nodes as clients of the API server.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Certificates that kubelets serve with.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// What nobody promises anything about.
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODE: &str = "system:node:";

/// The kinds of names that a request may not hold.
fn no_names(request: &Request, dns: bool, ips: bool) -> Result<(), String> {
    let refused = [
        (dns && !request.dns_names.is_empty(), "DNS"),
        (request.emails > 0, "Email"),
        (ips && !request.addresses.is_empty(), "IP"),
        (request.uris > 0, "URI"),
    ];
    match refused.into_iter().find(|(there, _)| *there) {
        Some((_, kind)) => Err(format!("{kind} subjectAltNames are not allowed")),
        None => Ok(()),
    }
}

fn is_node(request: &Request) -> Result<(), String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    if request.common_name.strip_prefix(NODE).is_none_or(str::is_empty) {
        return Err(format!("subject common name does not begin with {NODE}"));
    }
    Ok(())
}

/// With RSA keys a key is enciphered, with others it is not: both sets of usages are right.
fn usages_are(usages: &[String], purpose: &str) -> Result<(), String> {
    let wanted = ["key encipherment", "digital signature", purpose];
    let all = usages.iter().all(|usage| wanted.contains(&usage.as_str()));
    let has = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    if all && has("digital signature") && has(purpose) {
        Ok(())
    } else {
        Err(format!("usages did not match {wanted:?}"))
    }
}

/// Is it a node's request for a client certificate.
pub fn is_node_client(request: &Request, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    no_names(request, true, true)?;
    usages_are(usages, "client auth")
}

/// Is it a node's request for a serving certificate.
pub fn is_node_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    no_names(request, false, false)?;
    usages_are(usages, "server auth")
}

/// Does the signer take the request. `None`: it is not one of ours.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        API_CLIENT => Some(client_usages(usages)),
        KUBELET_CLIENT => Some(is_node_client(request, usages)),
        KUBELET_SERVING => Some(is_node_serving(request, usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        Ok(())
    } else {
        Err("missing required usage for client certificate: client auth".into())
    }
}
