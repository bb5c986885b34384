//! `broker` without a subcommand: serves until it is told to stop.

use std::{num::NonZero, process::ExitCode, thread, time::SystemTime};

use anyhow::Context;
use fanfare::{
    auth::AuthFile,
    broker::Broker,
    process::resident_bytes,
    server::{Reload, Server},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::oneshot,
    time::Instant,
};

use crate::{
    config::{Config, ServeArgs},
    heap,
    shutdown::{Hangups, Signals},
};

pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let threads = match args.threads {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads.into(),
    };
    let config = Config::try_from(args)?;
    let workers: Vec<Worker> = (1..threads)
        .map(Worker::start)
        .collect::<anyhow::Result<_>>()?;
    let runtime = one_thread()?;
    let mut handles: Vec<Handle> = workers.iter().map(|worker| worker.handle.clone()).collect();
    handles.push(runtime.handle().clone());
    let served = runtime.block_on(run(config, handles));
    // A handler that never ends must not keep the process.
    runtime.shutdown_background();
    served
}

fn one_thread() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// A thread with a runtime of its own, which ends with the process or when this is dropped.
struct Worker {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Worker {
    fn start(index: usize) -> anyhow::Result<Self> {
        let runtime = one_thread()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                drop(runtime.block_on(stopped));
                runtime.shutdown_background();
            })
            .context("cannot start a thread")?;
        Ok(Self {
            handle,
            _stop: stop,
        })
    }
}

async fn run(config: Config, workers: Vec<Handle>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let memory_budget = config.limits.memory_budget;
    let broker = Broker::new(config.limits, first_epoch()?)?;
    // Where nobody tells how much it is, the budget is for the load alone.
    broker.count_process(resident_bytes().unwrap_or_default() as usize);
    let serves_tls = config.server.tls.is_some();
    let hangups = Hangups::listen().context("cannot listen for SIGHUP")?;
    let has_files = serves_tls || config.auth_file.is_some();
    let server = Server::bind(config.server, broker).await?;
    let mut server = server.with_workers(workers);
    if let Some(path) = config.auth_file {
        let (file, policy) = AuthFile::open(path)?;
        server = server.with_auth(file, policy);
    }
    let address = server.local_addr().context("cannot tell the address")?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), tls = serves_tls, "serving");

    let (stop, stopped) = oneshot::channel::<()>();
    let reload = server.reload();
    let serving = server.run(async {
        // Both an order to stop and a caller that is gone end the service.
        drop(stopped.await);
    });
    let mut serving = std::pin::pin!(async {
        tokio::select! {
            () = serving => {}
            () = reload_on_hangup(hangups, has_files.then_some(reload)) => {}
            () = give_memory_back(memory_budget) => {}
        }
    });
    let first = tokio::select! {
        () = &mut serving => return Ok(ExitCode::SUCCESS),
        first = signals.next() => first,
    };
    tracing::info!(signal = ?first, "stopping; a second signal stops at once");
    drop(stop);
    tokio::select! {
        () = serving => Ok(ExitCode::SUCCESS),
        second = signals.next() => {
            tracing::warn!(signal = ?second, "stopped at once");
            Ok(second.exit_code())
        }
    }
}

/// For ever.
async fn give_memory_back(budget: usize) {
    let mut ticks = tokio::time::interval(heap::LOOK_INTERVAL);
    let mut schedule = heap::Schedule::new(budget as u64);
    loop {
        ticks.tick().await;
        // Where nobody tells, it is done now and then.
        if !schedule.is_due(resident_bytes().unwrap_or_default()) {
            continue;
        }
        let started = Instant::now();
        if tokio::task::spawn_blocking(heap::give_back).await.is_ok() {
            let elapsed = started.elapsed();
            tracing::debug!(?elapsed, "gave back what is free of the heap");
        }
    }
}

/// For ever. A broker without files hears SIGHUP, too: what is said to all does not end it.
async fn reload_on_hangup(mut hangups: Hangups, reload: Option<Reload>) {
    loop {
        hangups.next().await;
        if let Some(reload) = &reload {
            tracing::info!("SIGHUP: looking at the files");
            reload.reload();
        } else {
            tracing::info!("SIGHUP: there are no files to look at");
        }
    }
}

/// Later than any epoch of an earlier life: no broker begins a billion epochs a second.
fn first_epoch() -> anyhow::Result<u64> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the system clock is set before 1970")?;
    u64::try_from(since_1970.as_nanos()).context("the system clock is set after 2554")
}
