//! Closed sets of label values.

/// How a request ended, for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was let through.
    Admitted,
    /// It was refused.
    Denied,
    /// It would have been refused, and was let through.
    Shadowed,
}

/// Where a credential came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// Memory.
    Hit,
    /// The store.
    Miss,
    /// Memory: a token known to be unknown.
    UnknownHit,
    /// The store has no such token.
    UnknownMiss,
}

/// Why a client was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It did not get as far as a first byte of HTTP: no byte, or no end to its TLS handshake.
    FirstByte,
    /// The head of a request did not end in time.
    Head,
    /// It took nothing of an answer.
    Untaken,
    /// HTTP/2: too many resets, or frames that cost us work and it nothing.
    Flood,
    /// What came before HTTP is no TLS or no PROXY protocol.
    Handshake,
}

impl Cut {
    /// All of them, by [`Cut::index`].
    pub const ALL: [Self; 5] =
        [Self::FirstByte, Self::Head, Self::Untaken, Self::Flood, Self::Handshake];

    /// Its position.
    #[must_use]
    pub fn index(self) -> u8 {
        match self {
            Self::FirstByte => 0,
            Self::Head => 1,
            Self::Untaken => 2,
            Self::Flood => 3,
            Self::Handshake => 4,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Head => "head",
            Self::Untaken => "untaken",
            Self::Flood => "flood",
            Self::Handshake => "handshake",
        }
    }
}
