//! The answerer: a thread of its own with everything that a question touches, so that it waits for nobody and
//! nothing is locked.
//!
//! ```text
//! API -> feed -> ArcSwap<Index> -+-> responder <- udp, tcp (thread "dns")
//! resolv.conf -> upstreams ------+-> forwarder -> name servers
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use skep_client::Client;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime,
    sync::{oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    DnsConfig, Error, Result,
    clients::Clients,
    feed::{Feed, Published},
    forward::{Forwarder, Upstreams},
    index::{Index, Zone},
    metrics::Metrics,
    respond::Responder,
    snapshot, tcp, udp,
    upstreams::follow,
};

/// Questions that arrive while the thread has no time wait here, in bytes; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;
const BACKLOG: i32 = 256;
/// How long answers under way may take when stopping.
const DRAIN: Duration = Duration::from_millis(500);

/// Who may come in.
pub(crate) struct Gate {
    clients: watch::Receiver<Clients>,
    pub(crate) metrics: Metrics,
}

impl Gate {
    /// Whether this client may ask.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        let admitted = self.clients.borrow().allow(client);
        if !admitted {
            self.metrics.refused_clients.inc();
        }
        admitted
    }
}

/// Answers until cancelled.
///
/// # Errors
/// When it cannot listen, or the answerer ends by itself.
pub async fn run(config: DnsConfig, client: Client, cancel: CancellationToken) -> Result<()> {
    // The caller's token may be others' too: only what is started here is stopped here.
    let cancel = cancel.child_token();
    let zone = Zone::new(&config.cluster_domain, config.reverse_ranges.clone(), config.ttl)?;
    // Bound first: whoever starts us learns at once that it cannot be.
    let doors = Doors::open(&config.listen)?;
    let published = Arc::new(Published::new(earlier(&config, &zone).map(Arc::new)));
    let (upstreams, servers) = watch::channel(config.upstreams.now());
    let thread = Answerer {
        zone: zone.clone(),
        published: Arc::clone(&published),
        doors,
        servers,
        gate: Gate { clients: config.clients.clone(), metrics: config.metrics.clone() },
        cancel: cancel.clone(),
    };
    let mut ended = thread.start()?;
    let tasks = TaskTracker::new();
    let feed = Feed::start(&client, &tasks, &cancel);
    let early = tokio::select! {
        () = cancel.cancelled() => None,
        () = feed.run(zone, &published, &config) => None,
        () = follow(&config.upstreams, &upstreams) => None,
        ended = &mut ended => Some(ended),
    };
    config.ready.send_replace(false);
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    if let (Some(path), Some(index)) = (&config.snapshot, published.load_full())
        && !index.is_provisional()
        && let Err(error) = snapshot::save(path, &index)
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the next start will have to wait for the API server"
        );
    }
    let outcome = match early {
        Some(ended) => ended,
        None => ended.await,
    };
    // The thread is gone without a word only when it panicked.
    outcome.unwrap_or(Err(Error::Panicked))
}

/// What an earlier life knew.
fn earlier(config: &DnsConfig, zone: &Zone) -> Option<Index> {
    match snapshot::load(config.snapshot.as_deref()?, zone.clone()) {
        Ok(index) => {
            tracing::info!(
                services = index.len(),
                "answering with what was known last until the API server is heard"
            );
            Some(index)
        }
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "nothing is known from before");
            None
        }
    }
}

/// The sockets, one pair an address.
struct Doors(Vec<(StdSocket, StdListener)>);

impl Doors {
    fn open(addresses: &[SocketAddr]) -> Result<Self> {
        let mut doors = Vec::new();
        for address in addresses {
            let fail = |protocol| move |source| Error::Listen { address: *address, protocol, source };
            let listener = listener(*address).map_err(fail("tcp"))?;
            // Port 0 is chosen once, for both.
            let bound = listener.local_addr().map_err(fail("tcp"))?;
            let socket = datagrams(bound).map_err(fail("udp"))?;
            tracing::info!(address = %bound, "answering DNS");
            doors.push((socket, listener));
        }
        Ok(Self(doors))
    }
}

fn listener(address: SocketAddr) -> io::Result<StdListener> {
    let socket = bare(address, Type::STREAM, Protocol::TCP)?;
    // Connections of an earlier life may still be closing.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn datagrams(address: SocketAddr) -> io::Result<StdSocket> {
    let socket = bare(address, Type::DGRAM, Protocol::UDP)?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bare(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        // The other family has a socket of its own.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What the thread is given.
struct Answerer {
    zone: Zone,
    published: Arc<Published>,
    doors: Doors,
    servers: watch::Receiver<Upstreams>,
    gate: Gate,
    cancel: CancellationToken,
}

impl Answerer {
    /// Starts the thread; what it ended with comes out.
    fn start(self) -> Result<oneshot::Receiver<Result<()>>> {
        let (tell, ended) = oneshot::channel();
        thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                let outcome = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(runtime::LocalOptions::default())
                    .map_err(|source| Error::Thread { source })
                    .and_then(|runtime| {
                        let outcome = runtime.block_on(self.run());
                        runtime.shutdown_background();
                        outcome
                    });
                // The one who waits may be gone.
                let _ = tell.send(outcome);
            })
            .map_err(|source| Error::Thread { source })?;
        Ok(ended)
    }

    async fn run(self) -> Result<()> {
        let Self { zone, published, doors, mut servers, gate, cancel } = self;
        let gate = Rc::new(gate);
        let forwarder = Forwarder::new(gate.metrics.clone());
        let responder = Rc::new(Responder::new(zone, published, Rc::clone(&forwarder), gate.metrics.clone()));
        let mut datagrams = FuturesUnordered::new();
        let mut streams = FuturesUnordered::new();
        for (socket, listener) in doors.0 {
            let socket = Rc::new(UdpSocket::from_std(socket).map_err(Error::Stopped)?);
            datagrams.push(udp::answer(socket, Rc::clone(&responder), Rc::clone(&gate)));
            let listener = TcpListener::from_std(listener).map_err(Error::Stopped)?;
            streams.push(tcp::answer(listener, Rc::clone(&responder), Rc::clone(&gate)));
        }
        let routes = async {
            loop {
                forwarder.follow(&servers.borrow_and_update().clone());
                if servers.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        // Nothing of it is lost by ending: what is under way are tasks.
        tokio::select! {
            () = cancel.cancelled() => {}
            Some(outcome) = datagrams.next() => return outcome.map_err(Error::Stopped),
            Some(()) = streams.next() => {}
            () = routes => {}
        }
        drop((datagrams, streams));
        forwarder.drained(DRAIN).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
