//! The suite's service: answers as each request asks for.

use std::time::Duration;

use http::HeaderMap;
use prost_types::Any;
use samehost::{Address, Listener, Server};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::convert::{any, from_map, to_map, to_status};
use crate::fields::{Fields, Set};
use crate::pb::conformance_payload::RequestInfo;
use crate::pb::conformance_service_server::{ConformanceService, ConformanceServiceServer};
use crate::pb::unary_response_definition::Response as Wanted;
use crate::pb::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse,
    ConformancePayload, Header, IdempotentUnaryRequest, IdempotentUnaryResponse,
    ServerCompatRequest, ServerCompatResponse, ServerStreamRequest, ServerStreamResponse,
    StreamResponseDefinition, UnaryRequest, UnaryResponse, UnaryResponseDefinition,
    UnimplementedRequest, UnimplementedResponse,
};

pub async fn run() -> anyhow::Result<()> {
    let request: ServerCompatRequest = crate::read().await?.unwrap_or_default();
    let address: Address = "127.0.0.1:0".parse()?;
    let listener = Listener::bind(&address).await?;
    let port = listener.local_addr().to_string();
    let port = port.rsplit(':').next().unwrap_or_default().parse()?;
    crate::write(&ServerCompatResponse { host: "127.0.0.1".to_owned(), port }).await?;
    let mut service = ConformanceServiceServer::new(Conformance)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    if request.message_receive_limit > 0 {
        service = service.max_decoding_message_size(request.message_receive_limit as usize);
    }
    let server = Server::new().add_service(service).layer(tower::layer::layer_fn(Set));
    server.serve(listener).await?;
    Ok(())
}

struct Conformance;

/// What is told of a call beside its messages.
struct Call {
    fields: Fields,
    headers: Vec<Header>,
    timeout_ms: Option<i64>,
}

impl Call {
    fn of(metadata: tonic::metadata::MetadataMap, extensions: &Extensions) -> Self {
        let headers: HeaderMap = metadata.into_headers();
        let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
        Self {
            fields: extensions.get::<Fields>().cloned().unwrap_or_default(),
            timeout_ms: timeout.and_then(milliseconds),
            headers: from_map(&headers),
        }
    }

    fn respond_with(&self, headers: &[Header], trailers: &[Header]) {
        self.fields.with(|parts| {
            parts.head = to_map(headers);
            parts.trailers = to_map(trailers);
        });
    }

    fn info(&self, requests: Vec<Any>) -> RequestInfo {
        RequestInfo { request_headers: self.headers.clone(), timeout_ms: self.timeout_ms, requests }
    }

    /// The outcome of a call with one response.
    async fn one(
        &self,
        wanted: Option<UnaryResponseDefinition>,
        requests: Vec<Any>,
    ) -> Result<ConformancePayload, Status> {
        let wanted = wanted.unwrap_or_default();
        self.respond_with(&wanted.response_headers, &wanted.response_trailers);
        let info = self.info(requests);
        pause(wanted.response_delay_ms).await;
        match wanted.response {
            Some(Wanted::Error(error)) => {
                let info = any("ConformancePayload.RequestInfo", &info);
                Err(to_status(&error, Some(info)))
            }
            Some(Wanted::ResponseData(data)) => {
                Ok(ConformancePayload { data, request_info: Some(info) })
            }
            None => Ok(ConformancePayload { data: Vec::new(), request_info: Some(info) }),
        }
    }
}

async fn pause(milliseconds: u32) {
    tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
}

