//! `broker` without a subcommand: serves until it is told to stop.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use fanfare::{broker::Broker, server::Server};

use crate::{
    config::{Config, ServeArgs},
    shutdown::Signals,
};

pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(run(config));
    // A handler that never ends must not keep the process.
    runtime.shutdown_timeout(Duration::ZERO);
    served
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let broker = Broker::new(config.limits, first_epoch()?)?;
    let server = Server::bind(config.server, broker).await?;
    let address = server.local_addr().context("cannot tell the address")?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = std::pin::pin!(server.run(async {
        // Both an order to stop and a caller that is gone end the service.
        drop(stopped.await);
    }));
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

/// Later than any epoch of an earlier life: no broker begins a billion epochs a second.
fn first_epoch() -> anyhow::Result<u64> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the system clock is set before 1970")?;
    u64::try_from(since_1970.as_nanos()).context("the system clock is set after 2554")
}
