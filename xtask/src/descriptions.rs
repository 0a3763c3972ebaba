//! The descriptions of the API's messages and fields, taken from the sources of the `k8s-openapi` crate (which has
//! them from Kubernetes' published OpenAPI document, Apache-2.0; see NOTICE) into the table that
//! `skep-machinery` embeds. Run it when the crate's version or the API's changes: `cargo xtask descriptions`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::paths;

/// The API the table describes.
const VERSION: &str = "v1_36";

/// Where the table is.
const TABLE: &str = "control-plane/machinery/src/openapi/descriptions.txt";

/// What every kind says of `apiVersion` and `kind`; the server knows these by heart.
const UNIFORM: [&str; 2] = [
    "APIVersion defines the versioned schema of this representation of an object.",
    "Kind is a string value representing the REST resource this object represents.",
];

/// Descriptions of one message: of itself under the empty name, of its fields.
type Texts = BTreeMap<String, String>;

/// Writes the table anew.
pub(crate) fn generate() -> anyhow::Result<()> {
    let mut messages = BTreeMap::new();
    read_folder(&sources()?, &mut messages)?;
    if messages.len() < 500 {
        bail!("only {} messages were found: the crate's sources look different by now", messages.len());
    }
    let mut table = String::from(
        "# What the messages and fields of the Kubernetes API are for, one line each, in upstream's words.\n\
         # Made by `cargo xtask descriptions` from the k8s-openapi crate. Apache-2.0, see NOTICE.\n",
    );
    for (name, texts) in &messages {
        writeln!(table, "= {name}")?;
        for (field, text) in
            texts.iter().filter(|(_, text)| !UNIFORM.iter().any(|start| text.starts_with(start)))
        {
            writeln!(table, "{field}\t{}", text.replace('\\', "\\\\").replace('\n', "\\n"))?;
        }
    }
    let path = paths::workspace().join(TABLE);
    std::fs::write(&path, &table).with_context(|| format!("{} can't be written", path.display()))?;
    println!("{TABLE}: {} messages, {} KiB", messages.len(), table.len() / 1024);
    Ok(())
}

/// The folder of the API's version in the crate's sources.
fn sources() -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo").args(["metadata", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "k8s-openapi")
        .and_then(|package| package["manifest_path"].as_str())
        .context("cargo knows no crate k8s-openapi")?;
    let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    Ok(folder.join("src").join(VERSION))
}

fn read_folder(folder: &Path, messages: &mut BTreeMap<String, Texts>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, messages)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            if let Some((name, texts)) = read_schema(&text) {
                messages.insert(name, texts);
            }
        }
    }
    Ok(())
}

/// The schema in a source file. The crate is generated: nesting shows in the indentation.
fn read_schema(source: &str) -> Option<(String, Texts)> {
    let (_, rest) = source.split_once("fn schema_name()")?;
    let (_, rest) = rest.split_once('"')?;
    let (name, rest) = rest.split_once('"')?;
    let (_, body) = rest.split_once("json_schema!(")?;
    let mut texts = Texts::new();
    let mut field = String::new();
    for line in body.lines().skip(1) {
        let bare = line.trim_start();
        let depth = line.len() - bare.len();
        match depth {
            8 if bare.starts_with("})") => break,
            12 => {
                if let Some(text) = described(bare) {
                    texts.insert(String::new(), text);
                }
            }
            16 => {
                let quoted = bare.strip_prefix('"').and_then(|rest| rest.split_once('"'));
                if let Some((name, _)) = quoted {
                    name.clone_into(&mut field);
                }
            }
            20 => {
                if let Some(text) = described(bare) {
                    texts.insert(field.clone(), text);
                }
            }
            _ => {}
        }
    }
    Some((name.to_owned(), texts))
}

/// The text of a line that sets a description.
fn described(line: &str) -> Option<String> {
    let inserted = line
        .strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), ")
        .and_then(|rest| rest.strip_suffix(".into());"));
    let literal = inserted
        .or_else(|| line.strip_prefix("\"description\": ").and_then(|rest| rest.strip_suffix(',')))?;
    // The literals are Rust's, and JSON's but for this escape.
    serde_json::from_str(&literal.replace("\\'", "'")).ok()
}
