//! Whether the broker takes work: one answer for gRPC's health service and for HTTP's `/ready`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::{HealthReporter, HealthService},
};

use crate::wire;

/// The names that health is told for; `""` is the broker as a whole.
const NAMES: [&str; 3] = ["", wire::SERVICE, wire::REFERENCE_SERVICE];

/// Ready until it is told otherwise, once.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    ready: Arc<AtomicBool>,
    reporter: HealthReporter,
}

impl Readiness {
    pub(crate) async fn new() -> Self {
        let readiness = Self {
            ready: Arc::new(AtomicBool::new(true)),
            reporter: HealthReporter::new(),
        };
        readiness.report(ServingStatus::Serving).await;
        readiness
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) async fn set_not_ready(&self) {
        self.ready.store(false, Ordering::Relaxed);
        self.report(ServingStatus::NotServing).await;
    }

    /// gRPC's health service over the same answer.
    pub(super) fn service(&self) -> HealthServer<impl Health + use<>> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn report(&self, status: ServingStatus) {
        for name in NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
