//! Packets of both families, byte by byte: what the wire can bring that sockets would not send.

use std::net::{IpAddr, SocketAddr};

use skep_ebpf_abi::{ICMP, ICMP_V6, SCTP, TCP, UDP};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A packet under construction, or one that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wire {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
    /// The identification of a fragment.
    pub(crate) id: u32,
    /// Offset in bytes, and whether more follow.
    pub(crate) fragment: Option<(usize, bool)>,
    /// Options of an IPv4 header, or whole extension headers of IPv6, whose first bytes say what follows.
    pub(crate) options: Vec<u8>,
    /// The kind of the first extension header.
    pub(crate) extension: u8,
    /// Transport header and data.
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    bytes.chunks(2).map(word).sum()
}

pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// CRC32c, bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("an address")),
    }
}

impl Wire {
    fn new(from: &str, to: &str, protocol: u8, header: &[u8]) -> Self {
        let (from, to): (SocketAddr, SocketAddr) =
            (from.parse().expect("an address"), to.parse().expect("an address"));
        let mut payload = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        payload.extend(header);
        let mut packet = Self {
            src: from.ip(),
            dst: to.ip(),
            protocol,
            hops: 64,
            id: 7,
            fragment: None,
            options: Vec::new(),
            extension: 0,
            payload,
        };
        packet.seal();
        packet
    }

