//! An object on its way into the store: what it was, what it will be, what is wrong with it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::AdminState;
use super::catalogues::find_all;
use super::txn::{Txn, cid_entry, kind_byte};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::fields::{ApiRef, Faults, Members, Ref, is_cid};
use crate::wire::portal::stored::Stored;

/// The length of the portal's own custom ids.
const CID_LEN: usize = 27;

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

    /// Takes the custom id out of a body. It is set once, when the object is made.
    pub(crate) fn take_cid(&mut self, body: &mut Members) {
        let given = body.remove("CID");
        if self.before.is_some() {
            return;
        }
        self.after.cid = match given {
            Some(Value::String(cid)) if is_cid(&cid) => cid,
            Some(Value::String(cid)) if cid.is_empty() => new_cid(self.state.clock.unix()),
            None | Some(Value::Null) => new_cid(self.state.clock.unix()),
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

    /// Makes the custom id this object's.
    pub(crate) async fn claim_cid(
        &mut self,
        txn: &mut Txn<'_>,
        kind: Kind,
    ) -> Result<(), StoreError> {
        if self.after.cid.is_empty() {
            return Ok(());
        }
        let entry = cid_entry(kind, &self.after.cid);
        self.claim(txn, entry, "CID").await
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

/// A custom id that looks like the portal's: 27 letters and digits.
///
/// It is a KSUID, seconds and then noise, whose first noise is the rest of the time: ids that are
/// made together lie together, and an import that makes a hundred thousand touches few pages.
pub(crate) fn new_cid(now: UnixMs) -> String {
    /// As many as fit a word.
    const DIGITS_AT_ONCE: usize = 5;
    const POWER: u64 = 62_u64.pow(5);
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut noise = [0; 14];
    // Without randomness there is no custom id: objects are also named by number.
    if getrandom::fill(&mut noise).is_err() {
        return String::new();
    }
    let seconds = u32::try_from((now.0 / 1_000).saturating_sub(KSUID_EPOCH_S)).unwrap_or(u32::MAX);
    let ms = u16::try_from(now.0 % 1_000).unwrap_or_default();
    let mut number = [0; 20];
    let (head, tail) = number.split_at_mut(4);
    let (middle, tail) = tail.split_at_mut(2);
    head.copy_from_slice(&seconds.to_be_bytes());
    middle.copy_from_slice(&ms.to_be_bytes());
    tail.copy_from_slice(&noise);
    let (words, _) = number.as_chunks();
    let mut words: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    let mut digits = [0; CID_LEN];
    let mut rest = 0;
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        if at % DIGITS_AT_ONCE == 0 {
            // One step of dividing a long number by a power of 62.
            rest = words.iter_mut().fold(0, |rest: u64, word| {
                let part = rest << 32 | u64::from(*word);
                *word = u32::try_from(part / POWER).unwrap_or_default();
                part % POWER
            });
        }
        let at = usize::try_from(rest % 62).unwrap_or_default();
        rest /= 62;
        *digit = DIGITS.get(at).copied().unwrap_or(b'0');
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Where the seconds of a KSUID begin (github.com/segmentio/ksuid): 2014-05-13 16:53:20 UTC.
const KSUID_EPOCH_S: u64 = 1_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_ids_are_27_digits_in_the_order_of_their_times() {
        let at = [1, 1_400_000_000_000, 1_772_442_870_000, 1_772_442_870_001, 1_772_442_871_000];
        let ids: Vec<_> = at.iter().map(|ms| new_cid(UnixMs(*ms))).collect();
        assert!(ids.iter().all(|id| id.len() == 27 && is_cid(id)), "{ids:?}");
        assert!(ids.get(1..).is_some_and(<[String]>::is_sorted), "{ids:?}");
        assert_ne!(new_cid(UnixMs(5)), new_cid(UnixMs(5)));
        // As other implementations of KSUIDs read it: the seconds are above.
        assert!(ids.get(2).is_some_and(|id| id.starts_with("3A")), "{ids:?}");
    }
}
