//! How every kind of object is listed, shown, made, changed and deleted: once.

use std::future::Future;
use std::marker::PhantomData;

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::{Call, Paging};
use super::catalogues::Viewer;
use super::draft::Draft;
use super::txn::{Txn, decode};
use crate::domain::seal::Reveal;
use crate::store::{Kind, RecordKey, RecordStore, StoreError};
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Faults, Fields, Members, Ref};
use crate::wire::portal::stored::Stored;
use crate::wire::portal::{moment, secrets};

/// Records per read of a list.
const PAGE: usize = 500;

/// A kind of object as a path shows it.
pub(crate) trait Resource: Sized + Send + Sync + 'static {
    /// Its records.
    const KIND: Kind;
    /// What to call one.
    const NOUN: &'static str;
    /// The objects in the path before it, outermost first; each belongs to the one before.
    const SCOPE: &'static [(Kind, &'static str)] = &[];
    /// What the answer to a deletion says, if anything.
    const DELETED: Option<&'static str> = None;
    /// Whether catalogues say who sees one.
    const SHELVED: bool = false;

    /// What is shown of one.
    fn show(
        object: &Stored,
        txn: &mut Txn<'_>,
        view: View,
    ) -> impl Future<Output = Result<Members, StoreError>> + Send;

    /// Whether somebody sees one.
    fn seen(
        _object: &Stored,
        _viewer: &mut Viewer,
        _txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async { Ok(true) }
    }

    /// Deletes what goes with it; the object itself goes once [`Txn::rest`] asks for no more.
    fn cascade(
        object: &Stored,
        txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// A kind of object that bodies make and change.
pub(crate) trait Writable: Resource {
    /// The status of a creation (portal-api, 0.5).
    const CREATED: StatusCode = StatusCode::OK;
    /// The status of changing what is not there.
    const PUT_MISSING: StatusCode = StatusCode::NOT_FOUND;
    /// Members that are shown and that no body sets.
    const READ_ONLY: &'static [&'static str] = &[];
    /// Members with secrets that it takes; of all others such members are not kept.
    const SECRETS: &'static [&'static str] = &[];

    /// Brings other spellings of a body into one, before it is laid over the members of `before`.
    fn normalise(_body: &mut Members, _before: Option<&mut Stored>) {}

    /// Reads a body.
    fn read(fields: &mut Fields<'_>, purpose: Purpose) -> Self;

    /// The object that a body would make once more, where a caller may ask for that.
    fn known(
        _body: Members,
        _owner: Option<(Kind, u64)>,
        _txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// Checks what needs the store: adds faults, sets references, claims names and owners.
    fn check(
        &mut self,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes what goes with it; the object is written already and has its number.
    fn after(
        &mut self,
        _draft: &mut Draft<'_>,
        _txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// As a row of a list.
    pub(crate) row: bool,
    /// With limits as texts.
    pub(crate) texts: bool,
    /// With secrets that may be shown again, or masked.
    pub(crate) reveal: Reveal,
}

impl View {
    /// How one object is shown in answer to a call.
    pub(crate) fn of(state: &AdminState, call: &Call) -> Self {
        let reveal = if call.may_write { state.reveal } else { Reveal::Once };
        Self { row: false, texts: call.texts, reveal }
    }
}

/// One request as a transaction, run again when others were faster.
pub(crate) trait Operation: 'static {
    /// Whether it is one of the portal's actions, which say `"status":"error"` when refused.
    const ACTION: bool = false;

    /// Reads, checks, and leaves writes in `txn`.
    fn run(
        state: &AdminState,
        txn: &mut Txn<'_>,
        call: &Call,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// Lists objects.
pub(crate) struct Index<R>(PhantomData<R>);
/// Shows one.
pub(crate) struct Show<R>(PhantomData<R>);
/// Makes one.
pub(crate) struct Create<R>(PhantomData<R>);
/// Changes one: members that a body leaves out stay.
pub(crate) struct Update<R>(PhantomData<R>);
/// Deletes one.
pub(crate) struct Delete<R>(PhantomData<R>);

impl<R: Resource> Operation for Index<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let owner = scope::<R>(txn, call).await?;
        let paging = call.paging.clone().map_err(Refusal::Faults)?;
        let listed = match call.parameter("user").filter(|_| R::SHELVED) {
            Some(user) => seen_by::<R>(user, txn, paging).await?,
            None => objects(txn, R::KIND, owner, paging).await?,
        };
        let mut rows = Vec::new();
        for object in listed {
            let view = View { row: true, ..View::of(state, call) };
            rows.push(Value::from(R::show(&object, txn, view).await?));
        }
        let rows = Value::from(rows);
        let body = if call.envelope { json!({ "data": rows }) } else { rows };
        Ok(Answer { status: StatusCode::OK, body, object: String::new() })
    }
}

impl<R: Resource> Operation for Show<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let object = find::<R>(txn, call, StatusCode::NOT_FOUND).await?;
        let body = R::show(&object, txn, View::of(state, call)).await?.into();
        Ok(Answer { status: StatusCode::OK, body, object: named::<R>(object.id) })
    }
}

