//! Takes requests in batches, has the model answer them, and publishes the tokens.
//!
//! Promises: a request is generated once, however often it is published, since whoever publishes the first
//! message of its response has claimed it; and a response that this dispatcher has claimed gets its end
//! mark, however the model fares. If this dispatcher dies, its topic has no subscriber any more, by which
//! others know.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use fanfare::{
    client::{Client, Event, PublishError, Subscribe, Subscription},
    message::{Epoch, Sequence},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::{
    batch::{self, BatchArgs},
    interrupt::Stop,
    job::{self, Chunk, DispatcherName, Job, RequestId},
    vllm::{GenerateRequest, Model},
};

/// Requests that wait for their batch. Past it they are left to whoever publishes them again.
const QUEUE_MAX: usize = 1_024;
/// How often the news that a generation failed is published, a second apart, until the broker takes it.
const FAILURE_ATTEMPTS: u32 = 30;
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DispatcherArgs {
    /// The broker
    #[arg(long, env = "BROKER_SERVER", value_name = "URL", default_value = fanfare::client::DEFAULT_URL)]
    pub(crate) broker: String,
    /// The model server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) model: String,
    /// How long the model may take for one answer
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(crate) model_timeout: Duration,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}

pub(crate) async fn run(args: DispatcherArgs, stop: Stop) -> anyhow::Result<()> {
    let member = Member::join(&args).await?;
    println!("dispatcher: {} is ready", member.dispatcher.name);
    member.work(&args.batch, stop).await
}

/// A dispatcher that requests are sent to.
pub(crate) struct Member {
    dispatcher: Arc<Dispatcher>,
    queue: mpsc::Receiver<Job>,
    receiving: AbortHandle,
    /// These end only if the broker ends their subscriptions for good.
    subscriptions: JoinSet<()>,
}

impl Member {
    pub(crate) async fn join(args: &DispatcherArgs) -> anyhow::Result<Self> {
        let dispatcher = Arc::new(Dispatcher {
            client: Client::connect(&args.broker).await?,
            model: Model::new(&args.model)?,
            model_timeout: args.model_timeout,
            name: DispatcherName::random()?,
            in_progress: Mutex::default(),
        });
        let client = &dispatcher.client;
        let mut subscriptions = JoinSet::new();
        // Present before the first request can be claimed.
        let questions = client.subscribe(dispatcher.name.topic()?).await?;
        subscriptions.spawn(Arc::clone(&dispatcher).stay_present(questions));
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let requests = Subscribe::new(job::requests()).group(job::dispatchers());
        let requests = client.subscribe(requests).await?;
        let receiving = subscriptions.spawn(receive(requests, sender));
        Ok(Self {
            dispatcher,
            queue,
            receiving,
            subscriptions,
        })
    }

    /// Works until it is told to stop, and ends what it has begun.
    pub(crate) async fn work(mut self, args: &BatchArgs, stop: Stop) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(args.batches.into()));
        let generating = TaskTracker::new();
        let outcome = loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                let place = place.expect("the semaphore is never closed");
                (place, batch::collect(&mut self.queue, args).await)
            };
            let (place, batch) = tokio::select! {
                next = next => next,
                _ = self.subscriptions.join_next() => {
                    break Err(anyhow::anyhow!("the broker has ended a subscription"));
                }
                () = stop.requested() => break Ok(()),
            };
            let place = Arc::new(place);
            for job in batch {
                let (dispatcher, place) = (Arc::clone(&self.dispatcher), Arc::clone(&place));
                generating.spawn(async move {
                    dispatcher.process(job).await;
                    drop(place);
                });
            }
        };
        self.receiving.abort();
        generating.close();
        generating.wait().await;
        outcome
    }
}

/// Never stops reading, since a subscriber that does is ended by the broker.
async fn receive(mut requests: Subscription, queue: mpsc::Sender<Job>) {
    while let Some(event) = requests.next().await {
        match event {
            Ok(Event::Message(message)) => match serde_json::from_slice(&message.payload) {
                Ok(job) => {
                    if queue.try_send(job).is_err() {
                        eprintln!("dispatcher: too much to do; a request is left to others");
                    }
                }
                Err(error) => eprintln!("dispatcher: what came is no request: {error}"),
            },
            Ok(other) => eprintln!("dispatcher: requests may be published again: {other:?}"),
            Err(error) => eprintln!("dispatcher: {error}"),
        }
    }
}

