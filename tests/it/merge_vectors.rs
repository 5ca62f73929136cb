//! `tests/vectors/policy-merge.json`: its own `conventions` say how to read it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use turnpike::domain::credential::PolicyKind;
use turnpike::domain::id::{CredentialId, OrgId, PolicyId};
use turnpike::domain::merge::{Found, Mode, merge, merge_endpoints, raise_rate};
use turnpike::domain::policy::Policy;
use turnpike::wire::tyk;

/// How many vectors there are; fewer means that some did not run.
const VECTORS: usize = 91;

/// Stands for the empty id or organisation of a vector, which our types do not allow.
const NOBODY: &str = "none";

/// Vectors whose result differs by our rules, and why.
const DEPARTURES: &[(&str, &str)] = &[
    // What is gone closes: only a missing product is skipped, and these lists do not say.
    ("MultiNonPart", "a missing policy refuses"),
    ("all of several policies missing", "a missing policy refuses, and is named"),
    ("missing policy first: stale key limits are not cleared", "a missing policy refuses"),
    (
        "missing policy first: ACL-only policy inherits the stale key limits",
        "a missing policy refuses",
    ),
    (
        "same two policies behind a missing one: API b inherits the stale key rate",
        "a missing policy refuses",
    ),
    ("same two policies before a missing one: cleared correctly", "a missing policy refuses"),
    ("missing + active policy ignores key is_inactive", "a missing policy refuses"),
    (
        "same policy id in two orgs: policy of org1 deleted",
        "another organisation's id is named as such",
    ),
    // A key's own switch counts.
    ("InactiveWithSession", "a key's own is_inactive counts"),
    // Order decides nothing.
    (
        "partitioned, monolithic, per_api: the mixed-policy check is bypassed",
        "mixing is refused in any order",
    ),
    ("per_api reversed order gives other URLs", "per_api policies unite versions and URLs"),
    (
        "per_api: allowed_urls and versions are replaced by the later policy",
        "per_api policies unite versions and URLs",
    ),
    (
        "combined endpoint limits, two APIs",
        "of policies with equal limits the least id names the counter, not the last",
    ),
    ("last_updated is the greatest string", "times compare as numbers"),
    // Adding a policy takes nothing away; unset is not unlimited.
    (
        "one policy without allowed_urls + one with: the list applies",
        "no list is every URL, and wins",
    ),
    (
        "endpoint path with a colon disappears when two policies are merged",
        "paths with a colon stay",
    ),
    ("RatePart with unlimited", "a rate of -1 is unlimited, with or without a window"),
    (
        "per_api: missing rate beats a finite rate (unlimited)",
        "an unset rate does not win, and a quota keeps its own period",
    ),
    // A counter is named after the limit that it counts for.
    (
        "monolithic + per_api on other API is accepted",
        "one shared limit beside an API's own: it counts on the credential",
    ),
    ("per_api policy without any limits: both APIs", "without a limit there is no counter to name"),
    (
        "per_api policy loses an API: key loses it too",
        "without a limit there is no counter to name",
    ),
];

#[test]
fn every_vector_comes_out_as_tyk_has_it() {
    let mut ran = 0;
    for vector in vectors() {
        let got = run(&vector, Mode::Tyk);
        check_expected(&vector, &got);
        if let Some(derived) = vector.get("derived") {
            assert_eq!(got, normal(derived, &vector), "derived of {}", name(&vector));
        }
        ran += 1;
    }
    assert_eq!(ran, VECTORS);
}

#[test]
fn our_results_differ_from_tyks_only_where_the_table_says() {
    let mut differing = BTreeMap::new();
    for vector in vectors() {
        let (ours, theirs) = (run(&vector, Mode::Ours), run(&vector, Mode::Tyk));
        if in_order(&ours) != in_order(&theirs) {
            differing.insert(name(&vector).to_owned(), format!("ours {ours}\n theirs {theirs}"));
        }
    }
    let table: Vec<&str> = DEPARTURES.iter().map(|(name, _)| *name).collect();
    let untold: Vec<_> =
        differing.iter().filter(|(name, _)| !table.contains(&name.as_str())).collect();
    assert!(untold.is_empty(), "not in the table: {untold:#?}");
    let same: Vec<_> = table.iter().filter(|name| !differing.contains_key(**name)).collect();
    assert!(same.is_empty(), "in the table, but equal: {same:#?}");
}

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../vectors/policy-merge.json")).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn name(vector: &Value) -> &str {
    vector["name"].as_str().unwrap()
}

