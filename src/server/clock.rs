//! What happens in time, whoever comes: stalled readers end, what nobody uses is forgotten, and memory is looked at.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    config::{EXPIRY_INTERVAL, RELIEF_INTERVAL, RELIEF_INTERVAL_SHORT, STALL_TICKS},
    connection::Context,
};
use crate::{broker::Broker, metrics::Limit};

/// Gives the broker its clock: the steps by which stalled readers end, idle topics are forgotten, and what
/// was kept for long enough is given up.
pub(super) async fn keep_time(broker: &Broker, context: &Context) {
    let every = |period: Duration| {
        let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval
    };
    let mut stall = every(context.config.stall_timeout / STALL_TICKS);
    let mut age = every(context.config.topic_idle_timeout);
    let mut expiry = every(EXPIRY_INTERVAL);
    let keeps_history = broker.limits().history.is_on();
    let mut relief = pin!(tokio::time::sleep(RELIEF_INTERVAL));
    loop {
        tokio::select! {
            () = &mut relief => {
                relieve(broker, context);
                let interval = if broker.is_short_of_memory() {
                    RELIEF_INTERVAL_SHORT
                } else {
                    RELIEF_INTERVAL
                };
                relief.as_mut().reset(Instant::now() + interval);
            }
            _ = stall.tick() => {
                let ended = broker.tick(STALL_TICKS);
                if ended > 0 {
                    context.metrics.reject_many(Limit::Stalled, ended as u64);
                    tracing::warn!(subscriptions = ended, "ended subscriptions that stalled");
                }
            }
            _ = age.tick() => broker.age_topics(),
            _ = expiry.tick(), if keeps_history => broker.expire(SystemTime::now()),
        }
    }
}

/// Ends the largest mailboxes where memory is critical, and then the connections that take nothing.
fn relieve(broker: &Broker, context: &Context) {
    let shed = broker.relieve();
    if shed > 0 {
        context.metrics.reject_many(Limit::Shed, shed as u64);
        tracing::warn!(
            subscriptions = shed,
            "ended the largest mailboxes: memory is short"
        );
    }
    let stuck = context.stuck.relieve();
    if stuck > 0 {
        context.metrics.reject_many(Limit::Shed, stuck as u64);
        tracing::warn!(
            connections = stuck,
            "closed connections that take nothing: memory is short"
        );
    }
}
