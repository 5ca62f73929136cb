//! One read-modify-write of the store: everything it read and relies on is unchanged when its
//! writes go in, all of them at once, or none does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::steps::Rest;
use crate::catalog::Catalog;
use crate::store::{Committed, Expect, Kind, Record, RecordKey, RecordStore, StoreError, Write};
use crate::wire::portal::fields::Ref;
use crate::wire::portal::stored::Stored;

/// Records per page of a list that is read whole.
const PAGE: usize = 500;

/// Reads and writes that belong together.
#[derive(Debug)]
pub(crate) struct Txn<'c> {
    catalog: &'c Catalog,
    seen: BTreeMap<RecordKey, Seen>,
    /// What its request has still to do when it is through.
    pub(crate) rest: Rest,
}

#[derive(Debug)]
struct Seen {
    read: Option<Record>,
    write: Option<Option<Arc<[u8]>>>,
    /// The value as an object, once it was asked for.
    object: Option<Arc<Stored>>,
}

impl Seen {
    fn read(read: Option<Record>) -> Self {
        Self { read, write: None, object: None }
    }
}

impl<'c> Txn<'c> {
    /// One that has neither read nor written.
    pub(crate) fn new(catalog: &'c Catalog) -> Self {
        Self { catalog, seen: BTreeMap::new(), rest: Rest::default() }
    }

    /// The catalog it writes through.
    pub(crate) fn catalog(&self) -> &'c Catalog {
        self.catalog
    }

    /// A record as this transaction sees it: with its own writes.
    pub(crate) async fn get(&mut self, key: &RecordKey) -> Result<Option<Arc<[u8]>>, StoreError> {
        if !self.seen.contains_key(key) {
            let read = self.catalog.store().get(key).await?;
            self.seen.insert(key.clone(), Seen::read(read));
        }
        Ok(self.seen.get(key).and_then(|seen| match &seen.write {
            Some(written) => written.clone(),
            None => seen.read.as_ref().map(|record| Arc::clone(&record.value)),
        }))
    }

    /// Takes it that a record is not there, without reading it: if it is, nothing is committed.
    pub(crate) fn absent(&mut self, key: RecordKey) {
        self.seen.entry(key).or_insert(Seen::read(None));
    }

    /// Reads many records at once.
    pub(crate) async fn prefetch(
        &mut self,
        keys: impl Iterator<Item = RecordKey>,
    ) -> Result<(), StoreError> {
        let unseen: BTreeSet<_> = keys.filter(|key| !self.seen.contains_key(key)).collect();
        let keys: Vec<_> = unseen.into_iter().collect();
        let found = self.catalog.store().get_all(&keys).await?;
        self.seen.extend(keys.into_iter().zip(found.into_iter().map(Seen::read)));
        Ok(())
    }

    /// Writes a record (`None` deletes it), provided that it is still as this transaction read it.
    pub(crate) async fn put(
        &mut self,
        key: RecordKey,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        self.get(&key).await?;
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
        let Some(value) = self.get(&key).await? else { return Ok(None) };
        let Some(seen) = self.seen.get_mut(&key) else { return Ok(None) };
        if seen.object.is_none() {
            seen.object = Some(Arc::new(decode(&value)?));
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
            Ref::Cid(cid) => self.unique(&cid_entry(kind, cid)).await,
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
        let key = member_key(kind_byte(owner.0), owner.1, member);
        Ok(self.get(&key).await?.is_some())
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

    /// Writes an object in place of `before`, with its entries in the indexes.
    pub(crate) async fn save(
        &mut self,
        kind: Kind,
        before: Option<&Stored>,
        after: &Stored,
    ) -> Result<(), StoreError> {
        let none = Stored::default();
        let new = before.is_none();
        let before = before.unwrap_or(&none);
        if new {
            // Its number is nobody else's, and so are its entries; names were looked up.
            self.absent(RecordKey::number(kind, after.id));
            for entry in &after.uniques {
                self.absent(RecordKey::bytes(Kind::Unique, entry));
            }
            for owner in &after.owners {
                self.absent(member_key(owner.0, owner.1, (kind, after.id)));
            }
        }
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
            self.put(member_key(new.0, new.1, (kind, after.id)), Some(vec![1])).await?;
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
        let mut writes = Vec::new();
        for (key, seen) in self.seen {
            let Some(value) = seen.write else { continue };
            if value.is_none() && seen.read.is_none() {
                continue;
            }
            let expect =
                seen.read.map_or(Expect::Absent, |record| Expect::Unchanged(record.generation));
            writes.push(Write { key, expect, value });
        }
        if writes.is_empty() {
            return Ok(true);
        }
        match self.catalog.commit(writes).await? {
            Committed::At(_) => Ok(true),
            Committed::Conflict(_) => Ok(false),
        }
    }
}

/// An object's entries in the indexes: its unique names, and whose it is.
pub(crate) fn entries(kind: Kind, object: &Stored) -> impl Iterator<Item = RecordKey> {
    let uniques = object.uniques.iter().map(|entry| RecordKey::bytes(Kind::Unique, entry));
    let owners = object.owners.iter();
    uniques.chain(owners.map(move |owner| member_key(owner.0, owner.1, (kind, object.id))))
}

/// The entry of a custom id among the unique names.
pub(crate) fn cid_entry(kind: Kind, cid: &str) -> String {
    format!("{}/cid/{cid}", kind_byte(kind))
}

/// The entry of a name that is unique among objects of a kind, or within `scope`.
pub(crate) fn name_entry(kind: Kind, scope: u64, name: &str) -> String {
    format!("{}/name/{scope}/{name}", kind_byte(kind))
}

/// A kind as it lies in records.
pub(crate) fn kind_byte(kind: Kind) -> u8 {
    #[expect(clippy::as_conversions, reason = "the enum's own representation")]
    let byte = kind as u8;
    byte
}

/// Reads one of the portal's objects.
pub(crate) fn decode(value: &[u8]) -> Result<Stored, StoreError> {
    Stored::decode(value).map_err(|_shape| StoreError::Damaged { what: "an object of the portal" })
}

fn member_prefix(owner_kind: u8, owner: u64, kind: Kind) -> Vec<u8> {
    let mut prefix = vec![owner_kind];
    prefix.extend(owner.to_be_bytes());
    prefix.push(kind_byte(kind));
    prefix
}

fn member_key(owner_kind: u8, owner: u64, member: (Kind, u64)) -> RecordKey {
    let mut id = member_prefix(owner_kind, owner, member.0);
    id.extend(member.1.to_be_bytes());
    RecordKey::bytes(Kind::Member, id)
}
