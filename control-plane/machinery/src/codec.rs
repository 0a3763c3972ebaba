//! Objects from and to bytes: JSON, YAML and protobuf, driven by the schema table.
//!
//! What is decoded has `apiVersion` and `kind`, has the types its message has, and (for built-in kinds) holds no
//! field the message does not know. Empty fields that Go would not print are gone. Kinds outside the table (custom
//! resources) come through as they are, JSON and YAML only.

mod decode;
mod encode;
mod envelope;
mod media;
pub(crate) mod scalars;
mod typed;
pub(crate) mod wire;
mod yaml;

pub use media::Format;

use crate::schema::{Message, Schema};
use crate::{Error, Result};
use serde_json::{Map, Value};
use skep_api::resource::GroupVersionKind;
use typed::{Problem, Reader, Root};

/// A body may be this long.
pub const MOST_BYTES: usize = 3 * 1024 * 1024;

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped, with a warning each.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl FieldValidation {
    /// From the query parameter; empty means the default.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => Err(Error::Invalid(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Its kind.
    pub gvk: GroupVersionKind,
    /// The object, `apiVersion` and `kind` included.
    pub object: Value,
    /// What the client should be warned of.
    pub warnings: Vec<String>,
}

/// Decodes a request body.
pub fn decode(
    content_type: &str,
    bytes: &[u8],
    expect: Option<&GroupVersionKind>,
    validation: FieldValidation,
) -> Result<Decoded> {
    decode_as(Format::of_content_type(content_type)?, bytes, expect, validation)
}

/// Decodes bytes of a known format.
pub fn decode_as(
    format: Format,
    bytes: &[u8],
    expect: Option<&GroupVersionKind>,
    validation: FieldValidation,
) -> Result<Decoded> {
    if bytes.len() > MOST_BYTES {
        return Err(Error::TooLarge(format!("Request entity too large: limit is {MOST_BYTES}")));
    }
    match format {
        Format::Protobuf => decode_protobuf(bytes, expect),
        Format::Json => {
            let head: TypeMeta = serde_json::from_slice(bytes).map_err(|error| {
                Error::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
            })?;
            let gvk = head.resolve(expect)?;
            let mut from = serde_json::Deserializer::from_slice(bytes);
            let reader = Reader::default();
            let value = reader.read(Root::of(&gvk), &mut from).and_then(|value| from.end().map(|()| value));
            finish(gvk, expect, &reader, value.map_err(|error| error.to_string()), Vec::new(), validation)
        }
        // JSON is YAML, and what clients send under the name of YAML most often is JSON: its parser is faster.
        Format::Yaml if looks_like_json(bytes) => decode_as(Format::Json, bytes, expect, validation),
        Format::Yaml => {
            yaml::check(bytes)?;
            let head: TypeMeta = serde_yaml::from_slice(bytes).map_err(|error| {
                Error::bad_request(format!("error converting YAML to JSON: yaml: {error}"))
            })?;
            let gvk = head.resolve(expect)?;
            let reader = Reader::default();
            let from = serde_yaml::Deserializer::from_slice(bytes);
            let value = reader.read(Root::of(&gvk), from).map_err(|error| error.to_string());
            let duplicates =
                if validation == FieldValidation::Ignore { Vec::new() } else { yaml::duplicates(bytes) };
            finish(gvk, expect, &reader, value, duplicates, validation)
        }
    }
}

/// Checks an object that is already parsed (the result of a patch) as if it had been decoded.
pub fn check(gvk: &GroupVersionKind, object: &Value, validation: FieldValidation) -> Result<Decoded> {
    let reader = Reader::default();
    let value = reader.read(Root::of(gvk), object).map_err(|error| error.to_string());
    finish(gvk.clone(), Some(gvk), &reader, value, Vec::new(), validation)
}

/// JSON or YAML of unknown kind into a value; duplicate keys keep the last.
pub fn parse_untyped(format: Format, bytes: &[u8]) -> Result<Value> {
    parse_patch(format, bytes, FieldValidation::Ignore).map(|(value, _)| value)
}

