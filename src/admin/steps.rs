//! Requests that change more than one commit may hold: they go in steps.
//!
//! A commit holds the records of a few dozen credentials, so that a shared store is busy with it for
//! a few milliseconds. Of an owner that is deleted, what belongs to it goes first, and itself with
//! the last of that. An owner that is moved says so with the first commit, and is *unsettled* until
//! what gateways enforce of its tokens is written anew; so is one that is given a long list
//! ([`rosters`]), until it has it. Either way each commit leaves a state that the same request goes
//! on from.

use axum::response::{IntoResponse, Response};

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::crud::Operation;
use super::keys::{token_key, tokens_of, write_token};
use super::repeats::Repeat;
use super::txn::{Txn, entries, kind_byte};
use super::{ATTEMPTS_MAX, AdminState, repeats, rosters, turns};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::stored::Stored;

/// Credentials, or other objects, that one commit deletes or writes anew, in a store where nobody
/// but other edits waits for it. A credential is some nine records.
const BATCH: usize = 256;
/// The same in a store that has other things to do meanwhile.
const BATCH_SHARED: usize = 64;

/// What is left to do of a request when a commit of it is through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Owners that are to be settled, in this order.
    pub(crate) settle: Vec<Unsettled>,
    /// The request is to be done once more: there is more to delete.
    pub(crate) again: bool,
    /// What is to be settled was there before the request, which goes on when it comes again.
    pub(crate) goes_on: bool,
}

/// An app or a user that was moved, and whose tokens say otherwise yet; a team or a catalogue that
/// has not all of its lists yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    /// Which edit: another one meanwhile has another mark.
    pub(crate) mark: u64,
}

impl Unsettled {
    /// Marks an owner, at `now` or because an earlier edit of it is not through.
    pub(crate) fn mark(kind: Kind, owner: &mut Stored, now: Option<UnixMs>) -> Self {
        let known = owner.links.unsettled.unwrap_or_default();
        let mark = now.map_or(known, |now| now.0.max(known.saturating_add(1)));
        owner.links.unsettled = Some(mark);
        Self { kind, id: owner.id, mark }
    }

    /// The owner, if it is still unsettled by this very edit.
    pub(crate) async fn owner(&self, txn: &mut Txn<'_>) -> Result<Option<Stored>, StoreError> {
        let owner = txn.object(self.kind, self.id).await?;
        Ok(owner.filter(|owner| owner.links.unsettled == Some(self.mark)))
    }
}

/// How a commit of a request went.
enum Step {
    /// It is through, and this is left to do.
    Through(Answer, Rest),
    /// The request came before, and this was the answer.
    Known(Response),
}

/// Does a request, commit by commit.
pub(super) async fn transact<O: Operation>(
    state: &AdminState,
    call: &Call,
) -> Result<Response, Refusal> {
    let mut done: Option<Answer> = None;
    loop {
        let (answer, rest) = match (step::<O>(state, call).await, done.take()) {
            (Ok(Step::Through(answer, rest)), _) => (answer, rest),
            (Ok(Step::Known(response)), _) => return Ok(response),
            // Somebody else deleted the rest of it.
            (Err(Refusal::Missing { .. }), Some(answer)) => return Ok(answer.into_response()),
            (Err(refusal), _) => return Err(refusal),
        };
        for owner in rest.settle {
            settle(state, owner).await?;
        }
        if !rest.again {
            return Ok(answer.into_response());
        }
        done = Some(answer);
    }
}

/// One commit of a request, tried again when others were faster.
async fn step<O: Operation>(state: &AdminState, call: &Call) -> Result<Step, Refusal> {
    let repeat = call.repeat.as_ref().map_err(|faults| Refusal::Faults(faults.clone()))?;
    let mut turn = None;
    for _ in 0..ATTEMPTS_MAX {
        let mut txn = Txn::new(&state.catalog);
        if let Some(given) = answered(repeat.as_ref(), state, &mut txn).await? {
            return Ok(Step::Known(given));
        }
        let answer = match O::run(state, &mut txn, call).await {
            Ok(answer) => answer,
            Err(refusal) => {
                // Its twin, which came at the same moment, may have done it just now.
                let mut anew = Txn::new(&state.catalog);
                let given = answered(repeat.as_ref(), state, &mut anew).await?;
                return given.map(Step::Known).ok_or(refusal);
            }
        };
        let rest = std::mem::take(&mut txn.rest);
        // A step that finds nothing to do and more to come saw what others delete just now, or the
        // index of a damaged store: it would be done for ever.
        let idle = rest.again && !txn.writes();
        let mut kept = None;
        if let Some(repeat) = repeat.as_ref().filter(|repeat| repeat.keeps(&rest)) {
            kept = Some(repeat.keep(state, &mut txn, &answer).await?);
        }
        if !idle && txn.commit().await? {
            if let Some(number) = kept {
                repeats::forget_old(state, number).await;
            }
            return Ok(Step::Through(answer, rest));
        }
        turns::take(state, &mut turn).await?;
    }
    Err(Refusal::Busy)
}

