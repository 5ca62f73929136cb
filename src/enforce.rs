//! Facts in, decision out. The hot path: one hash, one look-up, the rules, the charges; no await
//! and no allocation while units are in hand.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::domain::counter::ProcessId;
use crate::domain::decision;
use crate::domain::denial::Denial;
use crate::domain::grant::Defaults;
use crate::domain::id::CredentialId;
use crate::domain::merge::Mode;
use crate::domain::policy::{FailureMode, Metadata};
use crate::domain::reading::{LimitKind, Readings};
use crate::domain::token::{TOKEN_LEN_MAX, TOKEN_LEN_MIN};
use crate::metrics::Metrics;
use crate::store::{AnyStore, StoreError};

mod again;
mod carry;
mod check;
mod explain;
mod failures;
mod history;
mod in_flight;
mod ledger;
mod live;
mod refused;
mod session;
mod sessions;
mod slot;
mod sync;
mod usage;

pub use carry::Carried;
pub use explain::{Effective, Explanation};
use failures::Failures;
use history::History;
pub use history::{Counts, Days, HISTORY_DAYS};
use in_flight::InFlight;
pub use in_flight::Place;
use ledger::{Charged, Ledger};
use live::Live;
use session::{Granted, Session};
use sessions::{Found, Sessions};
pub use usage::{LimitUsage, LimitUsed, Usage};

/// How the enforcer is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whose merge rules hold.
    pub mode: Mode,
    /// What holds where a plan says nothing.
    pub defaults: Defaults,
    /// Credentials kept in memory.
    pub credentials_max: usize,
    /// Unknown tokens remembered.
    pub unknown_max: usize,
    /// Unknown tokens one address may send in a minute.
    pub failures_per_minute_max: u32,
    /// How long a request waits for the store.
    pub store_timeout: Duration,
    /// The 99th percentile of the way to the store and back, in milliseconds.
    pub round_trip_ms: u64,
}

/// What is known of a request when it is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What it asks for.
    pub request: decision::Request<'a>,
    /// The token, where there was one.
    pub token: Option<&'a [u8]>,
    /// Who sent it.
    pub client: IpAddr,
}

/// The word on one request.
#[derive(Debug)]
pub enum Decision {
    /// It may go upstream.
    Admit(Permit),
    /// It may not.
    Deny(Refusal),
}

/// The right to send one request upstream. Only a decision makes one.
#[derive(Debug)]
pub struct Permit {
    session: Arc<Session>,
    readings: Readings,
    shadowed: Option<Denial>,
    away: Option<FailureMode>,
    place: Option<Place>,
}

/// A refusal, and what the client may know beside it.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// Whose request it was, where that is known: for the log.
    pub credential: Option<CredentialId>,
    /// The limits, where they were looked at.
    pub readings: Readings,
    /// Milliseconds after which a retry can succeed, where that is known.
    pub retry_ms: Option<u64>,
}

impl Permit {
    /// Whose request it is.
    #[must_use]
    pub fn credential(&self) -> CredentialId {
        self.session.record.credential.id
    }

    /// The limits it was charged to.
    #[must_use]
    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// What it would have been refused for, had the plan or the API not said to let it through.
    #[must_use]
    pub fn shadowed(&self) -> Option<Denial> {
        self.shadowed
    }

    /// By which rule it was admitted without the store; `None`: it was charged as usual.
    #[must_use]
    pub fn away(&self) -> Option<FailureMode> {
        self.away
    }

    /// Its place among the requests in flight, where those are limited: to be kept until the
    /// answer has ended.
    pub fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The credential's metadata, for headers.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.session.outcome.as_ref().ok().map(|granted| &granted.merged.metadata)
    }

    /// App, user and consumer organisation, for headers.
    #[must_use]
    pub fn owner(&self) -> crate::domain::credential::Owner {
        self.session.record.credential.owner
    }
}

impl Refusal {
    /// A refusal of which nothing more is known.
    #[must_use]
    pub fn new(denial: Denial) -> Self {
        Self { denial, credential: None, readings: Readings::default(), retry_ms: None }
    }
}