impl<R: Writable> Operation for Create<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let body = call.members()?;
        let owner = scope::<R>(txn, call).await?;
        if call.upsert
            && let Some(object) = R::known(body.clone(), owner, txn).await?
        {
            let body = R::show(&object, txn, View::of(state, call)).await?.into();
            return Ok(Answer { status: StatusCode::OK, body, object: named::<R>(object.id) });
        }
        let mut after = Stored::default();
        after.links.parent = owner.map(|(_, id)| id);
        write::<R>(state, txn, call, Draft::new(state, None, after), body).await
    }
}

impl<R: Writable> Operation for Update<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let body = call.members()?;
        let before = find::<R>(txn, call, R::PUT_MISSING).await?;
        let mut after = before.clone();
        after.owners.clear();
        after.uniques.clear();
        write::<R>(state, txn, call, Draft::new(state, Some(before), after), body).await
    }
}

impl<R: Resource> Operation for Delete<R> {
    async fn run(_: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let object = find::<R>(txn, call, StatusCode::NOT_FOUND).await?;
        R::cascade(&object, txn).await?;
        if !txn.rest.again {
            txn.erase(R::KIND, &object).await?;
        }
        let mut answer = Answer::done(named::<R>(object.id));
        if let (Some(text), Some(body)) = (R::DELETED, answer.body.as_object_mut()) {
            body.insert("message".to_owned(), text.into());
        }
        Ok(answer)
    }
}

async fn write<R: Writable>(
    state: &AdminState,
    txn: &mut Txn<'_>,
    call: &Call,
    draft: Draft<'_>,
    body: Members,
) -> Result<Answer, Refusal> {
    let status = if draft.before.is_none() { R::CREATED } else { StatusCode::OK };
    let mut draft = store::<R>(state, txn, draft, body).await?;
    let mut shown = R::show(&draft.after, txn, View::of(state, call)).await?;
    shown.append(&mut draft.once);
    Ok(Answer { status, body: shown.into(), object: named::<R>(draft.after.id) })
}

/// Makes or changes an object as a body says, and all that goes with it.
pub(crate) async fn store<'s, R: Writable>(
    state: &AdminState,
    txn: &mut Txn<'_>,
    mut draft: Draft<'s>,
    mut body: Members,
) -> Result<Draft<'s>, Refusal> {
    let creates = draft.before.is_none();
    draft.take_cid(&mut body);
    secrets::discard(&mut body, R::SECRETS);
    for name in ["ID", "CreatedAt", "UpdatedAt", "DeletedAt"].iter().chain(R::READ_ONLY) {
        body.remove(*name);
    }
    R::normalise(&mut body, (!creates).then_some(&mut draft.after));
    let mut members = std::mem::take(&mut draft.after.members);
    members.extend(body);
    let mut faults = std::mem::take(&mut draft.faults);
    let mut fields = Fields::of(members, &mut faults);
    let mut item = R::read(&mut fields, if creates { Purpose::Create } else { Purpose::Change });
    draft.after.members = fields.finish();
    draft.faults = faults;
    draft.claim_cid(txn, R::KIND).await?;
    item.check(&mut draft, txn).await?;
    Refusal::unless_empty(std::mem::take(&mut draft.faults))?;

    draft.after.updated_ms = state.clock.unix().0;
    if creates {
        draft.number(txn.next_id(R::KIND).await?);
    }
    draft.guard_owners(txn).await?;
    txn.save(R::KIND, draft.before.as_ref(), &draft.after).await?;
    item.after(&mut draft, txn).await?;
    Ok(draft)
}

/// What is the same in all objects, over their members.
pub(crate) fn base(object: &Stored) -> Members {
    let mut shown = object.members.clone();
    let at = |ms| moment::shown(crate::domain::time::UnixMs(ms));
    shown.insert("ID".to_owned(), object.id.into());
    shown.insert("CID".to_owned(), object.cid.as_str().into());
    shown.insert("CreatedAt".to_owned(), at(object.created_ms).into());
    shown.insert("UpdatedAt".to_owned(), at(object.updated_ms).into());
    shown
}

