//! Requests, their fields and their bodies: RFC 9113, section 8.

use super::*;

const MALFORMED: Must = Reset(1, PROTOCOL_ERROR);
const SCHEME_HTTPS: u8 = 0x87;

/// A request without a body, of these fields.
fn request(fields: &[Vec<u8>]) -> Vec<Step> {
    vec![headers(WHOLE, 1, &fields.concat())]
}

/// `GET /health` and one field more.
fn with(name: &str, value: &str) -> Vec<Step> {
    vec![headers(WHOLE, 1, &get_with(&[field(name, value)]))]
}

fn method(name: &str) -> Vec<u8> {
    field(":method", name)
}

fn scheme() -> Vec<u8> {
    vec![SCHEME_HTTP]
}

fn path(path: &str) -> Vec<u8> {
    field(":path", path)
}

fn authority() -> Vec<u8> {
    field(":authority", "a")
}

/// A call to publish, and what it says after its body.
fn with_trailers(flags: u8, block: &[u8]) -> Vec<Step> {
    vec![publish(1), data(0, 1, &body()), headers(flags, 1, block)]
}

#[tokio::test]
async fn a_message_is_a_head_a_body_and_trailers() {
    let whole = || with_trailers(WHOLE, &field("x", "y"));
    let in_parts = vec![
        continuation(0, 1, &[0, 1]),
        continuation(END_HEADERS, 1, b"x\x01y"),
    ];
    let trailers = |name, value| with_trailers(WHOLE, &field(name, value));
    check(cases! {
        "8.1" "a GET": request(&[get()]) => Answer(200);
        "8.1" "a HEAD": request(&[method("HEAD"), scheme(), path("/health"), authority()]) => Answer(200);
        "8.1" "a POST with its body": [publish(1), data(END_STREAM, 1, &body())] => Succeed;
        "8.1" "an answer that does not wait for a body":
            [headers(END_HEADERS, 1, &get()), HearEnd(1), HearReset(1)] => Reset(1, NO_ERROR);
        "8.1" "one with trailers": whole() => Succeed;
        "8.1" "trailers in three frames": [with_trailers(END_STREAM, &[]), in_parts].concat() => Succeed;
        "8.1" "trailers without fields": with_trailers(WHOLE, &[]) => Succeed;
        "8.1" "headers that are not the last": with_trailers(END_HEADERS, &field("x", "y")) => MALFORMED;
        "8.1" "a second head": [open(), headers(END_HEADERS, 1, &get())] => MALFORMED;
        "8.1" "a pseudo-header in trailers": trailers(":method", "GET") => MALFORMED;
        "8.1" "an unknown one in trailers": trailers(":x", "y") => MALFORMED;
        "8.1" "a status in trailers": trailers(":status", "200") => MALFORMED;
        "8.2.1" "capitals in trailers": trailers("X", "y") => MALFORMED;
        "8.2.1" "a line's end in trailers": trailers("x", "a\nb") => MALFORMED;
        "8.2.2" "a connection's field in trailers": trailers("connection", "close") => MALFORMED;
    })
    .await;
}

#[tokio::test]
async fn names_and_values_are_what_http_allows() {
    check(cases! {
        "8.2.1" "capitals": with("X-Name", "y") => MALFORMED;
        "8.2.1" "no name": with("", "y") => MALFORMED;
        "8.2.1" "a space in a name": with("a b", "y") => MALFORMED;
        "8.2.1" "a colon in a name": with("a:b", "y") => MALFORMED;
        "8.2.1" "a line's end in a name": with("a\n", "y") => MALFORMED;
        "8.2.1" "a control character in a name": with("a\x7f", "y") => MALFORMED;
        "8.2.1" "a letter beyond ASCII in a name": with("\u{e4}", "y") => MALFORMED;
        "8.2.1" "a NUL in a value": with("x", "a\0b") => MALFORMED;
        "8.2.1" "a line's end in a value": with("x", "a\nb") => MALFORMED;
        "8.2.1" "a carriage's return in a value": with("x", "a\rb") => MALFORMED;
        "8.2.1" "an empty value": with("x", "") => Answer(200);
        "8.2.1" "a letter beyond ASCII in a value": with("x", "\u{e4}") => Answer(200);
        // gRPC's metadata may have them (its own specification asks to strip them, and not to fail).
        "8.2.1" "spaces around a value": with("x", " y ") => Answer(200);
        "8.2.3" "a cookie in pieces":
            request(&[get(), field("cookie", "a=1"), field("cookie", "b=2")]) => Answer(200);
    })
    .await;
}

#[tokio::test]
async fn fields_of_http_1_connections_are_malformed() {
    check(cases! {
        "8.2.2" "connection": with("connection", "keep-alive") => MALFORMED;
        "8.2.2" "keep-alive": with("keep-alive", "5") => MALFORMED;
        "8.2.2" "proxy-connection": with("proxy-connection", "close") => MALFORMED;
        "8.2.2" "transfer-encoding": with("transfer-encoding", "chunked") => MALFORMED;
        "8.2.2" "upgrade": with("upgrade", "h2c") => MALFORMED;
        "8.2.2" "te with another word": with("te", "trailers, deflate") => MALFORMED;
        "8.2.2" "te for trailers": with("te", "trailers") => Answer(200);
    })
    .await;
}

