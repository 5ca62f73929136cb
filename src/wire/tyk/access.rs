//! Access rights of one API.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limit::{Limit, rate_members};
use super::{strings, texts};
use crate::domain::policy::{
    self as domain, ApiAccess, EndpointLimit, Methods, PatternSyntax, UrlAccess, VersionAccess,
};
use crate::wire::decimal::{self, Decimal};
use crate::wire::{Invalid, is_default, or_default};

/// What an entry of ours without methods opens, in a format where none opens nothing.
const ALL_METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// One entry of `access_rights`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessRight {
    /// Name of the API; informative.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub api_name: String,
    /// Id of the API; informative, the key of the map counts.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub api_id: String,
    /// Versions; none opens no version of a versioned API.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub versions: Vec<String>,
    /// Paths; none opens all.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub allowed_urls: Vec<AllowedUrl>,
    /// Limits of this API.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub limit: Limit,
    /// Limits of endpoints.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub endpoints: Vec<Endpoint>,
    /// Whose counter is used.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub allowance_scope: String,
    /// Members we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A path and its methods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowedUrl {
    /// A regular expression.
    pub url: String,
    /// Methods; none opens nothing.
    #[serde(deserialize_with = "or_default")]
    pub methods: Vec<String>,
}

/// Limits of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// A regular expression.
    pub path: String,
    /// By method.
    #[serde(deserialize_with = "or_default")]
    pub methods: Vec<EndpointMethod>,
}

/// The limit of one method on a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointMethod {
    /// The method.
    pub name: String,
    /// Its limit.
    #[serde(deserialize_with = "or_default")]
    pub limit: EndpointRate,
}

/// A rate alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointRate {
    /// Requests per `per`; -1 is unlimited.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Decimal,
    /// Seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub per: Decimal,
}

impl AccessRight {
    /// The rights this says.
    ///
    /// # Errors
    /// Those of [`Limit::to_domain`], and a rate of an endpoint beyond 64 bits.
    pub fn to_domain(&self) -> Result<ApiAccess, Invalid> {
        let url = |entry: &AllowedUrl| domain::AllowedUrl {
            syntax: PatternSyntax::Tyk,
            url: entry.url.as_str().into(),
            methods: Methods::Only(texts(&entry.methods)),
        };
        Ok(ApiAccess {
            versions: VersionAccess::Only(texts(&self.versions)),
            allowed_urls: if self.allowed_urls.is_empty() {
                UrlAccess::Unrestricted
            } else {
                UrlAccess::Only(self.allowed_urls.iter().map(url).collect())
            },
            limits: self.limit.to_domain().map_err(|fault| fault.within("limit"))?,
            endpoints: Endpoint::to_domain(&self.endpoints)?,
            scope: Some(self.allowance_scope.as_str()).filter(|s| !s.is_empty()).map(Arc::from),
        })
    }

    /// Writes versions, paths, limits and endpoints over what is here; other members stay.
    pub(super) fn show(
        &mut self,
        versions: &VersionAccess,
        urls: &UrlAccess,
        limits: &domain::Limits,
        endpoints: &[EndpointLimit],
    ) {
        self.versions = match versions {
            // There is no word for it; our own formats say it better.
            VersionAccess::Any => Vec::new(),
            VersionAccess::Only(list) => strings(list),
        };
        self.allowed_urls = match urls {
            UrlAccess::Unrestricted => Vec::new(),
            UrlAccess::Only(list) => list.iter().map(AllowedUrl::from).collect(),
        };
        self.limit = Limit::from(limits);
        self.endpoints = Endpoint::from_domain(endpoints);
    }
}

impl From<&ApiAccess> for AccessRight {
    fn from(access: &ApiAccess) -> Self {
        let mut right = Self {
            allowance_scope: access.scope.as_deref().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        right.show(&access.versions, &access.allowed_urls, &access.limits, &access.endpoints);
        right
    }
}

impl From<&domain::AllowedUrl> for AllowedUrl {
    fn from(entry: &domain::AllowedUrl) -> Self {
        let methods = match &entry.methods {
            Methods::Any => ALL_METHODS.map(str::to_owned).to_vec(),
            Methods::Only(list) => strings(list),
        };
        Self { url: entry.url.to_string(), methods }
    }
}

impl Endpoint {
    /// The limits of all endpoints, one entry per path and method.
    ///
    /// # Errors
    /// A rate beyond 64 bits.
    pub fn to_domain(endpoints: &[Self]) -> Result<Vec<EndpointLimit>, Invalid> {
        let mut limits = Vec::new();
        for endpoint in endpoints {
            for method in &endpoint.methods {
                let rate = decimal::rate(method.limit.rate, method.limit.per);
                limits.push(EndpointLimit {
                    syntax: PatternSyntax::Tyk,
                    path: endpoint.path.as_str().into(),
                    method: method.name.as_str().into(),
                    rate: rate.map_err(|fault| Invalid::new("endpoints.rate", fault))?,
                });
            }
        }
        Ok(limits)
    }

    /// The same, grouped by path in the order first seen.
    #[must_use]
    pub fn from_domain(limits: &[EndpointLimit]) -> Vec<Self> {
        let mut endpoints: Vec<Self> = Vec::new();
        for limit in limits {
            let (rate, per) = rate_members(limit.rate, None);
            let method = EndpointMethod {
                name: limit.method.to_string(),
                limit: EndpointRate { rate, per },
            };
            match endpoints.iter_mut().find(|endpoint| *endpoint.path == *limit.path) {
                Some(endpoint) => endpoint.methods.push(method),
                None => {
                    let path = limit.path.to_string();
                    endpoints.push(Self { path, methods: vec![method] });
                }
            }
        }
        endpoints
    }
}
