//! When a request has been there long enough.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use skep_auth::certificates::not_after;

use super::{APPROVED, DENIED, FAILED, certificate, has};

/// How often a request is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(10 * 60);

const SETTLED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Why it should go, if it should.
pub(super) fn due(csr: &CertificateSigningRequest, now: Timestamp) -> Option<&'static str> {
    let issued = certificate(csr);
    if issued.and_then(not_after).is_some_and(|end| end.as_second() < now.as_second()) {
        return Some("its certificate has expired");
    }
    let conditions = csr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let settled = |kind: &str| {
        let condition = conditions.clone().find(|condition| condition.type_ == kind)?;
        Some(condition.last_update_time.as_ref().or(csr.metadata.creation_timestamp.as_ref())?.0)
    };
    let old = |since: Option<Timestamp>, limit| since.is_some_and(|since| now.duration_since(since) > limit);
    if issued.is_some() && old(settled(APPROVED), SETTLED) {
        return Some("it was signed long ago");
    }
    if old(settled(DENIED), SETTLED) {
        return Some("it was denied long ago");
    }
    if old(settled(FAILED), SETTLED) {
        return Some("it failed long ago");
    }
    let created = csr.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let open = !has(csr, APPROVED) && !has(csr, DENIED) && !has(csr, FAILED);
    (open && old(created, PENDING)).then_some("nobody has looked at it")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::condition;
    use super::*;

    #[test]
    fn requests_go_when_their_time_is_over() {
        let now = Timestamp::now();
        let ago = |hours| Time(now - SignedDuration::from_hours(hours));
        let csr = |kind: Option<&str>, hours: i64, signed: bool| {
            let mut csr = CertificateSigningRequest::default();
            csr.metadata.creation_timestamp = Some(ago(hours));
            let mut status = CertificateSigningRequestStatus::default();
            if let Some(kind) = kind {
                let mut condition = condition(kind, "", "");
                condition.last_update_time = Some(ago(hours));
                status.conditions = Some(vec![condition]);
            }
            if signed {
                status.certificate = Some(k8s_openapi::ByteString(b"a certificate".to_vec()));
            }
            csr.status = Some(status);
            csr
        };
        for (kind, hours, signed, goes) in [
            (None, 23, false, false),
            (None, 25, false, true),
            (Some(APPROVED), 2, false, false),
            (Some(APPROVED), 2, true, true),
            (Some(APPROVED), 0, true, false),
            (Some(DENIED), 2, false, true),
            (Some(DENIED), 0, false, false),
            (Some(FAILED), 2, false, true),
        ] {
            assert_eq!(due(&csr(kind, hours, signed), now).is_some(), goes, "{kind:?} {hours} {signed}");
        }
    }
}
