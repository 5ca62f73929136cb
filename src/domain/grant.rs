//! Grants: what a credential may do, compiled. Made when the credential or one of its policies
//! changes, never per request.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::domain::counter::{CounterKey, Subject};
use crate::domain::credential::Credential;
use crate::domain::id::{ApiId, PolicyId};
use crate::domain::limit::{Calendar, CalendarUnit, Period, Quota, Rate};
use crate::domain::merge::{ApiGrant, CounterScope, Merged};
use crate::domain::pattern::{AllowList, Methods, Pattern, TykMatching};
use crate::domain::policy::{
    self, AllowedUrl, CostRule, FailureMode, PatternSyntax, QuotaScope, Setting, UrlAccess,
    VersionAccess,
};
use crate::domain::token::TokenHash;

mod scope;
#[cfg(test)]
mod tests;

pub use scope::LimitScope;

/// What holds where a plan says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Over what a quota is shared.
    pub quota_scope: QuotaScope,
    /// What to do without the store.
    pub on_store_unavailable: FailureMode,
    /// How Tyk's path patterns match.
    pub tyk_matching: TykMatching,
}

/// What a credential may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Switched off, by itself or by a policy.
    pub inactive: bool,
    /// What to do without the store.
    pub on_store_unavailable: FailureMode,
    /// Decide and count, but let through.
    pub shadow: bool,
    /// Requests in flight at most.
    pub in_flight_max: Option<NonZeroU64>,
    /// By API, sorted.
    apis: Box<[(ApiId, Opened)]>,
    /// Patterns that could not be compiled: they open nothing.
    pub faults: Vec<String>,
}

/// What a credential may do on one API.
#[derive(Clone, Debug)]
pub struct Opened {
    versions: VersionAccess,
    /// Matched against the path below the listen path.
    native: AllowList,
    /// Matched against the whole path too, as Tyk does.
    tyk: AllowList,
    /// What every request is charged to.
    pub limits: Vec<LimitSpec>,
    /// What a request on one of these endpoints is charged to instead; the first match counts.
    pub endpoints: Vec<Endpoint>,
    costs: Vec<(Pattern, Methods, u32)>,
}

/// An endpoint with a rate of its own.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which of the merged endpoints it is: one that cannot be read is left out.
    pub at: usize,
    pattern: Pattern,
    methods: Methods,
    /// Its rate, and the API's quotas.
    pub limits: Vec<LimitSpec>,
}

/// One limit and the counter it is charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// The counter.
    pub key: CounterKey,
    /// Over what it is counted.
    pub scope: LimitScope,
    /// The limit.
    pub limit: Limit,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A short sliding window.
    Rate(Rate),
    /// A long fixed period.
    Quota(Quota),
}

impl LimitSpec {
    /// Which of a credential's resets its windows count: one that others share is not reset with
    /// one of them.
    #[must_use]
    pub fn resets(&self, of_credential: u64) -> u64 {
        if self.scope.is_shared() { 0 } else { of_credential }
    }
}

impl Grant {
    /// What it opens on an API; `None`: nothing.
    #[must_use]
    pub fn opened(&self, api: &ApiId) -> Option<(usize, &Opened)> {
        let at = self.apis.binary_search_by(|(id, _)| id.cmp(api)).ok()?;
        self.apis.get(at).map(|(_, opened)| (at, opened))
    }

    /// Everything it opens, sorted by API; positions are those of [`Self::opened`].
    pub fn apis(&self) -> impl Iterator<Item = (&ApiId, &Opened)> {
        self.apis.iter().map(|(id, opened)| (id, opened))
    }

    /// Compiles what a merge gave.
    #[must_use]
    pub fn compile(
        credential: &Credential,
        token: &TokenHash,
        merged: &Merged,
        defaults: Defaults,
    ) -> Self {
        let mut compiler = Compiler { credential, token, merged, defaults, faults: Vec::new() };
        let apis = merged.apis.iter();
        let apis = apis.map(|(id, grant)| (id.clone(), compiler.opened(id, grant))).collect();
        Self {
            inactive: merged.inactive,
            on_store_unavailable: merged
                .extras
                .on_store_unavailable
                .unwrap_or(defaults.on_store_unavailable),
            shadow: merged.extras.shadow,
            in_flight_max: merged.extras.in_flight_max,
            apis,
            faults: compiler.faults,
        }
    }
}

