//! What messages and fields are for, in upstream's words: an embedded, compressed table, unpacked only while documents
//! are made.

use std::collections::HashMap;
use std::io::Read;

use crate::schema::{Field, Message};

/// Made of `descriptions.txt` by the build script.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The unpacked table.
pub(super) struct Texts {
    table: String,
    /// Message and field (empty for the message itself) to the place of the text in the table.
    places: HashMap<u64, (usize, usize)>,
}

impl Texts {
    /// Unpacks the table.
    pub(super) fn load() -> Self {
        let mut table = String::new();
        if let Err(error) = flate2::read::GzDecoder::new(PACKED).read_to_string(&mut table) {
            // A unit test reads the table; explain without texts is better than no answer.
            debug_assert!(false, "the embedded table is damaged: {error}");
            table.clear();
        }
        let mut places = HashMap::new();
        let (mut at, mut message) = (0, "");
        for line in table.split_inclusive('\n') {
            let text = line.trim_end();
            if let Some(name) = text.strip_prefix("= ") {
                message = name;
            } else if let Some((field, text)) = text.split_once('\t') {
                let start = at + field.len() + 1;
                places.insert(key(message, field), (start, start + text.len()));
            }
            at += line.len();
        }
        Self { table, places }
    }

    /// What a message is for, by its OpenAPI name.
    pub(super) fn message(&self, name: &str) -> Option<String> {
        self.find(name, "").or_else(|| {
            let kind = name.rsplit('.').next()?.strip_suffix("List")?;
            Some(format!("{kind}List is a list of {kind} objects."))
        })
    }

    /// What a field is for.
    pub(super) fn field(&self, message: &Message, field: &Field) -> Option<String> {
        let mut text = self.named(&message.openapi_name(), field.json)?;
        if !field.values.is_empty() {
            text.push_str("\n\nPossible enum values:");
            for value in &field.values {
                text.push_str(&format!("\n - `{value:?}`"));
            }
        }
        Some(text)
    }

    /// What a field is for, by name.
    pub(super) fn named(&self, message: &str, field: &str) -> Option<String> {
        self.find(message, field).or_else(|| {
            let list = message.rsplit('.').next()?.strip_suffix("List");
            match (field, list) {
                ("apiVersion", _) => Some(API_VERSION.to_owned()),
                ("kind", _) => Some(KIND.to_owned()),
                ("metadata", Some(_)) => Some(LIST_METADATA.to_owned()),
                ("items", Some(kind)) => Some(format!("items is the list of {kind} objects.")),
                _ => None,
            }
        })
    }

    fn find(&self, message: &str, field: &str) -> Option<String> {
        let (start, end) = *self.places.get(&key(message, field))?;
        let text = self.table.get(start..end)?;
        Some(text.replace("\\n", "\n").replace("\\\\", "\\"))
    }
}

/// The names as one number: the table has some thousands of them, a collision is excluded by a unit test.
fn key(message: &str, field: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (message, field).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    #[test]
    fn the_table_is_whole() {
        let texts = Texts::load();
        let lines = texts.table.lines().filter(|line| line.contains('\t')).count();
        assert_eq!(texts.places.len(), lines);
        assert!(lines > 3000, "{lines}");
        let pod = texts.message("io.k8s.api.core.v1.Pod").expect("a text");
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
    }

    /// Nearly every field a client may ask about has a text, and no message of an API group is without one.
    #[test]
    fn fields_have_texts() {
        let texts = Texts::load();
        let mut without = Vec::new();
        let mut fields = 0;
        let documented = |name: &str| name.starts_with("io.k8s.api.") && texts.find(name, "").is_some();
        for message in Schema::get().messages().filter(|message| documented(&message.openapi_name())) {
            for field in message.json_fields() {
                fields += 1;
                if texts.field(message, field).is_none() {
                    without.push(format!("{}.{}", message.openapi_name(), field.json));
                }
            }
        }
        assert!(without.len() * 50 < fields, "{} of {fields}: {without:#?}", without.len());
    }
}
