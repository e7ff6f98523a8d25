//! The wish to stop, told to everyone at once.

use tokio_util::sync::CancellationToken;

/// A wish to stop that anyone can make and anyone can wait for. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Asks everyone to stop. Asking again changes nothing.
    pub(crate) fn request(&self) {
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    pub(crate) fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once stopping is asked for.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn requested(&self) {
        self.token.cancelled().await;
    }
}
