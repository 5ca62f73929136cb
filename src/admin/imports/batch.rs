//! The lines of one commit.

use std::collections::HashSet;

use super::early::{Early, Reads};
use super::find::{self, AppFound, Found, Learnt, Names, applies};
use super::job::{Job, Pass};
use super::place::Placed;
use super::reader::Item;
use crate::admin::keys::{record, token_key};
use crate::admin::txn::{Txn, name_entry};
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::enforce::Carried;
use crate::store::{Kind, Record, RecordKey, StoreError};
use crate::wire::imports::record::{Counts, Entry, Part};
use crate::wire::imports::row::Row;
use crate::wire::imports::{Code, Fault};

/// What is learnt from a commit once it is through.
#[derive(Debug, Default)]
pub(super) struct Lesson {
    pub(super) apps: Learnt,
    pub(super) planned: HashSet<u64>,
    /// Credentials of the app that is replaced.
    pub(super) kept: Vec<u64>,
    /// Faults and warnings that are written down.
    pub(super) entries: usize,
}

/// Lines on their way into one commit.
pub(super) struct Batch<'j> {
    pub(super) job: &'j mut Job,
    pub(super) pass: Pass,
    /// Whether these lines are seen for the first time.
    first: bool,
    counts: Counts,
    part: Part,
    names: Names,
    pub(super) lesson: Lesson,
    pub(super) used: Vec<Used>,
}

/// Units of a token that were used up elsewhere, as [`Carried`].
pub(super) struct Used {
    pub(super) token: TokenHash,
    pub(super) used: u64,
    pub(super) renews: Option<UnixMs>,
}

impl<'j> Batch<'j> {
    /// Lines that come after all that were handed in so far.
    pub(super) fn new(job: &'j mut Job, pass: Pass, first: bool) -> Self {
        let counts = job.newest().counts;
        let (part, lesson) = (Part::default(), Lesson::default());
        let names = Names::default();
        Self { job, pass, first, counts, part, names, lesson, used: Vec::new() }
    }

    /// The tokens of which the counters are to be told, with their records.
    pub(super) async fn told(&mut self, txn: &mut Txn<'_>) -> Result<Vec<Carried>, StoreError> {
        let mut told = Vec::with_capacity(self.used.len());
        for Used { token, used, renews } in std::mem::take(&mut self.used) {
            let record = txn.get(&token_key(&token)).await?;
            told.extend(record.map(|record| Carried { token, record, used, renews }));
        }
        Ok(told)
    }

    /// The counts of all lines so far, the report on these, and what was learnt.
    pub(super) fn done(self) -> (Counts, Part, Lesson) {
        (self.counts, self.part, self.lesson)
    }

    /// Reads what the lines name, all at once, and `other` besides; what was read early is not read again.
    pub(super) async fn look(
        &mut self,
        txn: &mut Txn<'_>,
        items: &[Item],
        other: Option<&RecordKey>,
        early: Option<Early>,
    ) -> Result<(), StoreError> {
        if let Some(early) = early {
            let found = early.found().await;
            let there = |(key, record): &(RecordKey, Option<Record>)| {
                key.kind == Kind::Token && record.is_some()
            };
            let fresh = |found: &Reads| !found.iter().any(there);
            self.job.pipeline.fresh = found.as_ref().is_some_and(|(found, _)| fresh(found));
            if let Some((found, asked)) = found {
                self.job.pipeline.asked = asked;
                self.job.early += 1;
                txn.found(found);
                return Ok(());
            }
        }
        let mut asked = HashSet::new();
        let named = rows(items).flat_map(|row| find::keys(row, &mut asked));
        txn.prefetch(named.chain(other.cloned())).await
    }

    /// Reads what a second look at the lines takes: owners, aliases, credentials that are there. What
    /// lines are about is found by the way, if it is there already: then it stays so.
    pub(super) async fn look_again(
        &mut self,
        txn: &mut Txn<'_>,
        items: &[Item],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        let (mut keys, mut all) = (Vec::new(), Vec::new());
        for row in rows(items) {
            if let Some(known) = record(txn, &TokenHash(row.hash)).await? {
                keys.push(RecordKey::number(Kind::Credential, known.credential));
            }
            let known = |found: &Found| matches!(found.app, AppFound::Known(_));
            all.push(self.find(txn, row).await?.ok().filter(known));
            let Some(Some(found)) = all.last() else { continue };
            let AppFound::Known(app) = found.app else { continue };
            let alias = name_entry(Kind::Credential, app, &row.alias);
            keys.push(RecordKey::bytes(Kind::Unique, alias));
            keys.push(RecordKey::number(Kind::Plan, found.plan));
            let owner = txn.shared(Kind::App, app).await?.and_then(|app| app.number("UserID"));
            keys.extend(owner.map(|user| RecordKey::number(Kind::User, user)));
            self.job.hints.learn(row, found, owner);
        }
        txn.prefetch(keys.into_iter()).await?;
        Ok(all)
    }

