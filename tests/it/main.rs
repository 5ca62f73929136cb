//! Everything that is tested from outside, in one binary: links are slow, and helpers are shared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports tests")]

/// The merge of policies against recorded facts about Tyk's.
mod merge_vectors;

/// What holds of every merge by our rules.
mod merge_properties;

/// What every store promises, on every store; what the embedded one promises beyond.
mod store_contract;

/// A redis-server to speak to.
#[cfg(feature = "redis")]
mod redis_server;
/// A redis-server that is spoken to by TLS.
#[cfg(feature = "redis")]
mod redis_tls;

/// A gateway without sockets.
mod gate;

/// Decisions: rights, limits, caches.
mod enforce;

/// Edits while units are in hand and while requests are decided.
mod enforce_edits;

/// What was used of limits, and resets.
mod usage;

/// Sample configurations.
mod config_files;

/// Layers, lengths, links.
mod tidy;

/// An admin listener to speak to.
mod admin_support;

/// The portal's custom credentials: the guide's requests, and everything that is refused.
mod admin_credentials;

/// The portal's other objects, and the policies they become.
mod admin_objects;

/// Secrets in bodies that have no use for them.
mod admin_secrets;

/// Errors of our own paths, and paths of the portal's website.
mod admin_native;

/// Writes that come again.
mod admin_repeats;

/// Admin tokens, their scopes, and the log of what was done with them.
mod admin_tokens;

/// Owners with more credentials than a commit holds.
mod large_owners;

/// Teams and catalogues with more members than a commit holds.
mod large_lists;

/// A file with seeded faults.
mod import_file;

/// Bulk imports through the listener.
mod admin_imports;

/// Imports whose commits follow one another while others write.
mod import_flight;

/// Imports that apply all lines or none, while they are applied.
mod import_all_or_nothing;

/// Used quota that imports bring.
mod import_quota;

/// The same with the built binary, which is killed.
mod import_process;

/// What every answer of the admin listener looks like.
mod admin_envelope;

/// Whether all records of a store fit together.
mod whole;

/// A hostile client of the admin listener, over raw HTTP to the built binary.
mod admin_hostile;

/// Products and plans, as the gateway decides by them.
mod portal_products;

/// Requests for access, and catalogues.
mod portal_catalogues;
mod portal_explain;
mod portal_preview;
mod portal_requests;

/// What is deleted takes along, and leaves.
mod portal_deletes;

/// What credentials say of their owners.
mod portal_people;

/// Quotas that are shared.
mod portal_scopes;

/// Which test holds which of the portal's features.
mod portal_rows;

/// What was used, for people.
mod portal_usage;

/// Rotation and revocation with the built binary.
mod portal_process;

/// Credentials: generated, rotated, suspended, expired, revoked.
mod portal_lifecycle;

/// The built binary and an upstream that counts.
mod process;

/// A steady load on it, and targets that can be killed.
mod process_load;

/// Stopping it.
mod process_stop;

/// Reloads, targets that die and return, under load.
mod process_change;

/// Another process that takes over, under load.
mod process_upgrade;

/// The admin listener: TLS, and writes while another process takes over.
mod admin_tls;

/// The command line as a client.
mod command_line;

/// Import a token, enforce it, forward.
mod main_job;

/// Which gateways are alive, as Redis tells it.
#[cfg(feature = "redis")]
mod redis_registry;

/// Real gateways that start while their redis-server is away.
#[cfg(feature = "redis")]
mod redis_fallback;

/// Real gateways on a real redis-server.
#[cfg(feature = "redis")]
mod redis_gateways;

/// Two of them behave as one.
#[cfg(feature = "redis")]
mod redis_cluster;

/// Quotas of both: what is told of them.
#[cfg(feature = "redis")]
mod redis_events;

/// What is edited at one of them holds at the other.
#[cfg(feature = "redis")]
mod redis_edits;

/// Real gateways whose Redis is away: shares, and their settlement.
#[cfg(feature = "redis")]
mod redis_local;

/// A client that sends exactly the bytes it is told to.
mod raw_http;

/// Admitting while the store is away, and settling afterwards.
#[cfg(feature = "redis")]
mod local_mode;

/// Requests in flight, and shadow mode.
mod in_flight;

/// A gateway on port 0, and an upstream that records the bytes it gets.
mod proxy_support;

/// Bodies of refused requests, and of answers to HTTP/1.0.
mod proxy_framing;

/// Paths, headers, bodies: what the upstream gets and what the client gets back.
mod proxy_forward;

/// Which target a request goes to, and what becomes of it when that one fails.
mod proxy_upstreams;

/// Headers that are changed, pages of other origins, addresses.
mod proxy_exchange;

/// Tokens, stripping, preflights, limit headers, refusals.
mod proxy_auth;

/// Small bodies are waited for, others stream.
mod proxy_bodies;

/// Deadlines, broken upstreams, clients that go away.
mod proxy_failures;

/// Connections: bounds, shutdown, panics, the access log.
mod proxy_lifecycle;

/// Certificates, and a client that speaks TLS.
mod tls_client;

/// A client that speaks HTTP/2, and frames that no client would send.
mod http2_client;

/// TLS: names, versions, changed files, deadlines.
mod proxy_tls;

/// HTTP/2: what goes on upstream, what comes back, what it costs others.
mod proxy_http2;

/// HTTP/2 that no client would speak.
mod proxy_http2_abuse;

/// Connections that are switched to another protocol.
mod proxy_upgrade;

/// gRPC, trailers, HTTP/2 and TLS towards upstreams.
mod proxy_grpc;

/// Libraries of gRPC and WebSocket on both sides.
mod proxy_libraries;

/// Who the client is, and what one client may take.
mod proxy_origin;

/// HTTP/1.1 to the letter, to read with what the gateway sends.
mod strict_http;

/// Requests byte by byte: framing, smuggling shapes, what belongs to one connection.
mod http1_table;

/// Random bytes.
mod fuzz_requests;
