//! Clients that do what no gRPC library would: stall, freeze, break off, send half of things. HTTP/2
//! through `h2`, with flow control in the test's hands, and bare sockets below that.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fanfare::wire::pb::{SubscribeRequest, SubscribeResponse};
use h2::{
    RecvStream, SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode, request};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tonic::{Code, Status};

use crate::support::within;

pub(crate) const PUBLISH: &str = "/pubsub.v1.PubSubService/Publish";
pub(crate) const SUBSCRIBE: &str = "/pubsub.v1.PubSubService/Subscribe";
/// The first bytes of every HTTP/2 connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A window that nothing here fills.
pub(crate) const OPEN: u32 = 1 << 30;

/// One HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Raw {
    address: SocketAddr,
    requests: SendRequest<Bytes>,
    commands: mpsc::Sender<Command>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

#[derive(Debug)]
enum Command {
    SetWindow(u32),
    Freeze,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with_window(address, OPEN).await
    }

    /// Lets the broker send `window` bytes on each stream, and no more until
    /// [`set_window`](Self::set_window). Pings are answered.
    pub(crate) async fn connect_with_window(address: SocketAddr, window: u32) -> Self {
        let socket = within(TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::connect_on(socket, address, window).await
    }

    /// The same on a stream that is there already.
    pub(crate) async fn connect_on<S>(stream: S, address: SocketAddr, window: u32) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(OPEN)
            .handshake(stream);
        let (requests, connection) = within(handshake).await.unwrap();
        let (commands, received) = mpsc::channel(1);
        Self {
            address,
            requests,
            commands,
            connection: tokio::spawn(drive(connection, received)),
        }
    }

    /// Allows `window` bytes on each stream, those that are open included.
    pub(crate) async fn set_window(&self, window: u32) {
        self.commands
            .send(Command::SetWindow(window))
            .await
            .unwrap();
    }

    /// Neither reads nor writes any more, but keeps the socket open.
    pub(crate) async fn freeze(&self) {
        self.commands.send(Command::Freeze).await.unwrap();
    }

    /// Closes the socket without a word.
    pub(crate) fn kill(&self) {
        self.connection.abort();
    }

    /// Waits until the connection is over.
    pub(crate) async fn closed(&mut self) -> Result<(), h2::Error> {
        within(&mut self.connection).await.unwrap()
    }

    /// Sends the headers of a request, with more to come.
    pub(crate) async fn start(&mut self, request: request::Builder) -> Call {
        self.begin(request, false).await
    }

    async fn begin(&mut self, request: request::Builder, whole: bool) -> Call {
        let request = request.body(()).unwrap();
        let ready = self.requests.clone().ready();
        let mut requests = within(ready).await.unwrap();
        let (response, body) = requests.send_request(request, whole).unwrap();
        Call { response, body }
    }

    /// A gRPC request's headers.
    pub(crate) fn grpc(&self, path: &str) -> request::Builder {
        Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    }

    /// Sends a request with all of its body.
    pub(crate) async fn call(&mut self, request: request::Builder, body: Bytes) -> Response {
        // An answer may come, and end the stream, before an empty body could be sent.
        let mut call = self.begin(request, body.is_empty()).await;
        if !body.is_empty() {
            call.send(body, true);
        }
        call.response().await
    }

    /// A gRPC call that is refused, or answered with one message: its status.
    pub(crate) async fn status_of(&mut self, request: request::Builder, body: Bytes) -> Status {
        self.call(request, body).await.finished().await.1
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("http://{}{path}", self.address));
        let response = self.call(request, Bytes::new()).await;
        (response.status, response.text().await)
    }

    /// Subscribes; live when it returns.
    pub(crate) async fn subscribe(&mut self, request: SubscribeRequest) -> Response {
        let headers = self.grpc(SUBSCRIBE);
        let response = self.call(headers, frame(&request)).await;
        assert!(
            !response.headers.contains_key("grpc-status"),
            "refused: {:?}",
            response.headers
        );
        response
    }
}

