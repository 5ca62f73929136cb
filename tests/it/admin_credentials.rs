use serde_json::{Value, json};

use crate::admin_support::{Admin, Reply, credential, faults, id, plan, product};

/// The token of most tests.
const KEY: &str = "LEG-00fa-91c2-77aa-0001-beef";

/// The two requests of the portal's guide, byte for byte; only placeholders are filled in.
#[tokio::test]
async fn the_guides_two_requests_work_unchanged() {
    let admin = Admin::start().await;
    let (plan, product, _) = admin.furnish().await;
    let Reply { status, json } = admin
        .send(
            "POST",
            "/apps",
            r#"{
           "Name": "Payment App",
           "Description": "This is my payment application",
           "RedirectURLs": "https://app-host/auth",
           "UserID": 1,
           "Visibility": "personal"
       }"#,
        )
        .await;
    assert_eq!(status, 200, "{json}");
    assert_eq!(json["Visibility"], "personal");
    assert_eq!(json["CreatedAt"], "2026-03-02 09:14");
    assert_eq!(json["AccessRequests"], json!([]));
    let path = format!("/apps/{}/custom_credentials", id(&json));
    let body = r#"{
           "Alias": "<alias>",
           "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
           "PlanID": 123,
           "AuthenticationMethod": "<string>",
           "ProductIDs": [
               123
           ],
           "AuthTokenType": "AUTH_TOKEN_CUSTOM",
           "KeyID": "<string>",
           "CredentialKey": "<string>",
           "CredentialSecret": "<string>",
           "ProviderID": 123,
           "ClientTypeID": 123
       }"#;
    let filled = body
        .replacen("123", &plan.to_string(), 1)
        .replacen("               123", &format!("               {product}"), 1)
        .replace(r#""KeyID": "<string>""#, &format!(r#""KeyID": "{KEY}""#));
    let Reply { status, json } = admin.send("POST", &path, &filled).await;
    assert_eq!(status, 201, "{json}");
    assert_eq!(json["KeyID"], KEY);
    assert_eq!(json["PlanID"], plan.to_string());
    assert_eq!(json["ProductIDs"], json!([product]));
    let record = admin.token(KEY).await.unwrap();
    assert_eq!((record.plan, record.products), (Some(plan), vec![product]));
    assert_eq!((record.user, record.organisation), (Some(1), Some(1)));
    assert!(!record.inactive);
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_nowhere() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let mut body = credential("robot key", KEY, plan, product);
    body["CredentialKey"] = KEY.into();
    let made = admin.expect(201, "POST", &path, body).await;
    assert_eq!(made["KeyID"], KEY);
    let one = format!("{path}/{}", id(&made));
    let mut shown = admin.expect(200, "GET", &one, Value::Null).await;
    assert_eq!(shown["KeyID"], "LEG-…beef");
    assert_eq!(shown["CredentialHash"].as_str().unwrap().len(), 16);
    assert_eq!(shown["Expires"], "2026-05-31 09:14");
    for (key, value) in admin.records().await {
        let text =
            format!("{} {}", String::from_utf8_lossy(&key.id), String::from_utf8_lossy(&value));
        assert!(!text.contains(KEY), "{text}");
    }
    // What GET returns can be put back, and changes nothing but the time.
    let expires = admin.token(KEY).await.unwrap().expires_ms;
    let same = admin.expect(200, "PUT", &one, shown.clone()).await;
    assert_eq!(same["KeyID"], "LEG-…beef");
    assert_eq!(admin.token(KEY).await.unwrap().expires_ms, expires);
    for (member, text) in [("Alias", format!("is-{KEY}-now")), ("Note", KEY.to_owned())] {
        shown[member] = text.into();
        let refused = admin.expect(422, "PUT", &one, shown.clone()).await;
        assert!(!refused.to_string().contains(KEY), "{refused}");
        assert!(
            faults(&refused).contains(&format!("{member} must not contain the token").as_str())
        );
        shown[member] = "fine".into();
    }
    for file in std::fs::read_dir(admin.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
}

#[tokio::test]
async fn all_faults_of_a_credential_are_named_at_once() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let before = admin.records().await;
    let body = json!({
        "Alias": "", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
        "PlanID": 99, "ProductIDs": [], "AuthenticationMethod": "oAuth2.0"
    });
    let refused = admin.expect(422, "POST", &path, body).await;
    let expect = [
        "Alias is required",
        "AuthenticationMethod must be a token method: OAuth is not supported",
        "KeyID is required when AuthTokenType is AUTH_TOKEN_CUSTOM",
        "ProductIDs must name at least one product",
        "PlanID 99 does not exist",
    ];
    assert_eq!(faults(&refused), expect);
    assert_eq!(refused.as_object().unwrap().len(), 1, "the envelope of a 422 is errors alone");
    let good = credential("a", KEY, plan, product);
    // member, value, fault
    for (member, value, fault) in [
        ("Alias", json!("x".repeat(256)), "Alias must be at most 255 characters long"),
        ("Alias", json!(["a"]), "Alias must not be a list or an object"),
        ("Alias", json!(format!("my {KEY}")), "Alias must not contain the token"),
        ("Note", json!({ "deep": [KEY] }), "Note must not contain the token"),
        ("Type", json!(null), "Type is required"),
        ("Type", json!("CREDENTIAL_TYPE_CUSTOM"), "CredentialKey is required when Type is"),
        ("Type", json!("other"), "Type must be one of CREDENTIAL_TYPE_TYK_MANAGED, "),
        ("AuthTokenType", json!(null), "AuthTokenType is required"),
        ("AuthTokenType", json!("AUTH_TOKEN_STANDARD"), "KeyID must be absent when AuthTokenType"),
        ("AuthTokenType", json!("x"), "AuthTokenType must be one of AUTH_TOKEN_CUSTOM, "),
        ("KeyID", json!(""), "KeyID is required when AuthTokenType is AUTH_TOKEN_CUSTOM"),
        ("KeyID", json!("ab"), "KeyID must be 3 to 4096 characters long"),
        ("KeyID", json!("k".repeat(4097)), "KeyID must be 3 to 4096 characters long"),
        ("KeyID", json!("has space"), "KeyID must be visible ASCII characters without spaces"),
        ("KeyID", json!("schlüssel"), "KeyID must be visible ASCII characters without spaces"),
        ("KeyID", json!(",comma"), "KeyID must not begin or end with a comma"),
        ("KeyID", json!({}), "KeyID must not be a list or an object"),
        ("KeyID", json!(crate::admin_support::SECRET), "KeyID must not be an admin token"),
        ("PlanID", json!(null), "PlanID is required"),
        ("PlanID", json!([1]), "PlanID must be an id"),
        ("PlanID", json!(99), "PlanID 99 does not exist"),
        ("PlanID", json!("nowhere"), "PlanID names nothing that exists"),
        ("ProductIDs", json!([product, 98]), "ProductIDs 98 does not exist"),
        ("ProductIDs", json!([{}]), "ProductIDs must be an id"),
        ("ProductIDs", json!([[1]]), "ProductIDs must be an id"),
        ("Expires", json!("soon"), "Expires is not a time like 2026-03-02 09:14"),
        ("Active", json!("perhaps"), "Active must be true or false"),
        ("CID", json!("7"), "CID must be 1 to 64 of"),
    ] {
        let mut body = good.clone();
        body[member] = value;
        let refused = admin.expect(422, "POST", &path, body).await;
        assert!(
            faults(&refused).iter().any(|text| text.starts_with(fault)),
            "{fault:?} is not in {refused}"
        );
        assert_eq!(faults(&refused).len(), 1, "{refused}");
    }
    assert_eq!(admin.records().await, before, "nothing half-written");
}

