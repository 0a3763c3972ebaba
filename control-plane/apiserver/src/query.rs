//! Query parameters, read once.

use skep_api::error::ApiError;

/// The most parameters a request may carry.
const MOST: usize = 1000;

/// The parameters of a request in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query part of an URL.
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MOST {
                return Err(ApiError::bad_request("too many query parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((unescape(name), unescape(value)));
        }
        Ok(Self(pairs))
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A switch: `1`, `true`, or the bare name.
    pub fn flag(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.is_some_and(|(_, value)| {
            !matches!(value.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F")
        })
    }

    /// A switch that may also be left out.
    pub fn option(&self, name: &str) -> Option<bool> {
        self.get(name).map(|_| self.flag(name))
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse();
        number
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("unable to parse {name} {text:?} as a number")))
    }
}

/// Undoes percent encoding and `+`. What is malformed stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_unescaped() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc&watch&limit=5&command=a+b&command=c&x="))
            .expect("query");
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit").expect("number"), Some(5));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(query.get("x"), None);
        assert!(Query::parse(Some("limit=x")).expect("query").number("limit").is_err());
    }
}
