//! The two ends of a scenario's connections: `netprobe serve` answers with its name and who asked, `netprobe dial`
//! asks over fresh connections, `netprobe flow` goes on asking over one.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// Answers and questions between network namespaces.
#[derive(Debug, Parser)]
enum Arguments {
    /// Answers until its standard input closes.
    Serve {
        /// The name to answer with.
        name: String,
        /// The ports, TCP and UDP.
        #[arg(required = true)]
        ports: Vec<u16>,
        /// The addresses; every one if none is given.
        #[arg(long)]
        at: Vec<IpAddr>,
    },
    /// Asks over fresh connections; prints a line each.
    Dial {
        /// The protocol.
        protocol: Protocol,
        /// Where.
        target: SocketAddr,
        /// How often.
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Milliseconds between connections.
        #[arg(long, default_value_t = 0)]
        gap: u64,
        /// How long to wait for each answer.
        #[arg(long, default_value_t = 400)]
        milliseconds: u64,
        /// How many bytes a question has; the answer has as many.
        #[arg(long, default_value_t = 1)]
        size: usize,
    },
    /// Asks once for each line of its standard input, over one connection.
    Flow {
        /// The protocol.
        protocol: Protocol,
        /// Where.
        target: SocketAddr,
        /// How long to wait for each answer.
        #[arg(long, default_value_t = 400)]
        milliseconds: u64,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    /// UDP over a socket that is not connected: each datagram says where it goes.
    UdpEach,
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Serve { name, ports, at } => serve(&name, &ports, &at),
        Arguments::Dial { protocol, target, count, gap, milliseconds, size } => {
            for number in 0..count {
                if number > 0 {
                    thread::sleep(Duration::from_millis(gap));
                }
                let answer = match Flow::open(protocol, target, Duration::from_millis(milliseconds)) {
                    Ok(mut flow) => flow.ask(size),
                    Err(error) => word(&error),
                };
                println!("{answer}");
            }
            Ok(())
        }
        Arguments::Flow { protocol, target, milliseconds } => {
            let mut flow = Flow::open(protocol, target, Duration::from_millis(milliseconds))?;
            for line in std::io::stdin().lines() {
                line?;
                println!("{}", flow.ask(1));
            }
            Ok(())
        }
    }
}

/// The address without the form that IPv6 sockets give IPv4 ones.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn serve(name: &str, ports: &[u16], at: &[IpAddr]) -> Result<()> {
    let every = [IpAddr::from([0; 16])];
    let addresses = if at.is_empty() { &every } else { at };
    let places = addresses.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
    for place in places {
        let listener = TcpListener::bind(place).with_context(|| format!("TCP {place}"))?;
        let socket = UdpSocket::bind(place).with_context(|| format!("UDP {place}"))?;
        let tcp_name = name.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = tcp_name.clone();
                thread::spawn(move || answer_stream(&stream, &name));
            }
        });
        let udp_name = name.to_owned();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // Who went meanwhile does not matter.
                let _ = socket.send_to(answer(&udp_name, from, length).as_bytes(), from);
            }
        });
    }
    println!("ready");
    std::io::stdout().flush()?;
    // The end of the input is the end.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn answer_stream(stream: &TcpStream, name: &str) {
    let Ok(from) = stream.peer_addr() else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(question)) = lines.next() {
        let mut stream = stream;
        if writeln!(stream, "{}", answer(name, from, question.len())).is_err() {
            return;
        }
    }
}

/// Who answers whom, as long as the question was.
fn answer(name: &str, from: SocketAddr, length: usize) -> String {
    let mut answer = format!("{name} {}", plain(from.ip()));
    answer.extend(std::iter::repeat_n(' ', length.saturating_sub(answer.len())));
    answer
}

enum Flow {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
    UdpEach(UdpSocket, SocketAddr),
}

impl Flow {
    fn open(protocol: Protocol, target: SocketAddr, limit: Duration) -> std::io::Result<Self> {
        match protocol {
            Protocol::Tcp => {
                let stream = TcpStream::connect_timeout(&target, limit)?;
                stream.set_read_timeout(Some(limit))?;
                Ok(Self::Tcp(BufReader::new(stream)))
            }
            Protocol::Udp | Protocol::UdpEach => {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(limit))?;
                if matches!(protocol, Protocol::UdpEach) {
                    return Ok(Self::UdpEach(socket, target));
                }
                socket.connect(target)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// The answer to a question of `size` bytes, or a word for why there is none.
    fn ask(&mut self, size: usize) -> String {
        let question = "?".repeat(size);
        let asked = match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(format!("{question}\n").as_bytes()).and_then(|()| {
                    let mut line = String::new();
                    stream.read_line(&mut line).map(|_| line)
                })
            }
            Self::Udp(socket) => socket.send(question.as_bytes()).and_then(|_| {
                let mut buffer = vec![0; 1 << 16];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
            }),
            Self::UdpEach(socket, target) => socket.send_to(question.as_bytes(), *target).and_then(|_| {
                let mut buffer = vec![0; 1 << 16];
                let (length, from) = socket.recv_from(&mut buffer)?;
                // Whoever answers must look like the one who was asked.
                if from == *target {
                    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
                } else {
                    Ok(format!("stranger {from}"))
                }
            }),
        };
        match asked {
            Ok(answer) if answer.trim().is_empty() => "closed".to_owned(),
            Ok(answer) => answer.trim().to_owned(),
            Err(error) => word(&error),
        }
    }
}

/// What a scenario calls an error.
fn word(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock,
    };
    match error.kind() {
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable => "refused".to_owned(),
        TimedOut | WouldBlock => "dropped".to_owned(),
        _ => match error.raw_os_error() {
            // A socket that was destroyed under its owner.
            Some(89 | 103) => "refused".to_owned(),
            // A connect that a program of the kernel forbids.
            Some(1) => "refused".to_owned(),
            _ => format!("error: {error}"),
        },
    }
}
