//! Requests to resources: one function for every kind and verb.

use std::time::Duration;

use axum::body::Body;
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use rand::Rng;
use serde_json::{Value, json};
use skep_admission::Notes;
use skep_api::error::{ApiError, Reason};
use skep_api::user::UserInfo;
use skep_machinery::kind::returns_deleted;
use skep_machinery::table::IncludeObject;
use skep_registry::strategy::Kind;
use skep_registry::{Target, WriteOptions, Written};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::input;
use crate::negotiate::{self, Form, Offer, Shape};
use crate::proxy::{Framing, Handshake, is_websocket};
use crate::query::Query;
use crate::request_info::ResourceRequest;
use crate::respond::{self, Answer};
use crate::server::Inner;
use crate::watching::{self, Framer};
use crate::{components, reviews, subresources};

/// A watch without a timeout of its own lasts between this and twice as long.
const WATCH_SECONDS: u64 = 1800;

/// One request to a resource on its way to its verb.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) row: Kind,
    pub(crate) request: &'a ResourceRequest,
    pub(crate) method: Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a Query,
    pub(crate) user: &'a UserInfo,
    pub(crate) extensions: &'a Extensions,
    pub(crate) uri: &'a Uri,
}

impl Call<'_> {
    /// What the registry is asked about.
    pub(crate) fn target(&self) -> Target {
        let namespace = if self.row.namespaced() { self.request.namespace.clone() } else { String::new() };
        Target::new(self.row.gvr(), namespace, self.request.name.clone())
            .below(self.request.subresource.clone())
    }

    /// The options of a write; what admission has to say of it ends in the answer's headers.
    pub(crate) fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let notes = self.extensions.get::<Notes>().cloned().unwrap_or_default();
        let kind = match self.method {
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => "CreateOptions",
        };
        Ok(WriteOptions { notes, ..input::write_options(kind, self.query, self.headers, self.user)? })
    }

    /// The form of the answer. What its rows carry is looked at before anything is written.
    pub(crate) fn form(&self, shapes: bool) -> Result<Form, ApiError> {
        let form = negotiate::form(self.headers, Offer { shapes, protobuf: self.row.has_protobuf() })?;
        if form.shape == Shape::Table {
            IncludeObject::parse(self.query.get("includeObject").unwrap_or_default())?;
        }
        Ok(form)
    }

    /// How much of its object each row of a table carries.
    pub(crate) fn include(&self) -> IncludeObject {
        let text = self.query.get("includeObject").unwrap_or_default();
        IncludeObject::parse(text).unwrap_or_default()
    }

    pub(crate) fn content_type(&self) -> String {
        negotiate::content_type(self.headers)
    }

    /// Is the verb served?
    fn serves(&self, verb: &str) -> Result<(), ApiError> {
        if self.row.serves(verb) {
            return Ok(());
        }
        Err(ApiError::method_not_supported(&self.row.gvr(), verb))
    }

    fn not_allowed(&self) -> ApiError {
        ApiError {
            code: 405,
            reason: Reason::MethodNotAllowed,
            ..ApiError::bad_request("the server does not allow this method on the requested resource")
        }
    }
}

/// Answers a request to a resource. Whoever uses a deprecated version is told so.
pub(crate) async fn handle(call: Call<'_>, body: Body, verb: &str) -> Result<Answer, ApiError> {
    let deprecation = call.row.deprecation();
    let answer = dispatch(call, body, verb).await?;
    Ok(match deprecation {
        Some(warning) => warn(answer, &[warning]),
        None => answer,
    })
}

async fn dispatch(call: Call<'_>, body: Body, verb: &str) -> Result<Answer, ApiError> {
    let request = call.request;
    let namespace_itself = request.gvr.resource == "namespaces" && request.gvr.group.is_empty();
    let scoped = !request.namespace.is_empty() && !namespace_itself;
    let across = request.namespace.is_empty() && call.row.namespaced();
    // A name needs its namespace, and what has none must not be asked for in one.
    if scoped != call.row.namespaced() && !(across && request.name.is_empty()) {
        return Err(ApiError::no_such_path());
    }
    if !request.subresource.is_empty() {
        return subresources::handle(call, body).await;
    }
    if call.row.is_virtual() && call.row.gvk().kind == "ComponentStatus" {
        return components::handle(&call).await;
    }
    if call.row.is_virtual() {
        return reviews::handle(call, body).await;
    }
    match verb {
        "watch" => watch(&call).await,
        "list" => list(&call).await,
        "get" => get(&call).await,
        "create" if !request.name.is_empty() => Err(call.not_allowed()),
        "create" if across => Err(call.not_allowed()),
        "create" => create(&call, body).await,
        "update" if !request.name.is_empty() => update(&call, body).await,
        "patch" if !request.name.is_empty() => patch(&call, body).await,
        "delete" => delete(&call, body).await,
        "deletecollection" if !across => delete_collection(&call, body).await,
        _ => Err(call.not_allowed()),
    }
}

async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    call.serves("get")?;
    let form = call.form(true)?;
    let object = call.server.registry.get(&call.target(), input::get_version(call.query)?).await?;
    respond::object(&form, &call.row, &object, call.include())
}

async fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    call.serves("list")?;
    let form = call.form(true)?;
    let target = call.target();
    let options = input::list_options(call.query, &target.namespace)?;
    let list = call.server.registry.list(&target, &options).await?;
    respond::list(&form, &call.row, &list, call.include())
}

