//! Where a test has its machines: what they say is kept when it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skep_tests::may_skip;

use crate::machine::{Accelerator, Machine, Spec};
use crate::plan::{Kernel, Plan, target};

/// A probe of the processor's own virtualization may take so long; opening its device proves nothing.
const PROBE: Duration = Duration::from_secs(8);

/// One test's place.
pub(crate) struct Lab {
    pub(crate) plan: Plan,
    pub(crate) kernel: Kernel,
    accelerator: Accelerator,
    folder: PathBuf,
}

/// Runs a test on a kernel. Without root, or without what xtask makes ready, it is skipped loudly, or fails where
/// nothing may be skipped.
pub(crate) fn test(series: &str, name: &str, work: impl FnOnce(&Lab) -> Result<()>) {
    let began = Instant::now();
    let lab = match Lab::new(series, name) {
        Ok(lab) => lab,
        Err(missing) => {
            assert!(may_skip(), "{missing:#}");
            eprintln!("SKIPPED: {missing:#}");
            return;
        }
    };
    eprintln!("{} by {:?}", lab.kernel.release, lab.accelerator);
    match work(&lab) {
        Ok(()) => {
            eprintln!("  ok: {name} on {series} ({:.1} s)", began.elapsed().as_secs_f64());
            if let Err(error) = fs::remove_dir_all(&lab.folder) {
                eprintln!("{} stays: {error}", lab.folder.display());
            }
        }
        Err(error) => {
            let text = format!("{name} on {series}: {error:#}\n");
            if let Err(error) = fs::write(lab.folder.join("failure.txt"), &text) {
                eprintln!("the failure is not kept: {error}");
            }
            panic!("{text}consoles and packets are kept in {}", lab.folder.display())
        }
    }
}

impl Lab {
    fn new(series: &str, name: &str) -> Result<Self> {
        if !skep_tests::have_privileges() {
            anyhow::bail!("virtual machines with network interfaces need root");
        }
        let plan = Plan::read()?;
        let kernel = plan.kernel(series)?.clone();
        let runs = target().join("vm/runs");
        let folder = runs.join(format!("{}-{name}", kernel.release));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let accelerator = accelerator(&plan, &kernel, &runs)?;
        Ok(Self { plan, kernel, accelerator, folder })
    }

    /// Where what is worth keeping goes.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a machine; it boots while the caller does something else.
    pub(crate) fn start(&self, spec: &Spec<'_>) -> Result<Machine> {
        let folder = self.folder.join(spec.name);
        Machine::start(&self.plan, &self.kernel, self.accelerator, spec, &folder)
    }
}

/// Boots a machine on the processor's own virtualization once, to see whether that works here.
fn accelerator(plan: &Plan, kernel: &Kernel, runs: &Path) -> Result<Accelerator> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot's id")?;
    let known = runs.join("accelerator");
    if let Ok(text) = fs::read_to_string(&known)
        && let Some(answer) = text.strip_prefix(&boot)
    {
        return Ok(if answer == "kvm" { Accelerator::Kvm } else { Accelerator::Tcg });
    }
    let works = Path::new("/dev/kvm").exists() && {
        let spec = Spec::new("probe");
        let machine = Machine::start(plan, kernel, Accelerator::Kvm, &spec, &runs.join("probe"));
        machine.is_ok_and(|machine| machine.ready_within(PROBE).is_ok())
    };
    fs::write(&known, format!("{boot}{}", if works { "kvm" } else { "tcg" }))?;
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}
