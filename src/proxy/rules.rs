//! What an API changes in headers and says to pages of other origins: compiled when it changes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::domain::api::{Api, Cors, HeaderRules, Preflight};
use crate::domain::policy::Metadata;
use crate::proxy::head;
use crate::proxy::respond::Answer;

/// The longest value of metadata that goes into a header, in bytes.
const METADATA_LEN_MAX: usize = 1_024;

/// The rules of one API.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) request: Changes,
    pub(super) response: Changes,
    /// Members of the metadata, and the headers they go in.
    metadata: Vec<(Arc<str>, HeaderName)>,
    pub(super) cors: Option<Origins>,
}

/// Changes to headers.
#[derive(Debug)]
pub(super) struct Changes {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

/// What pages of other origins may do.
#[derive(Debug)]
pub(super) struct Origins {
    /// None is any.
    listed: Option<Vec<Arc<str>>>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    credentials: bool,
    max_age_s: u32,
}

impl Rules {
    pub(super) fn compile(api: &Api) -> Self {
        let exchange = &api.exchange;
        let metadata = exchange.metadata.iter();
        Self {
            request: Changes::compile(&exchange.request),
            response: Changes::compile(&exchange.response),
            metadata: metadata.filter_map(|(m, name)| Some((m.clone(), known(name)?))).collect(),
            cors: match &api.preflight {
                Preflight::Answer(cors) => Some(Origins::compile(cors)),
                Preflight::Authenticate | Preflight::Pass => None,
            },
        }
    }

    /// Takes off what a client says of itself in the headers of metadata, and says what is known.
    pub(super) fn introduce(&self, headers: &mut HeaderMap, metadata: Option<&Metadata>) {
        for (member, name) in &self.metadata {
            head::remove_alike(headers, name.as_str());
            if let Some(value) = metadata.and_then(|metadata| text(&metadata.get(member)?.0)) {
                headers.insert(name, value);
            }
        }
    }
}

impl Changes {
    fn compile(rules: &HeaderRules) -> Self {
        // The configuration has checked names and values.
        let pairs = |pairs: &[(Arc<str>, Arc<str>)]| {
            let pair = |(name, value): &(Arc<str>, Arc<str>)| {
                Some((known(name)?, HeaderValue::try_from(value.as_ref()).ok()?))
            };
            pairs.iter().filter_map(pair).collect()
        };
        Self {
            remove: rules.remove.iter().filter_map(known).collect(),
            set: pairs(&rules.set),
            add: pairs(&rules.add),
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

impl Origins {
    fn compile(cors: &Cors) -> Self {
        let list = |items: &[Arc<str>]| {
            let value = HeaderValue::try_from(items.join(", ")).ok();
            value.filter(|_| !items.is_empty())
        };
        let any = cors.origins.iter().any(|origin| origin.as_ref() == "*");
        Self {
            listed: (!any).then(|| cors.origins.clone()),
            methods: list(&cors.methods),
            headers: list(&cors.headers),
            exposed: list(&cors.exposed),
            credentials: cors.credentials,
            max_age_s: cors.max_age_s,
        }
    }

    /// The answer to a preflight. An origin that is not allowed gets no permission, and the browser
    /// refuses.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Answer {
        let mut headers = HeaderMap::with_capacity(8);
        if self.permit(&mut headers, request.get(ORIGIN)) {
            let lists = [
                (ACCESS_CONTROL_ALLOW_METHODS, &self.methods),
                (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
            ];
            for (name, value) in lists {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age_s));
        }
        (StatusCode::NO_CONTENT, headers, Bytes::new())
    }

    /// Says in an answer whether the page that asked may read it, whatever the upstream said.
    pub(super) fn tell(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        if self.permit(headers, Some(origin))
            && let Some(exposed) = &self.exposed
        {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn permit(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) -> bool {
        let allowed = match &self.listed {
            None => Some(HeaderValue::from_static("*")),
            Some(listed) => {
                // A cache must not give one origin's answer to another.
                headers.append(VARY, HeaderValue::from_static("Origin"));
                let mine = |origin: &&HeaderValue| {
                    listed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
                };
                origin.filter(mine).cloned()
            }
        };
        let Some(allowed) = allowed else { return false };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

/// Whether a request is a CORS preflight.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn known(name: &Arc<str>) -> Option<HeaderName> {
    HeaderName::try_from(name.as_ref()).ok()
}

/// A member of the metadata as a header: a text as it is, anything else as JSON.
fn text(json: &str) -> Option<HeaderValue> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let text = value.as_str().map_or_else(|| json.to_owned(), str::to_owned);
    let plain = text.len() <= METADATA_LEN_MAX && text.is_ascii();
    HeaderValue::try_from(text).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_goes_into_a_header_where_it_fits() {
        let long = format!("\"{}\"", "x".repeat(METADATA_LEN_MAX + 1));
        for (json, expect) in [
            ("\"gold\"", Some("gold")),
            ("7", Some("7")),
            ("true", Some("true")),
            ("{\"a\":[1]}", Some("{\"a\":[1]}")),
            ("\"a\\r\\nX-Admin: 1\"", None),
            ("\"\u{e4}\"", None),
            ("not json", None),
            (long.as_str(), None),
        ] {
            let value = text(json);
            assert_eq!(value.as_ref().map(|v| v.to_str().unwrap()), expect, "{json}");
        }
    }
}
