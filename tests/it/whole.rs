use std::collections::BTreeMap;

use turnpike::store::{Expect, Kind, Record, RecordKey, RecordStore, Write};
use turnpike::wire::admin::AdminToken;
use turnpike::wire::portal::stored::Stored;
use turnpike::wire::record::KeyRecord;

use crate::admin_support::OBJECTS;

/// All that must fit together in a store.
struct Whole {
    objects: BTreeMap<(u8, u64), Stored>,
    /// Hash of a token to what gateways enforce of it.
    tokens: BTreeMap<String, KeyRecord>,
    /// Entry to whose it is.
    uniques: BTreeMap<String, u64>,
    /// Kind and number of an owner, then of a member.
    members: Vec<(u8, u64, u8, u64)>,
    /// Number to name.
    admin_tokens: BTreeMap<u64, String>,
    faults: Vec<String>,
}

/// What does not fit together: entries of indexes that point nowhere, objects that no entry points
/// to, tokens that nobody has, ties to what is gone.
pub(crate) async fn misfits(store: &impl RecordStore) -> Vec<String> {
    let mut objects = BTreeMap::new();
    for kind in OBJECTS {
        for (key, record) in all(store, kind).await {
            let object = Stored::decode(&record.value).unwrap();
            assert_eq!(key.id.as_ref(), object.id.to_be_bytes(), "{kind:?}");
            objects.insert((kind as u8, object.id), object);
        }
    }
    let admin_tokens = all(store, Kind::AdminToken).await.into_iter().map(|(_, record)| {
        let token: AdminToken = serde_json::from_slice(&record.value).unwrap();
        (token.id, token.name)
    });
    let admin_tokens: BTreeMap<u64, String> = admin_tokens.collect();
    let names = objects.values().flat_map(|object| object.uniques.clone());
    let names = names.chain(admin_tokens.values().map(|name| admin_name(name)));
    let uniques = named(store, Kind::Unique, names.map(String::into_bytes)).await.into_iter();
    let uniques = uniques.map(|(key, record)| {
        let entry = String::from_utf8(key.id.to_vec()).unwrap();
        (entry, u64::from_be_bytes(record.value.as_ref().try_into().unwrap()))
    });
    let hashes = objects.values().flat_map(|object| {
        let current = object.links.token.as_ref().map(|token| unhex(&token.hash));
        current.into_iter().chain(object.links.previous.as_ref().map(|old| unhex(&old.hash)))
    });
    let tokens = named(store, Kind::Token, hashes).await.into_iter();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tokens =
        tokens.map(|(key, r)| (hex(&key.id), serde_json::from_slice(&r.value).unwrap())).collect();
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let members = all(store, Kind::Member).await.into_iter().map(|(key, _)| {
        assert_eq!(key.id.len(), 18);
        (key.id[0], number(&key.id[1..9]), key.id[9], number(&key.id[10..]))
    });
    let mut whole = Whole {
        objects,
        tokens,
        uniques: uniques.collect(),
        members: members.collect(),
        admin_tokens,
        faults: Vec::new(),
    };
    whole.check_uniques();
    whole.check_members();
    whole.check_ties();
    whole.check_tokens();
    whole.faults
}

async fn all(store: &impl RecordStore, kind: Kind) -> Vec<(RecordKey, Record)> {
    let page = store.list(kind, &[], None, 1_000_000).await.unwrap();
    assert!(!page.more);
    page.records
}

/// Records that are looked up by name. Not every store lists them: one that does not cannot tell
/// of any that nobody knows.
async fn named(
    store: &impl RecordStore,
    kind: Kind,
    ids: impl Iterator<Item = Vec<u8>>,
) -> Vec<(RecordKey, Record)> {
    let listed = all(store, kind).await;
    assert!(!kind.is_listed());
    if !listed.is_empty() {
        return listed;
    }
    let keys: Vec<_> = ids.map(|id| RecordKey { kind, id: id.into() }).collect();
    let found = store.get_all(&keys).await.unwrap();
    keys.into_iter().zip(found).filter_map(|(key, record)| Some((key, record?))).collect()
}

