//! What etcd's errors mean to a caller.

use etcd_client::Error as EtcdError;

use crate::{Error, LeaseId, Revision};

/// What a write asked, for the words of its error.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) lease: LeaseId,
    pub(super) revision: Revision,
    pub(super) size: usize,
}

/// The meanings that do not depend on whether something was written.
fn known(error: &EtcdError, asked: &Asked) -> Option<Error> {
    let EtcdError::GRpcStatus(status) = error else { return None };
    let message = status.message();
    let has = |part: &str| message.contains(part);
    if has("required revision has been compacted") {
        // etcd does not say what the oldest is.
        return Some(Error::Compacted { asked: asked.revision, oldest: 0 });
    }
    if has("required revision is a future revision") {
        return Some(Error::Future { asked: asked.revision, current: 0 });
    }
    if has("requested lease not found") {
        return Some(Error::NoLease(asked.lease));
    }
    if has("request is too large") || has("larger than max") {
        return Some(Error::TooLarge { size: asked.size, limit: super::MAX_REQUEST });
    }
    if has("duplicate key given") || has("key is not provided") || has("too many operations") {
        return Some(Error::Invalid(message.to_owned()));
    }
    if has("database space exceeded") || has("etcdserver: corrupt") {
        return Some(Error::Unavailable(message.to_owned()));
    }
    None
}

pub(super) fn of_read(error: &EtcdError, revision: Revision) -> Error {
    let asked = Asked { revision, ..Asked::default() };
    known(error, &asked).unwrap_or_else(|| Error::Unavailable(error.to_string()))
}

pub(super) fn of_lease(error: &EtcdError, lease: LeaseId) -> Error {
    let asked = Asked { lease, ..Asked::default() };
    match error {
        EtcdError::LeaseKeepAliveError(text) if text.contains("not found") => Error::NoLease(lease),
        error => known(error, &asked).unwrap_or_else(|| Error::Unavailable(error.to_string())),
    }
}

/// A write that failed in an unknown way may have happened, unless it never left this machine.
pub(super) fn of_write(error: &EtcdError, asked: &Asked) -> Error {
    if let Some(error) = known(error, asked) {
        return error;
    }
    let text = error.to_string();
    let unsent = match error {
        EtcdError::GRpcStatus(status) => [
            "tcp connect error",
            "error trying to connect",
            "Connection refused",
            "auth",
            "permission denied",
        ]
        .iter()
        .any(|part| status.message().contains(part)),
        EtcdError::InvalidArgs(_) | EtcdError::InvalidUri(_) | EtcdError::EndpointError(_) => true,
        _ => false,
    };
    if unsent { Error::Unavailable(text) } else { Error::Unknown(text) }
}
