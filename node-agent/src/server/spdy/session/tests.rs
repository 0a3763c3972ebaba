//! Sessions against a client made of the same frames.

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    async fn say(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: u32) {
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        self.say(Frame::Open { stream, fin: false, unidirectional: false, headers }).await;
    }

    async fn data(&mut self, stream: u32, data: &'static [u8], fin: bool) {
        self.say(Frame::Data { stream, fin, data: Bytes::from_static(data) }).await;
    }

    /// The next frame that is not a window update.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next().unwrap() {
                Some(Frame::WindowUpdate { .. }) => {}
                Some(frame) => return Some(frame),
                None if self.io.read_buf(self.decoder.buffer()).await.unwrap() == 0 => return None,
                None => {}
            }
        }
    }
}

fn start() -> (Client, Session, JoinHandle<Result<(), Error>>) {
    let (near, far) = duplex(256 << 10);
    let (session, work) = serve(far).unwrap();
    let client = Client { io: near, encoder: Encoder::new().unwrap(), decoder: Decoder::new() };
    (client, session, tokio::spawn(work))
}

#[tokio::test]
async fn streams_carry_both_ways_and_end() {
    let (mut client, mut session, work) = start();
    client.open(1).await;
    client.data(1, b"hello", false).await;
    client.data(1, b" you", true).await;
    let Incoming { headers, mut reader, mut writer } = session.accept().await.unwrap();
    assert_eq!(headers, [("streamtype".to_owned(), "data".to_owned())]);
    assert_eq!(reader.next().await.unwrap(), "hello");
    assert_eq!(reader.next().await.unwrap(), " you");
    assert_eq!(reader.next().await, None);
    writer.send(Bytes::from_static(b"bye")).await.unwrap();
    writer.finish().await.unwrap();
    assert!(session.shared.streams().is_empty());
    client.say(Frame::Ping(3)).await;
    assert!(matches!(client.next().await, Some(Frame::Reply { stream: 1, .. })));
    let data = |text: &'static str, fin| Some(Frame::Data { stream: 1, fin, data: text.into() });
    assert_eq!(client.next().await, data("bye", false));
    assert_eq!(client.next().await, data("", true));
    assert_eq!(client.next().await, Some(Frame::Ping(3)));
    session.ender().end().await.unwrap();
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 1, status: 0 }));
    assert_eq!(client.next().await, None);
    drop(client);
    work.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_without_windows_gets_everything_and_one_with_them_what_it_asks_for() {
    let (mut client, mut session, _work) = start();
    client.open(1).await;
    let mut first = session.accept().await.unwrap().writer;
    let large = Bytes::from(vec![7; 200 << 10]);
    first.send(large.clone()).await.unwrap();
    client.say(Frame::Settings { initial_window: Some(10) }).await;
    client.open(3).await;
    let mut second = session.accept().await.unwrap().writer;
    let sending = tokio::spawn(async move { second.send(large).await });
    let mut got = HashMap::from([(1, 0), (3, 0)]);
    while got != HashMap::from([(1, 200 << 10), (3, 10)]) {
        if let Some(Frame::Data { stream, data, .. }) = client.next().await {
            *got.entry(stream).or_default() += data.len();
        }
    }
    assert!(!sending.is_finished());
    client.say(Frame::Reset { stream: 3, status: 5 }).await;
    assert!(sending.await.unwrap().is_err());
}

#[tokio::test]
async fn a_flood_waits_outside() {
    let (mut client, mut session, _work) = start();
    client.open(1).await;
    let mut reader = session.accept().await.unwrap().reader;
    let total = 4_usize << 20;
    let flood = tokio::spawn(async move {
        for _ in 0..total / 4096 {
            client.data(1, &[1; 4096], false).await;
        }
        client.data(1, b"", true).await;
        client
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!flood.is_finished(), "4 MiB were taken that nobody reads");
    let mut read = 0;
    while let Some(data) = reader.next().await {
        read += data.len();
    }
    assert_eq!(read, total);
    flood.await.unwrap();
}

#[tokio::test]
async fn streams_are_limited() {
    let (mut client, mut session, _work) = start();
    let accepting = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(stream) = session.accept().await {
            all.push(stream);
        }
        all.len()
    });
    for stream in 0..=MAX_STREAMS {
        client.open(u32::try_from(stream * 2 + 1).unwrap()).await;
        let answer = client.next().await.unwrap();
        assert_eq!(matches!(answer, Frame::Reply { .. }), stream < MAX_STREAMS, "{answer:?}");
    }
    drop(client);
    assert_eq!(accepting.await.unwrap(), MAX_STREAMS);
}

#[tokio::test]
async fn who_breaks_the_rules_is_sent_away() {
    let even = Frame::Open { stream: 2, fin: false, unidirectional: false, headers: Headers::new() };
    let reply = Frame::Reply { stream: 1, fin: false, headers: Headers::new() };
    for bad in [even, reply, Frame::WindowUpdate { stream: 0, more: 0x7fff_ffff }] {
        let (mut client, _session, work) = start();
        client.say(bad.clone()).await;
        assert_eq!(client.next().await, Some(Frame::GoAway { last: 0, status: 1 }), "{bad:?}");
        assert_eq!(client.next().await, None);
        assert!(matches!(work.await.unwrap(), Err(Error::Protocol(_))));
    }
    let (mut client, mut session, _work) = start();
    client.data(9, b"x", false).await;
    assert_eq!(client.next().await, Some(Frame::Reset { stream: 9, status: 2 }));
    client.open(1).await;
    session.accept().await.unwrap().refuse().await.unwrap();
    assert!(matches!(client.next().await, Some(Frame::Reply { .. })));
    assert_eq!(client.next().await, Some(Frame::Reset { stream: 1, status: 3 }));
}
