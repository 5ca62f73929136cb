//! Names of keys.
//!
//! The part in braces decides where a key lies in a cluster: records, their feed and their
//! generation in one place, a subject's counters in one of [`SHARDS`].

use crate::domain::counter::{CounterKey, Subject, Window};
use crate::store::Kind;
use crate::store::shards::ShardId;

/// Places the counters are spread over.
pub(super) const SHARDS: u32 = 128;

/// The prefix of an installation, with the names that are the same for all calls.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    pub(super) generation: Vec<u8>,
    pub(super) feed: Vec<u8>,
    /// It is there within a transaction; one that is left behind does no harm.
    pub(super) guard: Vec<u8>,
    pub(super) spoke: Vec<u8>,
    pub(super) said: Vec<u8>,
}

impl Keys {
    /// The names below a checked prefix.
    pub(super) fn new(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}:{{tp}}{rest}").into_bytes();
        Self {
            prefix: prefix.to_owned(),
            generation: name("generation"),
            feed: name("feed"),
            guard: name("guard"),
            spoke: name("gateways"),
            said: name("gateways:said"),
        }
    }

    /// A shard itself.
    pub(super) fn shard(&self, shard: ShardId) -> String {
        format!("{}:{{s{:03}}}", self.prefix, shard.0)
    }

    /// A quota counter in one window. A window is named by its start and its reset number: its
    /// end follows from the definition.
    pub(super) fn quota(&self, key: &CounterKey, window: &Window) -> String {
        let Self { prefix, .. } = self;
        let (shard, start, reset) = (shard(&key.subject).0, window.start.0, window.reset);
        format!("{prefix}:{{s{shard:03}}}q:{key}:{start:x}.{reset:x}")
    }

    /// A rate counter.
    pub(super) fn rate(&self, key: &CounterKey) -> String {
        let Self { prefix, .. } = self;
        format!("{prefix}:{{s{:03}}}r:{key}", shard(&key.subject).0)
    }

    /// What is told of a rate counter after a loss.
    pub(super) fn told(&self, key: &CounterKey) -> String {
        let Self { prefix, .. } = self;
        format!("{prefix}:{{s{:03}}}t:{key}", shard(&key.subject).0)
    }

    /// When a subject's rolling periods began.
    pub(super) fn anchor(&self, subject: &Subject) -> String {
        format!("{}:{{s{:03}}}f:{subject}", self.prefix, shard(subject).0)
    }

    /// The channel for hints. No key has this name.
    pub(super) fn hints(&self) -> String {
        format!("{}:hints", self.prefix)
    }

    /// What the name of each record of a kind begins with.
    pub(super) fn records(&self, kind: Kind) -> Vec<u8> {
        self.of_kind("r", kind)
    }

    /// One record.
    pub(super) fn record(&self, kind: Kind, id: &[u8]) -> Vec<u8> {
        [&self.records(kind), id].concat()
    }

    /// The ids of the records of a kind.
    pub(super) fn ids(&self, kind: Kind) -> Vec<u8> {
        self.of_kind("i", kind)
    }

    /// The last number handed out for a kind.
    pub(super) fn numbers(&self, kind: Kind) -> Vec<u8> {
        self.of_kind("n", kind)
    }

    fn of_kind(&self, what: &str, kind: Kind) -> Vec<u8> {
        format!("{}:{{tp}}{what}:{}:", self.prefix, kind_byte(kind)).into_bytes()
    }
}

/// Where a subject's counters lie. It must never change: a counter elsewhere starts at zero.
pub(super) fn shard(subject: &Subject) -> ShardId {
    let place = crc32fast::hash(subject.to_string().as_bytes()) % SHARDS;
    ShardId(u8::try_from(place).unwrap_or(0))
}

#[expect(clippy::as_conversions, reason = "the discriminant of a `repr(u8)` enum")]
pub(super) fn kind_byte(kind: Kind) -> u8 {
    kind as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AppId, CredentialId};
    use crate::domain::time::UnixMs;

    #[test]
    fn names_are_what_they_were() {
        let keys = Keys::new("tp");
        let window = Window { start: UnixMs(255), end: None, reset: 10 };
        let subject = Subject::Credential(CredentialId(17));
        let key = CounterKey { subject, definition: "q//e86400000".into() };
        assert_eq!(keys.quota(&key, &window), "tp:{s086}q:c17/q//e86400000:ff.a");
        assert_eq!(keys.shard(shard(&key.subject)), "tp:{s086}");
        assert_eq!(keys.record(Kind::App, b"x"), b"tp:{tp}r:5:x");
        assert_eq!(keys.ids(Kind::Member), b"tp:{tp}i:18:");
    }

    #[test]
    fn counters_of_a_subject_lie_together_and_subjects_apart() {
        let name = |subject, definition: &str| {
            Keys::new("tp").rate(&CounterKey { subject, definition: definition.into() })
        };
        let tag = |name: String| name.split('}').next().unwrap().to_owned();
        let (a, b) = (Subject::App(AppId(1)), Subject::App(AppId(2)));
        assert_eq!(tag(name(a, "r/x/1000")), tag(name(a, "r/y/1000")));
        assert_ne!(tag(name(a, "r/x/1000")), tag(name(b, "r/x/1000")));
    }
}
