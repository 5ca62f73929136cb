//! Reads for the lines that come next, begun while a commit is on its way.
//!
//! A store that does one thing at a time answers what is read behind a commit only when that is through.
//! What is read at the same time as the commit is handed in comes with its answer, so that the next
//! commit can be handed in at once, and the lines are worked on while the store is busy with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::batch::rows;
use super::decode;
use super::find::{self, AppFound, Found};
use super::place::fingerprint;
use super::reader::Item;
use crate::admin::turns;
use crate::admin::txn::name_entry;
use crate::catalog::Catalog;
use crate::store::{Kind, Record, RecordKey, RecordStore, StoreError};
use crate::wire::imports::row::{AppNamed, Row};

/// Names whose records are remembered: beyond, all are forgotten.
const NAMES_MAX: usize = 20_000;

/// What names in lines have stood for so far: what is likely to be read for a line that has the same.
/// It decides nothing.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Apps, and their owners.
    apps: HashMap<u64, (u64, Option<u64>)>,
    plans: HashMap<u64, u64>,
}

impl Hints {
    /// Remembers what a line is about.
    pub(super) fn learn(&mut self, row: &Row, found: &Found, owner: Option<u64>) {
        let AppFound::Known(app) = found.app else { return };
        if NAMES_MAX < self.apps.len().saturating_add(self.plans.len()) {
            *self = Self::default();
        }
        self.apps.insert(app_named(&row.app), (app, owner));
        self.plans.insert(fingerprint(&row.plan), found.plan);
    }

    /// Records that a line is likely to take beside those that it names.
    fn keys(&self, row: &Row) -> impl Iterator<Item = RecordKey> {
        let app = self.apps.get(&app_named(&row.app)).map(|(app, owner)| {
            let alias = name_entry(Kind::Credential, *app, &row.alias);
            let owner = owner.map(|owner| RecordKey::number(Kind::User, owner));
            let both = [RecordKey::number(Kind::App, *app), RecordKey::bytes(Kind::Unique, alias)];
            both.into_iter().chain(owner)
        });
        let plan = self.plans.get(&fingerprint(&row.plan));
        let plan = plan.map(|plan| RecordKey::number(Kind::Plan, *plan));
        app.into_iter().flatten().chain(plan)
    }
}

/// Records as they were found.
pub(super) type Reads = Vec<(RecordKey, Option<Record>)>;

/// Reads on their way.
#[derive(Debug)]
pub(super) struct Early {
    found: JoinHandle<Result<Reads, StoreError>>,
    /// How many commits the import has had when these reads are of use.
    batches: u64,
}

impl Early {
    /// Begins to read what lines will take, when the commit that makes it `batches` is `sent`.
    pub(super) fn begin(
        on: &Handle,
        (catalog, sent): (&Arc<Catalog>, oneshot::Receiver<()>),
        hints: &Hints,
        items: &[Item],
        (import, batches): (RecordKey, u64),
    ) -> Self {
        let mut asked = HashSet::new();
        let mut keys = vec![turns::key()];
        for row in rows(items) {
            keys.extend(find::keys(row, &mut asked));
            keys.extend(hints.keys(row));
        }
        keys.sort_unstable();
        keys.dedup();
        // Before all and behind them: what lies between was read between.
        keys.insert(0, import.clone());
        keys.push(import);
        let catalog = Arc::clone(catalog);
        let found = on.spawn(async move {
            if sent.await.is_err() {
                return Ok(Vec::new());
            }
            let found = catalog.store().get_all(&keys).await?;
            Ok(keys.into_iter().zip(found).collect())
        });
        Self { found, batches }
    }

    /// What was found, and whether somebody on another gateway asked for a pause; nothing if it is not
    /// of use.
    pub(super) async fn found(self) -> Option<(Reads, bool)> {
        let found = self.found.await.ok()?.ok()?;
        // Whether it was read after that commit, and before the next.
        let in_time = |import: Option<&(RecordKey, Option<Record>)>| {
            let record = import?.1.as_ref()?;
            let import = decode(&record.value).ok()?;
            let in_time = import.batches == self.batches && !import.cancel;
            in_time.then_some(record.generation)
        };
        let now = in_time(found.first()).and(in_time(found.last()))?;
        let asked = found.iter().find(|(key, _)| *key == turns::key());
        let asked = asked.and_then(|(_, record)| record.as_ref());
        let asked = asked.is_some_and(|asked| turns::is_asked(asked, now));
        Some((found, asked))
    }
}

fn app_named(app: &AppNamed) -> u64 {
    match app {
        AppNamed::Id(text) => fingerprint(text),
        AppNamed::Of { name, user } => fingerprint((name, &user.email)),
    }
}
