//! Tyk's JSON: policies, sessions (keys), and the merge shown as a session.
//!
//! Field names and their zero values are those of reference/tyk-gateway.md, 1.6 and 2.1: what is
//! zero is left out, and 0 or -1 become variants on the way in.

mod access;
mod limit;
mod policy;
mod session;

pub use access::{AccessRight, AllowedUrl, Endpoint, EndpointMethod, EndpointRate};
pub use limit::Limit;
pub(crate) use limit::period;
pub use policy::{Partitions, Policy};
pub use session::Session;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Invalid;
use crate::domain::id::ApiId;
use crate::domain::policy::{ApiAccess, MetaValue, Metadata, PostExpiry, PostExpiryAction};

/// Access rights by API id, as they are written. The key counts, not the entry's `api_id`.
pub type AccessRights = BTreeMap<String, AccessRight>;

fn access_to_domain(rights: &AccessRights) -> Result<BTreeMap<ApiId, ApiAccess>, Invalid> {
    let mut access = BTreeMap::new();
    for (id, right) in rights {
        let at = format!("access_rights.{id}");
        let api: ApiId = id.parse().map_err(|fault| Invalid::new(&at, fault))?;
        access.insert(api, right.to_domain().map_err(|fault| fault.within(&at))?);
    }
    Ok(access)
}

fn metadata_to_domain(members: &Map<String, Value>) -> Metadata {
    let one = |(name, value): (&String, &Value)| {
        (Arc::from(name.as_str()), MetaValue(value.to_string().into()))
    };
    members.iter().map(one).collect()
}

fn metadata_from_domain(metadata: &Metadata) -> Map<String, Value> {
    let one = |(name, value): (&Arc<str>, &MetaValue)| {
        let text = || Value::String(value.0.to_string());
        (name.to_string(), serde_json::from_str(&value.0).unwrap_or_else(|_bad| text()))
    };
    metadata.iter().map(one).collect()
}

fn post_expiry_to_domain(action: &str, grace_s: i64) -> Result<PostExpiry, Invalid> {
    let action = match action {
        "" => None,
        "delete" => Some(PostExpiryAction::Delete),
        "retain" => Some(PostExpiryAction::Retain),
        _ => return Err(Invalid::new("post_expiry_action", "must be one of retain, delete")),
    };
    Ok(PostExpiry { action, grace_s: limit::setting(grace_s) })
}

fn post_expiry_from_domain(post_expiry: PostExpiry) -> (String, i64) {
    let action = match post_expiry.action {
        None => "",
        Some(PostExpiryAction::Delete) => "delete",
        Some(PostExpiryAction::Retain) => "retain",
    };
    (action.to_owned(), limit::number(post_expiry.grace_s))
}

fn texts(list: &[String]) -> Vec<Arc<str>> {
    list.iter().map(|text| Arc::from(text.as_str())).collect()
}

fn strings(list: &[Arc<str>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Seconds that Tyk writes as a string; what is no number reads as "not known".
fn seconds(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn seconds_text(seconds: u64) -> String {
    if seconds == 0 { String::new() } else { seconds.to_string() }
}

/// Reads a text that some clients send as a number.
fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(serde::de::Error::custom("must be a string"))
        }
    }
}

fn unix_seconds(setting: i64) -> Option<u64> {
    u64::try_from(setting).ok().filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests;
