//! Bulk imports of credentials (portal-api, F2): `/v1/imports`.
//!
//! A file streams in over one request, is read by one thread and applied by another, in commits of
//! some dozen or some hundred lines. Everything that is known of an import lies in the store, written with each commit:
//! any gateway can show it or end it, and a run that broke off is done again from the beginning,
//! since lines that are applied already change nothing.

mod batch;
mod early;
mod feed;
mod find;
mod flight;
mod job;
mod operations;
mod place;
mod reader;
mod replace;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::auth::Caller;
use super::keys::hex;
use crate::domain::time::UnixMs;
use crate::store::{Committed, Expect, Kind, RecordKey, RecordStore, StoreError, Write};
use crate::wire::imports::options::{Options, OptionsFault};
use crate::wire::imports::record::{Import, Status};
use feed::{BYTES_MAX, Fed};
use job::Job;
pub(crate) use operations::{CancelImport, ListImports, ShowImport, errors, results};

/// Imports that run at once: each has a thread, and they share the store.
const RUNNING_MAX: usize = 4;
/// Imports whose reports are kept.
const KEPT_MAX: usize = 20;
/// Records deleted by one commit.
const PAGE: usize = 500;

/// Takes a file in. The answer is 202 with the import as it stands when the file has arrived, or
/// 200 when it ends within `wait`.
pub(crate) async fn start(State(state): State<AdminState>, request: Request) -> Response {
    match run(&state, request).await {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn run(state: &AdminState, request: Request) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let unreadable = |_| Refusal::Faults(vec!["the query cannot be read".to_owned()]);
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let options = Options::parse(&pairs.map_err(unreadable)?.0, text(header::CONTENT_TYPE));
    let options = options.map_err(|fault| match fault {
        OptionsFault::NoFormat => Refusal::Unsupported,
        OptionsFault::Faults(faults) => Refusal::Faults(faults),
    })?;
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| BYTES_MAX < length) {
        return Err(Refusal::TooLarge { bytes_max: BYTES_MAX });
    }
    let by = parts.extensions.get::<Caller>().map(|caller| caller.name.to_string());
    let import = open(state, &options, by.unwrap_or_default(), &parts.headers).await?;
    let (id, wait) = (import.id, options.wait);
    let (chunks, taken) = feed::channel();
    let (report, mut ended) = oneshot::channel();
    Job::spawn(state.clone(), options, import, taken, report)?;
    match feed::pump(body, chunks).await {
        Fed::All | Fed::Unwanted => {}
        Fed::TooLarge => return Err(Refusal::TooLarge { bytes_max: BYTES_MAX }),
        Fed::Slow => return Err(Refusal::Slow),
        Fed::Broken => return Err(Refusal::Malformed("the body broke off".to_owned())),
    }
    let now = state.clock.unix();
    match tokio::time::timeout(wait, &mut ended).await {
        Ok(Ok(import)) => Ok(answer(&import, now)),
        // It goes on; or its thread died, and its record says what it did.
        Err(_) | Ok(Err(_)) => {
            let import = read(state, id).await?.unwrap_or_default();
            let body = import.shown(now);
            Ok(Answer { status: StatusCode::ACCEPTED, body, object: named(id) })
        }
    }
}

