//! `skep net policy`: what holds for this node's pods, what was denied, and why.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use skep_client::{Client, ClientConfig};
use skep_network_policy::explain::{Cluster, End, Target, explain};
use skep_network_policy::inspect;

use crate::folders::Folders;

/// `skep net policy`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Option<What>,
}

/// What to look at; by default this node's pods that policies select.
#[derive(Subcommand, Clone, Debug)]
enum What {
    /// What is allowed to a pod of this node, entry by entry of the kernel's maps.
    Rules {
        /// The pod: NAMESPACE/NAME, or its address.
        pod: String,
    },
    /// What was not let through lately, and by whose policies.
    Denied,
    /// Why one may talk to another, or not: asks the API server.
    Explain(Explain),
}

/// A question.
#[derive(Args, Clone, Debug)]
struct Explain {
    /// FROM TO, or "FROM -> TO": FROM is a pod (NAMESPACE/NAME) or an address; TO is the same with :PORT[/PROTOCOL].
    #[arg(required = true, num_args = 1..=3, allow_hyphen_values = true, value_name = "FROM TO")]
    question: Vec<String>,
    /// How to reach the API server; by default what `skep up` and `skep server` write.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The port at which nodes answer the cluster's DNS.
    #[arg(long, default_value_t = 10053, value_name = "PORT")]
    dns_port: u16,
}

/// `skep net policy`.
pub(crate) async fn show(options: &Options, folders: &Folders, json: bool) -> Result<String> {
    let pins = &folders.pin_dir;
    let names = folders.agent().join(skep_node_agent::POLICY_NAMES);
    Ok(match &options.what {
        None => inspect::pods(pins, &names, json)?,
        Some(What::Rules { pod }) => inspect::rules(pins, &names, pod, json)?,
        Some(What::Denied) => inspect::denied(pins, &names, json)?,
        Some(What::Explain(question)) => answer(question, folders, json).await?,
    })
}

async fn answer(question: &Explain, folders: &Folders, json: bool) -> Result<String> {
    let (from, to) = ends(&question.question)?;
    let config = question.kubeconfig.clone().unwrap_or_else(|| folders.admin_kubeconfig());
    let client = Client::new(ClientConfig::from_kubeconfig(&config).with_context(|| {
        format!("reading {}: say how to reach the API server with --kubeconfig", config.display())
    })?)?;
    let cluster = Cluster::load(&client, question.dns_port).await.context("asking the API server")?;
    let explanation = explain(&cluster, &from, &to)?;
    Ok(if json { serde_json::to_string_pretty(&explanation)? + "\n" } else { explanation.to_string() })
}

/// The two ends, however they were written.
fn ends(words: &[String]) -> Result<(End, Target)> {
    let text = words.join(" ");
    let parts: Vec<&str> = text.split_whitespace().filter(|word| *word != "->").collect();
    let [from, to] = parts.as_slice() else {
        bail!("{text:?} is not FROM TO, for example: default/web default/db:5432/tcp");
    };
    Ok((from.parse()?, to.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_have_an_arrow() {
        let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let plain = ends(&words(&["a/x", "b/y:80"])).expect("two words");
        assert_eq!(ends(&words(&["a/x -> b/y:80"])).expect("one word"), plain);
        assert_eq!(ends(&words(&["a/x", "->", "b/y:80"])).expect("three words"), plain);
        assert!(ends(&words(&["a/x"])).is_err());
    }
}
