//! The tokens that pods find: in the usual place, and in volumes with an audience, modes and owners of their own.

use anyhow::{Context, Result, bail};

use super::field;
use crate::cluster::Cluster;
use crate::tools::{expect_in, read};

const NAMESPACE: &str = "tokens";
const USUAL: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}"))?;
    let manifest = cluster.manifest("tokens.yaml", PODS)?;
    cluster.kubectl(&format!("apply -n {NAMESPACE} -f {}", manifest.display()))?;
    cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod --all --timeout=90s"))?;
    in_the_usual_place(cluster)?;
    for (pod, mode) in [("plain", "644 0 0"), ("user", "600 1001 0"), ("group", "640 1001 10000")] {
        let found = exec(cluster, pod, &["stat", "-Lc", "%a %u %g", "/token/token"])?;
        if found != mode {
            bail!("the token of {pod} has {found:?}, it must have {mode:?}");
        }
        let token = exec(cluster, pod, &["cat", "/token/token"])?;
        expect_in(&review(cluster, &token, "vault")?, "true system:serviceaccount:tokens:default")?;
    }
    Ok(())
}

fn in_the_usual_place(cluster: &Cluster) -> Result<()> {
    let namespace = exec(cluster, "plain", &["cat", &format!("{USUAL}/namespace")])?;
    if namespace != NAMESPACE {
        bail!("the namespace's file says {namespace:?}");
    }
    let authority = exec(cluster, "plain", &["cat", &format!("{USUAL}/ca.crt")])?;
    let published = read(cluster.inside("kubectl").args([
        "get",
        "configmap",
        "kube-root-ca.crt",
        "-n",
        NAMESPACE,
        "-o",
        r"jsonpath={.data.ca\.crt}",
    ]))?;
    if authority != published {
        bail!("the authority's file is not what kube-root-ca.crt holds");
    }
    let token = exec(cluster, "plain", &["cat", &format!("{USUAL}/token")])?;
    let uid = field(cluster, NAMESPACE, "plain", ".metadata.uid")?;
    let answer = review(cluster, &token, "")?;
    expect_in(&answer, "true system:serviceaccount:tokens:default")?;
    expect_in(&answer, &uid)
}

fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String> {
    read(cluster.inside("kubectl").args(["exec", "-n", NAMESPACE, pod, "--"]).args(command))
}

/// What a TokenReview says: whether it holds, of whom, and of which pod.
fn review(cluster: &Cluster, token: &str, audience: &str) -> Result<String> {
    let audiences = if audience.is_empty() { String::new() } else { format!(", audiences: [{audience}]") };
    let review = format!(
        "{{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {{token: {token}{audiences}}}}}\n"
    );
    let path = cluster.manifest("review.yaml", &review)?;
    let shown = "jsonpath={.status.authenticated} {.status.user.username} {.status.user.extra}";
    read(cluster.inside("kubectl").args(["create", "-o", shown, "-f"]).arg(path)).context("a token review")
}

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 3600}}]}}]
  containers:
  - {name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"], volumeMounts: [{name: t, mountPath: /token}]}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1001}
  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 3600}}]}}]
  containers:
  - {name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"], volumeMounts: [{name: t, mountPath: /token}]}
---
apiVersion: v1
kind: Pod
metadata: {name: group}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1001, fsGroup: 10000}
  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 3600}}]}}]
  containers:
  - {name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"], volumeMounts: [{name: t, mountPath: /token}]}
"#;