/// What an import that has ended is answered with.
fn answer(import: &Import, now: UnixMs) -> Answer {
    let counts = import.counts;
    let unreadable = 0 < counts.total && counts.total == counts.unreadable;
    let mut body = import.shown(now);
    let failed = import.status == Status::Failed;
    if let (Some(members), true) = (body.as_object_mut(), failed || unreadable) {
        let text = "no line can be read".to_owned();
        let text = import.reason.clone().unwrap_or(text);
        members.insert("errors".to_owned(), vec![text].into());
    }
    let status =
        if failed || unreadable { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Answer { status, body, object: named(import.id) }
}

/// Makes the record of a new import, and forgets the oldest.
async fn open(
    state: &AdminState,
    options: &Options,
    by: String,
    headers: &HeaderMap,
) -> Result<Import, Refusal> {
    let now = state.clock.unix();
    let key = headers.get("idempotency-key");
    let idempotency = key.map(|key| hex(&Sha256::digest(key.as_bytes())));
    let all = all(state).await?;
    let running: Vec<_> = all.iter().filter(|import| import.runs(now)).collect();
    let same = |import: &&&Import| idempotency.is_some() && import.idempotency == idempotency;
    if let Some(import) = running.iter().find(same) {
        let id = import.id;
        return Err(Refusal::Conflict(format!("import {id} has the same Idempotency-Key")));
    }
    if RUNNING_MAX <= running.len() {
        return Err(Refusal::Conflict(format!("{RUNNING_MAX} imports are running: wait for one")));
    }
    let over = all.len().saturating_add(1).saturating_sub(KEPT_MAX);
    for old in all.iter().filter(|import| !import.runs(now)).take(over) {
        forget(state, old.id).await?;
    }
    let import = Import {
        id: state.catalog.store().next_id(Kind::Import, 1).await?,
        by,
        idempotency,
        asked: options.into(),
        started_ms: now.0,
        updated_ms: now.0,
        ..Import::default()
    };
    let (key, value) = (RecordKey::number(Kind::Import, import.id), encode(&import));
    let write = Write { key, expect: Expect::Absent, value: Some(value.into()) };
    match state.catalog.commit(&[write]).await? {
        Committed::At(_) => Ok(import),
        Committed::Conflict(_) => Err(Refusal::Busy),
    }
}

/// All imports whose reports are kept, the oldest first.
async fn all(state: &AdminState) -> Result<Vec<Import>, StoreError> {
    let store = state.catalog.store();
    let page = store.list(Kind::Import, &[], None, 4 * KEPT_MAX).await?;
    page.records.iter().map(|(_, record)| decode(&record.value)).collect()
}

async fn read(state: &AdminState, id: u64) -> Result<Option<Import>, StoreError> {
    let record = state.catalog.store().get(&RecordKey::number(Kind::Import, id)).await?;
    record.map(|record| decode(&record.value)).transpose()
}

/// Deletes an import's report. What it applied stays.
async fn forget(state: &AdminState, id: u64) -> Result<(), StoreError> {
    delete_parts(state, &id.to_be_bytes()).await?;
    let write = gone(RecordKey::number(Kind::Import, id));
    state.catalog.commit(&[write]).await.map(|_| ())
}

async fn delete_parts(state: &AdminState, prefix: &[u8]) -> Result<(), StoreError> {
    loop {
        let page = state.catalog.store().list(Kind::ImportPart, prefix, None, PAGE).await?;
        if page.records.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = page.records.into_iter().map(|(key, _)| gone(key)).collect();
        state.catalog.commit(&writes).await?;
    }
}

fn gone(key: RecordKey) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

/// Parts of an import: lines that wait to be applied, and what became of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    Draft = 1,
    Report = 2,
}

fn part_prefix(id: u64, kind: PartKind) -> Vec<u8> {
    #[expect(clippy::as_conversions, reason = "the enum's own numbers")]
    let kind = kind as u8;
    [id.to_be_bytes().as_slice(), &[kind]].concat()
}

fn part_key(id: u64, kind: PartKind, number: u64) -> RecordKey {
    let prefix = part_prefix(id, kind);
    RecordKey::bytes(Kind::ImportPart, [prefix.as_slice(), &number.to_be_bytes()].concat())
}

fn decode(value: &[u8]) -> Result<Import, StoreError> {
    serde_json::from_slice(value).map_err(damaged)
}

fn encode(import: &Import) -> Vec<u8> {
    // Texts and numbers: there is nothing in it that could fail.
    serde_json::to_vec(import).unwrap_or_default()
}

fn damaged(_shape: serde_json::Error) -> StoreError {
    StoreError::Damaged { what: "an import" }
}

fn named(id: u64) -> String {
    format!("import {id}")
}
