//! Repeats of writes (portal-api, F1): a request with an `Idempotency-Key` is done once, and when
//! it comes again within a day its answer is given again. The answer lies in the store, in the
//! commit of the write itself: whoever was cut off finds both or neither.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::AdminState;
use super::answer::{Answer, Object, Refusal};
use super::auth::{Caller, reads};
use super::steps::Rest;
use super::txn::Txn;
use crate::domain::time::UnixMs;
use crate::domain::token::Pepper;
use crate::store::{
    Committed, Expect, Kind, Record, RecordKey, RecordStore, StoreError, Write as StoreWrite,
};
use crate::wire::admin::KeptAnswer;
use crate::wire::portal::secrets;

/// How long an answer is given again, in milliseconds (portal-api, F1).
const KEPT_MS: u64 = 24 * 3_600_000;
/// Answers kept at most: some 20 MB. With more of them in a day the oldest are forgotten.
const KEPT_MAX: u64 = 20_000;
/// The longest body that is kept, in bytes: a write's answer is one object.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest key, in bytes: a UUID has 36.
const KEY_LEN_MAX: usize = 255;
/// Old answers that are forgotten with each new one: more than one, so that they become fewer.
const FORGOTTEN: usize = 4;
/// The header that says so when an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What a request is known by when it comes again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    /// Of the key, who sent it, and to where.
    slot: [u8; 32],
    /// Of the body. A body can hold a token, so that this, too, is keyed by the pepper.
    body: [u8; 32],
    /// Whether it makes something: done again it would make another one.
    makes: bool,
}

