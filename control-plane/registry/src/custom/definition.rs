//! A CustomResourceDefinition, compiled: names, versions, schemas, columns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use skep_api::object::ObjectExt;

use super::cel::Place;
use super::convert::Conversion;
use super::json_path::JsonPath;
use super::printer::{self, PrinterColumn};
use super::scale::Scale;
use super::schema::Schema;

/// A condition that is true.
pub(crate) fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition.items(&["status", "conditions"]);
    conditions.iter().any(|c| c.text(&["type"]) == condition && c.text(&["status"]) == "True")
}

/// The names a resource goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Plural, in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Short names of kubectl.
    pub short_names: Vec<String>,
    /// Categories of kubectl.
    pub categories: Vec<String>,
}

impl Names {
    fn parse(names: Option<&Value>) -> Self {
        let text = |field: &str| names.map(|names| names.text(&[field])).unwrap_or_default().to_owned();
        let texts = |field: &str| {
            let list = names.map(|names| names.items(&[field])).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            plural: text("plural"),
            singular: text("singular"),
            kind: text("kind"),
            list_kind: text("listKind"),
            short_names: texts("shortNames"),
            categories: texts("categories"),
        }
    }
}

/// One version of a custom resource.
#[derive(Debug)]
pub struct Version {
    /// `v1beta1`.
    pub name: String,
    /// Is it served?
    pub served: bool,
    /// Is it the one that is stored?
    pub storage: bool,
    /// What its users are warned of.
    pub deprecation: Option<String>,
    /// Has it a status of its own?
    pub status: bool,
    /// The schema as it was written.
    pub schema: Value,
    pub(crate) parsed: Schema,
    /// The validation rules of the schema.
    pub(crate) rules: Option<Place>,
    pub(crate) scale: Option<Scale>,
    pub(crate) columns: Vec<PrinterColumn>,
    /// Name and path of the fields that selectors may name.
    pub(crate) selectable: Vec<(String, JsonPath)>,
}

impl Version {
    fn parse(version: &Value) -> Self {
        let schema = version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or(Value::Null);
        let selectable = version.items(&["selectableFields"]).iter().filter_map(|field| {
            let path = field.text(&["jsonPath"]);
            Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path)?))
        });
        let deprecated = version.flag(&["deprecated"]);
        Self {
            name: version.text(&["name"]).to_owned(),
            served: version.flag(&["served"]),
            storage: version.flag(&["storage"]),
            deprecation: deprecated.then(|| version.text(&["deprecationWarning"]).to_owned()),
            status: version.at(&["subresources", "status"]).is_some(),
            parsed: Schema::parse(&schema),
            rules: Place::compile(&schema),
            schema,
            scale: version.at(&["subresources", "scale"]).map(Scale::parse),
            columns: printer::parse(version.items(&["additionalPrinterColumns"])),
            selectable: selectable.collect(),
        }
    }
}

/// A definition.
#[derive(Debug)]
pub struct Definition {
    /// No two have the same.
    pub(crate) id: u64,
    /// The definition's uid.
    pub uid: String,
    /// `widgets.example.com`
    pub name: String,
    /// Group.
    pub group: String,
    /// Names.
    pub names: Names,
    /// Do objects live in namespaces?
    pub namespaced: bool,
    /// Versions, served or not.
    pub versions: Vec<Version>,
    /// Is it established: shown in discovery?
    pub established: bool,
    /// Is it going? Then nothing new is taken.
    pub terminating: bool,
    pub(crate) conversion: Conversion,
    /// What it was compiled from, for telling changes.
    source: Value,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Definition {
    /// Compiles an object.
    pub fn compile(object: &Value) -> Arc<Self> {
        let spec = object.at(&["spec"]).unwrap_or(&Value::Null);
        let accepted = Names::parse(object.at(&["status", "acceptedNames"]));
        let wanted = Names::parse(spec.get("names"));
        // Discovery shows what was accepted; the plural of the path never changes.
        let names = Names { plural: wanted.plural.clone(), ..accepted };
        let names = if names.kind.is_empty() { wanted } else { names };
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            uid: object.uid().to_owned(),
            name: object.name().to_owned(),
            group: spec.text(&["group"]).to_owned(),
            names,
            namespaced: spec.text(&["scope"]) != "Cluster",
            versions: spec.items(&["versions"]).iter().map(Version::parse).collect(),
            established: is_true(object, "Established"),
            terminating: is_true(object, "Terminating"),
            conversion: Conversion::parse(spec.get("conversion")),
            source: Self::source_of(object),
        })
    }

    /// What of an object matters here.
    fn source_of(object: &Value) -> Value {
        let of = |path: &[&str]| object.at(path).cloned().unwrap_or(Value::Null);
        Value::Array(vec![
            object.uid().into(),
            of(&["spec"]),
            of(&["status", "acceptedNames"]),
            is_true(object, "Established").into(),
            is_true(object, "Terminating").into(),
        ])
    }

    /// Would compiling this object give the same?
    pub(crate) fn is_of(&self, object: &Value) -> bool {
        self.source == Self::source_of(object)
    }

    /// A version by name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The version that is stored.
    pub fn storage(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }

    /// `apiVersion` of a version.
    pub(crate) fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    /// The version of an `apiVersion`, if it is one of these.
    pub(crate) fn version_of(&self, api_version: &str) -> Option<&Version> {
        let (group, version) = api_version.split_once('/')?;
        if group == self.group { self.version(version) } else { None }
    }
}
