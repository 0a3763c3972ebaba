//! The gRPC channel to containerd and the metadata that every request carries.
//!
//! The channel connects lazily and reconnects by itself, so a containerd that was restarted is met again
//! by the next call.

use std::path::Path;

use containerd_client::{
    services::v1::{
        containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
        images_client::ImagesClient, leases_client::LeasesClient,
        snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient,
        version_client::VersionClient,
    },
    tonic::{
        Request, Status,
        metadata::AsciiMetadataValue,
        transport::{Channel, Endpoint},
    },
};

use crate::{Error, Result};

/// containerd answers with specs, manifests and lists; none of ours is larger than this.
const MAX_MESSAGE: usize = 16 << 20;

/// The snapshotter in use.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

/// A cheap handle on one containerd and one of its namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    channel: Channel,
    namespace: AsciiMetadataValue,
}

impl Rpc {
    /// Connects lazily to `socket`.
    pub(crate) fn new(socket: &Path, namespace: &str) -> Result<Self> {
        let socket = socket.to_path_buf();
        let namespace = AsciiMetadataValue::try_from(namespace)
            .map_err(|_| Error::Invalid(format!("invalid containerd namespace {namespace:?}")))?;
        // The URI is never resolved: the connector dials the socket.
        let channel = Endpoint::from_static("http://containerd.invalid").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                        tokio::net::UnixStream::connect(socket).await?,
                    ))
                }
            }),
        );
        Ok(Self { channel, namespace })
    }

    /// A request in our namespace.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request whose results are protected by `lease`.
    pub(crate) fn leased<T>(&self, message: T, lease: &AsciiMetadataValue) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.clone());
        request
    }

    pub(crate) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(4 * MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    pub(crate) fn version(&self) -> VersionClient<Channel> {
        VersionClient::new(self.channel.clone())
    }
}

/// Names the operation in the error of a call.
pub(crate) trait Named<T> {
    fn named(self, op: &'static str) -> Result<T>;
}

impl<T> Named<T> for std::result::Result<tonic::Response<T>, Status> {
    fn named(self, op: &'static str) -> Result<T> {
        self.map(tonic::Response::into_inner).map_err(|source| Error::Rpc { op, source: Box::new(source) })
    }
}

/// `Ok(None)` when containerd says that it does not exist.
pub(crate) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `Ok` also when containerd says that it exists already.
pub(crate) fn existing_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}
