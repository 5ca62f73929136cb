//! APIs and policies at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::api::Api;
use crate::domain::credential::Credential;
use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::merge::{Found, MergeError, Merged, Mode, merge};
use crate::domain::policy::Policy;
use crate::domain::route::{Match, Router};
use crate::store::{Generation, Kind, Record, RecordKey};
use crate::wire::portal::{plan_policy, product_policy, reference_id};

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
    /// The commit that last wrote or deleted each policy: commits may be applied in another order
    /// than they were made.
    written: HashMap<PolicyId, Generation>,
}

/// The policy id of a product or plan: it stays when the thing is renamed.
#[must_use]
pub fn policy_id(kind: Kind, number: u64) -> Option<PolicyId> {
    let noun = if kind == Kind::Product {
        "product"
    } else if kind == Kind::Plan {
        "plan"
    } else {
        return None;
    };
    reference_id(noun, number).parse().ok()
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
            written: HashMap::new(),
        }
    }

    /// The same with these APIs; `None` if they are those there are.
    pub(super) fn with_apis(&self, apis: Vec<Arc<Api>>) -> Option<Self> {
        let mut same = apis.len() == self.apis.len();
        let kept = apis.into_iter().map(|api| match self.apis.get(&api.id) {
            Some(known) if *known == api => Arc::clone(known),
            _ => {
                same = false;
                api
            }
        });
        let fresh = Self::new(kept.collect(), self.generation);
        (!same).then(|| Self { router: fresh.router, apis: fresh.apis, ..self.clone() })
    }

    /// Takes over the APIs of another one.
    pub(super) fn keep_apis(&mut self, of: &Self) {
        self.router = of.router.clone();
        self.apis = of.apis.clone();
    }

    /// The same without its policies.
    pub(super) fn without_policies(mut self) -> Self {
        self.policies.clear();
        self.written.clear();
        self
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

    /// Takes records of policies in.
    pub(super) fn put_all(&mut self, policies: &[(RecordKey, Record)]) {
        for (key, record) in policies {
            self.put(key, Some(&record.value), record.generation);
        }
    }

    /// Takes one policy's record in, or out, as a commit left it. One from before what is here
    /// changes nothing.
    pub(super) fn put(&mut self, key: &RecordKey, value: Option<&[u8]>, at: Generation) {
        let number = || <[u8; 8]>::try_from(key.id.as_ref()).map(u64::from_be_bytes).ok();
        let Some(id) = number().and_then(|number| policy_id(key.kind, number)) else { return };
        let written = self.written.entry(id.clone()).or_default();
        if at < *written {
            return;
        }
        *written = at;
        self.policies.remove(&id);
        let Some(value) = value else { return };
        let policy =
            if key.kind == Kind::Product { product_policy(value) } else { plan_policy(value) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_applied_in_another_order_leave_the_newest() {
        let plan = |name: &str| {
            serde_json::json!({"id": 3, "cid": "c", "created_ms": 0, "updated_ms": 0,
                "members": {"Name": name, "ProviderID": 1, "MetaData": {"name": name}}})
            .to_string()
        };
        let (key, id) = (RecordKey::number(Kind::Plan, 3), "plan-3".parse().unwrap());
        let org = "default".parse().unwrap();
        let mut snapshot = Snapshot::new(Vec::new(), Generation(1));
        snapshot.put(&key, Some(plan("new").as_bytes()), Generation(7));
        snapshot.put(&key, Some(plan("old").as_bytes()), Generation(6));
        let policy = snapshot.policy(&org, &id).expect("the plan");
        assert_eq!(policy.metadata.get("name").map(|v| v.0.as_ref()), Some("\"new\""));
        snapshot.put(&key, None, Generation(9));
        snapshot.put(&key, Some(plan("old").as_bytes()), Generation(8));
        assert!(snapshot.policy(&org, &id).is_none(), "a deleted plan stays deleted");
    }
}
