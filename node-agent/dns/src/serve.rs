//! Answering on the wire.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Record, RecordType},
};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use ipnet::IpNet;
use rand::seq::SliceRandom;
use skep_client::Client;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    DnsConfig, Error, Result,
    answer::{self, Answer, answer},
    feed::{Feed, Published},
    forward::Forwarder,
    index::Zone,
};

/// What fits through any network without fragments.
const MAX_UDP_ANSWER: u16 = 1232;
const MIN_UDP_ANSWER: u16 = 512;
/// A TCP connection without a question for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSES_BUFFERED: usize = 32;
/// How long answers under way may take when stopping.
const DRAIN: Duration = Duration::from_secs(2);

/// Answers until cancelled.
///
/// # Errors
/// When it cannot listen, or the server ends by itself.
pub async fn run(config: DnsConfig, client: Client, cancel: CancellationToken) -> Result<()> {
    // The caller's token may be others' too: only what is started here is stopped here.
    let cancel = cancel.child_token();
    let zone = Zone::new(&config.cluster_domain, config.reverse_ranges.clone(), config.ttl)?;
    let handler = Handler::new(zone.clone());
    let (published, forwarder) = (Arc::clone(&handler.published), Arc::clone(&handler.forwarder));
    // Bound first: whoever starts us learns at once that it cannot be.
    let mut server = listen(&config, handler).await?;
    let tasks = TaskTracker::new();
    let feed = Feed::start(&client, &tasks, &cancel);
    let own: Vec<IpAddr> =
        config.listen.iter().map(std::net::SocketAddr::ip).chain(config.own_addresses.clone()).collect();
    let follow = async {
        match &config.resolv_conf {
            Some(path) => forwarder.follow(path, &own).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = feed.run(zone, &published, &config.ready) => Ok(()),
        () = follow => Ok(()),
        ended = server.block_until_done() => ended.map_err(Error::Stopped),
    };
    config.ready.send_replace(false);
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    if tokio::time::timeout(DRAIN, server.shutdown_gracefully()).await.is_err() {
        tracing::debug!("questions under way were cut off");
    }
    outcome
}

async fn listen(config: &DnsConfig, handler: Handler) -> Result<Server<Handler>> {
    // Only where something is allowed is everything else denied.
    let everyone = [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())];
    let denied = if config.allowed_clients.is_empty() { &[][..] } else { &everyone[..] };
    let mut server =
        Server::with_access(handler, denied.iter().copied(), config.allowed_clients.iter().copied());
    for address in &config.listen {
        let fail = |protocol| move |source| Error::Listen { address: *address, protocol, source };
        let listener = TcpListener::bind(address).await.map_err(fail("tcp"))?;
        // Port 0 is chosen once, for both.
        let bound = listener.local_addr().map_err(fail("tcp"))?;
        server.register_socket(UdpSocket::bind(bound).await.map_err(fail("udp"))?);
        server.register_listener(listener, TCP_IDLE, TCP_RESPONSES_BUFFERED);
        tracing::info!(address = %bound, domain = config.cluster_domain, "answering DNS");
    }
    Ok(server)
}

/// Answers one request.
struct Handler {
    zone: Zone,
    published: Arc<Published>,
    forwarder: Arc<Forwarder>,
}

/// The sections of a response.
#[derive(Default)]
struct Sections {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additionals: Vec<Record>,
}

impl Sections {
    fn of(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Handler {
    fn new(zone: Zone) -> Self {
        Self { zone, published: Arc::default(), forwarder: Arc::new(Forwarder::new()) }
    }

    async fn sections(&self, request: &Request) -> Sections {
        if request.metadata.message_type != MessageType::Query {
            return Sections::of(ResponseCode::FormErr);
        }
        if request.metadata.op_code != OpCode::Query {
            return Sections::of(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Sections::of(ResponseCode::FormErr) };
        let query = info.query.original();
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Sections::of(ResponseCode::Refused);
        }
        let (name, kind) = (query.name(), query.query_type());
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Sections::of(ResponseCode::Refused);
        }
        let Some(index) = self.published.load_full() else {
            return if self.zone.domain.zone_of(&name.to_lowercase()) || name.parse_arpa_name().is_ok() {
                Sections::of(ResponseCode::ServFail)
            } else {
                self.ask(name, kind, Vec::new()).await
            };
        };
        let negative = |code| Sections {
            code,
            authoritative: true,
            authority: answer::authority(&index, name).into_iter().collect(),
            ..Sections::default()
        };
        match answer(&index, name, kind) {
            Answer::Records { mut answers, additionals } => {
                shuffle(&mut answers);
                Sections { authoritative: true, answers, additionals, ..Sections::default() }
            }
            Answer::NoData => negative(ResponseCode::NoError),
            Answer::NxDomain => negative(ResponseCode::NXDomain),
            Answer::Alias { answers, target } => self.ask(&target, kind, answers).await,
            Answer::Elsewhere => self.ask(name, kind, Vec::new()).await,
        }
    }

    /// Asks the node's name servers; their answers come after `before`.
    async fn ask(&self, name: &hickory_proto::rr::Name, kind: RecordType, before: Vec<Record>) -> Sections {
        let mut reply = self.forwarder.ask(name, kind).await;
        let mut answers = before;
        answers.append(&mut reply.answers);
        Sections { code: reply.code, answers, authority: reply.authority, ..Sections::default() }
    }
}

/// Spreads the load of clients that take the first address. Aliases stay in front, in their order.
fn shuffle(answers: &mut [Record]) {
    let aliases = answers.iter().take_while(|record| record.record_type() == RecordType::CNAME).count();
    answers[aliases..].shuffle(&mut rand::rng());
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut reply: R,
    ) -> ResponseInfo {
        let mut edns = Edns::new();
        let mut builder = MessageResponseBuilder::from_message_request(request);
        let mut sections = None;
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(MIN_UDP_ANSWER, MAX_UDP_ANSWER));
            edns.set_version(0);
            if asked.version() > 0 {
                edns.set_rcode_high(ResponseCode::BADVERS.high());
                sections = Some(Sections::of(ResponseCode::BADVERS));
            }
            builder.edns(&edns);
        }
        let sections = match sections {
            Some(sections) => sections,
            None => self.sections(request).await,
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = sections.code;
        metadata.authoritative = sections.authoritative;
        metadata.recursion_available = true;
        let none: [&Record; 0] = [];
        let response =
            builder.build(metadata, &sections.answers, &sections.authority, none, &sections.additionals);
        reply.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, client = %request.src(), "the answer could not be sent");
            // Only the server's statistics see this.
            let mut metadata = metadata;
            metadata.response_code = ResponseCode::ServFail;
            let counts = hickory_proto::op::HeaderCounts::default();
            ResponseInfo::from(hickory_proto::op::Header { metadata, counts })
        })
    }
}

#[cfg(test)]
mod tests;
