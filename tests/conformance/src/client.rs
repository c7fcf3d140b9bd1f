//! The suite's client: makes the calls that it is told to make, and says what came of each.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use prost::Message;
use samehost::{Address, Channel};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use crate::convert::{from_map, from_status, to_map};
use crate::fields::{Fields, Seen};
use crate::pb::client_compat_request::cancel::CancelTiming;
use crate::pb::client_compat_response::Result as Outcome;
use crate::pb::conformance_service_client::ConformanceServiceClient;
use crate::pb::{
    BidiStreamRequest, ClientCompatRequest, ClientCompatResponse, ClientErrorResult,
    ClientResponseResult, ClientStreamRequest, Compression, ConformancePayload,
    IdempotentUnaryRequest, ServerStreamRequest, StreamType, UnaryRequest, UnimplementedRequest,
};

/// Calls at a time.
const AT_ONCE: usize = 16;

pub async fn run() -> anyhow::Result<()> {
    let output = Arc::new(Mutex::new(()));
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    while let Some(test) = crate::read::<ClientCompatRequest>().await? {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let output = Arc::clone(&output);
        calls.spawn(async move {
            let result = match Test::new(&test).await {
                Ok(call) => call.run(&test).await,
                Err(error) => Err(error),
            };
            let result = match result {
                Ok(result) => Outcome::Response(result),
                Err(error) => Outcome::Error(ClientErrorResult { message: format!("{error:#}") }),
            };
            drop(permit);
            let _writing = output.lock().await;
            crate::write(&ClientCompatResponse { test_name: test.test_name, result: Some(result) })
                .await
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}

type Client = ConformanceServiceClient<Seen>;

struct Test {
    client: Client,
    fields: Fields,
    result: ClientResponseResult,
}

/// The messages of a test, as the type that its method takes.
fn messages<M: Message + Default>(test: &ClientCompatRequest) -> anyhow::Result<Vec<M>> {
    test.request_messages.iter().map(|any| Ok(M::decode(&*any.value)?)).collect()
}

fn request<M>(test: &ClientCompatRequest, message: M) -> Request<M> {
    let mut request = Request::new(message);
    *request.metadata_mut() =
        tonic::metadata::MetadataMap::from_headers(to_map(&test.request_headers));
    if let Some(timeout) = test.timeout_ms {
        request.set_timeout(Duration::from_millis(timeout.into()));
    }
    request
}

fn timing(test: &ClientCompatRequest) -> Option<CancelTiming> {
    test.cancel.and_then(|cancel| cancel.cancel_timing)
}

/// `call`, unless it is to be cancelled before it ends.
async fn cancelled<T>(
    test: &ClientCompatRequest,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let cancel = async {
        match timing(test) {
            Some(CancelTiming::AfterCloseSendMs(after)) => {
                tokio::time::sleep(Duration::from_millis(after.into())).await;
            }
            Some(CancelTiming::BeforeCloseSend(())) => {}
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        result = call => result,
        () = cancel => Err(Status::cancelled("as the test asks")),
    }
}

/// What is given to be sent, at the test's pace. `close` is waited for before the stream ends.
fn paced<M: Send + 'static>(
    test: &ClientCompatRequest,
    messages: Vec<M>,
) -> impl tokio_stream::Stream<Item = M> + Send + 'static {
    let delay = Duration::from_millis(test.request_delay_ms.into());
    let never_ends = matches!(timing(test), Some(CancelTiming::BeforeCloseSend(())));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for message in messages {
            tokio::time::sleep(delay).await;
            if sender.send(message).await.is_err() {
                return;
            }
        }
        if never_ends {
            sender.closed().await;
        }
    });
    ReceiverStream::new(receiver)
}

impl Test {
    async fn new(test: &ClientCompatRequest) -> anyhow::Result<Self> {
        let address: Address = format!("{}:{}", test.host, test.port).parse()?;
        let channel = Channel::builder(&address).connect_lazy();
        let fields = Fields::default();
        let seen = Seen { channel, fields: fields.clone() };
        let mut client = ConformanceServiceClient::new(seen);
        client = client.accept_compressed(CompressionEncoding::Gzip);
        if test.compression() == Compression::Gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        if test.message_receive_limit > 0 {
            client = client.max_decoding_message_size(test.message_receive_limit as usize);
        }
        Ok(Self { client, fields, result: ClientResponseResult::default() })
    }

    async fn run(mut self, test: &ClientCompatRequest) -> anyhow::Result<ClientResponseResult> {
        let ended = match test.method.as_deref().unwrap_or_default() {
            "Unary" => self.unary(test).await?,
            "IdempotentUnary" => self.idempotent_unary(test).await?,
            "Unimplemented" => self.unimplemented(test).await?,
            "ClientStream" => self.client_stream(test).await?,
            "ServerStream" => self.server_stream(test).await?,
            "BidiStream" => self.bidi_stream(test).await?,
            other => bail!("there is no method {other:?}"),
        };
        if let Err(status) = ended {
            self.result.error = Some(from_status(&status));
        }
        self.fields.with(|seen| {
            self.result.response_headers = from_map(&seen.head);
            self.result.response_trailers = from_map(&seen.trailers);
        });
        Ok(self.result)
    }

