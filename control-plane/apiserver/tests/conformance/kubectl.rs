//! kubectl's part of the conformance list, with every kubectl there is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;

use super::{Cluster, is_ready, name};
use crate::explain::all;

const RC: &str = r#"{"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "agnhost-primary",
    "labels": {"app": "agnhost", "role": "primary"}}, "spec": {"replicas": 1, "selector": {"app": "agnhost", "role": "primary"},
    "template": {"metadata": {"labels": {"app": "agnhost", "role": "primary"}}, "spec": {"terminationGracePeriodSeconds": 0,
    "containers": [{"name": "agnhost-primary", "image": "registry.example/agnhost:1", "args": ["run"],
    "ports": [{"name": "server", "containerPort": 6379}]}]}}}}"#;

/// A cluster that kubectl reaches by the plain port.
pub(super) struct Kubectl {
    pub(super) cluster: Cluster,
    address: String,
    home: tempfile::TempDir,
    pub(super) program: PathBuf,
    pub(super) namespace: String,
}

impl Kubectl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--server", &self.address, "--namespace", &self.namespace])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(super) async fn run(&self, args: &[&str], input: &str) -> (Option<i32>, String) {
        let mut child = self.command(args).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("written");
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) async fn ok(&self, args: &[&str], input: &str) -> String {
        let (code, text) = self.run(args, input).await;
        assert_eq!(code, Some(0), "{} {args:?}: {text}", self.program.display());
        text
    }

    /// Runs and must show all of these.
    async fn shows(&self, args: &[&str], wanted: &[&str]) {
        let text = self.ok(args, "").await;
        for part in wanted {
            assert!(text.contains(part), "{} {args:?}: {part:?} in\n{text}", self.program.display());
        }
    }

    pub(super) fn path(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    /// The name of the one pod, once it is ready.
    async fn pod(&self) -> String {
        let path = self.path("pods");
        let ready =
            |list: &Value| list["items"].as_array().is_some_and(|pods| pods.len() == 1 && is_ready(&pods[0]));
        name(&self.cluster.until(&path, ready).await["items"][0]).to_owned()
    }
}

/// Goes through with each kubectl, in a namespace of its own.
pub(super) async fn each(test: impl AsyncFn(&Kubectl)) {
    let programs = all();
    if programs.is_empty() {
        assert!(std::env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "there is no kubectl");
        eprintln!("SKIPPED: there is no kubectl");
        return;
    }
    let cluster = Cluster::whole(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(cluster.server.api.clone().serve_plain(listener, cluster.server.cancel.clone()));
    let mut kubectl = Kubectl {
        cluster,
        address,
        home: tempfile::tempdir().expect("a folder"),
        program: PathBuf::new(),
        namespace: String::new(),
    };
    for (number, program) in programs.into_iter().enumerate() {
        kubectl.program = program;
        kubectl.namespace = format!("kubectl-{number}");
        kubectl.cluster.namespace(&kubectl.namespace).await;
        test(&kubectl).await;
    }
}

/// Holds CL-03, CL-12, CL-02.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_tells_of_the_cluster() {
    each(async |kubectl| {
        kubectl.shows(&["cluster-info"], &["Kubernetes control plane", "is running at"]).await;
        let versions = kubectl.ok(&["api-versions"], "").await;
        assert!(versions.lines().any(|line| line == "v1"), "{versions}");
        // A remark on the skew of the versions may follow.
        let text = kubectl.ok(&["version", "-o", "json"], "").await;
        let json = text.rfind('}').map(|end| &text[..=end]).unwrap_or_default();
        let version: Value = serde_json::from_str(json).expect("JSON");
        for side in ["clientVersion", "serverVersion"] {
            for field in [
                "major",
                "minor",
                "gitVersion",
                "gitCommit",
                "gitTreeState",
                "buildDate",
                "goVersion",
                "compiler",
                "platform",
            ] {
                assert!(
                    version[side][field].as_str().is_some_and(|text| !text.is_empty()),
                    "{side}.{field} of {version}"
                );
            }
        }
    })
    .await;
}

