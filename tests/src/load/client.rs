//! The asking side.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::time::Instant;

use super::{AGAIN, Mode, ONCE, Report, SINK};
use crate::histogram::Histogram;

/// A transaction that takes longer has failed.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(2);
const STREAM_BUFFER: usize = 1 << 17;

/// One measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to measure.
    pub mode: Mode,
    /// The server, or what leads to it.
    pub target: SocketAddr,
    /// How many connections at once, one thread each.
    pub connections: usize,
    /// How long.
    pub time: Duration,
}

#[derive(Default)]
struct Tally {
    latencies: Histogram,
    errors: u64,
    bytes: u64,
}

/// Measures. Single failures are counted; if nothing works at all that is an error.
///
/// # Errors
/// When the server cannot be reached.
pub fn run(plan: &Plan) -> Result<Report> {
    ensure!(plan.connections > 0, "no connections");
    if plan.mode != Mode::UdpRr {
        // Not counted: neighbours are found, and whether there is a server at all. Later connections use the
        // plain call, which costs fewer system calls than one with a limit.
        drop(connect(plan)?);
    }
    let start = Instant::now();
    let tallies = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.connections).map(|_| scope.spawn(|| one(plan, start))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<Tally>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut sum = Tally::default();
    for tally in &tallies {
        sum.latencies.merge(&tally.latencies);
        sum.errors += tally.errors;
        sum.bytes += tally.bytes;
    }
    Ok(report(plan.mode, &sum, seconds))
}

#[allow(clippy::cast_precision_loss)]
fn report(mode: Mode, sum: &Tally, seconds: f64) -> Report {
    let transactions = sum.latencies.count();
    Report {
        mode,
        transactions,
        errors: sum.errors,
        seconds,
        per_second: transactions as f64 / seconds,
        bits_per_second: sum.bytes as f64 * 8.0 / seconds,
        latency: sum.latencies.percentiles(),
    }
}

fn one(plan: &Plan, start: Instant) -> Result<Tally> {
    match plan.mode {
        Mode::TcpCrr => connections(plan, start),
        Mode::TcpRr => requests(plan, start),
        Mode::UdpRr => datagrams(plan, start),
        Mode::Stream => stream(plan, start),
        Mode::Connect => handshakes(plan, start),
    }
}

/// Repeats a transaction until the time is over. Once at least: a thread may get its first turn late.
fn repeat(
    plan: &Plan,
    start: Instant,
    mut transaction: impl FnMut() -> std::io::Result<u64>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut before = Instant::now();
    loop {
        let outcome = transaction();
        let after = Instant::now();
        match outcome {
            Ok(bytes) => {
                let took = u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX);
                tally.latencies.record(took);
                tally.bytes += bytes;
            }
            Err(error) => {
                tally.errors += 1;
                if tally.latencies.count() == 0 && tally.errors >= 3 {
                    return Err(error).with_context(|| format!("{} {}", plan.mode.name(), plan.target));
                }
            }
        }
        before = after;
        if before - start >= plan.time {
            return Ok(tally);
        }
    }
}

fn connections(plan: &Plan, start: Instant) -> Result<Tally> {
    let target = plan.target;
    repeat(plan, start, || {
        let mut stream = TcpStream::connect(target)?;
        stream.write_all(&[ONCE])?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer[..1])?;
        // The server closes first, so that the client's ports are free again at once.
        match stream.read(&mut answer[1..])? {
            0 => Ok(0),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    })
}

/// Only the handshake counts; a reset ends each connection, so that no port stays in use.
fn handshakes(plan: &Plan, start: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    while start.elapsed() < plan.time {
        let before = Instant::now();
        match TcpStream::connect(plan.target) {
            Ok(stream) => {
                let took = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
                tally.latencies.record(took);
                setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
            }
            Err(error) => {
                tally.errors += 1;
                if tally.latencies.count() == 0 && tally.errors >= 3 {
                    return Err(error).with_context(|| format!("{} {}", plan.mode.name(), plan.target));
                }
            }
        }
    }
    Ok(tally)
}

fn connect(plan: &Plan) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&plan.target, TRANSACTION_LIMIT)
        .with_context(|| format!("connect to {}", plan.target))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TRANSACTION_LIMIT))?;
    Ok(stream)
}

fn requests(plan: &Plan, start: Instant) -> Result<Tally> {
    let mut stream = connect(plan)?;
    repeat(plan, start, || {
        stream.write_all(&[AGAIN])?;
        stream.read_exact(&mut [0]).map(|()| 0)
    })
}

fn datagrams(plan: &Plan, start: Instant) -> Result<Tally> {
    let any: SocketAddr = match plan.target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(plan.target)?;
    socket.set_read_timeout(Some(TRANSACTION_LIMIT))?;
    repeat(plan, start, || {
        socket.send(&[AGAIN])?;
        socket.recv(&mut [0; 16]).map(|_| 0)
    })
}

fn stream(plan: &Plan, start: Instant) -> Result<Tally> {
    let mut stream = connect(plan)?;
    stream.write_all(&[SINK])?;
    let buffer = vec![0x5a; STREAM_BUFFER];
    repeat(plan, start, || stream.write_all(&buffer).map(|()| STREAM_BUFFER as u64))
}