    fn received(&mut self, payload: Option<ConformancePayload>) {
        self.result.payloads.push(payload.unwrap_or_default());
    }

    async fn unary(&mut self, test: &ClientCompatRequest) -> anyhow::Result<Result<(), Status>> {
        let message: UnaryRequest = messages(test)?.pop().context("no message")?;
        let answer = cancelled(test, self.client.unary(request(test, message))).await;
        Ok(answer.map(|response| self.received(response.into_inner().payload)))
    }

    async fn idempotent_unary(
        &mut self,
        test: &ClientCompatRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let message: IdempotentUnaryRequest = messages(test)?.pop().context("no message")?;
        let answer = cancelled(test, self.client.idempotent_unary(request(test, message))).await;
        Ok(answer.map(|response| self.received(response.into_inner().payload)))
    }

    async fn unimplemented(
        &mut self,
        test: &ClientCompatRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let message: UnimplementedRequest = messages(test)?.pop().context("no message")?;
        let answer = cancelled(test, self.client.unimplemented(request(test, message))).await;
        Ok(answer.map(drop))
    }

    async fn client_stream(
        &mut self,
        test: &ClientCompatRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let outgoing = paced(test, messages::<ClientStreamRequest>(test)?);
        let sent = Duration::from_millis(test.request_delay_ms.into())
            * u32::try_from(test.request_messages.len())?;
        let call = self.client.client_stream(request(test, outgoing));
        let answer = cancelled(test, async {
            let mut call = std::pin::pin!(call);
            // A test that cancels counts from the end of the requests.
            tokio::select! {
                answer = &mut call => return answer,
                () = tokio::time::sleep(sent) => {}
            }
            call.await
        })
        .await;
        Ok(answer.map(|response| self.received(response.into_inner().payload)))
    }

    async fn server_stream(
        &mut self,
        test: &ClientCompatRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let message: ServerStreamRequest = messages(test)?.pop().context("no message")?;
        let call = self.client.server_stream(request(test, message));
        let received = cancelled(test, call).await;
        Ok(match received {
            Ok(response) => self.rest(test, response, |response| response.payload).await,
            Err(status) => Err(status),
        })
    }

    async fn bidi_stream(
        &mut self,
        test: &ClientCompatRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let outgoing: Vec<BidiStreamRequest> = messages(test)?;
        if test.stream_type() != StreamType::FullDuplexBidiStream {
            let call = self.client.bidi_stream(request(test, paced(test, outgoing)));
            return Ok(match cancelled(test, call).await {
                Ok(response) => self.rest(test, response, |response| response.payload).await,
                Err(status) => Err(status),
            });
        }
        let (sender, receiver) = mpsc::channel(1);
        let mut unsent = outgoing.into_iter();
        let delay = Duration::from_millis(test.request_delay_ms.into());
        if let Some(first) = unsent.next() {
            tokio::time::sleep(delay).await;
            sender.send(first).await?;
        }
        let call = self.client.bidi_stream(request(test, ReceiverStream::new(receiver)));
        let response = match call.await {
            Ok(response) => response,
            Err(status) => {
                self.result.num_unsent_requests = unsent.len() as i32;
                return Ok(Err(status));
            }
        };
        let mut incoming = response.into_inner();
        loop {
            match incoming.next().await {
                Some(Ok(response)) => self.received(response.payload),
                Some(Err(status)) => {
                    self.result.num_unsent_requests = unsent.len() as i32;
                    return Ok(Err(status));
                }
                None => {
                    self.result.num_unsent_requests = unsent.len() as i32;
                    return Ok(Ok(()));
                }
            }
            if self.enough(test) {
                return Ok(Err(Status::cancelled("as the test asks")));
            }
            let Some(next) = unsent.next() else { break };
            tokio::time::sleep(delay).await;
            if sender.send(next).await.is_err() {
                break;
            }
        }
        if matches!(timing(test), Some(CancelTiming::BeforeCloseSend(()))) {
            return Ok(Err(Status::cancelled("as the test asks")));
        }
        drop(sender);
        Ok(self.rest(test, Response::new(incoming), |response| response.payload).await)
    }

    /// Whether the call is to be cancelled after what has come.
    fn enough(&self, test: &ClientCompatRequest) -> bool {
        let received = self.result.payloads.len();
        matches!(timing(test), Some(CancelTiming::AfterNumResponses(n)) if n as usize == received)
    }

    /// Receives what is left.
    async fn rest<T>(
        &mut self,
        test: &ClientCompatRequest,
        response: Response<Streaming<T>>,
        payload: fn(T) -> Option<ConformancePayload>,
    ) -> Result<(), Status> {
        let mut incoming = response.into_inner();
        loop {
            match cancelled(test, incoming.message()).await? {
                Some(response) => self.received(payload(response)),
                None => return Ok(()),
            }
            if self.enough(test) {
                return Err(Status::cancelled("as the test asks"));
            }
        }
    }
}
