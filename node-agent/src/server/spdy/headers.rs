//! Header blocks: names and values with their lengths, compressed with zlib. Each direction has one
//! context for the whole connection, so every block must be read, also of frames nobody wants.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;
use super::dictionary::dictionary;

/// A block is no larger when unpacked. Kubernetes' streams name a type, a port and a number.
pub(super) const MAX_BLOCK: usize = 16 << 10;
const MAX_PAIRS: usize = 64;

/// Names (lower case) and values in the order they came.
pub(in super::super) type Headers = Vec<(String, String)>;

/// Unpacks what the peer sends.
pub(super) struct Unpacker {
    context: Decompress,
    dictionary: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self { context: Decompress::new(true), dictionary: dictionary() }
    }

    /// Reads a block. After an error the connection is of no use: the context is out of step.
    pub(super) fn unpack(&mut self, mut block: &[u8]) -> Result<Headers, Error> {
        const MALFORMED: Error = Error::Protocol("a header block is not readable");
        // One byte more than allowed, to tell full from too large.
        let mut plain = Vec::with_capacity(MAX_BLOCK + 1);
        loop {
            let (read, written) = (self.context.total_in(), plain.len());
            let outcome = self.context.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.context.total_in() - read).map_err(|_| MALFORMED)?;
            block = block.get(read..).ok_or(MALFORMED)?;
            match outcome {
                Ok(Status::StreamEnd) => return Err(MALFORMED),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.context.set_dictionary(&self.dictionary).map_err(|_| MALFORMED)?;
                    continue;
                }
                Err(_) => return Err(MALFORMED),
            }
            if plain.len() > MAX_BLOCK {
                return Err(Error::Protocol("a header block is too large"));
            }
            if read == 0 && written == plain.len() {
                break;
            }
        }
        if block.is_empty() { parse(&plain) } else { Err(MALFORMED) }
    }
}

fn parse(plain: &[u8]) -> Result<Headers, Error> {
    const SHORT: Error = Error::Protocol("a header block ends early");
    let mut rest = plain;
    let number = |rest: &mut &[u8]| -> Result<usize, Error> {
        let (first, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        *rest = after;
        usize::try_from(u32::from_be_bytes(*first)).map_err(|_| SHORT)
    };
    let pairs = number(&mut rest)?;
    if pairs > MAX_PAIRS {
        return Err(Error::Protocol("too many headers"));
    }
    let mut headers = Headers::with_capacity(pairs);
    for _ in 0..pairs {
        let mut text = || -> Result<String, Error> {
            let length = number(&mut rest)?;
            let (text, after) = rest.split_at_checked(length).ok_or(SHORT)?;
            rest = after;
            String::from_utf8(text.to_vec()).map_err(|_| Error::Protocol("a header is not text"))
        };
        let (name, value) = (text()?, text()?);
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Error::Protocol("a header's name is not in lower case"));
        }
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(Error::Protocol("a header comes twice"));
        }
        headers.push((name, value));
    }
    if rest.is_empty() { Ok(headers) } else { Err(Error::Protocol("a header block is too long")) }
}

/// Packs what the peer gets.
pub(super) struct Packer {
    context: Compress,
}

impl Packer {
    pub(super) fn new() -> Result<Self, Error> {
        let mut context = Compress::new(Compression::fast(), true);
        context
            .set_dictionary(&dictionary())
            .map_err(|_| Error::Protocol("header compression is not available"))?;
        Ok(Self { context })
    }

    /// Packs a block and flushes, so that it can be read without the next.
    pub(super) fn pack(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>, Error> {
        const TOO_LARGE: Error = Error::Protocol("headers are too large");
        let mut plain = Vec::new();
        let number = |value: usize| u32::try_from(value).map(u32::to_be_bytes).map_err(|_| TOO_LARGE);
        plain.extend_from_slice(&number(headers.len())?);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&number(text.len())?);
            plain.extend_from_slice(text.as_bytes());
        }
        let (mut rest, mut packed) = (&plain[..], Vec::new());
        loop {
            packed.reserve(256);
            let before = self.context.total_in();
            self.context.compress_vec(rest, &mut packed, FlushCompress::Sync).map_err(|_| TOO_LARGE)?;
            let read = usize::try_from(self.context.total_in() - before).map_err(|_| TOO_LARGE)?;
            rest = rest.get(read..).unwrap_or_default();
            // Room that is left over says that the flush is complete.
            if rest.is_empty() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
        }
    }
}

/// Any bytes as a list of headers, and as a packed one.
pub(super) fn fuzz(bytes: &[u8]) {
    drop(Unpacker::new().unpack(bytes));
    let (Ok(headers), Ok(mut packer)) = (parse(bytes), Packer::new()) else { return };
    let packed = packer.pack(&headers);
    let again = packed.and_then(|packed| Unpacker::new().unpack(&packed));
    assert!(bytes.len() > MAX_BLOCK || again.is_ok_and(|again| again == headers), "headers survive packing");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_come_back(blocks in prop::collection::vec(
            prop::collection::btree_map("[a-z-]{1,12}", "[ -~]{0,300}", 0..8), 0..6)) {
            let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new());
            for block in blocks {
                let headers: Headers = block.into_iter().collect();
                let packed = packer.pack(&headers).unwrap();
                prop_assert_eq!(unpacker.unpack(&packed).unwrap(), headers);
            }
        }

        #[test]
        fn noise_is_refused_or_read(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(headers) = Unpacker::new().unpack(&noise) {
                prop_assert!(headers.len() <= MAX_PAIRS);
            }
            if let Ok(headers) = parse(&noise) {
                prop_assert!(headers.len() <= MAX_PAIRS);
            }
        }
    }

    #[test]
    fn a_small_block_that_grows_is_refused() {
        let bomb = vec![("a".to_owned(), "x".repeat(10 << 20))];
        let packed = Packer::new().unwrap().pack(&bomb).unwrap();
        assert!(packed.len() < 200_000);
        let refused = Unpacker::new().unpack(&packed).unwrap_err();
        assert!(refused.to_string().contains("too large"), "{refused}");
    }

    #[test]
    fn malformed_lists_are_refused() {
        let pair = |name: &str| {
            let mut all = vec![0, 0, 0, u8::try_from(name.len()).unwrap()];
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&[0, 0, 0, 1, b'v']);
            all
        };
        let list = |count: u8, parts: &[Vec<u8>]| [&[0, 0, 0, count][..], &parts.concat()].concat();
        assert!(parse(&list(1, &[pair("a")])).is_ok());
        for bad in [
            vec![],
            list(1, &[]),
            list(0, &[pair("a")]),
            list(1, &[pair("")]),
            list(1, &[pair("A")]),
            list(2, &[pair("a"), pair("a")]),
            list(255, &[pair("a")]),
            vec![0, 0, 0, 1, 255, 255, 255, 255, 1],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
