//! The command line as a client of an admin listener: importing a file, handling admin tokens.

mod http;
pub mod import;
pub mod tokens;

use std::path::PathBuf;

use zeroize::Zeroizing;

/// Where the secret is when no file is named. As an argument every user of the machine could see it.
const SECRET_VARIABLE: &str = "TURNPIKE_ADMIN__SECRET";

/// Which listener, and what opens it.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The admin listener, such as http://127.0.0.1:9080.
    #[arg(long, default_value = "http://127.0.0.1:9080")]
    pub url: String,
    /// A file with the authorities that are trusted where the URL begins with https; without it, the
    /// system's.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// A file with the admin secret or an admin token; without it, the environment variable
    /// TURNPIKE_ADMIN__SECRET.
    #[arg(long)]
    pub secret_file: Option<PathBuf>,
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file could not be read or written.
    #[error("{path} cannot be {doing}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// "read", "written".
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no secret.
    #[error("give the admin secret in --secret-file or in {SECRET_VARIABLE}")]
    NoSecret,
    /// The address is not one.
    #[error("--url must be like http://127.0.0.1:9080 or https://admin.example")]
    Url,
    /// The authorities cannot be used.
    #[error("--ca: {0}")]
    Authorities(String),
    /// An argument cannot be used.
    #[error("{0}")]
    Argument(String),
    /// The listener cannot be reached, or went away.
    #[error("the admin listener cannot be {doing}")]
    Away {
        /// "reached", "read".
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listener does nothing.
    #[error("the admin listener does not answer")]
    Stalled,
    /// The listener says no.
    #[error("the admin listener answered {status}: {text}")]
    Refused {
        /// The status.
        status: u16,
        /// What it says.
        text: String,
    },
}

impl ClientError {
    fn file(path: &std::path::Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), doing, source }
    }

    fn away(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Away { doing, source: source.into() }
    }
}

impl Target {
    fn secret(&self) -> Result<Zeroizing<String>, ClientError> {
        let text = match &self.secret_file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|e| ClientError::file(path, "read", e))?
            }
            None => std::env::var(SECRET_VARIABLE).unwrap_or_default(),
        };
        let text = Zeroizing::new(text);
        let secret = text.trim();
        if secret.is_empty() {
            return Err(ClientError::NoSecret);
        }
        Ok(Zeroizing::new(secret.to_owned()))
    }
}

/// Runs a command to its end, on this thread.
fn block_on<T>(command: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| ClientError::away("reached", error))?.block_on(command)
}
