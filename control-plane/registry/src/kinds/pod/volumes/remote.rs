//! Sources that lie on other machines. The same rules hold for the volume of a pod and for a PersistentVolume.

use skep_api::field::Error;

use crate::strategy::check::At;

/// One source by its field's name; one that has no rules is valid.
pub(in crate::kinds) fn validate(kind: &str, source: &At<'_>) {
    match kind {
        "gcePersistentDisk" => {
            source.child("pdName").require();
            partition(&source.child("partition"));
        }
        "awsElasticBlockStore" => {
            source.child("volumeID").require();
            partition(&source.child("partition"));
        }
        "nfs" => {
            source.child("server").require();
            let path = source.child("path");
            path.require();
            if !path.text().starts_with('/') {
                path.error(Error::invalid(path.path(), path.text(), "must be an absolute path"));
            }
        }
        "iscsi" => iscsi(source),
        "glusterfs" => {
            source.child("endpoints").require();
            source.child("path").require();
        }
        "flocker" => {
            let (name, uuid) = (source.child("datasetName"), source.child("datasetUUID"));
            match (name.is_empty(), uuid.is_empty()) {
                (true, true) => source.required("one of datasetName and datasetUUID is required"),
                (false, false) => {
                    let detail = "datasetName and datasetUUID can not be specified simultaneously";
                    source.error(Error::invalid(source.path(), "resource", detail));
                }
                _ => {}
            }
            if name.text().contains('/') {
                name.invalid("must not contain '/'");
            }
        }
        "rbd" => {
            source.child("monitors").require();
            source.child("image").require();
        }
        "cinder" => {
            source.child("volumeID").require();
            let secret = source.child("secretRef");
            if secret.is_set() {
                secret.child("name").require();
            }
        }
        "cephfs" => {
            source.child("monitors").require();
        }
        "quobyte" => quobyte(source),
        "fc" => fibre(source),
        "flexVolume" => {
            source.child("driver").require();
            let reserved = |key: &str| {
                ["kubernetes.io", "k8s.io"].iter().any(|domain| {
                    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
                    prefix == *domain || prefix.ends_with(&format!(".{domain}"))
                })
            };
            for (key, value) in source.child("options").entries() {
                if reserved(key) {
                    let detail = "kubernetes.io and k8s.io namespaces are reserved";
                    value.error(Error::invalid(value.path(), key, detail));
                }
            }
        }
        "azureFile" => {
            source.child("secretName").require();
            source.child("shareName").require();
        }
        "vsphereVolume" => {
            source.child("volumePath").require();
        }
        "photonPersistentDisk" => {
            source.child("pdID").require();
        }
        "portworxVolume" => {
            source.child("volumeID").require();
        }
        "azureDisk" => azure_disk(source),
        "storageos" => {
            source.child("volumeName").require();
        }
        "scaleIO" => {
            for field in ["gateway", "system", "volumeName"] {
                source.child(field).require();
            }
        }
        _ => {}
    }
}

fn partition(partition: &At<'_>) {
    if partition.int().is_some_and(|n| !(0..=255).contains(&n)) {
        partition.invalid(skep_api::names::range(1, 255));
    }
}

fn iscsi(source: &At<'_>) {
    source.child("targetPortal").require();
    let name = source.child("iqn");
    if name.require() {
        initiator(&name);
    }
    source.child("lun").within(0, 255);
    let chap = source.child("chapAuthDiscovery").flag() || source.child("chapAuthSession").flag();
    if chap && !source.child("secretRef").is_set() {
        source.child("secretRef").required("");
    }
    let own = source.child("initiatorName");
    if own.is_set() {
        initiator(&own.told_at(source.path().child("initiatorname")));
    }
}

fn initiator(at: &At<'_>) {
    let text = at.text();
    let letters =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = if let Some(rest) = text.strip_prefix("iqn.") {
        // iqn.YYYY-MM.domain:name
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (head, tail) = rest.split_once(':').unwrap_or((rest, ""));
        let date = head.get(..7).unwrap_or_default();
        let when = date.split_once('-').is_some_and(|(year, month)| {
            year.len() == 4 && month.len() == 2 && digits(year) && digits(month)
        });
        let domain = head.get(8..).unwrap_or_default();
        when && head.get(7..8) == Some(".")
            && !domain.is_empty()
            && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
            && !tail.is_empty()
            && !tail.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n'])
    } else if let Some(rest) = text.strip_prefix("eui.") {
        letters(rest, 16)
    } else if let Some(rest) = text.strip_prefix("naa.") {
        letters(rest, 32)
    } else if ["iqn", "eui", "naa"].iter().any(|prefix| text.starts_with(prefix)) {
        false
    } else {
        at.invalid("must be valid format starting with iqn, eui, or naa");
        return;
    };
    if !valid {
        at.invalid("must be valid format");
    }
}

fn quobyte(source: &At<'_>) {
    let (registry, tenant) = (source.child("registry"), source.child("tenant"));
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    if registry.is_empty() {
        registry.required(detail);
    } else if tenant.text().len() >= 65 {
        tenant.required("must be a UUID and may not exceed a length of 64 characters");
    } else {
        let broken = registry.text().split(',').filter(|pair| !pair.contains(':')).count();
        for _ in 0..broken {
            registry.invalid(detail);
        }
    }
    source.child("volume").require();
}

fn fibre(source: &At<'_>) {
    let (targets, wwids, lun) = (source.child("targetWWNs"), source.child("wwids"), source.child("lun"));
    match (targets.is_empty(), wwids.is_empty()) {
        (true, true) => targets.required("must specify either targetWWNs or wwids, but not both"),
        (false, false) => targets.invalid("targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !targets.is_empty() {
        if lun.is_set() {
            lun.within(0, 255);
        } else {
            lun.required("lun is required if targetWWNs is specified");
        }
    }
}

fn azure_disk(source: &At<'_>) {
    let (name, uri) = (source.child("diskName"), source.child("diskURI"));
    name.require();
    uri.require();
    source.child("cachingMode").one_of(&["None", "ReadOnly", "ReadWrite"]);
    let kind = source.child("kind");
    kind.one_of(&["Dedicated", "Managed", "Shared"]);
    let managed = uri.text().starts_with("/subscriptions/");
    if !uri.is_empty() && kind.text() == "Managed" && !managed {
        uri.error(Error::not_supported(
            uri.path(),
            uri.text(),
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        ));
    }
    if !uri.is_empty() && !["", "Managed"].contains(&kind.text()) && !uri.text().starts_with("https://") {
        uri.error(Error::not_supported(
            uri.path(),
            uri.text(),
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        ));
    }
}
