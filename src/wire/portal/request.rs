//! Requests for access (portal-api, B1 and B3).

use super::fields::{Fields, Ref};

/// What a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// An existing credential that is to be changed; a new one is wanted where there is none.
    pub credential: Option<Ref>,
    /// The plan that is wanted.
    pub plan: Option<Ref>,
    /// The products that are wanted; beside those that an existing credential has.
    pub products: Vec<Ref>,
    /// The catalogue they were found in.
    pub catalogue: Option<Ref>,
}

impl Ask {
    /// Reads a body.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let credential = fields.reference("CredentialID");
        let plan = fields.reference("PlanID");
        let products = fields.references("ProductIDs");
        let catalogue = fields.reference("CatalogueID");
        // The name of the credential to come.
        fields.line("Alias");
        for unknown in ["DCRTemplateID", "DCREnabled", "Status", "ProvisionImmediately"] {
            fields.discard(unknown);
        }
        let faulted = |name| fields.faulted(name);
        let (no_plan, no_products) =
            (plan.is_none() && !faulted("PlanID"), products.is_empty() && !faulted("ProductIDs"));
        if credential.is_some() {
            if no_plan && no_products {
                fields.fault("CredentialID", "needs a PlanID or ProductIDs to be changed to");
            }
        } else {
            if no_plan {
                fields.fault("PlanID", "is required");
            }
            if no_products {
                fields.fault("ProductIDs", "must name at least one product");
            }
        }
        Self { credential, plan, products, catalogue }
    }
}
