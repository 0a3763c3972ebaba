//! Volumes: what a pod's `volumes` become on the node.
//!
//! Everything of a pod lives below `<root>/<uid>/volumes`, so that tearing down is removing one folder.
//! Contents that come from the API are written by [`atomic`]: a reader sees the old files or the new
//! ones, never a mixture, and what did not change is not touched.

mod atomic;
mod payload;
mod sources;
mod sub_path;
mod token;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use skep_agent_core::fields::{FieldError, NodeFacts};
use skep_api::quantity::Quantity;
use skep_client::Client;

pub use sub_path::sub_path;

/// What can keep a pod from its volumes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has nothing that makes such a volume.
    #[error("volume {0:?} is of a type that this node does not support")]
    Unsupported(String),
    /// The API server did not give what the volume is made of.
    #[error("volume {volume:?}: {source}")]
    Api {
        /// The volume.
        volume: String,
        /// Its answer.
        source: skep_client::Error,
    },
    /// A key that `items` names is not there.
    #[error("volume {volume:?}: references non-existent key: {key}")]
    MissingKey {
        /// The volume.
        volume: String,
        /// The key.
        key: String,
    },
    /// A path that leads out of the volume.
    #[error("volume {volume:?}: invalid path {path:?}: must be relative, without '..'")]
    Path {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
    },
    /// A downward reference that can't be answered.
    #[error("volume {volume:?}: {source}")]
    Field {
        /// The volume.
        volume: String,
        /// Why.
        source: FieldError,
    },
    /// The host path is not what the pod said.
    #[error("hostPath type check failed: {0}")]
    HostPath(String),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Makes and refreshes volumes. Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    client: Client,
    root: PathBuf,
    node: NodeFacts,
    tokens: token::Tokens,
}

impl Volumes {
    /// Pods' folders will be below `root`.
    pub fn new(client: Client, root: PathBuf, node: NodeFacts) -> Self {
        Self { tokens: token::Tokens::new(client.clone()), client, root, node }
    }

    /// The folder of a pod's volumes.
    pub fn folder(&self, uid: &str) -> PathBuf {
        self.root.join(uid).join("volumes")
    }

    /// Makes every volume of the pod; where each lies on the host, by its name. May be repeated: contents
    /// are brought up to date.
    ///
    /// # Errors
    /// The first volume that cannot be made; what was made before stays.
    pub async fn prepare(&self, pod: &Pod) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut places = BTreeMap::new();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            places.insert(volume.name.clone(), self.make(pod, volume).await?);
        }
        Ok(places)
    }

    /// Brings contents that come from the API up to date.
    ///
    /// # Errors
    /// As [`Self::prepare`]; the old contents stay.
    pub async fn refresh(&self, pod: &Pod) -> Result<(), Error> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            if sources::is_from_api(volume) {
                self.make(pod, volume).await?;
            }
        }
        Ok(())
    }

    /// Unmounts and removes all volumes of a pod. Nothing to remove is success.
    ///
    /// # Errors
    /// When the file system refuses; what was removed stays removed.
    pub fn teardown(&self, uid: &str) -> Result<(), Error> {
        self.tokens.forget(uid);
        let folder = self.folder(uid);
        if !folder.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            // Not a mount point, or gone: both are what we want.
            if let Err(errno) = umount2(&path, MntFlags::MNT_DETACH)
                && !matches!(errno, nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT)
            {
                return Err(Error::Io { path, source: errno.into() });
            }
        }
        fs::remove_dir_all(&folder).map_err(Error::io(&folder))
    }

    async fn make(&self, pod: &Pod, volume: &Volume) -> Result<PathBuf, Error> {
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let place = self.folder(uid).join(&volume.name);
        let group = group(pod);
        if let Some(source) = &volume.empty_dir {
            empty_dir(&place, source, group)?;
            return Ok(place);
        }
        let files = sources::files(self, pod, volume).await?;
        fs::create_dir_all(&place).map_err(Error::io(&place))?;
        atomic::write(&place, &files, group).map_err(Error::io(&place))?;
        Ok(place)
    }
}

/// The group that a pod's files are for (`fsGroup`).
fn group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn empty_dir(place: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), Error> {
    if place.exists() {
        return Ok(());
    }
    // Made under another name first: a folder that is there is whole.
    let part = place.with_file_name(format!("..{}", place.file_name().unwrap_or_default().to_string_lossy()));
    fs::create_dir_all(&part).map_err(Error::io(&part))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o777)).map_err(Error::io(&part))?;
    fs::rename(&part, place).map_err(Error::io(place))?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|text| text.0.parse::<Quantity>().ok());
        let options = match limit.map(|limit| limit.value()).filter(|bytes| *bytes > 0) {
            Some(bytes) => format!("mode=0777,size={bytes}"),
            None => "mode=0777".to_owned(),
        };
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| Error::Io { path: place.to_owned(), source: errno.into() })?;
    }
    if group.is_some() {
        chown(place, None, group).map_err(Error::io(place))?;
        // New files take the group of their folder.
        fs::set_permissions(place, fs::Permissions::from_mode(0o2777)).map_err(Error::io(place))?;
    }
    Ok(())
}

/// The host's own path, after the check that its type asks for.
fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, Error> {
    use std::os::unix::fs::FileTypeExt;
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(Error::io(&path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create_new(&path).map(drop).map_err(Error::io(&path))?;
        }
        _ => {}
    }
    let found = match fs::metadata(&path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let (fits, wanted) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (found.is_some_and(|kind| kind.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (found.is_some_and(|kind| kind.is_file()), "a file"),
        "Socket" => (found.is_some_and(|kind| kind.is_socket()), "a socket file"),
        "CharDevice" => (found.is_some_and(|kind| kind.is_char_device()), "a character device"),
        "BlockDevice" => (found.is_some_and(|kind| kind.is_block_device()), "a block device"),
        other => return Err(Error::HostPath(format!("unknown type {other:?}"))),
    };
    if fits { Ok(path) } else { Err(Error::HostPath(format!("{} is not {wanted}", path.display()))) }
}