/// The value of `grpc-timeout`.
fn milliseconds(timeout: &str) -> Option<i64> {
    let (amount, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let amount: i64 = amount.parse().ok()?;
    Some(match unit {
        "H" => amount * 3_600_000,
        "M" => amount * 60_000,
        "S" => amount * 1_000,
        "m" => amount,
        "u" => amount / 1_000,
        _ => amount / 1_000_000,
    })
}

/// The responses of a stream, one by one.
struct Stream<T> {
    call: Call,
    wanted: StreamResponseDefinition,
    sent: usize,
    output: mpsc::Sender<Result<T, Status>>,
    response: fn(ConformancePayload) -> T,
}

impl<T> Stream<T> {
    /// Sends the next response. False: there is none, or nobody to take it.
    async fn next(&mut self, requests: Vec<Any>, each: bool) -> bool {
        let Some(data) = self.wanted.response_data.get(self.sent).cloned() else { return false };
        let request_info = match self.sent {
            0 => Some(self.call.info(requests)),
            _ => each.then(|| RequestInfo { requests, ..RequestInfo::default() }),
        };
        pause(self.wanted.response_delay_ms).await;
        self.sent += 1;
        let payload = ConformancePayload { data, request_info };
        self.output.send(Ok((self.response)(payload))).await.is_ok()
    }

    /// Sends what is left, and the error if there is one.
    async fn finish(mut self, requests: Vec<Any>) {
        while self.next(requests.clone(), false).await {}
        if let Some(error) = self.wanted.error.take() {
            let info = self.call.info(requests);
            let info = any("ConformancePayload.RequestInfo", &info);
            let status = to_status(&error, (self.sent == 0).then_some(info));
            let _ = self.output.send(Err(status)).await;
        }
    }
}

#[tonic::async_trait]
impl ConformanceService for Conformance {
    async fn unary(
        &self,
        request: Request<UnaryRequest>,
    ) -> Result<Response<UnaryResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let call = Call::of(metadata, &extensions);
        let requests = vec![any("UnaryRequest", &request)];
        let payload = call.one(request.response_definition, requests).await?;
        Ok(Response::new(UnaryResponse { payload: Some(payload) }))
    }

    async fn idempotent_unary(
        &self,
        request: Request<IdempotentUnaryRequest>,
    ) -> Result<Response<IdempotentUnaryResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let call = Call::of(metadata, &extensions);
        let requests = vec![any("IdempotentUnaryRequest", &request)];
        let payload = call.one(request.response_definition, requests).await?;
        Ok(Response::new(IdempotentUnaryResponse { payload: Some(payload) }))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<Response<ClientStreamResponse>, Status> {
        let (metadata, extensions, mut incoming) = request.into_parts();
        let call = Call::of(metadata, &extensions);
        let (mut wanted, mut requests) = (None, Vec::new());
        while let Some(request) = incoming.message().await? {
            requests.push(any("ClientStreamRequest", &request));
            if requests.len() == 1 {
                wanted = request.response_definition;
            }
        }
        let payload = call.one(wanted, requests).await?;
        Ok(Response::new(ClientStreamResponse { payload: Some(payload) }))
    }

    type ServerStreamStream = ReceiverStream<Result<ServerStreamResponse, Status>>;

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let call = Call::of(metadata, &extensions);
        let requests = vec![any("ServerStreamRequest", &request)];
        let wanted = request.response_definition.unwrap_or_default();
        call.respond_with(&wanted.response_headers, &wanted.response_trailers);
        let (output, responses) = mpsc::channel(1);
        let response = |payload| ServerStreamResponse { payload: Some(payload) };
        tokio::spawn(Stream { call, wanted, sent: 0, output, response }.finish(requests));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    type BidiStreamStream = ReceiverStream<Result<BidiStreamResponse, Status>>;

    async fn bidi_stream(
        &self,
        request: Request<Streaming<BidiStreamRequest>>,
    ) -> Result<Response<Self::BidiStreamStream>, Status> {
        let (metadata, extensions, mut incoming) = request.into_parts();
        let call = Call::of(metadata, &extensions);
        let (output, responses) = mpsc::channel(1);
        // The head goes with the first response at the latest, so the first request decides what is
        // in it.
        let first = incoming.next().await.transpose()?;
        let full_duplex = first.as_ref().is_some_and(|first| first.full_duplex);
        let wanted = first.as_ref().and_then(|first| first.response_definition.clone());
        let wanted = wanted.unwrap_or_default();
        call.respond_with(&wanted.response_headers, &wanted.response_trailers);
        let response = |payload| BidiStreamResponse { payload: Some(payload) };
        let mut stream = Stream { call, wanted, sent: 0, output, response };
        tokio::spawn(async move {
            let mut requests = Vec::new();
            let mut next = first;
            while let Some(request) = next {
                requests.push(any("BidiStreamRequest", &request));
                if full_duplex {
                    if !stream.next(requests.clone(), true).await {
                        break;
                    }
                    requests.clear();
                }
                next = match incoming.message().await {
                    Ok(next) => next,
                    Err(status) => {
                        let _ = stream.output.send(Err(status)).await;
                        return;
                    }
                };
            }
            stream.finish(requests).await;
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn unimplemented(
        &self,
        _: Request<UnimplementedRequest>,
    ) -> Result<Response<UnimplementedResponse>, Status> {
        Err(Status::unimplemented("this method is not implemented"))
    }
}
