//! Warnings of files in volumes that lie where others lie.

use serde_json::Value;
use skep_api::object::ObjectExt;

/// A path in a volume, and whose it is when the volume has several sources.
#[derive(PartialEq)]
struct Mapped {
    path: String,
    source: String,
}

impl Mapped {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn told(&self) -> String {
        let source = if self.source.is_empty() { String::new() } else { format!(" ({})", self.source) };
        format!("{:?}{source}", self.path)
    }

    fn collides(&self, other: &Self) -> bool {
        let below = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (below(&other.path, &self.path) || below(&self.path, &other.path))
    }
}

/// Each path against those before it.
fn collisions(paths: &[Mapped], mut tell: impl FnMut(String)) {
    for (index, path) in paths.iter().enumerate() {
        for other in paths[..index].iter().filter(|other| path.collides(other)) {
            tell(format!("{} with {}", path.told(), other.told()));
        }
    }
}

fn items(source: &Value, told: &str) -> Vec<Mapped> {
    source.items(&["items"]).iter().map(|item| Mapped::new(item.text(&["path"]), told)).collect()
}

fn of_source(source: &Value) -> Vec<Mapped> {
    if let Some(map) = source.at(&["configMap"]) {
        return items(map, &format!("ConfigMap {:?}", map.text(&["name"])));
    }
    if let Some(secret) = source.at(&["secret"]) {
        return items(secret, &format!("Secret {:?}", secret.text(&["name"])));
    }
    if let Some(fields) = source.at(&["downwardAPI"]) {
        return items(fields, "DownwardAPI");
    }
    if let Some(token) = source.at(&["serviceAccountToken"]) {
        return vec![Mapped::new(token.text(&["path"]), "ServiceAccountToken")];
    }
    if let Some(bundle) = source.at(&["clusterTrustBundle"]) {
        let name = Some(bundle.text(&["name"])).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| bundle.text(&["signerName"]));
        return vec![Mapped::new(bundle.text(&["path"]), &format!("ClusterTrustBundle {name:?}"))];
    }
    let Some(certificate) = source.at(&["podCertificate"]) else { return Vec::new() };
    [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ]
    .iter()
    .filter(|(field, _)| !certificate.text(&[field]).is_empty())
    .map(|(field, told)| Mapped::new(certificate.text(&[field]), told))
    .collect()
}

/// What to tell of the volumes of a pod.
pub(super) fn all(told: &mut Vec<String>, spec: &Value) {
    for volume in spec.items(&["volumes"]) {
        let name = volume.text(&["name"]);
        for (kind, field, words) in [
            ("configMap", "name", "ConfigMap"),
            ("secret", "secretName", "Secret"),
            ("downwardAPI", "", "DownwardAPI"),
        ] {
            let Some(source) = volume.at(&[kind]) else { continue };
            let what = if field.is_empty() {
                words.to_owned()
            } else {
                format!("{words} {:?}", source.text(&[field]))
            };
            collisions(&items(source, ""), |text| {
                told.push(format!("volume {name:?} ({what}): overlapping paths: {text}"));
            });
        }
        if volume.at(&["projected"]).is_none() {
            continue;
        }
        let mut paths = Vec::new();
        for source in volume.items(&["projected", "sources"]) {
            if source.as_object().is_none_or(serde_json::Map::is_empty) {
                told.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
            paths.extend(of_source(source));
        }
        collisions(&paths, |text| {
            told.push(format!("volume {name:?} (Projected): overlapping paths: {text}"));
        });
    }
}
