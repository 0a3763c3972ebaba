//! Runs the probes of one attempt of a container and reports changes.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::Probe,
    jiff::{SignedDuration, Timestamp},
};
use skep_agent_core::probe::{Kind, Results, Timing, Verdict};
use tokio::{sync::mpsc, time};

use super::handler::{Handler, Target, connect};

/// Something a probe found out.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub container: String,
    pub attempt: u32,
    pub kind: Kind,
    /// A single failed run: for an event. None with a verdict that is good.
    pub failure: Option<String>,
    /// The verdict, when it changed.
    pub verdict: Option<Verdict>,
}

/// The probes of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    pub target: Target,
    pub attempt: u32,
    pub started_at: Timestamp,
    /// The startup probe passed before.
    pub started: bool,
}

impl Probes {
    /// Runs until a liveness or startup probe demands a restart, or until dropped.
    pub(super) async fn run(self, out: mpsc::Sender<Finding>) {
        let container = self.target.container.clone();
        if let Some(probe) = &container.startup_probe
            && !self.started
            && !self.repeat(Kind::Startup, probe, &out, true).await
        {
            return;
        }
        let liveness = async {
            match &container.liveness_probe {
                Some(probe) => drop(self.repeat(Kind::Liveness, probe, &out, false).await),
                None => std::future::pending().await,
            }
        };
        let readiness = async {
            match &container.readiness_probe {
                Some(probe) => drop(self.repeat(Kind::Readiness, probe, &out, false).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = liveness => {}
            () = readiness => {}
        }
    }

    /// Repeats one probe; true when a startup probe passed, false when nobody listens or a restart is due.
    async fn repeat(&self, kind: Kind, probe: &Probe, out: &mpsc::Sender<Finding>, once: bool) -> bool {
        let (timing, handler) = (Timing::new(probe), Handler::from(probe));
        let mut results = Results::default();
        let wait = timing.first(self.started_at).duration_since(Timestamp::now());
        time::sleep(positive(wait)).await;
        let mut ticks = time::interval(positive(timing.period));
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let failure = handler.run(&self.target, positive(timing.timeout)).await.err();
            let verdict = results.record(&timing, failure.is_none());
            if failure.is_some() || verdict.is_some() {
                let finding = Finding {
                    container: self.target.container.name.clone(),
                    attempt: self.attempt,
                    kind,
                    failure,
                    verdict,
                };
                if out.send(finding).await.is_err() {
                    return false;
                }
            }
            match (verdict, kind) {
                (Some(Verdict::Success), _) if once => return true,
                (Some(Verdict::Failure), Kind::Startup | Kind::Liveness) => return false,
                _ => {}
            }
        }
    }
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}

/// Asks the standard health service of gRPC. The messages are so small that they are written by hand:
/// a request is the service's name as field 1, an answer the status as field 1, where 1 means serving.
pub(super) async fn grpc(host: &str, port: u16, service: &str) -> Result<(), String> {
    let stream = connect(host, port).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let mut message = Vec::with_capacity(service.len() + 7);
    let length = u8::try_from(service.len()).ok().filter(|l| *l < 126).ok_or("service name too long")?;
    let body_length = if length == 0 { 0 } else { u32::from(length) + 2 };
    message.push(0);
    message.extend_from_slice(&body_length.to_be_bytes());
    if length > 0 {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(message)))
        .map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let body = Limited::new(response.into_body(), 4096).collect().await.map_err(|e| e.to_string())?;
        Ok::<_, String>(body.to_bytes())
    };
    let bytes = tokio::select! {
        bytes = talk => bytes?,
        ended = connection => return Err(format!("connection ended: {ended:?}")),
    };
    // Five bytes of frame, then field 1 (a varint) with 1 in it.
    if bytes.get(5..7) == Some(&[0x08, 0x01]) {
        return Ok(());
    }
    Err("service unhealthy (responded without SERVING)".to_owned())
}
