//! `broker sub`: messages as they come.

use std::{io, process::ExitCode, time::Duration};

use fanfare::{
    client::{Event, OverflowPolicy, Received, Subscribe, Subscription},
    topic::TopicFilter,
};

use super::{connect, json, put, put_bytes, tell};
use crate::config::{Format, OverflowArg, SubArgs};

/// What timeout(1) exits with.
const TIMED_OUT: u8 = 124;

pub(super) async fn subscribe(args: SubArgs) -> anyhow::Result<ExitCode> {
    let request = request(&args)?;
    let client = connect(&args.connect).await?;
    let subscription = client.subscribe(request).await?;
    tell(format_args!(
        "subscribed to {} at {}",
        args.filter,
        client.url()
    ));
    let timeout = args.timeout.map(|timeout| *timeout);
    tokio::select! {
        biased;
        printed = print(subscription, &args) => printed.map(|()| ExitCode::SUCCESS),
        () = after(timeout) => {
            tell("timed out");
            Ok(ExitCode::from(TIMED_OUT))
        }
    }
}

fn request(args: &SubArgs) -> anyhow::Result<Subscribe> {
    let filter: TopicFilter = args.filter.parse()?;
    let tags = args.tag.iter().map(|tag| tag.parse());
    let mut request = Subscribe::new(filter)
        .tags(tags.collect::<Result<Vec<_>, _>>()?)
        .mailbox_capacity(args.mailbox_capacity)
        .start_at(args.from.0)
        .overflow_policy(match args.overflow {
            OverflowArg::DropNewest => OverflowPolicy::DropNewest,
            OverflowArg::DropOldest => OverflowPolicy::DropOldest,
            OverflowArg::Disconnect => OverflowPolicy::Disconnect,
        });
    if let Some(group) = &args.group {
        request = request.group(group.parse()?);
    }
    if let Some(heartbeat) = args.heartbeat {
        request = request.heartbeat_interval(*heartbeat);
    }
    Ok(request)
}

/// Prints until the count is reached, the topic ends, or the subscription ends with an error.
async fn print(mut subscription: Subscription, args: &SubArgs) -> anyhow::Result<()> {
    let mut left = args.count;
    while let Some(event) = subscription.next().await {
        match event? {
            Event::Message(message) => {
                put_message(&message, args.format)?;
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    return Ok(());
                }
            }
            Event::Missed(count) => tell(format_args!("missed {count} messages: fell behind")),
            Event::Gap(gap) => tell(format_args!("missed {gap}: no longer kept")),
            Event::Resubscribed { gap, .. } => tell(format_args!("subscribed again: missed {gap}")),
        }
    }
    tell("the topic has ended");
    Ok(())
}

fn put_message(message: &Received, format: Format) -> io::Result<()> {
    match format {
        Format::Text => {
            let mut line = message.payload.to_vec();
            line.push(b'\n');
            put_bytes(&line)
        }
        Format::Json => put(format_args!("{}\n", json::message(message))),
        Format::Raw => put_bytes(&message.payload),
    }
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
