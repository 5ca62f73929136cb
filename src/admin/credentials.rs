//! Custom credentials (portal-api, B2).

use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::crud::{Resource, View, Writable, base};
use super::draft::{Draft, made};
use super::keys::{
    Keep, check_new, check_silence, close_pair, expiry, generate, open_pair, record, remove,
    shown_token, token_facts, token_of, write_token,
};
use super::txn::{Txn, kind_byte, name_entry};
use crate::domain::seal::Reveal;
use crate::domain::time::UnixMs;
use crate::store::{Kind, StoreError};
use crate::wire::portal::credential::{Credential, Purpose, Secret, WEAK_TOKEN_LEN};
use crate::wire::portal::fields::{Faults, Fields, Members, Moment, Ref};
use crate::wire::portal::moment;
use crate::wire::portal::secrets::METADATA;
use crate::wire::portal::stored::Stored;

/// How much of a token's hash is shown, in hexadecimal digits: enough to tell tokens apart, too
/// little to look one up by.
const HASH_DIGITS_SHOWN: usize = 16;

impl Resource for Credential {
    const KIND: Kind = Kind::Credential;
    const NOUN: &'static str = "credential";
    const SCOPE: &'static [(Kind, &'static str)] = &[(Kind::App, "app")];
    const DELETED: Option<&'static str> = Some("credential revoked");

    async fn show(object: &Stored, txn: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        // The portal answers the plan as a text (portal-api, 0.4).
        let plan = object.number("PlanID").map(|id| id.to_string());
        shown.insert("PlanID".to_owned(), plan.into());
        shown.entry("ProductIDs").or_insert_with(|| Value::Array(Vec::new()));
        for (name, value) in facts(object) {
            shown.insert(name.to_owned(), value);
        }
        let pepper = txn.catalog().pepper();
        shown.insert("KeyID".to_owned(), shown_token(object, pepper, view.reveal));
        if view.reveal == Reveal::Always
            && let Some((key, secret)) = open_pair(object, pepper)
        {
            shown.insert("CredentialKey".to_owned(), key.reveal().into());
            shown.insert("CredentialSecret".to_owned(), secret.reveal().into());
        }
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(remove(txn, object).await?)
    }
}

impl Writable for Credential {
    const CREATED: StatusCode = StatusCode::CREATED;
    const PUT_MISSING: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    const READ_ONLY: &'static [&'static str] =
        &["CredentialHash", "AccessRequest", "PendingAccessRequest", "PreviousExpires", "Warnings"];
    const SECRETS: &'static [&'static str] =
        &["KeyID", "CredentialKey", "CredentialSecret", METADATA];

    fn normalise(body: &mut Members, before: Option<&mut Stored>) {
        let Some(before) = before else { return };
        // What a credential is does not change; its token has ways of its own.
        for fixed in [
            "Type",
            "AuthenticationMethod",
            "AuthTokenType",
            "KeyID",
            "CredentialKey",
            "CredentialSecret",
        ] {
            body.remove(fixed);
        }
        let shown = expiry(before).map(moment::shown).unwrap_or_default();
        Self::normalise(body, &shown);
    }

    fn read(fields: &mut Fields<'_>, purpose: Purpose) -> Self {
        Self::read(fields, purpose)
    }

    /// The same token in the same app, with the same plan and products.
    async fn known(
        body: Members,
        owner: Option<(Kind, u64)>,
        txn: &mut Txn<'_>,
    ) -> Result<Option<Stored>, StoreError> {
        let mut faults = Faults::default();
        let wanted = Self::read(&mut Fields::of(body, &mut faults), Purpose::Create);
        let (Secret::Import(key), Some(plan)) = (&wanted.secret, &wanted.plan) else {
            return Ok(None);
        };
        let hash = txn.catalog().pepper().hash(key.reveal().as_bytes());
        let Some(record) = record(txn, &hash).await? else { return Ok(None) };
        let Some(known) = txn.object(Kind::Credential, record.credential).await? else {
            return Ok(None);
        };
        let mut products = Vec::new();
        for product in &wanted.products {
            products.push(txn.resolve(Kind::Product, product).await?.unwrap_or_default());
        }
        let mut has = known.numbers("ProductIDs");
        for list in [&mut products, &mut has] {
            list.sort_unstable();
            list.dedup();
        }
        let same = token_of(&known) == Some(hash)
            && known.links.parent == owner.map(|(_, app)| app)
            && known.number("PlanID") == txn.resolve(Kind::Plan, plan).await?
            && has == products;
        Ok((faults.is_empty() && same).then_some(known))
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let app = draft.after.links.parent.unwrap_or_default();
        draft.belong(Kind::App, app);
        draft.claim(txn, name_entry(Kind::Credential, app, &self.alias), "Alias").await?;
        let plan = self.check_rights(draft, txn).await?;
        self.check_secret(draft, txn).await?;
        if draft.before.is_none() && self.expires == Moment::Absent {
            let ends = expiry_by_plan(txn, plan, draft.state.clock.unix()).await?;
            draft.after.members.extend(ends.map(|ends| ("Expires".to_owned(), ends.into())));
        }
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        match &self.secret {
            Secret::Pair { key, secret } => {
                let pair = close_pair(draft.after.id, key, secret, txn.catalog().pepper())?;
                draft.after.links.pair = Some(pair);
                draft.once.insert("CredentialKey".to_owned(), key.reveal().into());
                draft.once.insert("CredentialSecret".to_owned(), secret.reveal().into());
            }
            Secret::Import(key) => {
                draft.once.insert("KeyID".to_owned(), key.reveal().into());
                if key.reveal().len() < WEAK_TOKEN_LEN {
                    let text =
                        format!("weak_key: KeyID has fewer than {WEAK_TOKEN_LEN} characters");
                    draft.once.insert("Warnings".to_owned(), vec![text].into());
                }
            }
            Secret::Generate | Secret::None => {}
        }
        if draft.before.is_none() {
            let request = txn.next_id(Kind::AccessRequest).await?;
            txn.save_new(Kind::AccessRequest, &approved(&draft.after, request));
            draft.after.links.request = Some(request);
            txn.save_new(Kind::Credential, &draft.after);
        }
        write_token(txn, &draft.after).await
    }
}

