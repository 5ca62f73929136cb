//! Another token for a credential.

use std::marker::PhantomData;

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::crud::{Operation, Resource, View, find, refuse};
use super::keys::{Keep, check_new, generate, replace_token, token_facts};
use super::requests::Issued;
use super::txn::Txn;
use crate::domain::seal::Reveal;
use crate::wire::portal::credential::{Credential, Rotation};
use crate::wire::portal::fields::{Faults, Fields, Members};
use crate::wire::portal::moment;
use http::StatusCode;

/// Replaces a credential's token. Its id, its quota and its expiry stay; the new token has a rate
/// of its own, so that it works at once.
pub(crate) struct Rotate<R>(PhantomData<R>);

/// A view of credentials that can be rotated through it.
pub(crate) trait Rotated: Resource {
    /// The member that holds the new token.
    const TOKEN: &'static str;
    /// Whether the answer shows the credential and the new token. The portal's own does not: who
    /// asked reads it again.
    const TELLS: bool;
}

impl Rotated for Credential {
    const TOKEN: &'static str = "KeyID";
    const TELLS: bool = true;
}

impl Rotated for Issued {
    const TOKEN: &'static str = "Credential";
    const TELLS: bool = false;
}

impl<R: Rotated> Operation for Rotate<R> {
    const ACTION: bool = true;

    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let before = find::<R>(txn, call, StatusCode::UNPROCESSABLE_ENTITY).await?;
        if before.links.token.is_none() {
            return Err(refuse("the credential has no token that could be rotated"));
        }
        let mut faults = Faults::default();
        let rotation = Rotation::read(&mut Fields::of(call.members_or_none()?, &mut faults));
        let (token, keep) = match rotation.key {
            Some(token) => (token, Keep::Hash),
            None => (generate()?, Keep::Sealed),
        };
        check_new(&token, &before.members, &mut faults, state, txn).await?;
        Refusal::unless_empty(faults)?;

        let now = state.clock.unix();
        let until = (0 < rotation.grace_s).then(|| now.plus_ms(rotation.grace_s * 1_000));
        let mut after = before.clone();
        after.updated_ms = now.0;
        let facts = token_facts(txn.catalog().pepper(), &token, keep)?;
        replace_token(txn, &mut after, facts, until).await?;
        txn.save(R::KIND, Some(&before), &after).await?;

        let mut body = match R::TELLS {
            true => R::show(&after, txn, View::of(state, call)).await?,
            false => Members::new(),
        };
        // A token that cannot be read again is told in any case.
        if R::TELLS || state.reveal == Reveal::Once {
            body.insert(R::TOKEN.to_owned(), token.reveal().into());
        }
        body.insert("PreviousExpires".to_owned(), until.map(moment::shown).into());
        body.insert("status".to_owned(), "ok".into());
        body.insert("message".to_owned(), "credential rotated".into());
        let object = format!("{} {}", R::NOUN, after.id);
        Ok(Answer { status: StatusCode::OK, body: body.into(), object })
    }
}
