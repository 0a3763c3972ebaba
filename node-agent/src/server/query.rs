//! Query parameters. The API server passes the caller's through, so both spellings come: the kubelet's
//! (`input`, `output`, `error`) and the API's (`stdin`, `stdout`, `stderr`).

use jiff::{SignedDuration, Timestamp};
use skep_runtime::logs::format::Stream;
use skep_runtime::logs::read::LogOptions;

use super::refusal::Refusal;

/// The parameters in the order they came; names may repeat.
pub(super) type Parameters = Vec<(String, String)>;

fn last<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

fn is_set(parameters: &Parameters, names: &[&str]) -> bool {
    names.iter().any(|name| matches!(last(parameters, name), Some("1" | "true" | "True")))
}

/// Which streams a caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Streams {
    pub(super) fn parse(parameters: &Parameters) -> Result<Self, Refusal> {
        let tty = is_set(parameters, &["tty"]);
        let streams = Self {
            stdin: is_set(parameters, &["input", "stdin"]),
            stdout: is_set(parameters, &["output", "stdout"]),
            // A terminal has one output.
            stderr: is_set(parameters, &["error", "stderr"]) && !tty,
            tty,
        };
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(streams)
    }
}

/// The command line of an exec.
pub(super) fn command(parameters: &Parameters) -> Vec<String> {
    parameters.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect()
}

/// The ports of a port-forward.
pub(super) fn ports(parameters: &Parameters) -> Result<Vec<u16>, Refusal> {
    let texts = parameters.iter().filter(|(name, _)| matches!(name.as_str(), "port" | "ports"));
    let mut ports = Vec::new();
    for text in texts.flat_map(|(_, value)| value.split(',')) {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(Refusal::bad_request(format!("invalid port {text:?}"))),
        }
    }
    if ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    Ok(ports)
}

/// What to read of a log, and whether to follow it and of which attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct LogQuery {
    pub(super) options: LogOptions,
    pub(super) follow: bool,
    pub(super) previous: bool,
}

impl LogQuery {
    pub(super) fn parse(parameters: &Parameters, now: Timestamp) -> Result<Self, Refusal> {
        let number = |name: &str| -> Result<Option<u64>, Refusal> {
            last(parameters, name)
                .map(|text| {
                    text.parse().map_err(|_| Refusal::bad_request(format!("invalid {name}: {text:?}")))
                })
                .transpose()
        };
        let since = match (number("sinceSeconds")?, last(parameters, "sinceTime")) {
            (Some(_), Some(_)) => {
                return Err(Refusal::bad_request(
                    "at most one of sinceTime or sinceSeconds may be specified",
                ));
            }
            (Some(seconds), None) => {
                let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Some(now.checked_sub(back).unwrap_or(Timestamp::UNIX_EPOCH))
            }
            (None, Some(text)) => {
                Some(text.parse().map_err(|_| Refusal::bad_request(format!("invalid sinceTime: {text:?}")))?)
            }
            (None, None) => None,
        };
        let stream = match last(parameters, "stream") {
            None | Some("All" | "") => None,
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            Some(other) => return Err(Refusal::bad_request(format!("invalid stream: {other:?}"))),
        };
        Ok(Self {
            options: LogOptions {
                tail: number("tailLines")?,
                since,
                limit_bytes: number("limitBytes")?,
                timestamps: is_set(parameters, &["timestamps"]),
                stream,
            },
            follow: is_set(parameters, &["follow"]),
            previous: is_set(parameters, &["previous"]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Parameters {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn streams_have_two_spellings() {
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(Streams::parse(&parameters("input=1&output=1&error=1")), Ok(all));
        assert_eq!(Streams::parse(&parameters("stdin=true&stdout=true&stderr=true")), Ok(all));
        let terminal = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(Streams::parse(&parameters("stdin=true&stdout=true&stderr=true&tty=true")), Ok(terminal));
        assert!(Streams::parse(&parameters("tty=true")).is_err());
    }

    #[test]
    fn log_queries_are_checked() {
        let now = Timestamp::from_second(1000).expect("a time");
        let query =
            LogQuery::parse(&parameters("follow=true&tailLines=3&sinceSeconds=10"), now).expect("valid");
        assert!(query.follow && !query.previous);
        assert_eq!(query.options.tail, Some(3));
        assert_eq!(query.options.since.map(Timestamp::as_second), Some(990));
        for bad in [
            "tailLines=x",
            "tailLines=-1",
            "sinceTime=yesterday",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "stream=x",
        ] {
            assert!(LogQuery::parse(&parameters(bad), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!(ports(&parameters("ports=80&port=81,82")), Ok(vec![80, 81, 82]));
        for bad in ["", "port=0", "port=x", "port=70000"] {
            assert!(ports(&parameters(bad)).is_err(), "{bad}");
        }
    }
}
