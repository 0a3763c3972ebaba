//! The kernel's messages about connections (ctnetlink), as bytes. Nothing in them is trusted to be whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const NEW: u16 = 1 << 8;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const NESTED: u16 = 1 << 15;
const HEADER: usize = 16;
/// Family, version and resource id follow the header.
const GENERIC: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An entry, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Where the first packet was sent.
    pub(super) dialled: (IpAddr, u16),
    /// Who answers.
    pub(super) answers_from: (IpAddr, u16),
    pub(super) protocol: u8,
    /// The attributes that name the entry, as they came.
    pub(super) key: Vec<u8>,
    pub(super) v6: bool,
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Entry(Entry),
    /// The last one.
    Done,
    Error(i32),
}

fn request(kind: u16, flags: u16, sequence: u32, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + GENERIC + attributes.len()) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Asks for every entry of both families.
pub(super) fn dump(sequence: u32) -> Vec<u8> {
    request(GET, DUMP, sequence, 0, &[])
}

/// Deletes one entry.
pub(super) fn delete(sequence: u32, entry: &Entry) -> Vec<u8> {
    request(DELETE, ACK, sequence, if entry.v6 { AF_INET6 } else { AF_INET }, &entry.key)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages of a datagram. What cannot be read ends it.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            DONE => found.push(Answer::Done),
            ERROR => match u32_at(body, 0).map(u32::cast_signed) {
                // An acknowledgement.
                Some(0) => found.push(Answer::Done),
                code => found.push(Answer::Error(-code.unwrap_or(-5))),
            },
            NEW => found.extend(entry(body).map(Answer::Entry)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes in `bytes`: kind, whole, content.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let whole = bytes.get(..length)?;
        let content = whole.get(4..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, whole, content))
    })
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, ..)| *kind == wanted).map(|(.., content)| content)
}

fn entry(body: &[u8]) -> Option<Entry> {
    let list = body.get(GENERIC..)?;
    let (original, reply) = (attribute(list, TUPLE_ORIGINAL)?, attribute(list, TUPLE_REPLY)?);
    let mut key = Vec::new();
    for (kind, whole, _) in attributes(list) {
        if [TUPLE_ORIGINAL, ID, ZONE].contains(&kind) {
            key.extend(whole);
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    let dialled = end(original, false)?;
    Some(Entry {
        dialled,
        answers_from: end(reply, true)?,
        protocol: *attribute(attribute(original, 2)?, 1)?.first()?,
        key,
        v6: dialled.0.is_ipv6(),
    })
}

/// One end of a direction.
fn end(tuple: &[u8], source: bool) -> Option<(IpAddr, u16)> {
    let (addresses, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    let (v4, v6, port) = if source { (1, 3, 2) } else { (2, 4, 3) };
    let address = match (attribute(addresses, v4), attribute(addresses, v6)) {
        (Some(bytes), _) => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        (None, bytes) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes?).ok()?)),
    };
    let port = u16::from_be_bytes(attribute(protocol, port)?.try_into().ok()?);
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((content.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let addresses = attr(NESTED | 1, &[attr(1, &from), attr(2, &to)].concat());
        let (from, to) = (attr(2, &ports.0.to_be_bytes()), attr(3, &ports.1.to_be_bytes()));
        let protocol = attr(NESTED | 2, &[attr(1, &[17]), from, to].concat());
        attr(NESTED | kind, &[addresses, protocol].concat())
    }

    fn message() -> Vec<u8> {
        let (client, vip, pod) = ([10, 244, 0, 9], [10, 96, 0, 10], [10, 244, 0, 5]);
        let list =
            [tuple(1, client, vip, (5000, 53)), tuple(2, pod, client, (53, 5000)), attr(ID, &[1, 2, 3, 4])]
                .concat();
        request(NEW, 0, 7, AF_INET, &list)
    }

    #[test]
    fn an_entry_is_read_and_named() {
        let mut bytes = message();
        bytes.extend(request(DONE, 0, 7, 0, &[]));
        let found = answers(&bytes);
        let [Answer::Entry(entry), Answer::Done] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(entry.dialled, ("10.96.0.10".parse().expect("an address"), 53));
        assert_eq!(entry.answers_from, ("10.244.0.5".parse().expect("an address"), 53));
        assert_eq!(entry.protocol, 17);
        let request = delete(8, entry);
        assert_eq!(u32_at(&request, 0), Some(request.len() as u32));
        assert!(request.ends_with(&attr(ID, &[1, 2, 3, 4])));
    }

    #[test]
    fn errors_and_acknowledgements_are_told_apart() {
        let with = |code: i32| {
            request(ERROR, 0, 1, 0, &[])[..HEADER]
                .iter()
                .copied()
                .chain(code.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        assert_eq!(answers(&with(0)), [Answer::Done]);
        assert_eq!(answers(&with(-2)), [Answer::Error(2)]);
    }

    #[test]
    fn cut_messages_are_no_entries() {
        let whole = message();
        for length in 0..whole.len() {
            assert_eq!(answers(&whole[..length]), [], "{length}");
            let mut cut = whole[..length].to_vec();
            if length >= HEADER {
                cut[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                // Whatever comes of it, it does not panic.
                let _ = answers(&cut);
            }
        }
    }
}