struct Dispatcher {
    client: Client,
    model: Model,
    model_timeout: Duration,
    name: DispatcherName,
    /// What this dispatcher may have claimed, and has not ended yet.
    in_progress: Mutex<HashSet<RequestId>>,
}

impl Dispatcher {
    /// Whoever waits for a response asks here whether it is still in progress. Being subscribed is the
    /// answer; only a response that nobody works on, since its claim was published and the receipt lost,
    /// needs a word.
    async fn stay_present(self: Arc<Self>, mut questions: Subscription) {
        while let Some(event) = questions.next().await {
            let Ok(Event::Message(question)) = event else {
                continue;
            };
            let id = std::str::from_utf8(&question.payload).map(str::parse);
            if let Ok(Ok(id)) = id
                && !self.in_progress.lock().contains(&id)
            {
                // An end that was published before is the answer as well, and refuses this one.
                let failure = Chunk::failure(&id, "the dispatcher has lost the request");
                drop(self.client.publish(failure).await);
            }
        }
    }

    async fn process(&self, job: Job) {
        let id = job.request_id.clone();
        if !self.in_progress.lock().insert(id.clone()) {
            return;
        }
        if let Some(claimed_in) = self.claim(&id).await
            && let Err(failure) = self.generate(job, claimed_in).await
        {
            eprintln!("dispatcher: {id}: {failure:#}");
            self.fail(&id, &failure.to_string()).await;
        }
        self.in_progress.lock().remove(&id);
    }

    /// If the request is this dispatcher's, the life of the response in which it is.
    async fn claim(&self, id: &RequestId) -> Option<Epoch> {
        match self.client.publish(Chunk::claim(id, &self.name)).await {
            Ok(receipt) if receipt.cursor.is_none() => {
                self.fail(id, "the broker keeps no history of responses")
                    .await;
                None
            }
            Ok(receipt) => (receipt.sequence == Sequence(1)).then_some(receipt.epoch),
            Err(PublishError::TopicEnded { .. }) => None,
            Err(error) => {
                eprintln!("dispatcher: cannot claim {id}: {error}");
                None
            }
        }
    }

    /// The errors are for the reader; their sources are for the log.
    async fn generate(&self, job: Job, claimed_in: Epoch) -> anyhow::Result<()> {
        let id = job.request_id;
        let request = GenerateRequest {
            request_id: id.to_string(),
            prompt: job.prompt,
            max_tokens: job.max_tokens,
        };
        let late = "the model took too long";
        let until = Instant::now() + self.model_timeout;
        let call = self.model.generate(request, self.model_timeout);
        let call = timeout_at(until, call).await.context(late)?;
        let mut tokens = call.map_err(|status| {
            let what = match status.code() {
                Code::Unavailable => "the model cannot be reached",
                // It keeps the time as well, and both are as fast.
                Code::Cancelled | Code::DeadlineExceeded => late,
                _ => "the model refused",
            };
            anyhow::Error::new(status).context(what)
        })?;
        loop {
            let next = timeout_at(until, tokens.message()).await.context(late)?;
            let next = next.context("the model broke off")?;
            let next = next.context("the model stopped before it was done")?;
            let token = Chunk::token(&id, &self.name, next.token, next.done);
            match self.client.publish(token).await {
                Ok(_) if next.done => return Ok(()),
                Ok(receipt) if receipt.epoch == claimed_in => {}
                // What was claimed is forgotten with the claim, and others may have claimed it anew.
                Ok(_) => bail!("the broker has forgotten the beginning of the answer"),
                // Others took this dispatcher for dead, and have told the reader.
                Err(PublishError::TopicEnded { .. }) => return Ok(()),
                // The token may be published or not: whoever went on could say it twice.
                Err(error) => return Err(error).context("the broker did not take a token"),
            }
        }
    }

    async fn fail(&self, id: &RequestId, failure: &str) {
        for _ in 0..FAILURE_ATTEMPTS {
            match self.client.publish(Chunk::failure(id, failure)).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(FAILURE_INTERVAL).await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}