fn admin_name(name: &str) -> String {
    format!("{}/name/0/{name}", Kind::AdminToken as u8)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

impl Whole {
    fn fault(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(what());
        }
    }

    fn lives(&self, kind: Kind, id: Option<u64>) -> bool {
        id.is_none_or(|id| self.objects.contains_key(&(kind as u8, id)))
    }

    fn check_uniques(&mut self) {
        for (entry, id) in self.uniques.clone() {
            let kind: u8 = entry.split('/').next().unwrap().parse().unwrap();
            let held = if kind == Kind::AdminToken as u8 {
                let name = self.admin_tokens.get(&id);
                name.is_some_and(|name| entry == admin_name(name))
            } else {
                self.objects.get(&(kind, id)).is_some_and(|object| object.uniques.contains(&entry))
            };
            self.fault(held, || format!("the name {entry} is that of {id}, which has it not"));
        }
        for ((kind, id), object) in self.objects.clone() {
            for entry in object.uniques {
                let held = self.uniques.get(&entry) == Some(&id);
                self.fault(held, || format!("{kind}/{id} has the name {entry} for itself alone"));
            }
        }
        for (id, name) in self.admin_tokens.clone() {
            let entry = admin_name(&name);
            let held = self.uniques.get(&entry) == Some(&id);
            self.fault(held, || format!("admin token {id} has its name for itself alone"));
        }
    }

    fn check_members(&mut self) {
        for (owner_kind, owner, kind, id) in self.members.clone() {
            let member = self.objects.get(&(kind, id));
            let held = member.is_some_and(|member| member.owners.contains(&(owner_kind, owner)));
            self.fault(held, || format!("{owner_kind}/{owner} lists {kind}/{id}, not its own"));
        }
        for ((kind, id), object) in self.objects.clone() {
            for (owner_kind, owner) in object.owners {
                let lives = self.objects.contains_key(&(owner_kind, owner));
                self.fault(lives, || format!("{kind}/{id} is of {owner_kind}/{owner}, now gone"));
                let listed = self.members.contains(&(owner_kind, owner, kind, id));
                self.fault(listed, || format!("{owner_kind}/{owner} does not list {kind}/{id}"));
            }
        }
    }

    /// Plans and products are left out: a credential may outlive them.
    fn check_ties(&mut self) {
        for ((kind, id), object) in self.objects.clone() {
            let links = &object.links;
            let mut ties = vec![
                (Kind::AccessRequest, links.request),
                (Kind::AccessRequest, links.pending),
                (Kind::Credential, links.credential),
                (Kind::Team, links.default_team),
            ];
            // Of other kinds these are members that nobody knows.
            let is = |of: Kind| kind == of as u8;
            if is(Kind::App) {
                ties.push((Kind::User, object.number("UserID")));
            }
            if is(Kind::User) {
                ties.push((Kind::Organisation, object.number("OrganisationID")));
                let teams = object.numbers("Teams").into_iter();
                ties.extend(teams.map(|team| (Kind::Team, Some(team))));
            }
            if is(Kind::AccessRequest) && object.text("Status") == "pending" {
                ties.push((Kind::Credential, links.target));
            }
            if is(Kind::Credential) || is(Kind::AccessRequest) {
                ties.push((Kind::App, links.parent));
            }
            for (to, target) in ties {
                let lives = self.lives(to, target);
                self.fault(lives, || format!("{kind}/{id} is tied to a {to:?} that is gone"));
            }
        }
    }

    fn check_tokens(&mut self) {
        let credentials: BTreeMap<_, _> = self.objects.clone().into_iter().collect();
        let of = |id| credentials.get(&(Kind::Credential as u8, id));
        for (hash, record) in self.tokens.clone() {
            let links = of(record.credential).map(|credential| &credential.links);
            let current = links.and_then(|links| links.token.as_ref().map(|token| &token.hash));
            let previous = links.and_then(|links| links.previous.as_ref().map(|old| &old.hash));
            let held = current == Some(&hash) || previous == Some(&hash);
            let id = record.credential;
            self.fault(held, || format!("a token is credential {id}'s, which has it not"));
        }
        for ((kind, id), credential) in &credentials {
            let Some(token) = credential.links.token.as_ref() else { continue };
            assert_eq!(*kind, Kind::Credential as u8);
            let app = credential.links.parent;
            let app_of = app.and_then(|app| credentials.get(&(Kind::App as u8, app)));
            let user = app_of.and_then(|app| app.number("UserID"));
            let user_of = user.and_then(|user| credentials.get(&(Kind::User as u8, user)));
            let organisation = user_of.and_then(|user| user.number("OrganisationID"));
            let told = self.tokens.get(&token.hash).is_some_and(|record| {
                record.credential == *id
                    && record.inactive != credential.flag("Active")
                    && record.plan == credential.number("PlanID")
                    && record.products == credential.numbers("ProductIDs")
                    && (record.app, record.user, record.organisation) == (app, user, organisation)
                    && record.teams == user_of.map(|user| user.numbers("Teams")).unwrap_or_default()
                    && record.attributes == user_of.map(attributes).unwrap_or_default()
            });
            self.fault(told, || format!("gateways are told otherwise of credential {id}"));
        }
    }
}

/// What a user's custom attributes add to metadata.
fn attributes(user: &Stored) -> serde_json::Map<String, serde_json::Value> {
    let all = user.links.attributes.iter().filter(|attribute| attribute.in_metadata);
    all.map(|one| (one.identifier.clone(), one.value.as_str().into())).collect()
}

#[tokio::test]
async fn a_record_that_is_missing_is_missed() {
    let admin = crate::admin_support::Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let body = crate::admin_support::credential("one", "a-token", plan, product);
    admin.expect(201, "POST", &path, body).await;
    let store = admin.catalog.store();
    assert_eq!(misfits(&**store).await, Vec::<String>::new());
    let write =
        |key: &RecordKey, value| Write { key: key.clone(), expect: Expect::Anything, value };
    let (mut missed, all) = (0, admin.records().await);
    for (key, value) in all {
        store.commit(vec![write(&key, None)]).await.unwrap();
        assert!(!misfits(&**store).await.is_empty(), "{key:?}");
        store.commit(vec![write(&key, Some(value))]).await.unwrap();
        missed += 1;
    }
    assert!(20 < missed, "{missed}");
}
