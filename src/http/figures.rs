//! `GET /v1/stats`, `/v1/topics` and `/v1/subscribers`: the broker in figures, as JSON, for the page, for
//! `broker top` and for scripts.
//!
//! Lists have as many rows as are asked for, and a bound on that: whoever looks for one topic among a
//! hundred thousand searches.

use std::{str::FromStr, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    broker::{Broker, SubscriptionQuery, TopicOrder, TopicQuery},
    grpc::Readiness,
    metrics::Metrics,
    process::Usage,
    wire::figures::{Process, Stats, SubscriberList, TopicList},
};

/// Rows of a list, where nobody asks for more or fewer: a screen or two.
const ROWS: usize = 100;
/// Who wants more rows than this wants the metrics, or a search.
const ROWS_MAX: usize = 1_000;

/// Where the figures come from.
#[derive(Debug)]
pub(crate) struct Figures {
    broker: Broker,
    pub(super) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
    connections_max: usize,
    started: Instant,
}

impl Figures {
    /// Of a broker that serves from now on, so many connections at most.
    pub(crate) fn new(
        broker: &Broker,
        metrics: &Arc<Metrics>,
        readiness: &Readiness,
        connections_max: usize,
    ) -> Self {
        Self {
            broker: broker.clone(),
            metrics: Arc::clone(metrics),
            readiness: readiness.clone(),
            connections_max,
            started: Instant::now(),
        }
    }
}

pub(super) fn routes(
    figures: Arc<Figures>,
    guarded: impl Fn(MethodRouter) -> MethodRouter,
) -> Router {
    Router::new()
        .route(
            "/v1/stats",
            guarded(get(stats).with_state(Arc::clone(&figures))),
        )
        .route(
            "/v1/topics",
            guarded(get(topics).with_state(Arc::clone(&figures))),
        )
        .route(
            "/v1/subscribers",
            guarded(get(subscribers).with_state(figures)),
        )
}

async fn stats(State(figures): State<Arc<Figures>>) -> Response {
    let Figures {
        broker, metrics, ..
    } = &*figures;
    let known = Stats::of(&broker.snapshot(), broker.limits());
    let used = Usage::of(std::process::id()).ok();
    let count = |gauge: i64| gauge.try_into().unwrap_or_default();
    let rejected = metrics.rejected().filter(|(_, count)| *count > 0);
    let mut limits = known.limits;
    limits.connections_max = figures.connections_max as u64;
    json(&Stats {
        uptime_s: figures.started.elapsed().as_secs_f64(),
        ready: figures.readiness.is_ready(),
        connections: count(metrics.connections.get()),
        streams: count(metrics.streams.get()),
        rejected: rejected
            .map(|(limit, count)| (limit.to_owned(), count))
            .collect(),
        process: Process {
            resident_bytes: used.map(|used| used.rss_bytes),
            cpu_s: used.map(|used| used.cpu.as_secs_f64()),
        },
        limits,
        ..known
    })
}

async fn topics(
    State(figures): State<Arc<Figures>>,
    RawQuery(query): RawQuery,
) -> Result<Response, BadQuery> {
    let query = Query::parse(query.as_deref(), &["search", "sort", "limit"])?;
    let list = figures.broker.topics(
        &TopicQuery {
            search: query.text("search").to_owned(),
            order: match query.text("sort") {
                "" | "rate" => TopicOrder::Rate,
                "name" => TopicOrder::Name,
                other => return Err(BadQuery::new("sort", other, "`rate` or `name`")),
            },
            limit: query.limit()?,
        },
        figures.started.elapsed(),
    );
    Ok(json(&TopicList::from(list)))
}

async fn subscribers(
    State(figures): State<Arc<Figures>>,
    RawQuery(query): RawQuery,
) -> Result<Response, BadQuery> {
    let query = Query::parse(query.as_deref(), &["search", "limit"])?;
    let list = figures.broker.subscriptions(&SubscriptionQuery {
        search: query.text("search").to_owned(),
        limit: query.limit()?,
    });
    Ok(json(&SubscriberList::of(list, SystemTime::now())))
}

fn json(answer: &impl Serialize) -> Response {
    let body = serde_json::to_vec(answer).expect("figures have no keys but text");
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// What follows the `?` of a request.
struct Query(Vec<(String, String)>);

impl Query {
    /// Each of these parameters once at most, and no others: a misspelt one must not be taken for none.
    fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, BadQuery> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(BadQuery {
                    field: name.into_owned(),
                    message: format!("there is no such parameter: use {}", known.join(", ")),
                });
            }
            if pairs.iter().any(|(seen, _)| *seen == name) {
                return Err(BadQuery {
                    field: name.into_owned(),
                    message: "the parameter is given twice".to_owned(),
                });
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    fn text(&self, name: &str) -> &str {
        let mut pairs = self.0.iter();
        pairs
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    fn limit(&self) -> Result<usize, BadQuery> {
        match self.text("limit") {
            "" => Ok(ROWS),
            text => usize::from_str(text)
                .ok()
                .filter(|limit| *limit <= ROWS_MAX)
                .ok_or_else(|| BadQuery::new("limit", text, &format!("0 to {ROWS_MAX}"))),
        }
    }
}

/// A query that the caller must change.
#[derive(Debug)]
struct BadQuery {
    field: String,
    message: String,
}

impl BadQuery {
    fn new(field: &str, found: &str, wanted: &str) -> Self {
        Self {
            field: field.to_owned(),
            message: format!("{field} `{found}` is not {wanted}"),
        }
    }
}

impl IntoResponse for BadQuery {
    fn into_response(self) -> Response {
        let error = serde_json::json!({"error": {
            "code": "INVALID_ARGUMENT",
            "message": self.message,
            "field": self.field,
        }});
        (StatusCode::BAD_REQUEST, json(&error)).into_response()
    }
}
