//! How often the files that the broker watches have changed, as a metric: whoever puts a wrong file in place is
//! still served by the old one, and has to learn of it.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Changes of files that the broker watches, by whether they were taken into force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reloads(Family<ResultLabel, Counter>);

impl Reloads {
    /// Both results are there from the start, so that a rate sees the first one.
    pub(crate) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.0.clone());
        for is_taken in [true, false] {
            self.of(is_taken).inc_by(0);
        }
    }

    pub(crate) fn count(&self, is_taken: bool) {
        self.of(is_taken).inc();
    }

    fn of(&self, is_taken: bool) -> Counter {
        let result = if is_taken { "taken" } else { "refused" };
        self.0.get_or_create_owned(&ResultLabel { result })
    }
}
