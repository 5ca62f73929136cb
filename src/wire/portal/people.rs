//! Who uses APIs: apps, users, organisations and their teams (portal-api, B1, B7, B8).

use serde_json::Value;

use super::fields::{Fields, Flag, Members, Ref};

/// An app as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its owner.
    pub user: Option<Ref>,
}

impl App {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        fields.required_line("Name");
        fields.text("Description");
        fields.text("RedirectURLs");
        let visibilities = [("personal", ()), ("team", ()), ("organisation", ())];
        if fields.choice("Visibility", &visibilities).is_none() {
            fields.set("Visibility", "organisation");
        }
        let given = fields.has("UserID");
        let user = fields.reference("UserID");
        if !given {
            fields.fault("UserID", "is required");
        }
        Self { user }
    }
}

/// A user as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its address, in lower case: unique among users.
    pub email: String,
    /// Its organisation; administrators have none.
    pub organisation: Option<Ref>,
    /// Its teams.
    pub teams: Vec<Ref>,
}

impl User {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let email = fields.required_line("Email").trim().to_lowercase();
        let parts = email.split_once('@');
        let plain = !email.contains(char::is_whitespace);
        if !email.is_empty() && !parts.is_some_and(|(a, b)| plain && !a.is_empty() && !b.is_empty())
        {
            fields.fault("Email", "is not an e-mail address");
        }
        for text in ["First", "Last"] {
            fields.line(text);
        }
        fields.flag("Active", Flag::On);
        fields.flag("ResetPassword", Flag::Off);
        let roles = [
            ("super-admin", ()),
            ("provider-admin", ()),
            ("consumer-admin", ()),
            ("consumer-team-member", ()),
        ];
        if fields.choice("Role", &roles).is_none() {
            fields.set("Role", "consumer-team-member");
        }
        if fields.line("Provider").is_empty() {
            fields.set("Provider", "password");
        }
        let organisation = fields.reference("OrganisationID");
        let teams = fields.references("Teams");
        Self { email, organisation, teams }
    }

    /// Brings the spellings of organisation and teams that clients use into one: `Organisation`
    /// as an object, `TeamID` (portal-api, 0.12). The name of the organisation is for reading.
    pub fn normalise(body: &mut Members) {
        if let Some(Value::Object(organisation)) = body.remove("Organisation")
            && let Some(id) = organisation.get("ID")
        {
            body.entry("OrganisationID").or_insert(id.clone());
        }
        if let Some(team) = body.remove("TeamID") {
            body.entry("Teams").or_insert(team);
        }
    }
}

/// A custom attribute of a user as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttribute {
    /// What people call it.
    pub name: String,
    /// What metadata calls it: its name, unless it says another.
    pub identifier: String,
    /// Its value.
    pub value: String,
    /// Whether it is part of the metadata of the user's credentials.
    pub in_metadata: bool,
    /// Whether its value is for ever.
    pub fixed: bool,
}

impl NewAttribute {
    /// Reads a body, flat or as attributes are shown.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let value = fields.line("Value");
        let new = match fields.nested("CustomAttribute", Self::described) {
            Some(new) => new,
            None => Self::described(fields),
        };
        Self { value, ..new }
    }

    fn described(fields: &mut Fields<'_>) -> Self {
        let name = fields.required_line("Name");
        let identifier = Some(fields.line("Identifier")).filter(|text| !text.is_empty());
        Self {
            identifier: identifier.unwrap_or_else(|| name.clone()),
            name,
            value: String::new(),
            in_metadata: fields.flag("AddToKeyMetadata", Flag::On),
            fixed: fields.flag("WriteOnceReadMany", Flag::Off),
        }
    }
}

/// An organisation as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its name.
    pub name: String,
}

impl Organisation {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self { name: fields.required_line("Name") }
    }
}

/// A team as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its name.
    pub name: String,
    /// Who is in it; `None` says nothing.
    pub users: Option<Vec<Ref>>,
}

impl Team {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let name = fields.required_line("Name");
        let named = fields.has("Users");
        let users = fields.references("Users");
        Self { name, users: named.then_some(users) }
    }

    /// `null` for a list clears it.
    pub fn normalise(body: &mut Members) {
        if let Some(users) = body.get_mut("Users").filter(|users| users.is_null()) {
            *users = Value::Array(Vec::new());
        }
    }
}
