//! Rules of the volumes of a pod.

use std::collections::BTreeSet;

use skep_api::field::Error;
use skep_api::names;

use super::containers::{field_path, relative};
use crate::strategy::check::At;

const HOST_TYPES: &[&str] =
    &["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks each volume and returns their names.
pub(super) fn all<'a>(volumes: &At<'a>) -> BTreeSet<&'a str> {
    let mut taken = BTreeSet::new();
    for volume in volumes.items() {
        let name = volume.child("name");
        if name.require() {
            name.named(names::dns1123_label);
            if !taken.insert(name.text()) {
                name.duplicate();
            }
        }
        sources(&volume);
    }
    taken
}

fn sources(volume: &At<'_>) {
    let mut found = 0;
    for (kind, value) in volume.value().as_object().into_iter().flatten() {
        if kind == "name" || value.is_null() {
            continue;
        }
        found += 1;
        let source = volume.child(kind);
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
        "hostPath" => {
            let path = source.child("path");
            if path.require() && path.text().split('/').any(|part| part == "..") {
                path.invalid("must not contain '..'");
            }
            source.child("type").one_of(HOST_TYPES);
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
        "emptyDir" => {
            let limit = source.child("sizeLimit");
            if limit.quantity().is_some_and(|q| q.sign() < 0) {
                limit.forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "nfs" => {
            source.child("server").require();
            let path = source.child("path");
            if path.require() && !path.text().starts_with('/') {
                path.invalid("must be an absolute path");
            }
        }
        "csi" => {
            source.child("driver").require();
        }
        "ephemeral" => {
            source.child("volumeClaimTemplate").require();
        }
        _ => {}
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
        local_path(&item.child("path"));
        mode(&item.child("mode"));
    }
}

fn local_path(path: &At<'_>) {
    if path.require() {
        relative(path);
        if path.text().starts_with("..") && path.text().split('/').next() != Some("..") {
            path.invalid("must not start with '..'");
        }
    }
}

fn downward(items: &At<'_>) {
    for item in items.items() {
        local_path(&item.child("path"));
        mode(&item.child("mode"));
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => item.invalid("fieldRef and resourceFieldRef can not be specified simultaneously"),
            (true, false) => field_path(&field.child("fieldPath"), DOWNWARD_FIELDS),
            (false, true) => {
                resource.child("containerName").require();
                resource.child("resource").require();
            }
            (false, false) => item.required("one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn projected(volume: &At<'_>) {
    mode(&volume.child("defaultMode"));
    let mut paths = BTreeSet::new();
    for source in volume.child("sources").items() {
        for kind in ["secret", "configMap"] {
            let here = source.child(kind);
            if here.is_set() {
                here.child("name").require();
                items(&here);
            }
        }
        let api = source.child("downwardAPI").child("items");
        downward(&api);
        let token = source.child("serviceAccountToken");
        if token.is_set() {
            let seconds = token.child("expirationSeconds");
            if seconds.int().is_some_and(|s| s < 600) {
                seconds.invalid("may not specify a duration less than 10 minutes");
            }
            if seconds.int().is_some_and(|s| s > 1 << 32) {
                seconds.invalid("may not specify a duration larger than 2^32 seconds");
            }
            local_path(&token.child("path"));
        }
        let lists = [source.child("secret").child("items"), source.child("configMap").child("items"), api];
        let files =
            lists.iter().flat_map(At::items).map(|item| item.child("path")).chain([token.child("path")]);
        for path in files.filter(|p| !p.is_empty()) {
            if !paths.insert(path.text()) {
                path.error(Error::invalid(path.path(), path.text(), "conflicting duplicate paths"));
            }
        }
    }
}
