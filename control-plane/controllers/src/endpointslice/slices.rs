//! Packs endpoints into slices of at most 100, moving as little as possible. Pure.
//!
//! What is in a slice stays there while it is wanted; new endpoints fill up slices that change anyway,
//! then those with most room taken, then new slices. A slice nobody is in goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::desired::Family;

const MAX_ENDPOINTS: usize = 100;

/// Endpoints of one family with the same ports.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) family: Family,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What all slices of a Service have in common.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) namespace: String,
    pub(super) prefix: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owner: OwnerReference,
}

/// Writes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

pub(super) fn plan(header: &Header, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut taken = vec![false; existing.len()];
    for group in groups {
        let mine: Vec<usize> = (0..existing.len())
            .filter(|i| {
                let slice = &existing[*i];
                !taken[*i]
                    && slice.metadata.deletion_timestamp.is_none()
                    && slice.address_type == group.family.name()
                    && slice.ports.as_deref().unwrap_or_default() == group.ports
            })
            .collect();
        for i in &mine {
            taken[*i] = true;
        }
        let mine: Vec<&Arc<EndpointSlice>> = mine.into_iter().map(|i| &existing[i]).collect();
        pack(header, group, &mine, &mut changes);
    }
    for (slice, taken) in existing.iter().zip(taken) {
        if !taken && slice.metadata.deletion_timestamp.is_none() {
            changes.delete.push(slice.clone());
        }
    }
    changes
}

/// What makes an endpoint the same one after a change.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone());
    (uid.unwrap_or_default(), endpoint.addresses.first().cloned().unwrap_or_default())
}

fn pack(header: &Header, group: Group, existing: &[&Arc<EndpointSlice>], changes: &mut Changes) {
    let placeholder = group.endpoints.is_empty();
    let mut order: Vec<(String, String)> = Vec::new();
    let mut wanted: HashMap<(String, String), Endpoint> = HashMap::new();
    for endpoint in group.endpoints {
        let id = identity(&endpoint);
        if wanted.insert(id.clone(), endpoint).is_none() {
            order.push(id);
        }
    }
    struct Draft<'a> {
        old: &'a Arc<EndpointSlice>,
        endpoints: Vec<Endpoint>,
        changed: bool,
    }
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for old in existing {
        let before = old.endpoints.as_deref().unwrap_or_default();
        let kept: Vec<Endpoint> = before.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
        let changed = kept != before || !has_header(old, header);
        drafts.push(Draft { old, endpoints: kept, changed });
    }
    let mut new: VecDeque<Endpoint> = order.iter().filter_map(|id| wanted.remove(id)).collect();
    // Those that are written anyway first, then the fullest.
    let mut fill: Vec<&mut Draft<'_>> = drafts.iter_mut().collect();
    fill.sort_by_key(|d| (!d.changed, std::cmp::Reverse(d.endpoints.len())));
    for draft in fill {
        let room = MAX_ENDPOINTS.saturating_sub(draft.endpoints.len());
        let more = room.min(new.len());
        draft.changed |= more > 0;
        draft.endpoints.extend(new.drain(..more));
    }
    let mut kept_one = false;
    for draft in drafts {
        if draft.endpoints.is_empty() && (!placeholder || kept_one) {
            changes.delete.push(draft.old.clone());
            continue;
        }
        kept_one = true;
        if draft.changed {
            let mut slice = EndpointSlice::clone(draft.old);
            slice.endpoints = Some(draft.endpoints);
            slice.metadata.labels = Some(header.labels.clone());
            slice.metadata.owner_references = Some(vec![header.owner.clone()]);
            changes.update.push(slice);
        }
    }
    while !new.is_empty() || placeholder && !kept_one {
        kept_one = true;
        let endpoints: Vec<Endpoint> = new.drain(..new.len().min(MAX_ENDPOINTS)).collect();
        changes.create.push(EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", header.prefix)),
                namespace: Some(header.namespace.clone()),
                labels: Some(header.labels.clone()),
                owner_references: Some(vec![header.owner.clone()]),
                ..ObjectMeta::default()
            },
            address_type: group.family.name().into(),
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
        });
    }
}

fn has_header(slice: &EndpointSlice, header: &Header) -> bool {
    let owners = slice.metadata.owner_references.as_deref().unwrap_or_default();
    slice.metadata.labels.as_ref() == Some(&header.labels) && owners.iter().any(|o| o.uid == header.owner.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let owner = OwnerReference { uid: "svc".into(), ..OwnerReference::default() };
        Header { namespace: "ns".into(), prefix: "svc".into(), labels, owner }
    }

    fn group(ids: impl IntoIterator<Item = u16>) -> Group {
        let endpoint = |i: u16| Endpoint {
            addresses: vec![format!("10.0.{}.{}", i >> 8, i & 255)],
            ..Endpoint::default()
        };
        Group { family: Family::V4, ports: Vec::new(), endpoints: ids.into_iter().map(endpoint).collect() }
    }

    fn apply(existing: &mut Vec<Arc<EndpointSlice>>, changes: Changes, made: &mut u32) {
        for gone in changes.delete {
            existing.retain(|s| s.metadata.name != gone.metadata.name);
        }
        for new in changes.update {
            let known = existing.iter_mut().find(|s| s.metadata.name == new.metadata.name).expect("known");
            *known = Arc::new(new);
        }
        for mut new in changes.create {
            *made += 1;
            new.metadata.name = Some(made.to_string());
            existing.push(Arc::new(new));
        }
    }

    #[test]
    fn one_change_is_one_write() {
        let (mut slices, mut made) = (Vec::new(), 0);
        apply(&mut slices, plan(&header(), vec![group(0..250)], &[]), &mut made);
        assert_eq!(slices.len(), 3);
        let changes = plan(&header(), vec![group((0..250).filter(|i| *i != 5))], &slices);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        let changes = plan(&header(), vec![group(0..251)], &slices);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        let changes = plan(&header(), vec![group(0..250)], &slices);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 0, 0));
    }

    #[test]
    fn nobody_leaves_one_empty_slice() {
        let (mut slices, mut made) = (Vec::new(), 0);
        apply(&mut slices, plan(&header(), vec![group(0..150)], &[]), &mut made);
        let changes = plan(&header(), vec![group([])], &slices);
        apply(&mut slices, changes, &mut made);
        assert_eq!(slices.len(), 1);
        let empty = plan(&header(), vec![group([])], &slices);
        assert!(empty.create.is_empty() && empty.update.is_empty() && empty.delete.is_empty());
    }

    proptest! {
        #[test]
        fn holds_exactly_what_is_wanted(
            rounds in prop::collection::vec(prop::collection::btree_set(0_u16..400, 0..300), 1..6),
        ) {
            let (mut slices, mut made) = (Vec::new(), 0);
            for wanted in rounds {
                let changes = plan(&header(), vec![group(wanted.iter().copied())], &slices);
                apply(&mut slices, changes, &mut made);
                let mut have: Vec<String> = slices.iter()
                    .flat_map(|s| s.endpoints.iter().flatten().flat_map(|e| e.addresses.clone())).collect();
                let mut want: Vec<String> = group(wanted).endpoints.into_iter().flat_map(|e| e.addresses).collect();
                have.sort();
                want.sort();
                prop_assert_eq!(have, want);
                prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().map_or(0, Vec::len) <= MAX_ENDPOINTS));
            }
        }
    }
}
