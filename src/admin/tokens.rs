//! Admin tokens: several, with names and scopes, so that each client has its own and one can be
//! replaced while the other still works.
//!
//! They are looked up in the store with every request, by the hash that the pepper keys: nobody
//! without it learns anything from how long that takes, and one that is revoked is refused on
//! every gateway with the next request.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::auth::{Caller, SECRET_NAME};
use super::call::Call;
use super::crud::Operation;
use super::txn::{Txn, name_entry};
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::store::{Expect, Kind, Record, RecordKey, RecordStore, StoreError, Write};
use crate::wire::admin::{AdminToken, Scope};
use crate::wire::portal::fields::{Faults, Fields};
use crate::wire::portal::moment;

/// Admin tokens at most: one for each client, twice while they are replaced.
const TOKENS_MAX: usize = 64;
/// What an admin token begins with: scanners of code and logs find it, and what does not begin so
/// costs no look at the store.
const PREFIX: &str = "tpa_";
/// Random digits in base 62: 256 bits.
const DIGITS: usize = 43;
/// The last use is noted so often at most, in milliseconds.
const USED_EVERY_MS: u64 = 60_000;

/// Whose a token is.
pub(crate) async fn find(state: &AdminState, token: &[u8]) -> Result<Option<Caller>, StoreError> {
    if !token.starts_with(PREFIX.as_bytes()) || token.len() != PREFIX.len() + DIGITS {
        return Ok(None);
    }
    let key = key(&state.catalog.pepper().hash(token));
    let Some(record) = state.catalog.store().get(&key).await? else { return Ok(None) };
    let token = decode(&record.value)?;
    let caller = Caller::new(&token.name, token.scopes.clone());
    let now = state.clock.unix();
    if token.used_ms.is_none_or(|used| used.saturating_add(USED_EVERY_MS) <= now.0) {
        note_use(state, key, &record, AdminToken { used_ms: Some(now.0), ..token }).await;
    }
    Ok(Some(caller))
}

/// Whether somebody may use the admin listener with what hashes so.
pub(crate) async fn is_one(txn: &mut Txn<'_>, hash: &TokenHash) -> Result<bool, StoreError> {
    Ok(txn.get(&key(hash)).await?.is_some())
}

/// What admin tokens hash to.
pub(crate) async fn hashes(state: &AdminState) -> Result<HashSet<[u8; 32]>, StoreError> {
    let all = all(state).await?;
    Ok(all.iter().filter_map(|(key, _)| key.id.as_ref().try_into().ok()).collect())
}

/// Only if the token is still as it was: one that is being revoked does not come back.
async fn note_use(state: &AdminState, key: RecordKey, read: &Record, token: AdminToken) {
    let expect = Expect::Unchanged(read.generation);
    let write = Write { key, expect, value: Some(encode(&token).into()) };
    if let Err(error) = state.catalog.store().commit(vec![write]).await {
        tracing::debug!(%error, "the last use of an admin token could not be noted");
    }
}

/// Lists them, without the tokens.
pub(crate) struct ListTokens;
/// Makes one. This answer alone shows it.
pub(crate) struct CreateToken;
/// Deletes one.
pub(crate) struct RevokeToken;

impl Operation for ListTokens {
    async fn run(state: &AdminState, _: &mut Txn<'_>, _: &Call) -> Result<Answer, Refusal> {
        let mut all: Vec<_> = all(state).await?.into_iter().map(|(_, token)| token).collect();
        all.sort_by_key(|token| token.id);
        let rows: Vec<_> = all.iter().map(shown).collect();
        Ok(Answer { status: StatusCode::OK, body: rows.into(), object: String::new() })
    }
}

