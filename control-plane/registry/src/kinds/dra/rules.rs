//! Rules that claims, classes and slices share: names, lists with bounds, opaque parameters, expressions.

use std::sync::LazyLock;

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_cel::{Env, Type};

use crate::kinds::pod::volumes::driver;
use crate::strategy::check::{At, is_empty};
use crate::strategy::meta;

/// Characters of a pool's name.
const MAX_POOL_NAME: usize = 253;
/// Characters of the part of an attribute's name after the domain.
const MAX_ID: usize = 32;
/// Bytes of opaque parameters.
const MAX_PARAMETERS: usize = 10 * 1024;
/// Bytes of an expression.
const MAX_EXPRESSION: usize = 10 * 1024;
/// What an expression may be estimated to cost.
const MAX_COST: u64 = 1_000_000;
/// Selectors of a request or a class.
pub(super) const MAX_SELECTORS: usize = 32;
/// Conditions a device's binding may wait for, and those that fail it.
const MAX_BINDING: usize = 4;

/// A list with a bound; each item is checked, unless there are too many. Says whether there are not.
pub(super) fn list(list: &At<'_>, most: usize, mut item: impl FnMut(&At<'_>)) -> bool {
    let items = list.items();
    if items.len() > most {
        list.error(Error::too_many(list.path(), items.len(), most));
        return false;
    }
    items.iter().for_each(&mut item);
    true
}

/// A list with a bound whose items are told apart by a field, or by themselves (`key` is empty).
pub(super) fn set(at: &At<'_>, most: usize, key: &str, item: impl FnMut(&At<'_>)) {
    if !list(at, most, item) {
        return;
    }
    let mut taken: Vec<&Value> = Vec::new();
    for item in at.items() {
        let told = if key.is_empty() { item.clone() } else { item.child(key) };
        if taken.contains(&told.value()) {
            told.told_at(item.path().clone()).duplicate();
        } else {
            taken.push(told.value());
        }
    }
}

/// A DNS label; one that is absent is told as malformed, as upstream does.
pub(super) fn label(name: &At<'_>) {
    name.invalid_text(names::dns1123_label(name.text()));
}

/// The name of a pool: DNS subdomains between slashes.
pub(super) fn pool_name(name: &At<'_>) {
    if !name.require() {
        return;
    }
    if name.text().len() > MAX_POOL_NAME {
        name.error(Error::too_long(name.path(), MAX_POOL_NAME));
    }
    for part in name.text().split('/') {
        for detail in names::dns1123_subdomain(part) {
            name.error(Error::invalid(name.path(), part, detail));
        }
    }
}

fn identifier(at: &At<'_>, text: &str) {
    if text.len() > MAX_ID {
        at.error(Error::too_long(at.path(), MAX_ID));
    }
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        at.error(Error::invalid(at.path(), text, detail));
    }
}

/// The name of an attribute or a capacity: an identifier, perhaps in a domain.
pub(super) fn qualified(at: &At<'_>, name: &str) {
    if name.is_empty() {
        return at.required("name required");
    }
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(at, id),
        [domain, id] => {
            if domain.is_empty() {
                at.required("the domain must not be empty");
            } else {
                let value = Value::from(*domain);
                driver(&at.with_value(&value));
            }
            if id.is_empty() {
                at.required("the name must not be empty");
            } else {
                identifier(at, id);
            }
        }
        _ => {}
    }
}

/// The same with the domain.
pub(super) fn fully_qualified(at: &At<'_>) {
    qualified(at, at.text());
    if !at.is_empty() && !at.text().contains('/') {
        at.invalid("a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// Parameters that only a driver understands: an object of JSON.
pub(super) fn configuration(config: &At<'_>) {
    let opaque = config.child("opaque");
    if !opaque.is_set() {
        return opaque.required("");
    }
    driver(&opaque.child("driver"));
    raw(&opaque.child("parameters"));
}

/// An object of JSON within bounds; its text is not repeated.
pub(super) fn raw(at: &At<'_>) {
    if !at.is_set() {
        at.required("");
    } else if at.value().to_string().len() > MAX_PARAMETERS {
        at.error(Error::too_long(at.path(), MAX_PARAMETERS));
    } else if !at.value().is_object() {
        at.error(Error::invalid(at.path(), "<value omitted>", "must be a valid JSON object"));
    }
}

/// What an expression over a device sees.
static DEVICE: LazyLock<Env> = LazyLock::new(|| {
    let quantity = Type::object::<String>("kubernetes.Quantity", []);
    let domains = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let fields = [
        ("driver", Type::String),
        ("attributes", domains(Type::Dyn)),
        ("capacity", domains(quantity)),
        ("allowMultipleAllocations", Type::Bool),
    ];
    Env::new().with_variable("device", Type::object("kubernetes.DRADevice", fields))
});

/// Selectors of devices. Expressions that were stored before are not looked at again.
pub(super) fn selectors(selectors: &At<'_>, compile: bool) {
    list(selectors, MAX_SELECTORS, |selector| {
        let cel = selector.child("cel");
        if !cel.is_set() {
            return cel.required("");
        }
        let expression = cel.child("expression");
        if expression.text().len() > MAX_EXPRESSION {
            return expression.error(Error::too_long(expression.path(), MAX_EXPRESSION));
        }
        if !compile {
            return;
        }
        match DEVICE.compile(expression.text()) {
            Err(errors) => {
                let detail = format!("compilation failed: {errors}");
                expression.error(Error::invalid(expression.path(), expression.text(), detail));
            }
            Ok(program) if !matches!(program.kind(), Type::Bool | Type::Dyn) => {
                let detail = "must evaluate to bool or the unknown type, not ".to_owned()
                    + &program.kind().to_string();
                expression.error(Error::invalid(expression.path(), expression.text(), detail));
            }
            // What attributes hold has no type, and so the estimate no upper bound.
            Ok(program) if program.cost().min > MAX_COST => {
                expression.forbidden("too complex, exceeds cost limit");
            }
            Ok(_) => {}
        }
    });
}

/// What a device's binding waits for, and what fails it.
pub(super) fn binding(device: &At<'_>) {
    let (wanted, failing) = (device.child("bindingConditions"), device.child("bindingFailureConditions"));
    let name = |condition: &At<'_>| condition.invalid_text(names::qualified_name(condition.text()));
    set(&wanted, MAX_BINDING, "", name);
    set(&failing, MAX_BINDING, "", name);
    for condition in failing.items() {
        if wanted.items().iter().any(|other| other.text() == condition.text()) {
            condition.invalid("bindingFailureConditions must not overlap with bindingConditions");
        }
    }
    match (wanted.is_empty(), failing.is_empty()) {
        (true, false) => wanted.invalid("bindingConditions are required to use bindingFailureConditions"),
        (false, true) => {
            failing.invalid("bindingFailureConditions are required to use bindingConditions");
        }
        _ => {}
    }
}

/// The metadata of a template: labels and annotations alone.
pub(super) fn template_metadata(metadata: &At<'_>) {
    meta::annotations(&metadata.child("annotations"));
    metadata.child("labels").labels();
    for (field, value) in metadata.value().as_object().into_iter().flatten() {
        let known = ["labels", "annotations", "creationTimestamp"].contains(&field.as_str());
        if !known && !is_empty(value) {
            metadata.child(field).forbidden("cannot be set");
        }
    }
}
