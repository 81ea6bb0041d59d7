//! Whether a gate gives verdicts, at its public addresses: `/healthz` and the gRPC health protocol
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>). A load balancer that asks
//! leaves out a gate that is loading keys, or stops, before a request meets it.

use std::sync::Arc;

use axum::extract::State;
use futures::stream::Empty;
use http::StatusCode;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Why no verdicts are given now, if none are.
pub type Ready = dyn Fn() -> Result<(), String> + Send + Sync;

/// The service that proxies ask for verdicts; the empty name stands for the whole gate.
const SERVICES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];

/// Answers `/healthz`: 200, or 503 with the reason.
pub async fn healthz(State(ready): State<Arc<Ready>>) -> (StatusCode, String) {
    match ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// The service `grpc.health.v1.Health`.
#[must_use]
pub fn grpc_health(ready: Arc<Ready>) -> HealthServer<impl Health> {
    HealthServer::new(GrpcHealth(ready))
}

struct GrpcHealth(Arc<Ready>);

#[tonic::async_trait]
impl Health for GrpcHealth {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("the gate has no such service"));
        }
        let status = match (self.0)() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    /// A stream without an end would outlive what one request may take. The protocol lets a server
    /// leave it out: clients then take it for healthy, and see an end of its connection.
    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask with Check, again and again"))
    }
}
