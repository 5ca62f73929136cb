//! What an API needs at run time beside its definition: made once per change, never per request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

use crate::domain::api::{Api, Auth, Balance, Target};
use crate::domain::balance::{Member, Plan, hash};
use crate::domain::id::{ApiId, CredentialId};
use crate::domain::time::BootNs;
use crate::metrics::{ApiMetrics, Metrics};
use crate::proxy::peer::{Peer, Standing};
use crate::proxy::rules::Rules;
use crate::proxy::upstream::{Destination, Pool};

/// One API, ready to serve.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) api: Arc<Api>,
    pub(super) metrics: Arc<ApiMetrics>,
    pub(super) rules: Rules,
    pub(super) version_header: Option<HeaderName>,
    pub(super) token_header: Option<HeaderName>,
    balance_header: Option<HeaderName>,
    /// One per target, in their order.
    peers: Vec<Arc<Peer>>,
    /// The targets that may be picked now.
    plan: ArcSwap<Plan>,
    /// Held while the plan is made anew, and while it is decided who is left out.
    planning: Mutex<()>,
    turns: AtomicU64,
    /// Repeated requests under way.
    repeats: AtomicU32,
}

/// All of them, and the connections to upstreams, which APIs share.
#[derive(Debug)]
pub(super) struct Upstreams {
    apis: ArcSwap<Apis>,
    pools: Mutex<HashMap<Destination, Weak<Pool>>>,
    idle_max: usize,
}

/// Every request looks into it; the ids are chosen by whoever configures APIs.
pub(super) type Apis = HashMap<ApiId, Arc<Published>, RandomState>;

