//! What the names in a line stand for.

use std::collections::{HashMap, HashSet};

use super::job::Pass;
use crate::admin::cid::number_in;
use crate::admin::txn::{Txn, cid_entry, name_entry};
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::imports::row::{AppNamed, Row, UserNamed};
use crate::wire::imports::{Code, Fault};
use crate::wire::portal::fields::{Ref, is_cid};

/// Names of apps kept in memory: beyond, they are read anew.
const NAMES_MAX: usize = 100_000;
/// The most apps of one user that are looked at by name.
const APPS_MAX: usize = 10_000;

/// What a line is about.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) app: AppFound,
    pub(super) plan: u64,
    pub(super) products: Vec<u64>,
}

/// The app of a line.
#[derive(Clone, Debug)]
pub(super) enum AppFound {
    Known(u64),
    /// It is to be made, and maybe its owner too.
    New {
        name: String,
        user: UserFound,
    },
}

impl AppFound {
    /// Whether it is this app.
    pub(super) fn is(&self, app: u64) -> bool {
        matches!(self, Self::Known(id) if *id == app)
    }
}

/// The owner of an app to be made.
#[derive(Clone, Debug)]
pub(super) enum UserFound {
    Known(u64),
    New(UserNamed),
}

/// Apps by owner and name: a name is no key of the store.
#[derive(Debug, Default)]
pub(super) struct Apps {
    of_user: HashMap<u64, HashMap<String, u64>>,
    names: usize,
}

/// Apps that became known while a commit was filled: they count once it is through.
pub(super) type Learnt = Vec<(u64, String, u64)>;

impl Apps {
    pub(super) fn learn(&mut self, learnt: Learnt) {
        for (user, name, app) in learnt {
            // Only of users whose other apps are known: else they would never be looked at.
            if let Some(apps) = self.of_user.get_mut(&user) {
                apps.insert(name, app);
                self.names = self.names.saturating_add(1);
            }
        }
    }

    /// A user's app of that name. All of a user's apps are read at once, and once.
    async fn find(
        &mut self,
        txn: &mut Txn<'_>,
        user: u64,
        name: &str,
    ) -> Result<Option<u64>, StoreError> {
        if NAMES_MAX < self.names {
            *self = Self::default();
        }
        if !self.of_user.contains_key(&user) {
            let ids = txn.members((Kind::User, user), Kind::App, APPS_MAX).await?;
            txn.prefetch(ids.iter().map(|id| RecordKey::number(Kind::App, *id))).await?;
            let mut apps = HashMap::new();
            for id in ids {
                if let Some(app) = txn.object(Kind::App, id).await? {
                    // Of two with one name, the first is meant.
                    apps.entry(app.text("Name").to_owned()).or_insert(id);
                }
            }
            self.names = self.names.saturating_add(apps.len());
            self.of_user.insert(user, apps);
        }
        Ok(self.of_user.get(&user).and_then(|apps| apps.get(name)).copied())
    }
}

/// What names in the lines of one commit stand for: most lines name the same plans and products.
#[derive(Debug, Default)]
pub(super) struct Names {
    plans: HashMap<String, Option<u64>>,
    products: HashMap<String, Option<u64>>,
}

/// The records that names stand for, as far as they can be told without reading. Those of names that
/// were `asked` for before are left out.
pub(super) fn keys<'r>(row: &'r Row, asked: &mut HashSet<(Kind, &'r str)>) -> Vec<RecordKey> {
    let mut keys = vec![RecordKey::bytes(Kind::Token, row.hash)];
    match &row.app {
        AppNamed::Id(text) => match Ref::parse(text) {
            Some(Ref::Id(id)) => keys.push(RecordKey::number(Kind::App, id)),
            Some(Ref::Cid(cid)) => {
                keys.extend(cid_keys(Kind::App, &cid));
            }
            None => {}
        },
        AppNamed::Of { user, .. } => keys.push(user_key(user)),
    }
    let products = row.products.iter().map(|product| (Kind::Product, product.as_str()));
    for (kind, text) in [(Kind::Plan, row.plan.as_str())].into_iter().chain(products) {
        if asked.insert((kind, text)) {
            keys.extend(named_keys(kind, text));
        }
    }
    keys
}

fn user_key(user: &UserNamed) -> RecordKey {
    RecordKey::bytes(Kind::Unique, name_entry(Kind::User, 0, &user.email))
}

fn cid_keys(kind: Kind, cid: &str) -> impl Iterator<Item = RecordKey> {
    let number = number_in(cid).map(|id| RecordKey::number(kind, id));
    [RecordKey::bytes(Kind::Unique, cid_entry(kind, cid))].into_iter().chain(number)
}

