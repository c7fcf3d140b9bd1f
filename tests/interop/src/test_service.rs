//! `grpc.testing.TestService`, which gRPC's own interop client calls.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::pb::testing::test_service_server::{self, TestServiceServer};
use crate::pb::testing::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};

pub struct TestService;

impl TestService {
    pub fn server() -> TestServiceServer<Self> {
        TestServiceServer::new(Self)
    }
}

type Outputs = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

/// The status that the client asks for, unless it is OK.
fn asked_for(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from(code), message))
        }
        _ => Ok(()),
    }
}

pub fn payload(size: i32) -> Option<Payload> {
    Some(Payload { body: vec![0; usize::try_from(size).unwrap_or(0)], ..Payload::default() })
}

/// One message for each of the parameters, after its pause.
fn outputs(
    parameters: Vec<ResponseParameters>,
) -> impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send {
    tokio_stream::iter(parameters).then(|ResponseParameters { size, interval_us }| async move {
        if let Ok(pause @ 1..) = u64::try_from(interval_us) {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        Ok(StreamingOutputCallResponse { payload: payload(size) })
    })
}

#[tonic::async_trait]
impl test_service_server::TestService for TestService {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        asked_for(request.response_status)?;
        let server_id = request.fill_server_id.then(|| std::process::id().to_string());
        Ok(Response::new(SimpleResponse {
            payload: payload(request.response_size),
            server_id: server_id.unwrap_or_default(),
        }))
    }

    type StreamingOutputCallStream = Outputs;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Outputs>, Status> {
        let request = request.into_inner();
        asked_for(request.response_status)?;
        Ok(Response::new(Box::pin(outputs(request.response_parameters))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut response = StreamingInputCallResponse::default();
        while let Some(request) = requests.message().await? {
            response.aggregated_payload_size +=
                request.payload.map_or(0, |payload| payload.body.len() as i32);
        }
        Ok(Response::new(response))
    }

    type FullDuplexCallStream = Outputs;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        let mut requests = request.into_inner();
        let (sender, replies) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let answered = async {
                while let Some(request) = requests.message().await? {
                    asked_for(request.response_status)?;
                    let mut outputs = std::pin::pin!(outputs(request.response_parameters));
                    while let Some(output) = outputs.next().await {
                        if sender.send(output).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            };
            if let Err(status) = answered.await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(replies))))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("implemented nowhere"))
    }
}