/// Holds CL-04.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_describes() {
    each(async |kubectl| {
        let space = kubectl.namespace.as_str();
        kubectl.ok(&["create", "-f", "-"], RC).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "agnhost-primary", "labels": {"app": "agnhost"}},
            "spec": {"ports": [{"port": 6379, "targetPort": "server"}], "selector": {"app": "agnhost", "role": "primary"}}});
        kubectl.ok(&["create", "-f", "-"], &service.to_string()).await;
        let pod = kubectl.pod().await;
        kubectl
            .shows(&["describe", "pod", &pod], &["Name:", "Namespace:", "Node:", "Labels:", "app=agnhost", "role=primary",
                "Annotations:", "Status:", "IP:", "Controlled By:", "ReplicationController/agnhost-primary", "Image:", "State:",
                "QoS Class:", "Conditions:", "Volumes:", "Events:"])
            .await;
        kubectl
            .shows(&["describe", "rc", "agnhost-primary"], &["Name:", "agnhost-primary", "Namespace:", "Selector:", "app=agnhost,role=primary",
                "Labels:", "Annotations:", "Replicas:", "1 current", "1 desired", "Pods Status:", "1 Running", "Pod Template:", "Image:", "Events:", "SuccessfulCreate"])
            .await;
        kubectl
            .shows(&["describe", "service", "agnhost-primary"], &["Name:", "agnhost-primary", "Labels:", "app=agnhost", "Annotations:",
                "Selector:", "app=agnhost,role=primary", "Type:", "ClusterIP", "IP:", "Port:", "<unset>", "6379/TCP", "Endpoints:", ":6379", "Session Affinity:"])
            .await;
        kubectl
            .shows(&["describe", "node", "node-0"], &["Name:", "node-0", "Labels:", "Annotations:", "CreationTimestamp", "Conditions:", "Type",
                "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message", "Addresses:", "Capacity:", "Version:",
                "Kernel Version:", "OS Image:", "Container Runtime Version:", "Kubelet Version:", "Pods:"])
            .await;
        kubectl.shows(&["describe", "namespace", space], &["Name:", space, "Labels:", "Annotations:", "Status:", "Active"]).await;
        let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cronjob-test"}, "spec": {"schedule": "0 0 31 2 *",
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "test", "image": "i"}]}}}}}});
        kubectl.ok(&["create", "-f", "-"], &cron.to_string()).await;
        kubectl
            .shows(&["describe", "cronjob", "cronjob-test"], &["Name:", "cronjob-test", "Namespace:", "Labels:", "Annotations:", "Schedule:",
                "Concurrency Policy:", "Suspend:", "Successful Job History Limit:", "Failed Job History Limit:", "Starting Deadline Seconds:",
                "Selector:", "Parallelism:", "Completions:"])
            .await;
    })
    .await;
}

/// Holds CL-05.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_the_difference() {
    each(async |kubectl| {
        let deployment = |image: &str| {
            let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}});
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}).to_string()
        };
        kubectl.ok(&["create", "-f", "-"], &deployment("registry.example/old:1")).await;
        let (code, text) = kubectl.run(&["diff", "-f", "-"], &deployment("registry.example/new:2")).await;
        assert_eq!(code, Some(1), "{text}");
        for (mark, image) in [('-', "registry.example/old:1"), ('+', "registry.example/new:2")] {
            assert!(text.lines().any(|line| line.starts_with(mark) && line.contains(image)), "{text}");
        }
        kubectl.shows(&["get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[0].image}"], &["old:1"]).await;
    })
    .await;
}

/// Holds CL-06.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_exposes() {
    each(async |kubectl| {
        kubectl.ok(&["create", "-f", "-"], RC).await;
        let pod = kubectl.pod().await;
        let address =
            kubectl.cluster.get(&format!("{}/{pod}", kubectl.path("pods"))).await["status"]["podIP"].clone();
        let exposed = async |service: &str, port: u32| {
            let found = kubectl.cluster.get(&format!("{}/{service}", kubectl.path("services"))).await;
            assert_eq!(
                (&found["spec"]["ports"][0]["port"], &found["spec"]["ports"][0]["targetPort"]),
                (&json!(port), &json!(6379))
            );
            let path = format!("{}/{service}", kubectl.path("endpoints"));
            kubectl
                .cluster
                .until(&path, |e| {
                    e["subsets"][0]["addresses"][0]["ip"] == address
                        && e["subsets"][0]["ports"][0]["port"] == 6379
                })
                .await;
        };
        kubectl
            .ok(&["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379"], "")
            .await;
        exposed("rm2", 1234).await;
        kubectl
            .ok(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"], "")
            .await;
        exposed("rm3", 2345).await;
    })
    .await;
}

