//! Requests to what lies below an object.

use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::Value;
use skep_api::error::{ApiError, Reason};
use skep_registry::Written;

use crate::input;
use crate::negotiate::{self, Offer};
use crate::proxy;
use crate::resources::{Call, answer_written};
use crate::respond::{self, Answer};
use crate::tokens;

/// A scale is a built-in kind whatever it belongs to.
const SCALE: Offer = Offer { shapes: false, protobuf: true };

/// Answers a request to a subresource.
pub(crate) async fn handle(call: Call<'_>, body: Body) -> Result<Answer, ApiError> {
    let name = call.request.subresource.as_str();
    let subresource = call.row.subresource(name).ok_or_else(ApiError::no_such_path)?;
    let kind = &subresource.kind;
    if call.row.built_in().is_some_and(|row| proxy::is_streamed(row, name)) {
        return proxy::handle(&call, body).await;
    }
    if call.request.rest.is_some() {
        return Err(ApiError::no_such_path());
    }
    let verb = match call.method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => "",
    };
    if !subresource.verbs.contains(&verb) {
        return Err(ApiError {
            code: 405,
            reason: Reason::MethodNotAllowed,
            ..ApiError::bad_request("the server does not allow this method on the requested resource")
        });
    }
    let target = call.target();
    let registry = &call.server.registry;
    if verb == "get" {
        if name == "scale" {
            let scale = registry.get_scale(&target).await?;
            let form = negotiate::form(call.headers, SCALE)?;
            return respond::value(StatusCode::OK, &form, None, &scale, call.include());
        }
        let form = call.form(true)?;
        let object = registry.get(&target, input::get_version(call.query)?).await?;
        return respond::object(&form, &call.row, &object, call.include());
    }

    let mut options = call.write_options()?;
    let form = if name == "scale" { negotiate::form(call.headers, SCALE)? } else { call.form(true)? };
    let bytes = input::body(body).await?;
    if verb == "patch" {
        let (patch, warnings) =
            input::patch(&call.content_type(), &bytes, &call.row, options.field_validation)?;
        input::check_patch(call.query, &patch)?;
        let mut written = registry.patch(&target, &patch, &options).await?;
        written.warnings.splice(0..0, warnings);
        return answer_written(&call, &form, &written);
    }
    // An eviction may come as policy/v1beta1 as well; the options inside of it are read loosely.
    let content_type = call.content_type();
    let decoded = if *kind == call.row.gvk() {
        call.row.decode(&content_type, &bytes, options.field_validation)?
    } else {
        input::object(&content_type, &bytes, kind, options.field_validation)?
    };
    if verb == "update" {
        let mut written = registry.update(&target, decoded.object, &options).await?;
        written.warnings.splice(0..0, decoded.warnings);
        return answer_written(&call, &form, &written);
    }
    let object: Value = match name {
        "binding" => registry.bind(&target, &decoded.object, &options).await?,
        "eviction" => {
            let inner = decoded.object.get("deleteOptions").cloned().unwrap_or(Value::Null);
            let how = input::delete_options_of(call.query, &inner, &mut options)?;
            registry.evict(&target, &decoded.object, how, &options).await?
        }
        "token" => {
            // A token for an account that is not there is not found, whatever admission says.
            registry.get(&target.clone().below(""), None).await?;
            let request = registry.admit_below(&target, decoded.object, &options).await?;
            let (answer, warnings) = tokens::issue(&call, &request).await?;
            warnings.into_iter().for_each(|warning| options.notes.warn(warning));
            answer
        }
        _ => return Err(ApiError::no_such_path()),
    };
    let written = Written { object, created: true, warnings: decoded.warnings };
    answer_written(&call, &form, &written)
}
