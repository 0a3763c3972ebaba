//! Streams that end at a kubelet or in the cluster: logs, exec, attach, port-forward, proxy.

use axum::body::Body;
use skep_api::error::ApiError;
use skep_registry::strategy::KindRow;

use crate::resources::Call;
use crate::respond::Answer;

/// How kubelets are reached.
pub struct Kubelets;

/// Does the subresource lead out of this server?
pub(crate) fn is_streamed(row: &KindRow, subresource: &str) -> bool {
    row.group.is_empty()
        && match row.plural {
            "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => subresource == "proxy",
            _ => false,
        }
}

pub(crate) async fn handle(_call: &Call<'_>, _body: Body) -> Result<Answer, ApiError> {
    Err(ApiError::no_such_path())
}
