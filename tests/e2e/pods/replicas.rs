//! Replicas that answer with their names, and an application of two tiers that is made, used and removed.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::tools::{eventually, expect_in, read};

const NAMESPACE: &str = "replicas";

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}"))?;
    pipe(cluster, "create", SERVERS)?;
    pipe(cluster, "create", GUESTBOOK)?;
    each_answers_with_its_name(cluster, "set")?;
    each_answers_with_its_name(cluster, "controller")?;
    guestbook(cluster)
}

fn each_answers_with_its_name(cluster: &Cluster, of: &str) -> Result<()> {
    eventually(&format!("the replicas of {of} answer with their names"), super::PATIENCE, || {
        let path = "{range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}";
        let list = read(cluster.inside("kubectl").args([
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "-l",
            &format!("of={of}"),
            "-o",
            &format!("jsonpath={path}"),
        ]))?;
        if list.lines().count() != 2 {
            bail!("{list}");
        }
        for line in list.lines() {
            let (name, ip) = line.split_once(' ').context("no address")?;
            let answer = cluster.curl(&format!("http://{ip}/"))?;
            if answer != name {
                bail!("{name} answers {answer:?}");
            }
        }
        Ok(())
    })
    .map(drop)
}

/// Frontends find the backend by its name; what one has written another reads.
fn guestbook(cluster: &Cluster) -> Result<()> {
    for tier in ["backend", "frontend"] {
        cluster.kubectl(&format!("rollout status deployment/{tier} -n {NAMESPACE} --timeout=90s"))?;
    }
    let vip =
        cluster.kubectl(&format!("get service frontend -n {NAMESPACE} -o jsonpath={{.spec.clusterIP}}"))?;
    eventually("the guestbook keeps an entry", 30, || {
        cluster.curl(&format!("http://{vip}:8080/cgi-bin/page?TestEntry")).map(drop)
    })?;
    for _ in 0..10 {
        expect_in(&cluster.curl(&format!("http://{vip}:8080/cgi-bin/page"))?, "entry: TestEntry")?;
    }
    pipe(cluster, "delete", GUESTBOOK)?;
    let left =
        cluster.kubectl(&format!("get services,deployments -n {NAMESPACE} -l app=guestbook -o name"))?;
    if left.is_empty() { Ok(()) } else { bail!("left: {left}") }
}

/// `kubectl VERB -f -`.
fn pipe(cluster: &Cluster, verb: &str, manifest: &str) -> Result<()> {
    let mut child = cluster
        .inside("kubectl")
        .args([verb, "-n", NAMESPACE, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(manifest.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl {verb} -f -: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

const SERVERS: &str = r#"
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: set}
spec:
  replicas: 2
  selector: {matchLabels: {of: set}}
  template:
    metadata: {labels: {of: set}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "127.0.0.1:5000/web:1"}]}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: controller}
spec:
  replicas: 2
  selector: {of: controller}
  template:
    metadata: {labels: {of: controller}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "127.0.0.1:5000/web:1"}]}
"#;

const GUESTBOOK: &str = r##"
apiVersion: v1
kind: ConfigMap
metadata: {name: guestbook, labels: {app: guestbook}}
data:
  store: |
    #!/bin/sh
    [ -z "$QUERY_STRING" ] || echo "$QUERY_STRING" > /tmp/entry
    printf 'Content-Type: text/plain\r\n\r\n'
    cat /tmp/entry
  page: |
    #!/bin/sh
    printf 'Content-Type: text/plain\r\n\r\nentry: '
    exec wget -q -O - "http://backend:6379/cgi-bin/store?$QUERY_STRING"
---
apiVersion: v1
kind: Service
metadata: {name: backend, labels: {app: guestbook}}
spec: {selector: {app: guestbook, tier: backend}, ports: [{port: 6379, targetPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: frontend, labels: {app: guestbook}}
spec: {selector: {app: guestbook, tier: frontend}, ports: [{port: 8080, targetPort: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend, labels: {app: guestbook}}
spec:
  replicas: 1
  selector: {matchLabels: {app: guestbook, tier: backend}}
  template:
    metadata: {labels: {app: guestbook, tier: backend}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: page, configMap: {name: guestbook, defaultMode: 0755}}]
      containers:
      - name: c
        image: 127.0.0.1:5000/busybox:1
        command: [httpd, -f, -h, /srv]
        volumeMounts: [{name: page, mountPath: /srv/cgi-bin}]
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend, labels: {app: guestbook}}
spec:
  replicas: 2
  selector: {matchLabels: {app: guestbook, tier: frontend}}
  template:
    metadata: {labels: {app: guestbook, tier: frontend}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: page, configMap: {name: guestbook, defaultMode: 0755}}]
      containers:
      - name: c
        image: 127.0.0.1:5000/busybox:1
        command: [httpd, -f, -h, /srv]
        volumeMounts: [{name: page, mountPath: /srv/cgi-bin}]
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
"##;
