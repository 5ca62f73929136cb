//! What was used, for people: by a credential, and by all credentials of an app, a user or an
//! organisation (portal-api, F4).

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::{Call, Paging};
use super::crud::{Operation, Resource, find, objects};
use super::keys::{expiry, token_of};
use super::txn::{Txn, decode};
use super::usage::plan_text;
use crate::domain::grant::LimitScope;
use crate::domain::id::CredentialId;
use crate::domain::time::UnixMs;
use crate::enforce::{Counts, Days, LimitUsage, LimitUsed, Usage};
use crate::store::{Kind, RecordStore, StoreError};
use crate::wire::portal::credential::Credential;
use crate::wire::portal::fields::{Faults, Members, Ref};
use crate::wire::portal::moment;
use crate::wire::portal::people::{App, Organisation, User};
use crate::wire::portal::stored::Stored;

/// Credentials read from the store in one go.
const PAGE: usize = 500;

/// Shows what one credential has used.
pub(crate) struct CredentialUsage;
/// Shows what each credential of an owner has used, and all of them by day.
pub(crate) struct OwnerUsage<R>(PhantomData<R>);

/// Who has credentials.
pub(crate) trait Owns: Resource {
    /// Their credentials, ascending.
    fn credentials(
        id: u64,
        txn: &mut Txn<'_>,
    ) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;
}

impl Owns for App {
    async fn credentials(id: u64, txn: &mut Txn<'_>) -> Result<Vec<u64>, StoreError> {
        txn.members((Kind::App, id), Kind::Credential, usize::MAX).await
    }
}

impl Owns for User {
    async fn credentials(id: u64, txn: &mut Txn<'_>) -> Result<Vec<u64>, StoreError> {
        let mut all = Vec::new();
        for app in txn.members((Kind::User, id), Kind::App, usize::MAX).await? {
            all.extend(App::credentials(app, txn).await?);
        }
        all.sort_unstable();
        Ok(all)
    }
}