/// A repeated request under way.
#[derive(Debug)]
pub(super) struct Repeat<'a>(&'a AtomicU32);

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Published {
    /// What decides on the target of a request: its turn, or a hash of who it comes from.
    pub(super) fn choice(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        credential: Option<CredentialId>,
    ) -> u64 {
        let hashed = match &self.api.upstream.balance {
            Balance::Turn => None,
            Balance::Credential => credential.map(|id| hash(&id.0.to_be_bytes())),
            Balance::Client => Some(match client {
                IpAddr::V4(ip) => hash(&ip.octets()),
                IpAddr::V6(ip) => hash(&ip.octets()),
            }),
            Balance::Header(_) => {
                let name = self.balance_header.as_ref();
                name.and_then(|name| headers.get(name)).map(|value| hash(value.as_bytes()))
            }
        };
        hashed.unwrap_or_else(|| self.turn())
    }

    fn turn(&self) -> u64 {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        match self.api.upstream.balance {
            Balance::Turn => turn,
            // On a ring turns lie side by side: their hashes do not.
            Balance::Credential | Balance::Client | Balance::Header(_) => hash(&turn.to_be_bytes()),
        }
    }

    /// A target that was not tried yet: one that is available, or any.
    pub(super) fn pick(&self, choice: u64, tried: &[usize]) -> Option<(usize, &Arc<Peer>)> {
        let was_tried = |at: u16| tried.contains(&usize::from(at));
        let picked = self.plan.load().pick(choice, was_tried).map(usize::from);
        let any = || (0..self.peers.len()).find(|at| !tried.contains(at));
        let at = picked.or_else(any)?;
        Some((at, self.peers.get(at)?))
    }

    pub(super) fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// A request failed at a target: so many in a row, and it is left alone for a while.
    pub(super) fn failed(&self, peer: &Peer, now: BootNs) {
        let ejection = &self.api.upstream.ejection;
        if !peer.standing.failed(ejection) {
            return;
        }
        let _planning = self.planning.lock();
        let ejected = self.peers.iter().filter(|peer| peer.standing.is_ejected()).count();
        if peer.standing.is_ejected() || !ejection.allows(ejected, self.peers.len()) {
            return;
        }
        let span_ms = peer.standing.eject(ejection, now);
        peer.metrics.ejections.inc();
        self.replan();
        let upstream: &str = &peer.pool.authority;
        tracing::warn!(api = %self.api.id, upstream, span_ms, "a target is left alone");
    }

    /// A target's state changed.
    pub(super) fn changed(&self) {
        let _planning = self.planning.lock();
        self.replan();
    }

    /// Whoever calls holds `planning`.
    fn replan(&self) {
        let some = self.peers.iter().any(|peer| peer.standing.is_available());
        let targets = self.peers.iter().zip(&self.api.targets).zip(0_u16..);
        let members: Vec<Member<'_>> = targets
            // Where none is left all are tried: one may be back before it is known.
            .filter(|((peer, _), _)| !some || peer.standing.is_available())
            .map(|((_, target), at)| Member { at, weight: target.weight, name: &target.authority })
            .collect();
        let plan = match self.api.upstream.balance {
            Balance::Turn => Plan::turns(&members),
            Balance::Credential | Balance::Client | Balance::Header(_) => Plan::ring(&members),
        };
        self.plan.store(Arc::new(plan));
        for peer in &self.peers {
            peer.metrics.available.set(i64::from(peer.standing.is_available()));
        }
    }

    /// The right to repeat a request that a target may have seen, where not too many are repeated
    /// already.
    pub(super) fn repeat(&self) -> Option<Repeat<'_>> {
        let in_flight = self.peers.iter().map(|peer| peer.standing.in_flight());
        let in_flight = in_flight.fold(0, u32::saturating_add);
        let retry = &self.api.upstream.retry;
        let one_more = |n: u32| retry.allows(n, in_flight).then(|| n.saturating_add(1));
        self.repeats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Repeat(&self.repeats))
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
        let before = self.apis.load();
        if let Some(found) = before.get(&api.id).filter(current) {
            return Arc::clone(found);
        }
        let published = self.publish(api, before.get(&api.id), metrics, &mut pools);
        let mut all = Apis::clone(&before);
        all.insert(api.id.clone(), Arc::clone(&published));
        self.apis.store(Arc::new(all));
        published
    }

    /// Makes what belongs to these APIs, and forgets all others.
    pub(super) fn follow<'a>(&self, apis: impl Iterator<Item = &'a Arc<Api>>, metrics: &Metrics) {
        let mut pools = self.pools.lock();
        let before = self.apis.load_full();
        let mut all = Apis::with_capacity_and_hasher(before.len(), RandomState::default());
        for api in apis {
            let known = before.get(&api.id);
            let published = match known.filter(|known| Arc::ptr_eq(&known.api, api)) {
                Some(known) => Arc::clone(known),
                None => self.publish(api, known, metrics, &mut pools),
            };
            all.insert(api.id.clone(), published);
        }
        for (id, old) in before.iter() {
            let kept = all.get(id).map_or(0, |published: &Arc<Published>| published.peers.len());
            (kept..old.peers.len()).for_each(|at| metrics.forget_target(id, at));
        }
        self.apis.store(Arc::new(all));
        drop(before);
        pools.retain(|_, pool| 0 < pool.strong_count());
    }

    pub(super) fn all(&self) -> Arc<Apis> {
        self.apis.load_full()
    }

    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn publish(
        &self,
        api: &Arc<Api>,
        before: Option<&Arc<Published>>,
        metrics: &Metrics,
        pools: &mut HashMap<Destination, Weak<Pool>>,
    ) -> Arc<Published> {
        let mut pool = |target: &Target| {
            let to = Destination {
                authority: Arc::clone(&target.authority),
                tls: target.tls.then(|| api.upstream_tls.clone()),
                http: api.upstream_http,
            };
            if let Some(pool) = pools.get(&to).and_then(Weak::upgrade) {
                return pool;
            }
            let made = Arc::new(Pool::new(to.clone(), self.idle_max));
            pools.insert(to, Arc::downgrade(&made));
            made
        };
        let mut known = standings(api, before);
        let peers: Vec<Arc<Peer>> = api
            .targets
            .iter()
            .enumerate()
            .map(|(at, target)| {
                let name = (Arc::clone(&target.authority), Arc::clone(&target.base_path));
                let standing = known.get_mut(&name).and_then(Vec::pop).unwrap_or_default();
                let metrics = metrics.target(&api.id, at);
                Arc::new(Peer::new(api, target, pool(target), standing, metrics))
            })
            .collect();
        let header = |name: &Arc<str>| HeaderName::try_from(name.as_ref()).ok();
        let published = Published {
            metrics: metrics.api(Some(&api.id)),
            rules: Rules::compile(api),
            peers,
            plan: ArcSwap::from_pointee(Plan::turns(&[])),
            planning: Mutex::new(()),
            turns: AtomicU64::new(0),
            repeats: AtomicU32::new(0),
            version_header: api.versions.as_ref().and_then(|versions| header(&versions.header)),
            token_header: match &api.auth {
                Auth::Token(sources) => sources.header.as_ref().and_then(header),
                Auth::Keyless => None,
            },
            balance_header: match &api.upstream.balance {
                Balance::Header(name) => header(name),
                Balance::Turn | Balance::Credential | Balance::Client => None,
            },
            api: Arc::clone(api),
        };
        published.changed();
        Arc::new(published)
    }
}

/// What is known of an API's targets, to be taken over by name.
type Standings = HashMap<(Arc<str>, Arc<str>), Vec<Arc<Standing>>>;

fn standings(api: &Api, before: Option<&Arc<Published>>) -> Standings {
    let mut known = Standings::new();
    let Some(before) = before else { return known };
    for (peer, target) in before.peers.iter().zip(&before.api.targets) {
        if before.api.upstream.health != api.upstream.health {
            peer.standing.forget_checks();
        }
        let name = (Arc::clone(&target.authority), Arc::clone(&target.base_path));
        known.entry(name).or_default().push(Arc::clone(&peer.standing));
    }
    known
}
