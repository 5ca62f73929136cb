//! Custom credentials, and the token records that gateways enforce.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::crud::{Resource, View, Writable, base};
use super::draft::{Draft, random_cid};
use super::tokens;
use super::txn::{Txn, cid_entry, kind_byte, name_entry};
use crate::domain::time::UnixMs;
use crate::domain::token::{Pepper, Token, TokenHash};
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::credential::{Credential, Purpose, WEAK_TOKEN_LEN, mask, mentions};
use crate::wire::portal::fields::{Fields, Members, Moment, Ref};
use crate::wire::portal::stored::{Stored, TokenFacts};
use crate::wire::portal::{ORG, moment};
use crate::wire::record::KeyRecord;

/// How much of a token's hash is shown, in hexadecimal digits: enough to tell tokens apart, too
/// little to look one up by.
const HASH_DIGITS_SHOWN: usize = 16;

impl Resource for Credential {
    const KIND: Kind = Kind::Credential;
    const NOUN: &'static str = "credential";
    const SCOPE: &'static [(Kind, &'static str)] = &[(Kind::App, "app")];
    const DELETED: Option<&'static str> = Some("credential revoked");

    async fn show(object: &Stored, _: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        // The portal answers the plan as a text (portal-api, 0.4).
        let plan = object.number("PlanID").map(|id| id.to_string());
        shown.insert("PlanID".to_owned(), plan.into());
        for (name, value) in facts(object) {
            shown.insert(name.to_owned(), value);
        }
        let token = object.links.token.as_ref();
        shown.insert("KeyID".to_owned(), token.map(|token| token.mask.clone()).into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(remove(txn, object).await?)
    }
}

impl Writable for Credential {
    const CREATED: StatusCode = StatusCode::CREATED;
    const PUT_MISSING: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    const READ_ONLY: &'static [&'static str] = &["CredentialHash", "AccessRequest", "Warnings"];

    fn normalise(body: &mut Members, before: Option<&mut Stored>) {
        let Some(before) = before else { return };
        // What a credential is does not change; its token has ways of its own.
        for fixed in ["Type", "AuthenticationMethod", "AuthTokenType", "KeyID"] {
            body.remove(fixed);
        }
        let shown = expiry(before).map(moment::shown).unwrap_or_default();
        Self::normalise(body, &shown);
    }

    fn read(fields: &mut Fields<'_>, purpose: Purpose) -> Self {
        Self::read(fields, purpose)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let app = draft.after.links.parent.unwrap_or_default();
        draft.belong(Kind::App, app);
        if let Some(request) = draft.after.links.request {
            draft.belong(Kind::AccessRequest, request);
        }
        draft.claim(txn, name_entry(Kind::Credential, app, &self.alias), "Alias").await?;
        let plan = self.check_rights(draft, txn).await?;
        match &self.key {
            Some(key) => check_new_key(key, draft, txn).await?,
            None => check_silence(draft, txn.catalog().pepper()),
        }
        if draft.before.is_none() && self.expires == Moment::Absent {
            self.expire_by_plan(plan, draft, txn).await?;
        }
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        if draft.before.is_none() {
            let request = txn.next_id(Kind::AccessRequest).await?;
            txn.save(Kind::AccessRequest, None, &approved(&draft.after, request)).await?;
            draft.after.links.request = Some(request);
            draft.belong(Kind::AccessRequest, request);
            txn.save(Kind::Credential, None, &draft.after).await?;
        }
        if let Some(key) = &self.key {
            draft.once.insert("KeyID".to_owned(), key.reveal().into());
            if key.reveal().len() < WEAK_TOKEN_LEN {
                let text = format!("weak_key: KeyID has fewer than {WEAK_TOKEN_LEN} characters");
                draft.once.insert("Warnings".to_owned(), vec![text].into());
            }
        }
        write_token(txn, &draft.after).await
    }
}

