//! What resources the server has.

use serde::Deserialize;
use skep_api::resource::GroupVersionResource;
use skep_client::{Client, Error};

/// A resource of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) gvr: GroupVersionResource,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Resource {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

#[derive(Deserialize)]
struct ApiResourceList {
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
struct ApiResource {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup {
    name: String,
    preferred_version: Option<GroupVersion>,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct ApiGroupList {
    #[serde(default)]
    groups: Vec<ApiGroup>,
}

/// All resources, each in one version, and the groups that could not be read (an extension server that
/// is away must not keep the others from being seen).
pub(crate) async fn resources(client: &Client) -> Result<(Vec<Resource>, Vec<String>), Error> {
    let mut all = Vec::new();
    let mut failed = Vec::new();
    read(client, "", "v1", "/api/v1", &mut all).await?;
    let groups: ApiGroupList = client.get_path("/apis").await?;
    for group in groups.groups {
        let preferred = group.preferred_version.as_ref().map(|v| v.version.clone());
        let versions: Vec<String> =
            preferred.into_iter().chain(group.versions.iter().map(|v| v.version.clone())).collect();
        let mut seen: Vec<&str> = Vec::new();
        for version in &versions {
            if seen.contains(&version.as_str()) {
                continue;
            }
            seen.push(version);
            let path = format!("/apis/{}/{version}", group.name);
            if let Err(error) = read(client, &group.name, version, &path, &mut all).await {
                tracing::debug!(path, %error, "cannot read discovery");
                failed.push(format!("{}/{version}: {error}", group.name));
            }
        }
    }
    Ok((all, failed))
}

/// The resources of one group and version with their kinds; none when the server does not have it.
pub(crate) async fn kinds(
    client: &Client,
    group: &str,
    version: &str,
) -> Result<Vec<(String, String)>, Error> {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    match client.get_path::<ApiResourceList>(&path).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| (resource.name, resource.kind)).collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn read(
    client: &Client,
    group: &str,
    version: &str,
    path: &str,
    all: &mut Vec<Resource>,
) -> Result<(), Error> {
    let list: ApiResourceList = client.get_path(path).await?;
    for resource in list.resources {
        let known = |r: &Resource| r.gvr.group == group && r.gvr.resource == resource.name;
        // Subresources have a slash; a resource of several versions is one.
        if resource.name.contains('/') || all.iter().any(known) {
            continue;
        }
        all.push(Resource {
            gvr: GroupVersionResource::new(group, version, resource.name),
            kind: resource.kind,
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        });
    }
    Ok(())
}
