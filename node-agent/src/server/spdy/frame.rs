//! Frames (draft 3.1, section 2.2). The decoder takes bytes in whatever pieces they come and gives data
//! on before its frame is complete, so a frame's size costs no memory; control frames are limited.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Error;
use super::headers::{Headers, Packer, Unpacker};

const VERSION: u16 = 3;
const HEADER: usize = 8;
/// Control frames are no longer.
const MAX_CONTROL: usize = 64 << 10;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const ID: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The setting that is a stream's first window.
const INITIAL_WINDOW: u32 = 7;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    FlowControl = 7,
}

/// A frame, as far as we speak of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream.
    Open { stream: u32, fin: bool, unidirectional: bool, headers: Headers },
    /// Accepts a stream.
    Reply { stream: u32, fin: bool, headers: Headers },
    /// Ends a stream both ways.
    Reset { stream: u32, status: u32 },
    /// The first window of streams, if it was set.
    Settings { initial_window: Option<u32> },
    /// Wants to come back.
    Ping(u32),
    /// No more streams.
    GoAway { last: u32, status: u32 },
    /// More headers of a stream.
    Headers { stream: u32, fin: bool },
    /// Room for more data.
    WindowUpdate { stream: u32, more: u32 },
    /// A part of a stream's data.
    Data { stream: u32, fin: bool, data: Bytes },
}

/// Understands bytes.
pub(super) struct Decoder {
    buffer: BytesMut,
    headers: Unpacker,
    /// The data frame we are in: stream, whether it is the last, what is to come.
    data: Option<(u32, bool, usize)>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), headers: Unpacker::new(), data: None }
    }

    /// Where bytes from the peer go. At most one control frame stays in here between calls of `next`.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame, or `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some((stream, fin, left)) = self.data {
                let data = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                let left = left - data.len();
                if left > 0 && data.is_empty() {
                    return Ok(None);
                }
                self.data = (left > 0).then_some((stream, fin, left));
                return Ok(Some(Frame::Data { stream, fin: fin && left == 0, data }));
            }
            let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = *header;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if a & 0x80 == 0 {
                self.buffer.advance(HEADER);
                self.data = Some((u32::from_be_bytes([a, b, c, d]), flags & FIN != 0, length));
                continue;
            }
            if length > MAX_CONTROL {
                return Err(Error::Protocol("a control frame is too large"));
            }
            if self.buffer.len() < HEADER + length {
                return Ok(None);
            }
            if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
                return Err(Error::Protocol("this is not version 3"));
            }
            self.buffer.advance(HEADER);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// A control frame; `None` for kinds that the draft tells to pass over.
    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, Error> {
        const SHORT: Error = Error::Protocol("a control frame ends early");
        let fin = flags & FIN != 0;
        let mut number = || body.try_get_u32().map_err(|_| SHORT);
        let frame = match kind {
            SYN_STREAM => {
                let (stream, _associated) = (number()? & ID, number()?);
                // Priority and slot.
                body.try_get_u16().map_err(|_| SHORT)?;
                let headers = self.headers.unpack(&body)?;
                Frame::Open { stream, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers }
            }
            SYN_REPLY => {
                let stream = number()? & ID;
                Frame::Reply { stream, fin, headers: self.headers.unpack(&body)? }
            }
            HEADERS => {
                let stream = number()? & ID;
                self.headers.unpack(&body)?;
                Frame::Headers { stream, fin }
            }
            RST_STREAM => Frame::Reset { stream: number()? & ID, status: number()? },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway { last: number()? & ID, status: number()? },
            WINDOW_UPDATE => Frame::WindowUpdate { stream: number()? & ID, more: number()? & ID },
            SETTINGS => {
                let mut initial_window = None;
                for _ in 0..number()? {
                    // The length is limited and each entry takes of it: this ends.
                    let (id, value) = (number()? & 0xff_ffff, number()?);
                    if id == INITIAL_WINDOW {
                        initial_window = Some(value & ID);
                    }
                }
                Frame::Settings { initial_window }
            }
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// Says frames.
pub(super) struct Encoder {
    headers: Packer,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { headers: Packer::new()? })
    }

    /// Appends a frame.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), Error> {
        let fin_flag = |fin: bool| if fin { FIN } else { 0 };
        match frame {
            Frame::Data { stream, fin, data } => {
                out.put_u32(stream & ID);
                let length = u32::try_from(data.len()).ok().filter(|length| *length < 1 << 24);
                let length = length.ok_or(Error::Protocol("a frame is too large"))?;
                out.put_u32(u32::from(fin_flag(*fin)) << 24 | length);
                out.put_slice(data);
            }
            Frame::Open { stream, fin, unidirectional, headers } => {
                let mut body = BytesMut::new();
                body.put_u32(stream & ID);
                body.put_u32(0);
                body.put_u16(0);
                body.put_slice(&self.headers.pack(headers)?);
                let unidirectional = if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(out, SYN_STREAM, fin_flag(*fin) | unidirectional, &body)?;
            }
            Frame::Reply { stream, fin, headers } => {
                let mut body = BytesMut::new();
                body.put_u32(stream & ID);
                body.put_slice(&self.headers.pack(headers)?);
                control(out, SYN_REPLY, fin_flag(*fin), &body)?;
            }
            Frame::Headers { stream, fin } => {
                let mut body = BytesMut::new();
                body.put_u32(stream & ID);
                body.put_slice(&self.headers.pack(&[])?);
                control(out, HEADERS, fin_flag(*fin), &body)?;
            }
            Frame::Reset { stream, status } => numbers(out, RST_STREAM, &[*stream, *status])?,
            Frame::Ping(id) => numbers(out, PING, &[*id])?,
            Frame::GoAway { last, status } => numbers(out, GOAWAY, &[*last, *status])?,
            Frame::WindowUpdate { stream, more } => numbers(out, WINDOW_UPDATE, &[*stream, *more])?,
            Frame::Settings { initial_window: None } => numbers(out, SETTINGS, &[0])?,
            Frame::Settings { initial_window: Some(size) } => {
                numbers(out, SETTINGS, &[1, INITIAL_WINDOW, *size])?;
            }
        }
        Ok(())
    }
}

