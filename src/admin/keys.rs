//! Tokens of credentials: what is kept of them, and the records that gateways enforce.

use serde_json::Value;

use super::AdminState;
use super::tokens;
use super::txn::Txn;
use crate::domain::seal::{NONCE_LEN, Reveal};
use crate::domain::time::UnixMs;
use crate::domain::token::{NOISE_LEN, Pepper, Token, TokenHash};
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::credential::{mask, mentions};
use crate::wire::portal::fields::{Faults, Members};
use crate::wire::portal::stored::{Pair, Previous, Stored, TokenFacts};
use crate::wire::portal::{ORG, moment};
use crate::wire::record::KeyRecord;

/// Texts that hold this many characters of a secret, that is all of it, tell it. Shorter ones are
/// words that an alias may well contain.
const TELLING_LEN_MIN: usize = 8;

/// What is kept of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Its hash: whoever gave it has it.
    Hash,
    /// Its hash, and itself, sealed: whoever shall have it reads it here.
    Sealed,
}

/// A new token.
pub(crate) fn generate() -> Result<Token, StoreError> {
    Ok(Token::generate(random::<NOISE_LEN>()?))
}

/// What is kept of `token`.
pub(crate) fn token_facts(
    pepper: &Pepper,
    token: &Token,
    keep: Keep,
) -> Result<TokenFacts, StoreError> {
    let hash = pepper.hash(token.reveal().as_bytes());
    let sealed = match keep {
        Keep::Hash => None,
        Keep::Sealed => Some(seal(pepper, token, &hash.0)?),
    };
    Ok(TokenFacts { hash: hex(&hash.0), mask: mask(token), sealed })
}

/// Checks a token that is to become a credential's with these members.
pub(crate) async fn check_new(
    token: &Token,
    members: &Members,
    faults: &mut Faults,
    state: &AdminState,
    txn: &mut Txn<'_>,
) -> Result<(), StoreError> {
    let hash = txn.catalog().pepper().hash(token.reveal().as_bytes());
    let admits = state.secret.matches(token.reveal().as_bytes());
    if admits || tokens::is_one(txn, &hash).await? {
        faults.add("KeyID", "must not be an admin token");
    }
    for name in holders(members, &|text| text.contains(token.reveal())) {
        faults.add(&name, "must not contain the token");
    }
    let now = state.clock.unix();
    let known = record(txn, &hash).await?;
    // What has been rotated out can come in again.
    let retired = |known: &KeyRecord| known.retires_ms.is_some_and(|at| UnixMs(at) <= now);
    if known.is_some_and(|known| !retired(&known)) {
        faults.sentence("key already in use");
    }
    Ok(())
}

/// Checks that a change does not write down a secret that the credential has.
pub(crate) fn check_silence(credential: &Stored, pepper: &Pepper, faults: &mut Faults) {
    let mut names = Vec::new();
    if let Some(token) = &credential.links.token
        && let Some(hash) = unhex(&token.hash)
    {
        let is_token = |part: &str| pepper.hash(part.as_bytes()).0.as_slice() == hash.as_slice();
        names = holders(&credential.members, &|text| mentions(text, &token.mask, is_token));
    }
    if let Some((_, secret)) = open_pair(credential, pepper)
        && TELLING_LEN_MIN <= secret.reveal().len()
    {
        names.extend(holders(&credential.members, &|text| text.contains(secret.reveal())));
    }
    for name in names {
        faults.add(&name, "must not contain the token");
    }
}

/// The token as it is shown: in full where it is kept and may be, masked otherwise.
pub(crate) fn shown_token(object: &Stored, pepper: &Pepper, reveal: Reveal) -> Value {
    let Some(facts) = &object.links.token else { return Value::Null };
    let opened = facts
        .sealed
        .as_ref()
        .filter(|_| reveal == Reveal::Always)
        .and_then(|sealed| pepper.seal().open(&unhex(sealed)?, &unhex(&facts.hash)?));
    match opened {
        Some(token) => token.reveal().into(),
        None => facts.mask.as_str().into(),
    }
}

/// Seals a key and a secret for display.
pub(crate) fn close_pair(
    credential: u64,
    key: &Token,
    secret: &Token,
    pepper: &Pepper,
) -> Result<Pair, StoreError> {
    Ok(Pair {
        key: seal(pepper, key, &pair_purpose(credential, "key"))?,
        secret: seal(pepper, secret, &pair_purpose(credential, "secret"))?,
    })
}

