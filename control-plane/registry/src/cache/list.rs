//! Reading a list out of a cache: which revision, which page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use skep_api::error::ApiError;
use skep_storage::Revision;

use super::filter::Filter;
use super::object::Object;
use super::token::Continue;

/// How a given resource version binds a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    /// Nothing said.
    #[default]
    Unset,
    /// Exactly that revision.
    Exact,
    /// That revision or a later one.
    NotOlderThan,
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which objects.
    pub filter: Filter,
    /// `None` reads the newest; 0 takes what is at hand.
    pub resource_version: Option<Revision>,
    /// What the resource version means.
    pub version_match: VersionMatch,
    /// At most so many; 0 is all.
    pub limit: usize,
    /// Where the page before ended.
    pub continue_token: Option<String>,
}

/// A page.
#[derive(Clone, Debug)]
pub struct List {
    /// The objects in key order.
    pub items: Vec<Arc<Object>>,
    /// The revision of the list.
    pub revision: Revision,
    /// The token of the next page, empty at the end.
    pub continue_token: String,
    /// How many objects lie behind this page; not known under a selector.
    pub remaining: Option<usize>,
}

/// Which state a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest there is, known to be at least this.
    Newest(Revision),
    /// This one.
    Exactly(Revision),
}

/// What to read and from where on.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) at: At,
    /// Must the store be asked for its revision first?
    pub(crate) consistent: bool,
    pub(crate) after: Option<String>,
}

/// Reads the options. What contradicts itself was refused where they came in; here the newest is taken for it.
pub(crate) fn plan(options: &ListOptions) -> Result<Plan, ApiError> {
    if let Some(token) = options.continue_token.as_deref().filter(|token| !token.is_empty()) {
        if options.resource_version.is_some_and(|revision| revision != 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continue::decode(token).ok_or_else(|| {
            ApiError::bad_request(
                "invalid continue token: continue key is not valid: unrecognized encoded value",
            )
        })?;
        let at = if token.rv == 0 { At::Newest(0) } else { At::Exactly(token.rv) };
        return Ok(Plan { consistent: token.rv == 0, at, after: Some(token.after) });
    }
    let plan = |at, consistent| Plan { at, consistent, after: None };
    Ok(match (options.version_match, options.resource_version) {
        (_, None) => plan(At::Newest(0), true),
        (_, Some(0)) => plan(At::Newest(0), false),
        (VersionMatch::Exact, Some(revision)) => plan(At::Exactly(revision), false),
        // Upstream's oldest rule: a page of a revision is of that one exactly.
        (VersionMatch::Unset, Some(revision)) if options.limit > 0 => plan(At::Exactly(revision), false),
        (VersionMatch::Unset | VersionMatch::NotOlderThan, Some(revision)) => {
            plan(At::Newest(revision), false)
        }
    })
}

/// Cuts the page out of objects in the order of their keys.
pub(crate) fn page_of(
    objects: Vec<Arc<Object>>,
    options: &ListOptions,
    after: Option<&str>,
    revision: Revision,
) -> List {
    let objects = objects.into_iter().map(|object| (object.key(), object)).collect();
    page(&objects, options, after, revision)
}

/// Cuts the page out of a state.
pub(crate) fn page(
    objects: &BTreeMap<String, Arc<Object>>,
    options: &ListOptions,
    after: Option<&str>,
    revision: Revision,
) -> List {
    // Keys of one namespace lie together: '/' ends the prefix, '0' is the character after it.
    let (first, end) = match &options.filter.namespace {
        Some(namespace) => {
            (Bound::Included(format!("{namespace}/")), Bound::Excluded(format!("{namespace}0")))
        }
        None => (Bound::Unbounded, Bound::Unbounded),
    };
    let start = match (after, &first) {
        (Some(after), Bound::Included(first)) if after < first.as_str() => Bound::Included(first.clone()),
        (Some(after), _) => match &end {
            Bound::Excluded(end) if after >= end.as_str() => {
                return List { items: Vec::new(), revision, continue_token: String::new(), remaining: None };
            }
            _ => Bound::Excluded(after.to_owned()),
        },
        (None, _) => first,
    };
    let mut range = objects.range((start, end));
    let everything = options.filter.has_no_selector();
    let mut items = Vec::new();
    let mut last = String::new();
    for (key, object) in range.by_ref() {
        if !everything && !options.filter.matches(object) {
            continue;
        }
        if options.limit > 0 && items.len() == options.limit {
            // One more matches: there is a next page.
            let remaining = everything.then(|| 1 + range.count());
            let continue_token = Continue::new(revision, last).encode();
            return List { items, revision, continue_token, remaining };
        }
        if options.limit > 0 {
            last.clone_from(key);
        }
        items.push(object.clone());
    }
    List { items, revision, continue_token: String::new(), remaining: None }
}

/// The answer to a page whose revision is forgotten: 410 with a token that goes on at the newest.
pub(crate) fn expired_page(after: &str) -> ApiError {
    let mut error = ApiError::gone_expired(
        "The provided continue parameter is too old to display a consistent list result. You can start \
         a new list without the continue parameter, or use the continue token in this response to \
         retrieve the remainder of the results. Continuing with the provided token results in an \
         inconsistent list - objects that were created, modified, or deleted between the time the first \
         chunk was returned and now may show up in the list.",
    );
    error.continue_token = Continue::new(0, after).encode();
    error
}
