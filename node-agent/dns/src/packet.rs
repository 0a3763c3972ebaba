//! An answer on the wire, kept so that it can be sent again to whoever asks the same: pure, and without an
//! allocation when it is written.
//!
//! ```text
//! header | question | records
//!           ^ names in the records point into it: what the client spelled can be put there
//! ```
//! Invariants: OPT is not kept but made anew for each client; what is cut, is cut between records, and TC says so
//! when an answer is missing.

use hickory_proto::{
    op::{Message, OpCode, Query as Question, ResponseCode},
    rr::{Record, RecordType},
};

use crate::query::{HEADER, Query, flag, skip_name, word};

/// The largest datagram: what fits through any network without fragments (DNS flag day 2020).
pub const MAX_DATAGRAM: usize = 1232;
/// What a client without EDNS takes, RFC 1035.
const MIN_DATAGRAM: usize = 512;
/// The length of our OPT.
const OPT_LENGTH: usize = 11;
const OPT: u16 = 41;
const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// The sections of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    /// The response code.
    pub code: ResponseCode,
    /// The answer is our own.
    pub authoritative: bool,
    /// The answers.
    pub answers: Vec<Record>,
    /// What a negative answer is kept by.
    pub authority: Vec<Record>,
    /// What helps.
    pub additionals: Vec<Record>,
}

/// One record's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ttl: u16,
    end: u16,
}

/// Records of one length that can change places: `count` of `size` bytes from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wheel {
    start: usize,
    size: usize,
}

/// A kept answer.
#[derive(Clone, Debug)]
pub struct Packet {
    bytes: Box<[u8]>,
    records: Box<[Place]>,
    answers: usize,
    authorities: usize,
    wheel: Option<Wheel>,
}

/// How long the client may keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As it is written, less so many seconds.
    Aged(u32),
    /// At most so many seconds: the records are over.
    Stale(u32),
}

/// What carried the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams, which must be short.
    Udp,
    /// A stream.
    Tcp,
}

impl Transport {
    /// The longest answer to a question, OPT and all.
    #[must_use]
    pub fn limit(self, query: &Query) -> usize {
        match (self, query.edns) {
            (Self::Tcp, _) => usize::from(u16::MAX),
            (Self::Udp, None) => MIN_DATAGRAM,
            (Self::Udp, Some(edns)) => usize::from(edns.payload).clamp(MIN_DATAGRAM, MAX_DATAGRAM),
        }
    }
}

impl Packet {
    /// Encodes the sections as the answer to a question; `None` if they cannot be.
    #[must_use]
    pub fn encode(query: &Query, sections: Sections) -> Option<Self> {
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.response_code = sections.code;
        message.metadata.authoritative = sections.authoritative;
        let mut question = Question::query(query.name().ok()?, query.kind());
        question.set_query_class(query.class().into());
        message.add_query(question);
        message.answers = sections.answers;
        message.authorities = sections.authority;
        message.additionals = sections.additionals;
        Self::read(message.to_vec().ok()?)
    }

    /// Takes a message for what it is; `None` if it is not a response with one question, or cannot be read.
    #[must_use]
    pub fn read(mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() > usize::from(u16::MAX)
            || word(&bytes, 2)? & flag::RESPONSE == 0
            || word(&bytes, 4)? != 1
        {
            return None;
        }
        let counts = [word(&bytes, 6)?, word(&bytes, 8)?, word(&bytes, 10)?].map(usize::from);
        let mut at = skip_name(&bytes, HEADER)? + 4;
        let mut records = Vec::new();
        for _ in 0..counts.iter().sum() {
            let fixed = skip_name(&bytes, at)?;
            let end = fixed + 10 + usize::from(word(&bytes, fixed + 8)?);
            if end > bytes.len() {
                return None;
            }
            if word(&bytes, fixed)? == OPT {
                // What follows, TSIG, signs what we do not keep.
                break;
            }
            records.push(Place { ttl: u16::try_from(fixed + 4).ok()?, end: u16::try_from(end).ok()? });
            at = end;
        }
        if records.len() < counts[0] + counts[1] {
            return None;
        }
        bytes.truncate(at);
        let mut packet = Self {
            bytes: bytes.into(),
            records: records.into(),
            answers: counts[0],
            authorities: counts[1],
            wheel: None,
        };
        packet.wheel = packet.find_wheel();
        Some(packet)
    }

    /// The addresses at the end of the answers: the aliases before them have their order.
    fn find_wheel(&self) -> Option<Wheel> {
        let shape = |number: usize| {
            let (start, end) = (self.start(number), usize::from(self.records[number].end));
            let kind = word(&self.bytes, usize::from(self.records[number].ttl) - 4)?;
            matches!(kind, A | AAAA).then_some((kind, end - start))
        };
        let last = shape(self.answers.checked_sub(1)?)?;
        let first = (0..self.answers).rev().take_while(|number| shape(*number) == Some(last)).last()?;
        (self.answers - first > 1).then(|| Wheel { start: self.start(first), size: last.1 })
    }

    fn start(&self, number: usize) -> usize {
        match number.checked_sub(1) {
            Some(before) => usize::from(self.records[before].end),
            None => self.question_end(),
        }
    }

    fn question_end(&self) -> usize {
        skip_name(&self.bytes, HEADER).map_or(self.bytes.len(), |name| name + 4)
    }

    /// The response code.
    #[must_use]
    pub fn code(&self) -> ResponseCode {
        ResponseCode::from(0, u8::try_from(self.flags() & flag::CODE).expect("four bits"))
    }

