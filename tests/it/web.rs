//! What browsers and scripts are, as far as the broker can tell: HTTP/1.1 and HTTP/2 through hyper, and
//! server-sent events read as the HTML standard says.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, request};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::support::within;

type Body = BoxBody<Bytes, Infallible>;

/// Both versions, for what must be the same in both.
pub(crate) const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Web {
    address: SocketAddr,
    requests: Requests,
}

#[derive(Debug)]
enum Requests {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Web {
    pub(crate) async fn connect(address: SocketAddr, version: Version) -> Self {
        let socket = within(TcpStream::connect(address)).await.unwrap();
        let socket = TokioIo::new(socket);
        let requests = match version {
            Version::Http1 => {
                let (requests, connection) = within(http1::handshake(socket)).await.unwrap();
                tokio::spawn(connection);
                Requests::Http1(requests)
            }
            Version::Http2 => {
                let handshake = http2::handshake(TokioExecutor::new(), socket);
                let (requests, connection) = within(handshake).await.unwrap();
                tokio::spawn(connection);
                Requests::Http2(requests)
            }
        };
        Self { address, requests }
    }

    /// Another handle to an HTTP/2 connection, for requests at the same time.
    pub(crate) fn another(&self) -> Self {
        let Requests::Http2(requests) = &self.requests else {
            panic!("HTTP/1.1 has one request at a time");
        };
        Self {
            address: self.address,
            requests: Requests::Http2(requests.clone()),
        }
    }

    pub(crate) async fn http1(address: SocketAddr) -> Self {
        Self::connect(address, Version::Http1).await
    }

    pub(crate) fn get(&self, path: &str) -> request::Builder {
        Request::get(self.target(path)).header("host", self.address.to_string())
    }

    pub(crate) fn post(&self, path: &str) -> request::Builder {
        Request::post(self.target(path)).header("host", self.address.to_string())
    }

    /// HTTP/2 wants to know the scheme, HTTP/1.1 wants the path alone.
    fn target(&self, path: &str) -> String {
        match self.requests {
            Requests::Http1(_) => path.to_owned(),
            Requests::Http2(_) => format!("http://{}{path}", self.address),
        }
    }

    pub(crate) async fn send(&mut self, request: request::Builder, body: impl Into<Bytes>) -> Got {
        self.send_body(request, Full::new(body.into()).boxed())
            .await
    }

    /// Sends a request whose body comes in pieces, and how to send them.
    pub(crate) async fn send_in_pieces(
        &mut self,
        request: request::Builder,
        pieces: mpsc::Receiver<Bytes>,
    ) -> Got {
        let pieces = ReceiverStream::new(pieces).map(|piece| Ok(Frame::data(piece)));
        let body = BodyExt::boxed(StreamBody::new(pieces));
        self.send_body(request, body).await
    }

    async fn send_body(&mut self, request: request::Builder, body: Body) -> Got {
        let request = request.body(body).unwrap();
        let response = match &mut self.requests {
            Requests::Http1(requests) => {
                within(requests.ready()).await.unwrap();
                within(requests.send_request(request)).await
            }
            Requests::Http2(requests) => {
                within(requests.ready()).await.unwrap();
                within(requests.send_request(request)).await
            }
        };
        let (head, body) = response.unwrap().into_parts();
        Got {
            status: head.status,
            headers: head.headers,
            body,
            received: BytesMut::new(),
            last_id: String::new(),
        }
    }

    /// Publishes, and returns what became of the message.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Value {
        let got = self
            .send(self.post(&format!("/v1/topics/{topic}")), payload)
            .await;
        assert_eq!(got.status, 200, "{:?}", got.headers);
        got.json().await
    }

    /// Opens a stream; live when it returns.
    pub(crate) async fn open(&mut self, path: &str) -> Got {
        let got = self.send(self.get(path), "").await;
        let status = got.status;
        if status != 200 {
            panic!("{status}: {}", got.text().await);
        }
        got
    }
}

/// An answer, read piece by piece.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    received: BytesMut,
    last_id: String,
}

/// One thing in a stream of server-sent events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// `message` if the stream does not say.
    pub(crate) event: String,
    pub(crate) data: String,
    /// The last event id once this has been seen.
    pub(crate) id: String,
}

/// What a block of a stream of events is, beside events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Event(Event),
    /// Nothing is dispatched, but the last event id may have changed.
    Silent {
        id: String,
    },
    Comment,
    Retry(u64),
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next piece of the body; `None` at its end, an error if it broke off.
    pub(crate) async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match within(self.body.frame()).await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// All of the body.
    pub(crate) async fn bytes(mut self) -> Bytes {
        let mut body = self.received.split();
        while let Some(piece) = self.piece().await {
            body.extend_from_slice(&piece.unwrap());
        }
        body.freeze()
    }

    pub(crate) async fn text(self) -> String {
        String::from_utf8(self.bytes().await.to_vec()).unwrap()
    }

    pub(crate) async fn json(self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next line, without its end; `None` at the end of the body.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.split_to(end + 1);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            match self.piece().await {
                Some(piece) => self.received.extend_from_slice(&piece.unwrap()),
                None => {
                    assert!(self.received.is_empty(), "a body ends with a line");
                    return None;
                }
            }
        }
    }

    /// The next line of JSON.
    pub(crate) async fn json_line(&mut self) -> Option<Value> {
        let line = self.line().await?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next block of a stream of events; `None` at its end. As "9.2.6 Interpreting an event stream"
    /// of the HTML standard says, but that lines end with a line feed alone: the broker writes no other.
    pub(crate) async fn block(&mut self) -> Option<Block> {
        let (mut event, mut data, mut retry) = (String::new(), String::new(), None);
        let mut has_comment = false;
        loop {
            let line = self.line().await?;
            assert!(!line.contains('\r'), "{line:?}");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => has_comment = true,
                "event" => event = value.to_owned(),
                "data" => data += &format!("{value}\n"),
                "id" => self.last_id = value.to_owned(),
                "retry" => retry = Some(value.parse().unwrap()),
                _ => panic!("what is {line:?}?"),
            }
        }
        let id = self.last_id.clone();
        Some(if let Some(data) = data.strip_suffix('\n') {
            Block::Event(Event {
                event: if event.is_empty() {
                    "message".to_owned()
                } else {
                    event
                },
                data: data.to_owned(),
                id,
            })
        } else if let Some(retry) = retry {
            Block::Retry(retry)
        } else if has_comment {
            Block::Comment
        } else {
            Block::Silent { id }
        })
    }

    /// The next event; `None` at the stream's end.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Block::Event(event) = self.block().await? {
                return Some(event);
            }
        }
    }

    /// The next event's type and data.
    pub(crate) async fn told(&mut self) -> (String, String) {
        let event = self.event().await.expect("the stream goes on");
        (event.event, event.data)
    }

    /// The last event id so far.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }
}
