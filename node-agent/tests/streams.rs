//! The kubelet API over real containers.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;

use crate::{
    kubelet::Kubelet,
    support::{self, Cluster, with_cluster},
};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// Percent-encodes a command line.
fn command(words: &[&str]) -> String {
    let escape = |word: &str| word.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    words.iter().map(|word| format!("command={}", escape(word))).collect::<Vec<_>>().join("&")
}

fn shell(script: &str) -> String {
    command(&["sh", "-c", script])
}

async fn masters(cluster: &Cluster) -> Kubelet {
    cluster.kubelet(Some(("skep-apiserver-kubelet", &["system:masters"])))
}

#[test]
fn commands_run_with_their_streams() {
    with_cluster(|cluster| async move {
        cluster
            .run_pod("box", json!({ "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1000"] }] }))
            .await;
        cluster.wait("box", support::ready).await;

        // Who may: nobody without a certificate, of those with one only masters.
        assert!(cluster.kubelet(None).get("/pods").await.is_err());
        let somebody = cluster.kubelet(Some(("jane", &["system:authenticated"])));
        assert_eq!(somebody.get("/pods").await.unwrap().0, StatusCode::FORBIDDEN);
        let kubelet = masters(&cluster).await;
        let (status, pods) = kubelet.get("/pods").await.unwrap();
        assert!(status.is_success() && pods.contains("\"box\""), "{pods}");
        assert_eq!(
            kubelet.get("/exec/default/box/c?command=true&output=1").await.unwrap().0,
            StatusCode::BAD_REQUEST
        );

        // Both outputs and the exit code.
        for protocol in [V5, V4] {
            let path =
                format!("/exec/default/box/c?output=1&error=1&{}", shell("echo out; echo err >&2; exit 7"));
            let heard = kubelet.socket(&path, protocol).await.rest().await;
            assert_eq!((&*heard.stdout, &*heard.stderr, heard.code()), ("out\n", "err\n", 7), "{heard:?}");
        }
        let path = format!("/exec/default/box/c?output=1&{}", command(&["no-such-program"]));
        let heard = kubelet.socket(&path, V5).await.rest().await;
        assert!(heard.error.contains("no-such-program"), "{heard:?}");

        // Input ends by the close signal of v5.
        let path = format!("/exec/default/box/c?input=1&output=1&error=1&{}", shell("cat; echo end"));
        let mut socket = kubelet.socket(&path, V5).await;
        socket.say(0, b"some input\n").await;
        assert_eq!(socket.until(1, "input\n").await, "some input\n");
        socket.say(255, &[0]).await;
        let heard = socket.rest().await;
        assert_eq!((&*heard.stdout, heard.code()), ("end\n", 0), "{heard:?}");

        // Much output arrives whole.
        let path = format!("/exec/default/box/c?output=1&{}", command(&["seq", "200000"]));
        let heard = kubelet.socket(&path, V5).await.rest().await;
        assert!(heard.stdout.ends_with("\n200000\n") && heard.stdout.lines().count() == 200_000);

        // A terminal has a size and one output.
        let path = format!("/exec/default/box/c?input=1&output=1&error=1&tty=1&{}", command(&["sh"]));
        let mut socket = kubelet.socket(&path, V5).await;
        socket.say(4, br#"{"Width":123,"Height":45}"#).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.say(0, b"stty size; echo to-err >&2; exit 3\n").await;
        let heard = socket.rest().await;
        assert!(heard.stdout.contains("45 123") && heard.stdout.contains("to-err\r\n"), "{heard:?}");
        assert_eq!((&*heard.stderr, heard.code()), ("", 3));

        // A client that goes takes its command with it.
        let path = format!("/exec/default/box/c?output=1&{}", shell("echo begun; exec sleep 4321"));
        let mut socket = kubelet.socket(&path, V5).await;
        socket.until(1, "begun").await;
        drop(socket);
        let running = format!("/exec/default/box/c?output=1&{}", shell("cat /proc/[0-9]*/cmdline"));
        let end = tokio::time::Instant::now() + Duration::from_secs(5);
        while kubelet.socket(&running, V5).await.rest().await.stdout.contains("4321") {
            assert!(tokio::time::Instant::now() < end, "the command still runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn logs_are_read_and_followed() {
    with_cluster(|cluster| async move {
        let script = "for i in $(seq 5); do echo line $i; done; echo problem >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last; sleep 0.2; exit 1";
        cluster
            .run_pod("talk", json!({ "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sh", "-c", script] }] }))
            .await;
        cluster.wait("talk", support::ready).await;
        let kubelet = masters(&cluster).await;
        let read = async |query: &str| {
            let (status, text) =
                kubelet.get(&format!("/containerLogs/default/talk/c?{query}")).await.unwrap();
            assert!(status.is_success(), "{status} {text}");
            text
        };
        let all = "line 1\nline 2\nline 3\nline 4\nline 5\nproblem\n";
        let end = tokio::time::Instant::now() + Duration::from_secs(5);
        while read("").await.lines().count() < 6 {
            assert!(tokio::time::Instant::now() < end, "{:?}", read("").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        // The two outputs are two pipes: between them there is no order.
        assert_eq!(sorted(&read("").await), sorted(all));
        assert_eq!(read("tailLines=2").await.lines().count(), 2);
        assert_eq!(read("tailLines=0").await, "");
        assert_eq!(read("stream=Stdout&tailLines=1").await, "line 5\n");
        assert_eq!(read("stream=Stderr").await, "problem\n");
        assert_eq!(read("stream=Stdout&limitBytes=10").await, "line 1\nlin");
        assert_eq!(read("sinceTime=2999-01-01T00:00:00Z").await, "");
        assert_eq!(sorted(&read("sinceSeconds=3600").await), sorted(all));
        let stamped = read("timestamps=true&stream=Stderr").await;
        let (stamp, rest) = stamped.split_once(' ').unwrap();
        assert!(stamp.parse::<jiff::Timestamp>().is_ok() && rest == "problem\n", "{stamped}");
        for (path, want) in [
            ("talk/c?tailLines=x", StatusCode::BAD_REQUEST),
            ("talk/c?previous=true", StatusCode::BAD_REQUEST),
            ("talk/other", StatusCode::BAD_REQUEST),
            ("absent/c", StatusCode::NOT_FOUND),
        ] {
            let (status, text) = kubelet.get(&format!("/containerLogs/default/{path}")).await.unwrap();
            assert!(
                status == want || (status.is_client_error() && path.contains("previous")),
                "{path}: {status} {text}"
            );
        }

        // Following ends with the container.
        let mut follow =
            kubelet.open("/containerLogs/default/talk/c?follow=true&tailLines=1").await.unwrap().into_body();
        let first = follow.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 1, "{first:?}");
        let path = format!("/exec/default/talk/c?output=1&{}", shell("echo > /tmp/go"));
        assert_eq!(kubelet.socket(&path, V5).await.rest().await.code(), 0);
        let rest = tokio::time::timeout(Duration::from_secs(10), follow.collect()).await.unwrap().unwrap();
        assert_eq!(rest.to_bytes(), Bytes::from_static(b"last\n"));

        // The attempt before can still be read.
        cluster.wait("talk", |pod| support::restarts(pod) >= 1).await;
        let before = read("previous=true").await;
        assert!(before.ends_with("last\n"), "{before:?}");
    });
}

