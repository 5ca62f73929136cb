//! Catalogues and their audiences (portal-api, B6).

use serde_json::Value;

use super::fields::{Fields, Members, Ref};

/// A catalogue as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// Its name, unique among catalogues.
    pub name: String,
    /// Its products, by number, custom id or name; `None` says nothing.
    pub products: Option<Vec<String>>,
    /// Its plans, in the same way.
    pub plans: Option<Vec<String>>,
    /// Who sees it while it is private; `None` says nothing.
    pub audiences: Option<Vec<Audience>>,
}

/// An audience as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The path of the member that holds it, for faults; ends with a dot unless it is empty.
    pub path: String,
    /// The organisation that sees the catalogue.
    pub organisation: Option<Ref>,
    /// One of its teams, where not all of it does.
    pub team: Option<Ref>,
}

impl Catalogue {
    /// Reads a body or the members of a record. One that does not say is private.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let name = fields.required_line("Name");
        if fields.line("NameWithSlug").is_empty() {
            fields.set("NameWithSlug", slug(&name));
        }
        let visible = [("Private", ()), ("Public", ())];
        if fields.choice("VisibilityStatus", &visible).is_none() {
            fields.set("VisibilityStatus", "Private");
        }
        let mut list = |name: &str| fields.has(name).then(|| fields.lines(name));
        let (products, plans) = (list("Products"), list("Plans"));
        let told = fields.has("OrgCatalogues");
        let mut audiences = fields.each("OrgCatalogues", Audience::read);
        for (at, audience) in audiences.iter_mut().enumerate() {
            audience.path = format!("OrgCatalogues[{at}].");
        }
        // They lie with what is in the catalogue.
        for list in ["Products", "Plans", "OrgCatalogues"] {
            fields.discard(list);
        }
        Self { name, products, plans, audiences: told.then_some(audiences) }
    }

    /// `null` for a list clears it.
    pub fn normalise(body: &mut Members) {
        for list in ["Products", "Plans", "OrgCatalogues"] {
            if let Some(value) = body.get_mut(list).filter(|value| value.is_null()) {
                *value = Value::Array(Vec::new());
            }
        }
    }
}

impl Audience {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let organisation = fields.reference("OrganisationID");
        if organisation.is_none() && !fields.faulted("OrganisationID") {
            fields.fault("OrganisationID", "is required");
        }
        let team = fields.reference("TeamID");
        Self { path: String::new(), organisation, team }
    }
}

/// A name as part of an address: letters and digits, with a hyphen for the rest.
fn slug(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' });
    let words = letters.collect::<String>().to_lowercase();
    words.split_whitespace().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_has_no_spaces() {
        assert_eq!(slug(" Public catalogue: Paris "), "public-catalogue-paris");
        assert_eq!(slug("--"), "");
    }
}
