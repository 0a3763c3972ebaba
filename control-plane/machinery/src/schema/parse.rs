//! Reads the table. The format is described at its head; a bad line is an error with its number.

use super::{Field, ListType, Message, MessageId, Package, PatchStrategy, Schema, Type};
use std::collections::HashMap;

/// What is wrong with the table.
#[derive(Debug, thiserror::Error)]
#[error("schema table, line {line}: {what}")]
pub(super) struct TableError {
    line: usize,
    what: String,
}

type Names = HashMap<(&'static str, &'static str), MessageId>;

pub(super) fn parse(text: &'static str) -> Result<Schema, TableError> {
    let (names, packages) = names(text)?;
    let mut messages: Vec<Message> = Vec::with_capacity(names.len());
    let mut package = 0;
    for (line, content) in lines(text) {
        let fail = |what: String| TableError { line, what };
        if content.starts_with("= ") {
            package += 1;
        } else if let Some(field) = content.strip_prefix(' ') {
            let message = messages.last_mut().ok_or_else(|| fail("a field before any message".into()))?;
            message.fields.push(self::field(field, message.package.alias, &names).map_err(fail)?);
        } else {
            let mut words = content.split(' ');
            let name = words.next().unwrap_or_default();
            let (mut is_kind, mut atomic) = (false, false);
            for word in words {
                match word {
                    "kind" => is_kind = true,
                    "atomic" => atomic = true,
                    other => return Err(fail(format!("unknown message flag {other}"))),
                }
            }
            messages.push(Message {
                name,
                package: packages[package - 1],
                fields: Vec::new(),
                is_kind,
                atomic,
                flat: Vec::new(),
            });
        }
    }
    for message in &mut messages {
        message.fields.sort_by_key(|field| field.number);
    }
    let flats: Vec<_> = (0..messages.len()).map(|at| flatten(&messages, id(at), 0)).collect();
    for (message, mut flat) in messages.iter_mut().zip(flats) {
        flat.sort_unstable_by_key(|(name, ..)| *name);
        message.flat = flat;
    }
    let by_kind = messages
        .iter()
        .enumerate()
        .filter(|(_, message)| message.is_kind || message.name == "WatchEvent")
        .map(|(at, message)| ((message.package.group, message.package.version, message.name), id(at)))
        .collect();
    let by_name = messages.iter().enumerate().map(|(at, message)| (message.openapi_name(), id(at))).collect();
    Ok(Schema { messages, by_kind, by_name })
}

fn id(at: usize) -> MessageId {
    MessageId(u32::try_from(at).unwrap_or(u32::MAX))
}

fn lines(text: &'static str) -> impl Iterator<Item = (usize, &'static str)> {
    text.lines()
        .enumerate()
        .map(|(at, content)| (at + 1, content))
        .filter(|(_, content)| !content.is_empty() && !content.starts_with('#'))
}

/// First pass: where every message will be, so that fields can refer forward. Packages live as long as the table.
fn names(text: &'static str) -> Result<(Names, Vec<&'static Package>), TableError> {
    let mut names = Names::new();
    let mut packages: Vec<&'static Package> = Vec::new();
    for (line, content) in lines(text) {
        let fail = |what: &str| TableError { line, what: what.to_owned() };
        if let Some(head) = content.strip_prefix("= ") {
            let mut words = head.split(' ');
            let mut word = || words.next().ok_or_else(|| fail("a package has four words"));
            let (alias, group, version, openapi) = (word()?, word()?, word()?, word()?);
            let group = if group == "-" { "" } else { group };
            packages.push(Box::leak(Box::new(Package { alias, group, version, openapi })));
        } else if !content.starts_with(' ') {
            let package = packages.last().ok_or_else(|| fail("a message before any package"))?;
            let name = content.split(' ').next().unwrap_or_default();
            let next = id(names.len());
            if names.insert((package.alias, name), next).is_some() {
                return Err(fail("a message twice"));
            }
        }
    }
    Ok((names, packages))
}

fn field(text: &'static str, alias: &'static str, names: &Names) -> Result<Field, String> {
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or("a field has a name, a number and a type");
    let (json, number, ty) = (word()?, word()?, word()?);
    let mut field = Field {
        json,
        number: number.parse().map_err(|_| format!("bad number {number}"))?,
        ty: self::ty(ty, alias, names)?,
        pointer: false,
        omit_empty: false,
        required: false,
        inline: false,
        patch: PatchStrategy::default(),
        list: ListType::default(),
        list_declared: true,
        atomic: false,
        default: None,
        values: Vec::new(),
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ptr", _) => field.pointer = true,
            ("omit" | "omitzero", _) => field.omit_empty = true,
            ("req", _) => field.required = true,
            ("inline", _) => field.inline = true,
            ("atomic", _) => field.atomic = true,
            ("untyped", _) => field.list_declared = false,
            ("set", _) => field.list = ListType::Set,
            ("map", keys) => field.list = ListType::Map(keys.split('+').collect()),
            ("key", key) => field.patch.merge_key = Some(key),
            ("default", value) => field.default = Some(value),
            ("enum", values) => {
                field.values = values.split('|').map(|value| value.replace('~', " ")).collect();
            }
            ("patch", strategies) => {
                for strategy in strategies.split('+') {
                    match strategy {
                        "merge" => field.patch.merge = true,
                        "replace" => field.patch.replace = true,
                        "retainKeys" => field.patch.retain_keys = true,
                        other => return Err(format!("unknown patch strategy {other}")),
                    }
                }
            }
            (other, _) => return Err(format!("unknown flag {other}")),
        }
    }
    Ok(field)
}

fn ty(text: &'static str, alias: &'static str, names: &Names) -> Result<Type, String> {
    if let Some(inner) = text.strip_prefix("[]") {
        return Ok(Type::List(Box::new(ty(inner, alias, names)?)));
    }
    if let Some(inner) = text.strip_prefix("{}") {
        return Ok(Type::Map(Box::new(ty(inner, alias, names)?)));
    }
    Ok(match text {
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "intstr" => Type::IntOrString,
        "raw" => Type::Raw,
        "fields" => Type::Fields,
        "json" => Type::Json,
        "items" => Type::Items,
        "props-or-array" => Type::PropsOrArray,
        "props-or-bool" => Type::PropsOrBool,
        "props-or-strings" => Type::PropsOrStrings,
        name => {
            let (alias, name) = name.rsplit_once('.').unwrap_or((alias, name));
            Type::Message(*names.get(&(alias, name)).ok_or_else(|| format!("unknown type {text}"))?)
        }
    })
}

fn flatten(messages: &[Message], at: MessageId, depth: usize) -> Vec<(&'static str, MessageId, usize)> {
    let mut flat = Vec::new();
    for (index, field) in messages[at.0 as usize].fields.iter().enumerate() {
        match &field.ty {
            Type::Message(inner) if field.inline && depth < 4 => {
                flat.extend(flatten(messages, *inner, depth + 1));
            }
            _ => flat.push((field.json, at, index)),
        }
    }
    flat
}