/// What a credential takes from its plan, its products and its token.
trait Rights {
    /// Checks plan and products and answers the plan. What a credential already had may be gone:
    /// it can still be renamed and switched off.
    async fn check_rights(
        &mut self,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<Option<u64>, StoreError>;

    /// Checks a token that comes in, makes one that is to be generated, and notes what is kept.
    async fn check_secret(
        &mut self,
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
        if self.plan.is_none() && kept.is_empty() && new.is_empty() {
            // A pair for display has neither.
            draft.after.members.remove("ProductIDs");
            return Ok(None);
        }
        let mut all: Vec<_> =
            had.iter().copied().filter(|id| kept.contains(&Ref::Id(*id))).collect();
        all.extend(added);
        draft.after.members.insert("ProductIDs".to_owned(), all.into());
        Ok(plan)
    }

    async fn check_secret(
        &mut self,
        draft: &mut Draft<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<(), StoreError> {
        let mut keep = Keep::Hash;
        if matches!(self.secret, Secret::Generate) {
            self.secret = Secret::Import(generate()?);
            keep = Keep::Sealed;
        }
        match &self.secret {
            Secret::Import(key) => {
                let Draft { after, faults, state, .. } = draft;
                check_new(key, &after.members, faults, state, txn).await?;
                after.links.token = Some(token_facts(txn.catalog().pepper(), key, keep)?);
            }
            Secret::Pair { .. } | Secret::None | Secret::Generate => {
                check_silence(&draft.after, txn.catalog().pepper(), &mut draft.faults);
            }
        }
        Ok(())
    }
}

/// When a credential ends that is issued under a plan at `now`.
pub(crate) async fn expiry_by_plan(
    txn: &mut Txn<'_>,
    plan: Option<u64>,
    now: UnixMs,
) -> Result<Option<String>, StoreError> {
    let Some(plan) = plan else { return Ok(None) };
    let life_s = txn.shared(Kind::Plan, plan).await?.and_then(|p| p.number("KeyExpiresIn"));
    Ok(life_s.map(|life_s| moment::exact(now.plus_ms(life_s.saturating_mul(1_000)))))
}

/// The access request that a custom credential is the answer to.
pub(crate) fn approved(credential: &Stored, id: u64) -> Stored {
    let mut request = made(id, UnixMs(credential.created_ms));
    request.members.insert("Status".to_owned(), "approved".into());
    request.links.parent = credential.links.parent;
    request.links.credential = Some(credential.id);
    let app = credential.links.parent.unwrap_or_default();
    request.owners.push((kind_byte(Kind::App), app));
    request
}

/// What is shown of a credential's token, wherever it is shown.
pub(crate) fn facts(object: &Stored) -> [(&'static str, Value); 5] {
    let links = &object.links;
    let token = links.token.as_ref();
    let hash = token.and_then(|token| token.hash.get(..HASH_DIGITS_SHOWN)).unwrap_or_default();
    let named = |id: Option<u64>| Value::from(id.map(|id| format!("AccessRequest#{id}")));
    let previous = links.previous.as_ref().map(|old| moment::shown(UnixMs(old.until_ms)));
    [
        ("CredentialHash", hash.into()),
        ("Expires", expiry(object).map(moment::shown).into()),
        ("AccessRequest", named(links.request)),
        ("PendingAccessRequest", named(links.pending)),
        ("PreviousExpires", previous.into()),
    ]
}
