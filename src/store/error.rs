//! A store that gives no answer.

/// Why the store gave no answer. A conflict or a refusal is an answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer in time.
    #[error("no answer within {deadline_ms} ms")]
    Timeout {
        /// How long was waited.
        deadline_ms: u64,
    },
    /// The file or the connection failed.
    #[error("the store could not be {doing}")]
    Io {
        /// What was being done: "read", "written", "opened".
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What lies there is not what was written.
    #[error("{what} in the store is damaged")]
    Damaged {
        /// What is.
        what: &'static str,
    },
    /// The store lost writes, and hears from its gateways what they were.
    #[error("the store is learning what it has lost")]
    Learning,
    /// Another process has it open.
    #[error("the store is in use by another process")]
    InUse,
}

impl StoreError {
    /// The file or the connection failed while it was being `doing`: "read", "written", "opened".
    pub(crate) fn io(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Io { doing, source: source.into() }
    }

    /// Whether the store cannot be asked at all.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Io { .. } => true,
            Self::Damaged { .. } | Self::InUse | Self::Learning => false,
        }
    }

    /// Whether the same call may succeed soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Io { .. } | Self::Learning => true,
            Self::Damaged { .. } | Self::InUse => false,
        }
    }
}
