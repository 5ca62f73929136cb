//! The audit log: who changed what through the admin listener.
//!
//! Every write that an admin token was presented for leaves an entry, whether it was done or not.
//! An entry holds numbers and names of routes, nothing that was sent.

use std::collections::VecDeque;
use std::fmt::Write as _;

use axum::Json;
use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Object, Refusal};
use super::auth::{Caller, reads};
use super::call::parameter;
use crate::domain::time::UnixMs;
use crate::store::{Expect, Generation, Kind, RecordKey, RecordStore, StoreError, Write};
use crate::wire::admin::AuditEntry;
use crate::wire::portal::moment;

/// Entries kept; with a new one the oldest goes. A few megabytes, and weeks of a busy portal.
const ENTRIES_MAX: u64 = 10_000;
/// Entries in an answer that does not say, and at most.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1_000;
/// The header of a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Entries read from the store in one go.
const PAGE: usize = 500;

/// Notes what becomes of a write, and gives every request an id.
///
/// A write goes on to its end when its client hangs up, and its entry is stored before it is
/// answered.
pub(crate) async fn record(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let id = request_id();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.filter(|route| !reads(&method, route.as_str()));
    let Some(route) = route else {
        return with_id(next.run(request).await, &id);
    };
    let who = request.extensions().get::<Caller>().map(|caller| caller.name.to_string());
    let uri = request.extensions().get::<OriginalUri>().map(|uri| uri.0.clone());
    let path = shown_path(route.as_str(), &uri.unwrap_or_else(|| request.uri().clone()));
    let noted = tokio::spawn(async move {
        let response = next.run(request).await;
        let object = response.extensions().get::<Object>();
        let entry = AuditEntry {
            at_ms: state.clock.unix().0,
            who: who.unwrap_or_default(),
            method: method.as_str().to_owned(),
            path,
            object: object.map(|object| object.0.clone()).unwrap_or_default(),
            status: response.status().as_u16(),
            request_id: id.clone(),
        };
        note(&state, &entry).await;
        with_id(response, &id)
    });
    noted.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an admin request failed");
        Refusal::Internal.into_response()
    })
}

/// The newest entries, or those after `since` (the ID of an entry, or a time), oldest first.
pub(crate) async fn list(State(state): State<AdminState>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let limit = parameter(query, "limit").filter(|text| !text.is_empty());
    let limit = limit.map_or(Some(ROWS), |text| text.parse().ok()).filter(|rows| 0 < *rows);
    let since = parameter(query, "since").filter(|text| !text.is_empty());
    let since = since.map_or(Some(Since::Newest), Since::parse);
    let mut faults = Vec::new();
    if limit.is_none() {
        faults.push("limit must be a number above 0".to_owned());
    }
    let (Some(limit), Some(since)) = (limit, since) else {
        if since.is_none() {
            faults.push("since must be the ID of an entry, or a time".to_owned());
        }
        return Refusal::Faults(faults).into_response();
    };
    match entries(&state, since, limit.min(ROWS_MAX)).await {
        Ok(rows) => Json(Value::from(rows)).into_response(),
        Err(error) => Refusal::Store(error).into_response(),
    }
}

/// Where a list of entries begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// As late as the number of rows allows.
    Newest,
    /// After an entry.
    Entry(u64),
    /// After a time.
    Time(UnixMs),
}

impl Since {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Entry(id));
        }
        let plain = text.replace("%3A", ":").replace("%3a", ":").replace("%20", " ");
        moment::parse(&plain.replace('+', " ")).ok().flatten().map(Self::Time)
    }
}

async fn entries(state: &AdminState, since: Since, limit: usize) -> Result<Vec<Value>, StoreError> {
    let store = state.catalog.store();
    let mut after: Option<std::sync::Arc<[u8]>> = match since {
        Since::Entry(id) => Some(id.to_be_bytes().into()),
        Since::Newest | Since::Time(_) => None,
    };
    let mut rows = VecDeque::new();
    loop {
        let page = store.list(Kind::Audit, &[], after.as_deref(), PAGE).await?;
        after = page.records.last().map(|(key, _)| key.id.clone());
        for (key, record) in &page.records {
            let Ok(entry) = serde_json::from_slice::<AuditEntry>(&record.value) else { continue };
            if matches!(since, Since::Time(at) if entry.at_ms <= at.0) {
                continue;
            }
            rows.push_back(shown(key, &entry));
            if limit < rows.len() {
                if since != Since::Newest {
                    rows.pop_back();
                    return Ok(rows.into());
                }
                rows.pop_front();
            }
        }
        if !page.more || after.is_none() {
            return Ok(rows.into());
        }
    }
}