/// The key and the secret of a credential that is for display.
pub(crate) fn open_pair(credential: &Stored, pepper: &Pepper) -> Option<(Token, Token)> {
    let pair = credential.links.pair.as_ref()?;
    let open = |sealed: &str, part| {
        pepper.seal().open(&unhex(sealed)?, &pair_purpose(credential.id, part))
    };
    Some((open(&pair.key, "key")?, open(&pair.secret, "secret")?))
}

fn pair_purpose(credential: u64, part: &str) -> Vec<u8> {
    format!("credential {credential} {part}").into_bytes()
}

fn seal(pepper: &Pepper, secret: &Token, purpose: &[u8]) -> Result<String, StoreError> {
    let sealed = pepper.seal().close(secret, purpose, random::<NONCE_LEN>()?);
    sealed
        .map(|sealed| hex(&sealed))
        .ok_or_else(|| StoreError::io("sealed", "the secret is too long"))
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::io("given random bytes", error))?;
    Ok(bytes)
}

/// The members that hold a text of which `tells` is true; members with meanings of their own,
/// which hold no free text, are passed over.
fn holders(members: &Members, tells: &dyn Fn(&str) -> bool) -> Vec<String> {
    const MEANING: [&str; 6] =
        ["Type", "AuthTokenType", "PlanID", "ProductIDs", "Expires", "Active"];
    let free = members.iter().filter(|(name, _)| !MEANING.contains(&name.as_str()));
    let holding = free.filter(|(name, value)| tells(name) || holds(value, tells));
    // A name can be the token itself: such a member is not named.
    let safe =
        |name: &String| if tells(name) { "a member's name".to_owned() } else { name.clone() };
    holding.map(|(name, _)| safe(name)).collect()
}

fn holds(value: &Value, tells: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => tells(&number.to_string()),
        Value::String(text) => tells(text),
        Value::Array(values) => values.iter().any(|value| holds(value, tells)),
        Value::Object(members) => {
            members.iter().any(|(name, value)| tells(name) || holds(value, tells))
        }
    }
}

/// Writes what gateways enforce of a credential, as it, its app and the app's owner are now.
pub(crate) async fn write_token(txn: &mut Txn<'_>, credential: &Stored) -> Result<(), StoreError> {
    let Some(hash) = token_of(credential) else { return Ok(()) };
    let known = record(txn, &hash).await?.filter(|known| known.credential == credential.id);
    write_records(txn, credential, known.unwrap_or_default()).await
}

/// Gives a credential another token. The one it has goes on working until `until`, if that is
/// given; one that was on its way out already goes at once.
pub(crate) async fn replace_token(
    txn: &mut Txn<'_>,
    credential: &mut Stored,
    facts: TokenFacts,
    until: Option<UnixMs>,
) -> Result<(), StoreError> {
    retire_previous(txn, credential).await?;
    let mut known = KeyRecord::default();
    if let Some(old) = token_of(credential) {
        // What only the record knows, such as resets of its quota, moves on with the credential.
        known = record(txn, &old).await?.unwrap_or_default();
        match until {
            Some(until) => {
                let previous = Previous { hash: hex(&old.0), until_ms: until.0 };
                credential.links.previous = Some(previous);
            }
            None => txn.put(token_key(&old), None).await?,
        }
    }
    credential.links.token = Some(facts);
    write_records(txn, credential, known).await
}

/// Writes the records of a credential's token, and of the one that it took the place of.
async fn write_records(
    txn: &mut Txn<'_>,
    credential: &Stored,
    known: KeyRecord,
) -> Result<(), StoreError> {
    let Some(hash) = token_of(credential) else { return Ok(()) };
    let current = enforced(txn, credential, known).await?;
    if let Some(user) = current.user {
        txn.guard(RecordKey::number(Kind::User, user)).await?;
    }
    put_record(txn, &hash, &current).await?;
    if let Some((old, until_ms)) = previous_of(txn, credential).await? {
        let record = KeyRecord { retires_ms: Some(until_ms), ..current };
        put_record(txn, &old, &record).await?;
    }
    Ok(())
}

