//! Events of a quota that two real gateways share: one of them tells, once in a period.

use serde_json::{Value, json};

use crate::process::{Client, until};
use crate::redis_cluster::two;
use crate::redis_gateways::Place;

/// How often one gateway told of 80 and of 100 percent of a quota.
fn told(place: &Place) -> [u64; 2] {
    let metrics = Client::new(place.gateway.admin).get("/metrics", &[]).body;
    [80, 100].map(|percent| {
        let begin = format!("turnpike_quotas_reached_total{{percent=\"{percent}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&begin));
        line.map_or(0, |count| count.parse().unwrap())
    })
}

fn told_by_all(places: &[&Place]) -> [u64; 2] {
    let all = places.iter().map(|place| told(place));
    all.fold([0; 2], |[most, whole], [a, b]| [most + a, whole + b])
}

#[test]
fn events_of_a_quota_come_once_in_a_period_from_one_of_two_gateways() {
    let (_server, upstream, one, other) = two();
    let places = [&one, &other];
    let (token, plan) =
        ("a-token", json!({"UnlimitedRateLimit": true, "Quota": 40, "QuotaRenewalRate": 86400}));
    let id = one.gateway.import(token, plan);
    until("it works there", || other.asks(token) == 200);
    for period in 1..=3_u64 {
        assert_eq!(told_by_all(&places), [period - 1; 2]);
        std::thread::scope(|scope| {
            for place in places {
                scope.spawn(|| {
                    let mut client = Client::new(place.gateway.proxy);
                    for _ in 0..60 {
                        client.get("/a/x", &[("X-API-Key", token)]);
                    }
                });
            }
        });
        // What one gave back when the other was short of it is there for both.
        let all = usize::try_from(40 * period).unwrap();
        until("all is used", || {
            places.iter().for_each(|place| {
                place.asks(token);
            });
            upstream.count() == all
        });
        until("both shares are told of", || told_by_all(&places) == [period; 2]);
        for place in places {
            assert_eq!(place.asks(token), 429);
        }
        assert_eq!(told_by_all(&places), [period; 2], "nobody tells it again");
        let reset = format!("/v1/usage/credentials/{id}/reset?wait=cluster");
        assert_eq!(one.gateway.admin("POST", &reset, &Value::Null).status, 200);
    }
    assert_eq!(upstream.count(), 3 * 40);
    // The one that told says which counter it is, and no token.
    let logs = places.map(|place| place.gateway.log()).concat();
    let lines: Vec<_> =
        logs.lines().filter(|line| line.contains("a share of a quota is used")).collect();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains(token)), "{lines:#?}");
}
