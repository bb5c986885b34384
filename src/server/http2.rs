//! One HTTP/2 connection: a single task drives the socket and all its streams.
//!
//! The calls in progress are futures in a set; each is woken on its own, and all that are woken are
//! served before the socket is read again, so that batches grow under load and what one connection
//! sends keeps its order. What all of them have to say leaves in one write. What a connection has to do at some
//! time is a task of that set as well, so that nobody looks at the clock each time something comes.
//! Invariant: an idle connection has no buffer. All connections of a thread read into one, and write from
//! another that comes back once it is empty.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    call::Call,
    config,
    connection::{BoxFuture, Conduct, Context},
    keeper::keep,
    outbox::{self, Outgoing},
    turn::{self, Turn},
};
use crate::{
    broker::Held,
    http2::{Config, Connection, Failure, Kept, PREFACE, Reason},
    metrics::Limit,
    service::{ConnectionShare, room},
};

/// As much as is read at once: a stream's window.
const READ_BYTES: usize = 64 * 1024;
/// With so much unsent, a connection is not read: its peer takes nothing, not even what it asks for.
const UNSENT_BYTES_MAX: usize = 2 * outbox::GATHERED_BYTES_MAX;
/// How often a connection reads before others have their turn.
const READS_MAX: usize = 16;
/// What waits in a connection's streams up to here is in the account of each stream.
const INBOUND_BYTES_COUNTED_MIN: usize = 4 * 1024;
/// What the codec keeps up to here is in the account of the connection.
const CODEC_BYTES_COUNTED_MIN: usize = 1024;

