//! Members of bodies that carry secrets.
//!
//! Unknown members are kept and shown, and clients send whole templates to any path: a token in
//! them must not be kept with an object that has no use for it.

use serde_json::Value;

use super::fields::Members;

/// What such members are called, in lower case and without `_` and `-`: by the portal, in its
/// guides and its pages, and by others.
const NAMES: [&str; 28] = [
    "accesstoken",
    "apikey",
    "apitoken",
    "authorization",
    "clientsecret",
    "credential",
    "credentialkey",
    "credentialsecret",
    "customkey",
    "customkeyid",
    "dcrregistrationaccesstoken",
    "dcrresponse",
    "jwttoken",
    "key",
    "keyhash",
    "keyid",
    "keysecret",
    "keyvalue",
    "oauthclientsecret",
    "password",
    "passwordconfirmation",
    "passwordhash",
    "privatekey",
    "refreshtoken",
    "secret",
    "secretkey",
    "token",
    "xapikey",
];
/// Free text that plans and credentials take: what is in it goes to upstreams, whatever it is
/// called, and who writes it there wants that (portal-api, E10). The token itself may not be in it.
pub const METADATA: &str = "MetaData";

/// Takes members that carry secrets out of a body, however deep they lie and however they are
/// spelled. What the object itself takes, by exactly these names, stays as it is.
pub fn discard(body: &mut Members, takes: &[&str]) {
    body.retain(|name, _| takes.contains(&name.as_str()) || !is_secret(name));
    let others = body.iter_mut().filter(|(name, _)| !takes.contains(&name.as_str()));
    others.for_each(|(_, value)| inside(value));
}

fn inside(value: &mut Value) {
    match value {
        Value::Object(members) => discard(members, &[]),
        Value::Array(values) => values.iter_mut().for_each(inside),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a member of this name carries a secret.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let plain = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    let plain: String = plain.map(|c| c.to_ascii_lowercase()).collect();
    NAMES.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_wherever_they_lie_and_nothing_else_does() {
        let mut body = json!({
            "KeyID": "s", "key_id": "s", "CREDENTIAL-SECRET": "s", "Name": "robot",
            "Credentials": [{ "Credential": "s", "ID": 4 }, ["s2"]],
            "CredentialID": 7, "AuthTokenType": "x", "MetaData": { "token": "for upstreams" },
        });
        let body = body.as_object_mut().unwrap();
        let mut taken = body.clone();
        discard(body, &[]);
        let left = json!({
            "Name": "robot", "Credentials": [{ "ID": 4 }, ["s2"]], "CredentialID": 7,
            "AuthTokenType": "x", "MetaData": {},
        });
        assert_eq!(Value::from(body.clone()), left);
        discard(&mut taken, &["KeyID", METADATA]);
        assert_eq!(taken.remove("KeyID"), Some("s".into()));
        let metadata = taken.insert(METADATA.to_owned(), json!({}));
        assert_eq!(metadata, Some(json!({ "token": "for upstreams" })));
        assert_eq!(Value::from(taken), left);
    }
}