impl Opened {
    /// Whether a version may be called.
    #[must_use]
    pub fn allows_version(&self, version: &str) -> bool {
        match &self.versions {
            VersionAccess::Any => true,
            VersionAccess::Only(versions) => versions.iter().any(|v| v.as_ref() == version),
        }
    }

    /// Whether a path and method may be called. `rest` is the path below the listen path.
    #[must_use]
    pub fn allows_path(&self, method: &str, path: &str, rest: &str) -> bool {
        self.native.allows(method, rest)
            || self.tyk.allows(method, rest)
            || self.tyk.allows(method, path)
    }

    /// The endpoint with a rate of its own that a request hits, by position.
    #[must_use]
    pub fn endpoint(&self, method: &str, rest: &str) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| {
            endpoint.methods.contains(method) && endpoint.pattern.matches(rest)
        })
    }

    /// What a request costs, in units.
    #[must_use]
    pub fn cost(&self, method: &str, rest: &str) -> u64 {
        let hit = self
            .costs
            .iter()
            .find(|(pattern, methods, _)| methods.contains(method) && pattern.matches(rest));
        hit.map_or(1, |(_, _, cost)| u64::from(*cost))
    }
}

struct Compiler<'a> {
    credential: &'a Credential,
    token: &'a TokenHash,
    merged: &'a Merged,
    defaults: Defaults,
    faults: Vec<String>,
}

