//! The admin listener: how the developer portal brings in who may call what, and how much.
//!
//! `/portal-api` speaks the portal's own API (reference: Tyk Enterprise Developer Portal 1.14), as
//! far as importing credentials needs it. Every write is one transaction of the store, applied on
//! this gateway before it is answered, and leaves an entry in the audit log. `/v1` holds what the
//! portal's API has not.

mod answer;
mod attributes;
mod audiences;
mod audit;
mod auth;
mod call;
mod catalogues;
mod cid;
mod cluster;
mod consumption;
mod credentials;
mod crud;
mod draft;
mod explain;
mod imports;
mod keys;
pub mod ops;
mod organisations;
mod people;
mod policies;
mod preview;
mod provision;
mod repeats;
mod requests;
mod rosters;
mod rotation;
mod seed;
mod state;
mod steps;
mod tokens;
mod turns;
mod txn;
mod usage;
mod website;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::domain::seal::Reveal;
use crate::enforce::Enforcer;
use crate::wire::portal::catalogue::{Audience, Catalogue};
use crate::wire::portal::credential::Credential;
use crate::wire::portal::people::{App, Organisation, Team, User};
use crate::wire::portal::plan::Plan;
use crate::wire::portal::product::Product;
use answer::Refusal;
pub use auth::{AdminSecret, SECRET_LEN_MIN, WeakSecret};
use call::Call;
use consumption::{CredentialUsage, OwnerUsage};
use crud::{Create, Delete, Index, Operation, Resource, Show, Update, Writable};
use explain::Explain;
use imports::{CancelImport, ListImports, ShowImport};
use policies::ApiDetails;
use preview::Preview;
use provision::{Approve, Provision, Reject};
use requests::{AccessRequest, AppRequest, Issued, Related};
use rotation::Rotate;
pub use seed::seed;
use tokens::{CreateToken, ListTokens, RevokeToken};
use usage::{ListUsage, ResetIssued, ResetQuota, ShowUsage};

/// How often a transaction is tried when others change the same objects.
const ATTEMPTS_MAX: usize = 16;

/// What the admin listener works with. Cloning is shallow.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// Where everything is read and written.
    pub catalog: Arc<Catalog>,
    /// Tells the time of creations and changes.
    pub clock: Arc<dyn Clock>,
    /// Who may use it.
    pub secret: AdminSecret,
    /// Tells what was used of limits.
    pub enforcer: Arc<Enforcer>,
    /// How often secrets that are kept are shown.
    reveal: Reveal,
    /// Held by transactions that found others faster, so that they stop passing one another.
    turns: Arc<tokio::sync::Mutex<()>>,
}

impl AdminState {
    /// A listener's state.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        secret: AdminSecret,
        enforcer: Arc<Enforcer>,
    ) -> Self {
        Self { catalog, clock, secret, enforcer, reveal: Reveal::default(), turns: Arc::default() }
    }

    /// The same with another choice of how often secrets are shown.
    #[must_use]
    pub fn with_reveal(self, reveal: Reveal) -> Self {
        Self { reveal, ..self }
    }
}

