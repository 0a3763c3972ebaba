//! The process inside the cgroup: it opens sockets as it is told and reports what it saw.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Not a test: returns at once unless the support module started it.
#[test]
fn process() {
    let (Some(namespace), Some(cgroup)) =
        (std::env::var_os("SKEP_TEST_HELPER_NETNS"), std::env::var_os("SKEP_TEST_HELPER_CGROUP"))
    else {
        return;
    };
    fs::write(std::path::Path::new(&cgroup).join("cgroup.procs"), std::process::id().to_string())
        .expect("joining");
    setns(File::open(namespace).expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("entering");
    let mut kept = Kept::default();
    for line in io::stdin().lock().lines() {
        let line = line.expect("a command");
        let answer = kept.answer(&line).unwrap_or_else(|error| match error.raw_os_error() {
            Some(code) => format!("errno {}", nix::errno::Errno::from_raw(code)),
            None => format!("error {error}"),
        });
        // The harness prints without a line end; the sign marks where the answer begins.
        println!("@{answer}");
    }
}

#[derive(Default)]
struct Kept {
    tcp: BTreeMap<String, TcpStream>,
    udp: BTreeMap<String, UdpSocket>,
}

impl Kept {
    fn answer(&mut self, line: &str) -> io::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["tcp", to] => {
                let mut stream = connect(to)?;
                let peer = stream.peer_addr()?;
                Ok(format!("{} {peer}", talk(&mut stream)?))
            }
            ["udp", to] => {
                let socket = connected_udp(to)?;
                let peer = socket.peer_addr()?;
                Ok(format!("{} {peer}", talk_udp(&socket)?))
            }
            ["udp-unconnected", to] => {
                let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(Duration::from_secs(3)))?;
                socket.send_to(b"x", to)?;
                let mut buffer = [0; 64];
                let (length, from) = socket.recv_from(&mut buffer)?;
                Ok(format!("{} {from}", String::from_utf8_lossy(&buffer[..length])))
            }
            ["bind", protocol, at] => {
                match protocol {
                    "tcp" => drop(std::net::TcpListener::bind(at)?),
                    _ => drop(UdpSocket::bind(at)?),
                }
                Ok("bound".to_owned())
            }
            ["keep-tcp", name, to] => {
                self.tcp.insert(name.to_owned(), connect(to)?);
                Ok("kept".to_owned())
            }
            ["use-tcp", name] => {
                let stream = self.tcp.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
                talk(stream)
            }
            ["keep-udp", name, to] => {
                self.udp.insert(name.to_owned(), connected_udp(to)?);
                Ok("kept".to_owned())
            }
            ["use-udp", name] => talk_udp(self.udp.get(name).ok_or(io::ErrorKind::NotFound)?),
            // Nanoseconds of a new UDP socket and its connect(2), which sends nothing.
            ["cost", count, to] => {
                let to: std::net::SocketAddr = to.parse().map_err(io::Error::other)?;
                let count: u32 = count.parse().map_err(io::Error::other)?;
                let begin = std::time::Instant::now();
                for _ in 0..count {
                    UdpSocket::bind("0.0.0.0:0")?.connect(to)?;
                }
                Ok((begin.elapsed() / count).as_nanos().to_string())
            }
            ["many", count, to] => {
                let mut answers: BTreeMap<String, usize> = BTreeMap::new();
                for _ in 0..count.parse::<usize>().map_err(io::Error::other)? {
                    *answers.entry(talk(&mut connect(to)?)?).or_default() += 1;
                }
                Ok(answers
                    .iter()
                    .map(|(name, count)| format!("{name}={count}"))
                    .collect::<Vec<_>>()
                    .join(" "))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

fn connected_udp(to: &str) -> io::Result<UdpSocket> {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect(to)?;
    Ok(socket)
}

fn talk(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"x")?;
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    loop {
        if stream.read(&mut byte)? == 0 || byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
        answer.push(byte[0]);
    }
}

fn talk_udp(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
