//! The runtimes that connections are spread over.

use std::{
    fmt,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{net::TcpStream, runtime::Handle};
use tokio_util::task::TaskTracker;

/// Runtimes, each with the number of its connections.
#[derive(Debug)]
pub(super) struct Workers(Vec<(Handle, Arc<AtomicUsize>)>);

impl Workers {
    /// Without any, connections stay on the runtime that accepts them.
    pub(super) fn new(handles: Vec<Handle>) -> Self {
        Self(
            handles
                .into_iter()
                .map(|handle| (handle, Arc::default()))
                .collect(),
        )
    }

    /// Shows how many tasks are alive, on the runtime that this is called on and on those that connections are
    /// spread over: what does not return to where it was has leaked.
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut runtimes = vec![Handle::current()];
        for (handle, _) in &self.0 {
            if runtimes.iter().all(|known| known.id() != handle.id()) {
                runtimes.push(handle.clone());
            }
        }
        registry.register_collector(Box::new(Tasks(runtimes)));
    }

    /// Serves a connection on the runtime that has the fewest, as long as it keeps its [`Place`].
    ///
    /// # Errors
    /// The socket cannot move to another runtime.
    pub(super) fn spawn<F>(
        &self,
        tasks: &TaskTracker,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, Option<Place>) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let fewest = self
            .0
            .iter()
            .min_by_key(|(_, count)| count.load(Ordering::Relaxed));
        let Some((handle, count)) = fewest else {
            tasks.spawn(serve(stream, None));
            return Ok(());
        };
        // A socket belongs to the runtime that it was made on.
        let entered = handle.enter();
        let stream = TcpStream::from_std(stream.into_std()?)?;
        drop(entered);
        tasks.spawn_on(serve(stream, Some(Place::new(count))), handle);
        Ok(())
    }
}

/// The tasks of these runtimes.
#[derive(Debug)]
struct Tasks(Vec<Handle>);

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of = |handle: &Handle| handle.metrics().num_alive_tasks() as u64;
        let alive: u64 = self.0.iter().map(of).sum();
        let help = "Tasks alive on the runtimes that serve";
        let metric = encoder.encode_descriptor("tasks", help, None, MetricType::Gauge)?;
        ConstGauge::new(alive).encode(metric)
    }
}

/// One connection's place on a runtime.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
