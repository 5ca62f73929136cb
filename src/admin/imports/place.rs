//! One line as a credential.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::batch::{Batch, Used};
use super::find::{AppFound, Found, UserFound, applies};
use crate::admin::answer::Refusal;
use crate::admin::credentials::{approved, expiry_by_plan};
use crate::admin::crud;
use crate::admin::draft::{Draft, made};
use crate::admin::keys::{hex, record, token_of, write_token};
use crate::admin::txn::{Txn, kind_byte, name_entry};
use crate::admin::{AdminState, tokens};
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::store::{AnyStore, Kind, RecordKey, RecordStore, StoreError};
use crate::wire::imports::options::Mode;
use crate::wire::imports::row::{Expiry, Row};
use crate::wire::imports::{Code, Fault};
use crate::wire::portal::fields::Members;
use crate::wire::portal::moment;
use crate::wire::portal::people::{App, User};
use crate::wire::portal::stored::{Stored, TokenFacts};
use crate::wire::record::KeyRecord;

/// Numbers taken from the store at first; then each time twice as many, since lines wait for them.
const NUMBERS: u64 = 256;
/// The most that are taken at once.
const NUMBERS_MAX: u64 = 16_384;

/// What became of a line; of which credential, or 0 where nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Created(u64),
    Updated(u64),
    Unchanged(u64),
}

/// Numbers for new objects, taken many at a time, and how many will be next. Those that are left over,
/// no more than were used or [`NUMBERS`], are nobody's.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<Kind, (std::ops::Range<u64>, u64)>);

impl Numbers {
    async fn take(&mut self, store: &AnyStore, kind: Kind) -> Result<u64, StoreError> {
        let (numbers, count) = self.0.entry(kind).or_insert((0..0, NUMBERS));
        if let Some(number) = numbers.next() {
            return Ok(number);
        }
        let first = store.next_id(kind, *count).await?;
        *numbers = first.saturating_add(1)..first.saturating_add(*count);
        *count = count.saturating_mul(2).min(NUMBERS_MAX);
        Ok(first)
    }
}

/// What admits to this listener, as tokens are hashed.
pub(super) async fn admits(state: &AdminState) -> Result<HashSet<[u8; 32]>, StoreError> {
    let mut hashes = tokens::hashes(state).await?;
    hashes.insert(state.secret.hash(state.catalog.pepper()).0);
    Ok(hashes)
}

