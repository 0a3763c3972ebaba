//! Questions by datagram: one task a socket, answers from memory at once, the others by tasks of their own.

use std::{io, rc::Rc};

use tokio::{net::UdpSocket, task::spawn_local};

use crate::{
    packet::Transport,
    respond::{Responder, Taken},
    serve::Gate,
};

/// No question is longer; what is, is cut off and gets its error.
const BUFFER: usize = 4096;
/// Answers in a row before others on the thread have their turn.
const IN_A_ROW: usize = 64;

/// Answers for as long as it is polled.
///
/// # Errors
/// When the socket can no longer be read.
pub(crate) async fn answer(
    socket: Rc<UdpSocket>,
    responder: Rc<Responder>,
    gate: Rc<Gate>,
) -> io::Result<()> {
    let mut question = [0; BUFFER];
    let mut reply = Vec::with_capacity(BUFFER);
    loop {
        socket.readable().await?;
        for _ in 0..IN_A_ROW {
            let (length, client) = match socket.try_recv_from(&mut question) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_about_a_client(&error) => continue,
                Err(error) => return Err(error),
            };
            if !gate.admits(client.ip()) {
                continue;
            }
            match responder.take(&question[..length], Transport::Udp, &mut reply) {
                Taken::Answered => send(&socket, &reply, client),
                Taken::Silence => {}
                Taken::Later(later) => {
                    let (socket, responder) = (Rc::clone(&socket), Rc::clone(&responder));
                    spawn_local(async move {
                        let mut reply = Vec::new();
                        responder.finish(later, &mut reply).await;
                        send(&socket, &reply, client);
                    });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// A datagram that cannot be sent is lost, as any may be: the client asks again.
fn send(socket: &UdpSocket, reply: &[u8], client: std::net::SocketAddr) {
    if let Err(error) = socket.try_send_to(reply, client) {
        tracing::debug!(%client, %error, "the answer could not be sent");
    }
}

/// Earlier answers that did not arrive are told of when the socket is next used.
fn is_about_a_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | Interrupted
    )
}
