//! Named formats of strings.

use base64::Engine;
use skep_api::names;

use super::{Outcome, mismatch, urls::Url};
use crate::functions::{Body, Declare};
use crate::value::{Library, Value, time};

/// A format that has a name.
#[derive(Debug)]
pub struct Format {
    pub(crate) name: &'static str,
    /// The length of a regular expression that would check it: what costs go by.
    pub(crate) regex_size: u64,
    check: fn(&str) -> Vec<String>,
}

/// The last name of `format.NAME()` and its format.
static ALL: [Format; 13] = [
    Format { name: "dns1123Label", regex_size: 30, check: names::dns1123_label },
    Format { name: "dns1123Subdomain", regex_size: 60, check: names::dns1123_subdomain },
    Format { name: "dns1035Label", regex_size: 30, check: names::dns1035_label },
    Format { name: "qualifiedName", regex_size: 60, check: names::qualified_name },
    Format {
        name: "dns1123LabelPrefix",
        regex_size: 30,
        check: |text| names::dns1123_label(&names::mask_trailing_dash(text)),
    },
    Format {
        name: "dns1123SubdomainPrefix",
        regex_size: 60,
        check: |text| names::dns1123_subdomain(&names::mask_trailing_dash(text)),
    },
    Format {
        name: "dns1035LabelPrefix",
        regex_size: 30,
        check: |text| names::dns1035_label(&names::mask_trailing_dash(text)),
    },
    Format { name: "labelValue", regex_size: 40, check: names::label_value },
    Format { name: "uri", regex_size: 1103, check: |text| Url::parse(text).err().into_iter().collect() },
    Format {
        name: "uuid",
        regex_size: 79,
        check: |text| complain(is_uuid(text), "does not match the UUID format"),
    },
    Format {
        name: "byte",
        regex_size: 84,
        check: |text| {
            let fine = base64::engine::general_purpose::STANDARD.decode(text).is_ok();
            complain(fine, "invalid base64")
        },
    },
    Format {
        name: "date",
        regex_size: 83,
        check: |text| complain(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
    },
    Format {
        name: "datetime",
        regex_size: 83,
        check: |text| complain(time::parse_timestamp(text).is_some(), "invalid datetime"),
    },
];

fn complain(fine: bool, complaint: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![complaint.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let digits = text.chars().filter(|c| *c != '-').count();
    let dashes = text.chars().enumerate().filter(|(_, c)| *c == '-').map(|(at, _)| at);
    digits == 32
        && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        && dashes.eq(if text.len() == 36 { vec![8, 13, 18, 23] } else { Vec::new() })
}

pub(super) fn declare(declare: Declare<'_>) {
    let constants: [Body; 13] = [
        |_| named(0),
        |_| named(1),
        |_| named(2),
        |_| named(3),
        |_| named(4),
        |_| named(5),
        |_| named(6),
        |_| named(7),
        |_| named(8),
        |_| named(9),
        |_| named(10),
        |_| named(11),
        |_| named(12),
    ];
    for (format, body) in ALL.iter().zip(constants) {
        let name = format!("format.{}", format.name);
        declare(&name, &format!("{name}() -> kubernetes.NamedFormat"), body);
    }
    declare("format-named", "format.named(string) -> optional(kubernetes.NamedFormat)", |args| match args {
        [Value::String(name)] => Ok(match ALL.iter().find(|format| *format.name == **name) {
            Some(format) => Value::some(Value::Library(Library::Format(format))),
            None => Value::Optional(None),
        }),
        _ => mismatch(),
    });
    declare(
        "format-validate",
        "(kubernetes.NamedFormat).validate(string) -> optional(list(string))",
        validate,
    );
}

fn named<'a>(index: usize) -> Outcome<'a> {
    Ok(Value::Library(Library::Format(&ALL[index])))
}

fn validate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Library(Library::Format(format)), Value::String(text)] = args else { return mismatch() };
    let complaints = (format.check)(text);
    if complaints.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(complaints.into_iter().map(Value::from).collect())))
}
