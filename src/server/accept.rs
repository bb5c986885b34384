//! Takes connections in, up to the limits, and keeps calm when the system cannot give more.

use std::{io, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::{
    addresses::{Addresses, Entry},
    config::CONNECTION_BYTES,
    connection::{self, Context},
    socket,
    warning::Warning,
    workers::Workers,
};
use crate::broker::Held;

/// How long to wait after a failed accept: out of file descriptors, the next one fails as well, and
/// trying at once would be a busy loop.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn accept(
    listener: &TcpListener,
    context: &Arc<Context>,
    connections: &TaskTracker,
    workers: &Workers,
) {
    let refused = Warning::default();
    let failed = Warning::default();
    let addresses = Addresses::new(&context.config);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_peer(&error) => continue,
            Err(error) => {
                failed.warn(|count| tracing::warn!(%error, count, "cannot accept connections"));
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        match addresses.enter(peer.ip()) {
            Ok(entry) => admit(stream, entry, context, connections, workers),
            Err(limit) => {
                context.metrics.reject(limit);
                refused.warn(|count| {
                    let limit = limit.as_str();
                    tracing::warn!(limit, count, "refused connections above a limit");
                });
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    entry: Entry,
    context: &Arc<Context>,
    connections: &TaskTracker,
    workers: &Workers,
) {
    let config = &context.config;
    let (interval, timeout) = (config.keepalive_interval, config.keepalive_timeout);
    // A connection that cannot do that works all the same.
    if let Err(error) = socket::prepare(&stream, interval, timeout) {
        tracing::debug!(%error, "cannot set a socket's options");
    }
    context.metrics.connections_accepted.inc();
    context.metrics.connections.inc();
    let open = OpenConnection {
        context: Arc::clone(context),
        _held: context.pubsub.broker.memory().hold(CONNECTION_BYTES),
    };
    let handed_over = workers.spawn(connections, stream, |stream, place| {
        connection::serve(stream, Arc::clone(context), entry, (open, place))
    });
    if let Err(error) = handed_over {
        tracing::warn!(%error, "cannot hand a connection over");
    }
}

/// Counts a connection as open until it is dropped, also when its task panics.
struct OpenConnection {
    context: Arc<Context>,
    _held: Held,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.context.metrics.connections.dec();
    }
}

fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
