//! Lists that an edit sets as a whole: the users of a team, the products and plans of a catalogue.
//!
//! What is in a list says so itself, and so to set one is to change its members. What a commit has no
//! room for is left for later: the owner keeps the lists that it is to have (`roster`), and is
//! *unsettled* until it has them ([`super::steps`]).

use std::collections::BTreeSet;

use super::catalogues::put_in;
use super::organisations::set_team;
use super::steps::{Unsettled, room};
use super::txn::{Txn, kind_byte};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::stored::Stored;

/// Kinds of objects that are in such lists.
const LISTED: [Kind; 3] = [Kind::User, Kind::Product, Kind::Plan];

/// Users that are looked at in one go.
const PAGE: usize = 500;

/// One object that is to enter a list, or to leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    kind: Kind,
    id: u64,
    within: bool,
}

/// A list as an owner keeps it until it has it.
pub(crate) fn list(kind: Kind, ids: Vec<u64>) -> (u8, Vec<u64>) {
    (kind_byte(kind), ids)
}

/// Gives an owner the lists that its links say, as far as the commit has room; the rest is left for
/// later. The caller saves the owner.
pub(crate) async fn carry_out(
    txn: &mut Txn<'_>,
    kind: Kind,
    owner: &mut Stored,
    now: UnixMs,
) -> Result<(), StoreError> {
    let changes = changes(txn, kind, owner).await?;
    let done = some(txn, kind, owner, &changes, now).await?;
    if done == changes.len() && txn.rest.settle.is_empty() {
        owner.links.roster.clear();
        owner.links.unsettled = None;
    } else {
        let unsettled = Unsettled::mark(kind, owner, Some(now));
        txn.rest.settle.push(unsettled);
    }
    Ok(())
}

/// What is to enter an owner's lists, and what is to leave them.
pub(crate) async fn changes(
    txn: &Txn<'_>,
    kind: Kind,
    owner: &Stored,
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    for (listed, wanted) in &owner.links.roster {
        let Some(listed) = LISTED.into_iter().find(|kind| kind_byte(*kind) == *listed) else {
            continue;
        };
        let had: BTreeSet<_> =
            txn.members((kind, owner.id), listed, usize::MAX).await?.into_iter().collect();
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        let change = |within| move |id: &u64| Change { kind: listed, id: *id, within };
        changes.extend(had.difference(&wanted).map(change(false)));
        changes.extend(wanted.difference(&had).map(change(true)));
        // Who entered with an edit that broke off may not be through.
        if owner.links.unsettled.is_some() && listed == Kind::User {
            let stay: Vec<_> = wanted.intersection(&had).copied().collect();
            changes.extend(unsettled(txn, &stay).await?.iter().map(change(true)));
        }
    }
    Ok(changes)
}

/// Those of these users whose tokens do not say everything yet.
async fn unsettled(txn: &Txn<'_>, users: &[u64]) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    for some in users.chunks(PAGE) {
        let mut page = Txn::new(txn.catalog());
        page.prefetch(some.iter().map(|id| RecordKey::number(Kind::User, *id))).await?;
        for id in some {
            let user = page.shared(Kind::User, *id).await?;
            found.extend(user.filter(|user| user.links.unsettled.is_some()).map(|_| *id));
        }
    }
    Ok(found)
}

/// Does the first of these changes, as many as a commit has room for; how many those were.
pub(crate) async fn some(
    txn: &mut Txn<'_>,
    kind: Kind,
    owner: &Stored,
    changes: &[Change],
    now: UnixMs,
) -> Result<usize, StoreError> {
    let mut room = room(txn);
    let first = changes.iter().take(room);
    txn.prefetch(first.map(|change| RecordKey::number(change.kind, change.id))).await?;
    for (done, change) in changes.iter().enumerate() {
        if room == 0 {
            return Ok(done);
        }
        room = room.saturating_sub(1);
        if kind == Kind::Team {
            set_team(txn, change.id, owner, change.within, now, &mut room).await?;
        } else {
            put_in(txn, (change.kind, change.id), owner.id, change.within).await?;
        }
    }
    Ok(changes.len())
}
