//! Where the files of a volume come from: ConfigMaps, Secrets, the pod itself, tokens.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};
use skep_agent_core::fields::{field_ref, resource_ref};
use skep_client::Kind;

use super::payload::{DEFAULT_MODE, File, Files, check_path, mode, project};
use super::{Error, Volumes, token};

/// Does the API hold what this volume is made of?
pub(super) fn is_from_api(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// All files of the volume as they should be now.
pub(super) async fn files(volumes: &Volumes, pod: &Pod, volume: &Volume) -> Result<Files, Error> {
    let source = Source { volumes, pod, volume: &volume.name };
    if let Some(own) = &volume.config_map {
        let default = mode(own.default_mode, DEFAULT_MODE);
        return source.config_map(&own.name, own.items.as_deref(), default, own.optional).await;
    }
    if let Some(own) = &volume.secret {
        let default = mode(own.default_mode, DEFAULT_MODE);
        let name = own.secret_name.as_deref().unwrap_or_default();
        return source.secret(name, own.items.as_deref(), default, own.optional).await;
    }
    if let Some(own) = &volume.downward_api {
        let default = mode(own.default_mode, DEFAULT_MODE);
        return source.downward(own.items.as_deref().unwrap_or_default(), default);
    }
    match &volume.projected {
        Some(own) => source.projected(own).await,
        None => Err(Error::Unsupported(volume.name.clone())),
    }
}

struct Source<'a> {
    volumes: &'a Volumes,
    pod: &'a Pod,
    volume: &'a str,
}

impl Source<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn api(&self, source: skep_client::Error) -> Error {
        Error::Api { volume: self.volume.to_owned(), source }
    }

    /// Nothing where the object is optional and absent.
    async fn fetch<K: Kind>(&self, name: &str, optional: bool) -> Result<Option<K>, Error> {
        match self.volumes.client.namespaced::<K>(self.namespace()).get(name).await {
            Err(error) if optional && error.is_not_found() => Ok(None),
            other => other.map(Some).map_err(|error| self.api(error)),
        }
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        default: u32,
        optional: Option<bool>,
    ) -> Result<Files, Error> {
        let optional = optional.unwrap_or(false);
        let Some(found) = self.fetch::<ConfigMap>(name, optional).await? else { return Ok(Files::new()) };
        let text = found.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
        let binary = found.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
        project(self.volume, &text.chain(binary).collect(), items, default, optional)
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        default: u32,
        optional: Option<bool>,
    ) -> Result<Files, Error> {
        let optional = optional.unwrap_or(false);
        let Some(found) = self.fetch::<Secret>(name, optional).await? else { return Ok(Files::new()) };
        let data: BTreeMap<_, _> =
            found.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect();
        project(self.volume, &data, items, default, optional)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], default: u32) -> Result<Files, Error> {
        let mut files = Files::new();
        for item in items {
            check_path(self.volume, &item.path)?;
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => field_ref(self.pod, &field.field_path),
                (None, Some(resource)) => resource_ref(self.pod, None, resource, &self.volumes.node),
                (None, None) => Ok(String::new()),
            };
            let text = text.map_err(|source| Error::Field { volume: self.volume.to_owned(), source })?;
            files.insert(
                item.path.clone(),
                File { bytes: text.into_bytes(), mode: mode(item.mode, default), owner: None },
            );
        }
        Ok(files)
    }

    async fn projected(&self, projected: &ProjectedVolumeSource) -> Result<Files, Error> {
        let default = mode(projected.default_mode, DEFAULT_MODE);
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            if let Some(own) = &source.config_map {
                files.extend(self.config_map(&own.name, own.items.as_deref(), default, own.optional).await?);
            }
            if let Some(own) = &source.secret {
                files.extend(self.secret(&own.name, own.items.as_deref(), default, own.optional).await?);
            }
            if let Some(own) = &source.downward_api {
                files.extend(self.downward(own.items.as_deref().unwrap_or_default(), default)?);
            }
            if let Some(own) = &source.service_account_token {
                check_path(self.volume, &own.path)?;
                let token = self.volumes.tokens.get(self.pod, own).await.map_err(|error| self.api(error))?;
                files.insert(own.path.clone(), token::file(self.pod, token, default));
            }
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                return Err(Error::Unsupported(self.volume.to_owned()));
            }
        }
        Ok(files)
    }
}
