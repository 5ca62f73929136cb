//! Custom attributes of users (portal-api, B8): what the metadata of their credentials says of them
//! beside who they are (E10).
//!
//! The portal only shows and changes them; making and deleting them is ours.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::crud::{Operation, find, missing};
use super::steps::{move_tokens, room};
use super::txn::Txn;
use super::{AdminState, handle};
use crate::store::{Kind, StoreError};
use crate::wire::portal::fields::{Faults, Fields, Ref};
use crate::wire::portal::people::{NewAttribute, User};
use crate::wire::portal::stored::{Attribute, Stored};
use crate::wire::record::TIES;

/// Attributes of one user at most: they are part of the record of every token of his.
const ATTRIBUTES_MAX: usize = 100;

/// The routes.
pub(super) fn routes() -> Router<AdminState> {
    let all = get(handle::<List>).post(handle::<Make>);
    let one = get(handle::<Show>).put(handle::<Change>).delete(handle::<Remove>);
    Router::new()
        .route("/users/{id}/custom-attributes", all)
        .route("/users/{id}/custom-attributes/{attribute}", one)
}

/// Lists a user's.
struct List;
/// Shows one.
struct Show;
/// Makes one.
struct Make;
/// Changes the value of one.
struct Change;
/// Deletes one.
struct Remove;

impl Operation for List {
    async fn run(_: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let user = find::<User>(txn, call, StatusCode::NOT_FOUND).await?;
        let rows: Vec<_> = user.links.attributes.iter().map(shown).collect();
        Ok(Answer { status: StatusCode::OK, body: rows.into(), object: String::new() })
    }
}

impl Operation for Show {
    async fn run(_: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let user = find::<User>(txn, call, StatusCode::NOT_FOUND).await?;
        let at = position(&user, call, StatusCode::NOT_FOUND)?;
        Ok(told(StatusCode::OK, &user, user.links.attributes.get(at)))
    }
}

impl Operation for Make {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = find::<User>(txn, call, StatusCode::NOT_FOUND).await?;
        let mut faults = Faults::default();
        let new = NewAttribute::read(&mut Fields::of(call.members()?, &mut faults));
        let known = &before.links.attributes;
        // Made by a request that broke off before all tokens had it: it comes again.
        if let Some(at) = known.iter().position(|one| is_broken_off(&before, one, &new)) {
            let mut after = before.clone();
            save(state, txn, &before, &mut after).await?;
            return Ok(told(StatusCode::CREATED, &after, after.links.attributes.get(at)));
        }
        if known.iter().any(|one| one.identifier == new.identifier) {
            faults.add("Identifier", "is already in use");
        }
        if TIES.contains(&new.identifier.as_str()) {
            faults.add("Identifier", "is written by the portal itself");
        }
        if ATTRIBUTES_MAX <= known.len() {
            faults.sentence(format!("a user has at most {ATTRIBUTES_MAX} custom attributes"));
        }
        Refusal::unless_empty(faults)?;
        let last = known.iter().map(|one| one.id).max().unwrap_or_default();
        let mut after = before.clone();
        after.links.attributes.push(Attribute {
            id: last.saturating_add(1),
            name: new.name,
            identifier: new.identifier,
            value: new.value,
            in_metadata: new.in_metadata,
            fixed: new.fixed,
        });
        save(state, txn, &before, &mut after).await?;
        Ok(told(StatusCode::CREATED, &after, after.links.attributes.last()))
    }
}

impl Operation for Change {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = find::<User>(txn, call, StatusCode::UNPROCESSABLE_ENTITY).await?;
        let at = position(&before, call, StatusCode::UNPROCESSABLE_ENTITY)?;
        let mut faults = Faults::default();
        let mut fields = Fields::of(call.members()?, &mut faults);
        if !fields.has("Value") {
            fields.fault("Value", "is required");
        }
        let value = fields.line("Value");
        let mut after = before.clone();
        let Some(attribute) = after.links.attributes.get_mut(at) else {
            return Err(Refusal::Internal);
        };
        if attribute.fixed && attribute.value != value {
            faults.add("Value", "is written once and does not change");
        }
        Refusal::unless_empty(faults)?;
        attribute.value = value;
        save(state, txn, &before, &mut after).await?;
        Ok(told(StatusCode::OK, &after, after.links.attributes.get(at)))
    }
}

impl Operation for Remove {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = find::<User>(txn, call, StatusCode::NOT_FOUND).await?;
        let mut after = before.clone();
        match position(&before, call, StatusCode::NOT_FOUND) {
            Ok(at) => drop(after.links.attributes.remove(at)),
            // It may have been deleted by a request that broke off before all tokens lost it.
            Err(_gone) if before.links.unsettled.is_some() => {}
            Err(gone) => return Err(gone),
        }
        save(state, txn, &before, &mut after).await?;
        Ok(Answer::done(named(&after)))
    }
}

/// Whether a request that made this attribute may have broken off.
fn is_broken_off(user: &Stored, made: &Attribute, new: &NewAttribute) -> bool {
    user.links.unsettled.is_some()
        && (&made.identifier, &made.name, &made.value) == (&new.identifier, &new.name, &new.value)
        && (made.in_metadata, made.fixed) == (new.in_metadata, new.fixed)
}

/// Which of a user's attributes the path names.
fn position(user: &Stored, call: &Call, status: StatusCode) -> Result<usize, Refusal> {
    let wanted = call.params.get(1).and_then(|text| Ref::parse(text));
    let found = user.links.attributes.iter().position(|one| Some(Ref::Id(one.id)) == wanted);
    found.ok_or_else(|| missing("custom attribute", status))
}

/// Stores a user, and what its credentials' tokens say of it.
async fn save(
    state: &AdminState,
    txn: &mut Txn<'_>,
    before: &Stored,
    after: &mut Stored,
) -> Result<(), StoreError> {
    let now = state.clock.unix();
    after.updated_ms = now.0;
    txn.rest.goes_on = true;
    // What gateways enforce is written by what is stored.
    txn.save(Kind::User, Some(before), after).await?;
    let mut room = room(txn);
    move_tokens(txn, Kind::User, after, Some(now), &mut room).await?;
    txn.save(Kind::User, Some(before), after).await
}

fn told(status: StatusCode, user: &Stored, attribute: Option<&Attribute>) -> Answer {
    Answer { status, body: attribute.map(shown).into(), object: named(user) }
}

fn named(user: &Stored) -> String {
    format!("user {}", user.id)
}

fn shown(attribute: &Attribute) -> Value {
    json!({
        "ID": attribute.id,
        "Value": attribute.value,
        "CustomAttribute": {
            "Name": attribute.name,
            "Identifier": attribute.identifier,
            "Type": "String",
            "AddToKeyMetadata": attribute.in_metadata,
            "WriteOnceReadMany": attribute.fixed,
        },
    })
}
