//! Showing imports, and ending them.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{PartKind, all, damaged, decode, encode, named, part_prefix, read};
use crate::admin::AdminState;
use crate::admin::answer::{Answer, Refusal};
use crate::admin::call::Call;
use crate::admin::crud::Operation;
use crate::admin::txn::Txn;
use crate::store::{Kind, RecordKey, RecordStore, StoreError};
use crate::wire::imports::record::{Import, Part};

/// Parts of a report read at once.
const PAGE: usize = 16;

/// What a path names an import by; what is no text names none.
type Named = Result<Path<String>, PathRejection>;

/// Lists imports, the newest first.
pub(crate) struct ListImports;
/// Shows how one goes.
pub(crate) struct ShowImport;
/// Ends one. What it applied stays; one that applies all lines or none has begun, or has not.
pub(crate) struct CancelImport;

impl Operation for ListImports {
    async fn run(state: &AdminState, _: &mut Txn<'_>, _: &Call) -> Result<Answer, Refusal> {
        let now = state.clock.unix();
        let rows: Vec<_> = all(state).await?.iter().rev().map(|one| one.shown(now)).collect();
        Ok(Answer { status: StatusCode::OK, body: rows.into(), object: String::new() })
    }
}

impl Operation for ShowImport {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let (_, import) = find(txn, call).await?;
        let body = import.shown(state.clock.unix());
        Ok(Answer { status: StatusCode::OK, body, object: named(import.id) })
    }
}

impl Operation for CancelImport {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let (key, mut import) = find(txn, call).await?;
        if import.runs(state.clock.unix()) {
            if import.applying {
                let id = import.id;
                let text = format!("import {id} applies all lines or none, and has begun to");
                return Err(Refusal::Conflict(text));
            }
            import.cancel = true;
            txn.put(key, Some(encode(&import))).await?;
        }
        let body = import.shown(state.clock.unix());
        Ok(Answer { status: StatusCode::OK, body, object: named(import.id) })
    }
}

async fn find(txn: &mut Txn<'_>, call: &Call) -> Result<(RecordKey, Import), Refusal> {
    let id = call.params.first().and_then(|id| id.parse().ok()).ok_or_else(missing)?;
    let key = RecordKey::number(Kind::Import, id);
    let value = txn.get(&key).await?.ok_or_else(missing)?;
    Ok((key, decode(&value)?))
}

fn missing() -> Refusal {
    Refusal::Missing { status: StatusCode::NOT_FOUND, text: "import not found".to_owned() }
}

/// The lines with faults or warnings, one JSON object a line.
pub(crate) async fn errors(state: State<AdminState>, id: Named) -> Response {
    report(state, id, |part| {
        part.entries.iter().map(|entry| serde_json::to_value(entry).unwrap_or_default()).collect()
    })
    .await
}

/// The lines that were applied, each with its credential, one JSON object a line.
pub(crate) async fn results(state: State<AdminState>, id: Named) -> Response {
    report(state, id, |part| {
        let row = |(line, id): &(u64, u64)| json!({ "line": line, "credential_id": id });
        part.results.iter().map(row).collect()
    })
    .await
}

async fn report(
    State(state): State<AdminState>,
    id: Named,
    rows: fn(&Part) -> Vec<Value>,
) -> Response {
    let id = id.ok().and_then(|Path(id)| id.parse::<u64>().ok());
    let Some(id) = id else { return missing().into_response() };
    match read(&state, id).await {
        Ok(Some(_)) => {}
        Ok(None) => return missing().into_response(),
        Err(error) => return Refusal::Store(error).into_response(),
    }
    let prefix = part_prefix(id, PartKind::Report);
    let pages = stream::try_unfold(Some(Vec::new()), move |after: Option<Vec<u8>>| {
        let (state, prefix) = (state.clone(), prefix.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let after = (!after.is_empty()).then_some(after.as_slice());
            let store = state.catalog.store();
            let page = store.list(Kind::ImportPart, &prefix, after, PAGE).await?;
            let mut text = Vec::new();
            for (_, record) in &page.records {
                let part: Part = serde_json::from_slice(&record.value).map_err(damaged)?;
                for row in rows(&part) {
                    text.extend(row.to_string().into_bytes());
                    text.push(b'\n');
                }
            }
            let next = page.records.last().filter(|_| page.more).map(|(key, _)| key.id.to_vec());
            Ok::<_, StoreError>(Some((Bytes::from(text), next)))
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response()
}
