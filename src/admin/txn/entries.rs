//! Entries in the indexes: names that are unique, and what belongs to what.

use crate::store::{Kind, RecordKey};
use crate::wire::portal::stored::Stored;

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

/// What the entries begin with that say which objects of a kind belong to one.
pub(super) fn member_prefix(owner_kind: u8, owner: u64, kind: Kind) -> Vec<u8> {
    let mut prefix = vec![owner_kind];
    prefix.extend(owner.to_be_bytes());
    prefix.push(kind_byte(kind));
    prefix
}

/// The entry that says that an object belongs to another.
pub(super) fn member_key(owner_kind: u8, owner: u64, member: (Kind, u64)) -> RecordKey {
    let mut id = member_prefix(owner_kind, owner, member.0);
    id.extend(member.1.to_be_bytes());
    RecordKey::bytes(Kind::Member, id)
}
