//! What was used of a credential's limits, and why it may be refused. Asking charges nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::Looked;
use crate::domain::counter::Window;
use crate::domain::credential::Credential;
use crate::domain::denial::Denial;
use crate::domain::grant::{Grant, Limit, LimitScope, LimitSpec};
use crate::domain::id::{ApiId, CredentialId};
use crate::domain::lease::Spread;
use crate::domain::limit::{Period, Quota, Rate};
use crate::domain::period::window_at;
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::enforce::session::Session;
use crate::enforce::{Days, Effective, Enforcer, Refusal};
use crate::store::{CounterStore, StoreError};

/// For how long a token's holder is told the same, in milliseconds.
const TOLD_MS: u64 = 1_000;
/// How often a window is looked for by the store's clock: only a clock that runs wild needs more.
const WINDOWS_TRIED_MAX: usize = 3;

/// What was used of a credential's limits.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Whose.
    pub credential: CredentialId,
    /// Why every request of it is refused, whatever its limits say.
    pub refused: Option<Denial>,
    /// When it stops working; `None`: never.
    pub expires: Option<UnixMs>,
    /// Its limits, each once.
    pub limits: Vec<LimitUsage>,
}

/// What was used of one limit.
#[derive(Clone, Debug)]
pub struct LimitUsage {
    /// Over what it is counted.
    pub scope: LimitScope,
    /// The APIs whose requests are charged to it, sorted.
    pub apis: Vec<ApiId>,
    /// How much.
    pub used: LimitUsed,
}

/// How much was used of one limit.
#[derive(Clone, Debug)]
pub enum LimitUsed {
    /// Of a rate.
    Rate {
        /// The rate.
        rate: Rate,
        /// Units that this gateway holds for the next moment; none of them is used.
        held: u64,
        /// Units that can be used now.
        remaining: u64,
        /// Milliseconds until all can be.
        reset_ms: u64,
    },
    /// Of a quota.
    Quota {
        /// Units per period.
        limit: u64,
        /// Where they are.
        spread: Spread,
        /// The period now; `None`: it begins with the first request.
        window: Option<Window>,
        /// The time by the clock that counts.
        now: UnixMs,
    },
}