/// The result in the shape of `derived`: `{"session": ..}`, `{"error": ..}`, `{"endpoints": ..}`.
fn run(vector: &Value, mode: Mode) -> Value {
    match vector["function"].as_str().unwrap() {
        "apply" => apply(vector, mode),
        "apply_rate_limits" => {
            let limits = |at: &Value| {
                serde_json::from_value::<tyk::Limit>(at.clone()).unwrap().to_domain().unwrap()
            };
            let policy = limits(vector["policies"].as_object().unwrap().values().next().unwrap());
            let result = |at: &Value| {
                let mut current = limits(at);
                raise_rate(&mut current, &policy, mode);
                serde_json::to_value(tyk::Limit::from(&current)).unwrap()
            };
            json!({"api_limit": result(&vector["api_limit_in"]), "session": result(&vector["session_in"])})
        }
        "merge_endpoints" => {
            let read = |at: &Value| {
                let list: Vec<tyk::Endpoint> = serde_json::from_value(at.clone()).unwrap();
                tyk::Endpoint::to_domain(&list).unwrap()
            };
            let (policy, current) =
                (read(&vector["policy_endpoints"]), read(&vector["current_endpoints"]));
            let merged = tyk::Endpoint::from_domain(&merge_endpoints(&policy, &current, mode));
            json!({"endpoints": merged})
        }
        other => panic!("unknown function {other}"),
    }
}

fn apply(vector: &Value, mode: Mode) -> Value {
    let session: tyk::Session = serde_json::from_value(vector["session_in"].clone()).unwrap();
    let nobody: OrgId = NOBODY.parse().unwrap();
    let api_org: Option<OrgId> = vector["api_org_id"].as_str().map(org);
    let in_org =
        if session.org_id.is_empty() { api_org.clone() } else { Some(org(&session.org_id)) };
    let credential = session.to_domain(CredentialId(1), &nobody).unwrap();
    let scoped: Vec<Policy> =
        vector["policy_list"].as_array().into_iter().flatten().map(policy).collect();
    let by_key: BTreeMap<String, Policy> = vector["policies"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), policy(value)))
        .collect();
    let ids: Vec<PolicyId> = match vector["custom_policy_order"].as_array() {
        Some(order) => order.iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect(),
        None => credential.policies.iter().map(|one| one.id.clone()).collect(),
    };
    let find = |id: &'_ PolicyId| {
        let in_list = || scoped.iter().filter(|policy| policy.id == *id);
        let own = in_list().find(|policy| Some(&policy.org) == in_org.as_ref());
        own.or_else(|| by_key.get(id.as_str())).ok_or_else(|| in_list().next().is_some())
    };
    let found: Vec<Found<'_>> = ids
        .iter()
        .map(|id| match find(id) {
            Ok(policy) => Found::Policy(policy),
            Err(true) => Found::OtherOrg { id },
            Err(false) => Found::Missing { id, kind: PolicyKind::Any },
        })
        .collect();
    match merge(&credential, &found, api_org.as_ref(), mode) {
        Err(error) => json!({"error": error.to_string()}),
        Ok(merged) => normal(&json!({"session": session.merged(&merged)}), vector),
    }
}

fn org(text: &str) -> OrgId {
    if text.is_empty() { NOBODY } else { text }.parse().unwrap()
}

fn policy(value: &Value) -> Policy {
    let mut shape: tyk::Policy = serde_json::from_value(value.clone()).unwrap();
    if shape.id.is_empty() {
        NOBODY.clone_into(&mut shape.id);
    }
    let policy = shape.to_domain(&NOBODY.parse().unwrap()).unwrap();
    // What is written for a policy reads back as the same policy.
    let written = serde_json::to_value(tyk::Policy::from(&policy)).unwrap();
    let again: tyk::Policy = serde_json::from_value(written).unwrap();
    assert_eq!(again.to_domain(&NOBODY.parse().unwrap()).unwrap(), policy);
    policy
}

