//! `turnpike admin-token`: making, listing and revoking admin tokens.

use std::io::Write;

use http::Method;
use serde_json::{Value, json};

use super::http::{Listener, Sent};
use super::{ClientError, Target, block_on};

/// Where admin tokens are.
const PATH: &str = "/v1/admin/tokens";

/// What is done.
#[expect(missing_docs, reason = "a doc comment on a flattened field would be taken for help")]
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Make one. It is written to standard output, and shown nowhere again.
    Create {
        #[command(flatten)]
        target: Target,
        /// Who will use it: its name in the audit log.
        #[arg(long)]
        name: String,
        /// What it may be used for: read, write, import, usage; with commas.
        #[arg(long)]
        scopes: String,
    },
    /// List them.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Revoke one: it is refused with the next request.
    Revoke {
        #[command(flatten)]
        target: Target,
        /// Its ID, as in the list.
        id: u64,
    },
}

/// Does it.
///
/// # Errors
/// When the listener cannot be reached, or refuses.
pub fn run(action: &Action) -> Result<(), ClientError> {
    let text = block_on(act(action))?;
    // Who started us may not care to read it.
    let _unread = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

async fn act(action: &Action) -> Result<String, ClientError> {
    match action {
        Action::Create { target, name, scopes } => {
            let body = json!({ "Name": name, "Scopes": scopes }).to_string();
            let listener = Listener::of(target)?;
            let made = listener.json(Method::POST, PATH, Sent::Text(body)).await?;
            Ok(format!("{}\n", text(&made, "Token")))
        }
        Action::List { target } => {
            let all = Listener::of(target)?.json(Method::GET, PATH, Sent::Nothing).await?;
            let mut table = format!(
                "{:<4} {:<24} {:<24} {:<24} {}\n",
                "ID", "LAST USED", "MADE", "SCOPES", "NAME"
            );
            for token in all.as_array().into_iter().flatten() {
                let scopes = token.get("Scopes").and_then(Value::as_array);
                let scopes: Vec<_> =
                    scopes.into_iter().flatten().filter_map(Value::as_str).collect();
                let id = token.get("ID").and_then(Value::as_u64).unwrap_or_default();
                let used = Some(text(token, "LastUsedAt")).filter(|at| !at.is_empty());
                table.push_str(&format!(
                    "{id:<4} {:<24} {:<24} {:<24} {}\n",
                    used.unwrap_or("never"),
                    text(token, "CreatedAt"),
                    scopes.join(","),
                    text(token, "Name"),
                ));
            }
            Ok(table)
        }
        Action::Revoke { target, id } => {
            let path = format!("{PATH}/{id}");
            Listener::of(target)?.json(Method::DELETE, &path, Sent::Nothing).await?;
            Ok(String::new())
        }
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
