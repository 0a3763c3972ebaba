//! The back ends behind one face, and the change from one to another.
//!
//! A back end takes tables of services and brings them into the kernel; what it could not do is an error, and the
//! same call is made again. When a node starts in another mode than it ran in before, the new mode is brought in whole
//! first and the old one removed then, so that there is always one that serves.

mod ebpf;
mod iptables;
mod nftables;
mod room;
mod rules;
mod switch;
mod uplinks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_ebpf_loader::XdpChoice;

use crate::desired::ServiceTables;
use crate::error::{Error, Result};
use crate::mode::ProxyMode;
use crate::names::ServiceName;
use crate::rules::Ground;
use crate::run::ProxyConfig;
use ebpf::Ebpf;
use iptables::Iptables;
use nftables::Nftables;
pub(crate) use room::Need;
use rules::Engine;
pub(crate) use switch::settle;
pub use switch::{purge_rules, recorded_mode};

/// Who brings tables into the kernel.
pub(crate) enum Backend {
    Ebpf(Box<Ebpf>),
    Nftables(Box<Engine<Nftables>>),
    Iptables(Box<Engine<Iptables>>),
}

/// What came of bringing services in.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// Services that can have an address now which another one let go: to be brought in next.
    pub(crate) again: BTreeSet<ServiceName>,
    /// Who was refused an address because another service has it.
    pub(crate) contested: Vec<(ServiceName, String)>,
    /// Whose backends are chosen by chance, as there is no room for another table of hashes.
    pub(crate) without_table: BTreeSet<ServiceName>,
    /// Services for which there is no room. They are as they were; the others are in.
    pub(crate) refused: Vec<(ServiceName, Error)>,
}

impl Backend {
    pub(crate) async fn new(config: &ProxyConfig) -> Result<Self> {
        let metrics = config.metrics.clone();
        if config.mode.is_rules() && (config.options.maglev || config.options.xdp != XdpChoice::Off) {
            tracing::warn!(mode = %config.mode, "Maglev and XDP are left out: rules know neither");
        }
        Ok(match (config.mode, &config.data_plane) {
            (mode @ ProxyMode::Ebpf, _) if config.options.masquerade_all => {
                let why = "a socket that dials an endpoint itself keeps its address: masquerade all by rules";
                return Err(Error::Mode { mode, why: why.to_owned() });
            }
            (ProxyMode::Ebpf, Some(plane)) => Self::Ebpf(Box::new(Ebpf::new(plane.clone(), config)?)),
            (mode @ ProxyMode::Ebpf, None) => {
                return Err(Error::Mode { mode, why: "the eBPF programs are not loaded".to_owned() });
            }
            (ProxyMode::Nftables, _) => Self::Nftables(Box::new(Engine::new(Nftables::new().await, metrics))),
            (ProxyMode::Iptables, _) => Self::Iptables(Box::new(Engine::new(Iptables::new().await, metrics))),
        })
    }

    /// The services that are known.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        match self {
            Self::Ebpf(ebpf) => ebpf.services().cloned().collect(),
            Self::Nftables(engine) => engine.services().cloned().collect(),
            Self::Iptables(engine) => engine.services().cloned().collect(),
        }
    }

    /// How many services there are.
    pub(crate) fn service_count(&self) -> usize {
        match self {
            Self::Ebpf(ebpf) => ebpf.services().len(),
            Self::Nftables(engine) => engine.services().len(),
            Self::Iptables(engine) => engine.services().len(),
        }
    }

    /// How many backends there are. Rules share none, so they must be counted.
    pub(crate) fn backends(&self) -> usize {
        match self {
            Self::Ebpf(ebpf) => ebpf.backends(),
            Self::Nftables(engine) => engine.backends(),
            Self::Iptables(engine) => engine.backends(),
        }
    }

    /// How many endpoints to bring in at once. A script of rules is best written whole; maps are filled bit by bit, so
    /// that the first services need not wait for the last and no plan is larger than need be.
    pub(crate) fn endpoints_at_once(&self) -> usize {
        if matches!(self, Self::Ebpf(_)) { 32_768 } else { usize::MAX }
    }

    /// Is told how much is about to be brought in.
    pub(crate) async fn expect(&mut self, need: impl FnOnce() -> Need) -> Result<()> {
        match self {
            Self::Ebpf(ebpf) => ebpf.expect(need()).await,
            Self::Nftables(_) | Self::Iptables(_) => Ok(()),
        }
    }

    /// Takes the node's addresses, and those of them that serve node ports; all services must be synced again after
    /// it.
    pub(crate) fn set_addresses(
        &mut self,
        config: &ProxyConfig,
        addresses: &[IpAddr],
        node_ports: &[IpAddr],
    ) -> Result<()> {
        let ground = || Ground {
            node_addresses: node_ports.iter().copied().collect(),
            pods: config.cluster_cidrs.clone(),
            services: config.service_cidrs.clone(),
            keep_source: config.keep_source.clone(),
            masquerade_all: config.options.masquerade_all,
        };
        match self {
            Self::Ebpf(ebpf) => ebpf.set_addresses(addresses)?,
            Self::Nftables(engine) => engine.set_ground(ground()),
            Self::Iptables(engine) => engine.set_ground(ground()),
        }
        if !matches!(self, Self::Ebpf(_))
            && let Some(plane) = &config.data_plane
        {
            plane.set_node_addresses(addresses)?;
        }
        Ok(())
    }

    /// What does not run as it was chosen.
    pub(crate) fn complaints(&self) -> Vec<String> {
        match self {
            Self::Ebpf(ebpf) => ebpf.complaints(),
            Self::Nftables(_) | Self::Iptables(_) => Vec::new(),
        }
    }

    /// Brings services in.
    pub(crate) async fn sync(
        &mut self,
        wanted: BTreeMap<ServiceName, Option<ServiceTables>>,
    ) -> Result<Synced> {
        match self {
            Self::Ebpf(ebpf) => ebpf.sync(&wanted).await,
            Self::Nftables(engine) => engine.sync(wanted).await,
            Self::Iptables(engine) => engine.sync(wanted).await,
        }
    }

    /// To be called when every service has been brought in.
    pub(crate) async fn all_synced(&mut self) -> Result<()> {
        match self {
            Self::Ebpf(ebpf) => ebpf.prune().await,
            // Their first write was of everything.
            Self::Nftables(_) | Self::Iptables(_) => Ok(()),
        }
    }

    /// Puts off nothing longer; says whether what is in the kernel is still what was put there.
    pub(crate) async fn keep_house(&mut self) -> Result<bool> {
        match self {
            Self::Ebpf(ebpf) => ebpf.keep_house().await.map(|()| true),
            Self::Nftables(engine) => engine.keep_house().await,
            Self::Iptables(engine) => engine.keep_house().await,
        }
    }
}