#[tokio::test]
async fn pseudo_headers_say_what_is_asked_for() {
    let head = |method, path: &str| {
        request(&[
            field(":method", method),
            scheme(),
            field(":path", path),
            authority(),
        ])
    };
    let of = |authority| {
        request(&[
            vec![METHOD_GET],
            scheme(),
            path("/health"),
            field(":authority", authority),
        ])
    };
    check(cases! {
        "8.3" "one that nobody knows": with(":x", "y") => MALFORMED;
        "8.3" "one of answers": with(":status", "200") => MALFORMED;
        "8.3" "one of an extension that was not offered": with(":protocol", "websocket") => MALFORMED;
        "8.3" "one after a field":
            request(&[vec![METHOD_GET], scheme(), path("/health"), field("x", "y"), authority()]) => MALFORMED;
        "8.3.1" "no method": request(&[scheme(), path("/health"), authority()]) => MALFORMED;
        "8.3.1" "no scheme": request(&[vec![METHOD_GET], path("/health"), authority()]) => MALFORMED;
        "8.3.1" "no path": request(&[vec![METHOD_GET], scheme(), authority()]) => MALFORMED;
        "8.3.1" "no authority": request(&[vec![METHOD_GET], scheme(), path("/health")]) => Answer(200);
        "8.3.1" "a host instead of it":
            request(&[vec![METHOD_GET], scheme(), path("/health"), field("host", "a")]) => Answer(200);
        "8.3.1" "two methods": request(&[get(), vec![METHOD_GET]]) => MALFORMED;
        "8.3.1" "two schemes": request(&[get(), scheme()]) => MALFORMED;
        "8.3.1" "two paths": request(&[get(), path("/health")]) => MALFORMED;
        "8.3.1" "two authorities": request(&[get(), authority()]) => MALFORMED;
        "8.3.1" "another scheme":
            request(&[vec![METHOD_GET, SCHEME_HTTPS], path("/health"), authority()]) => Answer(200);
        "8.3.1" "an empty method": head("", "/health") => MALFORMED;
        "8.3.1" "a method of two words": head("GET IT", "/health") => MALFORMED;
        "8.3.1" "an empty path": head("GET", "") => MALFORMED;
        "8.3.1" "a path without its slash": head("GET", "health") => MALFORMED;
        "8.3.1" "a path with a space": head("GET", "/a b") => MALFORMED;
        "8.3.1" "nothing but a query": head("GET", "?a") => MALFORMED;
        "8.3.1" "the path that is all of a server": head("OPTIONS", "*") => Answer(404);
        "8.3.1" "a path with a query": head("GET", "/health?a") => Answer(200);
        "8.3.1" "an authority with a port": of("a:1") => Answer(200);
        "8.3.1" "an authority with a user": of("u@a") => MALFORMED;
        "8.3.1" "an authority of two words": of("a b") => MALFORMED;
        // There is no tunnel here, and no other use of a request without a path.
        "8.5" "a tunnel": request(&[method("CONNECT"), authority()]) => MALFORMED;
    })
    .await;
}

#[tokio::test]
async fn a_body_is_as_long_as_it_was_said_to_be() {
    let bytes = body().len();
    let (first, rest) = (body()[..3].to_vec(), body()[3..].to_vec());
    let publish = |length: usize| {
        let block = [
            attack::grpc_request(PUBLISH),
            field("content-length", &length.to_string()),
        ]
        .concat();
        headers(END_HEADERS, 1, &block)
    };
    let get = |length: &str| with("content-length", length);
    let last = |content: &[u8]| data(END_STREAM, 1, content);
    let trailers = || headers(WHOLE, 1, &field("x", "y"));
    check(cases! {
        "8.1.1" "as long": [publish(bytes), last(&body())] => Succeed;
        "8.1.1" "as long in two frames": [publish(bytes), data(0, 1, &first), last(&rest)] => Succeed;
        "8.1.1" "as long before trailers": [publish(bytes), data(0, 1, &body()), trailers()] => Succeed;
        "8.1.1" "shorter": [publish(bytes + 1), last(&body())] => MALFORMED;
        "8.1.1" "shorter in two frames": [publish(bytes + 1), data(0, 1, &first), last(&rest)] => MALFORMED;
        "8.1.1" "shorter before trailers": [publish(bytes + 1), data(0, 1, &body()), trailers()] => MALFORMED;
        "8.1.1" "longer": [publish(bytes - 1), last(&body())] => MALFORMED;
        "8.1.1" "longer in two frames": [publish(bytes - 1), data(0, 1, &first), last(&rest)] => MALFORMED;
        "8.1.1" "none, as said": get("0") => Answer(200);
        "8.1.1" "none, against what was said": get("1") => MALFORMED;
        "8.1.1" "no number": get("x") => MALFORMED;
        "8.1.1" "a number with its sign": get("+0") => MALFORMED;
        "8.1.1" "nothing said": get("") => MALFORMED;
        "8.1.1" "two lengths":
            request(&[super::get(), field("content-length", "0"), field("content-length", "1")]) => MALFORMED;
        "8.1.1" "the same twice":
            request(&[super::get(), field("content-length", "0"), field("content-length", "0")]) => Answer(200);
    })
    .await;
}

/// Larger than the broker has said to allow, and far larger than any request is by mistake.
#[tokio::test]
async fn a_list_of_fields_has_a_limit() {
    let value = "y".repeat(255);
    // Each counts 32 bytes beside its name and value: 56 of them and the request are just below 16 KiB.
    let of = |count: usize| {
        let fields = [&[0, 1, b'x', 0x7f, 0x80, 0x01], value.as_bytes()].concat();
        [get(), fields.repeat(count)].concat()
    };
    let goes_on = || continuation(0, 1, &of(60));
    check(cases! {
        "10.5.1" "as much as allowed": [headers(WHOLE, 1, &of(56))] => Answer(200);
        "10.5.1" "more": [headers(WHOLE, 1, &of(57))] => Answer(431);
        "10.5.1" "more than any header block is":
            [headers(END_STREAM, 1, &of(60)), goes_on(), goes_on()] => End(ENHANCE_YOUR_CALM);
    })
    .await;
}
