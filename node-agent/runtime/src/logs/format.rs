//! One line of a log file: parsing and printing.

use jiff::Timestamp;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As it is written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was read from the container.
    pub time: Timestamp,
    /// Its time as written: handed on without being printed anew.
    pub time_text: &'a str,
    /// From where.
    pub stream: Stream,
    /// The text goes on in the next line of the file.
    pub partial: bool,
    /// The text, without a line end.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parses a line of a file (without its line end). `None` when it is malformed.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |b| *b == b' ');
        let time_text = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match fields.next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self {
            time: time_text.parse().ok()?,
            time_text,
            stream,
            partial,
            text: fields.next().unwrap_or_default(),
        })
    }
}

/// Appends a line to a buffer.
pub fn print(out: &mut Vec<u8>, time: Timestamp, stream: Stream, partial: bool, text: &[u8]) {
    out.extend_from_slice(format!("{time:.9}").as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.as_str().as_bytes());
    out.extend_from_slice(if partial { b" P " } else { b" F " });
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip() {
        let time: Timestamp = "2026-11-23T12:00:00.000000001Z".parse().unwrap();
        for (partial, text) in
            [(false, b"hello  world ".as_slice()), (true, b"".as_slice()), (false, b"\xff\x00")]
        {
            let mut out = Vec::new();
            print(&mut out, time, Stream::Stderr, partial, text);
            let line = Line::parse(out.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!(
                (line.time, line.stream, line.partial, line.text),
                (time, Stream::Stderr, partial, text)
            );
            assert_eq!(line.time_text, "2026-11-23T12:00:00.000000001Z");
        }
        for bad in ["", "x stdout F a", "2026-11-23T12:00:00Z stdin F a", "2026-11-23T12:00:00Z stdout X a"] {
            assert!(Line::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
