//! One publisher's way to the broker: a call for each message, or a stream for all.

use anyhow::Context;
use bytes::Bytes;
use fanfare::client::Authorized;
use fanfare::wire::pb::{
    PublishRequest, PublishStreamRequest, pub_sub_service_client::PubSubServiceClient,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;

/// Messages between the publisher and its stream.
const STREAM_BUFFER: usize = 1_024;

pub(super) enum Sender {
    Unary {
        client: PubSubServiceClient<Authorized>,
        calls: JoinSet<Result<(), tonic::Status>>,
        in_flight: usize,
    },
    Stream {
        messages: mpsc::Sender<PublishStreamRequest>,
        answers: JoinHandle<anyhow::Result<()>>,
    },
}

impl Sender {
    pub(super) fn open_stream(client: PubSubServiceClient<Authorized>) -> Self {
        let (messages, receiver) = mpsc::channel(STREAM_BUFFER);
        Self::Stream {
            messages,
            answers: tokio::spawn(read_answers(client, receiver)),
        }
    }

    pub(super) async fn send(&mut self, topic: String, payload: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Unary {
                client,
                calls,
                in_flight,
            } => {
                while calls.len() >= *in_flight {
                    join(calls).await?;
                }
                let request = PublishRequest {
                    topic,
                    payload,
                    ..Default::default()
                };
                let mut client = client.clone();
                calls.spawn(async move { client.publish(request).await.map(drop) });
                Ok(())
            }
            Self::Stream { messages, answers } => {
                let request = PublishStreamRequest {
                    topic,
                    payload,
                    ..Default::default()
                };
                match messages.send(request).await {
                    Ok(()) => Ok(()),
                    Err(_) => answers.await?.and_then(|()| {
                        anyhow::bail!("the broker ended the stream before its publisher")
                    }),
                }
            }
        }
    }

    /// Waits until all messages are answered.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Unary { mut calls, .. } => {
                while !calls.is_empty() {
                    join(&mut calls).await?;
                }
                Ok(())
            }
            Self::Stream { messages, answers } => {
                drop(messages);
                answers.await?
            }
        }
    }
}

async fn join(calls: &mut JoinSet<Result<(), tonic::Status>>) -> anyhow::Result<()> {
    match calls.join_next().await {
        Some(called) => called?.context("a publish failed"),
        None => Ok(()),
    }
}

async fn read_answers(
    mut client: PubSubServiceClient<Authorized>,
    messages: mpsc::Receiver<PublishStreamRequest>,
) -> anyhow::Result<()> {
    let answers = client.publish_stream(ReceiverStream::new(messages)).await;
    let mut answers = answers.context("cannot open a stream")?.into_inner();
    while let Some(answer) = answers.message().await.context("a stream broke")? {
        if let Some(rejection) = answer.rejections.first() {
            anyhow::bail!("the broker rejected a message: {}", rejection.message);
        }
    }
    Ok(())
}
