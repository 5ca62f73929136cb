//! One line, read: a credential to be, with its token hashed already.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::{Options, names};
use super::{Code, Fault};
use crate::domain::token::Pepper;
use crate::wire::portal::credential::{is_oauth, mask};
use crate::wire::portal::fields::{Faults, Fields, Flag, Members, Moment};
use key::{Key, Tells};

mod key;

/// The members that are read; others mean nothing and are not kept.
const KNOWN: &[&str] = &[
    "Line",
    "Alias",
    "KeyID",
    "KeyHash",
    "AppID",
    "App",
    "User",
    "PlanID",
    "Plan",
    "ProductIDs",
    "Products",
    "UsagePlanIds",
    "Expires",
    "Active",
    "MetaData",
    "Description",
    "QuotaUsed",
    "QuotaRenews",
    // The portal's template carries these.
    "Type",
    "AuthenticationMethod",
    "AuthTokenType",
    "CredentialKey",
    "CredentialSecret",
    "ProviderID",
    "ClientTypeID",
];

/// A line, as far as it can be read without the store.
#[derive(Debug)]
pub struct Parsed {
    /// What its file calls it.
    pub external: Option<String>,
    /// What is shown of its token.
    pub mask: Option<String>,
    /// Whether something in it means nothing here.
    pub strange: bool,
    /// What it asks for, or all that is wrong with it.
    pub row: Result<Row, Vec<Fault>>,
}

/// A credential to be. It holds no token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What the token is looked up by.
    pub hash: [u8; 32],
    /// What is shown of the token; of one that came as a hash: nothing.
    pub mask: String,
    /// Whether the token can be guessed.
    pub weak: bool,
    /// The name.
    pub alias: String,
    /// The app.
    pub app: AppNamed,
    /// The plan: a number, custom id or name.
    pub plan: String,
    /// The products: numbers, custom ids or names.
    pub products: Vec<String>,
    /// When it ends.
    pub expires: Expiry,
    /// Whether it is switched on; `None` says nothing.
    pub active: Option<bool>,
    /// Metadata; `None` says nothing.
    pub metadata: Option<Members>,
    /// A description; empty says nothing.
    pub description: String,
    /// Units of its quota used up elsewhere in the period that runs.
    pub quota_used: u64,
    /// When that period ends, in unix milliseconds.
    pub quota_renews_ms: Option<u64>,
}

/// The app of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppNamed {
    /// By number or custom id.
    Id(String),
    /// By its name and its owner's address: made if it is not there.
    Of {
        /// The app's name.
        name: String,
        /// The owner.
        user: UserNamed,
    },
}

/// The owner of an app that a line names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamed {
    /// The address.
    pub email: String,
    /// What else a new user is made of: `None` makes none.
    pub new: Option<Members>,
}

/// When a credential ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiry {
    /// The line does not say: as its plan says, or as it was.
    Absent,
    /// Never.
    Never,
    /// Then, in unix milliseconds.
    At(u64),
}

impl Parsed {
    /// Reads the members of a line.
    #[must_use]
    pub fn read(mut members: Members, options: &Options, pepper: &Pepper) -> Self {
        let strange = members.keys().any(|name| !KNOWN.contains(&name.as_str()));
        let mut faults = Vec::new();
        let hash = members.remove("KeyHash");
        let app = app(&mut members, options, &mut faults);
        let usage_plans = members.remove("UsagePlanIds");
        let mut found = Faults::default();
        let mut fields = Fields::of(members, &mut found);
        let external = Some(fields.line("Line")).filter(|line| !line.is_empty());
        let token = fields.secret("KeyID");
        let key = Key::read(token.as_ref(), hash.as_ref(), pepper, &mut faults);
        check_method(&mut fields, &mut faults);
        let (plan, products) = rights(&mut fields, usage_plans.as_ref(), options, &mut faults);
        let row = Row {
            hash: key.hash.0,
            mask: key.mask.clone(),
            weak: key.weak,
            alias: fields.required_line("Alias"),
            app: app.unwrap_or_else(|| AppNamed::Id(String::new())),
            plan,
            products,
            expires: match fields.moment("Expires") {
                Moment::Absent => Expiry::Absent,
                Moment::Never => Expiry::Never,
                Moment::At(at) => Expiry::At(at.0),
            },
            active: fields.has("Active").then(|| fields.flag("Active", Flag::On)),
            metadata: fields.has("MetaData").then(|| fields.object("MetaData")),
            description: fields.text("Description"),
            quota_used: units(&mut fields),
            quota_renews_ms: match fields.moment("QuotaRenews") {
                Moment::Absent | Moment::Never => None,
                Moment::At(at) => Some(at.0),
            },
        };
        faults.extend(found.into_texts().into_iter().map(fault));
        let tells = Tells { token: token.as_ref(), hash: key.hash, pepper };
        for field in tells.fields_of(&row) {
            faults.push(Fault::new(Code::TokenInText, field, "must not contain the token"));
        }
        let external = external.filter(|text| !tells.text(text));
        let mask = token.as_ref().map(mask);
        let row = if faults.is_empty() { Ok(row) } else { Err(faults) };
        Self { external, mask, strange, row }
    }
}

/// The most units that can have been used up elsewhere: scripts in Redis count exactly to above it.
const USED_MAX: u64 = 1_000_000_000_000;

