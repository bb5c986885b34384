//! The mock model server: answers a prompt with its own words and one more, one at a time.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    time::Duration,
};

use axum::{Router, extract::Request, response::Response, routing::post};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{Status, server::ServerStreamingService};

use crate::{
    interrupt::Stop,
    vllm::{self, GENERATE, GenerateRequest, GenerateResponse},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub(crate) listen: SocketAddr,
    /// How long each word takes
    #[arg(long, value_name = "TIME", default_value = "80ms", value_parser = humantime::parse_duration)]
    pub(crate) word_delay: Duration,
}

pub(crate) async fn run(args: ModelArgs, stop: Stop) -> anyhow::Result<()> {
    let listener = crate::listen("model", args.listen).await?;
    serve(listener, args.word_delay, stop).await
}

pub(crate) async fn serve(
    listener: TcpListener,
    word_delay: Duration,
    stop: Stop,
) -> anyhow::Result<()> {
    let generate = move |request: Request| answer(word_delay, request);
    let routes = Router::new().route(GENERATE, post(generate));
    tokio::select! {
        served = axum::serve(listener, routes).into_future() => served?,
        () = stop.requested() => {}
    }
    Ok(())
}

async fn answer(word_delay: Duration, request: Request) -> Response {
    vllm::answer(Mock { word_delay }, request).await
}

/// It has no tokens to save, and leaves `max_tokens` alone.
struct Mock {
    word_delay: Duration,
}

type Responses = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

impl ServerStreamingService<GenerateRequest> for Mock {
    type Response = GenerateResponse;
    type ResponseStream = Responses;
    type Future = Ready<Result<tonic::Response<Responses>, Status>>;

    fn call(&mut self, request: tonic::Request<GenerateRequest>) -> Self::Future {
        let GenerateRequest {
            request_id, prompt, ..
        } = request.into_inner();
        let words = words(&prompt);
        let (word_delay, last) = (self.word_delay, words.len() - 1);
        let words = words.into_iter().enumerate();
        let responses = stream::unfold(
            (words, request_id),
            move |(mut words, request_id)| async move {
                let (place, token) = words.next()?;
                tokio::time::sleep(word_delay).await;
                let response = GenerateResponse {
                    request_id: request_id.clone(),
                    token,
                    done: place == last,
                };
                Some((Ok(response), (words, request_id)))
            },
        );
        ready(Ok(tonic::Response::new(Box::pin(responses))))
    }
}

fn words(prompt: &str) -> Vec<String> {
    let prompt = match prompt.trim() {
        "" => "(empty prompt)",
        prompt => prompt,
    };
    let answer = format!("{prompt} generated_response");
    answer.split_whitespace().map(str::to_owned).collect()
}
