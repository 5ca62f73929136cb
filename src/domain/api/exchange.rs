//! What an API lets in by address, and what it changes in the headers that pass.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What holds of an API's requests and answers as they pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExchangeRules {
    /// Changes to the headers of a request on its way upstream.
    pub request: HeaderRules,
    /// Changes to the headers of the upstream's answer.
    pub response: HeaderRules,
    /// Members of the credential's metadata that go upstream, each with the header it goes in, lower
    /// case. A client's own headers of these names are taken off.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// Where clients may come from.
    pub networks: Networks,
}

/// Changes to headers, in this order. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Taken off.
    pub remove: Vec<Arc<str>>,
    /// Set, whatever was there.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added to what is there.
    pub add: Vec<(Arc<str>, Arc<str>)>,
}

/// Addresses that may call, and such that may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Where there are any, nobody else may.
    pub allow: Vec<Network>,
    /// These may not, also where they are allowed.
    pub deny: Vec<Network>,
}

/// A block of addresses. Those of IPv4 lie in `::ffff:0:0/96`, so that both kinds compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an address or a block such as 10.0.0.0/8 or 2001:db8::/32, without bits below the prefix"
)]
pub struct InvalidNetwork;

impl Networks {
    /// Whether a client at this address may call.
    #[must_use]
    pub fn admit(&self, address: u128) -> bool {
        let within = |networks: &[Network]| networks.iter().any(|n| n.contains(address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }

    /// Whether everybody may call.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

impl Network {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: u128) -> bool {
        address & self.mask == self.bits
    }
}

/// An address as one number, in the spelling of [`Network`].
#[must_use]
pub fn address(ip: core::net::IpAddr) -> u128 {
    match ip {
        core::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        core::net::IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: core::net::IpAddr = ip.parse().map_err(|_odd| InvalidNetwork)?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let prefix: u32 = match prefix {
            None => longest,
            Some(text) if plain(text) => text.parse().map_err(|_odd| InvalidNetwork)?,
            Some(_) => return Err(InvalidNetwork),
        };
        let host_bits = longest.checked_sub(prefix).ok_or(InvalidNetwork)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let bits = address(ip);
        if bits & mask != bits {
            return Err(InvalidNetwork);
        }
        Ok(Self { bits, mask })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = core::net::Ipv6Addr::from_bits(self.bits);
        write!(f, "{ip}/{}", self.mask.count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_address_or_a_block() {
        for good in
            ["10.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "::/0", "2001:db8::/32", "::1", "1.2.3.4/32"]
        {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for odd in
            ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "a", "::1/129", "1.2.3"]
        {
            assert!(odd.parse::<Network>().is_err(), "{odd}");
        }
    }

    #[test]
    fn denied_wins_and_a_list_of_allowed_keeps_the_rest_out() {
        let list = |texts: &str| texts.split_whitespace().map(|t| t.parse().unwrap()).collect();
        let check = |allow: &str, deny: &str, ip: &str, expect: bool| {
            let networks = Networks { allow: list(allow), deny: list(deny) };
            assert_eq!(networks.admit(address(ip.parse().unwrap())), expect, "{allow}|{deny}|{ip}");
        };
        check("", "", "1.2.3.4", true);
        check("10.0.0.0/8", "", "10.255.0.1", true);
        check("10.0.0.0/8", "", "11.0.0.1", false);
        check("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", false);
        check("", "2001:db8::/32", "2001:db8::1", false);
        check("", "2001:db8::/32", "2001:db9::1", true);
        check("10.0.0.0/8", "", "::ffff:10.0.0.1", true);
        check("0.0.0.0/0", "", "::1", false);
        check("::/0", "", "1.2.3.4", true);
    }
}
