//! The options of get, list and watch. What contradicts itself is refused in upstream's words: clients that try
//! a new way of reading fall back by the 422 that says so.

use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::selector::{FieldSelector, LabelSelector};
use skep_registry::cache::{Filter, ListOptions, VersionMatch, WatchOptions};

use super::invalid;
use crate::query::Query;

const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// `name`: of the one object that is watched by its path.
fn filter(query: &Query, namespace: &str, name: &str) -> Result<Filter, ApiError> {
    let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?;
    let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    if !name.is_empty() {
        if !fields.requirements().is_empty() && fields.exact("metadata.name") != Some(name) {
            let text = "fieldSelector metadata.name doesn't match requested name";
            return Err(ApiError::bad_request(text));
        }
        if fields.requirements().is_empty() {
            fields = FieldSelector::equals("metadata.name", name);
        }
    }
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    Ok(Filter { namespace, labels, fields })
}

fn resource_version(query: &Query) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let version = text.parse();
    version.map(Some).map_err(|_| ApiError::bad_request(format!("invalid resource version: {text:?}")))
}

fn check(errors: ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", errors.0)) }
}

/// The options of a get.
pub fn get_version(query: &Query) -> Result<Option<u64>, ApiError> {
    resource_version(query)
}

/// The options of a list.
pub fn list_options(query: &Query, namespace: &str) -> Result<ListOptions, ApiError> {
    let (version, token) = (query.get("resourceVersion"), query.get("continue"));
    let field = Path::new("resourceVersionMatch");
    let mut errors = ErrorList::new();
    let version_match = match query.get("resourceVersionMatch") {
        None => VersionMatch::Unset,
        Some(given) => {
            if version.is_none() {
                let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(Error::forbidden(&field, text));
            }
            if token.is_some() {
                let text = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(Error::forbidden(&field, text));
            }
            match given {
                EXACT => VersionMatch::Exact,
                NOT_OLDER => VersionMatch::NotOlderThan,
                other => {
                    errors.push(Error::not_supported(&field, other, &[EXACT, NOT_OLDER, ""]));
                    VersionMatch::Unset
                }
            }
        }
    };
    if version_match == VersionMatch::Exact && version == Some("0") {
        let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        errors.push(Error::forbidden(&field, text));
    }
    if query.get("sendInitialEvents").is_some() {
        let text = "sendInitialEvents is forbidden for list";
        errors.push(Error::forbidden(&Path::new("sendInitialEvents"), text));
    }
    check(errors)?;
    let limit = match query.get("limit") {
        // Less than nothing is no limit, as upstream takes it.
        Some(limit) if limit.parse::<i64>().is_ok_and(|limit| limit < 0) => 0,
        _ => query.number("limit")?.unwrap_or_default(),
    };
    // What is at hand comes whole: clients that ask for it count on that, and page otherwise.
    let limit = if version == Some("0") && token.is_none() { 0 } else { limit };
    Ok(ListOptions {
        filter: filter(query, namespace, "")?,
        resource_version: resource_version(query)?,
        version_match,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        continue_token: token.map(str::to_owned),
    })
}

/// The options of a watch.
pub fn watch_options(query: &Query, namespace: &str, name: &str) -> Result<WatchOptions, ApiError> {
    let initial_events = query.option("sendInitialEvents");
    let version_match = query.get("resourceVersionMatch");
    let field = Path::new("resourceVersionMatch");
    let mut errors = ErrorList::new();
    if initial_events.is_some() && version_match != Some(NOT_OLDER) {
        let text = format!("sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}");
        errors.push(Error::forbidden(&field, text));
    }
    if let Some(given) = version_match {
        if initial_events.is_none() {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(Error::forbidden(&field, text));
        }
        if given != NOT_OLDER {
            errors.push(Error::not_supported(&field, given, &[NOT_OLDER]));
        }
        if query.get("continue").is_some() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(Error::forbidden(&field, text));
        }
    }
    check(errors)?;
    Ok(WatchOptions {
        filter: filter(query, namespace, name)?,
        resource_version: resource_version(query)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        initial_events,
        ..WatchOptions::default()
    })
}
