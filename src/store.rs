//! Where records and counters live: the contracts, and the closed set of stores that keep them.
//!
//! Every store passes `tests/it/store_contract.rs`.

use std::future::Future;
use std::sync::Arc;

use crate::domain::counter::{CounterKey, Window};
use crate::domain::lease::{QuotaAnswer, QuotaCall, QuotaCounter};
use crate::domain::limit::Rate;
use crate::domain::ratelog::{RateAnswer, RateCall};
use crate::domain::shard::{CounterCopy, Incarnation};
use crate::domain::time::UnixMs;

mod anchor;
mod any;
pub mod embedded;
mod error;
pub mod fallback;
pub mod feed;
pub mod hint;
#[cfg(feature = "redis")]
pub mod redis;
pub mod registry;
pub mod shards;
pub mod shares;

pub use any::AnyStore;
pub use error::StoreError;

/// A position in the change feed: every commit has one, above all earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Facts about the store itself: the pepper, the schema.
    Meta = 1,
    /// An organisation of consumers.
    Organisation = 2,
    /// A team of an organisation.
    Team = 3,
    /// A user of the portal.
    User = 4,
    /// An app.
    App = 5,
    /// A product: access rights.
    Product = 6,
    /// A plan: limits.
    Plan = 7,
    /// A policy in Tyk's format.
    Policy = 8,
    /// A credential.
    Credential = 9,
    /// An index: token hash to credential.
    Token = 10,
    /// An index: a name or custom id that must be unique, to what bears it.
    Unique = 11,
    /// A request for access.
    AccessRequest = 12,
    /// When a subject's rolling periods began: its first use.
    Anchor = 13,
    /// An API definition that came in through the admin endpoint.
    Api = 14,
    /// A key in Tyk's format.
    TykKey = 15,
    /// A catalogue.
    Catalogue = 16,
    /// An admin token.
    AdminToken = 17,
    /// An entry of an index by owner: credentials of an app, apps of a user.
    Member = 18,
    /// A bulk import: what became of it so far.
    Import = 19,
    /// A part of a bulk import: what became of some of its lines, or lines that wait.
    ImportPart = 20,
    /// An entry of the audit log.
    Audit = 21,
    /// An organisation or team that sees a private catalogue.
    Audience = 22,
    /// How many requests some credentials sent on one day.
    Usage = 23,
    /// The answer to a write, for when the same request comes again; or the turn of one.
    Answer = 24,
}

impl Kind {
    /// Whether records of this kind can be listed. Tokens and unique names are only looked up.
    #[must_use]
    pub const fn is_listed(self) -> bool {
        !matches!(self, Self::Token | Self::Unique)
    }

    /// Whether gateways keep something that is made of records of this kind: the change feed tells of
    /// these. It says so as the version did that wrote it: a kind is named here in one version, and
    /// followed in the next.
    #[must_use]
    pub const fn is_followed(self) -> bool {
        matches!(self, Self::Token | Self::Product | Self::Plan | Self::Policy)
    }

    /// Whether a record of this kind is there or not, and says no more: its value is empty, its
    /// generation means nothing, and a store may leave conditions on it aside.
    #[must_use]
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::Member)
    }
}

/// The name of a record: its kind, and bytes that order as they list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it is.
    pub kind: Kind,
    /// Its id: for numbers eight bytes, big-endian, so that lists ascend.
    pub id: Arc<[u8]>,
}

impl RecordKey {
    /// A record with a number for a name.
    #[must_use]
    pub fn number(kind: Kind, id: u64) -> Self {
        Self { kind, id: id.to_be_bytes().into() }
    }

    /// A record with bytes or text for a name.
    #[must_use]
    pub fn bytes(kind: Kind, id: impl AsRef<[u8]>) -> Self {
        Self { kind, id: id.as_ref().into() }
    }
}

/// A record as it lies in the store: its value is the business of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The commit that wrote it.
    pub generation: Generation,
    /// The value.
    pub value: Arc<[u8]>,
}

/// What must hold of a record for a commit to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// There is none.
    Absent,
    /// It is as this commit left it.
    Unchanged(Generation),
    /// It is as the commit before left it, which is named when these writes are handed in
    /// ([`AnyStore::commit_after`]).
    Ahead,
}

/// One record of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which record.
    pub key: RecordKey,
    /// Under what condition.
    pub expect: Expect,
    /// The new value; `None` deletes.
    pub value: Option<Arc<[u8]>>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it is stored.
    At(Generation),
    /// Nothing is: the condition of this write (its index) did not hold.
    Conflict(usize),
}

