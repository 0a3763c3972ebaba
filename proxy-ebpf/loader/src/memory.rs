//! Service maps in memory, for tests: what they hold prints as text, and they can be made to refuse.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::tables::{Change, ServiceMaps, Tables};

/// The fake. Behaves like the kernel's maps with a limit on backends.
#[derive(Debug, Default)]
pub struct MemoryMaps {
    tables: Mutex<Tables>,
    backend_limit: Option<u32>,
    /// Writes until the one that is refused.
    until_refusal: Mutex<Option<usize>>,
}

impl MemoryMaps {
    /// Holds `tables` to begin with.
    pub fn with(tables: Tables) -> Self {
        Self { tables: Mutex::new(tables), ..Self::default() }
    }

    /// Refuses more backends than `limit`, as a full map does.
    #[must_use]
    pub fn limit_backends(mut self, limit: u32) -> Self {
        self.backend_limit = Some(limit);
        self
    }

    /// Refuses one change, after `accepted` more; none at all for `None`.
    pub fn refuse_after(&self, accepted: Option<usize>) {
        *locked(&self.until_refusal) = accepted;
    }

    /// What it holds.
    pub fn tables(&self) -> Tables {
        locked(&self.tables).clone()
    }
}

/// A panic of another test thread does not make the tables less true.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceMaps for MemoryMaps {
    fn apply(&self, change: &Change) -> Result<()> {
        let mut until_refusal = locked(&self.until_refusal);
        match *until_refusal {
            Some(0) => {
                *until_refusal = None;
                return Err(Error::kernel("writing a map", std::io::ErrorKind::Interrupted.into()));
            }
            Some(writes) => *until_refusal = Some(writes - 1),
            None => {}
        }
        let mut tables = locked(&self.tables);
        if let (Change::PutBackend(id, _), Some(limit)) = (change, self.backend_limit)
            && !tables.backends.contains_key(id)
            && tables.backends.len() >= limit as usize
        {
            return Err(Error::Full { name: "backends".to_owned(), limit });
        }
        tables.apply(change);
        Ok(())
    }

    fn read(&self) -> Result<Tables> {
        Ok(self.tables())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_ebpf_abi::Addr;
    use skep_ebpf_abi::service::{Backend, Frontend, FrontendKey, Set, SlotKey};

    #[test]
    fn a_service_prints_as_text() {
        let maps = MemoryMaps::default();
        let addr = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().expect("an address"));
        let backend = Backend { addr: addr("10.244.0.5"), port_be: 8080u16.to_be(), protocol: 6, state: 0 };
        for change in [
            Change::PutBackend(1, backend),
            Change::PutSlot(SlotKey { set: 1, slot: 1 }, 1),
            Change::PutSet(1, Set { count: 1, flags: 0, affinity_seconds: 0 }),
            Change::PutFrontend(
                FrontendKey::new(addr("10.96.0.10"), 80u16.to_be(), 6),
                Frontend { external_set: 1, internal_set: 1, flags: 0 },
            ),
        ] {
            maps.apply(&change).expect("the fake accepts");
        }
        assert_eq!(
            maps.tables().to_string(),
            "frontend 10.96.0.10:80/TCP ClusterIP external=1 internal=1 flags=0x0\n\
             set 1 count=1 affinity=0s flags=0x0\n\
             slot 1.1 backend=1\n\
             backend 1 10.244.0.5:8080/TCP state=0\n"
        );
    }
}