impl Compiler<'_> {
    fn opened(&mut self, api: &ApiId, grant: &ApiGrant) -> Opened {
        let (native, tyk) = self.allow_lists(&grant.allowed_urls);
        let quota = match grant.effective.quota_with_period() {
            Setting::Limited(quota) => Some(self.quota(api, grant, quota)),
            Setting::Unset | Setting::Unlimited => None,
        };
        let rate = match grant.effective.rate {
            Setting::Limited(rate) => Some(self.rate(own_scope(&grant.rate_counter), rate)),
            Setting::Unset | Setting::Unlimited => None,
        };
        let endpoints = grant.endpoints.iter().enumerate().filter_map(|(at, endpoint)| {
            let pattern = self.pattern(endpoint.syntax, &endpoint.path)?;
            let methods = self.methods([endpoint.method.as_ref()])?;
            let rate = match endpoint.rate {
                Setting::Limited(rate) => {
                    let (method, path) = (&*endpoint.method, &*endpoint.path);
                    let (method, path) = (method.into(), path.into());
                    Some(self.rate(LimitScope::Endpoint { api: api.clone(), method, path }, rate))
                }
                Setting::Unlimited => None,
                Setting::Unset => rate.clone(),
            };
            let limits = rate.into_iter().chain(quota.clone()).collect();
            Some(Endpoint { at, pattern, methods, limits })
        });
        let endpoints = endpoints.collect();
        let costs = self.merged.extras.costs.iter();
        let costs = costs.filter(|rule| rule.api.as_ref().is_none_or(|id| id == api));
        let costs = costs.cloned().collect::<Vec<CostRule>>();
        let costs = costs.iter().filter_map(|rule| {
            let pattern = self.pattern(PatternSyntax::Native, &rule.path)?;
            let methods = if rule.methods.is_empty() {
                Methods::ALL
            } else {
                self.methods(rule.methods.iter().map(AsRef::as_ref))?
            };
            Some((pattern, methods, rule.cost))
        });
        Opened {
            versions: grant.versions.clone(),
            native,
            tyk,
            costs: costs.collect(),
            endpoints,
            limits: rate.into_iter().chain(quota).collect(),
        }
    }

    fn rate(&self, scope: LimitScope, rate: Rate) -> LimitSpec {
        // A rate is a promise per token: a rotated token has a log of its own.
        let definition = format!("r/{}/{:016x}/{scope}", rate.per_ms, self.token.prefix());
        let subject = Subject::Credential(self.credential.id);
        let key = CounterKey { subject, definition: definition.into() };
        LimitSpec { key, scope, limit: Limit::Rate(rate) }
    }

    fn quota(&self, api: &ApiId, grant: &ApiGrant, quota: Quota) -> LimitSpec {
        let own = Subject::Credential(self.credential.id);
        let owner = &self.credential.owner;
        let wanted = self.merged.extras.quota_scope.unwrap_or(self.defaults.quota_scope);
        // A credential without an owner shares with nobody, and a limit of its own is
        // no other's.
        let shared = |subject: Option<Subject>, scope: fn(PolicyId) -> LimitScope| {
            let shared = subject.zip(grant.by.quota.clone().map(scope));
            shared.unwrap_or((own, LimitScope::Credential))
        };
        let (subject, scope) = match (&grant.quota_counter, wanted) {
            // The merge gave this API a counter of its own: a wider scope has no say in it.
            (scoped @ (CounterScope::Policy(_) | CounterScope::Api(_)), _) => {
                (own, own_scope(scoped))
            }
            (CounterScope::Credential, QuotaScope::Credential) => (own, LimitScope::Credential),
            (CounterScope::Credential, QuotaScope::Product) => {
                let product = grant.product().cloned();
                (own, product.map_or(LimitScope::Credential, LimitScope::Policy))
            }
            (CounterScope::Credential, QuotaScope::Api) => (own, LimitScope::Api(api.clone())),
            (CounterScope::Credential, QuotaScope::App) => {
                shared(owner.app.map(Subject::App), LimitScope::App)
            }
            (CounterScope::Credential, QuotaScope::Developer) => {
                shared(owner.user.map(Subject::Developer), LimitScope::Developer)
            }
            (CounterScope::Credential, QuotaScope::Organisation) => {
                let organisation = owner.consumer_org.map(Subject::Organisation);
                shared(organisation, LimitScope::Organisation)
            }
        };
        let definition = format!("q/{}/{scope}", period_name(&quota.period)).into();
        LimitSpec { key: CounterKey { subject, definition }, scope, limit: Limit::Quota(quota) }
    }

    fn allow_lists(&mut self, access: &UrlAccess) -> (AllowList, AllowList) {
        let UrlAccess::Only(urls) = access else {
            return (AllowList::Unrestricted, AllowList::Unrestricted);
        };
        let native = self.allow_list(urls, PatternSyntax::Native);
        let tyk = self.allow_list(urls, PatternSyntax::Tyk);
        (native, tyk)
    }

    fn allow_list(&mut self, urls: &[AllowedUrl], syntax: PatternSyntax) -> AllowList {
        let of_syntax = urls.iter().filter(|url| url.syntax == syntax);
        let entries = of_syntax.filter_map(|url| {
            let pattern = self.pattern(syntax, &url.url)?;
            let methods = match &url.methods {
                policy::Methods::Any => Methods::ALL,
                policy::Methods::Only(names) => self.methods(names.iter().map(AsRef::as_ref))?,
            };
            Some((pattern, methods))
        });
        let entries = entries.collect();
        AllowList::only(entries).unwrap_or_else(|error| {
            self.faults.push(format!("allowed URLs: {error}"));
            AllowList::Only(Arc::new([]))
        })
    }

    /// A pattern that cannot be compiled opens nothing.
    fn pattern(&mut self, syntax: PatternSyntax, text: &str) -> Option<Pattern> {
        let parsed = match syntax {
            PatternSyntax::Native => Pattern::parse(text),
            PatternSyntax::Tyk => Pattern::parse_tyk(text, self.defaults.tyk_matching),
        };
        parsed.map_err(|error| self.faults.push(format!("pattern {text:?}: {error}"))).ok()
    }

    fn methods<'t>(&mut self, names: impl IntoIterator<Item = &'t str>) -> Option<Methods> {
        Methods::only(names).map_err(|error| self.faults.push(format!("methods: {error}"))).ok()
    }
}

fn own_scope(counter: &CounterScope) -> LimitScope {
    match counter {
        CounterScope::Credential => LimitScope::Credential,
        CounterScope::Policy(id) => LimitScope::Policy(id.clone()),
        CounterScope::Api(id) => LimitScope::Api(id.clone()),
    }
}

/// A period in a counter's name: another period is another counter.
fn period_name(period: &Period) -> String {
    match period {
        Period::Never => "n".to_owned(),
        Period::Every { ms } => format!("e{ms}"),
        Period::Calendar(Calendar { unit, zone, anchor_day }) => {
            let unit = match unit {
                CalendarUnit::Day => 'd',
                CalendarUnit::Week => 'w',
                CalendarUnit::Month => 'm',
            };
            format!("{unit}{anchor_day}:{}", zone.as_str())
        }
    }
}
