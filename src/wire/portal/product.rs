//! Products: access rights without limits (portal-api, B4).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::{ApiRef, Fields, Flag};
use super::{PROVIDER, PolicyBody};
use crate::domain::policy::{AllowedUrl, ApiAccess, Limits, Partitions, Parts, PlanExtras};

/// The longest path pattern, in bytes: it is matched against every request.
const PATTERN_LEN_MAX: usize = 1_024;

/// A product as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name, unique among products.
    pub name: String,
    /// It describes APIs and grants nothing.
    pub documentation_only: bool,
    /// The APIs it grants, each with its rights.
    pub apis: Vec<(ApiRef, ApiAccess)>,
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
        Self { name, documentation_only, apis }
    }

    /// Its policy. An API that is named twice has what both entries allow.
    #[must_use]
    pub fn policy(self) -> PolicyBody {
        let mut access = BTreeMap::<_, ApiAccess>::new();
        for (api, rights) in self.apis {
            match access.get_mut(&api.id) {
                None => {
                    access.insert(api.id, rights);
                }
                Some(known) => unite(known, rights),
            }
        }
        PolicyBody {
            partitions: Partitions::Parts(Parts { acl: true, ..Parts::default() }),
            limits: Limits::default(),
            access,
            metadata: BTreeMap::new(),
            key_expires_in_s: 0,
            extras: PlanExtras::default(),
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
    } else if PATTERN_LEN_MAX < path.len() {
        fields.fault(name, format_args!("must be at most {PATTERN_LEN_MAX} bytes long"));
    } else if !path.starts_with('/') || path.chars().any(|c| c.is_control() || c == ' ') {
        fields.fault(name, "must begin with / and have no spaces or control characters");
    }
    path.into()
}

/// Reads a list of HTTP methods; none means all.
pub(super) fn methods(fields: &mut Fields<'_>, name: &str) -> Vec<Arc<str>> {
    let mut methods = Vec::<Arc<str>>::new();
    for method in fields.lines(name) {
        if !method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            fields.fault(name, "must hold HTTP methods such as GET");
        }
        let upper: Arc<str> = method.to_ascii_uppercase().into();
        if !methods.contains(&upper) {
            methods.push(upper);
        }
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
    let mut rights = ApiAccess::default();
    if fields.has("Versions") {
        rights.versions = fields.lines("Versions").into_iter().map(Arc::from).collect();
    }
    rights.allowed_urls = fields.each("AllowedURLs", |entry| AllowedUrl {
        url: pattern(entry, "URL"),
        methods: methods(entry, "Methods"),
    });
    api.map(|api| (api, rights))
}

fn unite(known: &mut ApiAccess, more: ApiAccess) {
    // An empty list allows everything, so it wins over any other.
    if known.allowed_urls.is_empty() || more.allowed_urls.is_empty() {
        known.allowed_urls.clear();
    } else {
        known.allowed_urls.extend(more.allowed_urls);
    }
    if known.versions.is_empty() || more.versions.is_empty() {
        known.versions.clear();
    } else {
        let new = more.versions.into_iter().filter(|v| !known.versions.contains(v));
        let new: Vec<_> = new.collect();
        known.versions.extend(new);
    }
}