/// What gateways are to enforce of a credential's token, as it, its app and the app's owner are
/// now.
pub(crate) async fn enforced(
    txn: &mut Txn<'_>,
    credential: &Stored,
    known: KeyRecord,
) -> Result<KeyRecord, StoreError> {
    let app = credential.links.parent;
    let user = match app {
        Some(app) => txn.shared(Kind::App, app).await?.and_then(|app| app.number("UserID")),
        None => None,
    };
    let owner = match user {
        Some(user) => txn.shared(Kind::User, user).await?,
        None => None,
    };
    let owner = owner.as_deref();
    let attributes = owner.map(|user| user.links.attributes.as_slice()).unwrap_or_default();
    let attributes = attributes.iter().filter(|attribute| attribute.in_metadata);
    let attributes = attributes.map(|one| (one.identifier.clone(), one.value.as_str().into()));
    let metadata = credential.members.get("MetaData").and_then(Value::as_object).cloned();
    Ok(KeyRecord {
        credential: credential.id,
        pepper: txn.catalog().pepper().id(),
        org: ORG.to_owned(),
        products: credential.numbers("ProductIDs"),
        plan: credential.number("PlanID"),
        inactive: !credential.flag("Active"),
        expires_ms: expiry(credential).map(|at| at.0),
        retires_ms: None,
        app,
        user,
        organisation: owner.and_then(|user| user.number("OrganisationID")),
        teams: owner.map(|user| user.numbers("Teams")).unwrap_or_default(),
        attributes: attributes.collect(),
        metadata: metadata.unwrap_or_default(),
        ..known
    })
}

/// Deletes the record of the token that a credential's token took the place of.
async fn retire_previous(txn: &mut Txn<'_>, credential: &mut Stored) -> Result<(), StoreError> {
    if let Some((old, _)) = previous_of(txn, credential).await? {
        txn.put(token_key(&old), None).await?;
    }
    credential.links.previous = None;
    Ok(())
}

/// The token on its way out, unless its value is another credential's by now, or its record is
/// to be written for the first time.
async fn previous_of(
    txn: &mut Txn<'_>,
    credential: &Stored,
) -> Result<Option<(TokenHash, u64)>, StoreError> {
    let Some(previous) = &credential.links.previous else { return Ok(None) };
    let Some(hash) = token_hash(&previous.hash) else { return Ok(None) };
    let known = record(txn, &hash).await?;
    let ours = known.is_some_and(|known| known.credential == credential.id);
    Ok(ours.then_some((hash, previous.until_ms)))
}

/// Deletes a credential with its tokens, its access request, and the one that would change it.
pub(crate) async fn remove(txn: &mut Txn<'_>, credential: &Stored) -> Result<(), StoreError> {
    let mut gone = credential.clone();
    retire_previous(txn, &mut gone).await?;
    if let Some(hash) = token_of(credential) {
        txn.put(token_key(&hash), None).await?;
    }
    for id in [credential.links.request, credential.links.pending].into_iter().flatten() {
        if let Some(request) = txn.object(Kind::AccessRequest, id).await? {
            txn.erase(Kind::AccessRequest, &request).await?;
        }
    }
    txn.erase(Kind::Credential, credential).await
}

/// When a credential ends.
pub(crate) fn expiry(object: &Stored) -> Option<UnixMs> {
    moment::parse(object.text("Expires")).ok().flatten()
}

/// What gateways enforce of a token.
pub(crate) async fn record(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
) -> Result<Option<KeyRecord>, StoreError> {
    let value = txn.get(&token_key(hash)).await?;
    value.map(|value| serde_json::from_slice(&value)).transpose().map_err(damaged)
}

pub(crate) async fn put_record(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
    record: &KeyRecord,
) -> Result<(), StoreError> {
    let value = serde_json::to_vec(record).map_err(damaged)?;
    txn.put(token_key(hash), Some(value)).await
}

fn damaged(_shape: serde_json::Error) -> StoreError {
    StoreError::Damaged { what: "a token record" }
}

/// The hash of a credential's token.
pub(crate) fn token_of(credential: &Stored) -> Option<TokenHash> {
    credential.links.token.as_ref().and_then(|token| token_hash(&token.hash))
}

/// The hashes of its token and of the one that this took the place of.
pub(crate) fn tokens_of(credential: &Stored) -> impl Iterator<Item = TokenHash> {
    let previous = credential.links.previous.as_ref();
    let previous = previous.and_then(|previous| token_hash(&previous.hash));
    token_of(credential).into_iter().chain(previous)
}

pub(crate) fn token_key(hash: &TokenHash) -> RecordKey {
    RecordKey::bytes(Kind::Token, hash.0)
}

fn token_hash(digits: &str) -> Option<TokenHash> {
    unhex(digits)?.try_into().ok().map(TokenHash)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let (pairs, rest) = text.as_bytes().as_chunks();
    let pair = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}
