//! A question as it comes off the wire: a pure parser that allocates nothing.
//!
//! Invariants: a response is never answered (two servers would answer each other for ever); what is not a question
//! gets the error of RFC 1035 or RFC 6891; a name is kept as it was spelled, and compared without case.

use hickory_proto::{
    ProtoError,
    op::ResponseCode,
    rr::{Name, RecordType},
};

/// The length of a message's header.
pub const HEADER: usize = 12;
/// The longest name on the wire, RFC 1035 section 3.1.
const MAX_NAME: usize = 255;
/// The longest question: a name, its type and its class.
const MAX_QUESTION: usize = MAX_NAME + 4;
/// The longest label; a byte above has the bits of a compression pointer.
const MAX_LABEL: u8 = 63;
/// The pseudo-record of EDNS, RFC 6891.
const OPT: u16 = 41;

/// Bits of the header's second word.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const CODE: u16 = 0x000f;
}

/// What the client said by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest datagram that it takes, in bytes.
    pub payload: u16,
    /// The version; there is only 0.
    pub version: u8,
    /// It wants signatures (DO).
    pub dnssec_ok: bool,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its number, which the answer repeats.
    pub id: u16,
    /// The header's flags.
    pub(crate) flags: u16,
    question: [u8; MAX_QUESTION],
    length: usize,
    /// What came along by EDNS.
    pub edns: Option<Edns>,
}

/// Why a message is not a question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nothing is said to it: too short to have a number, or itself a response.
    Silence,
    /// It gets this error, and nothing else: its question could not be read.
    Error {
        /// The number of the message.
        id: u16,
        /// Its flags.
        flags: u16,
        /// The error.
        code: ResponseCode,
    },
}

/// The big-endian word at a place.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The place behind the name at `at`; `None` when it is cut off or not a name. A pointer must point backwards.
pub(crate) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    let began = at;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=MAX_LABEL => at += 1 + usize::from(length),
            0xc0.. => {
                let target = usize::from(word(bytes, at)? & 0x3fff);
                return (target < began).then_some(at + 2);
            }
            _ => return None,
        }
        if at - began > MAX_NAME {
            return None;
        }
    }
}

impl Query {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is not one question of the kind that is answered.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let header = |at| word(bytes, at).ok_or(Problem::Silence);
        let (id, flags) = (header(0)?, header(2)?);
        if bytes.len() < HEADER || flags & flag::RESPONSE != 0 {
            return Err(Problem::Silence);
        }
        let error = |code| Problem::Error { id, flags, code };
        if flags & flag::OPCODE != 0 {
            return Err(error(ResponseCode::NotImp));
        }
        Self::body(bytes, id, flags).ok_or_else(|| error(ResponseCode::FormErr))
    }

    /// The rest of a message whose header is one of a question.
    fn body(bytes: &[u8], id: u16, flags: u16) -> Option<Self> {
        if word(bytes, 4)? != 1 {
            return None;
        }
        let mut at = HEADER;
        while let length @ 1.. = *bytes.get(at)? {
            if length > MAX_LABEL {
                return None;
            }
            at += 1 + usize::from(length);
        }
        at += 5;
        let spelled = bytes.get(HEADER..at).filter(|spelled| spelled.len() <= MAX_QUESTION)?;
        let mut question = [0; MAX_QUESTION];
        question[..spelled.len()].copy_from_slice(spelled);
        let edns = edns(bytes, at)?;
        Some(Self { id, flags, question, length: spelled.len(), edns })
    }

    /// The question: name, type and class as they came.
    #[must_use]
    pub fn spelled(&self) -> &[u8] {
        &self.question[..self.length]
    }

    /// The name as it came, with the lengths of its labels.
    #[must_use]
    pub fn name_bytes(&self) -> &[u8] {
        &self.question[..self.length - 4]
    }

    /// The name.
    ///
    /// # Errors
    /// Never for a question that was read; the library does not know that.
    pub fn name(&self) -> Result<Name, ProtoError> {
        let mut rest = self.name_bytes();
        let labels = std::iter::from_fn(move || {
            let (length, after) = rest.split_first().filter(|(length, _)| **length > 0)?;
            let (label, next) = after.split_at(usize::from(*length));
            rest = next;
            Some(label)
        });
        let mut name = Name::from_labels(labels)?;
        name.set_fqdn(true);
        Ok(name)
    }

    /// The same question about another name, given as its bytes on the wire; `None` when they are too long.
    #[must_use]
    pub fn about(&self, name: &[u8]) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        let mut other = self.clone();
        let tail = &self.spelled()[self.length - 4..];
        other.length = name.len() + tail.len();
        other.question[..name.len()].copy_from_slice(name);
        other.question[name.len()..other.length].copy_from_slice(tail);
        Some(other)
    }

    /// The type of the records asked for.
    #[must_use]
    pub fn kind(&self) -> RecordType {
        self.tail(4).into()
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.tail(2)
    }

    fn tail(&self, back: usize) -> u16 {
        word(&self.question, self.length - back).expect("a question ends in type and class")
    }

    /// Whether signatures are wanted.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// What two questions must have in common to have one answer.
    #[must_use]
    pub fn key(&self) -> Key {
        let mut bytes = [0; MAX_QUESTION + 1];
        bytes[..self.length].copy_from_slice(self.spelled());
        // Lengths of labels are below the letters.
        bytes[..self.length - 4].make_ascii_lowercase();
        bytes[self.length] =
            u8::from(self.dnssec_ok()) | u8::from(self.flags & flag::CHECKING_DISABLED != 0) << 1;
        Key { bytes, length: self.length + 1 }
    }
}

/// A question without its spelling.
#[derive(Clone, Debug)]
pub struct Key {
    bytes: [u8; MAX_QUESTION + 1],
    length: usize,
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The name, lower case, with the lengths of its labels.
    #[must_use]
    pub fn name_bytes(&self) -> &[u8] {
        &self.bytes[..self.length - 5]
    }
}

/// What the records behind the question say of EDNS; `None` when they cannot be read or say it twice.
#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn edns(bytes: &[u8], mut at: usize) -> Option<Option<Edns>> {
    let count = |at| word(bytes, at).map(u32::from);
    let before = count(6)? + count(8)?;
    let mut found = None;
    for number in 0..before + count(10)? {
        let name = at;
        at = skip_name(bytes, at)?;
        if number >= before && word(bytes, at)? == OPT {
            if found.is_some() || bytes[name] != 0 {
                return None;
            }
            let [_, version, high, _] = *bytes.get(at + 4..at + 8)? else { return None };
            found = Some(Edns { payload: word(bytes, at + 2)?, version, dnssec_ok: high & 0x80 != 0 });
        }
        at += 10 + usize::from(word(bytes, at + 8)?);
        if at > bytes.len() {
            return None;
        }
    }
    Some(found)
}

#[cfg(test)]
pub(crate) mod tests;
