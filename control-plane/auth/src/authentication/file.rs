//! Users from files: `token,user,uid,"group1,group2"` and `password,user,uid,"group1,group2"`, a line
//! each, the classic formats of `--token-auth-file` and `--basic-auth-file`.

use std::collections::HashMap;

use async_trait::async_trait;
use base64::Engine;
use skep_api::user::UserInfo;

use super::bearer::{TokenVerifier, Verified};
use super::secret::{digest, same};
use super::{Authenticator, Credentials, Error};

/// A line that can't be read. It names the line, never its content.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Tokens from a file.
pub struct TokenFile {
    /// By hash of the token: looking one up takes the same time however much of it is right.
    users: HashMap<[u8; 32], UserInfo>,
}

impl TokenFile {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let users = lines(text)?.into_iter().map(|(token, user)| (digest(&token), user)).collect();
        Ok(Self { users })
    }

    /// One token, not from a file.
    pub fn single(token: &str, user: UserInfo) -> Self {
        Self { users: HashMap::from([(digest(token), user)]) }
    }
}

#[async_trait]
impl TokenVerifier for TokenFile {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        let user = self.users.get(&digest(token));
        Ok(user.map(|user| Verified { user: user.clone(), audiences: audiences.to_vec() }))
    }

    fn knows_audiences(&self) -> bool {
        false
    }
}

/// Passwords from a file.
pub struct BasicFile {
    users: HashMap<String, ([u8; 32], UserInfo)>,
}

impl BasicFile {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut users = HashMap::new();
        for (password, user) in lines(text)? {
            users.insert(user.name.clone(), (digest(&password), user));
        }
        Ok(Self { users })
    }
}

#[async_trait]
impl Authenticator for BasicFile {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        let Some(encoded) = credentials.authorization("basic") else { return Ok(None) };
        let invalid = || Error::Invalid("unknown user or wrong password".into());
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (name, password) = text.split_once(':').ok_or_else(invalid)?;
        let given = digest(password);
        match self.users.get(name) {
            Some((expected, user)) if same(expected, &given) => Ok(Some(user.clone())),
            _ => Err(invalid()),
        }
    }
}

fn lines(text: &str) -> Result<Vec<(String, UserInfo)>, ParseError> {
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why| ParseError { line: line_number, why };
        let fields = fields(line).ok_or_else(|| wrong("a quote is not closed"))?;
        let [secret, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(wrong("a secret, a user and a uid are needed"));
        };
        if secret.is_empty() || name.is_empty() {
            return Err(wrong("the secret or the user is empty"));
        }
        let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
        let mut user = UserInfo::new(name, groups.filter(|group| !group.is_empty()));
        user.uid.clone_from(uid);
        out.push((secret.clone(), user));
    }
    Ok(out)
}

/// Splits a line of comma-separated values; a quoted one may hold commas, and quotes doubled.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                out.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => out.last_mut()?.push(c),
        }
    }
    (!quoted).then(|| out.iter().map(|field| field.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_file_names_users_and_quoted_groups() {
        let file =
            TokenFile::parse("# comment\nsecret,jane,u1,\"dev,ops\"\n\nother,joe,u2\n").expect("parses");
        let found = file.verify("secret", &["a".into()]).await.expect("verifies").expect("is known");
        assert_eq!(found.user.name, "jane");
        assert_eq!(found.user.groups, ["dev", "ops", "system:authenticated"]);
        assert!(file.verify("secre", &[]).await.expect("verifies").is_none());
    }

    #[test]
    fn bad_lines_are_named_by_number_only() {
        assert_eq!(TokenFile::parse("a,b\n").err().map(|e| e.line), Some(1));
        assert_eq!(TokenFile::parse("\na,b,c,\"d").err().map(|e| e.line), Some(2));
    }

    #[tokio::test]
    async fn basic_needs_the_right_password() {
        let file = BasicFile::parse("pw,jane,u1").expect("parses");
        let mut headers = http::HeaderMap::new();
        let mut try_with = |pair: &str| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            headers.insert("authorization", format!("Basic {encoded}").parse().expect("a header"));
            headers.clone()
        };
        for (pair, good) in [("jane:pw", true), ("jane:pw2", false), ("joe:pw", false), ("jane", false)] {
            let headers = try_with(pair);
            let credentials = Credentials { certificates: &[], headers: &headers };
            assert_eq!(matches!(file.authenticate(&credentials).await, Ok(Some(_))), good, "{pair}");
        }
    }
}
