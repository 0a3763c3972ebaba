//! The labels by which containers, snapshots and images are found again after a restart.

pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const ATTEMPT: &str = "skep.dev/attempt";
pub(crate) const LOG_PATH: &str = "skep.dev/log-path";
pub(crate) const IMAGE_DIGEST: &str = "skep.dev/image-digest";
pub(crate) const STARTED_AT: &str = "skep.dev/started-at";
pub(crate) const EXIT: &str = "skep.dev/exit";
pub(crate) const STDIN: &str = "skep.dev/stdin";
pub(crate) const TTY: &str = "skep.dev/tty";
pub(crate) const GC_ROOT: &str = "containerd.io/gc.root";
pub(crate) const GC_EXPIRE: &str = "containerd.io/gc.expire";
pub(crate) const GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
pub(crate) const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.overlayfs";
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Filled by containerd itself when a blob is committed with it: where the blob came from.
pub(crate) const LAST_USED: &str = "skep.dev/last-used";
/// One shim serves all containers that carry the same value.
pub(crate) const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
