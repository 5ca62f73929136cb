use serde_json::json;

use super::*;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::limit::Period;
use crate::domain::policy::{QuotaScope, Setting, UrlAccess, VersionAccess};

#[test]
fn members_we_do_not_know_come_back() {
    let policy = json!({
        "id": "gold", "name": "Gold", "rate": 0.5, "per": 1, "active": true, "smoothing": {"enabled": true},
        "access_rights": {"a": {"api_name": "A", "restricted_types": [{"name": "Query"}], "limit": {"quota_max": -1}}},
        "turnpike": {"quota_scope": "app", "later": 1}
    });
    let read: Policy = serde_json::from_value(policy.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), policy);
    let session = json!({"alias": "x", "oauth_client_id": "y", "rate": 5, "per": 1, "expires": 7});
    let read: Session = serde_json::from_value(session.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), session);
}

#[test]
fn null_is_empty_and_sentinels_become_variants() {
    let read: Policy = serde_json::from_value(json!({
        "id": "p", "tags": null, "meta_data": null, "partitions": null, "quota_max": -1, "rate": -1,
        "quota_renewal_rate": -1,
        "access_rights": {"a": {"versions": null, "allowed_urls": null, "limit": null, "endpoints": null}}
    }))
    .unwrap();
    let policy = read.to_domain(&org()).unwrap();
    assert_eq!(policy.limits.quota, Setting::Unlimited);
    assert_eq!(policy.limits.rate, Setting::Unlimited);
    assert_eq!(policy.limits.period, Some(Period::Never));
    let access = &policy.access["a"];
    assert_eq!(access.versions, VersionAccess::Only(Vec::new()));
    assert_eq!(access.allowed_urls, UrlAccess::Unrestricted);
    assert!(access.limits.is_empty());
}

#[test]
fn a_member_without_a_meaning_is_named_by_its_path() {
    check(json!({}), "id must be 1 to 64 characters long, is 0");
    check(json!({"id": "a/b"}), "id has a character outside A-Z a-z 0-9 . _ ~ - at position 1");
    check(
        json!({"id": "p", "access_rights": {"a": {"limit": {"max_query_depth": 4_294_967_296_u64}}}}),
        "access_rights.a.limit.max_query_depth is too large",
    );
    check(
        json!({"id": "p", "turnpike": {"quota_scope": "team"}}),
        "turnpike.quota_scope must be one of credential, product, api, app, developer, organisation",
    );
    check(
        json!({"id": "p", "turnpike": {"quota_period": {"unit": "month", "anchor_day": 32}}}),
        "turnpike.quota_period.anchor_day must be 1 to 31",
    );
}

#[test]
fn our_additions_read_back_as_they_were_written() {
    let read: Policy = serde_json::from_value(json!({
        "id": "p", "quota_max": 5,
        "turnpike": {
            "quota_period": {"unit": "month", "time_zone": "Europe/Paris", "anchor_day": 15},
            "quota_scope": "developer", "on_store_unavailable": "closed", "shadow": true, "max_in_flight": 3,
            "per_api": {"a": {"rate_limit": 2.5, "per": 0.5, "quota": -1}},
            "costs": [{"api_id": "a", "path": "/x/*", "methods": ["get"], "cost": 0}]
        }
    }))
    .unwrap();
    let policy = read.to_domain(&org()).unwrap();
    assert_eq!(policy.extras.quota_scope, Some(QuotaScope::Developer));
    assert!(matches!(policy.limits.period, Some(Period::Calendar(_))));
    assert_eq!(policy.extras.per_api["a"].quota, Setting::Unlimited);
    assert_eq!(Policy::from(&policy).to_domain(&org()).unwrap(), policy);
}

#[test]
fn a_session_reads_back_as_it_was_written() {
    let read: Session = serde_json::from_value(json!({
        "rate": 5, "per": 1, "quota_max": 7, "expires": 1_700_000_000, "apply_policy_id": "p",
        "access_rights": {"a": {"versions": ["v1"], "allowed_urls": [{"url": "/x", "methods": ["GET"]}]}},
        "meta_data": {"n": 1, "text": "t", "list": [1, {"k": null}]}, "tags": ["t"], "is_inactive": true,
        "date_created": "2024-01-02T03:04:05Z", "post_expiry_action": "retain", "post_expiry_grace_period": -1
    }))
    .unwrap();
    let credential = read.to_domain(CredentialId(9), &org()).unwrap();
    assert_eq!(credential.policies.len(), 1);
    assert_eq!(credential.created.0, 1_704_164_645_000);
    let again = Session::from(&credential).to_domain(CredentialId(9), &org()).unwrap();
    assert_eq!(again, credential);
}

#[track_caller]
fn check(policy: Value, expect: &str) {
    let read: Policy = serde_json::from_value(policy).unwrap();
    assert_eq!(read.to_domain(&org()).unwrap_err().to_string(), expect);
}

fn org() -> OrgId {
    "org".parse().unwrap()
}