/// A patch: JSON or YAML of unknown kind. Duplicate keys keep the last, and are warned of or refused.
pub fn parse_patch(
    format: Format,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>)> {
    if bytes.len() > MOST_BYTES {
        return Err(Error::TooLarge(format!("Request entity too large: limit is {MOST_BYTES}")));
    }
    let reader = Reader::default();
    let (value, duplicates) = match format {
        Format::Yaml if looks_like_json(bytes) => return parse_patch(Format::Json, bytes, validation),
        Format::Json => {
            let mut from = serde_json::Deserializer::from_slice(bytes);
            let value = reader.read(Root::Untyped, &mut from).and_then(|value| from.end().map(|()| value));
            (value.map_err(|error| Error::bad_request(format!("error decoding patch: {error}")))?, Vec::new())
        }
        Format::Yaml => {
            yaml::check(bytes)?;
            let value = reader.read(Root::Untyped, serde_yaml::Deserializer::from_slice(bytes));
            let duplicates =
                if validation == FieldValidation::Ignore { Vec::new() } else { yaml::duplicates(bytes) };
            (value.map_err(|error| Error::bad_request(format!("error decoding YAML: {error}")))?, duplicates)
        }
        Format::Protobuf => return Err(Error::UnsupportedMediaType("protobuf needs a kind".to_owned())),
    };
    let problems = problems(&reader, duplicates);
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            Err(Error::bad_request(format!("strict decoding error: {}", problems.join(", "))))
        }
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Warn | FieldValidation::Strict => Ok((value, problems)),
    }
}

/// What strict validation would refuse, worded. YAML duplicates are told by the parser instead, with their lines.
fn problems(reader: &Reader, yaml_duplicates: Vec<String>) -> Vec<String> {
    let from_yaml = !yaml_duplicates.is_empty();
    let mut problems = yaml_duplicates;
    problems.extend(reader.take_problems().into_iter().filter_map(|problem| match problem {
        Problem::Unknown(path) => Some(format!("unknown field \"{path}\"")),
        Problem::Duplicate(path) => (!from_yaml).then(|| format!("duplicate field \"{path}\"")),
    }));
    problems
}

fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

#[derive(Default, serde::Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
}

impl TypeMeta {
    fn resolve(self, expect: Option<&GroupVersionKind>) -> Result<GroupVersionKind> {
        let api_version = self.api_version.filter(|text| !text.is_empty());
        let kind = self.kind.filter(|text| !text.is_empty());
        if let Some(expect) = expect {
            let api_version = api_version.unwrap_or_else(|| expect.api_version());
            let kind = kind.unwrap_or_else(|| expect.kind.clone());
            return Ok(GroupVersionKind::from_api_version(&api_version, &kind));
        }
        match (api_version, kind) {
            (_, None) => Err(Error::bad_request("Object 'Kind' is missing")),
            (None, _) => Err(Error::bad_request("Object 'apiVersion' is missing")),
            (Some(api_version), Some(kind)) => Ok(GroupVersionKind::from_api_version(&api_version, &kind)),
        }
    }
}

/// Options and the like are accepted in any group and version.
fn check_expected(gvk: &GroupVersionKind, expect: Option<&GroupVersionKind>) -> Result<()> {
    let Some(expect) = expect else { return Ok(()) };
    if gvk == expect {
        return Ok(());
    }
    let same_message = match (Schema::of(gvk), Schema::of(expect)) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        _ => false,
    };
    if same_message {
        return Ok(());
    }
    if gvk.kind == expect.kind {
        return Err(Error::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            gvk.api_version(),
            expect.api_version()
        )));
    }
    Err(Error::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: converting ({}) to ({}): unknown conversion",
        gvk.kind, gvk.version, expect.kind, gvk.kind, expect.kind
    )))
}

fn finish(
    gvk: GroupVersionKind,
    expect: Option<&GroupVersionKind>,
    reader: &Reader,
    value: std::result::Result<Value, String>,
    yaml_duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded> {
    check_expected(&gvk, expect)?;
    let wanted = expect.unwrap_or(&gvk);
    let refuse = |reason: String| {
        Error::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {reason}",
            gvk.kind, gvk.version, wanted.kind
        ))
    };
    let mut object = match (value, reader.take_fatal()) {
        (_, Some(reason)) => return Err(refuse(reason)),
        (Err(reason), None) => return Err(refuse(reason)),
        (Ok(Value::Object(object)), None) => object,
        (Ok(_), None) => return Err(refuse("json: cannot unmarshal into Go value of type map".to_owned())),
    };
    let problems = problems(reader, yaml_duplicates);
    if validation == FieldValidation::Strict && !problems.is_empty() {
        return Err(refuse(format!("strict decoding error: {}", problems.join(", "))));
    }
    fill_type(&mut object, &gvk);
    let warnings = if validation == FieldValidation::Ignore { Vec::new() } else { problems };
    Ok(Decoded { gvk, object: Value::Object(object), warnings })
}

