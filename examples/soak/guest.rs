//! One guest: it comes on a connection of its own, subscribes, reads in its way, and leaves in its way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare::client::{
    Client, ClientOptions, Event, OverflowPolicy, Subscribe, SubscribeError, Subscription,
};
use tokio::time::Instant;

use super::{Seen, publish::TOPICS};

/// The longest stay; longer than the broker's patience with a guest that takes nothing.
const STAY_MAX: Duration = Duration::from_secs(15);
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(50);

const POLICIES: [OverflowPolicy; 3] = [
    OverflowPolicy::DropNewest,
    OverflowPolicy::DropOldest,
    OverflowPolicy::Disconnect,
];
const CAPACITIES: [u32; 4] = [1, 16, 64, 1_024];

#[derive(Clone, Copy, Debug)]
enum Reads {
    Everything,
    Slowly,
    Nothing,
}

/// Comes, stays for a while and leaves. The number decides how, so that every combination has its turn.
pub(crate) async fn visit(url: String, number: u64, seen: Arc<Seen>) {
    Seen::count(&seen.guests, 1);
    if try_visit(&url, number, &seen).await.is_err() {
        Seen::count(&seen.refused, 1);
    }
}

async fn try_visit(url: &str, number: u64, seen: &Seen) -> anyhow::Result<()> {
    let options = ClientOptions {
        reconnect: false,
        ..ClientOptions::default()
    };
    let client = Client::with_options(url, options).await?;
    let pick = |place: u64, of: usize| (number / place) as usize % of;
    let filter = match pick(1, 5) {
        0 => ">".to_owned(),
        1 => "soak.*".to_owned(),
        2 => "once.*".to_owned(),
        // Of its own, for a topic that comes and goes.
        3 => format!("guest.{number}"),
        _ => format!("soak.{}", number / 5 % TOPICS),
    };
    let mut subscribe = Subscribe::new(filter.parse::<fanfare::topic::TopicFilter>()?)
        .overflow_policy(POLICIES[pick(5, 3)])
        .mailbox_capacity(CAPACITIES[pick(15, 4)]);
    if pick(60, 4) == 0 {
        subscribe = subscribe.group("soakers".parse()?);
    }
    let subscription = client.subscribe(subscribe).await?;
    let reads = [Reads::Everything, Reads::Slowly, Reads::Nothing][pick(7, 3)];
    let stay = STAY_MAX.mul_f64(fastrand::f64());
    let grouped = pick(60, 4) == 0;
    read(subscription, reads, Instant::now() + stay, !grouped, seen).await;
    Ok(())
}

async fn read(
    mut subscription: Subscription,
    reads: Reads,
    until: Instant,
    in_order: bool,
    seen: &Seen,
) {
    let mut newest = HashMap::new();
    loop {
        let event = async {
            match reads {
                Reads::Everything => {}
                Reads::Slowly => tokio::time::sleep(SLOW_READ_INTERVAL).await,
                Reads::Nothing => std::future::pending().await,
            }
            subscription.next().await
        };
        let Ok(event) = tokio::time::timeout_at(until, event).await else {
            return;
        };
        match event {
            Some(Ok(Event::Message(message))) => {
                Seen::count(&seen.received, 1);
                let place = (message.epoch, message.sequence);
                let before = newest.insert(message.topic, place);
                if in_order && before.is_some_and(|before| before >= place) {
                    Seen::count(&seen.out_of_order, 1);
                }
            }
            Some(Ok(Event::Missed(missed))) => Seen::count(&seen.missed, missed),
            Some(Ok(Event::Gap(_) | Event::Resubscribed { .. })) => {}
            // What it asked for, or what its reading deserves.
            Some(Err(SubscribeError::FellBehind { .. })) => return,
            Some(Err(_)) => return Seen::count(&seen.refused, 1),
            None => return,
        }
    }
}
