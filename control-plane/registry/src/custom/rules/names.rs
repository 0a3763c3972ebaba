//! The names of a definition.

use skep_api::names;

use crate::strategy::check::At;

/// `wanted`: these are the names asked for, of which some must be given.
pub(super) fn validate(here: &At<'_>, wanted: bool) {
    if wanted {
        for field in ["plural", "singular", "kind", "listKind"] {
            here.child(field).require();
        }
    }
    let one = |name: &At<'_>, prefix: &str, text: &str| {
        let wrong = names::dns1035_label(text);
        if !wrong.is_empty() {
            name.invalid(format!("{prefix}{}", wrong.join(",")));
        }
    };
    for field in ["plural", "singular"] {
        let name = here.child(field);
        if !name.is_empty() {
            one(&name, "", name.text());
        }
    }
    for field in ["kind", "listKind"] {
        let name = here.child(field);
        if !name.is_empty() {
            one(&name, "may have mixed case, but should otherwise match: ", &name.text().to_lowercase());
        }
    }
    for name in here.child("shortNames").items() {
        one(&name, "", name.text());
    }
    let (kind, list) = (here.child("kind"), here.child("listKind"));
    if !kind.is_empty() && kind.text() == list.text() {
        list.invalid("kind and listKind may not be the same");
    }
    for name in here.child("categories").items() {
        one(&name, "", name.text());
    }
}
