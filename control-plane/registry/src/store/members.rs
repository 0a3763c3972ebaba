//! The API servers that share the store: each has a key that lives by a lease, so that one that dies is
//! forgotten by itself.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use skep_api::error::ApiError;
use skep_storage::{Error, LeaseId, Op, Range, TxnRequest};

use super::{Registry, storage_error};

/// Where they are; upstream's place.
const PREFIX: &str = "/registry/masterleases/";

/// This server's key.
#[derive(Debug)]
pub struct Membership {
    address: IpAddr,
    ttl: Duration,
    lease: Option<LeaseId>,
}

impl Membership {
    /// The membership of the server at `address`; it ends `ttl` after it was renewed last.
    pub fn new(address: IpAddr, ttl: Duration) -> Self {
        Self { address, ttl, lease: None }
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.address)
    }
}

impl Registry {
    /// Says that the server is there for another ttl.
    pub async fn renew_member(&self, member: &mut Membership) -> Result<(), ApiError> {
        if let Some(lease) = member.lease {
            match self.storage.lease_keep_alive(lease).await {
                Ok(()) => {
                    // Another server's start at the same address may have taken the key with it.
                    let found = self.storage.range(Range::key(member.key())).await;
                    let found = found.map_err(|error| storage_error(&error))?;
                    if found.kvs.first().is_some_and(|pair| pair.lease == lease) {
                        return Ok(());
                    }
                }
                Err(Error::NoLease(_)) => member.lease = None,
                Err(error) => return Err(storage_error(&error)),
            }
        }
        let lease = match member.lease {
            Some(lease) => lease,
            None => self.storage.lease_grant(member.ttl).await.map_err(|error| storage_error(&error))?,
        };
        member.lease = Some(lease);
        let value = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": member.address.to_string()},
            "subsets": [{"addresses": [{"ip": member.address.to_string()}]}],
        });
        let put = Op::Put { key: member.key(), value: Bytes::from(value.to_string()), lease };
        let request = TxnRequest { success: vec![put], ..TxnRequest::default() };
        self.storage.txn(request).await.map(drop).map_err(|error| storage_error(&error))
    }

    /// Says that the server goes.
    pub async fn remove_member(&self, member: &mut Membership) -> Result<(), ApiError> {
        match member.lease.take() {
            Some(lease) => match self.storage.lease_revoke(lease).await {
                Ok(()) | Err(Error::NoLease(_)) => Ok(()),
                Err(error) => Err(storage_error(&error)),
            },
            None => Ok(()),
        }
    }

    /// The addresses of all servers that are there.
    pub async fn members(&self) -> Result<Vec<IpAddr>, ApiError> {
        let range = Range { keys_only: true, ..Range::prefix(PREFIX) };
        let found = self.storage.range(range).await.map_err(|error| storage_error(&error))?;
        let mut addresses: Vec<IpAddr> =
            found.kvs.iter().filter_map(|pair| pair.key.strip_prefix(PREFIX)?.parse().ok()).collect();
        addresses.sort();
        Ok(addresses)
    }
}