impl Repeat {
    /// Reads the headers of a request. Requests that change nothing have no repeats.
    pub(crate) fn read(
        (method, path): (&Method, &str),
        headers: &HeaderMap,
        caller: Option<&Caller>,
        body: &[u8],
        pepper: &Pepper,
    ) -> Result<Option<Self>, Vec<String>> {
        let mut keys = headers.get_all("idempotency-key").iter();
        let (Some(key), false) = (keys.next(), reads(method, path)) else { return Ok(None) };
        let key = key.as_bytes();
        let fits = (1..=KEY_LEN_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if !fits || keys.next().is_some() {
            let bounds = format!("1 to {KEY_LEN_MAX} visible ASCII characters");
            return Err(vec![format!("Idempotency-Key must be {bounds}, and come once")]);
        }
        let name = caller.map(|caller| caller.name.as_bytes()).unwrap_or_default();
        // None of these holds a line break.
        let parts = [name, method.as_str().as_bytes(), path.as_bytes(), key];
        let slot = pepper.hash(&parts.join(&b'\n')).0;
        Ok(Some(Self { slot, body: pepper.hash(body).0, makes: method == Method::POST }))
    }

    /// Whether the answer to a request with this left to do is kept. What is not done to its end is
    /// done again when it comes again; what a request made waits for the next edit of it.
    pub(crate) fn keeps(&self, rest: &Rest) -> bool {
        !rest.again && (rest.settle.is_empty() || (self.makes && !rest.goes_on))
    }

    /// The answer that was given to the request before, if it was.
    pub(crate) async fn answered(
        &self,
        state: &AdminState,
        txn: &mut Txn<'_>,
    ) -> Result<Option<Response>, Refusal> {
        let Some(value) = txn.get(&self.key()).await? else { return Ok(None) };
        let kept = decode(&value)?;
        if UnixMs(kept.until_ms) <= state.clock.unix() {
            return Ok(None);
        }
        if kept.request != self.body {
            let text = "Idempotency-Key was used with another body";
            return Err(Refusal::Faults(vec![text.to_owned()]));
        }
        let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
        let mut response = (status, Json(kept.answer)).into_response();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response.extensions_mut().insert(Object(kept.object));
        Ok(Some(response))
    }

    /// Keeps an answer with the writes of the request; the number of its turn.
    pub(crate) async fn keep(
        &self,
        state: &AdminState,
        txn: &mut Txn<'_>,
        answer: &Answer,
    ) -> Result<u64, StoreError> {
        let kept = KeptAnswer {
            number: txn.next_id(Kind::Answer).await?,
            until_ms: state.clock.unix().plus_ms(KEPT_MS).0,
            request: self.body,
            status: answer.status.as_u16(),
            object: answer.object.clone(),
            answer: without_secrets(&answer.body),
        };
        let place = [self.slot.as_slice(), &kept.until_ms.to_be_bytes()].concat();
        txn.put(turn_key(kept.number), Some(place)).await?;
        txn.put(self.key(), Some(encode(&kept))).await?;
        Ok(kept.number)
    }

    fn key(&self) -> RecordKey {
        slot_key(&self.slot)
    }
}

/// What is kept of a body: a secret is told in the first answer alone.
fn without_secrets(body: &Value) -> Value {
    let mut kept = body.clone();
    if let Some(members) = kept.as_object_mut() {
        let told = |(name, value): (&String, &Value)| {
            let secret = secrets::is_secret(name) && value.as_str().is_some_and(|v| !v.is_empty());
            secret.then(|| Value::from(name.as_str()))
        };
        let withheld: Vec<_> = members.iter().filter_map(told).collect();
        secrets::discard(members, &[]);
        if !withheld.is_empty() {
            members.insert("Withheld".to_owned(), withheld.into());
        }
    }
    if kept.to_string().len() <= BODY_BYTES_MAX {
        return kept;
    }
    serde_json::json!({ "status": "ok", "message": "the answer was too long to be kept" })
}

/// Forgets some of the oldest answers that are over a day old, or too many. What fails here is
/// done with the next one.
pub(crate) async fn forget_old(state: &AdminState, newest: u64) {
    if let Err(error) = try_forget(state, newest).await {
        tracing::debug!(%error, "old answers are not forgotten yet");
    }
}

async fn try_forget(state: &AdminState, newest: u64) -> Result<(), StoreError> {
    let store = state.catalog.store();
    let oldest = store.list(Kind::Answer, TURN, None, FORGOTTEN).await?;
    let now = state.clock.unix();
    for (key, record) in oldest.records {
        let Some((number, slot, until)) = turn(&key, &record) else { continue };
        if now < until && newest < number.saturating_add(KEPT_MAX) {
            continue;
        }
        let mut gone = vec![StoreWrite { key, expect: Expect::Anything, value: None }];
        let key = slot_key(&slot);
        // A key that was used again since has another turn.
        if let Some(kept) = store.get(&key).await?
            && decode(&kept.value)?.number == number
        {
            let expect = Expect::Unchanged(kept.generation);
            gone.push(StoreWrite { key, expect, value: None });
        }
        if let Committed::Conflict(_) = state.catalog.commit(&gone).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// What the names of answers begin with.
const SLOT: &[u8] = b"k";
/// What the names of their turns begin with: by these the oldest are found.
const TURN: &[u8] = b"n";

fn slot_key(slot: &[u8; 32]) -> RecordKey {
    RecordKey::bytes(Kind::Answer, [SLOT, slot].concat())
}

fn turn_key(number: u64) -> RecordKey {
    RecordKey::bytes(Kind::Answer, [TURN, &number.to_be_bytes()].concat())
}

/// The number of a turn, the answer whose it is, and until when that is given.
fn turn(key: &RecordKey, record: &Record) -> Option<(u64, [u8; 32], UnixMs)> {
    let number = key.id.strip_prefix(TURN)?.try_into().ok()?;
    let (slot, until) = record.value.split_first_chunk::<32>()?;
    let until = u64::from_be_bytes(until.try_into().ok()?);
    Some((u64::from_be_bytes(number), *slot, UnixMs(until)))
}

fn decode(value: &[u8]) -> Result<KeptAnswer, StoreError> {
    let damaged = |_shape| StoreError::Damaged { what: "an answer that is kept" };
    serde_json::from_slice(value).map_err(damaged)
}

fn encode(kept: &KeptAnswer) -> Vec<u8> {
    // Texts and numbers: there is nothing in it that could fail.
    serde_json::to_vec(kept).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_kept_without_its_secrets() {
        let check = |body: Value, expect: Value| assert_eq!(without_secrets(&body), expect);
        check(json!({ "ID": 1, "JWTToken": "" }), json!({ "ID": 1 }));
        check(
            json!({ "ID": 1, "KeyID": "tok", "CredentialSecret": "s", "Inside": [{ "Token": "t" }] }),
            json!({ "ID": 1, "Inside": [{}], "Withheld": ["CredentialSecret", "KeyID"] }),
        );
        let long = "x".repeat(BODY_BYTES_MAX);
        assert_eq!(without_secrets(&json!({ "Description": long }))["status"], "ok");
    }
}
