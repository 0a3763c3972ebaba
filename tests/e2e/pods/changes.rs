//! What changes in the API changes in the files of running pods; what is optional may come, change and go.

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::tools::{eventually, read};

const NAMESPACE: &str = "changes";

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}"))?;
    let manifest = cluster.manifest("changes.yaml", OBJECTS)?;
    cluster.kubectl(&format!("apply -n {NAMESPACE} -f {}", manifest.display()))?;
    cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/reader --timeout=90s"))?;
    shows(cluster, "as they began", BEGAN)?;
    for step in [
        "patch configmap data -p {\"data\":{\"a\":\"changed\"}}",
        "patch configmap goes -p {\"data\":{\"a\":\"changed\"}}",
        "patch secret goes -p {\"stringData\":{\"a\":\"changed\"}}",
        "create configmap comes --from-literal=a=came",
        "create secret generic comes --from-literal=a=came",
        "label pod reader mood=glad --overwrite",
        "annotate pod reader mood=glad --overwrite",
    ] {
        cluster.kubectl(&format!("-n {NAMESPACE} {step}"))?;
    }
    shows(cluster, "changed", CHANGED)?;
    cluster.kubectl(&format!("-n {NAMESPACE} delete configmap/goes secret/goes"))?;
    shows(cluster, "gone", GONE)
}

fn shows(cluster: &Cluster, when: &str, expected: &str) -> Result<()> {
    eventually(&format!("the files are {when}"), super::PATIENCE, || {
        let script = "cd /all; for f in */*; do echo $f $(cat $f); done | sort";
        let found = read(
            cluster.inside("kubectl").args(["exec", "-n", NAMESPACE, "reader", "--", "sh", "-c", script]),
        )?;
        if found != expected.trim() {
            bail!("{found}\nexpected\n{expected}");
        }
        Ok(())
    })
    .map(drop)
}

const BEGAN: &str = r#"
goes-map/a first
goes-secret/a first
info/annotations sad
info/labels mood="sad"
map/a first
p-goes-map/a first
p-goes-secret/a first
p-info/annotations sad
p-info/labels mood="sad"
p-map/a first
"#;

const CHANGED: &str = r#"
comes-map/a came
comes-secret/a came
goes-map/a changed
goes-secret/a changed
info/annotations glad
info/labels mood="glad"
map/a changed
p-comes-map/a came
p-comes-secret/a came
p-goes-map/a changed
p-goes-secret/a changed
p-info/annotations glad
p-info/labels mood="glad"
p-map/a changed
"#;

const GONE: &str = r#"
comes-map/a came
comes-secret/a came
info/annotations glad
info/labels mood="glad"
map/a changed
p-comes-map/a came
p-comes-secret/a came
p-info/annotations glad
p-info/labels mood="glad"
p-map/a changed
"#;

const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: data}
data: {a: first}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: goes}
data: {a: first}
---
apiVersion: v1
kind: Secret
metadata: {name: goes}
stringData: {a: first}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {mood: sad}, annotations: {mood: sad}}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: map, configMap: {name: data}}
  - {name: p-map, projected: {sources: [{configMap: {name: data}}]}}
  - {name: comes-map, configMap: {name: comes, optional: true}}
  - {name: p-comes-map, projected: {sources: [{configMap: {name: comes, optional: true}}]}}
  - {name: goes-map, configMap: {name: goes, optional: true}}
  - {name: p-goes-map, projected: {sources: [{configMap: {name: goes, optional: true}}]}}
  - {name: comes-secret, secret: {secretName: comes, optional: true}}
  - {name: p-comes-secret, projected: {sources: [{secret: {name: comes, optional: true}}]}}
  - {name: goes-secret, secret: {secretName: goes, optional: true}}
  - {name: p-goes-secret, projected: {sources: [{secret: {name: goes, optional: true}}]}}
  - name: info
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: annotations, fieldRef: {fieldPath: "metadata.annotations['mood']"}}
  - name: p-info
    projected:
      sources:
      - downwardAPI:
          items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
          - {path: annotations, fieldRef: {fieldPath: "metadata.annotations['mood']"}}
  containers:
  - name: c
    image: 127.0.0.1:5000/busybox:1
    command: [sleep, "36000"]
    volumeMounts:
    - {name: map, mountPath: /all/map}
    - {name: p-map, mountPath: /all/p-map}
    - {name: comes-map, mountPath: /all/comes-map}
    - {name: p-comes-map, mountPath: /all/p-comes-map}
    - {name: goes-map, mountPath: /all/goes-map}
    - {name: p-goes-map, mountPath: /all/p-goes-map}
    - {name: comes-secret, mountPath: /all/comes-secret}
    - {name: p-comes-secret, mountPath: /all/p-comes-secret}
    - {name: goes-secret, mountPath: /all/goes-secret}
    - {name: p-goes-secret, mountPath: /all/p-goes-secret}
    - {name: info, mountPath: /all/info}
    - {name: p-info, mountPath: /all/p-info}
"#;