    /// Whether something is missing in it.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.flags() & flag::TRUNCATED != 0
    }

    fn flags(&self) -> u16 {
        word(&self.bytes, 2).expect("a header")
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.records.len() * size_of::<Place>()
    }

    /// Whether there are answers in it.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        self.answers > 0
    }

    /// Whether it answers this question.
    #[must_use]
    pub fn is_about(&self, query: &Query) -> bool {
        self.bytes
            .get(HEADER..HEADER + query.spelled().len())
            .is_some_and(|question| question.eq_ignore_ascii_case(query.spelled()))
    }

    /// How long it may be kept, in seconds: the least TTL of its answers, or what its SOA says of what is not
    /// there (RFC 2308). `None`: not at all.
    #[must_use]
    pub fn ttl(&self) -> Option<u32> {
        let answers = &self.records[..self.answers];
        let least = answers.iter().map(|place| self.ttl_at(place)).min();
        match self.code() {
            ResponseCode::NoError if least.is_some() => least,
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let soa = self.records[self.answers..self.answers + self.authorities]
                    .iter()
                    .find(|place| word(&self.bytes, usize::from(place.ttl) - 4) == Some(SOA))?;
                let minimum = self.long(usize::from(soa.end).checked_sub(4)?)?;
                Some(minimum.min(self.ttl_at(soa)).min(least.unwrap_or(u32::MAX)))
            }
            _ => None,
        }
    }

    fn ttl_at(&self, place: &Place) -> u32 {
        self.long(usize::from(place.ttl)).expect("a record has a TTL")
    }

    fn long(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn set_counts(&self, out: &mut [u8], kept: usize) {
        let answers = self.answers.min(kept);
        let authorities = self.authorities.min(kept - answers);
        for (at, count) in [(6, answers), (8, authorities), (10, kept - answers - authorities)] {
            put(out, at, u16::try_from(count).unwrap_or(u16::MAX));
        }
    }

    /// Writes it as the answer to a question. `spin` says which of several addresses is the first.
    pub fn write(&self, query: &Query, transport: Transport, ttl: Ttl, spin: usize, out: &mut Vec<u8>) {
        debug_assert!(self.is_about(query), "an answer to another question");
        out.clear();
        out.extend_from_slice(&self.bytes);
        out[HEADER..HEADER + query.spelled().len()].copy_from_slice(query.spelled());
        if ttl != Ttl::Aged(0) {
            for place in &self.records {
                let left = match ttl {
                    Ttl::Aged(age) => self.ttl_at(place).saturating_sub(age),
                    Ttl::Stale(most) => self.ttl_at(place).min(most),
                };
                out[usize::from(place.ttl)..][..4].copy_from_slice(&left.to_be_bytes());
            }
        }
        if let Some(Wheel { start, size }) = self.wheel {
            let wheel = &mut out[start..usize::from(self.records[self.answers - 1].end)];
            let turns = spin % (wheel.len() / size);
            wheel.rotate_left(turns * size);
        }
        let room = transport.limit(query) - query.edns.map_or(0, |_| OPT_LENGTH);
        let mut flags = self.flags();
        let mut kept = self.records.len();
        if out.len() > room {
            kept = self.records.iter().take_while(|place| usize::from(place.end) <= room).count();
            if kept < self.answers + self.authorities {
                flags |= flag::TRUNCATED;
                // Half of what proves a negative answer is of no use.
                kept = kept.min(self.answers);
            }
            out.truncate(self.start(kept));
        }
        self.set_counts(out, kept);
        if query.flags & flag::AUTHENTIC_DATA == 0 && !query.dnssec_ok() {
            flags &= !flag::AUTHENTIC_DATA;
        }
        finish(query, flags, out);
    }
}

/// Writes an answer without records.
pub fn write_error(query: &Query, code: ResponseCode, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
    put(out, 4, 1);
    out.extend_from_slice(query.spelled());
    finish(query, u16::from(code.low()), out);
    if code.high() > 0
        && query.edns.is_some()
        && let Some(at) = out.len().checked_sub(6)
    {
        out[at] = code.high();
    }
}

/// Writes the answer to what could not be read.
pub fn write_problem(id: u16, flags: u16, code: ResponseCode, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
    put(out, 0, id);
    let repeated = flags & (flag::OPCODE | flag::RECURSION_DESIRED);
    put(out, 2, flag::RESPONSE | flag::RECURSION_AVAILABLE | repeated | u16::from(code.low()));
}

/// What every answer repeats from its question; then OPT.
fn finish(query: &Query, flags: u16, out: &mut Vec<u8>) {
    put(out, 0, query.id);
    let ours = flag::AUTHORITATIVE | flag::TRUNCATED | flag::AUTHENTIC_DATA | flag::CODE;
    let repeated = query.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
    put(out, 2, flag::RESPONSE | flag::RECURSION_AVAILABLE | flags & ours | repeated);
    let Some(edns) = query.edns else { return };
    let additionals = word(out, 10).unwrap_or_default().saturating_add(1);
    put(out, 10, additionals);
    let [size_high, size_low] = u16::try_from(MAX_DATAGRAM).expect("short").to_be_bytes();
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    out.extend_from_slice(&[0, 0, 41, size_high, size_low, 0, 0, dnssec_ok, 0, 0, 0]);
}

/// Writes a big-endian word at a place.
pub(crate) fn put(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Whether questions of this type are answered by nobody: transfers and what stands only in headers.
#[must_use]
pub fn is_refused(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::ZERO | RecordType::TSIG
    )
}

#[cfg(test)]
mod tests;