async fn answered(
    repeat: Option<&Repeat>,
    state: &AdminState,
    txn: &mut Txn<'_>,
) -> Result<Option<Response>, Refusal> {
    match repeat {
        Some(repeat) => repeat.answered(state, txn).await,
        None => Ok(None),
    }
}

/// How many objects a commit has room for.
pub(crate) fn room(txn: &Txn<'_>) -> usize {
    if txn.catalog().store().has_feed() { BATCH_SHARED } else { BATCH }
}

/// Reads at once what deleting these credentials looks at.
pub(crate) async fn prefetch_whole(txn: &mut Txn<'_>, ids: &[u64]) -> Result<(), StoreError> {
    let (mut keys, mut requests) = (Vec::new(), Vec::new());
    for credential in credentials(txn, ids).await? {
        keys.extend(entries(Kind::Credential, &credential));
        keys.extend(tokens_of(&credential).map(|hash| token_key(&hash)));
        requests.extend([credential.links.request, credential.links.pending].iter().flatten());
    }
    keys.extend(requests.iter().map(|id| RecordKey::number(Kind::AccessRequest, *id)));
    txn.prefetch(keys.into_iter()).await?;
    prefetch_requests(txn, &requests).await
}

/// Reads at once what deleting these access requests looks at.
pub(crate) async fn prefetch_requests(txn: &mut Txn<'_>, ids: &[u64]) -> Result<(), StoreError> {
    txn.prefetch(ids.iter().map(|id| RecordKey::number(Kind::AccessRequest, *id))).await?;
    let mut keys = Vec::new();
    for id in ids {
        if let Some(request) = txn.shared(Kind::AccessRequest, *id).await? {
            keys.extend(entries(Kind::AccessRequest, &request));
        }
    }
    txn.prefetch(keys.into_iter()).await
}

async fn credentials(txn: &mut Txn<'_>, ids: &[u64]) -> Result<Vec<Stored>, StoreError> {
    txn.prefetch(ids.iter().map(|id| RecordKey::number(Kind::Credential, *id))).await?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(txn.object(Kind::Credential, *id).await?);
    }
    Ok(found)
}

/// Writes the tokens of a moved app or user anew, after what they carry of it changed: all of them
/// if the commit has room, which takes from it; otherwise the owner is marked as unsettled, and the
/// rest is left for later. Without a move `moved` is `None`: then an earlier one is seen through.
pub(crate) async fn move_tokens(
    txn: &mut Txn<'_>,
    kind: Kind,
    owner: &mut Stored,
    moved: Option<UnixMs>,
    room: &mut usize,
) -> Result<(), StoreError> {
    if rewrite_some(txn, kind, owner.id, room).await? {
        owner.links.unsettled = None;
        if kind == Kind::User {
            leave_groups(owner);
        }
        return Ok(());
    }
    let unsettled = Unsettled::mark(kind, owner, moved);
    txn.rest.settle.push(unsettled);
    Ok(())
}

/// Lets a user still be found by the organisation and the teams it has left, for as long as its
/// tokens may say that it is there.
pub(crate) fn stay_in_groups(before: &Stored, after: &mut Stored) {
    let groups = [Kind::Organisation, Kind::Team].map(kind_byte);
    for owner in before.owners.iter().filter(|owner| groups.contains(&owner.0)) {
        if !after.owners.contains(owner) {
            after.owners.push(*owner);
        }
    }
}

fn leave_groups(user: &mut Stored) {
    let (organisation, teams) = (user.number("OrganisationID"), user.numbers("Teams"));
    user.owners.retain(|of| {
        let left = (of.0 == kind_byte(Kind::Organisation) && Some(of.1) != organisation)
            || (of.0 == kind_byte(Kind::Team) && !teams.contains(&of.1));
        !left
    });
}