#[test]
fn attached_clients_and_forwarded_ports() {
    with_cluster(|cluster| async move {
        let container = |script: &str, stdin: bool| json!({ "name": "c", "image": support::IMAGE, "stdin": stdin, "tty": stdin, "command": ["sh", "-c", script] });
        let echo = "while read line; do echo got $line; [ \"$line\" = end ] && exit 4; done";
        cluster
            .run_pod("talk", json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container(echo, true)] }))
            .await;
        let serve = "while true; do echo welcome | nc -l -p 8080 > /tmp/heard; done";
        cluster
            .run_pod(
                "web",
                json!({ "terminationGracePeriodSeconds": 0, "containers": [container(serve, false)] }),
            )
            .await;
        cluster.wait("talk", support::ready).await;
        let kubelet = masters(&cluster).await;

        let mut socket = kubelet.socket("/attach/default/talk/c?input=1&output=1&tty=1", V5).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.say(0, b"one\n").await;
        socket.until(1, "got one\r\n").await;
        // A second client hears the same.
        let second = kubelet.socket("/attach/default/talk/c?output=1", V4).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.say(0, b"end\n").await;
        let (first, second) = tokio::join!(socket.rest(), second.rest());
        assert!(first.stdout.contains("got end\r\n"), "{first:?}");
        assert_eq!(first.code(), 4);
        assert!(second.stdout.contains("got end\r\n"), "{second:?}");

        cluster.wait("web", support::ready).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut socket = kubelet.socket("/portForward/default/web?ports=8080,9", V4).await;
        let mut heard = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        socket.say(0, b"hello").await;
        while heard[0].len() < 10 || heard[3].len() < 3 {
            let (channel, data) = socket.next().await.expect("more");
            heard[usize::from(channel)].extend_from_slice(&data);
        }
        assert_eq!(heard[0], [&8080_u16.to_le_bytes()[..], b"welcome\n"].concat());
        assert_eq!(heard[1], 8080_u16.to_le_bytes());
        assert_eq!(heard[2], 9_u16.to_le_bytes());
        let complaint = String::from_utf8_lossy(&heard[3][2..]).into_owned();
        assert!(complaint.contains("error forwarding port 9"), "{complaint}");
    });
}
