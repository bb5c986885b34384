//! `broker pub`: the payload from the argument, a file, or the lines of stdin.

use std::{io, path::Path, process::ExitCode};

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use fanfare::{
    broker::PAYLOAD_BYTES_CEILING,
    client::{Client, Receipt},
    message::{AttributeName, Attributes, Message},
};
use tokio::io::AsyncReadExt;
use tokio_stream::StreamExt;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};

use super::{connect, json, put, tell};
use crate::config::{OutcomeFormat, PubArgs};

pub(super) async fn publish(args: PubArgs) -> anyhow::Result<ExitCode> {
    // Whatever is wrong with the request is said before anything is connected or read.
    let message = message(&args)?;
    let payload = match (&args.payload, &args.file) {
        (Some(payload), _) => Some(Bytes::from(payload.clone())),
        (None, Some(path)) => {
            let content = read_file(path).await;
            let content = content.with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(
                content.len() <= PAYLOAD_BYTES_CEILING,
                "{} exceeds the limit of {PAYLOAD_BYTES_CEILING} bytes for a payload",
                path.display()
            );
            Some(content.into())
        }
        (None, None) => None,
    };
    let client = connect(&args.connect).await?;
    let mut outcome = Outcome::new(args.format);
    match payload {
        Some(payload) => {
            let last = Message {
                end: args.end,
                ..message
            };
            outcome.publish(&client, last, payload).await?;
        }
        None => {
            let published = publish_lines(&mut outcome, &client, message, args.end).await;
            if let Err(error) = published {
                // Whoever goes on from here has to know how far it went.
                outcome.sum_up(&args.topic);
                return Err(error);
            }
        }
    }
    outcome.sum_up(&args.topic);
    Ok(ExitCode::SUCCESS)
}

/// Publishes each line of standard input. If the topic is to end, the last one says so, or an empty message
/// where there is no line; so each waits for the next one.
async fn publish_lines(
    outcome: &mut Outcome,
    client: &Client,
    message: Message,
    end: bool,
) -> anyhow::Result<()> {
    // A line longer than any payload allowed would fill the memory for nothing.
    let codec =
        AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), PAYLOAD_BYTES_CEILING);
    let mut lines = FramedRead::new(tokio::io::stdin(), codec);
    let mut held = None;
    while let Some(line) = lines.next().await {
        let line = line.map_err(unreadable_line)?;
        let next = if end { held.replace(line) } else { Some(line) };
        if let Some(line) = next {
            outcome.publish(client, message.clone(), line).await?;
        }
    }
    if end {
        let last = Message { end, ..message };
        outcome
            .publish(client, last, held.unwrap_or_default())
            .await?;
    }
    Ok(())
}

/// A file, or as much of it as shows that it is too large.
async fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    let mut bounded = file.take(PAYLOAD_BYTES_CEILING as u64 + 1);
    bounded.read_to_end(&mut content).await?;
    Ok(content)
}

fn unreadable_line(error: AnyDelimiterCodecError) -> anyhow::Error {
    match error {
        AnyDelimiterCodecError::MaxChunkLengthExceeded => anyhow!(
            "a line of standard input exceeds the limit of {PAYLOAD_BYTES_CEILING} bytes for a payload"
        ),
        AnyDelimiterCodecError::Io(error) => {
            anyhow::Error::new(error).context("cannot read standard input")
        }
    }
}

/// The message without its payload.
fn message(args: &PubArgs) -> anyhow::Result<Message> {
    let attributes = args.attribute.iter().map(|attribute| {
        let (name, value) = attribute
            .split_once('=')
            .with_context(|| format!("attribute `{attribute}` has no `=`: write NAME=VALUE"))?;
        let name: AttributeName = name.parse()?;
        Ok((name, value.to_owned()))
    });
    let mut message = Message::new(args.topic.parse()?, Bytes::new());
    message.attributes = attributes.collect::<anyhow::Result<Attributes>>()?;
    message.tag = args.tag.as_deref().map(str::parse).transpose()?;
    message.key = args.key.as_deref().map(str::parse).transpose()?;
    message.id = args.id.as_deref().map(str::parse).transpose()?;
    Ok(message)
}

/// What became of the messages so far.
struct Outcome {
    format: OutcomeFormat,
    messages: u64,
    matched: u64,
    delivered: u64,
    lost: u64,
}

impl Outcome {
    fn new(format: OutcomeFormat) -> Self {
        Self {
            format,
            messages: 0,
            matched: 0,
            delivered: 0,
            lost: 0,
        }
    }

    async fn publish(
        &mut self,
        client: &Client,
        mut message: Message,
        payload: Bytes,
    ) -> anyhow::Result<()> {
        message.payload = payload;
        let receipt = client.publish(message).await?;
        self.add(&receipt);
        if self.format == OutcomeFormat::Json {
            put(format_args!("{}\n", json::receipt(&receipt)))?;
        }
        Ok(())
    }

    fn add(&mut self, receipt: &Receipt) {
        self.messages += 1;
        self.matched += u64::from(receipt.matched);
        self.delivered += u64::from(receipt.delivered);
        self.lost += u64::from(receipt.dropped) + receipt.displaced;
    }

    fn sum_up(&self, topic: &str) {
        if self.format == OutcomeFormat::Json {
            return;
        }
        let Self {
            messages,
            matched,
            delivered,
            lost,
            ..
        } = self;
        let noun = if *messages == 1 {
            "message"
        } else {
            "messages"
        };
        tell(format_args!(
            "published {messages} {noun} to {topic}: {matched} matched, {delivered} delivered, \
             {lost} lost to full mailboxes"
        ));
    }
}
