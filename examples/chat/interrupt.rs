//! Ctrl-C and SIGTERM, both of which ask for an orderly end.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells all parts of a program that it is to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    requested: CancellationToken,
    insisted: CancellationToken,
}

impl Stop {
    /// Requested by the first SIGINT or SIGTERM, insisted on by the second.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let Self {
            requested,
            insisted,
        } = stop.clone();
        tokio::spawn(async move {
            for token in [requested, insisted] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(stop)
    }

    pub(crate) fn request(&self) {
        self.requested.cancel();
    }

    pub(crate) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    pub(crate) async fn insisted(&self) {
        self.insisted.cancelled().await;
    }
}
