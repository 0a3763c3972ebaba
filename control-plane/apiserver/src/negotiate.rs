//! Which form a client wants its answer in.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use skep_api::error::ApiError;
use skep_machinery::table::MetaVersion;

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Encoding {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What an object is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Nothing: the object itself.
    Object,
    /// `meta.k8s.io Table`
    Table,
    /// `meta.k8s.io PartialObjectMetadata(List)`
    Metadata,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Encoding.
    pub encoding: Encoding,
    /// Shape.
    pub shape: Shape,
    /// The version of the shape.
    pub version: MetaVersion,
}

impl Form {
    /// Plain JSON.
    pub const JSON: Self = Self { encoding: Encoding::Json, shape: Shape::Object, version: MetaVersion::V1 };

    /// The content type of an answer in this form.
    pub fn content_type(&self) -> String {
        self.encoding.media_type().to_owned()
    }
}

/// One clause of an Accept header.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The media type, lower case.
    pub media_type: String,
    /// Its parameters.
    pub parameters: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    /// A parameter, or nothing.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The clauses of the Accept headers, the best first.
pub fn accepted(headers: &HeaderMap) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for header in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for clause in header.split(',').map(str::trim).filter(|clause| !clause.is_empty()).take(64) {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut parameters: Vec<(String, String)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| {
                    (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned())
                })
                .collect();
            let quality =
                parameters.iter().position(|(name, _)| name == "q").map(|at| parameters.remove(at).1);
            let quality = quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0);
            clauses.push(Clause { media_type, parameters, quality });
        }
    }
    // Stable: clauses of the same quality keep their order.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn encoding(media_type: &str) -> Option<Encoding> {
    match media_type {
        "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// What the resource can be turned into.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Tables and metadata.
    pub shapes: bool,
    /// Protobuf of the object itself.
    pub protobuf: bool,
}

/// Chooses the form of an answer.
pub fn form(headers: &HeaderMap, offer: Offer) -> Result<Form, ApiError> {
    let clauses = accepted(headers);
    if clauses.is_empty() {
        return Ok(Form::JSON);
    }
    for clause in &clauses {
        let Some(encoding) = encoding(&clause.media_type) else { continue };
        let Some(shape) = shape(clause) else { continue };
        // Metadata has a protobuf form whatever it is made of, a table has none.
        let encodes = match shape.0 {
            Shape::Object => offer.protobuf,
            Shape::Metadata => true,
            Shape::Table => false,
        };
        if encoding == Encoding::Protobuf && !encodes {
            continue;
        }
        if shape.0 != Shape::Object && !offer.shapes {
            continue;
        }
        return Ok(Form { encoding, shape: shape.0, version: shape.1 });
    }
    let mut types = vec!["application/json", "application/yaml"];
    if offer.protobuf {
        types.push("application/vnd.kubernetes.protobuf");
    }
    Err(ApiError::not_acceptable(&types))
}

fn shape(clause: &Clause) -> Option<(Shape, MetaVersion)> {
    let Some(kind) = clause.parameter("as") else { return Some((Shape::Object, MetaVersion::V1)) };
    if clause.parameter("g") != Some("meta.k8s.io") {
        return None;
    }
    let version = match clause.parameter("v") {
        Some("v1") => MetaVersion::V1,
        Some("v1beta1") => MetaVersion::V1Beta1,
        _ => return None,
    };
    match kind {
        "Table" => Some((Shape::Table, version)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some((Shape::Metadata, version)),
        _ => None,
    }
}

/// The media type of the body, without parameters; JSON when nothing is said.
pub fn content_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type.is_empty() { Encoding::Json.media_type().to_owned() } else { media_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer { shapes: true, protobuf: true };

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        headers
    }

    #[test]
    fn the_first_form_that_is_offered_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(form(&headers(table), ALL).expect("a form").shape, Shape::Table);
        let plain = form(&headers(table), Offer { shapes: false, ..ALL }).expect("a form");
        assert_eq!(plain, Form::JSON);
        let proto = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(form(&headers(proto), ALL).expect("a form").encoding, Encoding::Protobuf);
        let without = Offer { protobuf: false, ..ALL };
        assert_eq!(form(&headers(proto), without).expect("a form").encoding, Encoding::Json);
        assert_eq!(form(&headers("text/html"), ALL).expect_err("nothing fits").code, 406);
        assert_eq!(
            form(&headers("*/*;q=0.8, application/yaml"), ALL).expect("a form").encoding,
            Encoding::Yaml
        );
        assert_eq!(form(&HeaderMap::new(), ALL).expect("a form"), Form::JSON);
    }

    #[test]
    fn a_table_of_what_has_none_is_not_acceptable() {
        let only_table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let error = form(&headers(only_table), Offer { shapes: false, ..ALL }).expect_err("no table");
        assert_eq!(error.code, 406);
    }
}
