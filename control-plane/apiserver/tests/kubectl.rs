//! Real kubectl against the plain port, when it is installed (or named by `SKEP_KUBECTL`).

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::Server;

pub(crate) fn kubectl() -> Option<PathBuf> {
    let named = std::env::var_os("SKEP_KUBECTL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.exists());
    named.or(found)
}

async fn run(kubectl: &Path, server: &str, home: &Path, args: &[&str], input: &str) -> (bool, String) {
    use tokio::io::AsyncWriteExt;
    let mut child = Command::new(kubectl)
        .env_clear()
        .env("HOME", home)
        .arg("--server")
        .arg(server)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).await.expect("written");
    drop(stdin);
    let output = child.wait_with_output().await.expect("kubectl ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

const CONFIG_MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  namespace: default
data:
  key: value
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_gets_patches_and_deletes() {
    let Some(kubectl) = kubectl() else {
        eprintln!("SKIPPED: there is no kubectl");
        return;
    };
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(server.api.clone().serve_plain(listener, server.cancel.clone()));
    let home = tempfile::tempdir().expect("a folder");
    let go = |args: &'static [&'static str], input: &'static str| {
        let (kubectl, address, home) = (kubectl.clone(), address.clone(), home.path().to_owned());
        async move {
            let (success, text) = run(&kubectl, &address, &home, args, input).await;
            println!("$ kubectl {}\n{text}", args.join(" "));
            assert!(success, "kubectl {args:?}: {text}");
            text
        }
    };
    let made = go(&["create", "namespace", "default"], "").await;
    assert!(made.contains("namespace/default created"));
    let applied = go(&["apply", "-f", "-"], CONFIG_MAP).await;
    assert!(applied.contains("configmap/a created"), "{applied}");
    let again = go(&["apply", "-f", "-"], CONFIG_MAP).await;
    assert!(again.contains("configmap/a unchanged"), "{again}");
    let table = go(&["get", "configmaps"], "").await;
    assert!(table.contains("NAME") && table.contains('a'), "{table}");
    let patched = go(&["patch", "cm", "a", "-p", r#"{"data":{"more":"x"}}"#], "").await;
    assert!(patched.contains("configmap/a patched"), "{patched}");
    let yaml = go(&["get", "cm", "a", "-o", "yaml"], "").await;
    assert!(yaml.contains("more: x") && yaml.contains("key: value"), "{yaml}");
    let labelled = go(&["label", "cm", "a", "colour=blue"], "").await;
    assert!(labelled.contains("labeled"), "{labelled}");
    let selected = go(&["get", "cm", "-A", "-l", "colour=blue", "-o", "name"], "").await;
    assert_eq!(selected.trim(), "configmap/a");
    let sided = go(&["apply", "--server-side", "--force-conflicts", "-f", "-"], CONFIG_MAP).await;
    assert!(sided.contains("serverside-applied"), "{sided}");
    let resources = go(&["api-resources"], "").await;
    assert!(resources.contains("configmaps"), "{resources}");
    let version = go(&["version"], "").await;
    assert!(version.contains("+skep"), "{version}");
    let deleted = go(&["delete", "cm", "a"], "").await;
    assert!(deleted.contains("deleted"), "{deleted}");
    let (success, text) = run(&kubectl, &address, home.path(), &["get", "cm", "a"], "").await;
    assert!(!success && text.contains(r#"Error from server (NotFound): configmaps "a" not found"#), "{text}");
    server.cancel.cancel();
    serving.await.expect("the server task").expect("the server ends well");
}
