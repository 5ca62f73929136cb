//! A request that goes upstream once more.

use crate::domain::decision;
use crate::domain::policy::FailureMode;
use crate::enforce::ledger::Charged;
use crate::enforce::{Enforcer, Permit};

impl Enforcer {
    /// Charges a request that was admitted once more, because it goes upstream once more. Says
    /// whether it may: what plan or API let through over the limit is.
    pub async fn charge_again(&self, permit: &Permit, request: &decision::Request<'_>) -> bool {
        let found = permit.session.access(request, self.clock.unix());
        let Ok((granted, access)) = found else { return false };
        let charges = granted.charges(&access);
        if charges.is_empty() || access.cost == 0 {
            return true;
        }
        let away = granted.grant.on_store_unavailable;
        let shadow = granted.grant.shadow || request.api.shadow;
        match self.ledger.charge(charges, access.cost, away).await {
            Charged::Admitted(_) | Charged::Locally(_) => true,
            Charged::Refused { .. } => shadow,
            Charged::Unknown(_) => shadow || away == FailureMode::Open,
        }
    }
}
