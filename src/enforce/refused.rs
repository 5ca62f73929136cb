//! Credentials whose policies cannot be applied, for operators: a deleted plan closes what names it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::domain::id::CredentialId;
use crate::domain::token::TokenHash;
use crate::enforce::session::Session;

/// Remembered at most: enough to see what is wrong.
const REFUSED_MAX: usize = 100;

/// Some of those whose tokens were used lately.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<TokenHash, (CredentialId, String)>>);

impl Refused {
    /// Takes in how a session came out.
    pub(super) fn note(&self, session: &Session) {
        let record = &session.record;
        let mut refused = self.0.lock();
        match &session.fault {
            Some(fault) if refused.len() < REFUSED_MAX || refused.contains_key(&record.token) => {
                refused.insert(record.token, (record.credential.id, fault.clone()));
            }
            Some(_) => {}
            None => {
                refused.remove(&record.token);
            }
        }
    }

    pub(super) fn forget(&self, token: &TokenHash) {
        self.0.lock().remove(token);
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// In order of the credentials.
    pub(super) fn list(&self) -> Vec<(CredentialId, String)> {
        let mut all: Vec<_> = self.0.lock().values().cloned().collect();
        all.sort();
        all
    }
}
