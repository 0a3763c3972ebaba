//! One question to one server: by datagram, and by stream when the answer is too long for that.
//!
//! Each question has a socket of its own, connected: the kernel chooses its port at random, takes datagrams of that
//! server only, and tells when nobody listens there. Number and question must be those that were sent.

use std::{io, net::SocketAddr};

use hickory_proto::op::ResponseCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{
    packet::{MAX_DATAGRAM, Packet, put},
    query::{Query, flag, word},
};

/// The longest datagram that is read; more than was said to fit.
const BUFFER: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The network.
    #[error("speak to the name server")]
    Io(#[from] io::Error),
    /// The answer by stream is none.
    #[error("the name server's answer cannot be read")]
    Malformed,
}

/// Whether EDNS is spoken: servers of before 1999 refuse it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Edns,
    Plain,
}

/// Asks; as long as it takes.
pub(crate) async fn exchange(server: SocketAddr, query: &Query) -> Result<Packet, ExchangeError> {
    let answer = by_datagram(server, query, Dialect::Edns).await?;
    let answer = match answer.code() {
        ResponseCode::FormErr | ResponseCode::NotImp => by_datagram(server, query, Dialect::Plain).await?,
        _ => answer,
    };
    if answer.is_truncated() { by_stream(server, query).await } else { Ok(answer) }
}

async fn by_datagram(server: SocketAddr, query: &Query, dialect: Dialect) -> Result<Packet, ExchangeError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = rand::random();
    socket.send(&question(id, query, dialect)).await?;
    let mut buffer = [0; BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else may be somebody guessing: what was asked is still to come.
        if let Some(packet) = accept(&buffer[..length], id, query) {
            return Ok(packet);
        }
    }
}

async fn by_stream(server: SocketAddr, query: &Query) -> Result<Packet, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let id = rand::random();
    let question = question(id, query, Dialect::Edns);
    let length = u16::try_from(question.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    accept(&answer, id, query).ok_or(ExchangeError::Malformed)
}

fn question(id: u16, query: &Query, dialect: Dialect) -> Vec<u8> {
    let flags = flag::RECURSION_DESIRED | query.flags & (flag::CHECKING_DISABLED | flag::AUTHENTIC_DATA);
    let edns = u16::from(dialect == Dialect::Edns);
    let mut bytes = Vec::with_capacity(300);
    for field in [id, flags, 1, 0, 0, edns] {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    // As spelled by the client: a server that answers in another spelling is not expected to.
    bytes.extend_from_slice(query.spelled());
    if dialect == Dialect::Edns {
        let [high, low] = u16::try_from(MAX_DATAGRAM).expect("short").to_be_bytes();
        let dnssec_ok = if query.dnssec_ok() { 0x80 } else { 0 };
        bytes.extend_from_slice(&[0, 0, 41, high, low, 0, 0, dnssec_ok, 0, 0, 0]);
    }
    bytes
}

/// The answer to what was sent, if it is.
fn accept(bytes: &[u8], id: u16, query: &Query) -> Option<Packet> {
    if word(bytes, 0)? != id {
        return None;
    }
    let mut bytes = bytes.to_vec();
    // The authority is there, not here.
    let flags = word(&bytes, 2)? & !flag::AUTHORITATIVE;
    put(&mut bytes, 2, flags);
    Packet::read(bytes).filter(|packet| packet.is_about(query))
}