/// As `derived` is written: without zeros, references, organisation and placeholders.
fn normal(result: &Value, _vector: &Value) -> Value {
    let mut result = without_zeros(result);
    let Some(session) = result.get_mut("session").and_then(Value::as_object_mut) else {
        return result;
    };
    for member in ["apply_policies", "apply_policy_id", "org_id"] {
        session.remove(member);
    }
    if let Some(tags) = session.get_mut("tags") {
        sort(tags);
    }
    let rights = session.get_mut("access_rights").and_then(Value::as_object_mut);
    for right in rights.into_iter().flatten().map(|(_, right)| right.as_object_mut().unwrap()) {
        if let Some(endpoints) = right.get_mut("endpoints") {
            sort(endpoints);
        }
        right.retain(|key, value| key != "allowance_scope" || value != NOBODY);
    }
    result
}

/// Lists whose order is presentation, in one order.
fn in_order(result: &Value) -> Value {
    match result {
        Value::Array(list) => {
            let mut list = Value::Array(list.iter().map(in_order).collect());
            sort(&mut list);
            list
        }
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), in_order(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => result.clone(),
    }
}

fn sort(list: &mut Value) {
    list.as_array_mut().unwrap().sort_by_key(|item| {
        item.get("path").or_else(|| item.get("url")).unwrap_or(item).to_string()
    });
}

fn without_zeros(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| (key.clone(), without_zeros(value)));
            // Every API that is granted is a fact, even if nothing is said of it.
            let granted: Option<Map<String, Value>> =
                map.get("access_rights").and_then(Value::as_object).cloned();
            let mut kept: Map<String, Value> =
                members.filter(|(_, value)| !is_zero(value)).collect();
            if let Some(granted) = granted.filter(|granted| !granted.is_empty()) {
                let rights = granted.iter().map(|(api, right)| (api.clone(), without_zeros(right)));
                kept.insert("access_rights".to_owned(), rights.collect());
            }
            Value::Object(kept)
        }
        Value::Array(list) => list.iter().map(without_zeros).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn check_expected(vector: &Value, got: &Value) {
    let name = name(vector);
    let expected = vector["expected"].as_object().unwrap();
    if let Some(text) = expected.get("error_contains").and_then(Value::as_str) {
        let error = got["error"].as_str().unwrap_or_else(|| panic!("{name}: no error, {got}"));
        assert!(error.contains(text), "{name}: {error}");
        return;
    }
    assert!(got.get("error").is_none(), "{name}: {got}");
    let unordered: Vec<&str> = expected
        .get("unordered")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|p| p.as_str().unwrap())
        .collect();
    let same = |pointer: &str, got: Option<&Value>, expect: &Value| {
        let shape = |value: &Value| {
            let value = without_zeros(value);
            if unordered.contains(&pointer) { in_order(&value) } else { value }
        };
        let got = got.map_or(Value::Null, &shape);
        let expect = shape(expect);
        assert!(
            got == expect || (is_zero(&got) && is_zero(&expect)),
            "{name} {pointer}: {got} not {expect}"
        );
    };
    let session = &got["session"];
    for (rule, value) in expected {
        let pointers = || value.as_array().unwrap().iter().map(|p| p.as_str().unwrap());
        match rule.as_str() {
            "session" | "api_limit" => {
                for (field, expect) in value.as_object().unwrap() {
                    same(&format!("/{field}"), got[rule].get(field), &wrapped(field, expect));
                }
            }
            "paths" => {
                for (pointer, expect) in value.as_object().unwrap() {
                    same(pointer, session.pointer(pointer), expect);
                }
            }
            "endpoints" => same("/", got.get("endpoints"), value),
            "empty" => pointers().for_each(|p| assert_eq!(session.pointer(p), None, "{name} {p}")),
            "not_empty" => {
                pointers().for_each(|p| assert!(session.pointer(p).is_some(), "{name} {p}"))
            }
            "len" => {
                for (pointer, len) in value.as_object().unwrap() {
                    let have =
                        session.pointer(pointer).and_then(Value::as_object).map_or(0, Map::len);
                    assert_eq!(json!(have), *len, "{name} {pointer}");
                }
            }
            "le" => {
                for (pointer, most) in value.as_object().unwrap() {
                    let have = session.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
                    assert!(have <= most.as_f64().unwrap(), "{name} {pointer}: {have}");
                }
            }
            "unordered" | "no_error" => {}
            other => panic!("{name}: unknown rule {other}"),
        }
    }
}

/// A field's expectation with the zeros of single APIs dropped, but not the APIs.
fn wrapped(field: &str, expect: &Value) -> Value {
    without_zeros(&json!({ field: expect })).get(field).cloned().unwrap_or_default()
}
