//! `GET /`: the broker at a glance, as one page without foreign assets.
//!
//! The page is the same for everybody and holds no figures; it asks for them like any other caller. What it
//! shows may be anybody's text, so it is allowed to run its own script and nothing else.

use std::{fmt::Write, sync::LazyLock};

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use ring::digest::{SHA256, digest};

use super::Shared;

const BODY: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What stands in the body where the style and the script belong.
const STYLE_PLACE: &str = "/* style */";
const SCRIPT_PLACE: &str = "/* script */";

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = BODY.replace(STYLE_PLACE, STYLE);
    page.replace(SCRIPT_PLACE, SCRIPT)
});

/// The page's own style and script by their hashes, figures from where the page came from, and nothing
/// else from anywhere; nobody may frame it.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut policy = "default-src 'none'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; img-src data:"
        .to_owned();
    for (kind, text) in [("style", STYLE), ("script", SCRIPT)] {
        let hash = BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
        write!(policy, "; {kind}-src 'sha256-{hash}'").expect("writing to a string does not fail");
    }
    HeaderValue::try_from(policy).expect("a policy is plain text")
});

pub(super) async fn page() -> Response {
    let fixed = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    let headers = [
        fixed(header::CONTENT_TYPE, "text/html; charset=utf-8"),
        fixed(header::CACHE_CONTROL, "no-cache"),
        fixed(header::REFERRER_POLICY, "no-referrer"),
        fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
    ];
    (Extension(Shared), headers, PAGE.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between these two, once.
    fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
        let mut parts = text.split(start);
        let part = parts.nth(1).expect("it begins");
        assert!(parts.next().is_none(), "it begins once: {start}");
        part.split_once(end).expect("it ends").0
    }

    #[test]
    fn the_policy_allows_just_the_pages_own_style_and_script() {
        for (kind, start, end) in [
            ("style", "<style>", "</style>"),
            ("script", "<script>", "</script>"),
        ] {
            let hash =
                BASE64_STANDARD.encode(digest(&SHA256, between(&PAGE, start, end).as_bytes()));
            let allowed = format!("{kind}-src 'sha256-{hash}'");
            assert!(POLICY.to_str().unwrap().contains(&allowed), "{kind}");
        }
    }

    #[test]
    fn the_page_is_small_needs_nothing_foreign_and_makes_no_markup_of_text() {
        assert!(PAGE.len() < 64 * 1024, "{}", PAGE.len());
        let foreign = [
            "http:", "https:", "//cdn", "@import", "url(", "src=", "href=\"/",
        ];
        // The name of SVG's elements, which is fetched by nobody.
        let page = PAGE.replace("\"http://www.w3.org/2000/svg\"", "");
        let unsafe_ways = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "setAttribute(\"on",
            "srcdoc",
            "localStorage",
        ];
        for word in foreign.into_iter().chain(unsafe_ways) {
            assert!(!page.contains(word), "{word}");
        }
        // The policy would refuse them anyway.
        assert!(!page.contains(" style=\"") && !page.contains(" onclick="));
    }
}
