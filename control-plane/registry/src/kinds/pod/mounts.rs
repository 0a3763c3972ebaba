//! Rules of where a container finds its volumes: mounted, or as devices.

use std::collections::BTreeSet;

use super::volumes::Volumes;
use crate::strategy::check::At;

/// `volumeMounts` and `volumeDevices` of a container.
pub(super) fn validate(container: &At<'_>, volumes: &Volumes<'_>) {
    let list = container.child("volumeMounts");
    let (mounts, devices) = (list.items(), container.child("volumeDevices").items());
    let has =
        |items: &[At<'_>], field: &str, text: &str| items.iter().any(|item| item.child(field).text() == text);
    let mut taken = BTreeSet::new();
    for mount in &mounts {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        name.require();
        if !volumes.contains_key(name.text()) {
            name.not_found();
        }
        path.require();
        if !taken.insert(path.text()) {
            path.invalid("must be unique");
        }
        if has(&devices, "name", name.text()) {
            name.invalid("must not already exist in volumeDevices");
        }
        if has(&devices, "devicePath", path.text()) {
            path.invalid("must not already exist as a path in volumeDevices");
        }
        let (sub_path, expression) = (mount.child("subPath"), mount.child("subPathExpr"));
        // These are told at the list's path, as upstream does.
        let told = |field: &str| mount.child(field).told_at(list.path().child(field));
        relative(&told("subPath"));
        if !expression.is_empty() && !sub_path.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        relative(&told("subPathExpr"));
        propagation(&told("mountPropagation"), container);
        recursive(mount, &told("recursiveReadOnly"));
    }
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in &devices {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        name.require();
        if !name.is_empty() && !names.insert(name.text()) {
            name.invalid("must be unique");
        }
        match volumes.get(name.text()) {
            None => name.not_found(),
            Some(source) => {
                if source.get("persistentVolumeClaim").or(source.get("ephemeral")).is_none() {
                    name.invalid(
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    );
                }
            }
        }
        path.require();
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')");
        } else if !paths.insert(path.text()) {
            path.invalid("must be unique");
        }
        if has(&mounts, "name", name.text()) {
            name.invalid("must not already exist in volumeMounts");
        }
        if has(&mounts, "mountPath", path.text()) {
            path.invalid("must not already exist as a path in volumeMounts");
        }
    }
}

fn propagation(mode: &At<'_>, container: &At<'_>) {
    mode.one_of(&["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.child("securityContext").child("privileged").flag();
    if mode.text() == "Bidirectional" && !privileged {
        mode.forbidden("Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive(mount: &At<'_>, mode: &At<'_>) {
    if !mode.is_set() {
        return;
    }
    mode.one_of(&["Disabled", "Enabled", "IfPossible"]);
    if ["Enabled", "IfPossible"].contains(&mode.text()) {
        if !mount.child("readOnly").flag() {
            mode.forbidden("may only be specified when readOnly is true");
        }
        let spread = mount.child("mountPropagation");
        if !["", "None"].contains(&spread.text()) {
            mode.forbidden("may only be specified when mountPropagation is None or not specified");
        }
    }
}

/// A path that stays below where it starts.
pub(super) fn relative(path: &At<'_>) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'");
    }
}
