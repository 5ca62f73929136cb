//! What an API needs at run time beside its definition: made once per change, never per request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::domain::api::{Api, Auth};
use crate::domain::id::ApiId;
use crate::metrics::{ApiMetrics, Metrics};
use crate::proxy::upstream::Pool;

/// One API, ready to serve.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) api: Arc<Api>,
    pub(super) metrics: Arc<ApiMetrics>,
    /// One per target, in their order.
    pools: Vec<Arc<Pool>>,
    next: AtomicUsize,
    pub(super) version_header: Option<HeaderName>,
    pub(super) token_header: Option<HeaderName>,
}

/// All of them, and the connections to upstreams, which APIs share.
#[derive(Debug)]
pub(super) struct Upstreams {
    apis: ArcSwap<HashMap<ApiId, Arc<Published>>>,
    pools: Mutex<HashMap<Arc<str>, Weak<Pool>>>,
    idle_max: usize,
}

impl Published {
    /// The next target in turn, by its position.
    pub(super) fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The target of a turn: its position, where it is, and its base path.
    pub(super) fn target(&self, turn: usize) -> Option<(usize, &Arc<Pool>, &str)> {
        let at = turn.checked_rem(self.pools.len())?;
        let base = self.api.targets.get(at)?.base_path.as_ref();
        Some((at, self.pools.get(at)?, base))
    }

    pub(super) fn targets(&self) -> usize {
        self.pools.len()
    }
}

impl Upstreams {
    pub(super) fn new(idle_max: usize) -> Self {
        Self { apis: ArcSwap::default(), pools: Mutex::default(), idle_max }
    }

    /// What belongs to an API, made anew if the API changed.
    pub(super) fn of(&self, api: &Arc<Api>, metrics: &Metrics) -> Arc<Published> {
        let current = |published: &&Arc<Published>| Arc::ptr_eq(&published.api, api);
        if let Some(found) = self.apis.load().get(&api.id).filter(current) {
            return Arc::clone(found);
        }
        let mut pools = self.pools.lock();
        // Somebody may have been faster.
        if let Some(found) = self.apis.load().get(&api.id).filter(current) {
            return Arc::clone(found);
        }
        let published = Arc::new(self.publish(api, metrics, &mut pools));
        let mut all = HashMap::clone(&self.apis.load());
        all.insert(api.id.clone(), Arc::clone(&published));
        self.apis.store(Arc::new(all));
        pools.retain(|_, pool| 0 < pool.strong_count());
        published
    }

    /// Closes upstream connections that were unused for too long.
    pub(super) fn sweep(&self) {
        let pools: Vec<_> = self.pools.lock().values().filter_map(Weak::upgrade).collect();
        pools.iter().for_each(|pool| pool.sweep());
    }

    fn publish(
        &self,
        api: &Arc<Api>,
        metrics: &Metrics,
        pools: &mut HashMap<Arc<str>, Weak<Pool>>,
    ) -> Published {
        let mut pool = |authority: &Arc<str>| {
            if let Some(pool) = pools.get(authority).and_then(Weak::upgrade) {
                return pool;
            }
            let made = Arc::new(Pool::new(Arc::clone(authority), host(authority), self.idle_max));
            pools.insert(Arc::clone(authority), Arc::downgrade(&made));
            made
        };
        let header = |name: &Arc<str>| HeaderName::try_from(name.as_ref()).ok();
        Published {
            metrics: metrics.api(Some(&api.id)),
            pools: api.targets.iter().map(|target| pool(&target.authority)).collect(),
            next: AtomicUsize::new(0),
            version_header: api.versions.as_ref().and_then(|versions| header(&versions.header)),
            token_header: match &api.auth {
                Auth::Token(sources) => sources.header.as_ref().and_then(header),
                Auth::Keyless => None,
            },
            api: Arc::clone(api),
        }
    }
}

/// The `Host` of a target: without the port that goes without saying (RFC 9110, 7.2).
fn host(authority: &str) -> HeaderValue {
    let short = authority.strip_suffix(":80").unwrap_or(authority);
    // A target's authority is checked when it is configured.
    HeaderValue::try_from(short).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}
