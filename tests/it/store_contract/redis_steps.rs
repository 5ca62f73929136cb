//! A server whose clock is stepped, as seen by a gateway: here its own clock is, the other way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::counter::ProcessId;
use turnpike::domain::ratelog::{RateAnswer, RateCall, rate};
use turnpike::domain::time::{BootNs, UnixMs};
use turnpike::store::redis::{RedisOptions, RedisStore};
use turnpike::store::{AnyStore, CounterStore, RateReserve};

use super::key;
use crate::redis_server::RedisServer;

const RATE: u64 = 10;
const PER_MS: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// The time since boot, and an hour, and what it was stepped by.
#[derive(Debug)]
struct Stepping(AtomicU64);

impl Clock for Stepping {
    fn unix(&self) -> UnixMs {
        SystemClock.unix()
    }

    fn boot(&self) -> BootNs {
        SystemClock.boot().plus_ms(self.0.load(Ordering::Relaxed))
    }
}

/// One gateway.
struct Gateway {
    store: AnyStore,
    process: ProcessId,
    q: u64,
}

impl Gateway {
    async fn new(server: &RedisServer, process: u64, clock: Arc<dyn Clock>) -> Self {
        let options =
            RedisOptions { urls: vec![server.url()], timeout_ms: 5_000, ..RedisOptions::default() };
        let store = AnyStore::Redis(RedisStore::connect(options, clock).await.unwrap());
        Self { store, process: ProcessId(process), q: 0 }
    }

    /// Asks for two units of a credential's rate: in which shard that lies differs.
    async fn ask(&mut self, credential: u64) -> RateAnswer {
        self.q += 1;
        let call = RateCall {
            process: self.process,
            q: self.q,
            rate: rate(RATE, PER_MS).unwrap(),
            closes: vec![],
            want: 0,
            need: 2,
            least: 1,
            validity_ms: 100,
        };
        let reserve = RateReserve { key: key(credential, "r/t/1000"), call };
        self.store.rate(&reserve).await.unwrap()
    }

    /// Asks until both units are granted.
    async fn is_granted(&mut self, credential: u64) {
        let began = Instant::now();
        while self.ask(credential).await.granted < 2 {
            assert!(began.elapsed() < PATIENCE, "credential {credential}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Whichever way it steps, nothing is granted before all that counted must have left, by the time
/// that passed; and nothing is spent that was granted before that was known.
#[tokio::test]
async fn rates_are_blind_once_the_clock_of_the_server_was_stepped() {
    let server = RedisServer::start();
    let clock = Arc::new(Stepping(AtomicU64::new(3_600_000)));
    let mut one = Gateway::new(&server, 1, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let mut other = Gateway::new(&server, 2, Arc::new(SystemClock)).await;
    for (to_ms, credential) in [(3_597_000, 10), (3_597_100, 20), (7_000, 30)] {
        for credential in credential..credential + 3 {
            // Its shard may have been told of the step before a little later than those waited for.
            one.is_granted(credential).await;
            assert_eq!(other.ask(credential).await.granted, 2);
        }
        let began = Instant::now();
        clock.0.store(to_ms, Ordering::Relaxed);
        let answer = one.ask(credential).await;
        assert_eq!(answer.granted, 0, "found with the first answer, to {to_ms}");
        let answer = one.ask(credential + 1).await;
        assert_eq!((answer.granted, answer.free), (0, 0), "told with the next call");
        one.store.poll().await.unwrap();
        let answer = other.ask(credential + 2).await;
        assert_eq!((answer.granted, answer.free), (0, 0), "told without one, to {to_ms}");
        for credential in credential..credential + 3 {
            other.is_granted(credential).await;
            let after = began.elapsed();
            assert!(Duration::from_millis(PER_MS * 5 / 4) <= after, "to {to_ms}: {after:?}");
        }
    }
}