/// Writes tokens anew while there is room; whether that was all.
async fn rewrite_some(
    txn: &mut Txn<'_>,
    kind: Kind,
    owner: u64,
    room: &mut usize,
) -> Result<bool, StoreError> {
    let most = room.saturating_add(1);
    let apps = apps_of(txn, kind, owner, most).await?;
    for app in apps {
        let mut ids = txn.members((Kind::App, app), Kind::Credential, most).await?;
        let all = ids.len() < *room;
        ids.truncate(*room);
        rewrite(txn, &ids).await?;
        // An app without any takes its room, too: it was looked at.
        *room = room.saturating_sub(ids.len().saturating_add(1));
        if !all {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The apps of a user, or the app itself.
async fn apps_of(
    txn: &Txn<'_>,
    kind: Kind,
    owner: u64,
    most: usize,
) -> Result<Vec<u64>, StoreError> {
    if kind == Kind::App {
        return Ok(vec![owner]);
    }
    txn.members((kind, owner), Kind::App, most).await
}

/// Writes what gateways enforce of these credentials' tokens.
async fn rewrite(txn: &mut Txn<'_>, ids: &[u64]) -> Result<(), StoreError> {
    let all = credentials(txn, ids).await?;
    let tokens = all.iter().flat_map(tokens_of).map(|hash| token_key(&hash)).collect::<Vec<_>>();
    txn.prefetch(tokens.into_iter()).await?;
    for credential in &all {
        write_token(txn, credential).await?;
    }
    Ok(())
}

/// Sees an edit through.
async fn settle(state: &AdminState, owner: Unsettled) -> Result<(), Refusal> {
    if [Kind::App, Kind::User].contains(&owner.kind) {
        settle_tokens(state, owner).await
    } else {
        settle_roster(state, owner).await
    }
}

/// Writes all tokens of an unsettled owner anew, and takes its mark off. Tokens that come to it
/// meanwhile are right from the start.
async fn settle_tokens(state: &AdminState, owner: Unsettled) -> Result<(), Refusal> {
    let lists = Txn::new(&state.catalog);
    for app in apps_of(&lists, owner.kind, owner.id, usize::MAX).await? {
        let ids = lists.members((Kind::App, app), Kind::Credential, usize::MAX).await?;
        for some in ids.chunks(room(&lists)) {
            through(state, Settling::Tokens(some)).await?;
        }
    }
    through(state, Settling::Done(owner)).await?;
    Ok(())
}

/// Gives an unsettled owner all of its lists, and takes its mark off.
async fn settle_roster(state: &AdminState, owner: Unsettled) -> Result<(), Refusal> {
    let mut lists = Txn::new(&state.catalog);
    let Some(object) = owner.owner(&mut lists).await? else { return Ok(()) };
    let changes = rosters::changes(&lists, owner.kind, &object).await?;
    let mut left = changes.as_slice();
    while !left.is_empty() {
        let (done, users) = through(state, Settling::Roster(owner, left)).await?;
        for user in users {
            settle_tokens(state, user).await?;
        }
        left = left.get(done..).unwrap_or_default();
    }
    through(state, Settling::Done(owner)).await?;
    Ok(())
}

/// One commit of settling.
#[derive(Clone, Copy, Debug)]
enum Settling<'a> {
    Tokens(&'a [u64]),
    Roster(Unsettled, &'a [rosters::Change]),
    Done(Unsettled),
}

/// Does one commit; how much of it was done, and who is to be settled then.
async fn through(
    state: &AdminState,
    what: Settling<'_>,
) -> Result<(usize, Vec<Unsettled>), Refusal> {
    let mut turn = None;
    for _ in 0..ATTEMPTS_MAX {
        let mut txn = Txn::new(&state.catalog);
        let done = match what {
            Settling::Tokens(ids) => {
                rewrite(&mut txn, ids).await?;
                ids.len()
            }
            Settling::Roster(owner, changes) => match owner.owner(&mut txn).await? {
                Some(object) => {
                    txn.guard(RecordKey::number(owner.kind, owner.id)).await?;
                    let now = state.clock.unix();
                    rosters::some(&mut txn, owner.kind, &object, changes, now).await?
                }
                // Whoever edited it again sees to it.
                None => changes.len(),
            },
            Settling::Done(owner) => {
                unmark(&mut txn, owner).await?;
                1
            }
        };
        let rest = std::mem::take(&mut txn.rest);
        if txn.commit().await? {
            return Ok((done, rest.settle));
        }
        turns::take(state, &mut turn).await?;
    }
    Err(Refusal::Busy)
}

async fn unmark(txn: &mut Txn<'_>, owner: Unsettled) -> Result<(), StoreError> {
    // Whoever edited it again settles it, too.
    let Some(before) = owner.owner(txn).await? else { return Ok(()) };
    let mut after = before.clone();
    after.links.unsettled = None;
    after.links.roster.clear();
    if owner.kind == Kind::User {
        leave_groups(&mut after);
    }
    txn.save(owner.kind, Some(&before), &after).await
}
