//! Whose web pages may use the broker.
//!
//! A browser lets any page send simple requests to any address that it can reach, a broker on the reader's
//! own machine included; the same-origin policy only keeps the answers from the page. So a request that a
//! browser marks as another origin's is refused, unless the operator allows that origin; and for one that
//! is allowed, the answers say so (CORS). What a page's markup or a link loads comes without its origin: of
//! such a request the browser says only whether the page is of another site, and then it is refused unless
//! all origins are allowed. Programs are not browsers, send none of this, and are not concerned.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::error::HttpError;
use crate::{grpc, wire::metadata};

/// How long a browser may remember that it may ask: as long as Chromium does at most.
const PREFLIGHT_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// How much of a foreign origin its refusal repeats.
const ORIGIN_CHARS_SHOWN_MAX: usize = 128;

/// What a browser says of the page that asks, and no script can set (Fetch Metadata Request Headers).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// An origin whose web pages may use the broker: `https://example.com`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Allowed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Any,
    One(HeaderValue),
}

/// A text that no browser sends as an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is a scheme and a host, as browsers send it: `https://example.com`; or `*` for any"
)]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self(Allowed::Any));
        }
        let uri: Uri = text.parse().map_err(|_| OriginError)?;
        // Written as browsers write it, since it is compared as text.
        let is_origin = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => {
                text == format!("{scheme}://{authority}")
                    && text == text.to_ascii_lowercase()
                    && !authority.as_str().contains('@')
            }
            _ => false,
        };
        let value = HeaderValue::from_str(text).ok().filter(|_| is_origin);
        Ok(Self(Allowed::One(value.ok_or(OriginError)?)))
    }
}

/// All origins that are allowed beside the broker's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(Vec<Allowed>);

impl Origins {
    pub(crate) fn new(origins: &[Origin]) -> Self {
        Self(origins.iter().map(|origin| origin.0.clone()).collect())
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|allowed| match allowed {
            Allowed::Any => true,
            Allowed::One(value) => value == origin,
        })
    }

    fn allow_any(&self) -> bool {
        self.0.contains(&Allowed::Any)
    }

    /// What tells browsers so; `None` if no origin is allowed.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        if self.0.is_empty() {
            return None;
        }
        let values: Option<Vec<_>> = self.0.iter().map(Allowed::value).collect();
        let origins = values.map_or_else(AllowOrigin::any, AllowOrigin::list);
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST])
            // The names of attributes are the application's own.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_AGE);
        Some(layer)
    }
}

impl Allowed {
    fn value(&self) -> Option<HeaderValue> {
        match self {
            Self::Any => None,
            Self::One(value) => Some(value.clone()),
        }
    }
}

/// What scripts may read of an answer beside what they always may: gRPC-Web's status, and what we say.
const EXPOSED: [HeaderName; 10] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static(metadata::MAILBOX_CAPACITY),
    HeaderName::from_static(metadata::MAILBOX_BYTES),
    HeaderName::from_static(metadata::EPOCH),
    HeaderName::from_static(metadata::HEAD_SEQUENCE),
    HeaderName::from_static(metadata::CURSOR),
    HeaderName::from_static(metadata::MISSED),
    header::RETRY_AFTER,
];

/// Middleware: refuses calls in gRPC-Web, wherever they go, as [`refuse_foreign_origins`] does. A plain gRPC
/// call is a program's, though it may carry an origin: of the page whose call a proxy has translated.
pub(crate) async fn refuse_foreign_calls(
    origins: State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    if grpc::is_grpc_web(request.headers()) {
        refuse_foreign_origins(origins, request, next).await
    } else {
        next.run(request).await
    }
}

/// Middleware: refuses what a web page of an origin asks that is not allowed.
pub(super) async fn refuse_foreign_origins(
    State(origins): State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    match foreign_origin(&request, &origins) {
        Some(origin) => HttpError::ForeignOrigin { origin }.into_response(),
        None => next.run(request).await,
    }
}

/// The origin of the page that asks, if it may not.
fn foreign_origin(request: &Request, origins: &Origins) -> Option<String> {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else {
        let site = headers.get(SEC_FETCH_SITE)?;
        let is_own = site == "same-origin" || site == "none";
        return (!is_own && !origins.allow_any()).then(|| "another site".to_owned());
    };
    if is_own(origin, request.uri(), headers) || origins.allow(origin) {
        return None;
    }
    let origin = String::from_utf8_lossy(origin.as_bytes());
    Some(origin.chars().take(ORIGIN_CHARS_SHOWN_MAX).collect())
}

/// Whether the page came from here. The browser says so itself where it can (no script can set that header);
/// else the page's host must be the one that is asked. The scheme may have been changed on the way.
fn is_own(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = uri.authority().map(|host| host.as_str()).or(host);
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, page)), Some(host)) => page.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for text in [
            "https://example.com",
            "http://localhost:3000",
            "app://x",
            "*",
        ] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for text in [
            "",
            "example.com",
            "https://example.com/",
            "https://example.com/page",
            "https://Example.com",
            "https://me@example.com",
            "https://",
            "null",
            "https://a b",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text}");
        }
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], allowed: &[&str], expected: Option<&str>) {
        let mut request = Request::new(axum::body::Body::empty());
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(*name, value);
        }
        let allowed: Vec<Origin> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let foreign = foreign_origin(&request, &Origins::new(&allowed));
        assert_eq!(foreign.as_deref(), expected);
    }

    #[test]
    fn pages_from_here_and_from_allowed_origins_may_ask_and_programs_always() {
        let page = |origin| [("host", "broker:1234"), ("origin", origin)];
        check(&[("host", "broker:1234")], &[], None);
        check(&page("http://broker:1234"), &[], None);
        check(&page("https://broker:1234"), &[], None);
        check(&page("http://broker:80"), &[], Some("http://broker:80"));
        check(
            &page("https://evil.example"),
            &[],
            Some("https://evil.example"),
        );
        check(&page("null"), &["https://a.example"], Some("null"));
        check(
            &page("https://a.example"),
            &["https://b.example", "https://a.example"],
            None,
        );
        check(&page("https://evil.example"), &["*"], None);
    }

    #[test]
    fn what_the_browser_says_of_the_page_counts_before_its_host() {
        let page = |site| {
            [
                ("host", "upstream:1234"),
                ("origin", "https://site.example"),
                ("sec-fetch-site", site),
            ]
        };
        check(&page("same-origin"), &[], None);
        check(&page("same-site"), &[], Some("https://site.example"));
        check(&page("cross-site"), &[], Some("https://site.example"));
    }

    #[test]
    fn what_markup_and_links_of_another_site_load_is_refused_though_no_origin_is_said() {
        let load = |site| [("host", "broker:1234"), (SEC_FETCH_SITE, site)];
        // Typed into the address bar, or loaded by the broker's own page.
        check(&load("none"), &[], None);
        check(&load("same-origin"), &[], None);
        for site in ["cross-site", "same-site"] {
            check(&load(site), &[], Some("another site"));
            check(&load(site), &["https://a.example"], Some("another site"));
            check(&load(site), &["*"], None);
        }
    }
}
