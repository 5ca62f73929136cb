use super::*;

#[test]
fn a_rate_is_whole_requests_per_whole_milliseconds_and_never_more() {
    // requests, seconds   expect
    check("10", "1", Some((10, 1_000)));
    check("400", "25", Some((400, 25_000))); // Whole numbers stay: the burst is part of the limit.
    check("0.5", "1", Some((1, 2_000)));
    check("3.7", "10", Some((3, 10_000))); // 37 per 100 s would admit 37 at once.
    check("2.5", "0.5", Some((2, 500)));
    check("1", "0.0005", Some((1, 1)));
    check("1e3", "6e1", Some((1_000, 60_000)));
    check("0.1", "0.3", Some((1, 3_000)));
    check("18446744073709551615", "1", Some((u64::MAX, 1_000)));
}

#[test]
fn a_rate_without_a_number_says_nothing_and_minus_one_is_unlimited() {
    for (requests, per) in [("0", "1"), ("5", "0"), ("5", "-1"), ("0", "0")] {
        assert_eq!(rate(decimal(requests), decimal(per)), Ok(Setting::Unset), "{requests}/{per}");
    }
    for per in ["0", "1"] {
        assert_eq!(rate(decimal("-1"), decimal(per)), Ok(Setting::Unlimited));
    }
    assert_eq!(rate(decimal("0.000000000000000001"), decimal("1e10")), Err(InvalidDecimal));
}

#[test]
fn a_decimal_reads_and_writes_the_same_number() {
    for text in ["0", "1", "-1", "0.1", "12.5", "-0.001", "123456789.123456", "1e3", "\"7\""] {
        let number: Decimal = serde_json::from_str(text).unwrap();
        let again: Decimal =
            serde_json::from_str(&serde_json::to_string(&number).unwrap()).unwrap();
        assert_eq!(number, again, "{text}");
    }
    assert_eq!(serde_json::from_str::<Decimal>("null").unwrap(), Decimal::default());
    assert_eq!(serde_json::to_string(&decimal("1.50")).unwrap(), "1.5");
}

#[test]
fn what_is_no_decimal_is_refused() {
    for text in ["", "-", ".", "1.", ".5", "1e", "0x1", "1e30", "1e-30", "99999999999999999999"] {
        assert_eq!(text.parse::<Decimal>(), Err(InvalidDecimal), "{text:?}");
    }
    assert!(serde_json::from_str::<Decimal>("1e300").is_err());
    assert!(serde_json::from_str::<Decimal>("1e-300").is_err());
    assert!(serde_json::from_str::<Decimal>("true").is_err());
}

#[track_caller]
fn check(requests: &str, per: &str, expect: Option<(u64, u64)>) {
    let got = match rate(decimal(requests), decimal(per)).unwrap() {
        Setting::Limited(rate) => Some((rate.requests.get(), rate.per_ms.get())),
        Setting::Unset | Setting::Unlimited => None,
    };
    assert_eq!(got, expect, "{requests} per {per} s");
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}
