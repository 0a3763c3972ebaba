//! `kubectl logs` with what chooses lines, bytes and times.

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::tools::{eventually, expect_in};

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    let manifest = cluster.manifest("speaker.yaml", SPEAKER)?;
    cluster.kubectl(&format!("apply -f {}", manifest.display()))?;
    eventually("the speaker has spoken", super::PATIENCE, || {
        expect_in(&cluster.kubectl("logs speaker")?, "line 3")
    })?;
    equal(&cluster.kubectl("logs speaker --tail=1")?, "line 3")?;
    equal(&cluster.kubectl("logs speaker --limit-bytes=1")?, "l")?;
    equal(&cluster.kubectl("logs speaker --since=24h")?, "line 1\nline 2\nline 3")?;
    let stamped = cluster.kubectl("logs speaker --tail=1 --timestamps")?;
    let stamp = stamped.strip_suffix(" line 3").unwrap_or_default();
    // RFC 3339, in nanoseconds and UTC.
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if !(shape.starts_with("0000-00-00T00:00:00.") && shape.ends_with('Z')) {
        bail!("no time stands before the line: {stamped:?}");
    }
    // It says nothing any more: a second later there is nothing of the last second.
    eventually("nothing is new", 30, || equal(&cluster.kubectl("logs speaker --since=1s")?, "")).map(drop)
}

fn equal(found: &str, expected: &str) -> Result<()> {
    if found != expected {
        bail!("{found:?}, expected {expected:?}");
    }
    Ok(())
}

const SPEAKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: speaker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: 127.0.0.1:5000/busybox:1
    command: [sh, -c, "for i in 1 2 3; do echo line $i; done; exec sleep 36000"]
"#;
