//! Checks what the server serves: its services by reflection, its health, and the time of a round
//! trip.

use std::time::{Duration, Instant};

use samehost::{Address, Channel};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::{Broken, End, Steps, broken};
use crate::failure::in_options;

pub(super) async fn ask(
    address: &Address,
    patience: Duration,
    steps: &mut Steps,
) -> Result<(), End> {
    let channel = Channel::builder(address).connect_timeout(patience).connect_lazy();
    services(&channel, patience, steps).await?;
    let mut client = HealthClient::new(channel);
    let mut check = async || {
        let started = Instant::now();
        let request = within(patience, HealthCheckRequest::default());
        (client.check(request).await, started)
    };
    let (answer, _) = check().await;
    health(answer.map(|answer| answer.into_inner().status()), steps)?;
    // The second call uses the open connection. Every response counts, whatever its status.
    let (_, started) = check().await;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    steps.good("round trip", format!("{milliseconds:.3} ms"))?;
    Ok(())
}

fn within<T>(patience: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

fn health(answer: Result<ServingStatus, Status>, steps: &mut Steps) -> Result<(), End> {
    const STEP: &str = "health";
    match answer {
        Ok(ServingStatus::Serving) => steps.good(STEP, "SERVING")?,
        Ok(status) => {
            return Err(broken(
                STEP,
                format!("the server says {}", status.as_str_name()),
                "wait until it is ready, or see its log",
            )
            .into());
        }
        Err(status) => match status.code() {
            Code::Unimplemented => steps.unknown(STEP, "the server has no health service")?,
            Code::NotFound => {
                steps.unknown(STEP, "the server reports no health for itself as a whole")?
            }
            _ => return Err(refused(STEP, &status).into()),
        },
    }
    Ok(())
}

/// Returns why a call failed that every server can answer.
fn refused(step: &'static str, status: &Status) -> Broken {
    let remedy = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            "the server's policy refuses this user: have it let in, or run as another user"
        }
        Code::DeadlineExceeded => {
            "the server took the connection and answers no call: look whether it hangs"
        }
        Code::ResourceExhausted => "the server is at a limit: see its log, or try again",
        _ => "see the server's log",
    };
    let message = in_options(status.message());
    broken(step, format!("{:?}: {message}", status.code()), remedy)
}

/// Lists the services, by the new or the old version of the reflection protocol.
async fn services(channel: &Channel, patience: Duration, steps: &mut Steps) -> Result<(), End> {
    const STEP: &str = "services";
    let names = match names(channel, patience).await {
        Err(status) if status.code() == Code::Unimplemented => {
            names_of_old(channel, patience).await
        }
        names => names,
    };
    match names {
        Ok(names) => steps.good(STEP, names.join(", "))?,
        Err(status) if status.code() == Code::Unimplemented => {
            steps.unknown(STEP, "the server has no reflection")?;
        }
        Err(status) => return Err(refused(STEP, &status).into()),
    }
    Ok(())
}

/// Both versions of the protocol have the same messages, under different names.
macro_rules! names {
    ($name:ident, $version:ident) => {
        async fn $name(channel: &Channel, patience: Duration) -> Result<Vec<String>, Status> {
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let ask = $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(channel.clone());
            let request = within(patience, tokio_stream::once(ask));
            let mut answers = client.server_reflection_info(request).await?.into_inner();
            let answer = answers.message().await?.and_then(|answer| answer.message_response);
            match answer {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    Ok(list.service.into_iter().map(|service| service.name).collect())
                }
                _ => Err(Status::unimplemented("no list of services")),
            }
        }
    };
}

names!(names, v1);
names!(names_of_old, v1alpha);
