//! Every built-in message of the API as data: JSON names, protobuf numbers, types, patch and list facts.
//!
//! The facts live in `schema/table.txt`, are parsed once and are `'static` afterwards. The codec, strategic
//! merge, server-side apply and OpenAPI all read this one table; none of them knows a kind by name.

mod parse;

use skep_api::resource::GroupVersionKind;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The parsed table.
#[derive(Debug)]
pub struct Schema {
    messages: Vec<Message>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), MessageId>,
    by_name: HashMap<String, MessageId>,
}

/// Where a message is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u32);

/// Messages of one group and version.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Short alias, `core.v1`.
    pub alias: &'static str,
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Prefix of OpenAPI names, `io.k8s.api.core.v1`.
    pub openapi: &'static str,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Short name, `PodSpec`.
    pub name: &'static str,
    /// Its package.
    pub package: &'static Package,
    /// Fields as declared, by protobuf number.
    pub fields: Vec<Field>,
    /// It carries `apiVersion` and `kind`.
    pub is_kind: bool,
    /// Server-side apply owns it as a whole.
    pub atomic: bool,
    /// Flattened JSON names, sorted: the message and the field index that declares each.
    flat: Vec<(&'static str, MessageId, usize)>,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// JSON name; for an inline field the protobuf name.
    pub json: &'static str,
    /// Protobuf number; 0 when the field has no protobuf form.
    pub number: u32,
    /// Type.
    pub ty: Type,
    /// Absent differs from zero.
    pub pointer: bool,
    /// Left out of JSON when empty.
    pub omit_empty: bool,
    /// Required.
    pub required: bool,
    /// Its own fields lie flat in the JSON of the parent.
    pub inline: bool,
    /// Strategic merge.
    pub patch: PatchStrategy,
    /// List semantics of server-side apply.
    pub list: ListType,
    /// The API declares the list type; where it does not, lists are atomic all the same.
    pub list_declared: bool,
    /// A map or struct owned as a whole.
    pub atomic: bool,
    /// Default value as text, where the API declares one.
    pub default: Option<&'static str>,
    /// The values an enumeration takes, sorted; none for any other type.
    pub values: Vec<String>,
}

/// Type of a field or of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Boolean.
    Bool,
    /// 32-bit signed.
    Int32,
    /// 64-bit signed.
    Int64,
    /// Double.
    Double,
    /// Text, enumerations included.
    String,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `resource.Quantity`.
    Quantity,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go duration text.
    Duration,
    /// A number or a text.
    IntOrString,
    /// Any object, itself encoded.
    Raw,
    /// `FieldsV1`.
    Fields,
    /// Any JSON.
    Json,
    /// A list of strings that is a message of its own in protobuf.
    Items,
    /// A JSON schema or a list of them.
    PropsOrArray,
    /// A JSON schema or a boolean.
    PropsOrBool,
    /// A JSON schema or a list of strings.
    PropsOrStrings,
    /// A message.
    Message(MessageId),
    /// A list.
    List(Box<Type>),
    /// A map with string keys.
    Map(Box<Type>),
}

/// How strategic merge patches a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge instead of being replaced.
    pub merge: bool,
    /// A map is replaced instead of being merged.
    pub replace: bool,
    /// The patch may name the keys that stay.
    pub retain_keys: bool,
    /// Which field of an element identifies it.
    pub merge_key: Option<&'static str>,
}

/// What a list means to server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// One value.
    #[default]
    Atomic,
    /// Scalars, each owned on its own.
    Set,
    /// Objects identified by these keys.
    Map(Vec<&'static str>),
}

/// Kinds that live in every group and version.
const EVERYWHERE: [&str; 9] = [
    "Status",
    "DeleteOptions",
    "ListOptions",
    "GetOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "WatchEvent",
    "List",
];

