//! The steps by which a gate outside this process is rebuilt.

use super::redis::{RedisGate, Staging};
use super::types::{GateError, GateOwner, Inspection};
use crate::model::{Life, ProductId, SaleSettings};

/// The steps of a rebuild, for a gate outside this process.
#[derive(Clone, Copy)]
pub struct SharedGate<'a>(pub(super) &'a RedisGate);

impl SharedGate<'_> {
    /// Reads whose gates the server holds, and says that they are this deployment's if they are nobody's.
    pub async fn owner(self, deployment: &str) -> Result<GateOwner, GateError> {
        self.0.owner(deployment).await
    }

    /// Says that the gates are this deployment's, also if they were another one's before.
    pub async fn take(self, deployment: &str) -> Result<GateOwner, GateError> {
        self.0.take(deployment).await
    }

    /// Looks at the gate of a product on the server of now.
    pub async fn inspect(self, product: ProductId) -> Result<Inspection, GateError> {
        self.0.inspect(product).await
    }

    /// Closes whatever gate of an older epoch there is on the server `server_id`. After it, no purchase of an older epoch can
    /// be admitted. [`GateError::AnotherGate`]: there is a gate of a newer epoch.
    pub async fn close(self, product: ProductId, server_id: &str, epoch: i64) -> Result<(), GateError> {
        self.0.close(product, server_id, epoch).await
    }

    /// Begins to load buyers beside the closed gate.
    pub async fn stage(self, product: ProductId, server_id: &str, epoch: i64) -> Result<Staging, GateError> {
        self.0.stage(product, server_id, epoch).await
    }

    /// Loads buyers.
    pub async fn add_staged(self, staging: &mut Staging, held: &[Life]) -> Result<(), GateError> {
        self.0.add_staged(staging, held).await
    }

    /// Opens the closed gate with the loaded buyers, in one step. [`GateError::AnotherGate`]: it is open already, or
    /// of another epoch.
    pub async fn install(self, staging: Staging, settings: &SaleSettings) -> Result<(), GateError> {
        self.0.install(staging, settings).await
    }
}
