//! Keeps the policy as the auth file and the files that it names say.

use std::{sync::Arc, time::Duration};

use super::Access;

/// How often the files are looked at. A change counts when it is seen a second time: it is in force
/// within three times this.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

impl Access {
    /// Looks at the files now and then, for ever.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        let mut interval = tokio::time::interval(RELOAD_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let access = Arc::clone(&self);
            // Reading may take as long as the disk does.
            let looked = tokio::task::spawn_blocking(move || access.look_at_files()).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at the auth file failed");
            }
        }
    }

    fn look_at_files(&self) {
        let mut file = self.file.lock();
        match file.poll(false) {
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
