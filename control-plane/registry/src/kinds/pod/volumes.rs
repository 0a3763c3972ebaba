//! Rules of the volumes of a pod: names, exactly one source each, and each source.

mod remote;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;

use super::environment::{field_ref, resource_ref};
use super::mounts::relative;
use crate::strategy::check::At;

pub(in crate::kinds) use remote::validate as remote_source;

const HOST_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The volumes of a pod by name, with their sources.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// The order in which upstream looks for sources.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];

/// Checks each volume and returns them by name.
pub(super) fn all<'a>(volumes: &At<'a>) -> Volumes<'a> {
    let mut known = Volumes::new();
    for volume in volumes.items() {
        let name = volume.child("name");
        sources(&volume);
        if name.require() {
            let faults = names::dns1123_label(name.text());
            if faults.is_empty() && known.contains_key(name.text()) {
                name.duplicate();
            }
            if faults.is_empty() {
                known.insert(name.text(), volume.value());
            }
            name.invalid_all(faults);
        }
    }
    known
}

fn sources(volume: &At<'_>) {
    let mut found = 0;
    for kind in SOURCES.iter().chain(&["image"]) {
        let source = volume.child(kind);
        if !source.is_set() {
            continue;
        }
        found += 1;
        if found > 1 {
            source.forbidden("may not specify more than 1 volume type");
        } else {
            self::source(kind, &source);
        }
    }
    if found == 0 {
        volume.required("must specify a volume type");
    }
}

fn source(kind: &str, source: &At<'_>) {
    match kind {
        "emptyDir" => {
            let limit = source.child("sizeLimit");
            if limit.quantity().is_some_and(|quantity| quantity.sign() < 0) {
                limit.forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            let path = source.child("path");
            if path.require() {
                if path.text().split('/').any(|part| part == "..") {
                    path.invalid("must not contain '..'");
                }
                let kind = source.child("type");
                if kind.is_set() && !HOST_TYPES.contains(&kind.text()) {
                    kind.error(Error::not_supported(kind.path(), kind.text(), HOST_TYPES));
                }
            }
        }
        "gitRepo" => {
            source.child("repository").require();
            relative(&source.child("directory"));
        }
        "secret" => {
            source.child("secretName").require();
            files(source);
        }
        "configMap" => {
            source.child("name").require();
            files(source);
        }
        "downwardAPI" => {
            mode(&source.child("defaultMode"));
            downward(&source.child("items"));
        }
        "projected" => projected(source),
        "persistentVolumeClaim" => {
            source.child("claimName").require();
        }
        "csi" => {
            driver(&source.child("driver"));
            let secret = source.child("nodePublishSecretRef");
            if secret.is_set() {
                secret.child("name").require();
            }
        }
        "ephemeral" => {
            let template = source.child("volumeClaimTemplate");
            if template.is_set() {
                crate::kinds::pvc::template(&template);
            } else {
                template.required("");
            }
        }
        "image" => {
            let reference = source.child("reference");
            if reference.is_empty() {
                reference.required("");
            }
            source.child("pullPolicy").require_one_of(&["Always", "IfNotPresent", "Never"]);
        }
        other => remote::validate(other, source),
    }
}

/// The name of a CSI driver.
pub(in crate::kinds) fn driver(name: &At<'_>) {
    if !name.require() {
        return;
    }
    if name.text().len() > 63 {
        name.error(Error::too_long(name.path(), 63));
    }
    let lower = name.text().to_lowercase();
    for detail in names::dns1123_subdomain(&lower) {
        name.error(Error::invalid(name.path(), lower.as_str(), detail));
    }
}

fn mode(mode: &At<'_>) {
    if mode.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        mode.invalid("must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// Keys as files: `defaultMode` and `items`.
fn files(source: &At<'_>) {
    mode(&source.child("defaultMode"));
    items(source);
}

fn items(source: &At<'_>) {
    for item in source.child("items").items() {
        item.child("key").require();
        item.child("path").require();
        local_path(&item.child("path"));
        mode(&item.child("mode"));
    }
}

/// A path below the volume that is not one of those the system uses.
fn local_path(path: &At<'_>) {
    relative(path);
    // Names that begin with two dots are the system's own.
    let text = path.text();
    if text.starts_with("..") && !text.starts_with("../") {
        path.invalid("must not start with '..'");
    }
}

fn downward(items: &At<'_>) {
    for item in items.items() {
        item.child("path").require();
        local_path(&item.child("path"));
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        if field.is_set() {
            field_ref(&field, DOWNWARD_FIELDS);
            if resource.is_set() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                item.error(Error::invalid(item.path(), "resource", detail));
            }
        } else if resource.is_set() {
            resource_ref(&resource, true);
        } else {
            item.required("one of fieldRef and resourceFieldRef is required");
        }
        mode(&item.child("mode"));
    }
}

const PROJECTIONS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

fn projected(volume: &At<'_>) {
    mode(&volume.child("defaultMode"));
    let mut paths = BTreeSet::new();
    let mut claim = |at: &At<'_>, told: &At<'_>| {
        if !at.is_empty() && !paths.insert(at.text().to_owned()) {
            told.error(Error::invalid(told.path(), at.text(), "conflicting duplicate paths"));
        }
    };
    for source in volume.child("sources").items() {
        let given: Vec<At<'_>> =
            PROJECTIONS.iter().map(|kind| source.child(kind)).filter(At::is_set).collect();
        for (index, projection) in given.iter().enumerate() {
            if index > 0 {
                projection.forbidden("may not specify more than 1 volume type per source");
            }
        }
        if given.is_empty() {
            source.required("must specify a volume type per source");
        }
        for kind in ["secret", "configMap"] {
            let here = source.child(kind);
            if here.is_set() {
                here.child("name").require();
                items(&here);
                here.child("items").items().iter().for_each(|item| claim(&item.child("path"), &here));
            }
        }
        let api = source.child("downwardAPI");
        downward(&api.child("items"));
        api.child("items").items().iter().for_each(|item| claim(&item.child("path"), &api));
        token(&source.child("serviceAccountToken"));
        claim(&source.child("serviceAccountToken").child("path"), &source.child("serviceAccountToken"));
        trust(&source.child("clusterTrustBundle"));
        claim(&source.child("clusterTrustBundle").child("path"), &source.child("clusterTrustBundle"));
    }
}

fn token(token: &At<'_>) {
    if !token.is_set() {
        return;
    }
    let seconds = token.child("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid("may not specify a duration less than 10 minutes");
    }
    if seconds.int().is_some_and(|s| s > 1 << 32) {
        seconds.invalid("may not specify a duration larger than 2^32 seconds");
    }
    let path = token.child("path");
    path.require();
    local_path(&path);
}

fn trust(bundle: &At<'_>) {
    if !bundle.is_set() {
        return;
    }
    let (name, signer) = (bundle.child("name"), bundle.child("signerName"));
    let selector = bundle.child("labelSelector");
    match (name.is_set(), signer.is_set()) {
        (true, true) => bundle.invalid("only one of name and signerName may be used"),
        (false, false) => bundle.required("either name or signerName must be specified"),
        (true, false) => {
            if selector.is_set() {
                selector.invalid("labelSelector is not permitted when name is specified");
            }
            name.invalid_all(names::dns1123_subdomain(name.text()));
        }
        (false, true) => selector.selector(),
    }
    let path = bundle.child("path");
    path.require();
    local_path(&path);
}
