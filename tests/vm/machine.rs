//! One virtual machine: QEMU on the plan's kernel and disks.
//!
//! Invariant: the emulator never outlives its value or the test's process: it dies with the thread that started it,
//! and is killed when the value is dropped. Nothing a machine writes reaches the disks of the plan.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use skep_tests::NetBox;
use skep_vm_guest::{PORT, Request};

use crate::control::{Control, Output};
use crate::plan::{Kernel, Plan};

/// How long a machine may take to come up, on a machine that is busy with others.
const BOOT: Duration = Duration::from_secs(90);

/// What executes a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: everywhere, and ten times slower.
    Tcg,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// One hierarchy of the second version.
    #[default]
    Pure,
    /// The first version's beside it.
    Hybrid,
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) memory_mib: u32,
    pub(crate) cgroups: Cgroups,
    /// Network interfaces: persistent tap devices in `namespace`, eth0 first.
    pub(crate) taps: Vec<String>,
    /// Where the tap devices are.
    pub(crate) namespace: Option<&'a NetBox>,
}

impl<'a> Spec<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self { name, memory_mib: 640, cgroups: Cgroups::Pure, taps: Vec::new(), namespace: None }
    }
}

/// A machine that runs.
pub(crate) struct Machine {
    name: String,
    emulator: Child,
    control: Control,
    folder: PathBuf,
}

impl Machine {
    /// Starts a machine; it boots while the caller does something else. What it says goes into `folder`.
    pub(crate) fn start(
        plan: &Plan,
        kernel: &Kernel,
        accelerator: Accelerator,
        spec: &Spec<'_>,
        folder: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let socket = folder.join("control");
        let mut command = match spec.namespace {
            Some(namespace) => namespace.command("setpriv"),
            None => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        arguments(&mut command, plan, kernel, accelerator, spec, folder);
        let log = fs::File::create(folder.join("emulator.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut emulator = command.spawn().context("starting the emulator")?;
        let control = Control::connect(&socket, Duration::from_secs(20)).inspect_err(|_| {
            // It would go on without us.
            let _ = emulator.kill().and_then(|()| emulator.wait());
        });
        let control = control.with_context(|| said(&folder.join("emulator.log")))?;
        Ok(Self { name: spec.name.to_owned(), emulator, control, folder: folder.to_owned() })
    }

    /// Waits until it is up; its kernel's release.
    pub(crate) fn ready(&self) -> Result<String> {
        self.ready_within(BOOT)
    }

    pub(crate) fn ready_within(&self, limit: Duration) -> Result<String> {
        self.control.ready(limit).with_context(|| format!("machine {}\n{}", self.name, self.last_words()))
    }

    /// The end of what the machine said on its console, and of what the emulator said.
    pub(crate) fn last_words(&self) -> String {
        said(&self.folder.join("console.log")) + &said(&self.folder.join("emulator.log"))
    }

    /// Runs a program in the machine to its end, whatever its status.
    pub(crate) fn output(&self, request: Request) -> Result<Output> {
        self.control.run(request).with_context(|| format!("machine {}", self.name))
    }

    /// Runs a program that must succeed; its standard output.
    pub(crate) fn run(&self, argv: &[&str], seconds: u64) -> Result<String> {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let shown = argv.join(" ");
        let output = self.output(Request { argv, seconds, ..Request::default() })?;
        if output.status != 0 {
            bail!("machine {}: {shown}: status {}\n{}{}", self.name, output.status, output.out, output.err);
        }
        Ok(output.out)
    }

    /// Runs a line of shell that must succeed.
    pub(crate) fn sh(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-ec", line], 60)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An emulator that ended by itself: why is worth keeping.
        if let Ok(Some(status)) = self.emulator.try_wait() {
            let kept = fs::write(self.folder.join("emulator.status"), format!("{status}\n"));
            eprintln!("machine {} had ended: {status} (kept: {})", self.name, kept.is_ok());
            return;
        }
        if let Err(error) = self.emulator.kill().and_then(|()| self.emulator.wait()) {
            eprintln!("machine {} does not stop: {error}", self.name);
        }
    }
}

/// The last lines of a log.
fn said(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n") + "\n"
}

fn arguments(
    command: &mut Command,
    plan: &Plan,
    kernel: &Kernel,
    accelerator: Accelerator,
    spec: &Spec<'_>,
    folder: &Path,
) {
    match accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        // Five levels of page tables would only be more work.
        Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]),
    };
    command.args(["-machine", "q35", "-smp", "1", "-m", &spec.memory_mib.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", folder.join("console.log").display()));
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
    command.arg("-append").arg(kernel_options(plan, spec));
    for (number, (disk, mode)) in
        [(&plan.base, "snapshot=on"), (&kernel.modules, "readonly=on"), (&plan.payload, "snapshot=on")]
            .into_iter()
            .enumerate()
    {
        command
            .arg("-drive")
            .arg(format!("file={},format=raw,if=none,id=disk{number},{mode}", disk.display()))
            .args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
    }
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    command
        .arg("-chardev")
        .arg(format!("socket,id=control,path={},server=on,wait=off", folder.join("control").display()))
        .args(["-device", &format!("virtserialport,chardev=control,name={PORT}")]);
    for (number, tap) in spec.taps.iter().enumerate() {
        command
            .args(["-netdev", &format!("tap,id=net{number},ifname={tap},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-pci,netdev=net{number},mac={}", hardware_address(tap))])
            .arg("-object")
            .arg(format!(
                "filter-dump,id=dump{number},netdev=net{number},file={}",
                folder.join(format!("eth{number}.pcap")).display()
            ));
    }
}

fn kernel_options(plan: &Plan, spec: &Spec<'_>) -> String {
    let binds: Vec<String> = plan.binds.iter().map(|path| path.display().to_string()).collect();
    let cgroups = if spec.cgroups == Cgroups::Hybrid { "hybrid" } else { "pure" };
    // Defences against other machines on the processor cost most where every instruction is translated.
    format!(
        "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check nokaslr mitigations=off random.trust_cpu=1 \
         skep.name={} skep.cgroups={cgroups} skep.binds={}",
        spec.name,
        binds.join(",")
    )
}

/// An address of the locally administered range, the same for the same device.
fn hardware_address(tap: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    tap.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
