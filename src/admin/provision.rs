//! Asking for access, and the answer: a request waits until it is approved or rejected, unless its
//! plan approves at once.

use http::StatusCode;

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::catalogues::Viewer;
use super::cid::new_cid;
use super::credentials::expiry_by_plan;
use super::crud::{Operation, find, refuse};
use super::draft::{Draft, made};
use super::keys::{Keep, generate, token_facts, write_token};
use super::requests::AccessRequest;
use super::txn::{Txn, kind_byte, name_entry};
use crate::domain::seal::Reveal;
use crate::domain::time::UnixMs;
use crate::domain::token::Token;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::fields::{Fields, Members, Ref};
use crate::wire::portal::people::App;
use crate::wire::portal::request::Ask;
use crate::wire::portal::secrets;
use crate::wire::portal::stored::{Asked, Stored};

/// Asks for a new credential, or for a change of one: another plan, more products.
pub(crate) struct Provision;
/// Grants a request.
pub(crate) struct Approve;
/// Turns a request down. It stays in the lists.
pub(crate) struct Reject;

/// A request that was granted.
struct Granted {
    request: Stored,
    credential: u64,
    /// The token of a new credential.
    token: Option<Token>,
}

impl Operation for Provision {
    const ACTION: bool = true;

    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let app = find::<App>(txn, call, StatusCode::UNPROCESSABLE_ENTITY).await?;
        let now = state.clock.unix();
        let mut draft = Draft::new(state, None, Stored::default());
        let mut body = call.members()?;
        secrets::discard(&mut body, &[]);
        let mut fields = Fields::of(body, &mut draft.faults);
        let ask = Ask::read(&mut fields);
        draft.after.members = fields.finish();
        let (target, plan) = check(&ask, &app, &mut draft, txn).await?;
        Refusal::unless_empty(std::mem::take(&mut draft.faults))?;
        let user = app.number("UserID");
        if let (Some(plan), Some(user)) = (&plan, user)
            && !count(txn, user, plan, now).await?
        {
            return Err(refuse("Plan access quota exceeded"));
        }

        let mut request = draft.after;
        request.id = txn.next_id(Kind::AccessRequest).await?;
        request.cid = new_cid(now, request.id);
        (request.created_ms, request.updated_ms) = (now.0, now.0);
        request.links.parent = Some(app.id);
        request.links.target = target.as_ref().map(|credential| credential.id);
        request.owners.push((kind_byte(Kind::App), app.id));
        txn.guard(RecordKey::number(Kind::App, app.id)).await?;
        let auto = plan.is_some_and(|plan| plan.flag("AutoApproveAccessRequests"));
        request.members.insert("ProvisionImmediately".to_owned(), auto.into());
        set_status(&mut request, "pending");
        if auto {
            let granted = grant(state, txn, None, request).await?;
            return Ok(granted.answer(state.reveal));
        }
        txn.save_new(Kind::AccessRequest, &request);
        if let Some(before) = target {
            let mut after = before.clone();
            after.links.pending = Some(request.id);
            txn.save(Kind::Credential, Some(&before), &after).await?;
        }
        Ok(told(&request, "pending", Members::new()))
    }
}

impl Operation for Approve {
    const ACTION: bool = true;

    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = pending(txn, call).await?;
        let mut request = before.clone();
        request.updated_ms = state.clock.unix().0;
        let granted = grant(state, txn, Some(&before), request).await?;
        Ok(granted.answer(state.reveal))
    }
}

impl Operation for Reject {
    const ACTION: bool = true;

    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = pending(txn, call).await?;
        let mut request = before.clone();
        request.updated_ms = state.clock.unix().0;
        set_status(&mut request, "rejected");
        txn.save(Kind::AccessRequest, Some(&before), &request).await?;
        release(txn, &request).await?;
        Ok(told(&request, "rejected", Members::new()))
    }
}

impl Granted {
    fn answer(self, reveal: Reveal) -> Answer {
        let mut more = Members::new();
        more.insert("CredentialID".to_owned(), self.credential.into());
        // The portal reads the token of the credential; where it cannot, it is told here.
        if let (Some(token), Reveal::Once) = (self.token, reveal) {
            more.insert("Credential".to_owned(), token.reveal().into());
        }
        told(&self.request, "approved", more)
    }
}

/// Lets go of the credential that a request waited to change.
pub(crate) async fn release(txn: &mut Txn<'_>, request: &Stored) -> Result<(), StoreError> {
    let Some(target) = request.links.target else { return Ok(()) };
    let Some(before) = txn.object(Kind::Credential, target).await? else { return Ok(()) };
    if before.links.pending != Some(request.id) {
        return Ok(());
    }
    let mut after = before.clone();
    after.links.pending = None;
    txn.save(Kind::Credential, Some(&before), &after).await
}

fn told(request: &Stored, status: &str, more: Members) -> Answer {
    let mut body = Members::new();
    body.insert("status".to_owned(), "ok".into());
    body.insert("message".to_owned(), format!("access request {} is {status}", request.id).into());
    body.insert("AccessRequestID".to_owned(), request.id.into());
    body.extend(more);
    let object = format!("access request {}", request.id);
    Answer { status: StatusCode::OK, body: body.into(), object }
}