    pub(crate) fn tcp(from: &str, to: &str, flags: u8, data: &[u8]) -> Self {
        let header = [0, 0, 3, 232, 0, 0, 7, 208, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        Self::new(from, to, TCP, &[&header, data].concat())
    }

    pub(crate) fn udp(from: &str, to: &str, data: &[u8]) -> Self {
        let length = (data.len() as u16 + 8).to_be_bytes();
        Self::new(from, to, UDP, &[&length, &[0, 0], data].concat())
    }

    pub(crate) fn sctp(from: &str, to: &str, data: &[u8]) -> Self {
        Self::new(from, to, SCTP, &[&[1, 2, 3, 4, 0, 0, 0, 0], data].concat())
    }

    /// An echo request with an identifier.
    pub(crate) fn echo(from: &str, to: &str, identifier: u16) -> Self {
        let (from, to): (IpAddr, IpAddr) =
            (from.parse().expect("an address"), to.parse().expect("an address"));
        let (protocol, kind) = if from.is_ipv4() { (ICMP, 8) } else { (ICMP_V6, 128) };
        let [high, low] = identifier.to_be_bytes();
        Self::icmp(from, to, &[kind, 0, 0, 0, high, low, 0, 1, b'e', b'c', b'h', b'o'], protocol)
    }

    /// An ICMP error of a kind and code, with a value in its second word, about the beginning of a frame.
    pub(crate) fn error(from: &str, to: &str, kind: [u8; 2], value: u32, about: &[u8]) -> Self {
        let (from, to): (IpAddr, IpAddr) =
            (from.parse().expect("an address"), to.parse().expect("an address"));
        let protocol = if from.is_ipv4() { ICMP } else { ICMP_V6 };
        let payload = [&[kind[0], kind[1], 0, 0], &value.to_be_bytes()[..], &about[14..]].concat();
        Self::icmp(from, to, &payload, protocol)
    }

    fn icmp(src: IpAddr, dst: IpAddr, payload: &[u8], protocol: u8) -> Self {
        let mut packet = Self {
            src,
            dst,
            protocol,
            hops: 64,
            id: 7,
            fragment: None,
            options: Vec::new(),
            extension: 0,
            payload: payload.to_vec(),
        };
        packet.seal();
        packet
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Where the transport checksum is.
    fn at(&self) -> usize {
        match self.protocol {
            TCP => 16,
            UDP => 6,
            SCTP => 8,
            _ => 2,
        }
    }

    fn pseudo(&self) -> u32 {
        if self.protocol == ICMP {
            return 0;
        }
        let addresses = sum(&octets(self.src)) + sum(&octets(self.dst));
        addresses + u32::from(self.protocol) + self.payload.len() as u32
    }

    /// Writes the transport checksum.
    pub(crate) fn seal(&mut self) {
        let at = self.at();
        if self.protocol == SCTP {
            self.payload[at..at + 4].fill(0);
            let value = crc32c(&self.payload);
            self.payload[at..at + 4].copy_from_slice(&value.to_le_bytes());
            return;
        }
        self.payload[at..at + 2].fill(0);
        let value = fold(self.pseudo() + sum(&self.payload));
        self.payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Whether the transport checksum is right; one of UDP may be absent.
    pub(crate) fn is_sealed(&self) -> bool {
        let at = self.at();
        if self.protocol == SCTP {
            let mut zeroed = self.clone();
            zeroed.payload[at..at + 4].fill(0);
            return self.payload[at..at + 4] == crc32c(&zeroed.payload).to_le_bytes();
        }
        let absent = self.protocol == UDP && self.is_v4() && self.payload[at..at + 2] == [0, 0];
        absent || fold(self.pseudo() + sum(&self.payload)) == 0
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = if self.is_v4() { self.header_v4() } else { self.header_v6() };
        let kind = if self.is_v4() { [8, 0] } else { [0x86, 0xdd] };
        [&[4, 4, 4, 4, 4, 5, 2, 2, 2, 2, 2, 3], &kind[..], &header, &self.payload].concat()
    }

    fn header_v4(&self) -> Vec<u8> {
        let mut header = vec![0x45 + (self.options.len() / 4) as u8, 0];
        header.extend(((20 + self.options.len() + self.payload.len()) as u16).to_be_bytes());
        header.extend((self.id as u16).to_be_bytes());
        let (offset, more) = self.fragment.unwrap_or_default();
        header.extend(((offset / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(octets(self.src));
        header.extend(octets(self.dst));
        header.extend(&self.options);
        let checksum = fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn header_v6(&self) -> Vec<u8> {
        let fragment = self.fragment.map_or_else(Vec::new, |(offset, more)| {
            let place = (offset as u16 | u16::from(more)).to_be_bytes();
            [&[self.protocol, 0], &place[..], &self.id.to_be_bytes()].concat()
        });
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((self.options.len() + fragment.len() + self.payload.len()) as u16).to_be_bytes());
        let after = if fragment.is_empty() { self.protocol } else { 44 };
        header.extend([if self.options.is_empty() { after } else { self.extension }, self.hops]);
        header.extend(octets(self.src));
        header.extend(octets(self.dst));
        header.extend(&self.options);
        header.extend(fragment);
        header
    }

    /// Reads a frame without extension headers back and checks its checksums.
    #[track_caller]
    pub(crate) fn read(frame: &[u8]) -> Self {
        let packet = Self::read_unchecked(&frame[14..]);
        assert!(packet.is_sealed(), "the transport checksum of {packet:x?}");
        packet
    }

    /// Reads a packet whose transport checksum may be cut off or wrong: one that an error quotes, or a fragment.
    #[track_caller]
    pub(crate) fn read_unchecked(ip: &[u8]) -> Self {
        let is_v4 = ip[0] >> 4 == 4;
        let mut packet = Self {
            src: address(if is_v4 { &ip[12..16] } else { &ip[8..24] }),
            dst: address(if is_v4 { &ip[16..20] } else { &ip[24..40] }),
            protocol: if is_v4 { ip[9] } else { ip[6] },
            hops: if is_v4 { ip[8] } else { ip[7] },
            id: 7,
            fragment: None,
            options: Vec::new(),
            extension: 0,
            payload: Vec::new(),
        };
        let header = if is_v4 {
            let header = usize::from(ip[0] & 15) * 4;
            assert_eq!(fold(sum(&ip[..header])), 0, "the network header's checksum");
            packet.options = ip[20..header].to_vec();
            packet.id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
            let place = u16::from_be_bytes([ip[6], ip[7]]);
            packet.fragment =
                (place & 0x3fff != 0).then_some((usize::from(place & 0x1fff) * 8, place & 0x2000 != 0));
            header
        } else if packet.protocol == 44 {
            let place = u16::from_be_bytes([ip[42], ip[43]]);
            packet.protocol = ip[40];
            packet.id = u32::from_be_bytes([ip[44], ip[45], ip[46], ip[47]]);
            packet.fragment = Some((usize::from(place & !7), place & 1 != 0));
            48
        } else {
            40
        };
        packet.payload = ip[header..].to_vec();
        packet
    }

    /// The packet that an ICMP error quotes.
    #[track_caller]
    pub(crate) fn quoted(&self) -> Self {
        Self::read_unchecked(&self.payload[8..])
    }

    pub(crate) fn ports(&self) -> (u16, u16) {
        let port = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        (port(0), port(2))
    }

    /// Both ends, as text.
    pub(crate) fn ends(&self) -> (String, String) {
        let (from, to) = self.ports();
        (SocketAddr::new(self.src, from).to_string(), SocketAddr::new(self.dst, to).to_string())
    }

    /// Cut into fragments of `size` bytes of data, a multiple of eight.
    pub(crate) fn fragments(&self, size: usize) -> Vec<Self> {
        let pieces: Vec<&[u8]> = self.payload.chunks(size).collect();
        let last = pieces.len() - 1;
        let piece = |(index, payload): (usize, &&[u8])| Self {
            payload: payload.to_vec(),
            fragment: Some((index * size, index != last)),
            ..self.clone()
        };
        pieces.iter().enumerate().map(piece).collect()
    }
}
