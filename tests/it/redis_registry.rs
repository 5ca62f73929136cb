//! The registry of gateways in Redis.

use turnpike::domain::counter::ProcessId;
use turnpike::store::registry::{Heartbeat, Peer};
use turnpike::store::{AnyStore, Generation};

use crate::redis_server::RedisServer;

const SPOKE: &str = "tp:{tp}gateways";

fn own(process: u64, applied: u64) -> Heartbeat {
    let applied = Generation(applied);
    Heartbeat { process: ProcessId(process), name: format!("host {process}:9080"), applied }
}

async fn beat(store: &AnyStore, process: u64, applied: u64) -> Vec<Peer> {
    store.heartbeat(&own(process, applied)).await.unwrap()
}

fn processes(peers: &[Peer], live: bool) -> Vec<u64> {
    let mut all: Vec<u64> =
        peers.iter().filter(|p| p.is_live() == live).map(|p| p.process.0).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn gateways_see_each_other_and_who_signs_off_is_gone() {
    let server = RedisServer::start();
    let a = AnyStore::Redis(server.connect().await);
    let b = AnyStore::Redis(server.connect().await);
    assert_eq!(processes(&beat(&a, 1, 10).await, true), [1]);
    let peers = beat(&b, u64::MAX, 1_764_043_200_123).await;
    assert_eq!(processes(&peers, true), [1, u64::MAX]);
    let told = peers.iter().find(|peer| peer.process.0 == u64::MAX).unwrap();
    assert_eq!(told.applied, Generation(1_764_043_200_123));
    assert_eq!(told.name, format!("host {}:9080", u64::MAX));
    let told = beat(&b, u64::MAX, 11).await;
    assert!(told.iter().any(|peer| peer.applied == Generation(11)), "{told:?}");
    a.sign_off(ProcessId(1)).await.unwrap();
    assert_eq!(processes(&beat(&b, u64::MAX, 11).await, true), [u64::MAX]);
}

#[tokio::test]
async fn the_silent_are_not_live_and_then_forgotten() {
    let server = RedisServer::start();
    let store = AnyStore::Redis(server.connect().await);
    beat(&store, 1, 0).await;
    beat(&store, 2, 0).await;
    let now: u64 = server.command(&["TIME"]).lines().next().unwrap().parse().unwrap();
    // Process 2 last spoke a minute ago, process 1 more than an hour ago. Their names are eight
    // bytes, which redis-cli cannot pass.
    let script = "redis.call('ZADD', KEYS[1], ARGV[2], struct.pack('>I8', ARGV[1])) return 1";
    for (process, ago_s) in [("2", 60), ("1", 3_700)] {
        let at = ((now - ago_s) * 1_000).to_string();
        assert_eq!(server.command(&["EVAL", script, "1", SPOKE, process, &at]), "1");
    }
    let peers = beat(&store, 3, 0).await;
    assert_eq!((processes(&peers, true), processes(&peers, false)), (vec![3], vec![2]));
    assert_eq!(server.command(&["HLEN", "tp:{tp}gateways:said"]), "2");
    // The clock was set back by an hour: the dead do not live on for that long.
    let ahead = ((now + 3_600) * 1_000).to_string();
    assert_eq!(server.command(&["EVAL", script, "1", SPOKE, "2", &ahead]), "1");
    assert_eq!(processes(&beat(&store, 3, 0).await, true), [2, 3]);
    let soon = ((now + 60) * 1_000).to_string();
    assert_eq!(server.command(&["ZCOUNT", SPOKE, &soon, "+inf"]), "0");
}