impl Enforcer {
    /// What was used of the limits of a token's credential; `None`: nobody has the token.
    ///
    /// What other gateways have spent since they last called the store is `held` here: they report
    /// with their next call, at the latest some seconds after the last request.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn usage(&self, token: &TokenHash) -> Result<Option<Usage>, StoreError> {
        let Some((credential, resets)) = self.holder(token).await? else { return Ok(None) };
        let (id, expires) = (credential.id, credential.expires);
        let usage = |refused, limits| Usage { credential: id, refused, expires, limits };
        let Ok(Effective { grant, .. }) = self.effective(&credential, token) else {
            return Ok(Some(usage(Some(Denial::PoliciesUnusable), Vec::new())));
        };
        let over = expires.is_some_and(|expires| expires <= self.clock.unix());
        let refused =
            if over { Some(Denial::Expired) } else { grant.inactive.then_some(Denial::Inactive) };
        let mut limits = Vec::new();
        for (spec, apis) in specs(&grant) {
            let used = self.limit_used(spec, resets).await?;
            limits.push(LimitUsage { scope: spec.scope.clone(), apis, used });
        }
        Ok(Some(usage(refused, limits)))
    }

    /// The same for whoever holds the token. Asking is charged to nothing, and costs the store some
    /// reads a second at most, however often it is done.
    ///
    /// # Errors
    /// Why the token is refused, as every request with it is.
    pub async fn own_usage(
        &self,
        token: Option<&[u8]>,
        client: IpAddr,
    ) -> Result<Arc<Usage>, Refusal> {
        let session = self.find_by(token, client, |_| true).await?;
        let deadline_ms = u64::try_from(self.settings.store_timeout.as_millis());
        let timeout = StoreError::Timeout { deadline_ms: deadline_ms.unwrap_or(u64::MAX) };
        // Who waits for another one's question waits no longer than for one of its own.
        let told = tokio::time::timeout(self.settings.store_timeout, self.told(&session)).await;
        let usage = match told.unwrap_or(Err(timeout)) {
            Ok(usage) => usage.ok_or_else(|| Refusal::new(Denial::TokenUnknown))?,
            Err(error) => {
                self.store_failed(&error);
                let refusal = Refusal::new(Denial::StoreUnavailable);
                return Err(Refusal { retry_ms: Some(1_000), ..refusal });
            }
        };
        let over = usage.expires.is_some_and(|expires| expires <= self.clock.unix());
        match usage.refused.or(over.then_some(Denial::Expired)) {
            Some(denial) => {
                let credential = Some(usage.credential);
                Err(Refusal { credential, ..Refusal::new(denial) })
            }
            None => Ok(usage),
        }
    }

    /// What a session's holder is told: at most a second old, and asked for once for all who want
    /// to know.
    async fn told(&self, session: &Session) -> Result<Option<Arc<Usage>>, StoreError> {
        let mut told = session.told.lock().await;
        let now = self.clock.boot();
        if let Some((when, usage)) = &*told
            && now.since_ms(*when) < TOLD_MS
        {
            return Ok(Some(Arc::clone(usage)));
        }
        let usage = self.usage(&session.record.token).await?.map(Arc::new);
        *told = usage.clone().map(|usage| (now, usage));
        Ok(usage)
    }

    /// How many requests credentials sent by day, for as long as that is kept. What other gateways
    /// counted in the last minute is not in it yet.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn history(
        &self,
        credentials: &[CredentialId],
    ) -> Result<BTreeMap<CredentialId, Days>, StoreError> {
        self.history.read(self.catalog.store(), credentials, self.clock.unix()).await
    }

    /// A token's credential as the store has it, and how often its quotas were reset.
    pub(super) async fn holder(
        &self,
        token: &TokenHash,
    ) -> Result<Option<(Box<Credential>, u64)>, StoreError> {
        match self.catalog.look_up(token).await? {
            Looked::Up { credential, resets, .. } => Ok(Some((credential, resets))),
            Looked::Unknown => Ok(None),
            Looked::Damaged(fault) => {
                tracing::error!(?token, fault, "a credential's record cannot be read");
                Err(StoreError::Damaged { what: "a token record" })
            }
        }
    }

    /// What was used of one limit.
    pub(super) async fn limit_used(
        &self,
        spec: &LimitSpec,
        resets: u64,
    ) -> Result<LimitUsed, StoreError> {
        match &spec.limit {
            Limit::Rate(rate) => self.rate_used(spec, *rate).await,
            Limit::Quota(quota) => self.quota_used(spec, quota, resets).await,
        }
    }

    async fn rate_used(&self, spec: &LimitSpec, rate: Rate) -> Result<LimitUsed, StoreError> {
        let answer = self.catalog.store().rate_usage(&spec.key, rate).await?;
        let held = self.ledger.rate_units(&spec.key);
        let remaining = answer.free.saturating_add(held).min(rate.requests.get());
        Ok(LimitUsed::Rate { rate, held, remaining, reset_ms: answer.reset_ms })
    }

    async fn quota_used(
        &self,
        spec: &LimitSpec,
        quota: &Quota,
        resets: u64,
    ) -> Result<LimitUsed, StoreError> {
        let limit = quota.limit.get();
        let store = self.catalog.store();
        let mut now = self.clock.unix();
        let unused = |now| {
            let spread = Spread { remaining: limit, ..Spread::default() };
            LimitUsed::Quota { limit, spread, window: None, now }
        };
        let anchor = match quota.period {
            Period::Never | Period::Calendar(_) => UnixMs(0),
            Period::Every { .. } => match store.first_use(&spec.key.subject).await? {
                Some(first) => first,
                None => return Ok(unused(now)),
            },
        };
        for _ in 0..WINDOWS_TRIED_MAX {
            let window = window_at(&quota.period, anchor, spec.resets(resets), now);
            let usage = store.quota_usage(&spec.key, &window).await?;
            if !window.contains(usage.now) {
                now = usage.now;
                continue;
            }
            let own = self.ledger.quota_cell(&spec.key, &window);
            let counter = usage.counter.unwrap_or_default();
            let live = self.live.listed();
            // Of whom nobody has told may still spend what they hold.
            let is_live = |process| live.as_ref().is_none_or(|live| live.contains(&process));
            let spread = counter.spread(limit, own, is_live);
            return Ok(LimitUsed::Quota { limit, spread, window: Some(window), now: usage.now });
        }
        Err(StoreError::Damaged { what: "the clock" })
    }
}

/// Every limit of a grant once, with the APIs that are charged to it.
pub(super) fn specs(grant: &Grant) -> Vec<(&LimitSpec, Vec<ApiId>)> {
    let mut specs: Vec<(&LimitSpec, Vec<ApiId>)> = Vec::new();
    for (api, opened) in grant.apis() {
        let endpoints = opened.endpoints.iter().flat_map(|endpoint| &endpoint.limits);
        for spec in opened.limits.iter().chain(endpoints) {
            match specs.iter_mut().find(|(known, _)| known.key == spec.key) {
                Some((_, apis)) if apis.last() == Some(api) => {}
                Some((_, apis)) => apis.push(api.clone()),
                None => specs.push((spec, vec![api.clone()])),
            }
        }
    }
    specs
}