fn shown(key: &RecordKey, entry: &AuditEntry) -> Value {
    let id = <[u8; 8]>::try_from(key.id.as_ref()).map(u64::from_be_bytes).unwrap_or_default();
    json!({
        "ID": id,
        "At": moment::exact(UnixMs(entry.at_ms)),
        "Who": entry.who,
        "Method": entry.method,
        "Path": entry.path,
        "Object": entry.object,
        "Status": entry.status,
        "RequestID": entry.request_id,
    })
}

/// Stores an entry, and writes it to the log. What was done is done: without the store the log is
/// all there is.
async fn note(state: &AdminState, entry: &AuditEntry) {
    tracing::info!(
        target: "audit",
        actor = entry.who,
        method = entry.method,
        path = entry.path,
        object = entry.object,
        status = entry.status,
        request_id = entry.request_id,
        "admin write"
    );
    if let Err(error) = keep(state, entry).await {
        tracing::error!(%error, "an entry of the audit log could not be stored");
    }
}

/// Stores an entry in place of the oldest. Numbers rise over all gateways, so that the log needs
/// no sweep: where a gateway died between taking a number and using it, it is one entry shorter.
async fn keep(state: &AdminState, entry: &AuditEntry) -> Result<Generation, StoreError> {
    let store = state.catalog.store();
    let id = store.next_id(Kind::Audit, 1).await?;
    let damaged = |_shape| StoreError::Damaged { what: "an entry of the audit log" };
    let value = serde_json::to_vec(entry).map_err(damaged)?;
    let write = |id, value: Option<Vec<u8>>| Write {
        key: RecordKey::number(Kind::Audit, id),
        expect: Expect::Anything,
        value: value.map(Into::into),
    };
    let mut writes = vec![write(id, Some(value))];
    writes.extend(id.checked_sub(ENTRIES_MAX).map(|oldest| write(oldest, None)));
    match store.commit(writes).await? {
        crate::store::Committed::At(generation) => Ok(generation),
        crate::store::Committed::Conflict(_) => Ok(Generation::default()),
    }
}

/// The route with the numbers of its objects; what else was in their place is not shown.
fn shown_path(route: &str, uri: &Uri) -> String {
    let mut shown = String::new();
    for (part, given) in route.split('/').zip(uri.path().split('/')).skip(1) {
        let number = given.parse::<u64>().ok().map(|id| id.to_string());
        let name = if part.starts_with('{') { number.as_deref().unwrap_or("-") } else { part };
        let _infallible = write!(shown, "/{name}");
    }
    shown
}

/// The response with an id, if it has none: some are refused before they get one.
pub(crate) fn named(response: Response) -> Response {
    if response.headers().contains_key(REQUEST_ID) {
        return response;
    }
    with_id(response, &request_id())
}

fn with_id(mut response: Response, id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// 16 random bytes; without randomness the id says nothing.
fn request_id() -> String {
    let mut noise = [0; 16];
    let _zeros = getrandom::fill(&mut noise);
    noise.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_numbers_and_nothing_else_that_was_sent() {
        let check = |route: &str, path: &'static str, expect: &str| {
            assert_eq!(shown_path(route, &Uri::from_static(path)), expect);
        };
        check("/v1/imports", "/v1/imports?token=secret", "/v1/imports");
        check("/portal-api/apps/{id}", "/portal-api/apps/41", "/portal-api/apps/41");
        check("/tyk/keys/{key}", "/tyk/keys/LEG-00fa-91c2?x=1", "/tyk/keys/-");
    }

    #[test]
    fn a_list_begins_after_an_entry_or_a_time() {
        assert_eq!(Since::parse("17"), Some(Since::Entry(17)));
        let nine = Some(Since::Time(UnixMs(1_772_442_840_000)));
        for text in ["2026-03-02T09:14:00Z", "2026-03-02%2009%3A14", "2026-03-02+09:14"] {
            assert_eq!(Since::parse(text), nine, "{text}");
        }
        assert_eq!(Since::parse("soon"), None);
    }
}
