//! The whole chain: manifests applied by kubectl become pods in containerd and entries in eBPF maps,
//! and requests to the virtual addresses are answered.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Store};
use crate::tools::{eventually, expect_in, reaches_all, read, read_failure};
use crate::{bad_input, helm, kubectls, purge};

/// Walks the whole way on one storage engine.
pub(crate) fn run(store: Store) -> Result<()> {
    let mut cluster = Cluster::start(store)?;
    apply(&cluster)?;
    configuration_reaches_the_pods(&cluster)?;
    virtual_addresses_answer(&cluster)?;
    names_resolve(&cluster)?;
    kubectl_sees_it(&cluster)?;
    streams(&cluster)?;
    scale_and_roll(&cluster)?;
    pods_die_without_failed_requests(&cluster)?;
    bad_input::run(&cluster)?;
    if store == Store::Embedded {
        kubectls::run(&cluster)?;
        helm::run(&cluster)?;
    }
    restart_keeps_everything(&mut cluster)?;
    delete(&cluster)?;
    cluster.stop()?;
    purge::leaves_nothing(&cluster)
}

fn apply(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("apply -f examples/web.yaml -f examples/rc.yaml")?;
    cluster.kubectl("rollout status deployment/web --timeout=60s")?;
    eventually("ReplicationController has its pods", 30, || {
        let ready = cluster.kubectl("get rc shell -o jsonpath={.status.readyReplicas}")?;
        if ready != "2" {
            bail!("ready: {ready:?}\n{}", cluster.kubectl("get pods -o wide")?);
        }
        Ok(())
    })?;
    // Imperative commands send protobuf bodies.
    cluster.kubectl("create configmap proto --from-literal=a=b")?;
    let value = cluster.kubectl("get configmap proto -o jsonpath={.data.a}")?;
    expect_in(&value, "b")?;
    cluster.kubectl("delete configmap proto").map(|_| ())
}

fn configuration_reaches_the_pods(cluster: &Cluster) -> Result<()> {
    let vip = vip(cluster)?;
    let body = cluster.curl(&format!("http://{vip}/files/greeting.txt"))?;
    expect_in(&body, "hello from a ConfigMap")?;
    let token = cluster.kubectl("exec deploy/web -- env")?;
    expect_in(&token, "TOKEN=open-sesame")
}

fn vip(cluster: &Cluster) -> Result<String> {
    cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}")
}

