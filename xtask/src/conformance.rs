//! Which test holds which behaviour: of Kubernetes' conformance list, and of kube-proxy.
//!
//! `tests/conformance/checklist.txt` and `tests/scenarios/checklist.txt` name the behaviours. A test claims those it
//! holds in its doc comment, by a line `/// Holds AM-33, AM-34.`, a scenario or a file of pods by its list `holds`; the
//! tables in the `README.md` beside the lists are made from these lines, and `cargo xtask tidy` fails when one is not
//! current or a claim names no behaviour.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cmd::step;
use crate::{paths, tidy};

/// A line of the checklist.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Group(&'a str),
    Part(&'a str),
    Behaviour { id: &'a str, release: &'a str, what: &'a str },
}

fn parse(line: &str) -> Option<Line<'_>> {
    if let Some(part) = line.strip_prefix("### ") {
        return Some(Line::Part(part));
    }
    if let Some(group) = line.strip_prefix("## ") {
        return Some(Line::Group(group.split(" (").next().unwrap_or(group)));
    }
    let (id, rest) = line.split_once(" (")?;
    let (release, what) = rest.split_once(") ")?;
    Some(Line::Behaviour { id, release: release.split(';').next().unwrap_or(release), what })
}

/// The claims in one source file: ids with the name of the function that follows.
fn claims(text: &str) -> Vec<(String, String)> {
    let (mut found, mut open) = (Vec::new(), Vec::<String>::new());
    for line in text.lines().map(str::trim) {
        let ids = line.strip_prefix("/// Holds ").and_then(|rest| rest.strip_suffix('.'));
        if let Some(ids) = ids.filter(|ids| is_id(ids.split(", ").next().unwrap_or_default())) {
            open.extend(ids.split(", ").map(str::to_owned));
        } else if let Some((_, rest)) = line.split_once("fn ")
            && !line.starts_with("//")
        {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.extend(open.drain(..).map(|id| (id, name.clone())));
        }
    }
    found
}

/// Two capitals, a dash, a number; anything else after "Holds" is prose.
fn is_id(word: &str) -> bool {
    let number = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
    word.len() - number.len() == 2 && number.strip_prefix('-').is_some_and(|n| n.parse::<u16>().is_ok())
}

/// The claims of a scenario or a file of pods: its list `holds`, on one line.
fn scenario_claims(text: &str) -> Vec<String> {
    let lists =
        text.lines().filter_map(|line| line.strip_prefix("holds: [")?.split_once(']').map(|(list, _)| list));
    lists.flat_map(|list| list.split(", ")).map(str::to_owned).collect()
}

/// A list of behaviours, and what is written above the table of who holds them.
struct List {
    folder: &'static str,
    /// What its ids begin with, if that tells them from those of the other list.
    prefix: Option<&'static str>,
    intro: &'static str,
    source: &'static str,
}

const LISTS: [List; 2] = [
    List {
        folder: "tests/conformance",
        prefix: None,
        intro: "# Conformance\n\nThe behaviours of Kubernetes' conformance list (v1.36), in our words, and the tests \
                here that hold them.\nMade by `cargo xtask conformance` from the `Holds` lines of the tests; do not \
                edit. A behaviour without a test\nmay work; nothing shows it. Our tests are not the upstream suite, \
                which was not run.\n\n",
        source: "since",
    },
    List {
        folder: "tests/scenarios",
        prefix: Some("KP-"),
        intro: "# What kube-proxy does\n\nIts behaviours, in our words, and the scenarios that hold them: each \
                scenario runs against every back end (eBPF,\nnftables, iptables) unless it names those it is for. \
                Made by `cargo xtask conformance` from the lists `holds` of the\nscenarios; do not edit. The letters \
                say where it is written: P in its source, D in the documentation, C in its\nconfiguration.\n\n",
        source: "source",
    },
];

/// Who holds what, by id.
fn holders() -> Result<BTreeMap<String, Vec<String>>> {
    let root = paths::workspace();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in tidy::tracked("*.rs")? {
        let place = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        for (id, name) in claims(&fs::read_to_string(&file)?) {
            found.entry(id).or_default().push(format!("[{name}](../../{place})"));
        }
    }
    for folder in ["tests/scenarios", "tests/pods"] {
        for file in tidy::tracked(&format!("{folder}/*.yaml"))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for id in scenario_claims(&fs::read_to_string(&file)?) {
                found.entry(id).or_default().push(format!("[{name}](../../{folder}/{name})"));
            }
        }
    }
    Ok(found)
}

