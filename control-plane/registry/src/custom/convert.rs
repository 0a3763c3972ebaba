//! Conversion between the versions of a custom resource: by rewriting `apiVersion`, or by asking a webhook.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use skep_api::error::{ApiError, Reason};
use skep_api::object::ObjectExt;
use skep_webhook::{Client, Endpoint, ServiceResolver};

use super::definition::Definition;
use crate::strategy::{check, meta};

/// The versions of `ConversionReview` spoken.
pub(crate) const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A conversion takes no longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How a definition converts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook does it.
    Webhook {
        /// Where it is.
        client: Value,
        /// The versions of the review it understands, the preferred one first.
        reviews: Vec<String>,
    },
}

/// Calls conversion webhooks.
pub(crate) struct Webhooks(Client);

impl Webhooks {
    /// Finds services through `services`.
    pub(crate) fn new(services: Arc<dyn ServiceResolver>) -> Self {
        Self(Client::new(services))
    }

    /// Posts a review to where a `clientConfig` leads; the answer, or why there is none.
    async fn call(&self, client: &Value, review: &Value) -> Result<Value, String> {
        let endpoint = Endpoint::from_client_config(client).map_err(|error| error.to_string())?;
        let answer = self.0.call(&endpoint, review, TIMEOUT).await;
        answer.map_err(|error| error.describe(&format!("{}?timeout=30s", endpoint.to_url())))
    }
}

impl Conversion {
    pub(crate) fn parse(conversion: Option<&Value>) -> Self {
        let webhook =
            conversion.filter(|c| c.text(&["strategy"]) == "Webhook").and_then(|c| c.get("webhook"));
        let Some(webhook) = webhook else { return Self::None };
        let reviews = webhook.items(&["conversionReviewVersions"]).iter().filter_map(Value::as_str);
        Self::Webhook {
            client: webhook.get("clientConfig").cloned().unwrap_or(Value::Null),
            reviews: reviews.map(str::to_owned).collect(),
        }
    }
}

fn failed(message: String) -> ApiError {
    ApiError { reason: Reason::InternalError, message: message.clone(), ..ApiError::internal(message) }
}

/// Asks the webhook for `objects` in another version: one call for all of them.
pub(crate) async fn by_webhook(
    definition: &Definition,
    caller: &Webhooks,
    objects: Vec<Value>,
    version: &str,
) -> Result<Vec<Value>, ApiError> {
    let Conversion::Webhook { client, reviews } = &definition.conversion else { return Ok(objects) };
    let wanted = definition.api_version(version);
    let first = objects.first().map(ObjectExt::gvk).unwrap_or_default();
    let prefix = format!("conversion webhook for {}/{}, Kind={}", first.group, first.version, first.kind);
    let review = reviews.iter().find(|version| REVIEW_VERSIONS.contains(&version.as_str()));
    let review = review.ok_or_else(|| failed("no supported conversion review versions".to_owned()))?;
    let uid = uuid::Uuid::new_v4().to_string();
    let request = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{review}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    let answer = caller.call(client, &request).await;
    let answer = answer.map_err(|error| failed(format!("{prefix} failed: {error}")))?;
    let converted =
        read(&answer, review, &uid).map_err(|error| failed(format!("{prefix} failed: {error}")))?;
    if converted.len() != objects.len() {
        return Err(failed(format!(
            "{prefix} returned {} objects, expected {}",
            converted.len(),
            objects.len()
        )));
    }
    let pairs = objects.iter().zip(converted).enumerate();
    pairs
        .map(|(index, (original, converted))| {
            accept(original, converted, &wanted).map_err(|error| {
                failed(format!("{prefix} returned invalid converted object at index {index}: {error}"))
            })
        })
        .collect()
}

