//! The answering side.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{AGAIN, ONCE, SINK};

/// How often a blocked UDP thread looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);

/// A running server; it stops taking connections when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Where it listens, TCP and UDP alike.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; if that fails it is not accepting any more.
        let _ = TcpStream::connect_timeout(&self.address, LOOK);
    }
}

/// Answers on a TCP and a UDP port of the same number.
///
/// # Errors
/// When a port cannot be had.
pub fn serve(listen: SocketAddr) -> Result<Server> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    let socket = UdpSocket::bind(address).with_context(|| format!("bind UDP {address}"))?;
    socket.set_read_timeout(Some(LOOK))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stop_tcp, stop_udp) = (Arc::clone(&stop), Arc::clone(&stop));
    thread::spawn(move || accept(&listener, &stop_tcp));
    thread::spawn(move || echo(&socket, &stop_udp));
    Ok(Server { address, stop })
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let mut first = [0];
                // A short connection is answered here: a thread for each would be what is measured. Its byte
                // comes with or right after the handshake.
                match stream.read_exact(&mut first) {
                    Ok(()) if first[0] == ONCE => {
                        let _ = stream.write_all(&first);
                    }
                    Ok(()) => {
                        thread::spawn(move || converse(stream, first[0]));
                    }
                    // The client went away; that is its own affair.
                    Err(_) => {}
                }
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

/// Goes on until the client closes; how it closes is its own affair.
fn converse(mut stream: TcpStream, first: u8) {
    // Failing to set it costs latency, nothing else.
    let _ = stream.set_nodelay(true);
    match first {
        AGAIN => {
            let mut byte = [first];
            while stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok() {}
        }
        SINK => {
            let mut buffer = vec![0; 1 << 17];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        }
        _ => {}
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                // A lost answer is the client's to notice.
                let _ = socket.send_to(&buffer[..length], from);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An ICMP error about an earlier answer.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return eprintln!("udp: {error}"),
        }
    }
}
