//! `kubectl explain` of every kubectl there is: the words come from the server.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::process::Command;

use crate::kubectl::kubectl;
use crate::support::Server;

/// What `cargo xtask setup --tests` installed, or the one on the path.
pub(crate) fn all() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let installed: Vec<PathBuf> = ["1.31", "1.34", "1.36", "1.37"]
        .iter()
        .map(|version| home.join(format!(".cache/skep/kubectl-{version}/kubectl")))
        .filter(|file| file.exists())
        .collect();
    if installed.is_empty() { kubectl().into_iter().collect() } else { installed }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains() {
    let clients = all();
    if clients.is_empty() {
        eprintln!("SKIPPED: there is no kubectl");
        return;
    }
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(server.api.clone().serve_plain(listener, server.cancel.clone()));
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["explain", "pod.spec.containers.livenessProbe"],
            &[
                "KIND:       Pod",
                "VERSION:    v1",
                "FIELD: livenessProbe <Probe>",
                "Periodic probe of container liveness.",
                "initialDelaySeconds\t<integer>",
            ],
        ),
        (
            &["explain", "pod.spec.restartPolicy"],
            &["FIELD: restartPolicy <string>", "ENUM:", "Always", "Restart policy for all containers"],
        ),
        (
            &["explain", "deployments", "--recursive"],
            &["GROUP:      apps", "KIND:       Deployment", "maxSurge\t<IntOrString>"],
        ),
        (&["explain", "hpa", "--api-version=autoscaling/v2"], &["HorizontalPodAutoscaler", "VERSION:    v2"]),
        (
            &["explain", "pods.spec", "--output=plaintext-openapiv2"],
            &[
                "RESOURCE: spec <Object>",
                "activeDeadlineSeconds\t<integer>",
                "PodSpec is a description of a pod.",
            ],
        ),
    ];
    for client in clients {
        let home = tempfile::tempdir().expect("a folder");
        for (args, want) in &cases {
            let output = Command::new(&client)
                .env_clear()
                .env("HOME", home.path())
                .arg("--server")
                .arg(&address)
                .args(*args)
                .stdin(Stdio::null())
                .output()
                .await
                .expect("kubectl ends");
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            for part in *want {
                assert!(text.contains(part), "{}: {args:?}: {part:?} in\n{text}", client.display());
            }
        }
    }
    server.cancel.cancel();
    serving.await.expect("the server task").expect("the server ends well");
}