impl Operation for CreateToken {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(call.members()?, &mut faults);
        let name = fields.required_line("Name");
        if name == SECRET_NAME {
            fields.fault("Name", "is that of the configured secret");
        }
        let named = fields.lines("Scopes");
        let scopes: Vec<_> = Scope::ALL
            .into_iter()
            .filter(|scope| named.iter().any(|name| name == scope.name()))
            .collect();
        if named.iter().any(|name| Scope::parse(name).is_none()) {
            fields.fault("Scopes", "must be of read, write, import, usage");
        } else if scopes.is_empty() {
            fields.fault("Scopes", "must name at least one of read, write, import, usage");
        }
        let entry = name_entry(Kind::AdminToken, 0, &name);
        if txn.unique(&entry).await?.is_some() {
            faults.add("Name", "is already in use");
        }
        if TOKENS_MAX <= all(state).await?.len() {
            faults
                .sentence(format!("there are {TOKENS_MAX} admin tokens, and no more can be made"));
        }
        Refusal::unless_empty(faults)?;
        let secret = generate()?;
        let id = txn.next_id(Kind::AdminToken).await?;
        let token =
            AdminToken { id, name, scopes, created_ms: state.clock.unix().0, used_ms: None };
        let key = key(&state.catalog.pepper().hash(secret.as_bytes()));
        txn.put(key, Some(encode(&token))).await?;
        let owner = id.to_be_bytes().to_vec();
        txn.put(RecordKey::bytes(Kind::Unique, entry), Some(owner)).await?;
        let mut body = shown(&token);
        if let Some(members) = body.as_object_mut() {
            members.insert("Token".to_owned(), secret.as_str().into());
        }
        Ok(Answer { status: StatusCode::CREATED, body, object: format!("admin token {id}") })
    }
}

impl Operation for RevokeToken {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let wanted = call.params.first().and_then(|id| id.parse::<u64>().ok());
        let found = all(state).await?.into_iter().find(|(_, token)| Some(token.id) == wanted);
        let Some((key, token)) = found else {
            let text = "admin token not found".to_owned();
            return Err(Refusal::Missing { status: StatusCode::NOT_FOUND, text });
        };
        txn.put(key, None).await?;
        let entry = name_entry(Kind::AdminToken, 0, &token.name);
        txn.put(RecordKey::bytes(Kind::Unique, entry), None).await?;
        Ok(Answer::done(format!("admin token {}", token.id)))
    }
}

async fn all(state: &AdminState) -> Result<Vec<(RecordKey, AdminToken)>, StoreError> {
    // Two that are made at the same moment may be one more than the bound.
    let page = state.catalog.store().list(Kind::AdminToken, &[], None, 2 * TOKENS_MAX).await?;
    page.records.into_iter().map(|(key, record)| Ok((key, decode(&record.value)?))).collect()
}

fn shown(token: &AdminToken) -> Value {
    let at = |ms| moment::exact(UnixMs(ms));
    json!({
        "ID": token.id,
        "Name": token.name,
        "Scopes": token.scopes,
        "CreatedAt": at(token.created_ms),
        "LastUsedAt": token.used_ms.map(at),
    })
}

fn key(hash: &TokenHash) -> RecordKey {
    RecordKey::bytes(Kind::AdminToken, hash.0)
}

fn decode(value: &[u8]) -> Result<AdminToken, StoreError> {
    let damaged = |_shape| StoreError::Damaged { what: "an admin token" };
    serde_json::from_slice(value).map_err(damaged)
}

fn encode(token: &AdminToken) -> Vec<u8> {
    // Texts and numbers: there is nothing in it that could fail.
    serde_json::to_vec(token).unwrap_or_default()
}

/// A new token. Bytes that would favour some digits are thrown away.
fn generate() -> Result<Zeroizing<String>, Refusal> {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + DIGITS));
    text.push_str(PREFIX);
    while text.len() < PREFIX.len() + DIGITS {
        let mut noise = Zeroizing::new([0; DIGITS]);
        getrandom::fill(noise.as_mut()).map_err(|error| {
            tracing::error!(%error, "the system gave no random bytes");
            Refusal::Internal
        })?;
        let even = noise.iter().filter(|byte| **byte < 248);
        let digits = even.filter_map(|byte| ALPHABET.get(usize::from(byte % 62)));
        let room = PREFIX.len() + DIGITS - text.len();
        text.extend(digits.take(room).map(|digit| char::from(*digit)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert_eq!((a.len(), a.starts_with(PREFIX)), (47, true));
        assert_ne!(*a, *b);
    }
}