impl Owns for Organisation {
    async fn credentials(id: u64, txn: &mut Txn<'_>) -> Result<Vec<u64>, StoreError> {
        let mut all = Vec::new();
        for user in txn.members((Kind::Organisation, id), Kind::User, usize::MAX).await? {
            all.extend(User::credentials(user, txn).await?);
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// The credentials of a page of those that belong to the `app`, `user` and `organisation` of a
/// query, and are under its `plan`.
pub(crate) async fn filtered(txn: &mut Txn<'_>, call: &Call) -> Result<Vec<Stored>, Refusal> {
    let mut faults = Faults::default();
    let paging = call.paging.clone().unwrap_or_else(|texts| {
        texts.into_iter().for_each(|text| faults.sentence(text));
        Paging { offset: 0, rows: 0 }
    });
    let mut owned = None::<BTreeSet<u64>>;
    narrow::<App>(txn, call, &mut owned, &mut faults).await?;
    narrow::<User>(txn, call, &mut owned, &mut faults).await?;
    narrow::<Organisation>(txn, call, &mut owned, &mut faults).await?;
    let plan = named(txn, call, ("plan", Kind::Plan), &mut faults).await?;
    Refusal::unless_empty(faults)?;
    if owned.is_none() && plan.is_none() {
        return Ok(with_limits(txn, paging).await?);
    }
    let candidates = match owned {
        Some(ids) => {
            let mut found = Vec::new();
            for id in ids {
                found.extend(txn.object(Kind::Credential, id).await?);
            }
            found
        }
        None => {
            let all = Paging { offset: 0, rows: u64::MAX };
            objects(txn, Kind::Credential, None, all).await?
        }
    };
    let limited = candidates.into_iter().filter(|c| c.links.token.is_some());
    let under = limited.filter(|c| plan.is_none() || c.number("PlanID") == plan);
    let skip = usize::try_from(paging.offset).unwrap_or(usize::MAX);
    Ok(under.skip(skip).take(usize::try_from(paging.rows).unwrap_or(usize::MAX)).collect())
}

/// A page of all credentials that have limits: of those with a token. The page is full while there
/// are more.
async fn with_limits(txn: &mut Txn<'_>, paging: Paging) -> Result<Vec<Stored>, StoreError> {
    let rows = usize::try_from(paging.rows).unwrap_or(usize::MAX);
    let (mut skip, mut found, mut after) = (paging.offset, Vec::new(), None::<Arc<[u8]>>);
    loop {
        let store = txn.catalog().store();
        let page = store.list(Kind::Credential, &[], after.as_deref(), PAGE).await?;
        after = page.records.last().map(|(key, _)| Arc::clone(&key.id));
        for (_, record) in &page.records {
            let credential = decode(&record.value)?;
            match (credential.links.token.is_some(), skip) {
                (false, _) => {}
                (true, 0) if found.len() == rows => return Ok(found),
                (true, 0) => found.push(credential),
                (true, _) => skip -= 1,
            }
        }
        if !page.more || after.is_none() {
            return Ok(found);
        }
    }
}

/// Keeps those that belong to the owner that the query names, if it names one of this kind.
async fn narrow<R: Owns>(
    txn: &mut Txn<'_>,
    call: &Call,
    owned: &mut Option<BTreeSet<u64>>,
    faults: &mut Faults,
) -> Result<(), StoreError> {
    let Some(id) = named(txn, call, (R::NOUN, R::KIND), faults).await? else { return Ok(()) };
    let theirs: BTreeSet<u64> = R::credentials(id, txn).await?.into_iter().collect();
    *owned = Some(match owned.take() {
        Some(owned) => &owned & &theirs,
        None => theirs,
    });
    Ok(())
}

/// The object that a parameter of the query names.
async fn named(
    txn: &mut Txn<'_>,
    call: &Call,
    parameter: (&str, Kind),
    faults: &mut Faults,
) -> Result<Option<u64>, StoreError> {
    let (name, kind) = parameter;
    let Some(text) = call.parameter(name) else { return Ok(None) };
    let found = match Ref::parse(text) {
        Some(named) => txn.resolve(kind, &named).await?,
        None => None,
    };
    if found.is_none() {
        faults.add(name, "names nothing that exists");
    }
    Ok(found)
}

impl Operation for CredentialUsage {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let credential = find::<Credential>(txn, call, StatusCode::NOT_FOUND).await?;
        let id = CredentialId(credential.id);
        let history = state.enforcer.history(&[id]).await?;
        let days = history.get(&id).cloned().unwrap_or_default();
        let mut body = row(state, txn, &credential, &days).await?;
        body.insert("History".to_owned(), by_day(&days));
        let object = format!("credential {}", credential.id);
        Ok(Answer { status: StatusCode::OK, body: body.into(), object })
    }
}

impl<R: Owns> Operation for OwnerUsage<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let owner = find::<R>(txn, call, StatusCode::NOT_FOUND).await?;
        let paging = call.paging.clone().map_err(Refusal::Faults)?;
        let all = R::credentials(owner.id, txn).await?;
        let ids: Vec<_> = all.iter().copied().map(CredentialId).collect();
        let history = state.enforcer.history(&ids).await?;
        let mut total = Days::new();
        for (day, counts) in history.values().flatten() {
            total.entry(*day).or_default().add(*counts);
        }
        let skip = usize::try_from(paging.offset).unwrap_or(usize::MAX);
        let rows = usize::try_from(paging.rows).unwrap_or(usize::MAX);
        let mut shown = Vec::new();
        for id in all.iter().skip(skip).take(rows) {
            let Some(credential) = txn.object(Kind::Credential, *id).await? else { continue };
            let days = history.get(&CredentialId(*id)).cloned().unwrap_or_default();
            shown.push(Value::from(row(state, txn, &credential, &days).await?));
        }
        let body = json!({
            "Total": all.len(),
            "Credentials": shown,
            "LastUsedAt": last_use(&total),
            "History": by_day(&total),
        });
        Ok(Answer { status: StatusCode::OK, body, object: format!("{} {}", R::NOUN, owner.id) })
    }
}

