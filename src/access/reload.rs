//! Keeps the policy as the auth file and the files that it names say.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::Access;

/// How often the files are looked at. A change counts when it is seen a second time: it is in force
/// within three times this, or at once if an operator asks.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

impl Access {
    /// Looks at the files now and then, and at once when asked to, for ever.
    pub(crate) async fn keep_current(self: Arc<Self>, asked: &Notify) {
        let mut interval = tokio::time::interval(RELOAD_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = interval.tick() => false,
                () = asked.notified() => true,
            };
            let access = Arc::clone(&self);
            // Reading may take as long as the disk does.
            let look = move || access.look_at_files(is_asked);
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%error, "looking at the auth file failed");
            }
        }
    }

    fn look_at_files(&self, is_asked: bool) {
        let mut file = self.file.lock();
        match file.poll(is_asked) {
            Ok(None) if is_asked => tracing::info!("the auth file is as it was"),
            Ok(None) => {}
            Ok(Some(policy)) => {
                self.replace(policy);
                self.reloads.count(true);
                tracing::info!(file = %file.path().display(), "the auth file has changed and is in force");
            }
            Err(error) => {
                self.reloads.count(false);
                tracing::error!(%error, "the auth file is wrong: what it said before stays in force");
            }
        }
    }
}