/// The objects of a page, by number.
pub(crate) async fn objects(
    txn: &mut Txn<'_>,
    kind: Kind,
    owner: Option<(Kind, u64)>,
    paging: Paging,
) -> Result<Vec<Stored>, StoreError> {
    let skip = usize::try_from(paging.offset).unwrap_or(usize::MAX);
    let rows = usize::try_from(paging.rows).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    if let Some(owner) = owner {
        let most = skip.saturating_add(rows);
        let ids = txn.belongings(owner, kind, most).await?;
        let ids = ids.get(skip..).unwrap_or_default();
        txn.prefetch(ids.iter().map(|id| RecordKey::number(kind, *id))).await?;
        for id in ids {
            found.extend(txn.object(kind, *id).await?);
        }
        return Ok(found);
    }
    let (mut after, mut skip) = (None::<std::sync::Arc<[u8]>>, skip);
    while found.len() < rows {
        let wanted = skip.saturating_add(rows - found.len()).min(PAGE);
        let page = txn.catalog().store().list(kind, &[], after.as_deref(), wanted).await?;
        after = page.records.last().map(|(key, _)| key.id.clone());
        let skipped = skip.min(page.records.len());
        for (_, record) in page.records.iter().skip(skipped).take(rows - found.len()) {
            found.push(decode(&record.value)?);
        }
        skip -= skipped;
        if !page.more || after.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The objects of a page of those that a user sees.
async fn seen_by<R: Resource>(
    user: &str,
    txn: &mut Txn<'_>,
    paging: Paging,
) -> Result<Vec<Stored>, Refusal> {
    let user = match Ref::parse(user) {
        Some(named) => txn.resolve(Kind::User, &named).await?,
        None => None,
    };
    let user = match user {
        Some(id) => txn.object(Kind::User, id).await?,
        None => None,
    };
    let mut viewer = Viewer::new(&user.ok_or_else(|| refuse("user names nothing that exists"))?);
    let all = Paging { offset: 0, rows: u64::MAX };
    let (mut skip, mut found) = (paging.offset, Vec::new());
    for object in objects(txn, R::KIND, None, all).await? {
        if u64::try_from(found.len()).is_ok_and(|rows| paging.rows <= rows) {
            break;
        }
        if !R::seen(&object, &mut viewer, txn).await? {
            continue;
        }
        match skip {
            0 => found.push(object),
            _ => skip -= 1,
        }
    }
    Ok(found)
}

/// The innermost object of the path before the last.
async fn scope<R: Resource>(
    txn: &mut Txn<'_>,
    call: &Call,
) -> Result<Option<(Kind, u64)>, Refusal> {
    let mut owner = None;
    for ((kind, noun), text) in R::SCOPE.iter().zip(&call.params) {
        let id = member(txn, owner, *kind, text).await?;
        owner = Some((*kind, id.ok_or_else(|| missing(noun, StatusCode::NOT_FOUND))?));
    }
    Ok(owner)
}

/// The object that the path ends with.
pub(crate) async fn find<R: Resource>(
    txn: &mut Txn<'_>,
    call: &Call,
    status: StatusCode,
) -> Result<Stored, Refusal> {
    let owner = scope::<R>(txn, call).await?;
    let text = call.params.get(R::SCOPE.len()).map(String::as_str).unwrap_or_default();
    let id = member(txn, owner, R::KIND, text).await?;
    let id = id.ok_or_else(|| missing(R::NOUN, status))?;
    txn.object(R::KIND, id).await?.ok_or_else(|| missing(R::NOUN, status))
}

async fn member(
    txn: &mut Txn<'_>,
    owner: Option<(Kind, u64)>,
    kind: Kind,
    text: &str,
) -> Result<Option<u64>, StoreError> {
    let Some(named) = Ref::parse(text) else { return Ok(None) };
    let Some(id) = txn.resolve(kind, &named).await? else { return Ok(None) };
    let belongs = match owner {
        Some(owner) => txn.belongs(owner, (kind, id)).await?,
        None => true,
    };
    Ok(belongs.then_some(id))
}

pub(crate) fn missing(noun: &str, status: StatusCode) -> Refusal {
    Refusal::Missing { status, text: format!("{noun} not found") }
}

fn named<R: Resource>(id: u64) -> String {
    format!("{} {id}", R::NOUN)
}

/// One fault as a refusal.
pub(crate) fn refuse(text: &str) -> Refusal {
    let mut faults = Faults::default();
    faults.sentence(text);
    Refusal::Faults(faults.into_texts())
}