impl List {
    /// The table as it should be.
    fn table(&self, mut holders: BTreeMap<String, Vec<String>>) -> Result<String> {
        let prefixes: Vec<&str> = LISTS.iter().filter_map(|list| list.prefix).collect();
        holders.retain(|id, _| match self.prefix {
            Some(prefix) => id.starts_with(prefix),
            None => !prefixes.iter().any(|prefix| id.starts_with(prefix)),
        });
        let file = format!("{}/checklist.txt", self.folder);
        let list = fs::read_to_string(paths::workspace().join(&file))?;
        render(self, &list, holders).with_context(|| file)
    }

    fn target(&self) -> PathBuf {
        paths::workspace().join(self.folder).join("README.md")
    }
}

fn render(list: &List, text: &str, mut tests: BTreeMap<String, Vec<String>>) -> Result<String> {
    let (mut body, mut summary) = (String::new(), Vec::<(&str, usize, usize)>::new());
    for line in text.lines() {
        match parse(line) {
            Some(Line::Group(name)) => {
                summary.push((name, 0, 0));
                let source = list.source;
                write!(body, "\n## {name}\n\n| id | {source} | behaviour | held by |\n|---|---|---|---|\n")?;
            }
            Some(Line::Part(name)) => writeln!(body, "| | | **{name}** | |")?,
            Some(Line::Behaviour { id, release, what }) => {
                let holders = tests.remove(id).unwrap_or_default();
                if let Some((_, all, held)) = summary.last_mut() {
                    *all += 1;
                    *held += usize::from(!holders.is_empty());
                }
                let what = what.replace('|', "\\|");
                writeln!(body, "| {id} | {release} | {what} | {} |", holders.join(", "))?;
            }
            None if line.trim().is_empty() => {}
            None => bail!("not understood: {line}"),
        }
    }
    if let Some((id, holders)) = tests.into_iter().next() {
        bail!("{} claims {id}, which the checklist does not have", holders.join(", "));
    }
    let mut table = list.intro.to_owned();
    table.push_str("| group | behaviours | held by a test |\n|---|--:|--:|\n");
    for (name, all, held) in &summary {
        writeln!(table, "| {name} | {all} | {held} |")?;
    }
    let sum = |of: fn(&(&str, usize, usize)) -> usize| summary.iter().map(of).sum::<usize>();
    writeln!(table, "| **all** | {} | {} |", sum(|row| row.1), sum(|row| row.2))?;
    table.push_str(&body);
    Ok(table)
}

/// Writes the tables.
pub(crate) fn write() -> Result<()> {
    let holders = holders()?;
    for list in &LISTS {
        fs::write(list.target(), list.table(holders.clone())?)?;
        step(&format!("wrote {}/README.md", list.folder));
    }
    Ok(())
}

/// Problems for `tidy`.
pub(crate) fn check() -> Vec<String> {
    let holders = match holders() {
        Ok(holders) => holders,
        Err(error) => return vec![format!("{error:#}")],
    };
    let problem = |list: &List| match list.table(holders.clone()) {
        Ok(text) if fs::read_to_string(list.target()).is_ok_and(|current| current == text) => None,
        Ok(_) => Some(format!("{}/README.md is not current: run cargo xtask conformance", list.folder)),
        Err(error) => Some(format!("{error:#}")),
    };
    LISTS.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_checklist() {
        assert_eq!(parse("## sig-auth (10)"), Some(Line::Group("sig-auth")));
        assert_eq!(parse("### Pods"), Some(Line::Part("Pods")));
        let behaviour = Line::Behaviour { id: "AM-01", release: "v1.29", what: "It (really) works." };
        assert_eq!(parse("AM-01 (v1.29; S) It (really) works."), Some(behaviour));
        assert_eq!(parse("prose"), None);
    }

    #[test]
    fn a_claim_belongs_to_the_function_that_follows() {
        let source =
            "/// Does it.\n/// Holds AM-01, AM-02.\n#[tokio::test]\nasync fn does_it() {\n}\nfn other() {}";
        let expected = [("AM-01", "does_it"), ("AM-02", "does_it")];
        assert_eq!(claims(source), expected.map(|(id, name)| (id.to_owned(), name.to_owned())));
    }

    #[test]
    fn a_scenario_claims_by_its_list() {
        let text = "about: It works.\nholds: [KP-01, NE-46]\nsteps: []\n";
        assert_eq!(scenario_claims(text), ["KP-01", "NE-46"]);
    }

    #[test]
    fn an_unknown_id_is_refused() {
        let claim = || BTreeMap::from([("XX-1".to_owned(), vec!["test".to_owned()])]);
        let error = render(&LISTS[0], "## sig-auth (1)\nAU-01 (v1) It works.", claim()).expect_err("unknown");
        assert!(error.to_string().contains("XX-1"), "{error}");
        let table = render(&LISTS[0], "## sig-x (1)\nXX-1 (v1) It works.", claim()).expect("known");
        assert!(table.contains("| XX-1 | v1 | It works. | test |"), "{table}");
        assert!(table.contains("| sig-x | 1 | 1 |"), "{table}");
    }
}