fn pods(cluster: &Cluster, label: &str) -> Result<BTreeSet<String>> {
    let names = cluster.kubectl(&format!("get pods -l {label} -o jsonpath={{.items[*].metadata.name}}"))?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn virtual_addresses_answer(cluster: &Cluster) -> Result<()> {
    let vip = vip(cluster)?;
    let pods = pods(cluster, "app=web")?;
    let shell = pod_of(cluster, "app=shell")?;
    let node_port = format!("http://{}:30080/", cluster.node_ip());
    reaches_all("ClusterIP from the host", &pods, || cluster.curl(&format!("http://{vip}/")))?;
    reaches_all("ClusterIP from a pod", &pods, || {
        cluster.kubectl(&format!("exec {shell} -- timeout 5 wget -q -O - http://{vip}/"))
    })?;
    reaches_all("NodePort from another network namespace", &pods, || cluster.curl_outside(&node_port))?;
    reaches_all("NodePort from the host", &pods, || cluster.curl(&node_port))?;
    let services = read(cluster.inside(crate::tools::skep()).args(["net", "services"]))?;
    expect_in(&services, &vip)?;
    expect_in(&services, "30080")?;
    let backends = read(cluster.inside(crate::tools::skep()).args(["net", "backends"]))?;
    for ip in cluster.kubectl("get pods -l app=web -o jsonpath={.items[*].status.podIP}")?.split_whitespace()
    {
        expect_in(&backends, ip)?;
    }
    no_packet_filter_rules(cluster)
}

/// The translation is eBPF's alone: neither iptables nor nftables have a rule in the node's namespace.
fn no_packet_filter_rules(cluster: &Cluster) -> Result<()> {
    let rules = read(cluster.inside("nft").args(["list", "ruleset"]))?;
    if !rules.is_empty() {
        bail!("there are nftables rules:\n{rules}");
    }
    Ok(())
}

fn pod_of(cluster: &Cluster, label: &str) -> Result<String> {
    pods(cluster, label)?.into_iter().next().with_context(|| format!("no pod has {label}"))
}

fn names_resolve(cluster: &Cluster) -> Result<()> {
    let vip = vip(cluster)?;
    let shell = pod_of(cluster, "app=shell")?;
    let answer = cluster.kubectl(&format!("exec {shell} -- nslookup web.default.svc.cluster.local"))?;
    expect_in(&answer, &vip)?;
    // By the search path of the pod's resolv.conf.
    let body = cluster.kubectl(&format!("exec {shell} -- timeout 5 wget -q -O - http://web/"))?;
    if !pods(cluster, "app=web")?.contains(&body) {
        bail!("http://web/ was answered by {body:?}");
    }
    Ok(())
}

fn kubectl_sees_it(cluster: &Cluster) -> Result<()> {
    let table = cluster.kubectl("get pods")?;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    if header != ["NAME", "READY", "STATUS", "RESTARTS", "AGE"] {
        bail!("the pods' table begins with {header:?}");
    }
    expect_in(&table, "1/1")?;
    let wide = cluster.kubectl("get pods -o wide")?;
    expect_in(&wide, "node-1")?;
    expect_in(&cluster.kubectl("get all")?, "deployment.apps/web")?;
    expect_in(&cluster.kubectl("get service web -o yaml")?, "clusterIPs:")?;
    expect_in(&cluster.kubectl("get nodes")?, "v1.36")?;
    let described = cluster.kubectl("describe deployment web")?;
    expect_in(&described, "3 desired")?;
    expect_in(&described, "ScalingReplicaSet")?;
    let described = cluster.kubectl(&format!("describe pod {}", pod_of(cluster, "app=web")?))?;
    for event in ["Scheduled", "Pulled", "Created", "Started"] {
        expect_in(&described, event)?;
    }
    watch(cluster)
}

/// `get -w` shows a change as it happens.
fn watch(cluster: &Cluster) -> Result<()> {
    let mut child = cluster
        .inside("kubectl")
        .args(["get", "configmaps", "-w", "--no-headers"])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let outcome = (|| -> Result<()> {
        cluster.kubectl("create configmap seen-by-watch")?;
        for line in lines.by_ref() {
            if line?.starts_with("seen-by-watch") {
                return cluster.kubectl("delete configmap seen-by-watch").map(|_| ());
            }
        }
        bail!("kubectl get -w ended early")
    })();
    child.kill()?;
    child.wait()?;
    outcome
}

fn streams(cluster: &Cluster) -> Result<()> {
    let shell = pod_of(cluster, "app=shell")?;
    let mut child = cluster
        .inside("kubectl")
        .args(["logs", "-f", "--tail=1", &shell])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let followed = lines.take(3).collect::<std::io::Result<Vec<_>>>();
    child.kill()?;
    child.wait()?;
    if followed?.len() != 3 {
        bail!("logs -f did not follow");
    }
    // Standard input, both outputs and the exit code.
    let mut command = cluster.inside("sh");
    command.args([
        "-c",
        &format!("echo over | kubectl exec -i {shell} -- sh -c 'read x; echo got $x; exit 3'; echo code $?"),
    ]);
    let output = read(&mut command)?;
    expect_in(&output, "got over")?;
    expect_in(&output, "code 3")?;
    terminal(cluster, &shell)?;
    port_forward(cluster)
}

/// `port-forward` reaches a pod by the API server and the node, without its address.
fn port_forward(cluster: &Cluster) -> Result<()> {
    let mut child = cluster
        .inside("kubectl")
        .args(["port-forward", "deployment/web", "18080:80"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn()?;
    let pods = pods(cluster, "app=web")?;
    let answered = eventually("port-forward", 20, || {
        let answer = cluster.curl("http://127.0.0.1:18080/")?;
        if !pods.contains(&answer) {
            bail!("{answer:?} answered");
        }
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    answered.map(|_| ())
}

/// `exec -it` under a real pseudo-terminal.
fn terminal(cluster: &Cluster, pod: &str) -> Result<()> {
    let mut command = cluster.inside("script");
    command.args([
        "-qec",
        &format!("kubectl exec -it {pod} -- sh -c 'test -t 0 && echo a terminal'"),
        "/dev/null",
    ]);
    expect_in(&read(&mut command)?, "a terminal")
}

fn scale_and_roll(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("scale deployment web --replicas=4")?;
    cluster.kubectl("rollout status deployment/web --timeout=60s")?;
    let count = pods(cluster, "app=web")?.len();
    if count != 4 {
        bail!("{count} pods after scaling to 4");
    }
    cluster.kubectl("scale deployment web --replicas=3")?;
    cluster.kubectl("rollout restart deployment/web")?;
    cluster.kubectl("rollout status deployment/web --timeout=90s")?;
    eventually("old pods are gone", 60, || {
        let count = pods(cluster, "app=web")?.len();
        if count != 3 {
            bail!("{count} pods");
        }
        Ok(())
    })
    .map(|_| ())
}

/// Requests flow one after the other while a pod is killed; none may fail.
fn pods_die_without_failed_requests(cluster: &Cluster) -> Result<()> {
    let url = format!("http://{}/", vip(cluster)?);
    let stop = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<u32> {
            let mut requests = 0;
            while !stop.load(Ordering::Relaxed) {
                cluster.curl(&url).with_context(|| format!("after {requests} requests"))?;
                requests += 1;
            }
            Ok(requests)
        });
        let killed = (|| -> Result<()> {
            let victim = pod_of(cluster, "app=web")?;
            cluster.kubectl(&format!("delete pod {victim}"))?;
            cluster.kubectl("rollout status deployment/web --timeout=60s")?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        killed.and(client.join().unwrap_or_else(|_| bail!("the client panicked")))
    });
    let requests = outcome.context("requests while a pod was deleted")?;
    eprintln!("  ok: {requests} requests while a pod was deleted, none failed");
    Ok(())
}

/// Ctrl-C and `skep up` again: the same objects, the same pods, traffic all the while.
fn restart_keeps_everything(cluster: &mut Cluster) -> Result<()> {
    let uids = |cluster: &Cluster| {
        cluster.kubectl("get pods,services,configmaps -o jsonpath={.items[*].metadata.uid}")
    };
    eventually("only the examples' pods are left", 60, || {
        let pods = cluster.kubectl("get pods -o name")?;
        if pods.lines().count() != 5 {
            bail!("{pods}");
        }
        Ok(())
    })?;
    let before = uids(cluster)?;
    let url = format!("http://{}/", vip(cluster)?);
    cluster.stop()?;
    cluster.curl(&url).context("the service must answer while nothing of Skep runs")?;
    let warm = cluster.up()?;
    if warm > Duration::from_secs(3) {
        bail!("a warm start to node Ready took {:.2} s, the goal is 3 s", warm.as_secs_f64());
    }
    let after = uids(cluster)?;
    if before != after {
        bail!("before the restart: {before}\nafter: {after}");
    }
    eventually("requests after the restart", 10, || cluster.curl(&url).map(|_| ()))?;
    let restarts = cluster
        .kubectl("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].restartCount}")?;
    if restarts.split(' ').any(|count| count != "0") {
        bail!("containers were restarted: {restarts}");
    }
    Ok(())
}

fn delete(cluster: &Cluster) -> Result<()> {
    let vip = vip(cluster)?;
    cluster.kubectl("delete -f examples/web.yaml -f examples/rc.yaml --timeout=60s")?;
    eventually("pods are gone", 60, || {
        let pods = cluster.kubectl("get pods -o name")?;
        if !pods.is_empty() {
            bail!("still there: {pods}");
        }
        Ok(())
    })?;
    eventually("the VIP is gone from the maps", 10, || {
        let services = read(cluster.inside(crate::tools::skep()).args(["net", "services"]))?;
        if services.contains(&vip) {
            bail!("still there:\n{services}");
        }
        Ok(())
    })?;
    read_failure(cluster.inside("curl").args(["-sS", "--max-time", "2", &format!("http://{vip}/")]))
        .map(|_| ())
}
