//! What was known last, in a file: an answerer that starts again answers from it until it has heard the API server,
//! so that DNS is away for no longer than the process.
//!
//! The file is replaced as a whole; one that cannot be read is as good as none.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    index::{Index, ServiceKey, Zone},
};

/// A longer file is not ours.
const LONGEST: u64 = 256 << 20;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file.
    #[error("the file of known services")]
    Io(#[from] io::Error),
    /// Its contents.
    #[error("the file of known services is not one")]
    Format(#[from] serde_json::Error),
    /// It is about something else.
    #[error("the file of known services is about another domain, or too long")]
    NotOurs,
}

#[derive(Serialize, Deserialize)]
struct Saved<K, E> {
    domain: String,
    services: Vec<(K, E)>,
}

/// Writes what is known.
pub(crate) fn save(path: &Path, index: &Index) -> Result<(), SnapshotError> {
    let services: Vec<(&ServiceKey, &Entry)> = index.iter().collect();
    let saved = Saved { domain: index.zone().domain.to_ascii(), services };
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&saved)?)?;
    Ok(fs::rename(&temporary, path)?)
}

/// Reads what was known; the index says that it is provisional.
pub(crate) fn load(path: &Path, zone: Zone) -> Result<Index, SnapshotError> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(SnapshotError::NotOurs);
    }
    let saved: Saved<ServiceKey, Entry> = serde_json::from_slice(&fs::read(path)?)?;
    if saved.domain != zone.domain.to_ascii() {
        return Err(SnapshotError::NotOurs);
    }
    let mut index = Index::provisional(zone);
    for (key, entry) in saved.services {
        index.put(&key, Some(entry));
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::entry::{Endpoint, Port};

    #[test]
    fn what_is_saved_comes_back_and_nothing_else_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("services.json");
        let zone = Zone::new("cluster.local", Vec::new(), 30).expect("a zone");
        assert!(matches!(load(&path, zone.clone()), Err(SnapshotError::Io(_))));
        let ips = |text: &str| vec![text.parse().expect("an address")];
        let port = Port { name: "web".into(), protocol: "tcp".into(), number: 80 };
        let endpoint = Endpoint { ips: ips("10.244.0.5"), ports: vec![port.clone()] };
        let endpoints = BTreeMap::from([("web-0".to_owned(), endpoint)]);
        let entries = [
            ("one", Entry::Virtual { ips: ips("fd00::9"), ports: vec![port], endpoints: BTreeMap::new() }),
            ("two", Entry::Headless { endpoints }),
            ("three", Entry::Alias { target: "example.com".into() }),
        ];
        let mut index = Index::new(zone.clone());
        for (name, entry) in &entries {
            let key = ServiceKey { namespace: "default".into(), name: (*name).into() };
            index.put(&key, Some(entry.clone()));
        }
        save(&path, &index).expect("is saved");
        let back = load(&path, zone.clone()).expect("is read");
        assert!(back.is_provisional() && !index.is_provisional());
        assert_eq!(back.len(), 3);
        for (name, entry) in &entries {
            let key = ServiceKey { namespace: "default".into(), name: (*name).into() };
            assert_eq!(back.get(&key), Some(entry));
        }
        let other = Zone::new("other.local", Vec::new(), 30).expect("a zone");
        assert!(matches!(load(&path, other), Err(SnapshotError::NotOurs)));
        fs::write(&path, "{").expect("is written");
        assert!(matches!(load(&path, zone), Err(SnapshotError::Format(_))));
    }
}
