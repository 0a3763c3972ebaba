//! The configuration files of authentication and authorization, in effect as they change.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use skep_auth::authentication::oidc::Issuers;
use skep_auth::authentication::{Anonymous, Bearer, LiveAnonymous, TokenVerifier};
use skep_auth::authorization::{Authorizer, Live};
use skep_auth::configuration::{Authentication, Authorization, Reloads, follow};
use skep_webhook::Client;

use super::authorizers::Makers;
use super::read;

/// New issuers must give their keys within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file that is followed: spawn the task, and count what it did.
pub(in crate::server) struct Followed {
    pub(in crate::server) reloads: Arc<Reloads>,
    pub(in crate::server) task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Authentication as a file describes it.
pub(in crate::server) struct ByFile {
    path: PathBuf,
    text: String,
    own: Vec<String>,
    client: Client,
    issuers: Arc<Issuers>,
    anonymous: LiveAnonymous,
}

impl ByFile {
    pub(super) fn open(path: &Path, client: &Client, own: &[String]) -> Result<Self> {
        let text = read(path)?;
        let file = Authentication::parse(&text, own).with_context(|| path.display().to_string())?;
        Ok(Self {
            path: path.to_owned(),
            text,
            own: own.to_vec(),
            client: client.clone(),
            issuers: Issuers::new(file.issuers, client),
            anonymous: file.anonymous.unwrap_or(Anonymous::On).into(),
        })
    }

    pub(super) fn verifier(&self) -> Arc<dyn TokenVerifier> {
        self.issuers.clone()
    }

    pub(super) fn anonymous(&self) -> LiveAnonymous {
        self.anonymous.clone()
    }

    /// Follows the file; what `bearer` remembers of tokens ends with each change.
    pub(in crate::server) fn follow(self, bearer: Arc<Bearer>) -> Followed {
        let reloads = Arc::new(Reloads::default());
        let Self { path, text, own, client, issuers, anonymous } = self;
        let apply = async move |text: &str| {
            let file = Authentication::parse(text, &own).map_err(|error| error.to_string())?;
            let replaced = issuers.replace(file.issuers, &client, PATIENCE).await;
            replaced.map_err(|error| error.to_string())?;
            anonymous.replace(file.anonymous.unwrap_or(Anonymous::On));
            bearer.forget();
            Ok(())
        };
        let task = follow(path, text, Arc::clone(&reloads), apply);
        Followed { reloads, task: Box::pin(task) }
    }
}

/// Those who decide by a file, and the following of it. Webhooks may come and go; the other modes must stay,
/// for in what order they are is policy, but that they are there is how the server was built.
pub(super) fn authorization(path: &Path, makers: Makers) -> Result<(Arc<dyn Authorizer>, Followed)> {
    let text = read(path)?;
    let file = Authorization::parse(&text).with_context(|| path.display().to_string())?;
    let fixed = file.fixed_modes();
    let live = Live::new(makers.union(file.modes)?);
    let reloads = Arc::new(Reloads::default());
    let authorizer: Arc<dyn Authorizer> = live.clone();
    let apply = async move |text: &str| {
        let file = Authorization::parse(text).map_err(|error| error.to_string())?;
        let now = file.fixed_modes();
        if now != fixed {
            return Err(format!("the modes besides webhooks must stay {fixed:?}, but are {now:?}"));
        }
        live.replace(makers.union(file.modes).map_err(|error| format!("{error:#}"))?);
        Ok(())
    };
    let task = Box::pin(follow(path.to_owned(), text, Arc::clone(&reloads), apply));
    Ok((authorizer, Followed { reloads, task }))
}
