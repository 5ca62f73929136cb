//! `[store]`: which one, and where.

#[cfg(feature = "redis")]
use std::num::NonZeroU32;
use std::path::Path;

#[cfg(feature = "redis")]
use crate::config::client_tls;
use crate::config::reader::Reader;
use crate::config::{StoreConfig, StoreKind};
#[cfg(feature = "redis")]
use crate::store::redis::{Durability, RedisOptions};

#[derive(Clone, Copy)]
enum Word {
    Embedded,
    #[cfg(feature = "redis")]
    Redis,
}

const KINDS: &[(&str, Word)] = &[
    ("embedded", Word::Embedded),
    #[cfg(feature = "redis")]
    ("redis", Word::Redis),
];

pub(super) fn read(r: &mut Reader<'_>, folder: &Path) -> StoreConfig {
    let word = r.word("kind", KINDS, Word::Embedded);
    let path = r.text("path").unwrap_or_else(|| "data".into());
    if path.is_empty() {
        r.fault("path", "must name a folder");
    }
    let pepper = r.text("pepper_file").filter(|name| !name.is_empty());
    let timeout_ms = r.number("timeout_ms", 100, 1..=60_000);
    #[cfg(feature = "redis")]
    let redis = redis(r, folder, timeout_ms);
    // Every build knows the keys.
    #[cfg(not(feature = "redis"))]
    let _unused = (r.texts("urls"), r.text("prefix"), r.text("durability"));
    #[cfg(not(feature = "redis"))]
    let _unused = (r.text("ca"), r.text("certificate"), r.text("key"));
    #[cfg(not(feature = "redis"))]
    let _unused = r.number("confirm_replicas", 1, 1..=100);
    StoreConfig {
        kind: match word {
            Word::Embedded => StoreKind::Embedded,
            #[cfg(feature = "redis")]
            Word::Redis => StoreKind::Redis(redis),
        },
        path: folder.join(path),
        fsync_ms: r.number("fsync_ms", 100, 0..=60_000),
        timeout_ms,
        pepper_file: pepper.map(|name| folder.join(name)),
    }
}

/// What `rediss://` needs.
#[cfg(feature = "redis")]
const TLS: client_tls::Keys = client_tls::Keys { ca: "ca", certificate: "certificate", key: "key" };

/// What only Redis needs; it is checked also when another store is used.
#[cfg(feature = "redis")]
fn redis(r: &mut Reader<'_>, folder: &Path, timeout_ms: u64) -> RedisOptions {
    let default = RedisOptions::default();
    let urls = r.texts("urls").map(|texts| texts.into_iter().map(|(_, url)| url).collect());
    let urls = urls.unwrap_or_else(|| vec!["redis://127.0.0.1:6379/0".to_owned()]);
    let plain = !urls.iter().any(|url: &String| RedisOptions::is_by_tls(url));
    let unused = plain.then_some("urls with rediss://");
    let options = RedisOptions {
        urls,
        tls: client_tls::read(r, folder, &TLS, unused),
        prefix: r.text("prefix").unwrap_or(default.prefix),
        timeout_ms,
        feed_len: default.feed_len,
        durability: durability(r),
    };
    for (key, what) in options.faults() {
        r.fault(&key, what);
    }
    options
}

#[cfg(feature = "redis")]
fn durability(r: &mut Reader<'_>) -> Durability {
    let confirm = u32::try_from(r.number("confirm_replicas", 1, 1..=100)).unwrap_or(1);
    let confirm = NonZeroU32::new(confirm).unwrap_or(NonZeroU32::MIN);
    let words = [
        ("memory", Durability::Memory),
        ("fsync", Durability::Fsync),
        ("replica", Durability::Replica { confirm }),
    ];
    r.word("durability", &words, Durability::Memory)
}
