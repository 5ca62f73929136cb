//! Opening the store and what is in it; or, while a shared store is away, starting from the copy
//! of it that this gateway keeps.

use std::sync::Arc;
use std::time::Duration;

use crate::app::{AppError, PepperError, pepper};
use crate::catalog::{Catalog, Place};
use crate::clock::Clock;
use crate::config::{Config, StoreConfig, StoreKind};
use crate::domain::token::Pepper;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::fallback::Fallback;
#[cfg(feature = "redis")]
use crate::store::redis::{RedisFault, RedisStore};
use crate::store::{AnyStore, StoreError};

/// How long a store that is away is waited for where no copy of it is kept, in milliseconds, and how
/// often it is tried.
const PATIENCE_MS: u64 = 5_000;
const PAUSE: Duration = Duration::from_millis(100);

/// A copy that can be started from.
struct Known {
    pepper: Pepper,
    place: Place,
    copy: Arc<Fallback>,
}

/// Opens the store of a configuration. One that is away is waited for a little, or what starts
/// together with its store would fail whenever it is the faster one.
pub(super) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<Catalog>, AppError> {
    let (began, mut told) = (clock.boot(), false);
    loop {
        match open_now(config, Arc::clone(&clock)).await {
            Err(error)
                if may_come(config, &error) && clock.boot().since_ms(began) < PATIENCE_MS =>
            {
                if !std::mem::replace(&mut told, true) {
                    let error = crate::telemetry::chain(&error);
                    tracing::warn!(error, "the store is away: trying again for {PATIENCE_MS} ms");
                }
            }
            opened => return opened,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open_now(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<Catalog>, AppError> {
    let source = pepper_source(&config.store);
    let known = known(config, &source)?;
    let store = Arc::new(connect(&config.store, Arc::clone(&clock), known.is_some()).await?);
    let copy = known.as_ref().map(|known| Arc::clone(&known.copy));
    let loaded = load(config, &store, copy, clock.as_ref()).await;
    match (loaded, known) {
        (Err(error), Some(Known { pepper, place, copy })) if is_away(&error) => {
            tracing::warn!(
                error = crate::telemetry::chain(&error),
                "the store is away: starting from the copy of it"
            );
            let apis = config.shared_apis();
            Ok(Arc::new(Catalog::recall(store, pepper, apis, (place, copy))?))
        }
        (loaded, _) => loaded,
    }
}

/// What the store says, and keeps a copy of it where it is shared.
async fn load(
    config: &Config,
    store: &Arc<AnyStore>,
    copy: Option<Arc<Fallback>>,
    clock: &dyn Clock,
) -> Result<Arc<Catalog>, AppError> {
    let pepper = pepper::load(store, &pepper_source(&config.store)).await?;
    let (place, was_known) = (place(config, &pepper), copy.is_some());
    let catalog = Catalog::load(Arc::clone(store), pepper, config.shared_apis()).await?;
    if let Some(place) = place {
        let copy = match copy {
            Some(copy) => Some(copy),
            None => place.open()?,
        };
        catalog.keep(place, copy).await?;
    }
    let catalog = Arc::new(catalog);
    if crate::admin::seed(&catalog, clock).await? && was_known {
        tell_of_loss();
    }
    Ok(catalog)
}

/// Gives a store that may have lost all it had what it cannot be without: the pepper that its tokens are
/// hashed with, and what a fresh one holds.
pub(super) async fn refill(
    config: &StoreConfig,
    catalog: &Catalog,
    clock: &dyn Clock,
) -> Result<(), AppError> {
    pepper::put_back(catalog.store(), &pepper_source(config), catalog.pepper()).await?;
    if crate::admin::seed(catalog, clock).await? {
        tell_of_loss();
    }
    Ok(())
}

fn tell_of_loss() {
    tracing::error!("the store has lost its records: tokens are unknown until written again");
}

/// The copy that an earlier start has left, if it is one of this store.
fn known(config: &Config, source: &pepper::Source<'_>) -> Result<Option<Known>, AppError> {
    if source.folder.is_none() {
        return Ok(None);
    }
    let Some(pepper) = pepper::recall(source)? else { return Ok(None) };
    let Some(place) = place(config, &pepper) else { return Ok(None) };
    let Some(copy) = place.open()? else { return Ok(None) };
    let stands = copy.stands_for(&place.origin)?;
    Ok(stands.map(|_| Known { pepper, place, copy }))
}

fn place(config: &Config, pepper: &Pepper) -> Option<Place> {
    match &config.store.kind {
        StoreKind::Embedded => None,
        #[cfg(feature = "redis")]
        StoreKind::Redis(options) => Some(Place {
            folder: config.store.path.clone(),
            origin: format!("{} {:08x}", options.prefix, pepper.id()),
            tokens_max: config.auth.credentials_max,
        }),
    }
}

fn pepper_source(config: &StoreConfig) -> pepper::Source<'_> {
    pepper::Source { file: config.pepper_file.as_deref(), folder: config.state_folder() }
}

/// Whether a start that failed may succeed a moment later: a server is away, and nothing is wrong
/// that only a person can change.
fn may_come(config: &Config, error: &AppError) -> bool {
    match &config.store.kind {
        StoreKind::Embedded => false,
        #[cfg(feature = "redis")]
        StoreKind::Redis(_) => is_away(error) && !is_lasting(error),
    }
}

#[cfg(feature = "redis")]
fn is_lasting(error: &AppError) -> bool {
    matches!(error, AppError::Store(error) if RedisFault::is_lasting(error))
}

pub(super) fn is_away(error: &AppError) -> bool {
    match error {
        AppError::Store(error) | AppError::Pepper(PepperError::Store(error)) => {
            error.is_transient()
        }
        AppError::Pepper(_)
        | AppError::Bind { .. }
        | AppError::Log(_)
        | AppError::Handover(_)
        | AppError::Internal(_) => false,
    }
}

/// `can_wait`: for a server that is away, since there is a copy to start from.
async fn connect(
    config: &StoreConfig,
    clock: Arc<dyn Clock>,
    can_wait: bool,
) -> Result<AnyStore, StoreError> {
    match &config.kind {
        StoreKind::Embedded => {
            let options =
                EmbeddedOptions { fsync_ms: config.fsync_ms, ..EmbeddedOptions::default() };
            EmbeddedStore::open(&config.path, options, clock).map(AnyStore::Embedded)
        }
        #[cfg(feature = "redis")]
        StoreKind::Redis(options) => {
            let options = options.clone();
            let connected = match can_wait {
                true => RedisStore::connect_in_time(options, clock).await,
                false => RedisStore::connect(options, clock).await,
            };
            connected.map(AnyStore::Redis)
        }
    }
}
