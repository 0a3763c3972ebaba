//! Bad input gets the answer that kubectl users know, and nothing is stored.

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::tools::expect_in;

/// A manifest that must be refused, and what kubectl must say.
struct Case {
    name: &'static str,
    manifest: &'static str,
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "broken YAML",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad\n",
        says: &["error parsing"],
    },
    Case {
        name: "unknown field",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {}\nbogus: 1\n",
        says: &["strict decoding error: unknown field \"bogus\""],
    },
    Case {
        name: "missing required field",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: 1}\n",
        says: &["is invalid", "spec.selector: Required value"],
    },
    Case {
        name: "wrong type",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: three, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}\n",
        says: &["replicas", "int32"],
    },
    Case {
        name: "a name that is not DNS-1123",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n",
        says: &["The ConfigMap \"Bad_Name\" is invalid", "metadata.name: Invalid value", "RFC 1123"],
    },
];

/// Every case, and a conflict.
pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    for case in CASES {
        refuse(cluster, case).with_context(|| case.name.to_owned())?;
    }
    conflict(cluster)?;
    let stored = cluster.kubectl("get configmaps,deployments -o name")?;
    if stored.contains("bad") {
        bail!("something bad was stored:\n{stored}");
    }
    Ok(())
}

fn refuse(cluster: &Cluster, case: &Case) -> Result<()> {
    let path = cluster.manifest("bad.yaml", case.manifest)?;
    for verb in ["create", "apply"] {
        let error = cluster.kubectl_fails(&format!("{verb} -f {}", path.display()))?;
        for part in case.says {
            expect_in(&error, part)?;
        }
    }
    eprintln!("  ok: {} is refused", case.name);
    Ok(())
}

/// Two writers read the same object; the second to write is told so.
fn conflict(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create configmap contested --from-literal=a=1")?;
    let old = cluster.kubectl("get configmap contested -o yaml")?;
    cluster.kubectl("label configmap contested first=yes")?;
    let path = cluster.manifest("old.yaml", &old)?;
    let error = cluster.kubectl_fails(&format!("replace -f {}", path.display()))?;
    expect_in(
        &error,
        "the object has been modified; please apply your changes to the latest version and try again",
    )?;
    cluster.kubectl("delete configmap contested")?;
    eprintln!("  ok: a conflict is refused");
    Ok(())
}
