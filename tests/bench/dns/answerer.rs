//! Our answerer in a process of its own, with an API of the services that are asked about.
//!
//! `dns answerer …` is this program again, in the node's namespace. It prints a line when it knows all names, and ends
//! with its input.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::RawQuery;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_client::Client;
use skep_dns::{DnsConfig, UpstreamConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// As many addresses as there are.
pub(crate) const MOST: usize = 60_000;

/// What the process is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    services: usize,
}

/// The name of a service.
pub(crate) fn name(number: &str) -> String {
    format!("service-{number}.bench.svc.cluster.local")
}

/// Its address.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let host = u32::try_from(number).expect("few services") + 10;
    (u32::from(Ipv4Addr::new(10, 96, 0, 0)) + host).into()
}

fn service(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("service-{number}"), "namespace": "bench", "uid": format!("s-{number}"),
            "resourceVersion": "1"},
        "spec": {"type": "ClusterIP", "clusterIP": address(number), "clusterIPs": [address(number)],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

/// Lists of these objects, and watches in which nothing happens.
async fn list(objects: Bytes, RawQuery(query): RawQuery) -> impl IntoResponse {
    let body = if query.is_some_and(|query| query.split('&').any(|part| part.starts_with("watch="))) {
        Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>())
    } else {
        Body::from(objects)
    };
    ([(header::CONTENT_TYPE, "application/json")], body)
}

fn api(services: usize) -> Router {
    let resource = |items: Vec<Value>| {
        let text =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items});
        let objects = Bytes::from(text.to_string());
        get(move |query| list(objects.clone(), query))
    };
    Router::new()
        .route("/api/v1/services", resource((0..services).map(service).collect()))
        .route("/apis/discovery.k8s.io/v1/endpointslices", resource(Vec::new()))
}

/// The process.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(arguments))
}

async fn work(arguments: &Arguments) -> Result<()> {
    let client = Client::in_process(api(arguments.services), UserInfo::default());
    let ready = watch::Sender::new(false);
    let (mut known, cancel) = (ready.subscribe(), CancellationToken::new());
    let upstreams = UpstreamConfig { resolv_conf: None, ..UpstreamConfig::default() };
    let config = DnsConfig { ready, upstreams, ..DnsConfig::new(vec![arguments.listen]) };
    let token = Arc::new(cancel.clone());
    std::thread::spawn(move || {
        // The end of the input is the end of whoever started this.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        token.cancel();
    });
    let tell = async {
        if known.wait_for(|ready| *ready).await.is_ok() {
            println!("ready");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = skep_dns::run(config, client, cancel.clone()) => Ok(result?),
        () = tell => Ok(()),
    }
}
