//! What is said of services, endpoints and pods, by datagram and by stream.

use anyhow::{Result, bail};

use super::{CLIENT, DNS, dig, exec, field, same, short};
use crate::cluster::Cluster;
use crate::tools::expect_in;

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    for transport in ["+notcp", "+tcp"] {
        services(cluster, transport)?;
        headless(cluster, transport)?;
        the_cluster_itself(cluster, transport)?;
    }
    negative(cluster)?;
    partial(cluster)?;
    eprintln!("  ok: records of services, endpoints and pods by UDP and TCP");
    Ok(())
}

/// A, SRV and PTR of a service with an address.
fn services(cluster: &Cluster, transport: &str) -> Result<()> {
    let ip = field(cluster, "service web", ".spec.clusterIP")?;
    let ask = |what: &str| short(cluster, &format!("{transport} {what}"));
    let name = "web.default.svc.cluster.local";
    same("A", ask(name)?, vec![ip.clone()])?;
    same("AAAA", ask(&format!("{name} AAAA"))?, vec![])?;
    same("SRV", ask(&format!("_http._tcp.{name} SRV"))?, vec![format!("0 100 80 {name}.")])?;
    same("SRV", ask(&format!("_media._udp.{name} SRV"))?, vec![format!("0 100 5004 {name}.")])?;
    same("PTR", ask(&format!("-x {ip}"))?, vec![format!("{name}.")])
}

/// The same of a service without one, and of its endpoints by name.
fn headless(cluster: &Cluster, transport: &str) -> Result<()> {
    let ask = |what: &str| short(cluster, &format!("{transport} {what}"));
    let ip = |pod: &str| field(cluster, &format!("pod {pod}"), ".status.podIP");
    let (named, unnamed) = (ip("db-0")?, ip("db-unnamed")?);
    let name = "db.default.svc.cluster.local";
    let mut both = vec![named.clone(), unnamed.clone()];
    both.sort();
    same("A of all", ask(name)?, both)?;
    same("A of one", ask(&format!("db-0.{name}"))?, vec![named.clone()])?;
    let label = unnamed.replace('.', "-");
    same("A by address", ask(&format!("{label}.{name}"))?, vec![unnamed.clone()])?;
    let mut targets = vec![format!("0 50 5432 {label}.{name}."), format!("0 50 5432 db-0.{name}.")];
    targets.sort();
    same("SRV", ask(&format!("_pg._tcp.{name} SRV"))?, targets)?;
    same("PTR", ask(&format!("-x {named}"))?, vec![format!("db-0.{name}.")])?;
    same("PTR", ask(&format!("-x {unnamed}"))?, vec![format!("{label}.{name}.")])
}

/// The API server's service, a pod's record, the version of it all.
fn the_cluster_itself(cluster: &Cluster, transport: &str) -> Result<()> {
    let ask = |what: &str| short(cluster, &format!("{transport} {what}"));
    same("kubernetes", ask("kubernetes.default.svc.cluster.local")?, vec!["10.96.0.1".to_owned()])?;
    let ip = field(cluster, &format!("pod {CLIENT}"), ".status.podIP")?;
    let record = format!("{}.default.pod.cluster.local", ip.replace('.', "-"));
    same("a pod's record", ask(&record)?, vec![ip])?;
    same("the version", ask("dns-version.cluster.local TXT")?, vec!["\"1.1.0\"".to_owned()])
}

/// What is not there: NXDOMAIN, or no data, with the record by which it is kept; spelled as it was asked.
fn negative(cluster: &Cluster) -> Result<()> {
    for (name, status) in [
        ("absent.default.svc.cluster.local", "NXDOMAIN"),
        ("_none._tcp.web.default.svc.cluster.local", "NXDOMAIN"),
        ("default.svc.cluster.local", "NOERROR"),
        ("web.default.svc.cluster.local AAAA", "NOERROR"),
    ] {
        let said = dig(cluster, name)?;
        expect_in(&said, &format!("status: {status}"))?;
        expect_in(&said, "ANSWER: 0, AUTHORITY: 1")?;
        expect_in(&said, "ns.dns.cluster.local. hostmaster.cluster.local.")?;
    }
    let said = dig(cluster, "wEb.dEfault.svc.CLUSTER.local")?;
    expect_in(&said, "wEb.dEfault.svc.CLUSTER.local.")?;
    expect_in(&said, &format!("SERVER: {DNS}#53"))?;
    if said.contains("web.default") {
        bail!("the spelling is not kept:\n{said}");
    }
    Ok(())
}

/// Names that are completed by the search path, by dig and by the C library.
fn partial(cluster: &Cluster) -> Result<()> {
    let ip = field(cluster, "service web", ".spec.clusterIP")?;
    for name in ["web", "web.default", "web.default.svc"] {
        same(name, short(cluster, &format!("+search {name}"))?, vec![ip.clone()])?;
        expect_in(&exec(cluster, CLIENT, &format!("getent ahostsv4 {name}"))?, &ip)?;
    }
    let srv = short(cluster, "+search _http._tcp.web SRV")?;
    same("SRV", srv, vec!["0 100 80 web.default.svc.cluster.local.".to_owned()])?;
    // The node's own search path comes after the cluster's; a name from outside is found in the end.
    for (name, ip) in [("www", "192.0.2.81"), ("www.upstream.test", "192.0.2.80")] {
        expect_in(&exec(cluster, CLIENT, &format!("getent ahostsv4 {name}"))?, ip)?;
    }
    expect_in(&exec(cluster, CLIENT, "getent ahostsv6 www.upstream.test")?, "2001:db8::80")
}
