//! Names of metrics. A renamed metric is a breaking change.

pub(super) const REQUESTS: &str = "turnpike_requests_total";
pub(super) const OVERHEAD: &str = "turnpike_overhead_seconds";
pub(super) const UPSTREAM: &str = "turnpike_upstream_seconds";
pub(super) const REFUSALS: &str = "turnpike_refusals_total";
pub(super) const SHADOWED: &str = "turnpike_shadowed_total";
pub(super) const CACHE: &str = "turnpike_credential_cache_total";
pub(super) const CREDENTIALS: &str = "turnpike_credentials_cached";
pub(super) const CONNECTIONS: &str = "turnpike_connections";
pub(super) const CONNECTIONS_REFUSED: &str = "turnpike_connections_refused_total";
pub(super) const RESERVES: &str = "turnpike_store_reserves_total";
pub(super) const RESERVE_SECONDS: &str = "turnpike_store_reserve_seconds";
pub(super) const COUNTERS: &str = "turnpike_counters_in_memory";
pub(super) const IN_FLIGHT: &str = "turnpike_requests_in_flight";
pub(super) const UNITS_HELD: &str = "turnpike_quota_units_held";
pub(super) const ACCESS_LOG_DROPPED: &str = "turnpike_access_log_dropped_total";
pub(super) const PANICS: &str = "turnpike_panics_total";
pub(super) const BUILD: &str = "turnpike_build_info";
pub(super) const ATTEMPTS: &str = "turnpike_upstream_attempts_total";
pub(super) const RETRIES: &str = "turnpike_upstream_retries_total";
pub(super) const EJECTIONS: &str = "turnpike_upstream_ejections_total";
pub(super) const AVAILABLE: &str = "turnpike_upstream_available";
pub(super) const UPSTREAM_IN_FLIGHT: &str = "turnpike_upstream_in_flight";
pub(super) const LEASED_UNITS: &str = "turnpike_quota_units_leased_total";
pub(super) const SPENT_UNITS: &str = "turnpike_quota_units_spent_total";
pub(super) const RETURNED_UNITS: &str = "turnpike_quota_units_returned_total";
pub(super) const WASTED_UNITS: &str = "turnpike_quota_units_wasted_total";