/// Holds CL-07, CL-08, CL-15, CL-16.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_labels_patches_scales_and_deletes() {
    each(async |kubectl| {
        kubectl.ok(&["create", "-f", "-"], RC).await;
        let pod = kubectl.pod().await;
        kubectl.ok(&["label", "pods", &pod, "testing-label=testing-label-value"], "").await;
        kubectl
            .shows(&["get", "pod", &pod, "-L", "testing-label"], &["TESTING-LABEL", "testing-label-value"])
            .await;
        kubectl.ok(&["label", "pods", &pod, "testing-label-"], "").await;
        let without = kubectl.ok(&["get", "pod", &pod, "-L", "testing-label"], "").await;
        assert!(!without.contains("testing-label-value"), "{without}");
        kubectl.ok(&["patch", "pod", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#], "").await;
        kubectl.shows(&["get", "pod", &pod, "-o", "jsonpath={.metadata.annotations.x}"], &["y"]).await;
        let template = "--template={{range.items}}{{.metadata.name}} {{end}}";
        for replicas in [2, 1, 2] {
            kubectl
                .ok(
                    &["scale", "rc", "agnhost-primary", &format!("--replicas={replicas}"), "--timeout=1m"],
                    "",
                )
                .await;
            kubectl.cluster.count(&kubectl.path("pods"), replicas).await;
            let names =
                kubectl.ok(&["get", "pods", "-o", "template", template, "-l", "app=agnhost"], "").await;
            assert_eq!(names.split_whitespace().count(), replicas, "{names}");
        }
        kubectl.ok(&["delete", "--grace-period=0", "--force", "-f", "-"], RC).await;
        kubectl.cluster.count(&kubectl.path("pods"), 0).await;
        let gone = kubectl.ok(&["get", "rc,svc", "-l", "app=agnhost", "--no-headers"], "").await;
        assert!(gone.contains("No resources found"), "{gone}");
    })
    .await;
}

/// Holds CL-09, CL-10, CL-11.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_replaces_and_tries() {
    each(async |kubectl| {
        kubectl
            .ok(
                &[
                    "run",
                    "e2e-pod",
                    "--restart=Never",
                    "--image=registry.example/httpd:1",
                    "--labels=run=e2e-pod",
                    "--",
                    "run",
                ],
                "",
            )
            .await;
        assert_eq!(kubectl.pod().await, "e2e-pod");
        let path = format!("{}/e2e-pod", kubectl.path("pods"));
        let found = kubectl.cluster.get(&path).await;
        assert_eq!(
            (&found["spec"]["restartPolicy"], &found["spec"]["containers"][0]["image"]),
            (&json!("Never"), &json!("registry.example/httpd:1"))
        );
        let yaml = kubectl.ok(&["get", "pod", "e2e-pod", "-o", "json"], "").await;
        kubectl
            .ok(
                &["replace", "-f", "-"],
                &yaml.replace("registry.example/httpd:1", "registry.example/busybox:2"),
            )
            .await;
        assert_eq!(
            kubectl.cluster.get(&path).await["spec"]["containers"][0]["image"],
            "registry.example/busybox:2"
        );
        let patch = r#"{"spec":{"containers":[{"name": "e2e-pod","image": "registry.example/other:3"}]}}"#;
        kubectl.ok(&["patch", "pod", "e2e-pod", "-p", patch, "--dry-run=server"], "").await;
        assert_eq!(
            kubectl.cluster.get(&path).await["spec"]["containers"][0]["image"],
            "registry.example/busybox:2"
        );
        kubectl.ok(&["delete", "pods", "e2e-pod", "--now"], "").await;
        kubectl.cluster.gone(&path).await;
    })
    .await;
}

async fn asked(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    let request = "GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    text
}

async fn first_line(child: &mut tokio::process::Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).await.expect("a line");
    line
}

/// Holds CL-13, CL-14.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_a_proxy() {
    each(async |kubectl| {
        let mut port =
            kubectl.command(&["proxy", "--port=0", "--disable-filter"]).spawn().expect("kubectl starts");
        let line = first_line(&mut port).await;
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        let answer = asked(tokio::net::TcpStream::connect(&address).await.expect("connected")).await;
        assert!(answer.contains("APIVersions"), "{line}: {answer}");
        port.kill().await.expect("ended");
        let socket = kubectl.home.path().join(format!("{}.sock", kubectl.namespace));
        let argument = format!("--unix-socket={}", socket.display());
        let mut unix = kubectl.command(&["proxy", &argument]).spawn().expect("kubectl starts");
        first_line(&mut unix).await;
        let answer = asked(UnixStream::connect(Path::new(&socket)).await.expect("connected")).await;
        assert!(answer.contains("APIVersions"), "{answer}");
        unix.kill().await.expect("ended");
    })
    .await;
}

/// Definitions without a schema, and what they keep.
///
/// Holds AM-47.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_writes_what_no_schema_describes() {
    each(async |kubectl| {
        let group = format!("{}.example.com", kubectl.namespace);
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("opens.{group}")}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": "opens", "singular": "open", "kind": "Open", "listKind": "OpenList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
        kubectl.ok(&["apply", "-f", "-"], &definition.to_string()).await;
        kubectl.ok(&["wait", "--for=condition=Established", "crd", &format!("opens.{group}"), "--timeout=30s"], "").await;
        let object = |a: &str| json!({"apiVersion": format!("{group}/v1"), "kind": "Open", "metadata": {"name": "o"}, "a": a, "spec": {"x": [{"y": 1}]}}).to_string();
        kubectl.ok(&["create", "-f", "-"], &object("b")).await;
        kubectl.ok(&["delete", "-f", "-"], &object("b")).await;
        kubectl.ok(&["apply", "-f", "-"], &object("b")).await;
        kubectl.ok(&["apply", "-f", "-"], &object("c")).await;
        kubectl.shows(&["get", &format!("opens.{group}"), "o", "-o", "jsonpath={.a}{.spec.x[0].y}"], &["c1"]).await;
        kubectl.shows(&["explain", &format!("opens.{group}")], &["KIND:       Open", "DESCRIPTION:"]).await;
    })
    .await;
}
