//! `turnpike demo`: a gateway in a temporary folder, with an upstream that echoes, one API, one
//! product, one plan and one imported token, and the commands to try.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tower_service::Service;

use crate::app::{App, AppError, random_u64};
use crate::config::{AccessLog, Config, ConfigError, LogConfig, Overrides};
use crate::telemetry;

/// The token that the demo imports.
const TOKEN: &str = "demo-token-1";
/// Largest answer of the admin listener that the demo reads, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// A folder that goes when the demo ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost when a temporary folder stays behind.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the demo until it is stopped.
///
/// # Errors
/// Those of a gateway that cannot start.
pub fn run() -> Result<(), AppError> {
    let internal = |error: &dyn std::fmt::Display| AppError::Internal(error.to_string());
    let log = LogConfig { filter: "warn".into(), access: AccessLog::Off };
    let _log = telemetry::init(&log)?;
    let tag = random_u64().map_err(|error| internal(&error))?;
    let folder = Folder(std::env::temp_dir().join(format!("turnpike-demo-{tag:016x}")));
    let secret = format!("demo-secret-{tag:016x}");
    let upstream = echo().map_err(|error| internal(&error))?;
    let build = |proxy: &str, admin: &str| {
        let config = config(&folder.0, &secret, upstream, proxy, admin);
        App::build(config.map_err(|error| internal(&error))?)
    };
    let app = match build("127.0.0.1:8080", "127.0.0.1:9080") {
        // Somebody else listens there: any free ports will do.
        Err(AppError::Bind { .. }) => build("127.0.0.1:0", "127.0.0.1:0")?,
        other => other?,
    };
    set_up(crate::admin::router(app.admin.clone()), &secret)?;
    tell(&app, &secret);
    // Nobody can take a demo over: its folder is its own.
    let _ended = app.run(|| ());
    drop(folder);
    Ok(())
}

fn config(
    folder: &Path,
    secret: &str,
    upstream: SocketAddr,
    proxy: &str,
    admin: &str,
) -> Result<Config, ConfigError> {
    let text = format!(
        "[proxy]\nlisten = [\"{proxy}\"]\ndrain_s = 1\n\
         [admin]\nlisten = \"{admin}\"\nsecret = \"{secret}\"\n\
         [log]\naccess = \"off\"\n\
         [[apis]]\nid = \"demo\"\nlisten_path = \"/demo/\"\ntargets = [\"http://{upstream}\"]\n\
         [[apis]]\nid = \"other\"\nlisten_path = \"/other/\"\ntargets = [\"http://{upstream}\"]\n"
    );
    Config::parse(&text, folder, &Overrides::default())
}

/// Makes product, plan, app and credential through the admin listener's own router, as a portal
/// would.
fn set_up(mut admin: Router, secret: &str) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| AppError::Internal(error.to_string()))?;
    let mut post = |path: &str, body: Value| -> Result<u64, AppError> {
        let request = Request::post(format!("/portal-api{path}"))
            .header(header::AUTHORIZATION, secret)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .map_err(|error| AppError::Internal(error.to_string()))?;
        runtime.block_on(async {
            let Ok(answer) = admin.call(request).await;
            let status = answer.status();
            let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_MAX).await;
            let text = bytes.map_err(|error| AppError::Internal(error.to_string()))?;
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            let id = value.get("ID").and_then(Value::as_u64).filter(|_| status.is_success());
            id.ok_or_else(|| AppError::Internal(format!("{path}: {status}: {value}")))
        })
    };
    let product = post(
        "/products",
        json!({"Name": "demo product", "ProviderID": 1, "IsDocumentationOnly": false,
               "APIDetails": [{"APIID": "demo"}]}),
    )?;
    let plan = post(
        "/plans",
        json!({"Name": "demo plan", "ProviderID": 1, "RateLimit": 5, "Per": 10,
               "Quota": 20, "QuotaRenewalRate": 3600}),
    )?;
    let app = post("/apps", json!({"Name": "demo app", "UserID": 1}))?;
    post(
        &format!("/apps/{app}/custom_credentials"),
        json!({"Alias": "demo credential", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
               "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
               "KeyID": TOKEN, "PlanID": plan, "ProductIDs": [product]}),
    )?;
    Ok(())
}

fn tell(app: &App, secret: &str) {
    let proxy = app.bound().proxy.first().map_or_else(String::new, ToString::to_string);
    let admin = app.bound().admin;
    let text = format!(
        "\
Turnpike demo. The plan admits 5 requests in 10 seconds and 20 in an hour.

A request with the imported token (the sixth within 10 s is refused):
  curl -i -H 'Authorization: Bearer {TOKEN}' http://{proxy}/demo/hello
  curl -i -H 'X-API-Key: {TOKEN}' http://{proxy}/demo/hello

Refusals: no token, an unknown token, an API outside the product:
  curl -i http://{proxy}/demo/hello
  curl -i -H 'X-API-Key: nobody' http://{proxy}/demo/hello
  curl -i -H 'X-API-Key: {TOKEN}' http://{proxy}/other/hello

The portal's side:
  curl -s -H 'Authorization: {secret}' http://{admin}/portal-api/apps
  curl -s -H 'Authorization: {secret}' http://{admin}/portal-api/plans

Metrics:
  curl -s http://{admin}/metrics

Ctrl-C ends it and removes its folder.
"
    );
    let mut out = std::io::stdout().lock();
    // Who started us may not care to read it.
    let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// An upstream that answers with what it was asked.
fn echo() -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("echo".into()).spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(serving);
            }
        });
    })?;
    Ok(address)
}

async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), Value::String(String::from_utf8_lossy(value.as_bytes()).into()))
        })
        .collect();
    let text = json!({"method": head.method.as_str(), "path": head.uri.path(),
                      "headers": headers, "body_bytes": length});
    let mut answer = http::Response::new(Full::new(Bytes::from(format!("{text:#}\n"))));
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}
