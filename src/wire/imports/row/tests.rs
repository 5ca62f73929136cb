use serde_json::json;

use super::*;
use crate::wire::imports::options::{Format, UsagePlan};

fn options() -> Options {
    let mut options = Options::parse(&[("format".into(), "ndjson".into())], None).unwrap();
    assert_eq!(options.format, Format::Ndjson);
    for (id, plan) in [("c7y23b", "3"), ("glvrsr", "4"), ("same", "3")] {
        let stands_for = UsagePlan { plan: Some(plan.into()), products: vec!["2".into()] };
        options.usage_plans.insert(id.into(), stands_for);
    }
    options
}

fn read(line: Value) -> Parsed {
    let Value::Object(members) = line else { panic!("{line}") };
    Parsed::read(members, &options(), &Pepper::new([7; 32]))
}

/// A good line with these members changed.
fn line(changes: Value) -> Value {
    let mut line = json!({
        "AppID": 41, "Alias": "k", "KeyID": "LEG-00fa-91c2-77aa", "PlanID": 3, "ProductIDs": [2]
    });
    for (name, value) in changes.as_object().unwrap() {
        line[name] = value.clone();
    }
    line
}

#[track_caller]
fn check(changes: Value, expect: &[(Code, &str)]) {
    let parsed = read(line(changes.clone()));
    let found = match &parsed.row {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|f| (f.code, f.field.as_str())).collect(),
    };
    assert_eq!(found, expect, "{changes}");
}

#[test]
fn every_fault_of_a_line_has_its_code() {
    use Code::*;
    check(json!({}), &[]);
    check(json!({ "KeyID": "ab" }), &[(KeyTooShort, "KeyID")]);
    check(json!({ "KeyID": "x".repeat(4_097) }), &[(KeyTooLong, "KeyID")]);
    check(json!({ "KeyID": " LEG-00fa" }), &[(KeyBadChars, "KeyID")]);
    check(json!({ "KeyID": "LEG-é" }), &[(KeyBadChars, "KeyID")]);
    check(json!({ "KeyID": "" }), &[(MissingField, "KeyID")]);
    check(json!({ "KeyHash": "x" }), &[(BadType, "KeyID")]);
    check(json!({ "KeyID": null, "KeyHash": "$2a$10$x" }), &[(HashNotIndexable, "KeyHash")]);
    check(
        json!({ "KeyID": null, "KeyHash": { "Algorithm": "bcrypt", "Value": "x" } }),
        &[(HashNotIndexable, "KeyHash")],
    );
    check(json!({ "KeyID": null, "KeyHash": {} }), &[(BadType, "KeyHash")]);
    check(json!({ "Alias": "" }), &[(MissingField, "Alias")]);
    check(json!({ "Alias": [] }), &[(BadType, "Alias")]);
    check(json!({ "AppID": null }), &[(MissingField, "AppID")]);
    check(json!({ "AppID": null, "App": "robot" }), &[(MissingField, "AppID")]);
    check(json!({ "AppID": {} }), &[(BadType, "AppID")]);
    check(json!({ "AppID": null, "App": "a", "User": [] }), &[(BadType, "User")]);
    check(json!({ "PlanID": null }), &[(MissingField, "PlanID")]);
    check(json!({ "ProductIDs": [] }), &[(MissingField, "ProductIDs")]);
    check(
        json!({ "AuthenticationMethod": "oAuth2.0" }),
        &[(AuthMethodUnsupported, "AuthenticationMethod")],
    );
    check(
        json!({ "AuthTokenType": "AUTH_TOKEN_STANDARD" }),
        &[(AuthMethodUnsupported, "AuthTokenType")],
    );
    check(json!({ "Expires": "soon" }), &[(BadType, "Expires")]);
    check(json!({ "Active": "maybe" }), &[(BadType, "Active")]);
    check(json!({ "QuotaUsed": -1 }), &[(BadType, "QuotaUsed")]);
    check(json!({ "MetaData": [] }), &[(BadType, "MetaData")]);
    check(
        json!({ "UsagePlanIds": "c7y23b,glvrsr", "PlanID": "" }),
        &[(SeveralPlans, "UsagePlanIds")],
    );
    check(json!({ "UsagePlanIds": ["nobodys"] }), &[(UnknownPlan, "UsagePlanIds")]);
    check(json!({ "UsagePlanIds": "c7y23b,same", "PlanID": "" }), &[]);
}

#[test]
fn the_token_is_nowhere_but_in_its_hash() {
    let key = "LEG-00fa-91c2-77aa";
    for (name, value) in [
        ("Alias", json!(format!("is {key}"))),
        ("Description", json!(key)),
        ("MetaData", json!({ "a": [{ "b": key }] })),
        ("MetaData", json!({ key: 1 })),
    ] {
        let parsed = read(line(json!({ name: value })));
        let faults = parsed.row.unwrap_err();
        assert_eq!((faults[0].code, faults[0].field.as_str()), (Code::TokenInText, name));
        assert!(!format!("{faults:?}").contains(key), "{faults:?}");
    }
    let parsed = read(line(json!({ "Line": key, "ApiKey": key })));
    assert_eq!((&parsed.external, parsed.strange), (&None, true));
    assert_eq!(parsed.mask.as_deref(), Some("LE…aa"));
    let kept = serde_json::to_string(&parsed.row.unwrap()).unwrap();
    assert!(!kept.contains(key), "{kept}");
    // Of a hash only a text that is the token as a whole can be told.
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let parsed =
        read(line(json!({ "KeyID": null, "KeyHash": hash, "Alias": "abc", "Line": "abc" })));
    assert_eq!((parsed.external, parsed.mask), (None, None));
    assert_eq!(parsed.row.unwrap_err()[0].code, Code::TokenInText);
}

#[test]
fn a_line_says_what_a_credential_becomes() {
    let parsed = read(json!({
        "Line": 7, "User": { "Email": "Dev@acme.test", "First": "Dev" }, "App": { "Name": "Acme" },
        "Alias": "k1", "KeyID": "LEG-1", "Plan": "robot-tier", "Products": "invoices,2",
        "Expires": "2027-01-01T00:00:00Z", "QuotaUsed": "420", "MetaData": { "tier": "gold" },
        "Active": "FALSE"
    }));
    let row = parsed.row.unwrap();
    let AppNamed::Of { name, user } = &row.app else { panic!("{row:?}") };
    assert_eq!((name.as_str(), user.email.as_str()), ("Acme", "dev@acme.test"));
    assert_eq!(user.new.as_ref().unwrap()["First"], "Dev");
    assert_eq!((row.plan.as_str(), row.products.join("+").as_str()), ("robot-tier", "invoices+2"));
    assert_eq!(row.expires, Expiry::At(1_798_761_600_000));
    assert_eq!((row.quota_used, row.active, row.weak), (420, Some(false), true));
    assert_eq!(parsed.external.as_deref(), Some("7"));
}
