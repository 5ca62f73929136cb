//! What would become of a request, and why. Asking charges nothing.

use crate::domain::credential::Credential;
use crate::domain::decision::{Request, authorize};
use crate::domain::denial::Denial;
use crate::domain::grant::Grant;
use crate::domain::id::{CredentialId, PolicyId};
use crate::domain::merge::{Contributors, MergeError, Merged};
use crate::domain::policy::Metadata;
use crate::domain::token::TokenHash;
use crate::enforce::{Enforcer, LimitUsage, LimitUsed};
use crate::store::StoreError;

/// What would become of a request, and why.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// Whose token it is, if it is anybody's.
    pub credential: Option<CredentialId>,
    /// Why it would be refused; `None`: it would be admitted, as far as its token and its limits
    /// say.
    pub denial: Option<Denial>,
    /// Whether it would be admitted although a limit is reached.
    pub shadow: bool,
    /// Why the credential's policies cannot be applied.
    pub fault: Option<String>,
    /// What it would cost, in units; 0 where it is refused before that is looked at.
    pub cost: u64,
    /// The policies that open the API, and those whose limits hold.
    pub by: Contributors,
    /// Policies of the credential that are gone and left out.
    pub skipped: Vec<PolicyId>,
    /// The limits it would be charged to, as they are now.
    pub limits: Vec<LimitUsage>,
    /// The metadata of the credential with that of its policies: what headers are made of.
    pub metadata: Metadata,
}

/// What a credential may do, with the policies behind it.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What its policies say.
    pub merged: Merged,
    /// What is made of it.
    pub grant: Grant,
}

impl Enforcer {
    /// What a credential may do, be it stored or not, by the policies that there are now.
    ///
    /// # Errors
    /// When they cannot be applied: every request of it is refused.
    pub fn effective(
        &self,
        credential: &Credential,
        token: &TokenHash,
    ) -> Result<Effective, MergeError> {
        let merged = self.catalog.snapshot().merged(credential, self.settings.mode)?;
        let grant = Grant::compile(credential, token, &merged, self.settings.defaults);
        Ok(Effective { merged, grant })
    }

    /// Decides as [`Self::decide`] does, by what the store says now, without charging anything.
    /// Requests in flight are not looked at.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn explain(
        &self,
        token: &TokenHash,
        request: &Request<'_>,
    ) -> Result<Explanation, StoreError> {
        let Some((credential, resets)) = self.holder(token).await? else {
            return Ok(denied(Denial::TokenUnknown));
        };
        let now = self.clock.unix();
        let retired = credential.retires.is_some_and(|retires| retires <= now);
        if retired || credential.org != request.api.org {
            return Ok(denied(Denial::TokenUnknown));
        }
        let known = Explanation { credential: Some(credential.id), ..Explanation::default() };
        let Effective { merged, grant } = match self.effective(&credential, token) {
            Ok(effective) => effective,
            Err(error) => {
                let (denial, fault) = (Some(Denial::PoliciesUnusable), Some(error.to_string()));
                return Ok(Explanation { denial, fault, ..known });
            }
        };
        let by = merged.apis.get(&request.api.id).map(|api| api.by.clone()).unwrap_or_default();
        let shadow = grant.shadow || request.api.shadow;
        let Merged { skipped, metadata, .. } = merged;
        let known = Explanation { by, shadow, skipped, metadata, ..known };
        let access = match authorize(&grant, credential.expires, request, now) {
            Ok(access) => access,
            Err(denial) => return Ok(Explanation { denial: Some(denial), shadow: false, ..known }),
        };
        let opened = access.opened();
        let endpoint = access.endpoint.and_then(|at| opened.endpoints.get(at));
        let specs = endpoint.map_or(&opened.limits, |endpoint| &endpoint.limits);
        let mut limits = Vec::with_capacity(specs.len());
        for spec in specs {
            let (scope, apis) = (spec.scope.clone(), vec![request.api.id.clone()]);
            limits.push(LimitUsage { scope, apis, used: self.limit_used(spec, resets).await? });
        }
        let cost = access.cost;
        let denial = limits.iter().find_map(|limit| reached(&limit.used, cost));
        Ok(Explanation { denial, cost, limits, ..known })
    }
}

fn denied(denial: Denial) -> Explanation {
    Explanation { denial: Some(denial), ..Explanation::default() }
}

fn reached(used: &LimitUsed, cost: u64) -> Option<Denial> {
    match used {
        LimitUsed::Rate { remaining, .. } => (*remaining < cost).then_some(Denial::RateExceeded),
        LimitUsed::Quota { spread, .. } => {
            (spread.remaining < cost).then_some(Denial::QuotaExceeded)
        }
    }
}