/// What a credential takes from its plan and products.
trait Rights {
    /// Checks plan and products and answers the plan. What a credential already had may be gone:
    /// it can still be renamed and switched off.
    async fn check_rights(
        &mut self,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<Option<u64>, StoreError>;

    /// Sets the expiry of a new credential as its plan says.
    async fn expire_by_plan(
        &self,
        plan: Option<u64>,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<(), StoreError>;
}

impl Rights for Credential {
    async fn check_rights(
        &mut self,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let (had_plan, had) = match &draft.before {
            Some(before) => (before.number("PlanID"), before.numbers("ProductIDs")),
            None => (None, Vec::new()),
        };
        let new_plan =
            self.plan.as_ref().filter(|plan| had_plan.map(Ref::Id).as_ref() != Some(plan));
        let plan = draft.refer(txn, Kind::Plan, "PlanID", new_plan).await?;
        let known = |named: &Ref| matches!(named, Ref::Id(id) if had.contains(id));
        let (kept, new): (Vec<_>, Vec<_>) = self.products.drain(..).partition(known);
        let added = draft.refer_all(txn, Kind::Product, "ProductIDs", &new).await?;
        for id in &added {
            let product = txn.object(Kind::Product, *id).await?;
            if product.is_some_and(|product| product.flag("IsDocumentationOnly")) {
                let what = format_args!("{id} is documentation only and grants nothing");
                draft.faults.add("ProductIDs", what);
            }
        }
        let mut all: Vec<_> =
            had.iter().copied().filter(|id| kept.contains(&Ref::Id(*id))).collect();
        all.extend(added);
        draft.after.members.insert("ProductIDs".to_owned(), all.into());
        Ok(plan)
    }

    async fn expire_by_plan(
        &self,
        plan: Option<u64>,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<(), StoreError> {
        let Some(plan) = plan else { return Ok(()) };
        let life_s = txn.object(Kind::Plan, plan).await?.and_then(|p| p.number("KeyExpiresIn"));
        if let Some(life_s) = life_s {
            let ends = draft.state.clock.unix().plus_ms(life_s.saturating_mul(1_000));
            draft.after.members.insert("Expires".to_owned(), moment::exact(ends).into());
        }
        Ok(())
    }
}

/// Checks a token that comes in, and notes what is kept of it.
async fn check_new_key(
    key: &Token,
    draft: &mut Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<(), StoreError> {
    let pepper = txn.catalog().pepper();
    let hash = pepper.hash(key.reveal().as_bytes());
    let admits = draft.state.secret.matches(key.reveal().as_bytes());
    if admits || tokens::is_one(txn, &hash).await? {
        draft.faults.add("KeyID", "must not be an admin token");
    }
    for name in holders(&draft.after.members, &|text| text.contains(key.reveal())) {
        draft.faults.add(&name, "must not contain the token");
    }
    if txn.get(&token_key(&hash)).await?.is_some() {
        draft.faults.sentence("key already in use");
    }
    let facts = TokenFacts { hash: hex(&hash.0), mask: mask(key) };
    draft.after.links.token = Some(facts);
    Ok(())
}

/// Checks that a change does not write down a token of which only hash and mask are known.
fn check_silence(draft: &mut Draft<'_>, pepper: &Pepper) {
    let Some(token) = &draft.after.links.token else { return };
    let Some(hash) = unhex(&token.hash) else { return };
    let is_token = |part: &str| pepper.hash(part.as_bytes()) == hash;
    let tells = |text: &str| mentions(text, &token.mask, is_token);
    for name in holders(&draft.after.members, &tells) {
        draft.faults.add(&name, "must not contain the token");
    }
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

/// The access request that a custom credential is the answer to.
fn approved(credential: &Stored, id: u64) -> Stored {
    let mut request = Stored { id, cid: random_cid(), ..Stored::default() };
    request.links.parent = credential.links.parent;
    request.links.credential = Some(credential.id);
    let app = credential.links.parent.unwrap_or_default();
    request.owners.push((kind_byte(Kind::App), app));
    let entry = (!request.cid.is_empty()).then(|| cid_entry(Kind::AccessRequest, &request.cid));
    request.uniques.extend(entry);
    (request.created_ms, request.updated_ms) = (credential.created_ms, credential.updated_ms);
    request
}

/// What is shown of a credential's token, wherever it is shown.
pub(crate) fn facts(object: &Stored) -> [(&'static str, Value); 3] {
    let token = object.links.token.as_ref();
    let hash = token.and_then(|token| token.hash.get(..HASH_DIGITS_SHOWN)).unwrap_or_default();
    let request = object.links.request.map(|id| format!("AccessRequest#{id}"));
    [
        ("CredentialHash", hash.into()),
        ("Expires", expiry(object).map(moment::shown).into()),
        ("AccessRequest", request.into()),
    ]
}

/// Writes what gateways enforce of a credential, as it, its app and the app's owner are now.
pub(crate) async fn write_token(txn: &mut Txn<'_>, credential: &Stored) -> Result<(), StoreError> {
    let Some(hash) = token_of(credential) else { return Ok(()) };
    let key = token_key(&hash);
    let app = credential.links.parent;
    let user = match app {
        Some(app) => txn.object(Kind::App, app).await?.and_then(|app| app.number("UserID")),
        None => None,
    };
    let organisation = match user {
        Some(user) => {
            txn.guard(RecordKey::number(Kind::User, user)).await?;
            let user = txn.object(Kind::User, user).await?;
            user.and_then(|user| user.number("OrganisationID"))
        }
        None => None,
    };
    let known = txn.get(&key).await?;
    let damaged = |_shape| StoreError::Damaged { what: "a token record" };
    let known = known.map(|value| serde_json::from_slice(&value)).transpose().map_err(damaged)?;
    let metadata = credential.members.get("MetaData").and_then(Value::as_object).cloned();
    let record = KeyRecord {
        credential: credential.id,
        pepper: txn.catalog().pepper().id(),
        org: ORG.to_owned(),
        products: credential.numbers("ProductIDs"),
        plan: credential.number("PlanID"),
        inactive: !credential.flag("Active"),
        expires_ms: expiry(credential).map(|at| at.0),
        app,
        user,
        organisation,
        metadata: metadata.unwrap_or_default(),
        ..known.unwrap_or_default()
    };
    let value = serde_json::to_vec(&record).map_err(damaged)?;
    txn.put(key, Some(value)).await
}

/// The token of a credential.
pub(crate) fn token_of(credential: &Stored) -> Option<TokenHash> {
    credential.links.token.as_ref().and_then(|token| unhex(&token.hash))
}

/// Writes the tokens of an app anew, after what they carry of the app changed.
pub(crate) async fn rewrite_tokens(txn: &mut Txn<'_>, app: u64) -> Result<(), StoreError> {
    for id in txn.members((Kind::App, app), Kind::Credential, usize::MAX).await? {
        if let Some(credential) = txn.object(Kind::Credential, id).await? {
            write_token(txn, &credential).await?;
        }
    }
    Ok(())
}

/// Deletes a credential with its token and its access request.
pub(crate) async fn remove(txn: &mut Txn<'_>, credential: &Stored) -> Result<(), StoreError> {
    if let Some(hash) = token_of(credential) {
        txn.put(token_key(&hash), None).await?;
    }
    if let Some(id) = credential.links.request
        && let Some(request) = txn.object(Kind::AccessRequest, id).await?
    {
        txn.erase(Kind::AccessRequest, &request).await?;
    }
    txn.erase(Kind::Credential, credential).await
}

fn expiry(object: &Stored) -> Option<UnixMs> {
    moment::parse(object.text("Expires")).ok().flatten()
}

fn token_key(hash: &TokenHash) -> RecordKey {
    RecordKey::bytes(Kind::Token, hash.0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<TokenHash> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(TokenHash(bytes))
}
