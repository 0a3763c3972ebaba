//! What a user of the `kube` crate does: typed and dynamic objects, patches, server-side apply, a watcher
//! with a reflector, streaming lists, a controller.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, Discovery, Error, ResourceExt};
use serde_json::json;

const NAMESPACE: &str = "rust-client";

/// Everything that needs a control plane only.
pub(crate) async fn objects(kubeconfig: &Path) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    ensure!(client.apiserver_version().await?.major == "1");
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    typed(&client).await.context("typed objects")?;
    reflected(&client, watcher::Config::default()).await.context("a reflector")?;
    reflected(&client, watcher::Config::default().streaming_lists())
        .await
        .context("a streaming reflector")?;
    dynamic(&client).await.context("dynamic objects")?;
    controlled(&client).await.context("a controller")?;
    namespaces.delete(NAMESPACE, &DeleteParams::background()).await?;
    Ok(())
}

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> =
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map
}

/// The code of a refusal.
fn code<T>(outcome: Result<T, Error>) -> Result<u16> {
    match outcome {
        Err(Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was not refused"),
    }
}

async fn typed(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let made = maps.create(&PostParams::default(), &map("typed", &[("a", "1")])).await?;
    ensure!(code(maps.create(&PostParams::default(), &map("typed", &[])).await)? == 409);
    ensure!(code(maps.get("none").await)? == 404 && maps.get_opt("none").await?.is_none());
    let merge = Patch::Merge(json!({"data": {"b": "2"}}));
    let patched = maps.patch("typed", &PatchParams::default(), &merge).await?;
    ensure!(patched.data == map("", &[("a", "1"), ("b", "2")]).data);
    let mut stale = made.clone();
    stale.data = None;
    ensure!(code(maps.replace("typed", &PostParams::default(), &stale).await)? == 409);
    let apply = |manager: &str, value: &str| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"c": value}});
        (PatchParams::apply(manager), Patch::Apply(object))
    };
    let (params, patch) = apply("one", "3");
    maps.patch("typed", &params, &patch).await?;
    let (params, patch) = apply("two", "4");
    ensure!(code(maps.patch("typed", &params, &patch).await)? == 409);
    let forced = maps.patch("typed", &params.force(), &patch).await?;
    ensure!(forced.data.is_some_and(|data| data["c"] == "4"));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("dry", &[])).await?;
    ensure!(maps.get_opt("dry").await?.is_none());
    let metadata = maps.list_metadata(&ListParams::default().fields("metadata.name=typed")).await?;
    ensure!(metadata.items.len() == 1 && metadata.items[0].uid() == made.uid());
    // From the creation on: the changes since then come again.
    let since = made.resource_version().unwrap_or_default();
    let events = maps.watch(&WatchParams::default().timeout(5).fields("metadata.name=typed"), &since).await?;
    let first = events.boxed().try_next().await?;
    ensure!(matches!(first, Some(WatchEvent::Modified(_))), "{first:?}");
    maps.delete("typed", &DeleteParams::default()).await?;
    Ok(())
}

async fn reflected(client: &Client, config: watcher::Config) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let (reader, writer) = reflector::store();
    let stream = reflector(writer, watcher(maps.clone(), config)).default_backoff().touched_objects();
    let following = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    reader.wait_until_ready().await?;
    maps.create(&PostParams::default(), &map("seen", &[("a", "1")])).await?;
    maps.patch("seen", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await?;
    let data = || reader.find(|map| map.name_any() == "seen").and_then(|map| map.data.clone());
    eventually("the store shows the change", || data().is_some_and(|data| data["a"] == "2")).await?;
    maps.delete("seen", &DeleteParams::default()).await?;
    eventually("the store shows the end", || data().is_none()).await?;
    following.abort();
    Ok(())
}

async fn dynamic(client: &Client) -> Result<()> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    ensure!(discovery.has_group("apps") && discovery.has_group("apiregistration.k8s.io"));
    let old = Discovery::new(client.clone()).run().await?;
    ensure!(old.groups().count() == discovery.groups().count());
    let kind = kube::core::GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = discovery.resolve_gvk(&kind).context("no deployments")?;
    ensure!(
        resource.plural == "deployments"
            && capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale")
    );
    let deployments: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let applied = deployments.patch("d", &PatchParams::apply("rust"), &Patch::Apply(object)).await?;
    ensure!(applied.data["spec"]["strategy"]["type"] == "RollingUpdate");
    let scale = deployments.get_scale("d").await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(0));
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}, "status": {"replicas": 7}}));
    deployments.patch_status("d", &PatchParams::default(), &patch).await?;
    deployments.delete("d", &DeleteParams::foreground()).await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("reconciling failed")]
struct Failed(#[from] Error);

/// Keeps a Secret for each ConfigMap of a label, owned by it.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failed> {
    use kube::Resource;
    let secrets: Api<Secret> = Api::namespaced(Client::clone(&client), NAMESPACE);
    let owner = map.controller_owner_ref(&());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": map.name_any(), "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        "stringData": map.data,
    });
    secrets.patch(&map.name_any(), &PatchParams::apply("controller").force(), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

async fn controlled(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let labelled = watcher::Config::default().labels("controlled=yes");
    let controller = Controller::new(maps.clone(), labelled)
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()));
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let mut wanted = map("controlled", &[("password", "x")]);
    wanted.labels_mut().insert("controlled".to_owned(), "yes".to_owned());
    maps.create(&PostParams::default(), &wanted).await?;
    let made = async || secrets.get_opt("controlled").await;
    let first = loop {
        if let Some(secret) = made().await? {
            break secret;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Deleted by somebody: it is made again.
    secrets.delete("controlled", &DeleteParams::default()).await?;
    while made().await?.is_none_or(|secret| secret.uid() == first.uid()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    // Without its owner the garbage collector takes it.
    maps.delete("controlled", &DeleteParams::background()).await?;
    while made().await?.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..600 {
        if holds() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: not in time")
}