/// A list of records, and whether there is more.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order of their ids.
    pub records: Vec<(RecordKey, Record)>,
    /// Whether the list goes on after the last of them.
    pub more: bool,
}

/// Keeps records. The contract:
///
/// 1. A commit is atomic and durable: all writes or none, also through a crash. Its keys differ.
/// 2. A commit's generation is above that of every commit before it.
/// 3. Reads see every commit that was answered before they began.
/// 4. A list ascends by id and is cut at `limit`. Only kinds that [`Kind::is_listed`] have one.
/// 5. Numbers from `next_id` never repeat, also through a crash.
/// 6. Of a kind that [`Kind::is_bare`], a record is there or not, and a list is all there is to read.
pub trait RecordStore: Send + Sync + 'static {
    /// Reads one record.
    fn get(
        &self,
        key: &RecordKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;
    /// Reads several records, each as it is at some moment of the call; in the order of the keys.
    fn get_all(
        &self,
        keys: &[RecordKey],
    ) -> impl Future<Output = Result<Vec<Option<Record>>, StoreError>> + Send;
    /// Lists records of a kind whose id begins with `prefix`, after (not with) the id `after`.
    fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;
    /// Writes all or nothing.
    fn commit(
        &self,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send;
    /// The next `count` numbers for records of a kind: the first of them. Numbers start at 1.
    fn next_id(
        &self,
        kind: Kind,
        count: u64,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// The generation of the last commit.
    fn generation(&self) -> impl Future<Output = Result<Generation, StoreError>> + Send;
}

/// One call on a quota counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaReserve {
    /// Which counter.
    pub key: CounterKey,
    /// In which window.
    pub window: Window,
    /// The call.
    pub call: QuotaCall,
}

/// What the store says to a [`QuotaReserve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaReserved {
    /// Executed.
    Answer {
        /// The outcome.
        answer: QuotaAnswer,
        /// Milliseconds to the end of the window by the store's clock; `None`: it never ends.
        ends_in_ms: Option<u64>,
        /// The life of the shard in which it was executed.
        incarnation: Incarnation,
        /// The counter after it, where the store may ever have to be reminded of it.
        copy: Option<Box<CounterCopy>>,
    },
    /// The window is not the current one by the store's clock, which reads `now`.
    OtherWindow {
        /// The store's time.
        now: UnixMs,
    },
    /// The shard lost writes: it grants nothing before its gateways have told it what they know
    /// ([`AnyStore::assert`]).
    Learn,
}

/// What a quota counter says without being charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The store's time.
    pub now: UnixMs,
    /// The counter; `None` when it was never used in this window.
    pub counter: Option<QuotaCounter>,
}

/// One call on a rate counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateReserve {
    /// Which counter.
    pub key: CounterKey,
    /// The call.
    pub call: RateCall,
}

/// Counts what is granted. The contract:
///
/// 1. A call is atomic, and its grant is durable before it is answered, as far as the store's
///    durability setting says: a crash can waste units, never hand them out twice.
/// 2. The arithmetic is that of `domain::lease` and `domain::ratelog`.
/// 3. A repeated call changes nothing and answers the state.
/// 4. Reading changes nothing.
pub trait CounterStore: Send + Sync + 'static {
    /// Asks for, reports and returns units of a quota.
    fn quota(
        &self,
        reserve: &QuotaReserve,
    ) -> impl Future<Output = Result<QuotaReserved, StoreError>> + Send;
    /// The same of many calls that ask for nothing, each by itself. Of those whose window is not the
    /// current one by the store's clock: the time that it reads.
    ///
    /// # Errors
    /// Also [`StoreError::Learning`], where any shard is. Some calls may be executed then; all can be
    /// made again.
    fn reports(
        &self,
        calls: &[QuotaReserve],
    ) -> impl Future<Output = Result<Vec<Option<UnixMs>>, StoreError>> + Send;
    /// Asks for units of a rate and closes leases.
    fn rate(
        &self,
        reserve: &RateReserve,
    ) -> impl Future<Output = Result<RateAnswer, StoreError>> + Send;
    /// Reads a quota counter.
    fn quota_usage(
        &self,
        key: &CounterKey,
        window: &Window,
    ) -> impl Future<Output = Result<QuotaUsage, StoreError>> + Send;
    /// Reads a rate counter: what is free of `rate`, and when.
    fn rate_usage(
        &self,
        key: &CounterKey,
        rate: Rate,
    ) -> impl Future<Output = Result<RateAnswer, StoreError>> + Send;
}
