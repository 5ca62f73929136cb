//! What a Redis server says of itself, and whether that is good enough.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, ServerErrorKind, Value};

use crate::store::redis::durability::Durability;
use crate::store::redis::fault::RedisFault;
use crate::store::redis::link::Terms;
use crate::store::redis::options::Endpoint;
use crate::store::redis::script::send_all;

/// The oldest version that is looked after, by its makers or by distributions.
const VERSION_MIN: (u32, u32) = (6, 2);
/// A connection may take longer than a call: it is several round trips, and a name look-up.
pub(super) const CONNECT_FACTOR: u32 = 10;

/// A connection to a server that passed the checks.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// Whether this user may have transactions, where they are wanted.
    pub(super) transacts: bool,
    /// What a person should know, in full sentences; the server is used all the same.
    pub(super) warnings: Vec<&'static str>,
}

/// Connects to a server and checks it.
pub(super) async fn open(endpoint: &Endpoint, terms: &Terms) -> Result<Opened, RedisFault> {
    let address = || endpoint.address.clone();
    let patience = terms.timeout.saturating_mul(CONNECT_FACTOR);
    // Deadlines are set where calls are made.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(None);
    let opened = async {
        let client = endpoint.client()?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let unreachable = |source| RedisFault::Unreachable { address: address(), source };
        let mut connection = connecting.await.map_err(unreachable)?;
        let asked = Cmd::new().arg("INFO").query_async::<String>(&mut connection).await;
        let info = asked.map_err(|source| {
            if source.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
                RedisFault::Info { address: address(), source }
            } else {
                unreachable(source)
            }
        })?;
        let mut warnings = check(&info, &endpoint.address)?;
        match terms.durability {
            Durability::Memory => {}
            Durability::Fsync => check_synced(&mut connection, &endpoint.address).await?,
            Durability::Replica { confirm } => {
                let replicas = field(&info, "connected_slaves").and_then(|n| n.parse::<u32>().ok());
                if replicas.unwrap_or(0) < confirm.get() {
                    warnings.push(
                        "redis has fewer replicas than confirm_replicas: until it has as many, \
                         nothing is granted",
                    );
                }
            }
        }
        let transacts = terms.transacts && may_transact(&mut connection).await;
        if terms.transacts && !transacts {
            warnings.push("redis does not let this user have transactions: imports take longer");
        }
        Ok(Opened { connection, transacts, warnings })
    };
    let deadline_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let silent = || RedisFault::Silent { address: address(), deadline_ms };
    tokio::time::timeout(patience, opened).await.unwrap_or_else(|_elapsed| Err(silent()))
}

/// Whether a user may have transactions. What of one is refused does not keep the rest of it from being
/// done, so that this must be known before.
async fn may_transact(connection: &mut MultiplexedConnection) -> bool {
    let (multi, exec) = (redis::cmd("MULTI"), redis::cmd("EXEC"));
    // EXEC first: MULTI without it would leave the connection inside a transaction.
    let Err(error) = exec.query_async::<Value>(connection).await else { return false };
    if !error.to_string().contains("without MULTI") {
        return false;
    }
    let answers = send_all([multi, exec].into_iter(), connection).await.unwrap_or_default();
    matches!(answers.as_slice(), [Value::Okay, Value::Array(_)])
}

/// Whether a server answers a write only after it has synced it.
async fn check_synced(
    connection: &mut MultiplexedConnection,
    address: &str,
) -> Result<(), RedisFault> {
    let needed = [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        // Otherwise a rewrite of the file suspends syncing.
        ("no-appendfsync-on-rewrite", "no"),
    ];
    for (setting, expect) in needed {
        let mut ask = Cmd::new();
        ask.arg("CONFIG").arg("GET").arg(setting);
        let address = || address.to_owned();
        let found = ask.query_async::<HashMap<String, String>>(connection).await;
        let found = found.map_err(|source| RedisFault::Config { address: address(), source })?;
        let value = found.get(setting).map(String::as_str).unwrap_or_default();
        if value != expect {
            let value = value.to_owned();
            return Err(RedisFault::NotSynced { address: address(), setting, value });
        }
    }
    Ok(())
}

/// Whether a server with this `INFO` will do; if so, what a person should know.
fn check(info: &str, address: &str) -> Result<Vec<&'static str>, RedisFault> {
    let address = || address.to_owned();
    let version = field(info, "redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN {
        return Err(RedisFault::Version { address: address(), version: version.to_owned() });
    }
    if field(info, "role").is_some_and(|role| role != "master") {
        return Err(RedisFault::Replica { address: address() });
    }
    let policy = field(info, "maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        return Err(RedisFault::Evicts { address: address(), policy: policy.to_owned() });
    }
    let mut warnings = Vec::new();
    if field(info, "aof_enabled") == Some("0") {
        warnings.push("redis has no append-only file: a restart loses records and counters");
    }
    if field(info, "maxmemory") == Some("0") {
        warnings.push("redis has no maxmemory: the system may kill it when memory runs out");
    }
    Ok(warnings)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_refused_for_what_would_break_a_promise() {
        check_info("7.0.15 master noeviction", "");
        check_info("6.2.0 master noeviction", "");
        check_info("10.0.0 master noeviction", "");
        check_info("6.0.16 master noeviction", "6.2 or later");
        check_info("x master noeviction", "6.2 or later");
        check_info("7.0.15 slave noeviction", "is a replica");
        check_info("7.0.15 master volatile-lru", "must be noeviction");
        assert!(check("", "there:1").is_err());
    }

    #[track_caller]
    fn check_info(words: &str, expect: &str) {
        let [version, role, policy] = words.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let info = format!(
            "# Server\r\nredis_version:{version}\r\nrun_id:abc\r\nrole:{role}\r\n\
             maxmemory:100\r\nmaxmemory_policy:{policy}\r\naof_enabled:1\r\n"
        );
        match check(&info, "there:1") {
            Ok(warnings) => assert!(expect.is_empty() && warnings.is_empty(), "{words}"),
            Err(fault) => {
                let text = fault.to_string();
                assert!(text.contains(expect) && !expect.is_empty(), "{words}: {text}");
                assert!(text.contains("there:1"));
            }
        }
    }
}
