//! Questions to a name server, as fast as it answers, or again and again to see when it does.
//!
//! Messages are made by hand: what is measured is the server, not a library.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::time::Instant;

use crate::histogram::{Histogram, Percentiles};

/// An answer that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(2);
/// The longest datagram.
const BUFFER: usize = 4096;

/// What carries questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Over one connected socket.
    Udp,
    /// Over one connection.
    Tcp,
    /// A connection for each question.
    TcpEach,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server, or what leads to it.
    pub target: SocketAddr,
    /// The names, asked one after the other.
    pub names: Vec<String>,
    /// What carries the questions.
    pub transport: Transport,
    /// Questions under way at once.
    pub window: usize,
    /// How long.
    pub time: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Answers.
    pub answers: u64,
    /// Questions without an answer, and answers that are errors or have no records.
    pub errors: u64,
    /// Answers per second.
    pub per_second: f64,
    /// From question to answer.
    pub latency: Percentiles,
}

/// A question for the IPv4 addresses of a name, as the C library makes it: without EDNS.
#[must_use]
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for field in [id, 0x0100, 1, 0, 0, 0] {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Whether a message has answers; an echo of a question has none and is taken for one too.
#[must_use]
pub fn is_answer(message: &[u8]) -> bool {
    message.len() > 12 && message[3] & 0x0f == 0 && (message[2] & 0x80 == 0 || message[6..8] != [0, 0])
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn stream(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn frame(question: &[u8]) -> Vec<u8> {
    let length = u16::try_from(question.len()).expect("a question is short");
    [&length.to_be_bytes()[..], question].concat()
}

fn read_frame(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    let Some(place) = buffer.get_mut(..length) else { return Err(ErrorKind::InvalidData.into()) };
    stream.read_exact(place)?;
    Ok(length)
}

/// The carrier of questions and answers.
enum Line {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Each(SocketAddr, Option<TcpStream>),
}

impl Line {
    fn open(plan: &Plan) -> io::Result<Self> {
        Ok(match plan.transport {
            Transport::Udp => Self::Udp(connected(plan.target)?),
            Transport::Tcp => Self::Tcp(stream(plan.target)?),
            Transport::TcpEach => Self::Each(plan.target, None),
        })
    }

    fn send(&mut self, question: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(question).map(drop),
            Self::Tcp(stream) => stream.write_all(&frame(question)),
            Self::Each(target, open) => {
                let mut stream = stream(*target)?;
                stream.write_all(&frame(question))?;
                *open = Some(stream);
                Ok(())
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer),
            Self::Tcp(stream) => read_frame(stream, buffer),
            Self::Each(_, open) => {
                let mut stream = open.take().ok_or(ErrorKind::NotConnected)?;
                read_frame(&mut stream, buffer)
            }
        }
    }
}

/// Asks for as long as the plan says.
///
/// # Errors
/// When the server cannot be reached at all.
#[allow(clippy::cast_precision_loss)]
pub fn run(plan: &Plan) -> Result<Report> {
    if plan.names.is_empty() || plan.window == 0 || plan.window > 256 {
        bail!("nothing to ask, or more at once than 256");
    }
    if plan.transport == Transport::TcpEach && plan.window > 1 {
        bail!("with a connection for each question they are asked one after the other");
    }
    let mut line = Line::open(plan)?;
    let questions: Vec<Vec<u8>> = plan.names.iter().map(|name| question(0, name)).collect();
    let (mut latencies, mut errors) = (Histogram::default(), 0);
    let mut sent = vec![Instant::now(); plan.window];
    let mut buffer = [0; BUFFER];
    let mut number = 0;
    let mut ask = |slot: usize, line: &mut Line, sent: &mut [Instant]| {
        let mut question = questions[number % questions.len()].clone();
        number += 1;
        question[..2].copy_from_slice(&u16::try_from(slot).expect("few").to_be_bytes());
        sent[slot] = Instant::now();
        line.send(&question)
    };
    let start = Instant::now();
    for slot in 0..plan.window {
        ask(slot, &mut line, &mut sent)?;
    }
    while start.elapsed() < plan.time {
        match line.receive(&mut buffer) {
            Ok(length) => {
                let slot = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                if slot >= plan.window {
                    continue;
                }
                let took = u64::try_from(sent[slot].elapsed().as_nanos()).unwrap_or(u64::MAX);
                if is_answer(&buffer[..length]) {
                    latencies.record(took);
                } else {
                    errors += 1;
                }
                ask(slot, &mut line, &mut sent)?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // All that is under way is lost.
                errors += u64::try_from(plan.window).unwrap_or(u64::MAX);
                for slot in 0..plan.window {
                    ask(slot, &mut line, &mut sent)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let answers = latencies.count();
    Ok(Report { answers, errors, per_second: answers as f64 / seconds, latency: latencies.percentiles() })
}

/// Whether each question of a watch has a socket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Socket {
    /// A new one each, as the C library does.
    Fresh,
    /// One connected socket for all, opened anew only when the kernel says that it is dead.
    Kept,
}

/// Asks again and again, and tells of each question: milliseconds since the beginning, and what became of it.
///
/// # Errors
/// When telling fails.
pub fn watch(
    target: SocketAddr,
    name: &str,
    socket: Socket,
    gap: Duration,
    time: Duration,
    mut tell: impl FnMut(u128, &str) -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    let mut kept = None;
    let mut buffer = [0; BUFFER];
    for id in 0_u16.. {
        if start.elapsed() >= time {
            break;
        }
        let at = start.elapsed().as_millis();
        let outcome = (|| {
            let line = match kept.take() {
                Some(line) => line,
                None => connected(target)?,
            };
            line.set_read_timeout(Some(gap.max(Duration::from_millis(100))))?;
            line.send(&question(id, name))?;
            let length = loop {
                let length = line.recv(&mut buffer)?;
                if buffer[..2] == id.to_be_bytes() {
                    break length;
                }
            };
            if socket == Socket::Kept {
                kept = Some(line);
            }
            Ok::<_, io::Error>(is_answer(&buffer[..length]))
        })();
        let word = match outcome {
            Ok(true) => "answer".to_owned(),
            Ok(false) => format!("code {}", buffer[3] & 0x0f),
            Err(error) => format!("{:?}", error.kind()),
        };
        tell(at, &word)?;
        std::thread::sleep(gap);
    }
    Ok(())
}

/// Sends back what comes, by datagram and by stream: the least that an answerer can do. Never returns.
///
/// # Errors
/// When it cannot listen.
pub fn echo(address: SocketAddr, mut ready: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    let socket = UdpSocket::bind(address)?;
    ready()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; BUFFER];
                // Who goes away is no matter.
                while let Ok(length) = read_frame(&mut stream, &mut buffer) {
                    if stream.write_all(&frame(&buffer[..length])).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mut buffer = [0; BUFFER];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // The same.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_measured_by_every_transport() {
        let place =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let (tell, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || echo(place, || tell.send(()).map_err(io::Error::other)));
        ready.recv().expect("listens");
        for (transport, window) in
            [(Transport::Udp, 1), (Transport::Udp, 8), (Transport::Tcp, 4), (Transport::TcpEach, 1)]
        {
            let names = vec!["a.example.".to_owned(), "b.example.".to_owned()];
            let plan = Plan { target: place, names, transport, window, time: Duration::from_millis(60) };
            let report = run(&plan).expect("measures");
            assert!(report.answers > 10 && report.errors == 0, "{transport:?}: {report:?}");
        }
        let mut words = Vec::new();
        let time = Duration::from_millis(50);
        watch(place, "a.example.", Socket::Kept, Duration::from_millis(1), time, |_, word| {
            words.push(word.to_owned());
            Ok(())
        })
        .expect("watches");
        assert!(words.len() > 3 && words.iter().all(|word| word == "answer"), "{words:?}");
    }
}
