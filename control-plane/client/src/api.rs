//! Requests on one resource, typed.

use std::marker::PhantomData;

use bytes::Bytes;
use futures::Stream;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use skep_api::resource::GroupVersionResource;

use crate::client::{Call, Client};
use crate::error::{Error, Result};
use crate::kind::Stored;
use crate::params::{DeleteParams, ListParams, Patch, PatchParams, Query, WatchParams, escape};
use crate::retry::Backoff;
use crate::watch::{self, WatchEvent};

const JSON: &str = "application/json";

/// A list as the server sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
pub struct ObjectList<K> {
    /// Revision and continue token.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The objects; they carry no `apiVersion` and `kind`.
    #[serde(default = "Vec::new", deserialize_with = "null_is_empty")]
    pub items: Vec<K>,
}

fn null_is_empty<'de, D: Deserializer<'de>, K: DeserializeOwned>(d: D) -> Result<Vec<K>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// The API of one resource, in one namespace or over all.
#[derive(Debug)]
pub struct Api<K> {
    client: Client,
    resource: GroupVersionResource,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: Stored> Api<K> {
    pub(crate) fn new(client: Client, resource: GroupVersionResource, namespace: Option<String>) -> Self {
        Self { client, resource, namespace, kind: PhantomData }
    }

    /// Which resource.
    pub fn resource(&self) -> &GroupVersionResource {
        &self.resource
    }

    /// The same resource in another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// Reads one object.
    pub async fn get(&self, name: &str) -> Result<K> {
        self.client.json(self.call(Method::GET, Some(name), None, &Query::default())).await
    }

    /// Reads one object; `None` when it does not exist.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads a list, or one chunk of it when a limit is set.
    pub async fn list(&self, params: &ListParams) -> Result<ObjectList<K>> {
        let mut query = Query::default();
        params.query(&mut query);
        self.client.json(self.call(Method::GET, None, None, &query)).await
    }

    /// Creates an object.
    pub async fn create(&self, object: &K) -> Result<K> {
        let call = self.call(Method::POST, None, None, &Query::default());
        self.client.json(with_json(call, JSON, object)?).await
    }

    /// Replaces an object; its resource version must be current when it is set.
    pub async fn replace(&self, name: &str, object: &K) -> Result<K> {
        let call = self.call(Method::PUT, Some(name), None, &Query::default());
        self.client.json(with_json(call, JSON, object)?).await
    }

    /// Replaces the status of an object.
    pub async fn replace_status(&self, name: &str, object: &K) -> Result<K> {
        self.replace_subresource(name, "status", object).await
    }

    /// Replaces through a subresource.
    pub async fn replace_subresource<T: Serialize>(&self, name: &str, sub: &str, object: &T) -> Result<K> {
        let call = self.call(Method::PUT, Some(name), Some(sub), &Query::default());
        self.client.json(with_json(call, JSON, object)?).await
    }

    /// Patches an object.
    pub async fn patch(&self, name: &str, patch: &Patch, params: &PatchParams) -> Result<K> {
        self.patch_at(name, None, patch, params).await
    }

    /// Patches the status of an object.
    pub async fn patch_status(&self, name: &str, patch: &Patch, params: &PatchParams) -> Result<K> {
        self.patch_at(name, Some("status"), patch, params).await
    }

    async fn patch_at(
        &self,
        name: &str,
        sub: Option<&str>,
        patch: &Patch,
        params: &PatchParams,
    ) -> Result<K> {
        let mut query = Query::default();
        params.query(&mut query);
        let call = self.call(Method::PATCH, Some(name), sub, &query);
        self.client.json(with_json(call, patch.content_type(), patch.body())?).await
    }

    /// Deletes an object. It may linger for its finalizers or its grace period.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<()> {
        let call = self.call(Method::DELETE, Some(name), None, &Query::default());
        self.client.bytes(with_json(call, JSON, &delete_options(params))?).await.map(drop)
    }

    /// Deletes all objects of a selection.
    pub async fn delete_collection(&self, params: &DeleteParams, selection: &ListParams) -> Result<()> {
        let mut query = Query::default();
        selection.query(&mut query);
        let call = self.call(Method::DELETE, None, None, &query);
        self.client.bytes(with_json(call, JSON, &delete_options(params))?).await.map(drop)
    }

    /// Creates through a subresource: `binding`, `eviction`, `token`.
    pub async fn create_subresource<B: Serialize, T: DeserializeOwned>(
        &self,
        name: &str,
        sub: &str,
        body: &B,
    ) -> Result<T> {
        let call = self.call(Method::POST, Some(name), Some(sub), &Query::default());
        self.client.json(with_json(call, JSON, body)?).await
    }

    /// Watches. The stream ends when the server closes it; an ERROR frame is its last item.
    pub async fn watch(
        &self,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>>> + Send + use<K>> {
        let mut query = Query::default();
        params.query(&mut query);
        let call = self.call(Method::GET, None, None, &query);
        let response = self.client.open(&call, &mut Backoff::default()).await?;
        Ok(watch::events(response.into_body(), call.what()))
    }

    fn call(&self, method: Method, name: Option<&str>, sub: Option<&str>, query: &Query) -> Call<'static> {
        let GroupVersionResource { group, version, resource } = &self.resource;
        let mut target =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        if let Some(namespace) = &self.namespace {
            target.push_str("/namespaces/");
            escape(namespace, &mut target);
        }
        target.push('/');
        target.push_str(resource);
        if let Some(name) = name {
            target.push('/');
            escape(name, &mut target);
        }
        if let Some(sub) = sub {
            target.push('/');
            target.push_str(sub);
        }
        target.push_str(query.as_str());
        Call { method, target, accept: K::ACCEPT, content: None }
    }
}

fn delete_options(params: &DeleteParams) -> serde_json::Value {
    let mut options = serde_json::json!(params);
    options["apiVersion"] = "v1".into();
    options["kind"] = "DeleteOptions".into();
    options
}

fn with_json<'a, T: Serialize>(mut call: Call<'a>, content_type: &'a str, body: &T) -> Result<Call<'a>> {
    let bytes = serde_json::to_vec(body).map_err(Error::Encode)?;
    call.content = Some((content_type, Bytes::from(bytes)));
    Ok(call)
}
