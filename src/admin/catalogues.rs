//! Catalogues: who sees which products and plans.
//!
//! Products and plans say which catalogues they are in; a catalogue's own lists are another way to
//! change that. What is in no catalogue everybody may ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::Refusal;
use super::audiences::{Resolve, audiences, erase_audiences, row, set_audiences};
use super::crud::{Resource, View, Writable, base};
use super::draft::Draft;
use super::rosters;
use super::steps::room;
use super::txn::{Txn, kind_byte, name_entry};
use crate::store::{Kind, StoreError};
use crate::wire::portal::catalogue::Catalogue;
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Faults, Fields, Members, Ref};
use crate::wire::portal::stored::Stored;

/// Who looks at a catalogue.
#[derive(Debug)]
pub(crate) struct Viewer {
    organisation: Option<u64>,
    teams: Vec<u64>,
    /// What was found out already, by catalogue.
    sees: BTreeMap<u64, bool>,
}

impl Viewer {
    /// A user.
    pub(crate) fn new(user: &Stored) -> Self {
        let (organisation, teams) = (user.number("OrganisationID"), user.numbers("Teams"));
        Self { organisation, teams, sees: BTreeMap::new() }
    }

    /// Whether a product or plan is in a catalogue that they see, or in none.
    pub(crate) async fn may_ask_for(
        &mut self,
        object: &Stored,
        txn: &mut Txn<'_>,
    ) -> Result<bool, StoreError> {
        let catalogues = object.numbers("Catalogues");
        for id in &catalogues {
            if self.sees(*id, txn).await? {
                return Ok(true);
            }
        }
        Ok(catalogues.is_empty())
    }

    /// Whether they see a catalogue.
    pub(crate) async fn sees(&mut self, id: u64, txn: &mut Txn<'_>) -> Result<bool, StoreError> {
        if let Some(known) = self.sees.get(&id) {
            return Ok(*known);
        }
        let catalogue = txn.object(Kind::Catalogue, id).await?;
        let mut sees = catalogue.is_some_and(|found| found.text("VisibilityStatus") == "Public");
        if !sees {
            for audience in audiences(txn, id).await? {
                let team = audience.number("TeamID");
                sees |= self.organisation.is_some()
                    && audience.number("OrganisationID") == self.organisation
                    && team.is_none_or(|team| self.teams.contains(&team));
            }
        }
        self.sees.insert(id, sees);
        Ok(sees)
    }
}

impl Resource for Catalogue {
    const KIND: Kind = Kind::Catalogue;
    const NOUN: &'static str = "catalogue";
    const SHELVED: bool = true;

    async fn show(object: &Stored, txn: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        for (name, kind) in LISTS {
            let ids = txn.members((Kind::Catalogue, object.id), kind, usize::MAX).await?;
            shown.insert(name.to_owned(), names(txn, kind, &ids).await?.into());
        }
        let mut rows = Vec::new();
        for audience in audiences(txn, object.id).await? {
            rows.push(row(object, &audience, txn).await?);
        }
        shown.insert("OrgCatalogues".to_owned(), rows.into());
        Ok(shown)
    }

    async fn seen(
        object: &Stored,
        viewer: &mut Viewer,
        txn: &mut Txn<'_>,
    ) -> Result<bool, StoreError> {
        viewer.sees(object.id, txn).await
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        let (owner, mut room) = ((Kind::Catalogue, object.id), room(txn));
        for (_, kind) in LISTS {
            for id in txn.members(owner, kind, room.saturating_add(1)).await? {
                if room == 0 {
                    txn.rest.again = true;
                    return Ok(());
                }
                room = room.saturating_sub(1);
                put_in(txn, (kind, id), object.id, false).await?;
            }
        }
        txn.rest.again = !erase_audiences(txn, owner, &mut room).await?;
        Ok(())
    }
}

/// What is in a catalogue.
const LISTS: [(&str, Kind); 2] = [("Products", Kind::Product), ("Plans", Kind::Plan)];

impl Writable for Catalogue {
    fn normalise(body: &mut Members, _: Option<&mut Stored>) {
        Self::normalise(body);
    }

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        draft.claim(txn, name_entry(Self::KIND, 0, &self.name), "Name").await?;
        let lists = [
            ("Products", Kind::Product, &mut self.products),
            ("Plans", Kind::Plan, &mut self.plans),
        ];
        for (name, kind, list) in lists {
            let Some(named) = list else { continue };
            let ids = find_all(txn, kind, named, (name, &mut draft.faults)).await?;
            draft.once.insert(name.to_owned(), names(txn, kind, &ids).await?.into());
            draft.after.links.roster.retain(|(listed, _)| *listed != kind_byte(kind));
            draft.after.links.roster.push(rosters::list(kind, ids));
        }
        for audience in self.audiences.iter_mut().flatten() {
            audience.resolve(txn, &mut draft.faults).await?;
        }
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        if !draft.after.links.roster.is_empty() {
            let now = draft.state.clock.unix();
            rosters::carry_out(txn, Kind::Catalogue, &mut draft.after, now).await?;
            txn.save(Kind::Catalogue, draft.before.as_ref(), &draft.after).await?;
        }
        if let Some(wanted) = &self.audiences {
            let rows = set_audiences(wanted, draft, txn).await?;
            draft.once.insert("OrgCatalogues".to_owned(), rows.into());
        }
        Ok(())
    }
}

/// Puts a product or plan into a catalogue, or takes it out.
pub(crate) async fn put_in(
    txn: &mut Txn<'_>,
    object: (Kind, u64),
    catalogue: u64,
    within: bool,
) -> Result<(), StoreError> {
    let Some(before) = txn.object(object.0, object.1).await? else { return Ok(()) };
    let mut after = before.clone();
    let mut catalogues = before.numbers("Catalogues");
    catalogues.retain(|id| *id != catalogue);
    catalogues.extend(within.then_some(catalogue));
    after.owners.retain(|owner| owner.0 != kind_byte(Kind::Catalogue));
    after.owners.extend(catalogues.iter().map(|id| (kind_byte(Kind::Catalogue), *id)));
    after.members.insert("Catalogues".to_owned(), catalogues.into());
    txn.save(object.0, Some(&before), &after).await
}

/// The numbers of objects that are named by number, custom id or name, each once.
pub(crate) async fn find_all(
    txn: &mut Txn<'_>,
    kind: Kind,
    named: &[String],
    faults: (&str, &mut Faults),
) -> Result<Vec<u64>, StoreError> {
    let (member, faults) = faults;
    let (mut ids, mut known) = (Vec::new(), BTreeSet::new());
    for text in named {
        let mut found = match Ref::parse(text) {
            Some(reference) => txn.resolve(kind, &reference).await?,
            None => None,
        };
        if found.is_none() {
            found = txn.unique(&name_entry(kind, 0, text)).await?;
        }
        match found {
            Some(id) => ids.extend(known.insert(id).then_some(id)),
            None if text.parse::<u64>().is_ok() => {
                faults.add(member, format_args!("{text} does not exist"));
            }
            None => faults.add(member, "names nothing that exists"),
        }
    }
    Ok(ids)
}

/// The names of objects.
pub(crate) async fn names(
    txn: &mut Txn<'_>,
    kind: Kind,
    ids: &[u64],
) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for id in ids {
        let object = txn.object(kind, *id).await?;
        names.extend(object.map(|object| object.text("Name").to_owned()));
    }
    Ok(names)
}
