//! APIs and policies at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::api::Api;
use crate::domain::credential::Credential;
use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::merge::{Found, MergeError, Merged, Mode, merge};
use crate::domain::policy::Policy;
use crate::domain::route::{Match, Router};
use crate::store::{Generation, Kind, RecordKey};
use crate::wire::portal::{plan_policy, product_policy};

/// APIs and policies at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rises with every change in this process: what was compiled from another one is compiled
    /// again.
    pub version: u64,
    /// The commit it stands for: limits carry it, and the latest one holds.
    pub generation: Generation,
    router: Arc<Router<Arc<Api>>>,
    apis: Arc<HashMap<ApiId, Arc<Api>>>,
    policies: HashMap<PolicyId, Vec<Arc<Policy>>>,
}

/// The policy id of a product or plan: it stays when the thing is renamed.
#[must_use]
pub fn policy_id(kind: Kind, number: u64) -> Option<PolicyId> {
    let prefix = match kind {
        Kind::Product => "product",
        Kind::Plan => "plan",
        _ => return None,
    };
    format!("{prefix}-{number}").parse().ok()
}

impl Snapshot {
    pub(super) fn new(apis: Vec<Arc<Api>>, generation: Generation) -> Self {
        let mut router = Router::new();
        for api in &apis {
            let hosts: Vec<_> = if api.hosts.is_empty() {
                vec![None]
            } else {
                api.hosts.iter().map(Some).collect()
            };
            for host in hosts {
                // The configuration has checked for duplicates; a second one would change nothing.
                if let Err(error) = router.insert(host, &api.listen_path, Arc::clone(api)) {
                    tracing::error!(api = %api.id, %error, "an API cannot be routed to");
                }
            }
        }
        let by_id = apis.into_iter().map(|api| (api.id.clone(), api)).collect();
        Self {
            version: 1,
            generation,
            router: Arc::new(router),
            apis: Arc::new(by_id),
            policies: HashMap::new(),
        }
    }

    /// The API a request goes to, by host and normal path.
    #[must_use]
    pub fn route<'r, 'p>(
        &'r self,
        host: Option<&str>,
        path: &'p str,
    ) -> Option<Match<'r, 'p, Arc<Api>>> {
        self.router.find(host, path)
    }

    /// An API by id.
    #[must_use]
    pub fn api(&self, id: &ApiId) -> Option<&Arc<Api>> {
        self.apis.get(id)
    }

    /// All APIs, in no order.
    pub fn apis(&self) -> impl Iterator<Item = &Arc<Api>> {
        self.apis.values()
    }

    /// A policy of an organisation.
    #[must_use]
    pub fn policy(&self, org: &OrgId, id: &PolicyId) -> Option<&Arc<Policy>> {
        self.policies.get(id)?.iter().find(|policy| policy.org == *org)
    }

    /// How many policies there are.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.policies.values().map(Vec::len).sum()
    }

    /// What a credential's policies give it.
    ///
    /// # Errors
    /// When they cannot be applied: the credential is refused.
    pub fn merged(&self, credential: &Credential, mode: Mode) -> Result<Merged, MergeError> {
        let found: Vec<Found<'_>> = credential
            .policies
            .iter()
            .map(|wanted| match self.policies.get(&wanted.id).map(Vec::as_slice) {
                None | Some([]) => Found::Missing { id: &wanted.id, kind: wanted.kind },
                Some(bearers) => bearers
                    .iter()
                    .find(|policy| policy.org == credential.org)
                    .map_or(Found::OtherOrg { id: &wanted.id }, |policy| Found::Policy(policy)),
            })
            .collect();
        merge(credential, &found, None, mode)
    }

    /// Takes one policy's record in, or out.
    pub(super) fn put(&mut self, key: &RecordKey, value: Option<&[u8]>) {
        let number = || <[u8; 8]>::try_from(key.id.as_ref()).map(u64::from_be_bytes).ok();
        let Some(id) = number().and_then(|number| policy_id(key.kind, number)) else { return };
        self.policies.remove(&id);
        let Some(value) = value else { return };
        let policy = match key.kind {
            Kind::Product => product_policy(value),
            Kind::Plan => plan_policy(value),
            _ => return,
        };
        match policy {
            Ok(policy) => {
                self.policies.insert(id, vec![Arc::new(policy)]);
            }
            Err(error) => {
                tracing::error!(policy = %id, %error, "a policy cannot be read and refuses");
            }
        }
    }
}
