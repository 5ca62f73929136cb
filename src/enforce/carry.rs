//! Units that were used up before a credential came here.

use crate::catalog::Catalog;
use crate::domain::counter::ProcessId;
use crate::domain::grant::{Grant, Limit, LimitScope, LimitSpec};
use crate::domain::id::CredentialId;
use crate::domain::lease::{Cell, QuotaCall};
use crate::domain::limit::{Period, Quota};
use crate::domain::period::window_at;
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::enforce::Enforcer;
use crate::enforce::usage::specs;
use crate::store::{CounterStore, QuotaReserve, QuotaReserved, StoreError};

/// How often a window is looked for by the store's clock: only a clock that runs wild needs more.
const WINDOWS_TRIED_MAX: usize = 3;
/// With a credential's number, the process that used the units: one that never was. Gateways have
/// random numbers, so that none of them has this one.
const ELSEWHERE: u64 = 0x656c_7365_7768_0000;

/// What was used up elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Units of the quota.
    pub used: u64,
    /// When the period ends that they were used in, where that is known.
    pub renews: Option<UnixMs>,
}

impl Enforcer {
    /// Counts units of a credential's quota that were used up elsewhere, in the period that runs.
    ///
    /// `record` is the token's record. The units go into a cell of their own, whose totals only
    /// grow: telling them again changes nothing, telling of more adds the difference. A rolling
    /// period that has not begun begins now, or so that it ends when the one elsewhere does.
    ///
    /// # Errors
    /// When the store does not answer. The same call can be made again.
    pub async fn carry(
        &self,
        token: &TokenHash,
        record: &[u8],
        carried: Carried,
    ) -> Result<(), StoreError> {
        let (credential, resets) = Catalog::read_key(record)?;
        // Without usable policies there is no quota, and every request is refused.
        let snapshot = self.catalog.snapshot();
        let Ok(merged) = snapshot.merged(&credential, self.settings.mode) else { return Ok(()) };
        let grant = Grant::compile(&credential, token, &merged, self.settings.defaults);
        for (spec, _) in specs(&grant) {
            // An API's own quota is not what the credential used up.
            let own = matches!(spec.scope, LimitScope::Api(_) | LimitScope::Endpoint { .. });
            if let Limit::Quota(quota) = &spec.limit
                && !own
            {
                // A limit never has generation 0: see `Session::compile`.
                let generation = snapshot.generation.0.saturating_add(1);
                let terms = Terms { of: credential.id, resets: spec.resets(resets), generation };
                self.carry_into(spec, quota, &terms, carried).await?;
            }
        }
        Ok(())
    }

    async fn carry_into(
        &self,
        spec: &LimitSpec,
        quota: &Quota,
        terms: &Terms,
        carried: Carried,
    ) -> Result<(), StoreError> {
        let store = self.catalog.store();
        let mut now = self.clock.unix();
        let anchor = match &quota.period {
            Period::Never | Period::Calendar(_) => UnixMs(0),
            Period::Every { ms } => {
                let begun = carried.renews.and_then(|ends| ends.0.checked_sub(ms.get()));
                store.anchor_from(&spec.key.subject, now, begun.map(UnixMs)).await?
            }
        };
        let used = carried.used.max(1);
        let call = QuotaCall {
            process: ProcessId(ELSEWHERE ^ terms.of.0),
            cell: Cell { first_call: 1, last_call: used, local: carried.used, ..Cell::default() },
            limit: quota.limit.get(),
            generation: terms.generation,
            want: 0,
            need: 0,
            least: 0,
            live: 1,
        };
        for _ in 0..WINDOWS_TRIED_MAX {
            let window = window_at(&quota.period, anchor, terms.resets, now);
            let reserve = QuotaReserve { key: spec.key.clone(), window, call };
            match store.quota(&reserve).await? {
                QuotaReserved::Answer { .. } => return Ok(()),
                QuotaReserved::OtherWindow { now: theirs } => now = theirs,
                // It grants nothing until it knows what it had: the caller tries again.
                QuotaReserved::Learn => return Err(StoreError::io("written", "it is learning")),
            }
        }
        Err(StoreError::Damaged { what: "the clock" })
    }
}

struct Terms {
    of: CredentialId,
    resets: u64,
    generation: u64,
}