#[tokio::test]
async fn a_token_and_an_alias_are_used_once() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let made = admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
    let again = admin.expect(422, "POST", &path, credential("b", KEY, plan, product)).await;
    assert_eq!(faults(&again), ["key already in use"]);
    let other = admin.expect(422, "POST", &path, credential("a", "other-key", plan, product)).await;
    assert_eq!(faults(&other), ["Alias is already in use"]);
    admin.expect(200, "DELETE", &format!("{path}/{}", id(&made)), Value::Null).await;
    assert!(admin.token(KEY).await.is_none(), "revoked at once");
    admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
}

#[tokio::test]
async fn the_same_import_again_answers_what_is_there_if_that_is_asked_for() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let body = credential("a", KEY, plan, product);
    let made = admin.expect(201, "POST", &path, body.clone()).await;
    let again = admin.expect(200, "POST", &format!("{path}?upsert=1"), body.clone()).await;
    assert_eq!(id(&again), id(&made));
    assert_ne!(again["KeyID"], KEY, "shown once");
    admin.expect(422, "POST", &path, body.clone()).await;
    let other = json!({ "Name": "other", "UserID": 1 });
    let other = id(&admin.expect(200, "POST", "/apps", other).await);
    let theirs = format!("/apps/{other}/custom_credentials?upsert=1");
    let before = admin.records().await;
    admin.expect(422, "POST", &theirs, body.clone()).await;
    let changed = credential("a", KEY, plan, 99);
    admin.expect(422, "POST", &format!("{path}?upsert=1"), changed).await;
    assert_eq!(admin.records().await, before);
}

