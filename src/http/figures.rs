//! `GET /v1/stats`, `/v1/topics` and `/v1/subscribers`: the broker in figures, as JSON, for the page, for
//! `broker top` and for scripts.
//!
//! They need the right that the metrics need, where rights are asked for. Lists have as many rows as are
//! asked for, and a bound on that: whoever looks for one topic among a hundred thousand searches. That takes
//! milliseconds, so it is done beside the threads that serve connections, one list after the other, and for each
//! connection one at a time: many who look delay each other, and nobody who publishes or subscribes.

use std::{sync::Arc, time::SystemTime};

use axum::{
    extract::{Extension, RawQuery, State},
    response::Response,
};
use http::HeaderMap;
use tokio::time::Instant;

use super::{
    Api, Share,
    error::HttpError,
    json_response,
    query::{choose, number, once, parameters, unknown_parameter},
};
use crate::{
    auth::Right,
    broker::{Broker, SubscriptionQuery, TopicOrder, TopicQuery},
    grpc::Readiness,
    process::Usage,
    service::{ConnectionShare, PubSub},
    wire::{
        InvalidField,
        figures::{Process, Stats, SubscriberList, TopicList},
    },
};

/// Rows of a list, where nobody asks for more or fewer: a screen or two.
const ROWS: usize = 100;
/// Who wants more rows than this wants the metrics, or a search.
const ROWS_MAX: usize = 1_000;

/// What the broker does not know of the process that it is in.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) readiness: Readiness,
    /// The most open connections.
    pub(crate) connections_max: usize,
    /// When it began to serve.
    pub(crate) started: Instant,
}

pub(super) async fn stats(
    State(api): State<Api>,
    Extension(share): Share,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    Asked::by(&api, &share, &headers, query.as_deref(), &[])?;
    let PubSub {
        broker, metrics, ..
    } = &*api.service;
    let known = Stats::of(&broker.snapshot(), broker.limits());
    let used = Usage::of(std::process::id()).ok();
    let count = |gauge: i64| gauge.try_into().unwrap_or_default();
    let rejected = metrics.rejected().filter(|(_, count)| *count > 0);
    let mut limits = known.limits;
    limits.connections_max = api.host.connections_max as u64;
    Ok(json_response(&Stats {
        uptime_s: api.host.started.elapsed().as_secs_f64(),
        ready: api.host.readiness.is_ready(),
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
    }))
}

pub(super) async fn topics(
    State(api): State<Api>,
    Extension(share): Share,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let known = ["search", "limit", "sort"];
    let asked = Asked::by(&api, &share, &headers, query.as_deref(), &known)?;
    let query = TopicQuery {
        search: asked.search,
        order: asked.sort.unwrap_or_default(),
        limit: asked.limit.unwrap_or(ROWS),
    };
    let now = api.host.started.elapsed();
    let list = move |broker: &Broker| json_response(&TopicList::from(broker.topics(&query, now)));
    Ok(beside(&api, &share, list).await)
}

pub(super) async fn subscribers(
    State(api): State<Api>,
    Extension(share): Share,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let known = ["search", "limit"];
    let asked = Asked::by(&api, &share, &headers, query.as_deref(), &known)?;
    let query = SubscriptionQuery {
        search: asked.search,
        limit: asked.limit.unwrap_or(ROWS),
    };
    let list = move |broker: &Broker| {
        let list = broker.subscriptions(&query);
        json_response(&SubscriberList::of(list, SystemTime::now()))
    };
    Ok(beside(&api, &share, list).await)
}

/// Makes an answer on a thread of its own, when it is the connection's turn, and its turn among all.
async fn beside(
    api: &Api,
    share: &ConnectionShare,
    answer: impl FnOnce(&Broker) -> Response + Send + 'static,
) -> Response {
    let _turn = share.turn_to_look().await;
    let looking = Arc::clone(&api.looking).acquire_owned().await;
    let service = Arc::clone(&api.service);
    let answered = tokio::task::spawn_blocking(move || {
        // Until it is made, whether or not somebody still waits for it.
        let _looking = looking.expect("it is never closed");
        answer(&service.broker)
    });
    answered
        .await
        .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

/// What somebody asks for who has the right to.
#[derive(Debug, Default)]
struct Asked {
    search: String,
    limit: Option<usize>,
    sort: Option<TopicOrder>,
}

impl Asked {
    fn by(
        api: &Api,
        share: &ConnectionShare,
        headers: &HeaderMap,
        query: Option<&str>,
        known: &[&str],
    ) -> Result<Self, HttpError> {
        let permitted = api.service.permit(headers, share).and_then(|permit| {
            let required = permit.map(|mut permit| permit.require(Right::Metrics));
            required.unwrap_or(Ok(()))
        });
        permitted.map_err(|error| HttpError::from(error).count(&api.service.metrics))?;
        Ok(Self::parse(query.unwrap_or_default(), known)?)
    }

    fn parse(query: &str, known: &[&str]) -> Result<Self, InvalidField> {
        let mut asked = Self::default();
        let mut search = None;
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            match &*name {
                "search" if known.contains(&"search") => {
                    once("search", &mut search, value.into_owned())?;
                }
                "limit" if known.contains(&"limit") => {
                    let limit = number("limit", &value)?;
                    if limit > ROWS_MAX {
                        let reason = format!("limit of {limit} exceeds {ROWS_MAX}");
                        return Err(InvalidField::new("limit", reason));
                    }
                    once("limit", &mut asked.limit, limit)?;
                }
                "sort" if known.contains(&"sort") => {
                    let orders = [("rate", TopicOrder::Rate), ("name", TopicOrder::Name)];
                    once("sort", &mut asked.sort, choose("sort", &value, &orders)?)?;
                }
                _ => return Err(unknown_parameter(&name)),
            }
        }
        asked.search = search.unwrap_or_default();
        Ok(asked)
    }
}