async fn drive<S>(
    mut connection: Connection<S, Bytes>,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        tokio::select! {
            ended = &mut connection => return ended,
            Some(command) = commands.recv() => match command {
                Command::SetWindow(window) => connection.set_initial_window_size(window)?,
                Command::Freeze => std::future::pending().await,
            }
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Call {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Call {
    pub(crate) fn send(&mut self, body: impl Into<Bytes>, last: bool) {
        self.body.send_data(body.into(), last).unwrap();
    }

    /// Takes the request back.
    pub(crate) fn cancel(&mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }

    pub(crate) async fn response(self) -> Response {
        self.split().1.await
    }

    /// The rest of the request, and the answer, which does not wait for it.
    pub(crate) fn split(self) -> (SendStream<Bytes>, impl Future<Output = Response>) {
        let response = async {
            let (head, body) = within(self.response).await.unwrap().into_parts();
            Response {
                status: head.status,
                headers: head.headers,
                body,
                received: BytesMut::new(),
            }
        };
        (self.body, response)
    }
}

/// An answer, read piece by piece.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: RecvStream,
    received: BytesMut,
}

impl Response {
    async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let data = self.body.data().await;
        if let Some(Ok(data)) = &data {
            // What is read makes room for as much again.
            let flow = self.body.flow_control();
            flow.release_capacity(data.len()).unwrap();
        }
        data
    }

    /// Takes what has come by now.
    pub(crate) async fn taken(&mut self) -> Result<(), h2::Error> {
        use futures_util::FutureExt;
        while let Some(Some(data)) = self.data().now_or_never() {
            data?;
        }
        Ok(())
    }

    /// All of a body that is no gRPC.
    pub(crate) async fn text(mut self) -> String {
        let mut body = BytesMut::new();
        while let Some(data) = within(self.data()).await {
            body.extend_from_slice(&data.unwrap());
        }
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// The bytes of the next gRPC message; `None` at the end of the body.
    pub(crate) async fn next_bytes(&mut self) -> Result<Option<Bytes>, h2::Error> {
        const PREFIX_BYTES: usize = 5;
        loop {
            if let Some((mut prefix, _)) = self.received.split_at_checked(PREFIX_BYTES) {
                assert_eq!(prefix.get_u8(), 0, "never compressed");
                let bytes = prefix.get_u32() as usize;
                if self.received.len() >= PREFIX_BYTES + bytes {
                    self.received.advance(PREFIX_BYTES);
                    return Ok(Some(self.received.split_to(bytes).freeze()));
                }
            }
            match within(self.data()).await {
                Some(data) => self.received.extend_from_slice(&data?),
                None => return Ok(None),
            }
        }
    }

    /// The next response of a subscription.
    pub(crate) async fn next(&mut self) -> SubscribeResponse {
        let bytes = self.next_bytes().await.unwrap();
        SubscribeResponse::decode(bytes.expect("the stream goes on")).unwrap()
    }

    /// Reads to the end: the messages until then, the status, and the trailers it came in.
    pub(crate) async fn finished(mut self) -> (Vec<Bytes>, Status, HeaderMap) {
        let mut messages = Vec::new();
        while let Some(message) = self.next_bytes().await.unwrap() {
            messages.push(message);
        }
        assert!(self.received.is_empty(), "the body ends with a message");
        let trailers = within(self.body.trailers()).await.unwrap();
        // An answer without a body carries its status in its only headers.
        let trailers = trailers.unwrap_or(self.headers);
        let status = Status::from_header_map(&trailers)
            .unwrap_or_else(|| Status::new(Code::Unknown, format!("HTTP {}", self.status)));
        (messages, status, trailers)
    }

    /// Reads to the end of a subscription.
    pub(crate) async fn responses(self) -> (Vec<SubscribeResponse>, Status, HeaderMap) {
        let (messages, status, trailers) = self.finished().await;
        let messages = messages.into_iter().map(SubscribeResponse::decode);
        (
            messages.collect::<Result<_, _>>().unwrap(),
            status,
            trailers,
        )
    }

    /// Reads until the broker resets the stream.
    pub(crate) async fn reset(mut self) -> h2::Error {
        loop {
            match self.next_bytes().await {
                Ok(Some(_)) => {}
                Ok(None) => match within(self.body.trailers()).await {
                    Ok(trailers) => panic!("ended in order: {trailers:?}"),
                    Err(error) => return error,
                },
                Err(error) => return error,
            }
        }
    }
}

/// A message in gRPC's frame.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    frame_of(&message.encode_to_vec())
}

/// Any bytes in gRPC's frame.
pub(crate) fn frame_of(bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(bytes.len()).unwrap());
    frame.put_slice(bytes);
    frame.freeze()
}

/// A socket that has said this much.
pub(crate) async fn socket(address: SocketAddr, said: &[u8]) -> TcpStream {
    let mut socket = within(TcpStream::connect(address)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(said).await.unwrap();
    socket
}

/// Reads until the broker closes the socket. A reset is a way to close.
pub(crate) async fn read_to_close(mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    match within(socket.read_to_end(&mut read)).await {
        Ok(_) => read,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => read,
        Err(error) => panic!("{error}"),
    }
}

/// What this request is answered over HTTP/1.1, until the broker closes the socket: status and body.
pub(crate) async fn http1(address: SocketAddr, request: &str) -> (u16, String) {
    http1_on(socket(address, b"").await, request).await
}

/// The same on a stream that is there already.
pub(crate) async fn http1_on(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> (u16, String) {
    within(stream.write_all(request.as_bytes())).await.unwrap();
    let answer = String::from_utf8(read_to_close(stream).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// One HTTP/2 frame: its type, its flags and its payload.
pub(crate) type Http2Frame = (u8, u8, Vec<u8>);

/// An HTTP/2 connection without a stream, made by hand: answers pings, and returns all frames that came
/// until the broker closed the socket.
pub(crate) async fn frames_to_close(address: SocketAddr) -> Vec<Http2Frame> {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;
    let header = |kind: u8, flags: u8, bytes: u8| [0, 0, bytes, kind, flags, 0, 0, 0, 0];
    let mut socket = socket(address, PREFACE).await;
    socket.write_all(&header(SETTINGS, 0, 0)).await.unwrap();
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        match within(socket.read_exact(&mut head)).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return frames,
            Err(error) => panic!("{error}"),
        }
        let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; bytes as usize];
        within(socket.read_exact(&mut payload)).await.unwrap();
        if kind == PING && flags & ACK == 0 {
            let pong = [&header(PING, ACK, 8)[..], &payload].concat();
            socket.write_all(&pong).await.unwrap();
        }
        frames.push((kind, flags, payload));
    }
}
