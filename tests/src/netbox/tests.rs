//! Boxes on the real kernel.

use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    Segment,
    cgroup::hierarchies,
    load::{self, Mode, Plan},
    succeed,
};

#[test]
fn a_command_runs_in_the_namespace_and_in_every_cgroup_and_all_goes_with_the_box() -> Result<()> {
    if !crate::require("a_command_runs_in_the_namespace_and_in_every_cgroup_and_all_goes_with_the_box") {
        return Ok(());
    }
    let made = NetBox::with_cgroup("a box")?;
    let (name, path) = (made.name().to_owned(), made.netns_path());
    let cgroups = succeed(made.command("cat").arg("/proc/self/cgroup"))?;
    let inside = cgroups.lines().filter(|line| line.ends_with(&format!("/{name}"))).count();
    assert_eq!(inside, hierarchies()?.len(), "{cgroups}");
    let links = succeed(made.command("ip").args(["-br", "link"]))?;
    assert_eq!(links.lines().count(), 1, "only loopback: {links}");
    // A process that would stay.
    let mut stays = made.command("sleep").arg("1000").spawn()?;
    let folders: Vec<_> = hierarchies()?.iter().map(|hierarchy| hierarchy.root.join(&name)).collect();
    assert!(folders.iter().all(|folder| folder.is_dir()));
    let dir = made.dir()?;
    succeed(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&dir))?;
    drop(made);
    assert!(!path.exists() && !dir.exists());
    assert!(!folders.iter().any(|folder| folder.exists()), "a cgroup is left");
    assert!(!stays.wait()?.success(), "it was killed");
    Ok(())
}

#[test]
fn boxes_on_a_segment_reach_each_other_in_both_families() -> Result<()> {
    if !crate::require("boxes_on_a_segment_reach_each_other_in_both_families") {
        return Ok(());
    }
    let segment = Segment::new("segment")?;
    let (a, b) = (NetBox::new("a")?, NetBox::new("b")?);
    for (netbox, n) in [(&a, 1), (&b, 2)] {
        segment.plug(netbox, &[format!("10.9.0.{n}/24").parse()?, format!("fd09::{n}/64").parse()?])?;
    }
    for address in ["10.9.0.2:0", "[fd09::2]:0"] {
        let address: SocketAddr = address.parse()?;
        let server = b.run(|| load::serve(address))??;
        let plan = Plan {
            mode: Mode::TcpRr,
            target: server.address(),
            connections: 1,
            time: Duration::from_millis(50),
        };
        let report = a.run(|| load::run(&plan))??;
        assert!(report.transactions > 0 && report.errors == 0, "{report:?}");
    }
    Ok(())
}

#[test]
fn what_a_dead_run_left_is_reaped() -> Result<()> {
    if !crate::require("what_a_dead_run_left_is_reaped") {
        return Ok(());
    }
    // No process has this number: the kernel's limit is 2^22.
    let name = format!("skt-9{:07}-0-left", std::process::id());
    ip(&format!("netns add {name}"))?;
    let root = hierarchies()?.remove(0).root;
    std::fs::create_dir(root.join(&name))?;
    assert!(crate::reap()?.contains(&name));
    assert!(!Path::new(NETNS_DIR).join(&name).exists() && !root.join(&name).exists());
    Ok(())
}