/// Units used up elsewhere.
fn units(fields: &mut Fields<'_>) -> u64 {
    let used = u64::try_from(fields.whole("QuotaUsed")).ok();
    used.filter(|used| *used <= USED_MAX).unwrap_or_else(|| {
        fields.fault("QuotaUsed", format_args!("must be from 0 to {USED_MAX}"));
        0
    })
}

/// Only tokens are imported, and only such as exist.
fn check_method(fields: &mut Fields<'_>, faults: &mut Vec<Fault>) {
    let method = fields.line("AuthenticationMethod");
    if is_oauth(&method) {
        let text = "must be a token method: OAuth is not supported";
        faults.push(Fault::new(Code::AuthMethodUnsupported, "AuthenticationMethod", text));
    }
    for (name, wanted) in [
        ("Type", ["", "CREDENTIAL_TYPE_TYK_MANAGED"].as_slice()),
        ("AuthTokenType", &["", "AUTH_TOKEN_CUSTOM", "AUTH_TOKEN_TYPE_CUSTOM"]),
    ] {
        let given = fields.line(name);
        if !wanted.contains(&given.as_str()) {
            let text = format!("must be {}", wanted.get(1).copied().unwrap_or_default());
            faults.push(Fault::new(Code::AuthMethodUnsupported, name, text));
        }
    }
}

/// The app: `AppID`; or `App` (a text, or an object with `Name`) of `User` (an address, or an
/// object with `Email` and what a new user is made of); or the options' app.
fn app(members: &mut Members, options: &Options, faults: &mut Vec<Fault>) -> Option<AppNamed> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let inside = |value: Value, name: &str| {
        if let Value::Object(mut members) = value {
            let named = members.remove(name).as_ref().and_then(text);
            return named.map(|named| (named, Some(members)));
        }
        text(&value).map(|named| (named, None))
    };
    let id = members.remove("AppID").filter(|id| !id.is_null());
    let name = members.remove("App").filter(|app| !app.is_null());
    let user = members.remove("User").filter(|user| !user.is_null());
    let mut wrong = |name: &str, what: &str| {
        faults.push(Fault::new(Code::BadType, name, what));
        None
    };
    if let Some(id) = id {
        return text(&id).map(AppNamed::Id).or_else(|| wrong("AppID", "must be an id"));
    }
    match (name, user) {
        (Some(name), Some(user)) => {
            let Some((name, _)) = inside(name, "Name").filter(|(name, _)| !name.is_empty()) else {
                return wrong("App", "must be a name");
            };
            let Some((email, new)) = inside(user, "Email") else {
                return wrong("User", "must be an address");
            };
            Some(AppNamed::Of { name, user: UserNamed { email: email.to_lowercase(), new } })
        }
        (None, None) if options.app.is_some() => options.app.clone().map(AppNamed::Id),
        _ => {
            let text = "AppID, or App and User, is required";
            faults.push(Fault::new(Code::MissingField, "AppID", text));
            None
        }
    }
}

/// Plan and products as the line names them, as its usage plans stand for them, or as the options
/// do.
fn rights(
    fields: &mut Fields<'_>,
    usage_plans: Option<&Value>,
    options: &Options,
    faults: &mut Vec<Fault>,
) -> (String, Vec<String>) {
    let given = |one: String, other: String| if one.is_empty() { other } else { one };
    let mut plans = vec![given(fields.line("PlanID"), fields.line("Plan"))];
    let mut products = fields.lines("ProductIDs");
    products.extend(fields.lines("Products"));
    let usage_plans: Vec<String> = match usage_plans {
        Some(Value::Array(all)) => {
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(Value::String(list)) => names(list),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => vec![],
    };
    for id in &usage_plans {
        match options.usage_plans.get(id) {
            Some(stands_for) => {
                plans.extend(stands_for.plan.clone());
                products.extend(stands_for.products.iter().cloned());
            }
            None => {
                let text = "names a usage plan that map.plan does not";
                faults.push(Fault::new(Code::UnknownPlan, "UsagePlanIds", text));
            }
        }
    }
    plans.retain(|plan| !plan.is_empty());
    plans.dedup();
    if plans.is_empty() {
        plans.extend(options.plan.clone());
    }
    if products.is_empty() {
        products.clone_from(&options.products);
    }
    let mut need = |there: bool, name: &str, text: &str| {
        if !there && usage_plans.is_empty() {
            faults.push(Fault::new(Code::MissingField, name, text));
        } else if !there {
            faults.push(Fault::new(Code::UnknownPlan, "UsagePlanIds", text));
        }
    };
    need(!plans.is_empty(), "PlanID", "a plan is required");
    need(!products.is_empty(), "ProductIDs", "at least one product is required");
    if 1 < plans.len() {
        let text = "a credential has one plan";
        faults.push(Fault::new(Code::SeveralPlans, "UsagePlanIds", text));
    }
    (plans.into_iter().next().unwrap_or_default(), products)
}

/// A fault of a member as `Fields` tells it: the member's path, then what is wrong.
fn fault(text: String) -> Fault {
    let field = text.split([' ', '.', '[']).next().unwrap_or_default();
    let code = if text.ends_with(" is required") { Code::MissingField } else { Code::BadType };
    Fault::new(code, field, text.clone())
}

#[cfg(test)]
mod tests;
