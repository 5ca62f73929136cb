//! Products: access rights without limits (portal-api, B4).

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::PROVIDER;
use super::fields::{ApiRef, Fields, Flag};
use crate::domain::pattern::{self, ALLOWED_MAX, Pattern};
use crate::domain::policy::{
    AllowedUrl, ApiAccess, Methods, Partitions, Parts, PatternSyntax, Policy, UrlAccess,
    VersionAccess,
};

/// A product as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name, unique among products.
    pub name: String,
    /// It describes APIs and grants nothing.
    pub documentation_only: bool,
    /// The APIs it grants, each with its rights.
    pub apis: Vec<(ApiRef, ApiAccess)>,
    /// The catalogues it is in, by number, custom id or name.
    pub catalogues: Vec<String>,
}

impl Product {
    /// Reads a body or the members of a record.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let name = fields.required_line("Name");
        let documentation_only = fields.flag("IsDocumentationOnly", Flag::Off);
        if !documentation_only {
            provider(fields);
        }
        for text in ["DisplayName", "AuthType"] {
            fields.line(text);
        }
        for text in ["Description", "Content", "Scopes"] {
            fields.text(text);
        }
        for flag in ["DCREnabled", "Feature"] {
            fields.flag(flag, Flag::Off);
        }
        let details = fields.each("APIDetails", detail);
        let apis: Vec<_> = details.into_iter().flatten().collect();
        if documentation_only && !apis.is_empty() {
            fields.fault("APIDetails", "must be empty when IsDocumentationOnly is true");
        }
        for spec in fields.each("SpecDetails", spec_detail) {
            if !spec {
                fields.fault("SpecDetails", "must have a SpecAlias in every entry");
            }
        }
        let catalogues = fields.lines("Catalogues");
        Self { name, documentation_only, apis, catalogues }
    }

    /// Makes `policy` its own. An API that is named twice has what either entry allows.
    pub fn fill(self, policy: &mut Policy) {
        policy.partitions = Partitions::Parts(Parts { acl: true, ..Parts::default() });
        for (api, rights) in self.apis {
            match policy.access.entry(api.id) {
                Entry::Vacant(new) => {
                    new.insert(rights);
                }
                Entry::Occupied(mut known) => unite(known.get_mut(), rights),
            }
        }
    }
}

/// Reads `ProviderID`, which must be this gateway.
pub(super) fn provider(fields: &mut Fields<'_>) {
    if !fields.has("ProviderID") {
        fields.fault("ProviderID", "is required");
        return;
    }
    let provider = fields.whole("ProviderID");
    if u64::try_from(provider) != Ok(PROVIDER) {
        fields.fault("ProviderID", format_args!("{provider} does not exist"));
    }
}

/// Reads a path pattern of ours.
pub(super) fn pattern(fields: &mut Fields<'_>, name: &str) -> Arc<str> {
    let path = fields.text(name);
    if path.is_empty() {
        fields.fault(name, "is required");
    } else if let Err(fault) = Pattern::parse(&path) {
        fields.fault(name, fault);
    }
    path.into()
}

/// Reads a list of HTTP methods; none means all.
pub(super) fn methods(fields: &mut Fields<'_>, name: &str) -> Vec<Arc<str>> {
    let mut methods = Vec::<Arc<str>>::new();
    for method in fields.lines(name) {
        let upper: Arc<str> = method.to_ascii_uppercase().into();
        if !methods.contains(&upper) {
            methods.push(upper);
        }
    }
    if let Err(fault) = pattern::Methods::only(methods.iter().map(AsRef::as_ref)) {
        fields.fault(name, fault);
    }
    methods
}

fn detail(fields: &mut Fields<'_>) -> Option<(ApiRef, ApiAccess)> {
    if !fields.has("APIID") {
        fields.fault("APIID", "is required");
    }
    let api = fields.api("APIID");
    for text in ["Description", "OASUrl"] {
        if fields.has(text) {
            fields.text(text);
        }
    }
    let mut rights = ApiAccess { versions: VersionAccess::Any, ..ApiAccess::default() };
    if fields.has("Versions") {
        let versions = fields.lines("Versions");
        if !versions.is_empty() {
            rights.versions = VersionAccess::Only(versions.into_iter().map(Arc::from).collect());
        }
    }
    let allowed = fields.each("AllowedURLs", |entry| AllowedUrl {
        syntax: PatternSyntax::Native,
        url: pattern(entry, "URL"),
        methods: match methods(entry, "Methods") {
            none if none.is_empty() => Methods::Any,
            some => Methods::Only(some),
        },
    });
    if ALLOWED_MAX < allowed.len() {
        fields.fault("AllowedURLs", format_args!("must have at most {ALLOWED_MAX} entries"));
    }
    if !allowed.is_empty() {
        rights.allowed_urls = UrlAccess::Only(allowed);
    }
    api.map(|api| (api, rights))
}

/// Whether the document has the name that it needs.
fn spec_detail(fields: &mut Fields<'_>) -> bool {
    fields.text("OASUrl");
    !fields.line("SpecAlias").trim().is_empty()
}

/// What is unrestricted in one of the two is unrestricted.
fn unite(known: &mut ApiAccess, more: ApiAccess) {
    match (&mut known.allowed_urls, more.allowed_urls) {
        (UrlAccess::Only(known), UrlAccess::Only(more)) => known.extend(more),
        (open, _) => *open = UrlAccess::Unrestricted,
    }
    match (&mut known.versions, more.versions) {
        (VersionAccess::Only(known), VersionAccess::Only(more)) => {
            let new: Vec<_> = more.into_iter().filter(|v| !known.contains(v)).collect();
            known.extend(new);
        }
        (open, _) => *open = VersionAccess::Any,
    }
}