    /// Puts what the lines ask for into a transaction that has read what they are about.
    pub(super) async fn fill(
        &mut self,
        txn: &mut Txn<'_>,
        items: &[Item],
        known: Vec<Option<Found>>,
    ) -> Result<(), StoreError> {
        let mut known = known.into_iter();
        for item in items {
            self.count(&mut |counts| counts.total += 1);
            let placed = match &item.row {
                Ok(row) => self.place(txn, row, known.next().flatten()).await?,
                Err(faults) => Err(faults.clone()),
            };
            self.note(item, placed);
        }
        Ok(())
    }

    async fn find(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
    ) -> Result<Result<Found, Vec<Fault>>, StoreError> {
        let Job { apps, pipeline, .. } = &mut *self.job;
        let ahead = pipeline.last().map(|prepared| &prepared.lesson.apps);
        let learnt = [&self.lesson.apps].into_iter().chain(ahead).collect::<Vec<_>>();
        find::resolve(txn, &mut self.names, apps, &learnt, row).await
    }

    async fn place(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
        known: Option<Found>,
    ) -> Result<Result<Placed, Vec<Fault>>, StoreError> {
        let found = match known {
            Some(found) => Ok(found),
            None => self.find(txn, row).await?,
        };
        match found {
            Ok(found) if self.job.replaced.is_some_and(|app| !found.app.is(app)) => {
                let text = "must be the app that the file is the whole list of";
                Ok(Err(vec![Fault::new(Code::UnknownApp, "AppID", text)]))
            }
            Ok(found) => self.put(txn, row, found).await,
            Err(faults) => Ok(Err(faults)),
        }
    }

    fn count(&mut self, add: &mut dyn FnMut(&mut Counts)) {
        if self.first {
            add(&mut self.counts);
        }
    }

    /// Counts a line, and writes down what is to be told of it.
    fn note(&mut self, item: &Item, placed: Result<Placed, Vec<Fault>>) {
        let entry = |fault: Fault, warning| Entry {
            line: item.line,
            external_id: item.external.clone(),
            fault,
            warning,
            key_mask: item.mask.clone(),
        };
        let placed = match placed {
            Ok(placed) => placed,
            Err(faults) => {
                self.counts.failed += 1;
                let unreadable = |fault: &Fault| {
                    matches!(fault.code, Code::BadJson | Code::BadRow | Code::LineTooLong)
                };
                self.counts.unreadable += u64::from(faults.iter().any(unreadable));
                self.part.entries.extend(faults.into_iter().map(|fault| entry(fault, false)));
                return;
            }
        };
        if self.first && !item.warnings.is_empty() {
            self.counts.warnings += 1;
            for code in &item.warnings {
                self.part.entries.push(entry(warning(*code), true));
            }
        }
        let (Placed::Created(id) | Placed::Updated(id) | Placed::Unchanged(id)) = placed;
        self.lesson.kept.extend(self.job.replaced.is_some().then_some(id));
        // Of lines that are staged it is told when they are applied.
        if self.pass == Pass::Stage {
            return;
        }
        let count = match placed {
            Placed::Created(_) => &mut self.counts.created,
            Placed::Updated(_) => &mut self.counts.updated,
            Placed::Unchanged(_) => &mut self.counts.unchanged,
        };
        *count += 1;
        if applies(self.pass) {
            self.part.results.push((item.line, id));
        }
    }
}

/// What the lines say that could be read.
pub(super) fn rows(items: &[Item]) -> impl Iterator<Item = &Row> {
    items.iter().filter_map(|item| item.row.as_ref().ok())
}

fn warning(code: Code) -> Fault {
    let (field, text) = if code == Code::WeakKey {
        ("KeyID", "has so few characters that it can be guessed")
    } else {
        ("", "a member means nothing here and is not kept")
    };
    Fault::new(code, field, text)
}