fn fill_type(object: &mut Map<String, Value>, gvk: &GroupVersionKind) {
    object.insert("apiVersion".to_owned(), Value::String(gvk.api_version()));
    object.insert("kind".to_owned(), Value::String(gvk.kind.clone()));
}

fn decode_protobuf(bytes: &[u8], expect: Option<&GroupVersionKind>) -> Result<Decoded> {
    if !bytes.starts_with(envelope::MAGIC) {
        return Err(Error::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    }
    let unknown = envelope::open(bytes).map_err(|error| Error::bad_request(error.to_string()))?;
    let raw = unknown.raw;
    // The raw part may itself be JSON, which the envelope then says.
    if unknown.content_type == "application/json" || !unknown.content_encoding.is_empty() {
        return decode_as(Format::Json, &raw, expect, FieldValidation::Ignore);
    }
    let head = TypeMeta { api_version: Some(unknown.api_version), kind: Some(unknown.kind) };
    let gvk = head.resolve(expect)?;
    check_expected(&gvk, expect)?;
    let message = message_of(&gvk)?;
    let mut object = decode::message(message, &raw).map_err(|error| {
        Error::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            gvk.kind, gvk.version, gvk.kind
        ))
    })?;
    fill_type(&mut object, &gvk);
    Ok(Decoded { gvk, object: Value::Object(object), warnings: Vec::new() })
}

fn message_of(gvk: &GroupVersionKind) -> Result<&'static Message> {
    Schema::of(gvk)
        .filter(|message| message.fields.iter().all(|field| field.number > 0))
        .ok_or_else(|| Error::NotAcceptable(format!("object {gvk} has no protobuf form")))
}

/// The bare message of an object, without the envelope: what lists and the cache hold.
pub fn encode_protobuf_message(gvk: &GroupVersionKind, object: &Value) -> Result<Vec<u8>> {
    let message = message_of(gvk)?;
    let object = object.as_object().ok_or_else(|| Error::bad_request("not an object"))?;
    let mut out = Vec::with_capacity(512);
    encode::message(message, object, &mut out)
        .map_err(|error| Error::NotAcceptable(format!("{gvk}: {error}")))?;
    Ok(out)
}

/// An object in its envelope. Lists and `Status` are objects too.
pub fn encode_protobuf(gvk: &GroupVersionKind, object: &Value) -> Result<Vec<u8>> {
    Ok(seal_protobuf(gvk, &encode_protobuf_message(gvk, object)?))
}

/// Puts a bare message into its envelope.
pub fn seal_protobuf(gvk: &GroupVersionKind, message: &[u8]) -> Vec<u8> {
    envelope::close(&gvk.api_version(), &gvk.kind, message)
}

/// A list of already encoded bare messages, in its envelope. `metadata` is the list's own.
pub fn encode_protobuf_list<'a>(
    list: &GroupVersionKind,
    metadata: &Value,
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>> {
    let head = Value::Object(Map::from_iter([("metadata".to_owned(), metadata.clone())]));
    let mut body = encode_protobuf_message(list, &head)?;
    for item in items {
        wire::put_bytes(&mut body, 2, item);
    }
    Ok(seal_protobuf(list, &body))
}

/// One frame of a protobuf watch: length, then a `WatchEvent` around the enveloped object.
pub fn watch_frame_protobuf(event: &str, enveloped: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(enveloped.len() + 32);
    wire::put_bytes(&mut body, 1, event.as_bytes());
    let mut raw = Vec::with_capacity(enveloped.len() + 8);
    wire::put_bytes(&mut raw, 1, enveloped);
    wire::put_bytes(&mut body, 2, &raw);
    let mut frame = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.append(&mut body);
    frame
}

/// One frame of a JSON watch around the encoded object: a line.
pub fn watch_frame_json(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(object.len() + event.len() + 24);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(event.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object.trim_ascii_end());
    frame.extend_from_slice(b"}\n");
    frame
}

/// YAML of an object.
pub fn encode_yaml(object: &Value) -> Result<Vec<u8>> {
    serde_yaml::to_string(object)
        .map(String::into_bytes)
        .map_err(|error| Error::NotAcceptable(error.to_string()))
}

/// Typed view of a value: for code that knows the kind.
pub fn to_typed<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T> {
    T::deserialize(object).map_err(|error| Error::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests;
