//! Connections that go on while something happens to the data plane.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::inside;

/// A refused first packet is sent again after a second, then after two, four and eight.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection with its server's first answer.
pub(crate) struct Kept {
    stream: BufReader<TcpStream>,
    name: String,
}

fn ask(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    stream.get_mut().write_all(b"x")?;
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn connect(to: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// What happened to connections meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) short: u32,
    pub(crate) asked: u32,
    pub(crate) datagrams: u32,
    pub(crate) lost_datagrams: u32,
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
}

/// Connections of a client to one address: some that stay, and new ones without pause.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Traffic {
    /// Opens `kept` connections inside `namespace`, then begins.
    pub(crate) fn start(namespace: &Path, tcp: &str, udp: &str, kept: usize) -> Self {
        let (tcp, udp): (SocketAddr, SocketAddr) =
            (tcp.parse().expect("an address"), udp.parse().expect("an address"));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, namespace) = (Arc::clone(&stop), namespace.to_owned());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            inside(&namespace, move || {
                let mut long: Vec<Kept> = (0..kept)
                    .map(|_| {
                        let mut stream = connect(tcp).expect("a connection");
                        let name = ask(&mut stream).expect("an answer");
                        Kept { stream, name }
                    })
                    .collect();
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.connect(udp).expect("connected");
                socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
                ready.send(()).expect("the test waits");
                let mut tally = Tally::default();
                while !told.load(Ordering::Relaxed) {
                    tally.round(tcp, &mut long, &socket);
                }
                // Those that stay must have stayed to the end.
                tally.round(tcp, &mut long, &socket);
                tally
            })
        });
        is_ready.recv().expect("the connections are open");
        Self { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the traffic")
    }
}

impl Tally {
    fn round(&mut self, tcp: SocketAddr, long: &mut [Kept], socket: &UdpSocket) {
        for kept in long {
            match ask(&mut kept.stream) {
                Ok(name) if name == kept.name => self.asked += 1,
                Ok(name) => self.failures.push(format!("kept: {name} in place of {}", kept.name)),
                Err(error) => self.failures.push(format!("kept: {error}")),
            }
        }
        for _ in 0..5 {
            let started = Instant::now();
            match connect(tcp).and_then(|mut stream| ask(&mut stream)) {
                Ok(_) => self.short += 1,
                Err(error) => self.failures.push(format!("short: {error}")),
            }
            self.slowest = self.slowest.max(started.elapsed());
        }
        let mut buffer = [0; 64];
        self.datagrams += 1;
        if socket.send(b"x").and_then(|_| socket.recv(&mut buffer)).is_err() {
            self.lost_datagrams += 1;
        }
    }

    /// Nothing was lost.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        assert!(self.failures.is_empty(), "{self:?}");
        assert!(self.short > 0 && self.asked > 0, "{self:?}");
        assert_eq!(self.lost_datagrams, 0, "an open flow of UDP loses nothing: {self:?}");
    }
}
