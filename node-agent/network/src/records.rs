//! What the node knows of its pods' networks, on disk.
//!
//! Written before a device is made and after the last trace of it is gone, so that a crash at any point leaves
//! a record too many (which `reconcile` removes), never an address that two pods could get.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{PodRequest, Result, config::network_state_dir, disk, ipam::History, names};

/// The layout of the file; a newer one is not read as this one.
const VERSION: u32 = 1;

/// One pod's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_interface: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    pods: BTreeMap<String, Record>,
    history: History,
}

/// The records with their file.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    document: Document,
}

impl Records {
    /// Opens the file. One that cannot be read is put aside, never overwritten; the records then start empty
    /// and are rebuilt from the devices by [`Records::adopt`].
    pub(crate) fn open(state_dir: &Path) -> Result<Self> {
        let path = network_state_dir(state_dir).join("pods.json");
        let empty = Document { version: VERSION, pods: BTreeMap::new(), history: History::default() };
        let document = match disk::read_optional(&path)? {
            None => empty,
            Some(bytes) => match serde_json::from_slice::<Document>(&bytes) {
                Ok(document) if document.version == VERSION => document,
                outcome => {
                    let aside = path.with_extension(format!("unreadable-{}", now()));
                    let reason = outcome.map_or_else(|e| e.to_string(), |d| format!("version {}", d.version));
                    tracing::error!(path = %path.display(), aside = %aside.display(), reason,
                        "address records cannot be read; putting them aside and rebuilding from the devices");
                    std::fs::rename(&path, &aside)
                        .map_err(|e| crate::Error::file("put aside", path.clone(), e))?;
                    empty
                }
            },
        };
        Ok(Self { path, document })
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Record> {
        self.document.pods.get(uid)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Record> {
        self.document.pods.values()
    }

    /// The pod's record, made (with addresses) and written if there is none.
    pub(crate) fn ensure(&mut self, pod: &PodRequest, cidrs: &[IpNet]) -> Result<Record> {
        if let Some(record) = self.get(&pod.uid).filter(|record| fits(record, cidrs)) {
            return Ok(record.clone());
        }
        let mut history = self.document.history.clone();
        let mut ips = Vec::with_capacity(cidrs.len());
        for cidr in cidrs {
            let used = |ip: &IpAddr| self.all().any(|r| r.uid != pod.uid && r.ips.contains(ip));
            ips.push(history.allocate(cidr, used, now())?);
        }
        let record = Record {
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ips,
            host_interface: self.free_interface(&pod.uid),
        };
        self.put(record.clone(), history)?;
        Ok(record)
    }

    /// Takes over a pod that was found in the kernel but not in the file.
    pub(crate) fn adopt(&mut self, record: Record) -> Result<()> {
        let mut history = self.document.history.clone();
        record.ips.iter().for_each(|ip| history.claim(*ip));
        self.put(record, history)
    }

    /// Forgets a pod and releases its addresses.
    pub(crate) fn forget(&mut self, uid: &str) -> Result<()> {
        let Some(record) = self.document.pods.remove(uid) else { return Ok(()) };
        let before = self.document.history.clone();
        record.ips.iter().for_each(|ip| self.document.history.release(*ip, now()));
        self.write().inspect_err(|_| {
            self.document.history = before;
            self.document.pods.insert(record.uid.clone(), record);
        })
    }

    fn put(&mut self, record: Record, history: History) -> Result<()> {
        let uid = record.uid.clone();
        let old_pod = self.document.pods.insert(uid.clone(), record);
        let old_history = std::mem::replace(&mut self.document.history, history);
        self.write().inspect_err(|_| {
            // What is not on disk is not given out.
            self.document.history = old_history;
            match old_pod {
                Some(old) => self.document.pods.insert(uid, old),
                None => self.document.pods.remove(&uid),
            };
        })
    }

    fn write(&self) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.document).expect("records are plain data");
        disk::replace(&self.path, &bytes)
    }

    fn free_interface(&self, uid: &str) -> String {
        (0..)
            .map(|attempt| names::host_interface(uid, attempt))
            .find(|name| !self.all().any(|r| r.uid != uid && r.host_interface == *name))
            .expect("there are more names than pods")
    }
}

/// A record made for other ranges than the node has now is made anew.
fn fits(record: &Record, cidrs: &[IpNet]) -> bool {
    record.ips.len() == cidrs.len() && record.ips.iter().zip(cidrs).all(|(ip, cidr)| cidr.contains(ip))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> PodRequest {
        PodRequest { uid: uid.into(), namespace: "default".into(), name: format!("pod-{uid}") }
    }

    fn cidrs() -> Vec<IpNet> {
        vec!["10.244.0.0/24".parse().expect("a range")]
    }

    #[test]
    fn a_pod_keeps_its_address_over_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(dir.path()).expect("opens");
        let first = records.ensure(&pod("a"), &cidrs()).expect("allocates");
        let second = records.ensure(&pod("b"), &cidrs()).expect("allocates");
        assert_ne!(first.ips, second.ips);
        drop(records);
        let mut records = Records::open(dir.path()).expect("opens again");
        assert_eq!(records.ensure(&pod("a"), &cidrs()).expect("is there"), first);
        assert_eq!(records.get("b"), Some(&second));
    }

    #[test]
    fn a_forgotten_pod_leaves_nothing_and_its_address_is_not_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(dir.path()).expect("opens");
        let first = records.ensure(&pod("a"), &cidrs()).expect("allocates");
        records.forget("a").expect("forgets");
        records.forget("a").expect("forgets twice");
        let mut records = Records::open(dir.path()).expect("opens again");
        assert_eq!(records.all().count(), 0);
        assert_ne!(records.ensure(&pod("a"), &cidrs()).expect("allocates").ips, first.ips);
    }

    #[test]
    fn an_unreadable_file_is_kept_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("network/pods.json");
        disk::replace(&path, b"{ half a docu").expect("writes");
        let records = Records::open(dir.path()).expect("opens all the same");
        assert_eq!(records.all().count(), 0);
        let aside = std::fs::read_dir(dir.path().join("network")).expect("a folder").count();
        assert_eq!(aside, 1, "the file was put aside");
    }

    #[test]
    fn a_half_written_new_file_does_no_harm() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(dir.path()).expect("opens");
        let record = records.ensure(&pod("a"), &cidrs()).expect("allocates");
        std::fs::write(dir.path().join("network/pods.new"), b"{").expect("writes");
        let records = Records::open(dir.path()).expect("opens again");
        assert_eq!(records.get("a"), Some(&record));
    }

    #[test]
    fn a_record_for_another_range_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(dir.path()).expect("opens");
        records.ensure(&pod("a"), &cidrs()).expect("allocates");
        let moved = vec!["10.244.9.0/24".parse().expect("a range")];
        let record = records.ensure(&pod("a"), &moved).expect("allocates");
        assert!(moved[0].contains(&record.ips[0]));
    }
}
