//! An object on its way into the store: what it was, what it will be, what is wrong with it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::AdminState;
use super::catalogues::find_all;
use super::cid::new_cid;
use super::txn::{Txn, cid_entry, kind_byte};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::fields::{ApiRef, Faults, Members, Ref, is_cid};
use crate::wire::portal::stored::Stored;

/// An object between its body and the store.
#[derive(Debug)]
pub(crate) struct Draft<'s> {
    /// The listener it came in through.
    pub(crate) state: &'s AdminState,
    /// As it is stored; `None` when it is new.
    pub(crate) before: Option<Stored>,
    /// As it will be stored.
    pub(crate) after: Stored,
    /// What is wrong with it.
    pub(crate) faults: Faults,
    /// Members of this one answer alone.
    pub(crate) once: Members,
}

impl<'s> Draft<'s> {
    /// A draft without faults.
    pub(crate) fn new(state: &'s AdminState, before: Option<Stored>, after: Stored) -> Self {
        Self { state, before, after, faults: Faults::default(), once: Members::new() }
    }

    /// Takes the custom id out of a body. It is set once, when the object is made; who does not set
    /// it gets one with the object's number.
    pub(crate) fn take_cid(&mut self, body: &mut Members) {
        let given = body.remove("CID");
        if self.before.is_some() {
            return;
        }
        self.after.cid = match given {
            Some(Value::String(cid)) if is_cid(&cid) || cid.is_empty() => cid,
            None | Some(Value::Null) => String::new(),
            Some(
                Value::String(_)
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_),
            ) => {
                self.faults.add("CID", "must be 1 to 64 of A-Z a-z 0-9 . _ ~ -, and no number");
                String::new()
            }
        };
    }

    /// Gives a new object, made now, its number, and a custom id that says it unless it has one.
    pub(crate) fn number(&mut self, id: u64) {
        self.after.id = id;
        self.after.created_ms = self.after.updated_ms;
        if self.after.cid.is_empty() {
            self.after.cid = new_cid(UnixMs(self.after.created_ms), id);
        }
    }

    /// Makes the custom id this object's.
    pub(crate) async fn claim_cid(
        &mut self,
        txn: &mut Txn<'_>,
        kind: Kind,
    ) -> Result<(), StoreError> {
        let cid = self.after.cid.as_str();
        let entry = cid_entry(kind, cid);
        if let Some(before) = &self.before {
            self.after.uniques.extend(before.uniques.contains(&entry).then_some(entry));
        } else if !cid.is_empty() {
            match txn.resolve(kind, &Ref::Cid(cid.to_owned())).await? {
                Some(_) => self.faults.add("CID", "is already in use"),
                None => self.after.uniques.push(entry),
            }
        }
        Ok(())
    }

    /// Makes a unique name this object's, unless it is another's.
    pub(crate) async fn claim(
        &mut self,
        txn: &mut Txn<'_>,
        entry: String,
        member: &str,
    ) -> Result<(), StoreError> {
        match txn.unique(&entry).await? {
            Some(id) if id != self.after.id => self.faults.add(member, "is already in use"),
            Some(_) | None => self.after.uniques.push(entry),
        }
        Ok(())
    }

    /// Makes the object belong to another.
    pub(crate) fn belong(&mut self, kind: Kind, id: u64) {
        let owner = (kind_byte(kind), id);
        if !self.after.owners.contains(&owner) {
            self.after.owners.push(owner);
        }
    }

    /// Lets the commit fail if an object it newly belongs to changes or goes meanwhile.
    pub(crate) async fn guard_owners(&mut self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let known = self.before.as_ref().map(|before| before.owners.as_slice()).unwrap_or(&[]);
        let kinds = [Kind::Organisation, Kind::Team, Kind::User, Kind::App, Kind::Catalogue];
        for owner in self.after.owners.iter().filter(|owner| !known.contains(owner)) {
            if let Some(kind) = kinds.iter().find(|kind| kind_byte(**kind) == owner.0) {
                txn.guard(RecordKey::number(*kind, owner.1)).await?;
            }
        }
        Ok(())
    }

    /// Sets a member to the number of the object it names, if there is one.
    pub(crate) async fn refer(
        &mut self,
        txn: &mut Txn<'_>,
        kind: Kind,
        member: &str,
        named: Option<&Ref>,
    ) -> Result<Option<u64>, StoreError> {
        let Some(named) = named else { return Ok(None) };
        let found = txn.resolve(kind, named).await?;
        match (found, named) {
            (Some(id), _) => {
                self.after.members.insert(member.to_owned(), id.into());
            }
            (None, Ref::Id(id)) => self.faults.add(member, format_args!("{id} does not exist")),
            // What was given in place of a number may be anything, also a token.
            (None, Ref::Cid(_)) => self.faults.add(member, "names nothing that exists"),
        }
        Ok(found)
    }

    /// Sets a member to the numbers of the objects it names, each once.
    pub(crate) async fn refer_all(
        &mut self,
        txn: &mut Txn<'_>,
        kind: Kind,
        member: &str,
        named: &[Ref],
    ) -> Result<Vec<u64>, StoreError> {
        let (mut ids, mut known) = (Vec::new(), BTreeSet::new());
        for one in named.iter().filter(|one| **one != Ref::Id(0)) {
            let found = self.refer(txn, kind, member, Some(one)).await?;
            ids.extend(found.filter(|id| known.insert(*id)));
        }
        self.after.members.insert(member.to_owned(), ids.clone().into());
        Ok(ids)
    }

    /// Puts the object into the catalogues that a body names, and sets the member to their numbers.
    pub(crate) async fn shelve(
        &mut self,
        txn: &mut Txn<'_>,
        named: &[String],
    ) -> Result<(), StoreError> {
        let faults = ("Catalogues", &mut self.faults);
        let ids = find_all(txn, Kind::Catalogue, named, faults).await?;
        ids.iter().for_each(|id| self.belong(Kind::Catalogue, *id));
        self.after.members.insert("Catalogues".to_owned(), ids.into());
        Ok(())
    }

    /// Names the APIs that do not exist.
    pub(crate) fn check_apis<'a>(&mut self, apis: impl IntoIterator<Item = &'a ApiRef>) {
        let snapshot = self.state.catalog.snapshot();
        for api in apis.into_iter().filter(|api| snapshot.api(&api.id).is_none()) {
            self.faults.add(&api.path, format_args!("{} does not exist", api.id));
        }
    }
}

/// A new object with this number, made now, and nothing in it.
pub(crate) fn made(id: u64, now: UnixMs) -> Stored {
    let cid = new_cid(now, id);
    Stored { id, cid, created_ms: now.0, updated_ms: now.0, ..Stored::default() }
}