#[tokio::test]
async fn a_change_reaches_the_enforced_record() {
    let admin = Admin::start().await;
    let (plan_a, product_a, app) = admin.furnish().await;
    let mut slow = plan("slow");
    slow["KeyExpiresIn"] = 0.into();
    let plan_b = id(&admin.expect(200, "POST", "/plans", slow).await);
    let other = product("exports", "inv-v2");
    let product_b = id(&admin.expect(201, "POST", "/products", other).await);
    let path = format!("/apps/{app}/custom_credentials");
    let made = admin.expect(201, "POST", &path, credential("a", KEY, plan_a, product_a)).await;
    let one = format!("{path}/{}", id(&made));
    let body = json!({ "Alias": "b", "PlanID": plan_b, "ProductIDs": [product_a, product_b] });
    admin.expect(200, "PUT", &one, body).await;
    let record = admin.token(KEY).await.unwrap();
    assert_eq!((record.plan, record.products), (Some(plan_b), vec![product_a, product_b]));
    assert!(record.expires_ms.is_some(), "a new plan does not move the expiry");
    admin.expect(200, "PUT", &one, json!({ "Active": "false" })).await;
    assert!(admin.token(KEY).await.unwrap().inactive);
    let body = json!({ "Active": true, "Expires": "2027-01-01 00:00" });
    let shown = admin.expect(200, "PUT", &one, body).await;
    assert_eq!(shown["Expires"], "2027-01-01 00:00");
    let record = admin.token(KEY).await.unwrap();
    assert_eq!((record.inactive, record.expires_ms), (false, Some(1_798_761_600_000)));
    let shown = admin.expect(200, "PUT", &one, json!({ "Expires": null })).await;
    assert_eq!(shown["Expires"], Value::Null);
    assert_eq!(admin.token(KEY).await.unwrap().expires_ms, None);
    let missing = admin.expect(422, "PUT", &format!("{path}/999"), json!({ "Alias": "x" })).await;
    assert_eq!(faults(&missing), ["credential not found"]);
}