impl Batch<'_> {
    /// Writes what a line asks for, or says all that speaks against it.
    pub(super) async fn put(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
        found: Found,
    ) -> Result<Result<Placed, Vec<Fault>>, StoreError> {
        if self.job.admits.contains(&row.hash) {
            let text = "must not be an admin token";
            return Ok(Err(vec![Fault::new(Code::KeyInUse, "KeyID", text)]));
        }
        let now = self.job.state.clock.unix();
        let retired = |known: &KeyRecord| known.retires_ms.is_some_and(|at| UnixMs(at) <= now);
        let known = record(txn, &TokenHash(row.hash)).await?.filter(|known| !retired(known));
        match known {
            Some(known) => self.update(txn, row, &found, known.credential).await,
            None => self.create(txn, row, found).await,
        }
    }

    async fn create(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
        found: Found,
    ) -> Result<Result<Placed, Vec<Fault>>, StoreError> {
        let now = self.job.state.clock.unix();
        let mut faults: Vec<_> = in_past(row, now).into_iter().collect();
        if let AppFound::Known(app) = found.app
            && txn.unique(&name_entry(Kind::Credential, app, &row.alias)).await?.is_some()
        {
            faults.push(alias_in_use());
        }
        if !applies(self.pass) {
            return self.plan(txn, row, &found.app, faults).await;
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        let app = match self.app(txn, found.app).await? {
            Ok(app) => app,
            Err(faults) => return Ok(Err(faults)),
        };
        let store = self.job.state.catalog.store().clone();
        let id = self.job.numbers.take(&store, Kind::Credential).await?;
        let request = self.job.numbers.take(&store, Kind::AccessRequest).await?;
        let mut after = made(id, now);
        after.members = members(row, found.plan, &found.products);
        if row.expires == Expiry::Absent {
            let ends = expiry_by_plan(txn, Some(found.plan), now).await?;
            after.members.extend(ends.map(|ends| ("Expires".to_owned(), ends.into())));
        }
        after.uniques.push(name_entry(Kind::Credential, app, &row.alias));
        after.owners.push((kind_byte(Kind::App), app));
        let token = TokenFacts { hash: hex(&row.hash), mask: row.mask.clone(), sealed: None };
        after.links.token = Some(token);
        after.links.parent = Some(app);
        txn.save_new(Kind::AccessRequest, &approved(&after, request));
        after.links.request = Some(request);
        txn.guard(RecordKey::number(Kind::App, app)).await?;
        txn.save_new(Kind::Credential, &after);
        write_token(txn, &after).await?;
        self.carry_on(row, 0);
        Ok(Ok(Placed::Created(id)))
    }

    async fn update(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
        found: &Found,
        id: u64,
    ) -> Result<Result<Placed, Vec<Fault>>, StoreError> {
        let in_use = || Ok(Err(vec![Fault::new(Code::KeyInUse, "KeyID", "is already in use")]));
        let Some(before) = txn.object(Kind::Credential, id).await? else { return in_use() };
        let AppFound::Known(app) = found.app else { return in_use() };
        let own = token_of(&before).is_some_and(|hash| hash.0 == row.hash);
        if !own || before.links.parent != Some(app) {
            return in_use();
        }
        let after = changed(&before, row, found);
        if after.members == before.members {
            return Ok(Ok(Placed::Unchanged(id)));
        }
        if self.job.options.mode == Mode::Create {
            return in_use();
        }
        let now = self.job.state.clock.unix();
        let moved = after.members.get("Expires") != before.members.get("Expires");
        let mut faults: Vec<_> = in_past(row, now).into_iter().filter(|_| moved).collect();
        let (old, new) = (before.text("Alias"), after.text("Alias"));
        let entry = name_entry(Kind::Credential, app, new);
        if old != new && txn.unique(&entry).await?.is_some() {
            faults.push(alias_in_use());
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        if applies(self.pass) {
            let mut after = after;
            after.updated_ms = now.0;
            let old = name_entry(Kind::Credential, app, old);
            for held in after.uniques.iter_mut().filter(|held| **held == old) {
                held.clone_from(&entry);
            }
            txn.save(Kind::Credential, Some(&before), &after).await?;
            write_token(txn, &after).await?;
            self.carry_on(row, before.number("QuotaUsed").unwrap_or_default());
        }
        Ok(Ok(Placed::Updated(id)))
    }

    /// What a line that is only looked at would become.
    async fn plan(
        &mut self,
        txn: &mut Txn<'_>,
        row: &Row,
        app: &AppFound,
        mut faults: Vec<Fault>,
    ) -> Result<Result<Placed, Vec<Fault>>, StoreError> {
        let whose = match app {
            AppFound::Known(id) => fingerprint(("app", id)),
            AppFound::New { name, user: UserFound::Known(id) } => fingerprint(("own", id, name)),
            AppFound::New { name, user: UserFound::New(user) } => {
                let user = fingerprint(("user", &user.email));
                if !self.planned(user) {
                    // Made for nothing, in a transaction that nobody commits.
                    let mut draft = Txn::new(txn.catalog());
                    faults
                        .extend(self.app(&mut draft, app.clone()).await?.err().unwrap_or_default());
                    self.lesson.apps.clear();
                    self.lesson.planned.insert(user);
                }
                fingerprint(("new", user, name))
            }
        };
        let alias = fingerprint((whose, &row.alias));
        if self.planned(alias) {
            faults.push(alias_in_use());
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        self.lesson.planned.insert(alias);
        Ok(Ok(Placed::Created(0)))
    }

    fn planned(&self, what: u64) -> bool {
        let ahead = self.job.pipeline.last().map(|prepared| &prepared.lesson.planned);
        let all = [&self.job.planned, &self.lesson.planned];
        all.into_iter().chain(ahead).any(|planned| planned.contains(&what))
    }

    /// The app of a line, made if it is not there.
    async fn app(
        &mut self,
        txn: &mut Txn<'_>,
        app: AppFound,
    ) -> Result<Result<u64, Vec<Fault>>, StoreError> {
        let (name, user) = match app {
            AppFound::Known(id) => return Ok(Ok(id)),
            AppFound::New { name, user } => (name, user),
        };
        let state = self.job.state.clone();
        let user = match user {
            UserFound::Known(id) => id,
            UserFound::New(named) => {
                let mut body = named.new.unwrap_or_default();
                body.insert("Email".to_owned(), named.email.into());
                let draft = Draft::new(&state, None, Stored::default());
                match crud::store::<User>(&state, txn, draft, body).await {
                    Ok(draft) => draft.after.id,
                    Err(refusal) => return faults_of(refusal, "User"),
                }
            }
        };
        let mut body = Members::new();
        body.insert("Name".to_owned(), name.as_str().into());
        body.insert("UserID".to_owned(), user.into());
        let draft = Draft::new(&state, None, Stored::default());
        match crud::store::<App>(&state, txn, draft, body).await {
            Ok(draft) => {
                self.lesson.apps.push((user, name, draft.after.id));
                Ok(Ok(draft.after.id))
            }
            Err(refusal) => faults_of(refusal, "App"),
        }
    }

    /// Notes units used up elsewhere, if they are more than were noted before.
    fn carry_on(&mut self, row: &Row, before: u64) {
        if before < row.quota_used {
            let renews = row.quota_renews_ms.map(UnixMs);
            self.used.push(Used { token: TokenHash(row.hash), used: row.quota_used, renews });
        }
    }
}

/// The members of a new credential, as the portal's own way of importing one leaves them.
fn members(row: &Row, plan: u64, products: &[u64]) -> Members {
    let mut members = Members::new();
    let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
    set("Alias", row.alias.as_str().into());
    set("Type", "CREDENTIAL_TYPE_TYK_MANAGED".into());
    set("AuthenticationMethod", "authToken".into());
    set("AuthTokenType", "AUTH_TOKEN_CUSTOM".into());
    set("PlanID", plan.into());
    set("ProductIDs", products.into());
    set("Active", row.active.unwrap_or(true).into());
    set("MetaData", row.metadata.clone().unwrap_or_default().into());
    if let Expiry::At(at) = row.expires {
        set("Expires", moment::exact(UnixMs(at)).into());
    }
    if !row.description.is_empty() {
        set("Description", row.description.as_str().into());
    }
    if 0 < row.quota_used {
        set("QuotaUsed", row.quota_used.into());
    }
    members
}

/// A credential as its line says; what the line does not say stays.
fn changed(before: &Stored, row: &Row, found: &Found) -> Stored {
    let mut after = before.clone();
    let mut set = |name: &str, value: Value| after.members.insert(name.to_owned(), value);
    set("Alias", row.alias.as_str().into());
    set("PlanID", found.plan.into());
    let had = before.numbers("ProductIDs");
    let same =
        had.len() == found.products.len() && had.iter().all(|id| found.products.contains(id));
    if !same {
        set("ProductIDs", found.products.as_slice().into());
    }
    if let Some(active) = row.active {
        set("Active", active.into());
    }
    if let Some(metadata) = &row.metadata {
        set("MetaData", metadata.clone().into());
    }
    if !row.description.is_empty() {
        set("Description", row.description.as_str().into());
    }
    if before.number("QuotaUsed").unwrap_or_default() < row.quota_used {
        set("QuotaUsed", row.quota_used.into());
    }
    match row.expires {
        Expiry::Absent => {}
        Expiry::Never => {
            after.members.remove("Expires");
        }
        Expiry::At(at) => {
            after.members.insert("Expires".to_owned(), moment::exact(UnixMs(at)).into());
        }
    }
    after
}

fn in_past(row: &Row, now: UnixMs) -> Option<Fault> {
    let over = matches!(row.expires, Expiry::At(at) if at <= now.0);
    over.then(|| Fault::new(Code::ExpiresInPast, "Expires", "is over already"))
}

fn alias_in_use() -> Fault {
    Fault::new(Code::AliasInUse, "Alias", "is already in use in this app")
}

fn faults_of<T>(refusal: Refusal, field: &str) -> Result<Result<T, Vec<Fault>>, StoreError> {
    match refusal.into_faults()? {
        texts if texts.is_empty() => Err(StoreError::Damaged { what: "a reference" }),
        texts => Ok(Err(texts.into_iter().map(|t| Fault::new(Code::BadType, field, t)).collect())),
    }
}

/// A number that stands for a value: two of a million values have the same once in 30 million
/// imports.
pub(super) fn fingerprint(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