thread_local! {
    /// One buffer to read into for all connections of a thread.
    static RECEIVED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Returns what serves the connection to its end.
pub(super) fn open<S, T>(
    stream: S,
    outgoing: Outgoing<T>,
    context: &Arc<Context>,
    share: ConnectionShare,
) -> BoxFuture<Conduct>
where
    S: AsyncRead + Unpin + Send + 'static,
    T: AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::new(rules(&context.config));
    let tasks = FuturesUnordered::new();
    let keeping = keep(connection.clone(), Arc::clone(context));
    tasks.push(Task::Keeper(Box::pin(keeping)));
    let mut serving = Serving {
        stream,
        outgoing,
        connection,
        tasks,
        context: Arc::clone(context),
        share,
        preface_left: PREFACE.len(),
        started_at: Instant::now(),
        held: None,
        room: None,
        has_no_room: false,
    };
    Box::pin(async move {
        let ended = poll_fn(|cx| serving.poll(cx)).await;
        serving.finish(ended).await
    })
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Protocol(#[from] Failure),
    #[error("memory is used up, and the peer sends much at once")]
    Memory,
    /// The peer has said its last, and will not read what it is answered.
    #[error("the peer has left")]
    Left,
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// What a connection has going on.
enum Task {
    Call(Call),
    /// Ends when the connection is to be let go of.
    Keeper(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Future for Task {
    /// Whether the connection is over with it.
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<bool> {
        match self.get_mut() {
            Self::Call(call) => Pin::new(call).poll(cx).map(|()| false),
            Self::Keeper(keeper) => keeper.as_mut().poll(cx).map(|()| true),
        }
    }
}

struct Serving<S, T> {
    stream: S,
    outgoing: Outgoing<T>,
    connection: Connection,
    tasks: FuturesUnordered<Task>,
    context: Arc<Context>,
    share: ConnectionShare,
    preface_left: usize,
    started_at: Instant,
    /// While much is kept of what came.
    held: Option<Held>,
    /// While there is no room for more.
    room: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// There was none for too long: whatever takes more now is too much.
    has_no_room: bool,
}

impl<S, T> Serving<S, T>
where
    S: AsyncRead + Unpin,
    T: AsyncWrite + Unpin,
{
    /// Serves until the connection is over; ready when nothing more can come of it.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        let polled = self.poll_turns(cx);
        self.connection.with_out(outbox::take_back);
        self.weigh();
        polled
    }

    fn poll_turns(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        let mut reads = 0;
        let mut turn = Turn::default();
        loop {
            // Whatever was written has given its room back.
            let unsent_max = outbox::gathered_bytes_max(self.context.pubsub.broker.memory());
            self.connection.make_room(unsent_max, outbox::lend);
            self.serve_tasks(cx, &mut turn);
            if self.connection.poll_done(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let may_read = reads < READS_MAX
                && !turn.is_over
                && self.connection.unsent_bytes() < UNSENT_BYTES_MAX
                && self.poll_room(cx).is_ready();
            if may_read && let Poll::Ready(received) = self.poll_receive(cx) {
                reads += 1;
                let is_end = !received?;
                if is_end {
                    // What came before the end is for somebody.
                    self.serve_tasks(cx, &mut Turn::endless());
                    return Poll::Ready(Err(Error::Left));
                }
                continue;
            }
            let before = self.connection.unsent_bytes();
            if let Poll::Ready(Err(error)) = send(&self.connection, &self.outgoing, cx) {
                return Poll::Ready(Err(error.into()));
            }
            let is_stuck = before > 0 && self.connection.unsent_bytes() == before;
            if !is_stuck && self.connection.sent() && !turn.is_over {
                continue;
            }
            if reads >= READS_MAX || turn.is_over {
                // There may be more to read or to do, which nobody else would say.
                turn::come_back(cx);
            }
            return Poll::Pending;
        }
    }

    /// Goes on with all that was woken, as long as the turn lasts.
    fn serve_tasks(&mut self, cx: &mut TaskContext<'_>, turn: &mut Turn) {
        while !turn.is_over
            && let Poll::Ready(Some(is_over)) = self.tasks.poll_next_unpin(cx)
        {
            if is_over {
                self.connection.end();
            }
            turn.count();
        }
    }

    /// Reads once; false at the end of what the peer says.
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<bool, Error>> {
        let mut buffer = RECEIVED.take();
        buffer.resize(READ_BYTES, 0);
        let mut room = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        let bytes = room.filled().len();
        let received = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) if bytes == 0 => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(())) => Poll::Ready(self.receive(&buffer[..bytes]).map(|()| true)),
        };
        RECEIVED.set(buffer);
        received
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let skipped = self.preface_left.min(bytes.len());
        self.preface_left -= skipped;
        let now = self.started_at.elapsed();
        let Self {
            tasks,
            context,
            share,
            ..
        } = self;
        self.connection.receive(&bytes[skipped..], now, |request| {
            tasks.extend(Call::begin(request, context, share).map(Task::Call));
        })?;
        self.admit_kept()
    }

    /// Ready when something may be read: once there is room, or there was none for too long.
    fn poll_room(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let memory = self.context.pubsub.broker.memory();
        if !memory.would_pass(0) {
            (self.room, self.has_no_room) = (None, false);
        } else if !self.has_no_room {
            let memory = Arc::clone(memory);
            let waiting = || -> Pin<Box<dyn Future<Output = bool> + Send>> {
                Box::pin(async move { room(&memory, 0).await })
            };
            let room = self.room.get_or_insert_with(waiting);
            self.has_no_room = !ready!(room.as_mut().poll(cx));
            self.room = None;
        }
        Poll::Ready(())
    }

    /// Counts what is kept of what came; where there is no room for more of it, the connection goes.
    fn admit_kept(&mut self) -> Result<(), Error> {
        let bytes = self.kept_bytes();
        let before = self.held.as_ref().map_or(0, Held::bytes);
        if bytes != before {
            let memory = self.context.pubsub.broker.memory();
            let held = self.held.get_or_insert_with(|| memory.hold(0));
            held.set(bytes);
            // Whoever is the first to find none gives the broker a moment to make some.
            if bytes > before && self.has_no_room && memory.would_pass(0) {
                return Err(Error::Memory);
            }
        }
        Ok(())
    }

    /// What was read meanwhile no longer counts.
    fn weigh(&mut self) {
        if self.held.is_some() {
            let bytes = self.kept_bytes();
            self.held = self.held.take().filter(|_| bytes > 0);
            self.held.iter_mut().for_each(|held| held.set(bytes));
        }
    }

    /// What is kept of what came, as far as it is in no other account.
    fn kept_bytes(&self) -> usize {
        let Kept {
            inbound_bytes,
            codec_bytes,
        } = self.connection.kept();
        let from = |least: usize, bytes: usize| if bytes < least { 0 } else { bytes };
        from(INBOUND_BYTES_COUNTED_MIN, inbound_bytes) + from(CODEC_BYTES_COUNTED_MIN, codec_bytes)
    }

    /// Says the connection's last words, and how the peer has behaved.
    async fn finish(self, ended: Result<(), Error>) -> Conduct {
        let Self {
            outgoing,
            connection,
            tasks,
            context,
            held,
            ..
        } = self;
        let metrics = &context.metrics;
        let mut conduct = Conduct::Fair;
        match &ended {
            Ok(()) => {}
            Err(Error::Protocol(failure)) => {
                tracing::debug!(%failure, "the peer broke the rules");
                conduct = Conduct::Abusive;
                if failure.is_flood() {
                    metrics.reject(Limit::ControlFrames);
                    let warn = |count| {
                        tracing::warn!(
                            count,
                            "closed connections that sent too many control frames"
                        );
                    };
                    context.warnings.floods.warn(warn);
                }
            }
            Err(Error::Memory) => {
                metrics.reject(Limit::Memory);
                let warn = |count| {
                    tracing::warn!(
                        count,
                        "closed connections that sent much at once: memory is used up"
                    );
                };
                context.warnings.memory.warn(warn);
                connection.fail(Reason::ENHANCE_YOUR_CALM);
            }
            Err(Error::Left) => {}
            Err(error @ Error::Socket(_)) => {
                tracing::debug!(%error, "the connection broke");
            }
        }
        connection.end();
        // Calls go before the last words, some of which are theirs.
        drop((tasks, held));
        if !matches!(ended, Err(Error::Left | Error::Socket(_))) {
            let last_words = poll_fn(|cx| send(&connection, &outgoing, cx));
            tokio::select! {
                _ = tokio::time::timeout(context.config.stall_timeout, last_words) => {}
                () = context.close.cancelled() => {}
            }
        }
        conduct
    }
}

/// Writes what is to be sent. Ready once nothing is left.
fn send<T: AsyncWrite + Unpin>(
    connection: &Connection,
    outgoing: &Outgoing<T>,
    cx: &mut TaskContext<'_>,
) -> Poll<io::Result<()>> {
    connection.with_out(|out| outgoing.poll_write_all(cx, out))
}

fn rules(config: &config::ServerConfig) -> Config {
    let subscriptions_max = config.subscriptions_per_connection_max;
    Config {
        streams_max: subscriptions_max.saturating_add(config::OTHER_STREAMS_PER_CONNECTION),
        stream_window_bytes: config::STREAM_WINDOW_BYTES,
        connection_window_bytes: config::CONNECTION_WINDOW_BYTES,
        header_list_bytes_max: config::HEADER_LIST_BYTES_MAX,
        unsent_bytes_max: outbox::GATHERED_BYTES_MAX,
    }
}