#[tokio::test]
async fn an_access_request_comes_and_goes_with_its_credential() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let made = admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
    let shown = admin.expect(200, "GET", &format!("/apps/{app}"), Value::Null).await;
    let request = id(&shown["AccessRequests"][0]);
    assert_eq!(shown["AccessRequests"][0]["Status"], "approved");
    assert_eq!(shown["AccessRequests"][0]["Products"], json!(["invoices"]));
    let row = admin.expect(200, "GET", &format!("/access_requests/{request}"), Value::Null).await;
    assert_eq!((&row["Products"], &row["Plan"]), (&json!("invoices"), &json!("robot-tier")));
    assert_eq!(row["Credentials"][0]["ID"], made["ID"]);
    let under = format!("/apps/{app}/access-requests/{request}/credentials");
    let list = admin.expect(200, "GET", &under, Value::Null).await;
    assert_eq!(list[0]["AccessRequest"], format!("AccessRequest#{request}"));
    assert_eq!(list[0]["Credential"], "LEG-…beef");
    admin.expect(404, "GET", &format!("/apps/999/access-requests/{request}"), Value::Null).await;
    admin.expect(200, "DELETE", &format!("/access_requests/{request}"), Value::Null).await;
    assert!(admin.token(KEY).await.is_none());
    assert_eq!(admin.expect(200, "GET", &path, Value::Null).await, json!([]));
    let made = admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
    let list = admin.expect(200, "GET", &format!("/apps/{app}/access-requests"), Value::Null).await;
    let under = format!("/apps/{app}/access-requests/{}/credentials", id(&list[0]));
    admin.expect(200, "DELETE", &format!("{under}/{}", id(&made)), Value::Null).await;
    assert!(admin.token(KEY).await.is_none());
    assert_eq!(admin.expect(200, "GET", "/access_requests", Value::Null).await, json!([]));
}

#[tokio::test]
async fn a_credential_outlives_its_plan_and_products_for_edits() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    let made = admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
    admin.expect(200, "DELETE", &format!("/products/{product}"), Value::Null).await;
    admin.expect(200, "DELETE", &format!("/plans/{plan}"), Value::Null).await;
    let one = format!("{path}/{}", id(&made));
    let shown = admin.expect(200, "PUT", &one, json!({ "Active": false, "Alias": "b" })).await;
    assert_eq!((&shown["PlanID"], &shown["ProductIDs"]), (&made["PlanID"], &made["ProductIDs"]));
    assert!(admin.token(KEY).await.unwrap().inactive);
    let refused = admin.expect(422, "POST", &path, credential("c", "key-2", plan, product)).await;
    assert_eq!(faults(&refused).len(), 2);
}

#[tokio::test]
async fn a_write_leaves_one_audit_line_and_no_token_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    // With two of them alive, threads of other tests do not decide for ours what is logged.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let path = format!("/apps/{app}/custom_credentials");
    admin.expect(201, "POST", &path, credential("a", KEY, plan, product)).await;
    admin.expect(422, "POST", &path, credential("b", KEY, plan, product)).await;
    admin.expect(404, "DELETE", &format!("{path}/{KEY}"), Value::Null).await;
    admin.expect(422, "POST", &path, json!({ "PlanID": KEY, KEY: KEY, "KeyID": KEY })).await;
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains(" audit: ")).collect();
    assert_eq!(lines.len(), 7, "{text}");
    for part in ["actor=\"admin\"", "method=\"POST\"", "object=\"credential 1\"", "status=201"] {
        assert!(lines[3].contains(part), "{part} is not in {}", lines[3]);
    }
    assert!(lines[3].contains("path=\"/portal-api/apps/1/custom_credentials\""), "{}", lines[3]);
    assert!(!text.contains(KEY), "{text}");
}

/// Keeps log lines.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Races of many writers end with each having written, or having been told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_imports_of_one_token_make_one_credential() {
    let admin = std::sync::Arc::new(Admin::start().await);
    let (plan, product, app) = admin.furnish().await;
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let admin = admin.clone();
            let key = if n % 2 == 0 { KEY.to_owned() } else { format!("own-key-{n}") };
            let body = credential(&format!("alias {n}"), &key, plan, product);
            tokio::spawn(async move {
                let path = format!("/apps/{app}/custom_credentials");
                admin.send("POST", &path, &body.to_string()).await.status.as_u16()
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 7].as_slice(), &[422; 5]].concat());
}