/// The routes of the admin listener: `/portal-api/...` and `/v1/...`. Everything else is 404, in the
/// envelope.
pub fn router(state: AdminState) -> Router {
    let portal = Router::new()
        .merge(crud::<App>("/apps"))
        .merge(crud::<User>("/users"))
        .merge(attributes::routes())
        .merge(crud::<Organisation>("/organisations"))
        .merge(crud::<Team>("/organisations/{organisation}/teams"))
        .merge(crud::<Product>("/products"))
        .route("/products/{id}/api-details", get(handle::<ApiDetails>))
        .route("/products/{id}/api-details/{api}", get(handle::<ApiDetails>))
        .merge(crud::<Plan>("/plans"))
        .merge(crud::<Catalogue>("/catalogues"))
        .route(
            "/catalogues/{catalogue}/audiences",
            get(handle::<Index<Audience>>).post(handle::<Create<Audience>>),
        )
        .route("/catalogues/{catalogue}/audiences/{id}", one::<Audience>())
        .route("/apps/{id}/usage", get(handle::<OwnerUsage<App>>))
        .route("/users/{id}/usage", get(handle::<OwnerUsage<User>>))
        .route("/organisations/{id}/usage", get(handle::<OwnerUsage<Organisation>>))
        .route("/apps/{app}/custom_credentials/{id}/usage", get(handle::<CredentialUsage>))
        .route("/apps/{id}/provision", put(handle::<Provision>))
        .merge(crud::<Credential>("/apps/{app}/custom_credentials"))
        .route(
            "/apps/{app}/custom_credentials/{id}/rotate",
            post(handle::<Rotate<Credential>>).put(handle::<Rotate<Credential>>),
        )
        .route(
            "/apps/{app}/custom_credentials/{id}/reset_quota",
            post(handle::<ResetIssued>).put(handle::<ResetIssued>),
        )
        .merge(issued::<AccessRequest>("/access_requests"))
        .route("/access_requests/{id}/approve", put(handle::<Approve>))
        .route("/access_requests/{id}/reject", put(handle::<Reject>))
        .route("/access_requests/{id}/user", get(handle::<Related<User>>))
        .route("/access_requests/{id}/plan", get(handle::<Related<Plan>>))
        .route("/access_requests/{id}/client", get(handle::<Related<App>>))
        .route("/access_requests/{id}/catalogue", get(handle::<Related<Catalogue>>))
        .merge(issued::<AppRequest>("/apps/{app}/access-requests"))
        .merge(issued::<Issued>("/apps/{app}/access-requests/{request}/credentials"))
        .route(
            "/apps/{app}/access-requests/{request}/credentials/{id}/rotate",
            put(handle::<Rotate<Issued>>),
        )
        .merge(website::routes());
    let native = Router::new()
        .route("/admin/tokens", get(handle::<ListTokens>).post(handle::<CreateToken>))
        .route("/admin/tokens/{id}", delete(handle::<RevokeToken>))
        .route("/audit", get(audit::list))
        .route("/usage", get(handle::<ListUsage>))
        .route("/imports", get(handle::<ListImports>).post(imports::start))
        .route("/imports/{id}", get(handle::<ShowImport>).delete(handle::<CancelImport>))
        .route("/imports/{id}/errors", get(imports::errors))
        .route("/imports/{id}/results", get(imports::results))
        .route("/explain", post(handle::<Explain>))
        .route("/preview", post(handle::<Preview>))
        .route("/state/status", get(state::status))
        .route("/usage/credentials/{id}", get(handle::<ShowUsage>))
        .route("/usage/credentials/{id}/reset", post(handle::<ResetQuota>));
    Router::new()
        .nest("/portal-api", guarded(portal, &state))
        .nest("/v1", guarded(native, &state).layer(from_fn(answer::native)))
        .fallback(async || Refusal::NoPath)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .with_state(state)
}

/// Routes behind an admin token, with every write in the audit log.
fn guarded(routes: Router<AdminState>, state: &AdminState) -> Router<AdminState> {
    routes
        .fallback(async || Refusal::NoPath)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .layer(from_fn_with_state(state.clone(), audit::record))
        .layer(from_fn_with_state(state.clone(), cluster::wait))
        .layer(from_fn_with_state(state.clone(), auth::require))
}

/// The routes of objects that bodies make and change.
fn crud<R: Writable>(path: &str) -> Router<AdminState> {
    let all = get(handle::<Index<R>>).post(handle::<Create<R>>);
    let one = one::<R>().put(handle::<Update<R>>);
    Router::new().route(path, all).route(&format!("{path}/{{id}}"), one)
}

/// The routes of objects that are made by other means.
fn issued<R: Resource>(path: &str) -> Router<AdminState> {
    let all = get(handle::<Index<R>>);
    Router::new().route(path, all).route(&format!("{path}/{{id}}"), one::<R>())
}

fn one<R: Resource>() -> MethodRouter<AdminState> {
    get(handle::<Show<R>>).delete(handle::<Delete<R>>)
}

async fn handle<O: Operation>(State(state): State<AdminState>, call: Call) -> Response {
    match steps::transact::<O>(&state, &call).await {
        Ok(response) => response,
        Err(refusal) if O::ACTION => refusal.of_action().into_response(),
        Err(refusal) => refusal.into_response(),
    }
}
