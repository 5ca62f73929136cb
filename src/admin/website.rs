//! What belongs to the portal's website alone (portal-api, B4 and F1, T3): lists that lie with a
//! product are shown, those that nobody can fill here are empty, and the rest says that it is not
//! done here.

use std::marker::PhantomData;

use axum::Router;
use axum::routing::{any, get};
use http::StatusCode;
use serde_json::Value;

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::crud::{Operation, find};
use super::txn::Txn;
use super::{AdminState, handle};
use crate::wire::portal::product::Product;

/// The routes.
pub(super) fn routes() -> Router<AdminState> {
    let mut routes = Router::new()
        .route("/products/{id}/tags", get(handle::<Listed<Tags>>).fallback(not_here))
        .route("/products/{id}/spec-details", get(handle::<Listed<Specs>>).fallback(not_here))
        .route("/products/{id}/docs", get(handle::<Listed<Nothing>>).fallback(not_here))
        .route("/products/{id}/client_types", get(handle::<Listed<Nothing>>).fallback(not_here));
    for path in [
        "/products/{id}/tags/{item}",
        "/products/{id}/spec-details/{*item}",
        "/products/{id}/docs/{item}",
        "/products/{id}/client_types/{item}",
        "/products/{id}/logo",
        "/products/{id}/preview",
        "/products/{id}/oas",
        "/products/{id}/graphql/schema",
        "/products/{id}/api-details/{api}/oas",
        "/products/{id}/api-details/{api}/graphql/schema",
        "/pages",
        "/pages/{*page}",
        "/posts",
        "/posts/{*post}",
        "/themes",
        "/themes/{*theme}",
        "/menus",
        "/menus/{*menu}",
        "/oas",
        "/oas/{*document}",
    ] {
        routes = routes.route(path, any(not_here));
    }
    routes
}

async fn not_here() -> Refusal {
    Refusal::NotHere
}

/// A list that is a part of a product.
trait Part: Send + Sync + 'static {
    /// The member of the product that it is; `None`: nothing here fills it.
    const MEMBER: Option<&'static str>;
}

struct Tags;
struct Specs;
struct Nothing;

impl Part for Tags {
    const MEMBER: Option<&'static str> = Some("Tags");
}

impl Part for Specs {
    const MEMBER: Option<&'static str> = Some("SpecDetails");
}

impl Part for Nothing {
    const MEMBER: Option<&'static str> = None;
}

/// Shows one.
struct Listed<P>(PhantomData<P>);

impl<P: Part> Operation for Listed<P> {
    async fn run(_: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let product = find::<Product>(txn, call, StatusCode::NOT_FOUND).await?;
        let list = P::MEMBER.and_then(|name| product.members.get(name)).and_then(Value::as_array);
        let body = list.cloned().unwrap_or_default().into();
        Ok(Answer { status: StatusCode::OK, body, object: String::new() })
    }
}
