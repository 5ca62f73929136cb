//! One read-modify-write of the store: everything it read and relies on is unchanged when its
//! writes go in, all of them at once, or none does.

mod ahead;
mod entries;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::cid::number_in;
use super::steps::Rest;
use crate::catalog::Catalog;
use crate::store::{Committed, Expect, Kind, Record, RecordKey, RecordStore, StoreError, Write};
use crate::wire::portal::fields::Ref;
use crate::wire::portal::stored::Stored;
use ahead::Read;
pub(crate) use ahead::Sealed;
pub(crate) use entries::{cid_entry, entries, kind_byte, name_entry};
use entries::{member_key, member_prefix};

/// Records per page of a list that is read whole.
const PAGE: usize = 500;

/// Reads and writes that belong together.
#[derive(Debug)]
pub(crate) struct Txn<'c> {
    catalog: &'c Catalog,
    seen: HashMap<RecordKey, Seen, RandomState>,
    /// What another writes, that is not through yet: this one comes after it.
    ahead: Option<Arc<Sealed>>,
    /// What its request has still to do when it is through.
    pub(crate) rest: Rest,
}

#[derive(Debug)]
struct Seen {
    read: Read,
    write: Option<Option<Arc<[u8]>>>,
    /// The value as an object, once it was asked for.
    object: Option<Arc<Stored>>,
}

impl Seen {
    fn read(read: impl Into<Read>) -> Self {
        Self { read: read.into(), write: None, object: None }
    }

    /// The value as its transaction sees it.
    fn value(&self) -> Option<&Arc<[u8]>> {
        match &self.write {
            Some(written) => written.as_ref(),
            None => self.read.value(),
        }
    }
}

impl<'c> Txn<'c> {
    /// One that has neither read nor written.
    pub(crate) fn new(catalog: &'c Catalog) -> Self {
        Self { catalog, seen: HashMap::default(), ahead: None, rest: Rest::default() }
    }

    /// One that comes after another, which is not through yet.
    pub(crate) fn after(catalog: &'c Catalog, ahead: Option<Arc<Sealed>>) -> Self {
        Self { ahead, ..Self::new(catalog) }
    }

