//! Failed authentication by client address: who tries many unknown tokens is refused without a
//! look-up for the rest of the minute.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::domain::time::BootNs;

/// Addresses remembered at most; the least used are forgotten first.
const ADDRESSES_MAX: usize = 65_536;
/// How long failures count, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// A client network: an IPv4 address, or the 64-bit prefix that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client(u64, bool);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits()), false),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let joined = [a, b, c, d].iter().fold(0, |sum, s| (sum << 16) | u64::from(*s));
                Self(joined, true)
            }
        }
    }
}

#[derive(Debug, Default)]
struct Count {
    began: BootNs,
    failures: u32,
}

/// Failures of all clients.
#[derive(Debug)]
pub(super) struct Failures {
    max: u32,
    clients: Cache<Client, Arc<Mutex<Count>>>,
}

impl Failures {
    pub(super) fn new(per_minute_max: u32) -> Self {
        Self { max: per_minute_max, clients: Cache::new(ADDRESSES_MAX) }
    }

    /// Counts one failure.
    pub(super) fn note(&self, client: IpAddr, now: BootNs) {
        let client = Client::from(client);
        let count = match self.clients.get(&client) {
            Some(count) => count,
            None => {
                let count = Arc::new(Mutex::new(Count { began: now, failures: 0 }));
                self.clients.insert(client, Arc::clone(&count));
                count
            }
        };
        let mut count = count.lock();
        if count.began.plus_ms(WINDOW_MS) <= now {
            *count = Count { began: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
    }

    /// Milliseconds for which a client is still refused; `None`: it is not.
    pub(super) fn blocked_ms(&self, client: IpAddr, now: BootNs) -> Option<u64> {
        let count = self.clients.get(&Client::from(client))?;
        let count = count.lock();
        let ends = count.began.plus_ms(WINDOW_MS);
        (self.max <= count.failures && now < ends).then(|| ends.since_ms(now).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_blocked_for_the_rest_of_its_minute() {
        let failures = Failures::new(3);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let at = |ms| BootNs(0).plus_ms(ms);
        for ms in [0, 10, 20] {
            assert_eq!(failures.blocked_ms(here, at(ms)), None);
            failures.note(here, at(ms));
        }
        assert_eq!(failures.blocked_ms(here, at(1_000)), Some(59_000));
        assert_eq!(failures.blocked_ms(here, at(60_000)), None);
        assert_eq!(failures.blocked_ms("192.0.2.2".parse().unwrap(), at(1_000)), None);
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let failures = Failures::new(1);
        failures.note("2001:db8:1:2::1".parse().unwrap(), BootNs(0));
        assert!(failures.blocked_ms("2001:db8:1:2::2".parse().unwrap(), BootNs(1)).is_some());
        assert!(failures.blocked_ms("2001:db8:1:3::1".parse().unwrap(), BootNs(1)).is_none());
        failures.note("192.0.2.9".parse().unwrap(), BootNs(0));
        assert!(failures.blocked_ms("::ffff:192.0.2.9".parse().unwrap(), BootNs(1)).is_some());
    }
}
