//! What a connection of HTTP/2 does at some time, whatever comes on it: it asks whether its peer is there, and leaves
//! when it is idle or when the broker drains.

use std::{pin::pin, sync::Arc};

use tokio::time::Instant;

use super::{config, connection::Context};
use crate::{http2::Connection, metrics::Limit};

/// What a connection does at some time: asks whether its peer is there, leaves when it is idle, or when
/// the broker drains. Ends when the connection is to be let go of.
pub(super) async fn keep(connection: Connection, context: Arc<Context>) {
    let config = &context.config;
    let mut alive = pin!(keepalive(&connection, config));
    // To finish at first, and then to let go.
    let mut order = pin!(context.drain.cancelled());
    let mut idle = pin!(tokio::time::sleep(config.idle_timeout));
    // The newest stream when the connection was seen without one.
    let mut idle_since = Some(0);
    let mut finishing = false;
    let mut answer = pin!(tokio::time::sleep(config.keepalive_timeout));
    let mut awaits_answer = false;
    loop {
        tokio::select! {
            biased;
            () = &mut alive => {
                context.metrics.reject(Limit::Keepalive);
                tracing::debug!("the peer answers no ping");
                return;
            }
            () = &mut order => {
                if context.close.is_cancelled() {
                    return;
                }
                finishing = true;
                connection.leave();
                awaits_answer = true;
                answer.as_mut().reset(Instant::now() + config.keepalive_timeout);
                order.set(context.close.cancelled());
            }
            () = &mut answer, if awaits_answer => {
                awaits_answer = false;
                connection.leave_unanswered();
            }
            () = &mut idle, if !finishing => {
                let is_idle = connection.open_streams() == 0;
                let last = connection.last_stream();
                if is_idle && idle_since == Some(last) {
                    context.metrics.reject(Limit::Idle);
                    finishing = true;
                    connection.leave();
                    awaits_answer = true;
                    answer.as_mut().reset(Instant::now() + config.keepalive_timeout);
                }
                idle_since = is_idle.then_some(last);
                idle.as_mut().reset(Instant::now() + config.idle_timeout);
            }
        }
    }
}

/// Resolves once a ping has gone unanswered.
async fn keepalive(connection: &Connection, config: &config::ServerConfig) {
    loop {
        tokio::time::sleep(config.keepalive_interval).await;
        let answered = tokio::time::timeout(config.keepalive_timeout, connection.ping()).await;
        if answered.is_err() {
            return;
        }
    }
}