/// Decides. Shared by all threads as an `Arc`.
#[derive(Debug)]
pub struct Enforcer {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    sessions: Arc<Sessions>,
    failures: Failures,
    history: History,
    ledger: Arc<Ledger>,
    live: Arc<Live>,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
    settings: Settings,
}

impl Enforcer {
    /// An enforcer with nothing in hand. `process` was never used before.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        process: ProcessId,
        settings: Settings,
    ) -> Self {
        let sessions = Arc::new(Sessions::new(settings.credentials_max, settings.unknown_max));
        let forget = Arc::clone(&sessions);
        catalog.on_change(move |what| forget.forget(what));
        let (live, in_flight) = (Arc::new(Live::default()), InFlight::default());
        let ledger = Arc::new(Ledger::new(
            Arc::clone(catalog.store()),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            (process, Arc::clone(&live)),
            &settings,
        ));
        let failures = Failures::new(settings.failures_per_minute_max);
        let history = History::new(&*clock);
        if matches!(**catalog.store(), AnyStore::Embedded(_)) {
            // It has one process at a time.
            live.set([process].into());
        }
        Self {
            catalog,
            clock,
            sessions,
            failures,
            history,
            ledger,
            live,
            in_flight,
            metrics,
            settings,
        }
    }

    /// Decides on one request, and charges it if it is admitted. A refused request costs nothing.
    pub async fn decide(&self, facts: &Facts<'_>) -> Decision {
        match self.find(facts).await {
            Ok(session) => {
                let decision = self.judge(&session, facts).await;
                session.tally.note(matches!(decision, Decision::Admit(_)), &self.history);
                decision
            }
            Err(refusal) => Decision::Deny(refusal),
        }
    }

    /// Tells a store that has lost writes what is remembered here. Call it about once a second, and
    /// whenever [`Self::until_store_lost`] returns.
    pub async fn keep_up(&self) {
        self.ledger.keep_up().await;
    }

    /// Returns when the store is found to have lost writes; may return without reason.
    pub async fn until_store_lost(&self) {
        self.catalog.store().until_lost().await;
    }

    /// Follows hints of other gateways, for as long as it is polled.
    pub async fn follow_hints(&self) {
        self.ledger.follow_hints().await;
    }

    /// Returns what is idle, publishes sizes and stores usage. Call it about once a second.
    pub async fn sweep(&self) {
        self.ledger.sweep().await;
        let (counters, held) = self.ledger.totals();
        self.metrics.sizes(self.sessions.len(), counters, held);
        self.metrics.in_flight(self.in_flight.sweep());
        self.metrics.debt(self.ledger.debt());
        self.history.sweep(self.catalog.store(), &*self.clock).await;
    }

    /// Lets plans that say so admit this gateway's share while the store is away, written down in
    /// `folder`. While an earlier process of the folder still runs they refuse. Without this they
    /// always do: an embedded store is only away when its disk fails, and then nothing can be
    /// written down before it is used.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn keep_shares(&self, folder: &Path) -> Result<(), StoreError> {
        self.ledger.keep_shares(folder)
    }

    /// Takes in which gateways are alive, as the store has listed them.
    pub fn see_live(&self, live: BTreeSet<ProcessId>) {
        self.live.set(live);
    }

    /// Returns all units in hand: after it the store knows exactly what was used.
    pub async fn close(&self) {
        self.ledger.release_all().await;
        self.history.flush(self.catalog.store(), self.clock.unix()).await;
    }

    /// Credentials that are refused because their policies cannot be applied, such as that their
    /// plan was deleted, and why: some of those used lately.
    #[must_use]
    pub fn refused(&self) -> Vec<(CredentialId, String)> {
        self.sessions.refused()
    }

    async fn find(&self, facts: &Facts<'_>) -> Result<Arc<Session>, Refusal> {
        self.find_by(facts.token, facts.client, |session| session.is_of(facts.request.api)).await
    }

    /// The session of a token, if it is known here and `fits`: one that does not looks unknown.
    async fn find_by(
        &self,
        token: Option<&[u8]>,
        client: IpAddr,
        fits: impl FnOnce(&Session) -> bool,
    ) -> Result<Arc<Session>, Refusal> {
        let token = token.ok_or_else(|| Refusal::new(Denial::TokenMissing))?;
        let plausible = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len());
        if !plausible {
            self.failures.note(client, self.clock.boot());
            return Err(Refusal::new(Denial::TokenUnknown));
        }
        let hash = self.catalog.pepper().hash(token);
        let blocked = || self.failures.blocked_ms(client, self.clock.boot());
        match self.sessions.find(&hash, self, blocked).await {
            Ok(Found::Session(session)) if fits(&session) && !session.has_retired(&*self.clock) => {
                Ok(session)
            }
            Ok(Found::Session(_) | Found::Unknown) => {
                self.failures.note(client, self.clock.boot());
                Err(Refusal::new(Denial::TokenUnknown))
            }
            Ok(Found::Blocked { retry_ms }) => {
                let refusal = Refusal::new(Denial::TooManyFailures);
                Err(Refusal { retry_ms: Some(retry_ms), ..refusal })
            }
            Err(error) => {
                self.store_failed(&error);
                Err(Refusal { retry_ms: Some(1_000), ..Refusal::new(Denial::StoreUnavailable) })
            }
        }
    }

    async fn judge(&self, session: &Arc<Session>, facts: &Facts<'_>) -> Decision {
        let credential = Some(session.record.credential.id);
        let deny = |denial| Decision::Deny(Refusal { credential, ..Refusal::new(denial) });
        let (granted, access) = match session.access(&facts.request, self.clock.unix()) {
            Ok(found) => found,
            Err(denial) => return deny(denial),
        };
        let shadow = granted.grant.shadow || facts.request.api.shadow;
        let Some((place, crowded)) = self.place(granted, shadow) else {
            // When one of them ends nobody knows: soon, mostly.
            let refusal = Refusal::new(Denial::InFlightExceeded);
            return Decision::Deny(Refusal { credential, retry_ms: Some(1_000), ..refusal });
        };
        let admit = |readings, over: Option<Denial>, away| {
            let (session, shadowed) = (Arc::clone(session), over.or(crowded));
            Decision::Admit(Permit { session, readings, shadowed, away, place })
        };
        let charges = granted.charges(&access);
        if charges.is_empty() || access.cost == 0 {
            return admit(Readings::default(), None, None);
        }
        let away = granted.grant.on_store_unavailable;
        match self.ledger.charge(charges, access.cost, away).await {
            Charged::Admitted(readings) => admit(readings, None, None),
            Charged::Locally(readings) => admit(readings, None, Some(FailureMode::Local)),
            Charged::Refused { kind, wait_ms, readings } => {
                let denial = match kind {
                    LimitKind::Rate => Denial::RateExceeded,
                    LimitKind::Quota => Denial::QuotaExceeded,
                };
                if shadow {
                    return admit(readings, Some(denial), None);
                }
                Decision::Deny(Refusal { denial, credential, readings, retry_ms: wait_ms })
            }
            Charged::Unknown(error) => {
                self.store_failed(&error);
                if shadow {
                    return admit(Readings::default(), Some(Denial::StoreUnavailable), None);
                }
                if away == FailureMode::Open {
                    return admit(Readings::default(), None, Some(FailureMode::Open));
                }
                let refusal = Refusal::new(Denial::StoreUnavailable);
                Decision::Deny(Refusal { credential, retry_ms: Some(1_000), ..refusal })
            }
        }
    }

    /// A place among the requests in flight, if they are limited; `None`: there is none. In shadow
    /// mode one is taken all the same, and the denial is noted.
    fn place(&self, granted: &Granted, shadow: bool) -> Option<(Option<Place>, Option<Denial>)> {
        let Some(places) = &granted.places else { return Some((None, None)) };
        match places.take(self.live.count()) {
            Some(place) => Some((Some(place), None)),
            None if shadow => Some((Some(places.take_anyway()), Some(Denial::InFlightExceeded))),
            None => None,
        }
    }

    fn store_failed(&self, error: &StoreError) {
        tracing::warn!(%error, transient = error.is_transient(), "the store gave no answer");
    }
}
