//! Networks whose word is taken.

use std::net::IpAddr;

use crate::domain::api::{Network, exchange};

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // Mostly there are none: nothing is to be translated then.
        !self.0.is_empty() && {
            let address = exchange::address(address);
            self.0.iter().any(|network| network.contains(address))
        }
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}
