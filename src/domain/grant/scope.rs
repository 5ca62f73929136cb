//! Over what a limit is counted.

use std::fmt;

use crate::domain::id::{ApiId, PolicyId};

/// Over what one limit of a credential is counted.
///
/// A scope that credentials share is that of one plan: credentials of two plans have two
/// allowances, each with its own count, and neither plan's limit is ever held against the other's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// All requests of the credential.
    Credential,
    /// Those on the APIs of one product or policy.
    Policy(PolicyId),
    /// Those on one API.
    Api(ApiId),
    /// Those on one path and method of an API.
    Endpoint {
        /// The API.
        api: ApiId,
        /// The method, upper case.
        method: Box<str>,
        /// The path pattern.
        path: Box<str>,
    },
    /// Those of all credentials of the app under this plan.
    App(PolicyId),
    /// Those of all credentials of the user under this plan.
    Developer(PolicyId),
    /// Those of all credentials of the consumer organisation under this plan.
    Organisation(PolicyId),
}

impl LimitScope {
    /// Its name for people.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Policy(_) => "product",
            Self::Api(_) => "api",
            Self::Endpoint { .. } => "endpoint",
            Self::App(_) => "app",
            Self::Developer(_) => "developer",
            Self::Organisation(_) => "organisation",
        }
    }

    /// Whether other credentials are counted in too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::App(_) | Self::Developer(_) | Self::Organisation(_) => true,
            Self::Credential | Self::Policy(_) | Self::Api(_) | Self::Endpoint { .. } => false,
        }
    }
}

/// As it stands in a counter's definition, whose subject says the rest.
impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential => Ok(()),
            Self::Policy(id) | Self::App(id) | Self::Developer(id) | Self::Organisation(id) => {
                write!(f, "p/{id}")
            }
            Self::Api(id) => write!(f, "a/{id}"),
            Self::Endpoint { api, method, path } => write!(f, "e/{api}/{method}/{path}"),
        }
    }
}
