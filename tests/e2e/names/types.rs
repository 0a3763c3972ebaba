//! A service that changes its type keeps its name; what it had is released.

use anyhow::{Result, bail};

use super::{CLIENT, exec, field, same, short, soon};
use crate::cluster::Cluster;
use crate::tools::expect_in;

const NAME: &str = "changing.default.svc.cluster.local";

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    let manifest = cluster.manifest(
        "changing.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: changing}\n\
         spec: {type: ExternalName, externalName: www.upstream.test}\n",
    )?;
    cluster.kubectl(&format!("apply -f {}", manifest.display()))?;
    is_alias(cluster, "www.upstream.test.", &["192.0.2.80"])?;
    patch(cluster, r#"{"spec":{"externalName":"www.corp.test"}}"#)?;
    is_alias(cluster, "www.corp.test.", &["192.0.2.81"])?;

    // To an address of its own: it is reached by name and address.
    patch(
        cluster,
        r#"{"spec":{"type":"ClusterIP","externalName":null,"selector":{"app":"web"},"ports":[{"port":80}]}}"#,
    )?;
    let ip = is_address(cluster)?;
    answers(cluster, &ip)?;
    // And back: the address is free for others.
    to_alias(cluster)?;
    takes(cluster, &ip, None)?;

    // To a port of the nodes.
    patch(
        cluster,
        r#"{"spec":{"type":"NodePort","externalName":null,"selector":{"app":"web"},"ports":[{"port":80,"nodePort":30081}]}}"#,
    )?;
    let ip = is_address(cluster)?;
    answers(cluster, &ip)?;
    let port = format!("http://{}:30081/", cluster.node_ip());
    soon("the node port", || same("answer", cluster.curl_outside(&port)?, "web".to_owned()))?;
    to_alias(cluster)?;
    soon("the node port is closed", || match cluster.curl_outside(&port) {
        Ok(answer) => bail!("{answer:?}"),
        Err(_) => Ok(()),
    })?;
    takes(cluster, &ip, Some(30081))?;
    cluster.kubectl("delete service changing").map(drop)
}

/// What this cluster's JSON has no spaces in, for they split arguments.
fn patch(cluster: &Cluster, patch: &str) -> Result<()> {
    cluster.kubectl(&format!("patch service changing --type=merge -p {patch}")).map(drop)
}

fn to_alias(cluster: &Cluster) -> Result<()> {
    patch(
        cluster,
        r#"{"spec":{"type":"ExternalName","externalName":"www.upstream.test","clusterIP":"","clusterIPs":null,"ports":null}}"#,
    )?;
    same("the address is given back", field(cluster, "service changing", ".spec.clusterIP")?, String::new())?;
    is_alias(cluster, "www.upstream.test.", &["192.0.2.80"])
}

fn is_alias(cluster: &Cluster, target: &str, ips: &[&str]) -> Result<()> {
    soon(&format!("the name stands for {target}"), || {
        same("CNAME", short(cluster, &format!("{NAME} CNAME"))?, vec![target.to_owned()])?;
        let mut all: Vec<String> = ips.iter().map(|ip| (*ip).to_owned()).collect();
        all.push(target.to_owned());
        all.sort();
        same("A", short(cluster, NAME)?, all)
    })?;
    expect_in(&exec(cluster, CLIENT, "getent ahostsv4 changing")?, ips[0])
}

fn is_address(cluster: &Cluster) -> Result<String> {
    let ip = field(cluster, "service changing", ".spec.clusterIP")?;
    soon("the name is an address", || {
        same("CNAME", short(cluster, &format!("{NAME} CNAME"))?, vec![])?;
        same("A", short(cluster, NAME)?, vec![ip.clone()])
    })?;
    Ok(ip)
}

/// By name and by address, from a pod.
fn answers(cluster: &Cluster, ip: &str) -> Result<()> {
    soon("it is reached by name and address", || {
        for host in ["changing", ip] {
            let said = exec(cluster, CLIENT, &format!("timeout 3 wget -q -O - http://{host}/"))?;
            same(host, said, "web".to_owned())?;
        }
        Ok(())
    })
    .map(drop)
}

/// Another service can have what was released.
fn takes(cluster: &Cluster, ip: &str, node_port: Option<u16>) -> Result<()> {
    let (kind, port) = match node_port {
        Some(port) => ("NodePort", format!(", nodePort: {port}")),
        None => ("ClusterIP", String::new()),
    };
    let manifest = cluster.manifest(
        "takes.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: takes}}\n\
             spec: {{type: {kind}, clusterIP: {ip}, ports: [{{port: 80{port}}}]}}\n"
        ),
    )?;
    cluster.kubectl(&format!("create -f {}", manifest.display()))?;
    cluster.kubectl("delete service takes").map(drop)
}
