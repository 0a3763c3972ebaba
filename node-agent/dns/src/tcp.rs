//! Questions by stream (RFC 7766): several at once on one connection, answered in the order in which answers come.
//!
//! Invariants: there are so many connections, and so many of one client, and so many questions under way on one;
//! who neither asks nor reads for a while is let go.

use std::{cell::RefCell, collections::HashMap, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{Semaphore, mpsc},
    task::spawn_local,
    time,
};

use crate::{
    packet::Transport,
    respond::{Responder, Taken},
    serve::Gate,
};

/// Open connections, all clients.
const MAX_CONNECTIONS: usize = 1024;
/// Open connections of one client.
const MAX_OF_ONE: usize = 128;
/// Questions under way on one connection; further ones are read when these are answered.
const MAX_UNDER_WAY: usize = 32;
/// A connection without a question for so long is closed; longer than any answer takes.
const IDLE: Duration = Duration::from_secs(10);
/// A client that does not take its answers for so long is let go.
const SLOW: Duration = Duration::from_secs(10);
/// The longest question. Updates and the like may be longer, but are not answered anyway.
const LONGEST: usize = 4096;
/// The pause when the machine has no descriptor left.
const BREATH: Duration = Duration::from_millis(50);

/// Connections by client.
#[derive(Debug, Default)]
struct Guests {
    by_client: RefCell<HashMap<IpAddr, usize>>,
}

/// One connection's place among the guests.
struct Seat {
    guests: Rc<Guests>,
    gate: Rc<Gate>,
    client: IpAddr,
}

impl Guests {
    fn seat(self: &Rc<Self>, client: IpAddr, gate: &Rc<Gate>) -> Option<Seat> {
        let mut guests = self.by_client.borrow_mut();
        let all: usize = guests.values().sum();
        let of_one = guests.entry(client).or_default();
        if all >= MAX_CONNECTIONS || *of_one >= MAX_OF_ONE {
            if *of_one == 0 {
                guests.remove(&client);
            }
            gate.metrics.refused_connections.inc();
            return None;
        }
        *of_one += 1;
        gate.metrics.connections.inc();
        Some(Seat { guests: Rc::clone(self), gate: Rc::clone(gate), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gate.metrics.connections.dec();
        let mut guests = self.guests.by_client.borrow_mut();
        if let Some(count) = guests.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.client);
            }
        }
    }
}

/// Takes connections for as long as it is polled.
pub(crate) async fn answer(listener: TcpListener, responder: Rc<Responder>, gate: Rc<Gate>) {
    let guests = Rc::new(Guests::default());
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                time::sleep(BREATH).await;
                continue;
            }
        };
        if !gate.admits(client.ip()) {
            continue;
        }
        let Some(seat) = guests.seat(client.ip(), &gate) else { continue };
        let responder = Rc::clone(&responder);
        spawn_local(async move {
            if let Err(error) = serve(stream, responder).await {
                tracing::debug!(%client, %error, "connection");
            }
            drop(seat);
        });
    }
}

/// One connection, to its end.
async fn serve(stream: TcpStream, responder: Rc<Responder>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let (replies, mut to_write) = mpsc::channel::<Vec<u8>>(MAX_UNDER_WAY);
    let reading = ask(BufReader::new(read), responder, replies);
    let writing = async {
        let mut batch = Vec::new();
        while let Some(reply) = to_write.recv().await {
            batch.clear();
            frame(&reply, &mut batch);
            while let Ok(reply) = to_write.try_recv() {
                frame(&reply, &mut batch);
            }
            time::timeout(SLOW, write.write_all(&batch)).await??;
        }
        Ok(())
    };
    // When reading ends, what is under way is still answered; when writing fails, nothing is read any more.
    tokio::try_join!(reading, writing).map(drop)
}

fn frame(reply: &[u8], batch: &mut Vec<u8>) {
    // No answer is longer than its transport's limit.
    let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
    batch.extend_from_slice(&length.to_be_bytes());
    batch.extend_from_slice(reply);
}

/// Reads questions until the client has no more, or is silent for too long.
async fn ask(
    mut read: BufReader<OwnedReadHalf>,
    responder: Rc<Responder>,
    replies: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut question = Vec::new();
    loop {
        match time::timeout(IDLE, next(&mut read, &mut question)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
        let mut reply = Vec::new();
        match responder.take(&question, Transport::Tcp, &mut reply) {
            Taken::Answered => {
                if replies.send(reply).await.is_err() {
                    return Ok(());
                }
            }
            Taken::Silence => {}
            Taken::Later(later) => {
                let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { return Ok(()) };
                let (responder, replies) = (Rc::clone(&responder), replies.clone());
                spawn_local(async move {
                    let mut reply = Vec::new();
                    responder.finish(later, &mut reply).await;
                    // The connection may be gone.
                    let _ = replies.send(reply).await;
                    drop(permit);
                });
            }
        }
    }
}

/// Reads one question; `false` at the end of the stream.
async fn next(read: &mut BufReader<OwnedReadHalf>, question: &mut Vec<u8>) -> io::Result<bool> {
    let length = match read.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a question too long to be one"));
    }
    question.resize(length, 0);
    read.read_exact(question).await?;
    Ok(true)
}