impl Schema {
    /// The table of the built-in API.
    pub fn get() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            parse::parse(include_str!("schema/table.txt")).expect("the embedded table is read by a unit test")
        })
    }

    /// The message of a built-in kind.
    pub fn of(gvk: &GroupVersionKind) -> Option<&'static Message> {
        let schema = Self::get();
        // The maps are keyed by 'static text; a lookup may use any lifetime because `&'static str` is covariant.
        let key: (&str, &str, &str) = (&gvk.group, &gvk.version, &gvk.kind);
        let id = schema.by_kind.get(&key).or_else(|| {
            EVERYWHERE
                .contains(&gvk.kind.as_str())
                .then(|| schema.by_kind.get(&("meta.k8s.io", "v1", gvk.kind.as_str())))
                .flatten()
        })?;
        Some(schema.message(*id))
    }

    /// A message by its OpenAPI name, `io.k8s.api.core.v1.Pod`.
    pub fn named(name: &str) -> Option<&'static Message> {
        let schema = Self::get();
        schema.by_name.get(name).map(|id| schema.message(*id))
    }

    /// A message by its place.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }
}

impl Message {
    /// `io.k8s.api.core.v1.PodSpec`.
    pub fn openapi_name(&self) -> String {
        format!("{}.{}", self.package.openapi, self.name)
    }

    /// A field by JSON name, those of inline messages included.
    pub fn field(&self, json: &str) -> Option<&'static Field> {
        let at = self.flat.binary_search_by(|(name, ..)| (*name).cmp(json)).ok()?;
        let (_, owner, index) = self.flat[at];
        Some(&Schema::get().message(owner).fields[index])
    }

    /// All fields as they lie in JSON.
    pub fn json_fields(&self) -> impl Iterator<Item = &'static Field> {
        self.flat.iter().map(|(_, owner, index)| &Schema::get().message(*owner).fields[*index])
    }

    /// A field by protobuf number.
    pub fn numbered(&self, number: u32) -> Option<&Field> {
        if number == 0 {
            return None;
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &self.fields[at])
    }

    /// The kind this message is, when it is one.
    pub fn gvk(&self) -> Option<GroupVersionKind> {
        self.is_kind.then(|| GroupVersionKind::new(self.package.group, self.package.version, self.name))
    }
}

impl Field {
    /// The message of the field, of its elements or of its values.
    pub fn message(&self) -> Option<&'static Message> {
        self.ty.leaf().as_message()
    }
}

impl Type {
    /// The message, when it is one.
    pub fn as_message(&self) -> Option<&'static Message> {
        match self {
            Self::Message(id) => Some(Schema::get().message(*id)),
            _ => None,
        }
    }

    /// The type under lists and maps.
    pub fn leaf(&self) -> &Self {
        match self {
            Self::List(inner) | Self::Map(inner) => inner.leaf(),
            other => other,
        }
    }

    /// How Go's JSON errors call the type.
    pub fn go_name(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Double => "float64".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Items => "[]string".into(),
            Self::String
            | Self::Quantity
            | Self::Time
            | Self::MicroTime
            | Self::Duration
            | Self::IntOrString => "string".into(),
            Self::Raw | Self::Fields | Self::Json => "interface {}".into(),
            Self::PropsOrArray | Self::PropsOrBool | Self::PropsOrStrings => "v1.JSONSchemaProps".into(),
            Self::Message(id) => {
                let message = Schema::get().message(*id);
                format!("{}.{}", message.package.version, message.name)
            }
            Self::List(inner) => format!("[]{}", inner.go_name()),
            Self::Map(inner) => format!("map[string]{}", inner.go_name()),
        }
    }
}

/// `JSONSchemaProps`, which three of the types above stand for.
pub(crate) fn schema_props() -> &'static Message {
    static PROPS: OnceLock<&'static Message> = OnceLock::new();
    PROPS.get_or_init(|| {
        Schema::named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .expect("a unit test looks it up")
    })
}

/// `ObjectMeta`, which every object has, also one of a kind that is not in the table.
pub(crate) fn object_meta() -> &'static Message {
    static META: OnceLock<&'static Message> = OnceLock::new();
    META.get_or_init(|| {
        Schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").expect("a unit test looks it up")
    })
}

#[cfg(test)]
mod tests;