/// The converted objects of an answer.
fn read(answer: &Value, review: &str, uid: &str) -> Result<Vec<Value>, String> {
    let wanted = format!("apiextensions.k8s.io/{review}");
    let (version, kind) = (answer.text(&["apiVersion"]), answer.text(&["kind"]));
    if review == "v1" && (version != wanted || kind != "ConversionReview") {
        return Err(format!(
            "expected webhook response of {wanted}, Kind=ConversionReview, got {version}, Kind={kind}"
        ));
    }
    let response = answer.get("response").filter(|response| response.is_object());
    let response = response.ok_or("no response provided")?;
    if review == "v1" && response.text(&["uid"]) != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.text(&["uid"])));
    }
    match (response.text(&["result", "status"]), response.text(&["result", "message"])) {
        ("Success", _) => Ok(response.items(&["convertedObjects"]).to_vec()),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// Checks one converted object. Of its metadata only labels and annotations may have changed: the rest
/// is put back.
fn accept(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, String> {
    let (group_version, kind) = (converted.text(&["apiVersion"]), converted.text(&["kind"]));
    if group_version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {group_version})"));
    }
    if kind != original.text(&["kind"]) {
        return Err(format!("invalid kind (expected {}, received {kind})", original.text(&["kind"])));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (original.text(&["metadata", field]), converted.text(&["metadata", field]));
        if before != after {
            return Err(format!("must have the same {name}: {before} != {after}"));
        }
    }
    let answered = converted.get("metadata").ok_or("missing metadata in converted object")?;
    let answered = answered.as_object().ok_or("invalid metadata in converted object")?.clone();
    let mut restored = original.map(&["metadata"]).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match answered.get(field) {
            None | Some(Value::Null) => _ = restored.remove(field),
            Some(Value::Object(map)) => {
                check_texts(field, map)?;
                restored.insert(field.to_owned(), Value::Object(map.clone()));
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    converted.set(&["metadata"], Value::Object(restored));
    Ok(converted)
}

fn check_texts(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
    }
    let object = json!({"metadata": {field: map}});
    let errors = check::check(&object, |root| {
        let here = root.down(&["metadata", field]);
        if field == "labels" { here.labels() } else { meta::annotations(&here) }
    });
    if errors.is_empty() { Ok(()) } else { Err(errors.lines().join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> Value {
        json!({
            "apiVersion": format!("example.com/{version}"), "kind": "W",
            "metadata": {"name": "w", "uid": "u", "labels": {"a": "b"}, "resourceVersion": "7"},
        })
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let mut converted = object("v2");
        converted["metadata"] =
            json!({"name": "w", "uid": "u", "labels": {"c": "d"}, "resourceVersion": "9"});
        let accepted = accept(&object("v1"), converted, "example.com/v2").expect("fine");
        assert_eq!(accepted["metadata"]["labels"], json!({"c": "d"}));
        assert_eq!(accepted["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn what_is_not_the_same_object_is_refused() {
        let cases = [
            ("/metadata/name", json!("x"), "must have the same name: w != x"),
            ("/metadata/uid", json!("x"), "must have the same UID: u != x"),
            ("/kind", json!("X"), "invalid kind (expected W, received X)"),
            ("/metadata/labels/a", json!(1), "metadata.labels[a] must be a string in converted object"),
        ];
        for (path, value, wanted) in cases {
            let mut converted = object("v2");
            *converted.pointer_mut(path).expect(path) = value;
            assert_eq!(accept(&object("v1"), converted, "example.com/v2"), Err(wanted.to_owned()));
        }
        let wrong = accept(&object("v1"), object("v1"), "example.com/v2");
        assert!(wrong.is_err_and(|error| error.contains("invalid groupVersion")));
    }

    #[test]
    fn answers_are_read() {
        let review = |response: Value| {
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response,
            })
        };
        let good = review(json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [1]}));
        assert_eq!(read(&good, "v1", "u"), Ok(vec![json!(1)]));
        assert!(read(&good, "v1", "other").is_err());
        let bad = review(json!({"uid": "u", "result": {"status": "Failed", "message": "no way"}}));
        assert_eq!(read(&bad, "v1", "u"), Err("no way".to_owned()));
        assert_eq!(read(&json!({}), "v1beta1", "u"), Err("no response provided".to_owned()));
    }
}