    /// The catalog it writes through.
    pub(crate) fn catalog(&self) -> &'c Catalog {
        self.catalog
    }

    /// A record as this transaction sees it: with its own writes.
    pub(crate) async fn get(&mut self, key: &RecordKey) -> Result<Option<Arc<[u8]>>, StoreError> {
        if let Some(seen) = self.seen.get(key) {
            return Ok(seen.value().cloned());
        }
        let read = match self.read_ahead(key) {
            Some(read) => read,
            None => self.catalog.store().get(key).await?.into(),
        };
        let value = read.value().cloned();
        self.seen.insert(key.clone(), Seen::read(read));
        Ok(value)
    }

    /// What the commit before this leaves of a record, if it writes it.
    fn read_ahead(&self, key: &RecordKey) -> Option<Read> {
        self.ahead.as_ref()?.read(key)
    }

    /// Writes a record that is taken not to be there, without reading it: if it is, nothing is
    /// committed.
    pub(crate) fn put_new(&mut self, key: RecordKey, value: Vec<u8>) {
        let seen = self.seen.entry(key).or_insert_with(|| Seen::read(Read::Nothing));
        (seen.write, seen.object) = (Some(Some(value.into())), None);
    }

    /// Takes in what was read before, after all commits but the one that this comes after.
    pub(crate) fn found(&mut self, all: Vec<(RecordKey, Option<Record>)>) {
        for (key, record) in all {
            let read = self.read_ahead(&key).unwrap_or_else(|| record.into());
            self.seen.entry(key).or_insert_with(|| Seen::read(read));
        }
    }

    /// Reads many records at once, but for those that are written unread.
    pub(crate) async fn prefetch(
        &mut self,
        keys: impl Iterator<Item = RecordKey>,
    ) -> Result<(), StoreError> {
        let mut unseen = Vec::new();
        for key in keys {
            if key.kind.is_bare() || self.seen.contains_key(&key) {
                continue;
            }
            match self.read_ahead(&key) {
                Some(read) => drop(self.seen.insert(key, Seen::read(read))),
                None => unseen.push(key),
            }
        }
        unseen.sort_unstable();
        unseen.dedup();
        let found = self.catalog.store().get_all(&unseen).await?;
        self.seen.extend(unseen.into_iter().zip(found.into_iter().map(Seen::read)));
        Ok(())
    }

    /// Writes a record (`None` deletes it), provided that it is still as this transaction read it, where
    /// that can be told.
    pub(crate) async fn put(
        &mut self,
        key: RecordKey,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if !self.seen.contains_key(&key) {
            match key.kind.is_bare() {
                true => drop(self.seen.insert(key.clone(), Seen::read(Read::Unread))),
                false => drop(self.get(&key).await?),
            }
        }
        if let Some(seen) = self.seen.get_mut(&key) {
            (seen.write, seen.object) = (Some(value.map(Arc::from)), None);
        }
        Ok(())
    }

    /// Lets the commit fail if a record changes meanwhile: it is written as it was read.
    pub(crate) async fn guard(&mut self, key: RecordKey) -> Result<(), StoreError> {
        let value = self.get(&key).await?;
        if let (Some(value), Some(seen)) = (value, self.seen.get_mut(&key)) {
            seen.write = Some(Some(value));
        }
        Ok(())
    }

    /// One of the portal's objects.
    pub(crate) async fn object(
        &mut self,
        kind: Kind,
        id: u64,
    ) -> Result<Option<Stored>, StoreError> {
        let object = self.shared(kind, id).await?;
        Ok(object.map(Arc::unwrap_or_clone))
    }

    /// The same, to look at: it is read from its record once.
    pub(crate) async fn shared(
        &mut self,
        kind: Kind,
        id: u64,
    ) -> Result<Option<Arc<Stored>>, StoreError> {
        let key = RecordKey::number(kind, id);
        if !self.seen.contains_key(&key) {
            self.get(&key).await?;
        }
        let Some(seen) = self.seen.get_mut(&key) else { return Ok(None) };
        let Some(value) = seen.value() else { return Ok(None) };
        if seen.object.is_none() {
            seen.object = Some(Arc::new(decode(value)?));
        }
        Ok(seen.object.clone())
    }

    /// The number of what is named, if it exists.
    pub(crate) async fn resolve(
        &mut self,
        kind: Kind,
        named: &Ref,
    ) -> Result<Option<u64>, StoreError> {
        match named {
            Ref::Id(id) => {
                let value = self.get(&RecordKey::number(kind, *id)).await?;
                Ok(value.map(|_| *id))
            }
            Ref::Cid(cid) => {
                if let Some(id) = number_in(cid)
                    && self.shared(kind, id).await?.is_some_and(|object| object.cid == *cid)
                {
                    return Ok(Some(id));
                }
                self.unique(&cid_entry(kind, cid)).await
            }
        }
    }

    /// Whose a unique name is.
    pub(crate) async fn unique(&mut self, entry: &str) -> Result<Option<u64>, StoreError> {
        let value = self.get(&RecordKey::bytes(Kind::Unique, entry)).await?;
        Ok(value.and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?))))
    }

    /// The next number for an object of a kind.
    pub(crate) async fn next_id(&self, kind: Kind) -> Result<u64, StoreError> {
        self.catalog.store().next_id(kind, 1).await
    }

    /// Whether an object belongs to another.
    pub(crate) async fn belongs(
        &mut self,
        owner: (Kind, u64),
        member: (Kind, u64),
    ) -> Result<bool, StoreError> {
        if let (Kind::AccessRequest, Kind::Credential) = (owner.0, member.0) {
            return Ok(self.issued(owner.1).await? == Some(member.1));
        }
        let key = member_key(kind_byte(owner.0), owner.1, member);
        Ok(self.get(&key).await?.is_some())
    }

    /// The numbers of objects of a kind that a path shows below another.
    pub(crate) async fn belongings(
        &mut self,
        owner: (Kind, u64),
        kind: Kind,
        most: usize,
    ) -> Result<Vec<u64>, StoreError> {
        match owner {
            (Kind::AccessRequest, request) => Ok(self.issued(request).await?.into_iter().collect()),
            owner => self.members(owner, kind, most).await,
        }
    }

    /// The credential that an access request brought: it names its one itself.
    async fn issued(&mut self, request: u64) -> Result<Option<u64>, StoreError> {
        let request = self.shared(Kind::AccessRequest, request).await?;
        Ok(request.and_then(|request| request.links.credential))
    }

    /// The numbers of all objects of a kind that belong to one, as stored before this transaction.
    pub(crate) async fn members(
        &self,
        owner: (Kind, u64),
        kind: Kind,
        most: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let prefix = member_prefix(kind_byte(owner.0), owner.1, kind);
        let (mut numbers, mut after) = (Vec::new(), None::<Arc<[u8]>>);
        loop {
            let rows = PAGE.min(most.saturating_sub(numbers.len()));
            if rows == 0 {
                return Ok(numbers);
            }
            let store = self.catalog.store();
            let page = store.list(Kind::Member, &prefix, after.as_deref(), rows).await?;
            numbers.extend(page.records.iter().filter_map(|(key, _)| {
                let (_, number) = key.id.split_last_chunk::<8>()?;
                Some(u64::from_be_bytes(*number))
            }));
            after = page.records.last().map(|(key, _)| Arc::clone(&key.id));
            if !page.more || after.is_none() {
                return Ok(numbers);
            }
        }
    }

    /// Writes a new object with its entries in the indexes. Its number is nobody else's, and so are
    /// its entries; its names were looked up.
    pub(crate) fn save_new(&mut self, kind: Kind, object: &Stored) {
        let number = object.id.to_be_bytes();
        self.put_new(RecordKey::number(kind, object.id), object.encode());
        for entry in &object.uniques {
            self.put_new(RecordKey::bytes(Kind::Unique, entry), number.to_vec());
        }
        for owner in &object.owners {
            self.put_new(member_key(owner.0, owner.1, (kind, object.id)), Vec::new());
        }
    }

    /// Writes an object in place of `before`, with its entries in the indexes.
    pub(crate) async fn save(
        &mut self,
        kind: Kind,
        before: Option<&Stored>,
        after: &Stored,
    ) -> Result<(), StoreError> {
        let Some(before) = before else {
            self.save_new(kind, after);
            return Ok(());
        };
        self.put(RecordKey::number(kind, after.id), Some(after.encode())).await?;
        for gone in before.uniques.iter().filter(|entry| !after.uniques.contains(entry)) {
            self.put(RecordKey::bytes(Kind::Unique, gone), None).await?;
        }
        for new in after.uniques.iter().filter(|entry| !before.uniques.contains(entry)) {
            let owner = after.id.to_be_bytes().to_vec();
            self.put(RecordKey::bytes(Kind::Unique, new), Some(owner)).await?;
        }
        for gone in before.owners.iter().filter(|owner| !after.owners.contains(owner)) {
            self.put(member_key(gone.0, gone.1, (kind, after.id)), None).await?;
        }
        for new in after.owners.iter().filter(|owner| !before.owners.contains(owner)) {
            self.put(member_key(new.0, new.1, (kind, after.id)), Some(Vec::new())).await?;
        }
        Ok(())
    }

    /// Deletes an object and its entries in the indexes.
    pub(crate) async fn erase(&mut self, kind: Kind, object: &Stored) -> Result<(), StoreError> {
        self.put(RecordKey::number(kind, object.id), None).await?;
        for entry in entries(kind, object) {
            self.put(entry, None).await?;
        }
        Ok(())
    }

    /// Whether there is anything to commit.
    pub(crate) fn writes(&self) -> bool {
        self.seen.values().any(|seen| seen.write.is_some())
    }

    /// Stores what was written; false when something that was relied on has changed.
    pub(crate) async fn commit(self) -> Result<bool, StoreError> {
        let catalog = self.catalog;
        let sealed = self.seal();
        let writes = sealed.writes();
        if writes.is_empty() {
            return Ok(true);
        }
        match catalog.commit(writes).await? {
            Committed::At(_) => Ok(true),
            Committed::Conflict(_) => Ok(false),
        }
    }

    /// What was written, in the order of keys, as the stores like it.
    pub(crate) fn seal(self) -> Sealed {
        let mut writes = Vec::with_capacity(self.seen.len());
        for (key, seen) in self.seen {
            let Some(value) = seen.write else { continue };
            let expect = match seen.read {
                Read::Nothing if value.is_none() => continue,
                Read::Nothing => Expect::Absent,
                Read::Unread => Expect::Anything,
                Read::Stored(record) => Expect::Unchanged(record.generation),
                Read::Ahead(_) => Expect::Ahead,
            };
            writes.push(Write { key, expect, value });
        }
        Sealed::of(writes)
    }
}

/// Reads one of the portal's objects.
pub(crate) fn decode(value: &[u8]) -> Result<Stored, StoreError> {
    Stored::decode(value).map_err(|_shape| StoreError::Damaged { what: "an object of the portal" })
}
