//! The HTTP side: requests come in, and tokens go out as they come. `GET /` is a page to chat on.
//!
//! Promises: a request that was accepted ends in its response's end mark; and this API shows a stream to who
//! has the secret that its creator got, or not at all. The broker is not to be reached by anybody else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Path, RawQuery, State,
        rejection::{BytesRejection, PathRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use fanfare::{client::Subscribe, cursor::StartAt, message::Message};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    connections::Connections,
    events::{self, Reader},
    interrupt::Stop,
    job::{Job, RequestId},
    metrics::Metrics,
    secret::{self, SecretKey},
    watch::Watch,
};

/// What the page may load and do: nothing but its own, and an empty icon.
const PAGE_MAY: &str = "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                        frame-ancestors 'none'";
/// What a broker takes as a payload, unless it is told otherwise.
const JOB_BYTES_MAX: usize = 1024 * 1024;
/// What EventSource sends when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The broker
    #[arg(long, env = "BROKER_SERVER", value_name = "URL", default_value = fanfare::client::DEFAULT_URL)]
    pub(crate) broker: String,
    /// What the secrets of streams are made with; without it, a random key for as long as this runs
    #[arg(long, env = "CHAT_KEY", hide_env_values = true, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// How long a request waits for a dispatcher before it is published again; the fifth time it fails
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) claim_timeout: Duration,
    /// How often a stream without tokens shows that it is alive: below the 30 seconds and more after which
    /// proxies close an idle connection
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub(crate) heartbeat: Duration,
}

#[derive(Debug)]
struct Api {
    connections: Arc<Connections>,
    key: SecretKey,
    metrics: Arc<Metrics>,
    watch: Arc<Watch>,
    heartbeat: Duration,
}

pub(crate) async fn run(args: ApiArgs, stop: Stop) -> anyhow::Result<()> {
    let connections = Arc::new(Connections::open(&args.broker).await?);
    let metrics = Arc::<Metrics>::default();
    let watch = Watch::new(
        Arc::clone(&connections),
        Arc::clone(&metrics),
        args.claim_timeout,
    );
    let api = Arc::new(Api {
        connections,
        key: SecretKey::new(args.key.as_deref())?,
        metrics,
        watch: Arc::new(watch),
        heartbeat: args.heartbeat,
    });
    let routes = Router::new()
        .route("/v1/chat", post(chat))
        .route("/stream/{request_id}", get(stream))
        .route("/metrics", get(metrics_text))
        .route(
            "/",
            get(|| async { page("text/html", include_str!("page/page.html")) }),
        )
        .route(
            "/page.css",
            get(|| async { page("text/css", include_str!("page/page.css")) }),
        )
        .route(
            "/page.js",
            get(|| async { page("text/javascript", include_str!("page/page.js")) }),
        )
        .with_state(api);
    let listener = crate::listen("api", args.listen).await?;
    tokio::select! {
        served = axum::serve(listener, routes).into_future() => served?,
        // Streams that are cut off are resumed at the next API.
        () = stop.requested() => {}
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Chat {
    prompt: String,
    max_tokens: Option<i32>,
}

impl Chat {
    fn read(body: &[u8]) -> Result<Self, String> {
        // By way of a map, since serde would take a list for one as well.
        let chat = serde_json::from_slice::<Map<String, Value>>(body);
        let chat = chat.and_then(|chat| serde_json::from_value::<Self>(Value::Object(chat)));
        let chat = chat.map_err(|error| error.to_string())?;
        if chat.prompt.is_empty() {
            return Err("prompt is empty".to_owned());
        }
        if chat.max_tokens.is_some_and(|max| max < 0) {
            return Err("max_tokens is negative".to_owned());
        }
        Ok(chat)
    }

    fn job(self) -> anyhow::Result<Job> {
        Ok(Job {
            request_id: RequestId::random()?,
            prompt: self.prompt,
            max_tokens: self.max_tokens.unwrap_or_default(),
        })
    }
}

async fn chat(State(api): State<Arc<Api>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = body.map_err(|error| error.body_text());
    let refused = |error: String| answer(StatusCode::BAD_REQUEST, &json!({ "error": error }));
    let chat = match body.and_then(|body| Chat::read(&body)) {
        Ok(chat) => chat,
        Err(error) => return refused(error),
    };
    let enqueued = match chat.job().and_then(|job| Ok((job.message()?, job))) {
        Ok((message, _)) if message.payload.len() > JOB_BYTES_MAX => {
            let bytes = message.payload.len();
            return refused(format!(
                "a request of {bytes} bytes exceeds the limit of {JOB_BYTES_MAX}"
            ));
        }
        Ok((message, job)) => api.enqueue(message, job).await,
        Err(error) => Err(error),
    };
    enqueued.unwrap_or_else(|error| {
        eprintln!("api: enqueue failed: {error:#}");
        let error = json!({ "error": "enqueue failed" });
        answer(StatusCode::INTERNAL_SERVER_ERROR, &error)
    })
}

impl Api {
    async fn enqueue(&self, message: Message, job: Job) -> anyhow::Result<Response> {
        let id = job.request_id.clone();
        let receipt = self.connections.publish(message).await?;
        anyhow::ensure!(receipt.matched > 0, "there is no dispatcher");
        anyhow::ensure!(receipt.dropped == 0, "no dispatcher has room");
        let unknown = self.watch.over(&id, Some(job));
        unknown.context("too much is in progress")?;
        let mut response = answer(StatusCode::ACCEPTED, &json!({ "request_id": id }));
        let secret = self.key.secret(&id);
        let headers = response.headers_mut();
        headers.insert(SET_COOKIE, secret::cookie(&id, &secret)?);
        headers.insert(secret::HEADER, secret.parse()?);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    async fn open(&self, id: &RequestId, start: StartAt) -> anyhow::Result<Response> {
        let subscribe = Subscribe::new(id.response()).start_at(start);
        let messages = self.connections.subscribe(subscribe).await?;
        let unknown = self.watch.over(id, None);
        let unknown = unknown.context("too much is in progress")?;
        let reader = Reader::new(messages, start, unknown);
        Ok(reader.events(self.heartbeat).into_response())
    }
}

async fn stream(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let id = id.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.filter(|id: &RequestId| {
        let query = query.as_deref().unwrap_or_default();
        api.key.is_shown(id, &headers, query)
    });
    let Some(id) = id else {
        return answer(StatusCode::NOT_FOUND, &json!({ "error": "no such stream" }));
    };
    let last = headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    // An empty one is how some clients say that they have none.
    let last = last.filter(|last| !last.is_empty());
    let start = match last.map(events::after) {
        None => StartAt::All,
        Some(events::After::Cursor(cursor)) => StartAt::After(cursor),
        // What tells EventSource to stop.
        Some(events::After::End) => return StatusCode::NO_CONTENT.into_response(),
        Some(events::After::Unknown) => {
            let error = json!({ "error": "this is no id of an event" });
            return answer(StatusCode::BAD_REQUEST, &error);
        }
    };
    match api.open(&id, start).await {
        Ok(events) => events,
        Err(error) => {
            eprintln!("api: {id}: {error:#}");
            let error = json!({ "error": "no broker that can stream" });
            answer(StatusCode::SERVICE_UNAVAILABLE, &error)
        }
    }
}

async fn metrics_text(State(api): State<Arc<Api>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match api.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            eprintln!("api: {error:#}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn page(kind: &str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, PAGE_MAY.to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, text).into_response()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json")];
    (status, headers, Body::from(body.to_string())).into_response()
}