fn numbers(out: &mut BytesMut, kind: u16, numbers: &[u32]) -> Result<(), Error> {
    let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    control(out, kind, 0, &body)
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) -> Result<(), Error> {
    if body.len() > MAX_CONTROL {
        return Err(Error::Protocol("a frame is too large"));
    }
    let length = u32::try_from(body.len()).map_err(|_| Error::Protocol("a frame is too large"))?;
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length);
    out.put_slice(body);
    Ok(())
}

/// Adds a frame; data of one stream that comes in several pieces becomes one.
pub(super) fn join(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data { stream, fin, data }), Frame::Data { stream: more, fin: last, data: rest }) =
        (frames.last_mut(), &frame)
        && stream == more
        && !*fin
    {
        *data = [&data[..], &rest[..]].concat().into();
        *fin = *last;
        return;
    }
    frames.push(frame);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let id = 1..=ID;
        let headers = prop::collection::btree_map("[a-z]{1,8}", "[a-z0-9]{0,20}", 0..4)
            .prop_map(|map| map.into_iter().collect::<Headers>());
        prop_oneof![
            (id.clone(), any::<bool>(), any::<bool>(), headers.clone()).prop_map(
                |(stream, fin, unidirectional, headers)| Frame::Open { stream, fin, unidirectional, headers }
            ),
            (id.clone(), any::<bool>(), headers).prop_map(|(stream, fin, headers)| Frame::Reply {
                stream,
                fin,
                headers
            }),
            (id.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            prop::option::of(0..=ID).prop_map(|initial_window| Frame::Settings { initial_window }),
            any::<u32>().prop_map(Frame::Ping),
            (id.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id.clone(), any::<bool>()).prop_map(|(stream, fin)| Frame::Headers { stream, fin }),
            (0..=ID, 0..=ID).prop_map(|(stream, more)| Frame::WindowUpdate { stream, more }),
            (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data: data.into() }),
        ]
    }

    /// Pieces of one data frame become one again.
    fn join(frames: Vec<Frame>) -> Vec<Frame> {
        let mut joined: Vec<Frame> = Vec::new();
        for frame in frames {
            if let (Some(Frame::Data { stream: s, fin: f, data: d }), Frame::Data { stream, fin, data }) =
                (joined.last_mut(), &frame)
                && s == stream
                && !*f
            {
                *d = [&d[..], data].concat().into();
                *f = *fin;
            } else {
                joined.push(frame);
            }
        }
        joined
    }

    proptest! {
        #[test]
        fn frames_come_back_in_any_pieces(frames in prop::collection::vec(frames(), 0..12), piece in 1..40_usize) {
            let (mut encoder, mut bytes) = (Encoder::new().unwrap(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut bytes).unwrap();
            }
            let (mut decoder, mut read) = (Decoder::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                decoder.buffer().put_slice(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(join(read), join(frames));
            prop_assert!(decoder.buffer().is_empty());
        }

        #[test]
        fn noise_never_piles_up(noise in prop::collection::vec(any::<u8>(), 0..2000), control: bool) {
            let mut decoder = Decoder::new();
            if control {
                decoder.buffer().put_slice(&[0x80, 3, 0]);
            }
            decoder.buffer().put_slice(&noise);
            while let Ok(Some(_)) = decoder.next() {}
            prop_assert!(decoder.buffer().len() <= HEADER + MAX_CONTROL);
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        for (bytes, what) in [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0][..], "another version"),
            (&[0x80, 3, 0, 1, 0, 255, 255, 255], "a large control frame"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "a short SYN_STREAM"),
            (&[0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1], "a short RST_STREAM"),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 255, 255, 255, 255], "settings that are not there"),
            (&[0x80, 3, 0, 8, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9], "headers that are no zlib"),
        ] {
            let mut decoder = Decoder::new();
            decoder.buffer().put_slice(bytes);
            assert!(decoder.next().is_err(), "{what}");
        }
    }
}
