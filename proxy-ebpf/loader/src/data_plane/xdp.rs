//! The XDP program on uplinks: in the device's driver, or in the kernel before its stack, or not at all.
//!
//! The name of a pinned link tells the way: `xdp-native-<ifindex>`, `xdp-generic-<ifindex>`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{MutexGuard, PoisonError};

use super::DataPlane;
use crate::error::{Error, Result};
use crate::links::{self, TUNNEL_HOOKS};
use crate::programs::XDP;
use crate::sys;

/// The kernel's number of the hook.
const ATTACH_TYPE: u32 = 37;

/// How the XDP program is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpChoice {
    /// Not at all.
    #[default]
    Off,
    /// In the kernel, with any device. It costs more than it saves, and is for tests.
    Generic,
    /// In the device's driver.
    Native,
    /// The best that works.
    Auto,
}

/// How the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the device's driver.
    Native,
    /// In the kernel, for a device whose driver cannot.
    Generic,
}

impl XdpMode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    fn flags(self) -> u32 {
        match self {
            Self::Native => 4,
            Self::Generic => 2,
        }
    }
}

impl XdpChoice {
    fn tries(self) -> &'static [XdpMode] {
        match self {
            Self::Off => &[],
            Self::Generic => &[XdpMode::Generic],
            Self::Native => &[XdpMode::Native],
            Self::Auto => &XdpMode::ALL,
        }
    }
}

impl FromStr for XdpChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Ok(match text {
            "off" => Self::Off,
            "generic" => Self::Generic,
            "native" => Self::Native,
            "auto" => Self::Auto,
            _ => return Err(format!("{text:?} is none of off, generic, native, auto")),
        })
    }
}

impl fmt::Display for XdpChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Generic => "generic",
            Self::Native => "native",
            Self::Auto => "auto",
        })
    }
}

/// How the program runs at an interface, and why not in a better way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct XdpState {
    /// None: not at all.
    pub mode: Option<XdpMode>,
    /// What was tried in vain.
    pub refused: Vec<String>,
}

impl DataPlane {
    /// Runs the XDP program at an uplink as it was chosen at the start. What has been found out about an interface once
    /// is not tried again.
    pub(super) fn follow_xdp(&self, ifindex: u32) -> Result<()> {
        let choice = if self.serves_sockets() { self.xdp } else { XdpChoice::Off };
        let choice = match self.states().get(&ifindex) {
            Some(XdpState { mode: Some(XdpMode::Generic), .. }) if choice != XdpChoice::Off => {
                XdpChoice::Generic
            }
            Some(XdpState { mode: None, .. }) => return Ok(()),
            _ => choice,
        };
        let mut state = self.attach_xdp(ifindex, choice)?;
        let mut states = self.states();
        if let Some(known) = states.get(&ifindex) {
            state.refused.splice(..0, known.refused.clone());
            state.refused.dedup();
        }
        states.insert(ifindex, state);
        Ok(())
    }

    /// Undoes [`follow_xdp`](Self::follow_xdp).
    pub(super) fn forget_xdp(&self, ifindex: u32) -> Result<()> {
        self.states().remove(&ifindex);
        self.attach_xdp(ifindex, XdpChoice::Off).map(|_| ())
    }

    /// Where XDP does not run as it was chosen, and why.
    pub fn xdp_complaints(&self) -> Vec<String> {
        let states = self.states();
        let refused = states.iter().filter(|(_, state)| !state.refused.is_empty());
        let text = |(ifindex, state): (&u32, &XdpState)| {
            let (mode, why) = (state.mode.map_or("off", XdpMode::name), state.refused.join("; "));
            format!("XDP is {mode} at interface {ifindex} where {} was asked for: {why}", self.xdp)
        };
        refused.map(text).collect()
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<u32, XdpState>> {
        self.xdp_states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the XDP program at an uplink as it was chosen, or as near to that as the kernel and the device let it; what
    /// ran there otherwise runs no more. Again is success. The tunnel's device has no such program: what comes out of
    /// it goes by other rules.
    ///
    /// # Errors
    /// When what ran there cannot be detached.
    pub fn attach_xdp(&self, ifindex: u32, choice: XdpChoice) -> Result<XdpState> {
        let mut state = XdpState::default();
        let is_tunnel = || self.pins.links().join(format!("{}-{ifindex}", TUNNEL_HOOKS[0].pin)).exists();
        if choice != XdpChoice::Off && !is_tunnel() {
            let programs = self.programs();
            for mode in choice.tries() {
                if let Some(why) = programs.without_xdp() {
                    state.refused.push(why.to_owned());
                    break;
                }
                // An interface has one such program at a time.
                for other in XdpMode::ALL.iter().filter(|other| *other != mode) {
                    self.detach_xdp(ifindex, *other)?;
                }
                let target = |info: &sys::LinkInfo| info.ifindex() == ifindex;
                let program = programs.fd(XDP)?;
                let pin = self.xdp_pin(ifindex, *mode);
                match links::adopt_or_create(&pin, program, target, ifindex, (ATTACH_TYPE, mode.flags())) {
                    Ok(()) => {
                        state.mode = Some(*mode);
                        break;
                    }
                    Err(error) => state.refused.push(format!("{}: {error}", mode.name())),
                }
            }
        }
        for mode in XdpMode::ALL.into_iter().filter(|mode| state.mode != Some(*mode)) {
            self.detach_xdp(ifindex, mode)?;
        }
        Ok(state)
    }

    /// Detaches the XDP program from every interface.
    pub(super) fn detach_every_xdp(&self) -> Result<()> {
        let names = self.pins.link_names()?;
        let ours =
            names.iter().filter_map(|name| name.strip_prefix("xdp-")?.rsplit_once('-')?.1.parse().ok());
        for (ifindex, mode) in ours.flat_map(|ifindex| XdpMode::ALL.map(|mode| (ifindex, mode))) {
            self.detach_xdp(ifindex, mode)?;
        }
        Ok(())
    }

    fn xdp_pin(&self, ifindex: u32, mode: XdpMode) -> PathBuf {
        self.pins.links().join(format!("xdp-{}-{ifindex}", mode.name()))
    }

    fn detach_xdp(&self, ifindex: u32, mode: XdpMode) -> Result<()> {
        let pin = self.xdp_pin(ifindex, mode);
        let action = || format!("detaching {XDP} from interface {ifindex}");
        let detached = match sys::open_pinned(&pin) {
            Ok(link) => sys::link_detach(link.as_fd()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = detached {
            // The interface is gone, most often; without its pin the link is too.
            tracing::debug!(%error, "{}", action());
        }
        fs::remove_file(&pin).map_err(Error::on(action()))
    }
}