/// One credential, in the words of the portal's pages.
async fn row(
    state: &AdminState,
    txn: &mut Txn<'_>,
    credential: &Stored,
    days: &BTreeMap<u64, Counts>,
) -> Result<Members, Refusal> {
    let usage = match token_of(credential) {
        Some(token) => state.enforcer.usage(&token).await?,
        None => None,
    };
    let plan = match credential.number("PlanID") {
        Some(id) => txn.object(Kind::Plan, id).await?,
        None => None,
    };
    let name = plan.as_ref().map(|plan| match plan.text("DisplayName") {
        "" => plan.text("Name").to_owned(),
        name => name.to_owned(),
    });
    let text =
        |member: &str| plan.as_ref().map(plan_text).and_then(|text| text.get(member).cloned());
    let status = match &usage {
        // A pair for display has no token; it is as active as it says.
        None if credential.flag("Active") => "active",
        None => "inactive",
        Some(usage) => usage.refused.map_or("active", |denial| denial.answer().code),
    };
    let now = state.clock.unix();
    let limits = usage.as_ref().map(|usage| usage.limits.as_slice()).unwrap_or_default();
    let shown = json!({
        "ID": credential.id,
        "Alias": credential.text("Alias"),
        "AppID": credential.links.parent,
        "Status": status,
        "Expires": expiry(credential).map(moment::shown),
        "LastUsedAt": last_use(days),
        "Plan": name,
        "RateText": text("rate_limit"),
        "QuotaText": text("quota"),
        "Rate": tightest(limits, now, is_rate),
        "Quota": tightest(limits, now, |limit| !is_rate(limit)),
        "ByProduct": by_product(usage.as_ref(), txn, now).await?,
    });
    Ok(shown.as_object().cloned().unwrap_or_default())
}

fn is_rate(limit: &LimitUsage) -> bool {
    matches!(limit.used, LimitUsed::Rate { .. })
}

/// Of several limits of a kind the one with the smallest share left.
fn tightest(limits: &[LimitUsage], now: UnixMs, of_kind: impl Fn(&LimitUsage) -> bool) -> Value {
    let share = |usage: &LimitUsage| match &usage.used {
        LimitUsed::Rate { rate, remaining, .. } => (*remaining, rate.requests.get()),
        LimitUsed::Quota { limit, spread, .. } => (spread.remaining, *limit),
    };
    let tightest = limits.iter().filter(|limit| of_kind(limit)).min_by(|a, b| {
        let ((left_a, of_a), (left_b, of_b)) = (share(a), share(b));
        let (a, b) = (u128::from(left_a) * u128::from(of_b), u128::from(left_b) * u128::from(of_a));
        a.cmp(&b)
    });
    tightest.map_or_else(|| json!({ "Unlimited": true }), |limit| shown(limit, now))
}

fn shown(usage: &LimitUsage, now: UnixMs) -> Value {
    match &usage.used {
        LimitUsed::Rate { rate, remaining, reset_ms, .. } => json!({
            "Limit": rate.requests,
            "Per": rate.per_ms.get().div_ceil(1_000),
            "Remaining": remaining,
            "ResetsAt": moment::exact(now.plus_ms(*reset_ms)),
            "Unlimited": false,
        }),
        LimitUsed::Quota { limit, spread, window, .. } => json!({
            "Limit": limit,
            "Used": spread.used,
            "Remaining": spread.remaining,
            "RenewsAt": window.and_then(|window| window.end).map(moment::exact),
            "Unlimited": false,
        }),
    }
}

/// The limits that a product of the credential has to itself.
async fn by_product(
    usage: Option<&Usage>,
    txn: &mut Txn<'_>,
    now: UnixMs,
) -> Result<Vec<Value>, StoreError> {
    let mut rows = Vec::new();
    for limit in usage.map(|usage| usage.limits.as_slice()).unwrap_or_default() {
        let LimitScope::Policy(policy) = &limit.scope else { continue };
        let number = policy.as_str().strip_prefix("product-").and_then(|id| id.parse().ok());
        let product = match number {
            Some(id) => txn.object(Kind::Product, id).await?,
            None => None,
        };
        let kind = if is_rate(limit) { "Rate" } else { "Quota" };
        let name = product.map(|product| product.text("Name").to_owned());
        rows.push(json!({ "ProductID": number, "Product": name, kind: shown(limit, now) }));
    }
    Ok(rows)
}

fn last_use(days: &BTreeMap<u64, Counts>) -> Value {
    days.values().map(|counts| counts.last).max().map(moment::exact).into()
}

/// Requests by day, oldest first; days without any are left out.
fn by_day(days: &BTreeMap<u64, Counts>) -> Value {
    let row = |(day, counts): (&u64, &Counts)| {
        let date = moment::shown(UnixMs(day.saturating_mul(86_400_000)));
        let date = date.split(' ').next().unwrap_or_default();
        json!({ "Date": date, "Admitted": counts.admitted, "Refused": counts.refused })
    };
    days.iter().map(row).collect()
}
