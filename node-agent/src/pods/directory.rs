//! Which pods and containers are here, for the kubelet API: it may ask at any time, from any task.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

/// A pod's entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub pod: Arc<Pod>,
    pub netns: Option<PathBuf>,
}

/// An index that workers write and handlers read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<(String, String), Entry>,
    running: HashMap<String, watch::Sender<bool>>,
}

impl Directory {
    // Held for map operations only, never across an await.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, pod: Arc<Pod>) {
        let key = key(&pod);
        let mut inner = self.lock();
        match inner.pods.get_mut(&key) {
            Some(entry) if entry.pod.metadata.uid == pod.metadata.uid => entry.pod = pod,
            _ => {
                inner.pods.insert(key, Entry { pod, netns: None });
            }
        }
    }

    pub(crate) fn set_netns(&self, pod: &Pod, netns: Option<PathBuf>) {
        if let Some(entry) = self.lock().pods.get_mut(&key(pod))
            && entry.pod.metadata.uid == pod.metadata.uid
        {
            entry.netns = netns;
        }
    }

    pub(crate) fn remove(&self, pod: &Pod) {
        let mut inner = self.lock();
        // A new pod of the name may have come already.
        if inner.pods.get(&key(pod)).is_some_and(|e| e.pod.metadata.uid == pod.metadata.uid) {
            inner.pods.remove(&key(pod));
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Entry> {
        self.lock().pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.lock().pods.values().map(|entry| entry.pod.clone()).collect()
    }

    pub(crate) fn runs(&self, id: &str) {
        self.lock().running.entry(id.to_owned()).or_insert_with(|| watch::Sender::new(false));
    }

    pub(crate) fn ended(&self, id: &str) {
        if let Some(sender) = self.lock().running.remove(id) {
            sender.send_replace(true);
        }
    }

    /// True when the container has ended; what is not known to run has.
    pub(crate) fn end_of(&self, id: &str) -> watch::Receiver<bool> {
        match self.lock().running.get(id) {
            Some(sender) => sender.subscribe(),
            None => watch::Sender::new(true).subscribe(),
        }
    }
}

fn key(pod: &Pod) -> (String, String) {
    let (namespace, name, _) = skep_agent_core::view::identity(pod);
    (namespace.to_owned(), name.to_owned())
}