fn named_keys(kind: Kind, text: &str) -> impl Iterator<Item = RecordKey> {
    let number = text.parse().ok().map(|id| RecordKey::number(kind, id));
    let cid = is_cid(text).then(|| cid_keys(kind, text));
    let name = RecordKey::bytes(Kind::Unique, name_entry(kind, 0, text));
    number.into_iter().chain(cid.into_iter().flatten()).chain([name])
}

impl Names {
    /// The number of the plan or product that a text names.
    async fn find(
        &mut self,
        txn: &mut Txn<'_>,
        kind: Kind,
        text: &str,
    ) -> Result<Option<u64>, StoreError> {
        let known = if kind == Kind::Plan { &mut self.plans } else { &mut self.products };
        if let Some(found) = known.get(text) {
            return Ok(*found);
        }
        let found = named(txn, kind, text).await?;
        known.insert(text.to_owned(), found);
        Ok(found)
    }
}

/// The number of what a text names: a number, a custom id, or a name.
async fn named(txn: &mut Txn<'_>, kind: Kind, text: &str) -> Result<Option<u64>, StoreError> {
    let number = text.parse().ok().map(Ref::Id);
    let named = number.or_else(|| is_cid(text).then(|| Ref::Cid(text.to_owned())));
    if let Some(named) = named
        && let Some(id) = txn.resolve(kind, &named).await?
    {
        return Ok(Some(id));
    }
    txn.unique(&name_entry(kind, 0, text)).await
}

/// Finds what a line names, or says all that is not there. `learnt` are apps of lines before it, which
/// no list has yet.
pub(super) async fn resolve(
    txn: &mut Txn<'_>,
    names: &mut Names,
    apps: &mut Apps,
    learnt: &[&Learnt],
    row: &Row,
) -> Result<Result<Found, Vec<Fault>>, StoreError> {
    let mut faults = Vec::new();
    let plan = names.find(txn, Kind::Plan, &row.plan).await?;
    if plan.is_none() {
        faults.push(Fault::new(Code::UnknownPlan, "PlanID", "names no plan"));
    }
    let mut products = Vec::new();
    for name in &row.products {
        let id = names.find(txn, Kind::Product, name).await?;
        let product = match id {
            Some(id) => txn.shared(Kind::Product, id).await?,
            None => None,
        };
        match (id, product) {
            (Some(_), Some(product)) if product.flag("IsDocumentationOnly") => {
                let text = "is documentation only and grants nothing";
                faults.push(Fault::new(Code::ProductNotAssignable, "ProductIDs", text));
            }
            (Some(id), Some(_)) => {
                if !products.contains(&id) {
                    products.push(id);
                }
            }
            (None, _) | (_, None) => {
                faults.push(Fault::new(Code::UnknownProduct, "ProductIDs", "names no product"));
            }
        }
    }
    let app = match &row.app {
        AppNamed::Id(text) => by_id(txn, text).await?,
        AppNamed::Of { name, user } => by_name(txn, apps, learnt, name, user).await?,
    };
    Ok(match (app, plan) {
        (Ok(app), Some(plan)) if faults.is_empty() => Ok(Found { app, plan, products }),
        (app, _) => {
            faults.extend(app.err());
            Err(faults)
        }
    })
}

async fn by_id(txn: &mut Txn<'_>, text: &str) -> Result<Result<AppFound, Fault>, StoreError> {
    let found = match Ref::parse(text) {
        Some(named) => txn.resolve(Kind::App, &named).await?,
        None => None,
    };
    let unknown = || Fault::new(Code::UnknownApp, "AppID", "names no app");
    Ok(found.map(AppFound::Known).ok_or_else(unknown))
}

async fn by_name(
    txn: &mut Txn<'_>,
    apps: &mut Apps,
    learnt: &[&Learnt],
    name: &str,
    user: &UserNamed,
) -> Result<Result<AppFound, Fault>, StoreError> {
    let name = name.to_owned();
    let Some(owner) = txn.unique(&name_entry(Kind::User, 0, &user.email)).await? else {
        return Ok(match user.new {
            Some(_) => Ok(AppFound::New { name, user: UserFound::New(user.clone()) }),
            None => Err(Fault::new(Code::UnknownUser, "User", "names no user")),
        });
    };
    let mut just = learnt.iter().copied().flatten();
    let just = just.find(|(user, known, _)| *user == owner && *known == name);
    let known = match just {
        Some((_, _, app)) => Some(*app),
        None => apps.find(txn, owner, &name).await?,
    };
    // It may have been deleted since it was read.
    if let Some(id) = known
        && txn.object(Kind::App, id).await?.is_some()
    {
        return Ok(Ok(AppFound::Known(id)));
    }
    Ok(Ok(AppFound::New { name, user: UserFound::Known(owner) }))
}

/// Whether lines are to be applied.
pub(super) fn applies(pass: Pass) -> bool {
    match pass {
        Pass::Apply => true,
        Pass::Check | Pass::Stage => false,
    }
}
