//! Who makes a request.

use std::collections::BTreeMap;

/// An authenticated user. Travels as a request extension, also for in-process clients, which never
/// pass through authentication; an extension cannot come from the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user name.
    pub name: String,
    /// Unique id, may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What authenticators add.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of these groups, `system:authenticated` included.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        let authenticated = "system:authenticated".to_owned();
        if !groups.contains(&authenticated) {
            groups.push(authenticated);
        }
        Self { name: name.into(), groups, ..Self::default() }
    }
}
