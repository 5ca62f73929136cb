//! A look at a request that is not all there yet.

use crate::enforce::{Enforcer, Facts, Refusal};

impl Enforcer {
    /// Says whether a request would be let in, limits aside. It is charged nothing, and is to be
    /// decided when it is whole.
    ///
    /// # Errors
    /// The refusal it gets.
    pub async fn check(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        let session = self.find(facts).await?;
        let checked = session.access(&facts.request, self.clock.unix()).map(|_access| ());
        checked.map_err(|denial| {
            session.tally.note(false, &self.history);
            let credential = Some(session.record.credential.id);
            Refusal { credential, ..Refusal::new(denial) }
        })
    }
}
