//! Looking whether what a scenario says is so.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use skep_ebpf_loader::{inspect::Inspector, tables::Tables};

use crate::{
    probe::Manner,
    script::{Check, Dial},
    world::{PATIENCE, World, output_of, parse_target},
};

impl World {
    /// Changes take their time: what does not hold yet is looked at again.
    pub(crate) fn check(&mut self, check: &Check) -> Result<()> {
        let patience = match check {
            Check::Dial { patience, .. } => patience.map_or(PATIENCE, Duration::from_millis),
            _ => PATIENCE,
        };
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = self.look(check) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn look(&mut self, check: &Check) -> Result<()> {
        match check {
            Check::Dial { from, to, answers, sees, sticky, count, gap, size, .. } => {
                for from in from {
                    let dial = Dial { from: from.clone(), to: to.clone() };
                    let single = answers.len() == 1;
                    let count = count.unwrap_or(if *sticky || single { 5 } else { 24 });
                    let manner = Manner { count, gap: *gap, patience: 500, size: size.unwrap_or(1) };
                    self.look_at_dial(&dial, answers, sees.as_deref(), *sticky, manner)
                        .with_context(|| format!("{from} to {to}"))?;
                }
                Ok(())
            }
            Check::Flow { flow, answers } => {
                let answer = self.flows.get_mut(flow).context("no such flow")?.ask()?;
                let name = answer.split(' ').next().unwrap_or_default();
                ensure!(
                    answers.iter().any(|wanted| wanted == name),
                    "flow {flow}: {answer}, not {answers:?}"
                );
                Ok(())
            }
            Check::Flows { flows, answers } => flows.iter().try_for_each(|flow| {
                self.look(&Check::Flow { flow: flow.clone(), answers: answers.clone() })
            }),
            Check::Get { get, status, body } => {
                let (address, path) = get.split_once('/').context("ADDRESS/PATH")?;
                let address = address.parse()?;
                let reply = self.node.get(address, &format!("/{path}"), Duration::from_secs(2))?;
                ensure!(reply.status == *status, "GET {get}: {} {}", reply.status, reply.text());
                if let Some(body) = body {
                    ensure!(reply.text().contains(body), "GET {get}: no {body:?} in {}", reply.text());
                }
                Ok(())
            }
            Check::Left { left } => left.iter().try_for_each(|mode| self.nothing_of(mode)),
        }
    }

    /// That the kernel holds nothing of a mode.
    fn nothing_of(&self, mode: &str) -> Result<()> {
        match mode {
            "nftables" => {
                let rules = output_of(self.node.command("nft").args(["list", "tables"]));
                ensure!(!rules.contains("skep-proxy"), "tables are left:\n{rules}");
            }
            "iptables" => {
                let rules = output_of(&mut self.node.command("iptables-save"));
                ensure!(!rules.contains("SKEP-"), "chains are left:\n{rules}");
            }
            "ebpf" => {
                let tables = Inspector::new(&self.pins).tables()?;
                ensure!(tables == Tables::default(), "tables are left:\n{tables}");
                let links = Inspector::new(&self.pins).links()?;
                let socket = links.iter().find(|link| link.name.contains("connect"));
                ensure!(socket.is_none(), "a socket program is left: {socket:?}");
            }
            _ => bail!("no mode {mode}"),
        }
        Ok(())
    }

    fn look_at_dial(
        &self,
        dial: &Dial,
        answers: &[String],
        sees: Option<&str>,
        sticky: bool,
        mut manner: Manner,
    ) -> Result<()> {
        let (protocol, target) = parse_target(&dial.to)?;
        // An ICMP error that comes while a connect is still at work counts for its second try only, a second later.
        // Waiting for nothing is slow, and the kernel sends few ICMP errors a second: once is enough.
        if matches!(answers, [word] if word == "refused" || word == "dropped") {
            manner = Manner { count: 1, patience: 1500, ..manner };
        }
        let lines = self.spot(&dial.from)?.dial(protocol, target, manner)?;
        let named: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        let wanted: BTreeSet<&str> = answers.iter().map(String::as_str).collect();
        if sticky {
            ensure!(named.len() == 1 && named.is_subset(&wanted), "{named:?} is not one of {wanted:?}");
        } else {
            ensure!(named == wanted, "{named:?}, not {wanted:?}");
        }
        if let Some(sees) = sees {
            let name = if sees == "self" { dial.from.as_str() } else { sees };
            let expected = self.address(name, target.starts_with('['))?.to_string();
            let seen: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
            ensure!(seen == [expected.as_str()].into(), "endpoints see {seen:?}, not {expected}");
        }
        Ok(())
    }
}