async fn watch(call: &Call<'_>) -> Result<Answer, ApiError> {
    call.serves("watch")?;
    let form = call.form(true)?;
    let target = call.target();
    let mut options = input::watch_options(call.query, &target.namespace, &target.name)?;
    let framer = Framer::new(form, call.row.clone(), call.include());
    let timeout = match call.query.number("timeoutSeconds")? {
        None | Some(0) => rand::rng().random_range(WATCH_SECONDS..2 * WATCH_SECONDS),
        Some(seconds) => seconds.min(24 * 3600),
    };
    let deadline = Instant::now() + Duration::from_secs(timeout);
    options.deadline = Some(deadline);
    // Over a WebSocket each event is a message of its own.
    let socket = if is_websocket(call.headers) {
        let framing = if framer.is_text() { Framing::Text } else { Framing::Binary };
        Some(Handshake::any(call.headers, call.extensions, framing)?)
    } else {
        None
    };
    let answer = match call.server.registry.watch(&target, &options).await {
        Ok(watch) => {
            let cancel = call.server.closing.clone();
            let chunk = if socket.is_some() { 0 } else { watching::CHUNK };
            let watching = call.extensions.get::<Connection>().map(Connection::watching);
            watching::stream(watch, framer, deadline, cancel, chunk, watching)
        }
        // What is wrong with the version is told in the stream.
        Err(error) if is_about_version(&error) => watching::failed(&framer, &error),
        Err(error) => return Err(error),
    };
    Ok(match socket {
        Some(handshake) => handshake.text_or_bytes(&call.server.relay, answer),
        None => answer,
    })
}

/// A version that is forgotten, or has not come yet.
fn is_about_version(error: &ApiError) -> bool {
    let mut causes = error.details.iter().flat_map(|details| details.causes.iter().flatten());
    error.reason == Reason::Expired
        || causes.any(|cause| cause.reason.as_deref() == Some("ResourceVersionTooLarge"))
}

async fn create(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    call.serves("create")?;
    let form = call.form(true)?;
    let options = call.write_options()?;
    let bytes = input::body(body).await?;
    let decoded = call.row.decode(&call.content_type(), &bytes, options.field_validation)?;
    let mut written = call.server.registry.create(&call.target(), decoded.object, &options).await?;
    written.warnings.splice(0..0, decoded.warnings);
    answer_written(call, &form, &written)
}

async fn update(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    call.serves("update")?;
    let form = call.form(true)?;
    let options = call.write_options()?;
    let bytes = input::body(body).await?;
    let decoded = call.row.decode(&call.content_type(), &bytes, options.field_validation)?;
    let mut written = call.server.registry.update(&call.target(), decoded.object, &options).await?;
    written.warnings.splice(0..0, decoded.warnings);
    answer_written(call, &form, &written)
}

async fn patch(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    call.serves("patch")?;
    let form = call.form(true)?;
    let options = call.write_options()?;
    let bytes = input::body(body).await?;
    let (patch, warnings) = input::patch(&call.content_type(), &bytes, &call.row, options.field_validation)?;
    input::check_patch(call.query, &patch)?;
    let mut written = call.server.registry.patch(&call.target(), &patch, &options).await?;
    written.warnings.splice(0..0, warnings);
    answer_written(call, &form, &written)
}

async fn delete(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    call.serves("delete")?;
    let form = call.form(false)?;
    let mut options = call.write_options()?;
    let bytes = input::body(body).await?;
    let how = input::delete_options(call.query, &call.content_type(), &bytes, &mut options)?;
    let deleted = call.server.registry.delete(&call.target(), &how, &options).await?;
    if deleted.gone && !returns_deleted(&call.row.gvk()) {
        let uid = deleted.object.pointer("/metadata/uid").cloned().unwrap_or(Value::Null);
        let mut details = json!({"name": call.request.name, "kind": call.request.gvr.resource, "uid": uid});
        if !call.request.gvr.group.is_empty() {
            details["group"] = json!(call.request.gvr.group);
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        let answer = respond::value(StatusCode::OK, &form, None, &status, call.include())?;
        return Ok(warn(answer, &deleted.warnings));
    }
    let answer = respond::value(StatusCode::OK, &form, None, &deleted.object, call.include())?;
    Ok(warn(answer, &deleted.warnings))
}

async fn delete_collection(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    call.serves("deletecollection")?;
    let form = call.form(true)?;
    let mut options = call.write_options()?;
    let bytes = input::body(body).await?;
    let how = input::delete_options(call.query, &call.content_type(), &bytes, &mut options)?;
    let target = call.target();
    let list = input::list_options(call.query, &target.namespace)?;
    let registry = &call.server.registry;
    let items = registry.delete_collection(&target, &list, &how, &options).await?;
    let revision = items.iter().map(|object| object.revision).max().unwrap_or_default();
    let list = skep_registry::cache::List { items, revision, continue_token: String::new(), remaining: None };
    respond::list(&form, &call.row, &list, call.include())
}

/// The answer to a write.
pub(crate) fn answer_written(call: &Call<'_>, form: &Form, written: &Written) -> Result<Answer, ApiError> {
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = respond::value(status, form, Some(&call.row), &written.object, call.include())?;
    Ok(warn(answer, &written.warnings))
}

/// Adds `Warning` headers.
pub(crate) fn warn(mut answer: Answer, warnings: &[String]) -> Answer {
    let mut told: Vec<&str> = Vec::new();
    for warning in warnings.iter().take(32) {
        if told.contains(&warning.as_str()) {
            continue;
        }
        told.push(warning);
        let mut text = String::with_capacity(warning.len());
        for c in warning.chars().take(1024) {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_ascii_graphic() || c == ' ' => text.push(c),
                _ => text.push(' '),
            }
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
    answer
}