fn set_status(request: &mut Stored, status: &str) {
    request.members.insert("Status".to_owned(), status.into());
}

/// The request that the path names, if nobody has answered it.
async fn pending(txn: &mut Txn<'_>, call: &Call) -> Result<Stored, Refusal> {
    let request = find::<AccessRequest>(txn, call, StatusCode::UNPROCESSABLE_ENTITY).await?;
    match request.text("Status") {
        "pending" => Ok(request),
        "rejected" => Err(refuse("the access request is rejected already")),
        _ => Err(refuse("the access request is approved already")),
    }
}

/// Checks what is asked for: the credential to be changed, and the plan whose rules hold.
async fn check(
    ask: &Ask,
    app: &Stored,
    draft: &mut Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<(Option<Stored>, Option<Stored>), StoreError> {
    let target = match &ask.credential {
        Some(named) => changeable(named, app, draft, txn).await?,
        None => None,
    };
    draft.after.members.remove("CredentialID");
    let mut plan = draft.refer(txn, Kind::Plan, "PlanID", ask.plan.as_ref()).await?;
    draft.refer(txn, Kind::Catalogue, "CatalogueID", ask.catalogue.as_ref()).await?;
    let products = draft.refer_all(txn, Kind::Product, "ProductIDs", &ask.products).await?;
    for id in &products {
        check_product(*id, draft, txn).await?;
    }
    let wanted = plan.iter().map(|id| ("PlanID", Kind::Plan, *id));
    let wanted = wanted.chain(products.iter().map(|id| ("ProductIDs", Kind::Product, *id)));
    check_shelves(app, wanted, draft, txn).await?;
    let alias = name_entry(Kind::Credential, app.id, draft.after.text("Alias").trim());
    if ask.credential.is_none() && txn.unique(&alias).await?.is_some() {
        draft.faults.add("Alias", "is already in use");
    }
    if let Some(target) = &target {
        let had = target.numbers("ProductIDs");
        for id in products.iter().filter(|id| had.contains(id)) {
            draft.faults.add("ProductIDs", format_args!("{id} is part of the credential already"));
        }
        if plan.is_some() && plan == target.number("PlanID") {
            draft.after.members.remove("PlanID");
            if products.is_empty() {
                draft.faults.add("PlanID", "is the credential's plan already");
            }
        }
        plan = plan.or(target.number("PlanID"));
    }
    let plan = match plan {
        Some(id) => txn.object(Kind::Plan, id).await?,
        None => None,
    };
    Ok((target, plan))
}

async fn check_product(
    id: u64,
    draft: &mut Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<(), StoreError> {
    let product = txn.object(Kind::Product, id).await?;
    if product.is_some_and(|product| product.flag("IsDocumentationOnly")) {
        let what = format_args!("{id} is documentation only and grants nothing");
        draft.faults.add("ProductIDs", what);
    }
    Ok(())
}

/// Whether the app's owner sees what is asked for.
async fn check_shelves(
    app: &Stored,
    wanted: impl Iterator<Item = (&'static str, Kind, u64)>,
    draft: &mut Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<(), StoreError> {
    let owner = match app.number("UserID") {
        Some(id) => txn.object(Kind::User, id).await?,
        None => None,
    };
    let mut viewer = Viewer::new(&owner.unwrap_or_default());
    for (member, kind, id) in wanted {
        let Some(object) = txn.object(kind, id).await? else { continue };
        if !viewer.may_ask_for(&object, txn).await? {
            let what = format_args!("{id} is in no catalogue that the app's owner sees");
            draft.faults.add(member, what);
        }
    }
    Ok(())
}

/// A credential of the app that a request can change.
async fn changeable(
    named: &Ref,
    app: &Stored,
    draft: &mut Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<Option<Stored>, StoreError> {
    let found = draft.refer(txn, Kind::Credential, "CredentialID", Some(named)).await?;
    let Some(id) = found else { return Ok(None) };
    if !txn.belongs((Kind::App, app.id), (Kind::Credential, id)).await? {
        draft.faults.add("CredentialID", format_args!("{id} does not exist"));
        return Ok(None);
    }
    let credential = txn.object(Kind::Credential, id).await?;
    let links = credential.as_ref().map(|credential| &credential.links);
    if links.is_some_and(|links| links.token.is_none()) {
        draft.faults.add("CredentialID", "is kept for display and has no plan");
    }
    if let Some(request) = links.and_then(|links| links.pending) {
        let what = format_args!("waits for access request {request}");
        draft.faults.add("CredentialID", what);
    }
    Ok(credential)
}

/// Counts one request of a user for a plan; false when there were too many in its interval.
async fn count(
    txn: &mut Txn<'_>,
    user: u64,
    plan: &Stored,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let (most, every_s) = (plan.number("PlanQuota"), plan.number("PlanQuotaRenewalRate"));
    let (Some(most), Some(every_s)) = (most, every_s) else { return Ok(true) };
    let Some(before) = txn.object(Kind::User, user).await? else { return Ok(true) };
    let mut after = before.clone();
    let asked = &mut after.links.asked;
    asked.retain(|asked| now.0 < asked.until_ms);
    match asked.iter_mut().find(|asked| asked.plan == plan.id) {
        Some(asked) if most <= asked.count => return Ok(false),
        Some(asked) => asked.count += 1,
        None => {
            let until_ms = now.plus_ms(every_s.saturating_mul(1_000)).0;
            asked.push(Asked { plan: plan.id, until_ms, count: 1 });
        }
    }
    txn.save(Kind::User, Some(&before), &after).await?;
    Ok(true)
}

/// Does what a request asks for, if that can still be done.
async fn grant(
    state: &AdminState,
    txn: &mut Txn<'_>,
    before: Option<&Stored>,
    mut request: Stored,
) -> Result<Granted, Refusal> {
    let mut draft = Draft::new(state, None, Stored::default());
    draft.refer(txn, Kind::Plan, "PlanID", request.number("PlanID").map(Ref::Id).as_ref()).await?;
    let products: Vec<_> = request.numbers("ProductIDs").into_iter().map(Ref::Id).collect();
    for id in draft.refer_all(txn, Kind::Product, "ProductIDs", &products).await? {
        check_product(id, &mut draft, txn).await?;
    }
    Refusal::unless_empty(draft.faults)?;
    set_status(&mut request, "approved");
    let (credential, token) = match request.links.target {
        Some(target) => (change(txn, &request, target).await?, None),
        None => {
            let (credential, token) = issue(state, txn, &request).await?;
            request.links.credential = Some(credential);
            (credential, Some(token))
        }
    };
    txn.save(Kind::AccessRequest, before, &request).await?;
    Ok(Granted { request, credential, token })
}

/// Changes a credential as a request asks.
async fn change(txn: &mut Txn<'_>, request: &Stored, target: u64) -> Result<u64, Refusal> {
    let Some(before) = txn.object(Kind::Credential, target).await? else {
        return Err(refuse("the credential is revoked"));
    };
    let mut after = before.clone();
    after.updated_ms = request.updated_ms;
    after.links.pending = after.links.pending.filter(|pending| *pending != request.id);
    if let Some(plan) = request.number("PlanID") {
        after.members.insert("PlanID".to_owned(), plan.into());
    }
    let mut products = before.numbers("ProductIDs");
    for id in request.numbers("ProductIDs") {
        if !products.contains(&id) {
            products.push(id);
        }
    }
    after.members.insert("ProductIDs".to_owned(), products.into());
    txn.save(Kind::Credential, Some(&before), &after).await?;
    write_token(txn, &after).await?;
    Ok(target)
}

/// Makes the credential that a request asks for, with a generated token.
async fn issue(
    state: &AdminState,
    txn: &mut Txn<'_>,
    request: &Stored,
) -> Result<(u64, Token), Refusal> {
    let app = request.links.parent.unwrap_or_default();
    let id = txn.next_id(Kind::Credential).await?;
    let token = generate()?;
    let now = state.clock.unix();
    let mut made = made(id, UnixMs(request.updated_ms));
    made.links.parent = Some(app);
    made.links.request = Some(request.id);
    made.links.token = Some(token_facts(txn.catalog().pepper(), &token, Keep::Sealed)?);
    made.owners.push((kind_byte(Kind::App), app));
    let (alias, entry) = alias(txn, request, app, id).await?;
    made.uniques.push(entry);
    let members = &mut made.members;
    for (name, value) in [
        ("Alias", alias.as_str()),
        ("Type", "CREDENTIAL_TYPE_TYK_MANAGED"),
        ("AuthenticationMethod", "authToken"),
        ("AuthTokenType", "AUTH_TOKEN_STANDARD"),
    ] {
        members.insert(name.to_owned(), value.into());
    }
    members.insert("PlanID".to_owned(), request.number("PlanID").into());
    members.insert("ProductIDs".to_owned(), request.numbers("ProductIDs").into());
    members.insert("Active".to_owned(), true.into());
    members.insert("MetaData".to_owned(), Members::new().into());
    let ends = expiry_by_plan(txn, request.number("PlanID"), now).await?;
    members.extend(ends.map(|ends| ("Expires".to_owned(), ends.into())));
    txn.save_new(Kind::Credential, &made);
    write_token(txn, &made).await?;
    Ok((id, token))
}

/// The name of a new credential, and its entry among those of the app.
async fn alias(
    txn: &mut Txn<'_>,
    request: &Stored,
    app: u64,
    id: u64,
) -> Result<(String, String), Refusal> {
    let wanted = request.text("Alias").trim();
    let mut name = if wanted.is_empty() { format!("Credential {id}") } else { wanted.to_owned() };
    let mut entry = name_entry(Kind::Credential, app, &name);
    if txn.unique(&entry).await?.is_some() {
        if !wanted.is_empty() {
            return Err(refuse("Alias is already in use"));
        }
        name = format!("Credential {id} {}", new_cid(UnixMs(request.updated_ms), id));
        entry = name_entry(Kind::Credential, app, &name);
    }
    Ok((name, entry))
}
