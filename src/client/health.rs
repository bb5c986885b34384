//! How a broker is, by gRPC's standard health service.

use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{connection::Connection, error::HealthError};

/// How a broker, or one of its services, says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Serving,
    /// It does not serve, or not for long: it is shutting down.
    NotServing,
    /// It does not say.
    Unknown,
}

pub(super) async fn check(connection: &Connection, service: &str) -> Result<Health, HealthError> {
    let mut request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    request.set_timeout(connection.options().request_timeout);
    let (_, channel) = connection.channel();
    let mut rpc = HealthClient::new(channel);
    match connection.answer(rpc.check(request)).await? {
        Ok(response) => Ok(match response.into_inner().status() {
            ServingStatus::Serving => Health::Serving,
            ServingStatus::NotServing => Health::NotServing,
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => Health::Unknown,
        }),
        Err(status) => Err(connection.errors().health(service, status)),
    }
}
