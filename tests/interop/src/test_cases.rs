//! gRPC's own interoperability cases, called by our channel on the server that grpc-go brings.
//! What each has to do: https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use samehost::Channel;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::pb::testing::test_service_client::TestServiceClient;
use crate::pb::testing::unimplemented_service_client::UnimplementedServiceClient;
use crate::pb::testing::{
    EchoStatus, Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use crate::test_service::payload;

type Client = TestServiceClient<Channel>;
type Requests = mpsc::Sender<StreamingOutputCallRequest>;
type Responses = Streaming<StreamingOutputCallResponse>;

const REQUEST_SIZES: [i32; 4] = [27182, 8, 1828, 45904];
const RESPONSE_SIZES: [i32; 4] = [31415, 9, 2653, 58979];

pub async fn run(case: &str, channel: Channel) -> Result<()> {
    let client = TestServiceClient::new(channel.clone());
    match case {
        "empty_unary" => empty_unary(client).await,
        "large_unary" => large_unary(client).await,
        "client_streaming" => client_streaming(client).await,
        "server_streaming" => server_streaming(client).await,
        "ping_pong" => ping_pong(client).await,
        "empty_stream" => empty_stream(client).await,
        "timeout_on_sleeping_server" => timeout_on_sleeping_server(client).await,
        "cancel_after_begin" => cancel_after_begin(client).await,
        "cancel_after_first_response" => cancel_after_first_response(client).await,
        "status_code_and_message" => status(client, "test status message").await,
        "special_status_message" => {
            status(client, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n").await
        }
        "custom_metadata" => custom_metadata(client).await,
        "unimplemented_method" => unimplemented({ client }.unimplemented_call(Empty {}).await),
        "unimplemented_service" => {
            let mut client = UnimplementedServiceClient::new(channel);
            unimplemented(client.unimplemented_call(Empty {}).await)
        }
        _ => bail!("no such case"),
    }
}

fn large() -> SimpleRequest {
    SimpleRequest { response_size: 314159, payload: payload(271828), ..Default::default() }
}

fn asking_for(sizes: &[i32], request_size: i32) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: sizes
            .iter()
            .map(|&size| ResponseParameters { size, ..Default::default() })
            .collect(),
        payload: payload(request_size),
        ..Default::default()
    }
}

fn expect_size(response: Option<StreamingOutputCallResponse>, size: i32) -> Result<()> {
    let found = response.context("no response")?.payload.map_or(0, |payload| payload.body.len());
    ensure!(found == size as usize, "{found} bytes instead of {size}");
    Ok(())
}

/// A full-duplex call: requests go into the sender.
async fn full_duplex(
    client: &mut Client,
    first: StreamingOutputCallRequest,
    set: impl FnOnce(&mut Request<ReceiverStream<StreamingOutputCallRequest>>),
) -> Result<(Requests, Response<Responses>)> {
    let (sender, requests) = mpsc::channel(1);
    sender.send(first).await?;
    let mut request = Request::new(ReceiverStream::new(requests));
    set(&mut request);
    let response = client.full_duplex_call(request).await?;
    Ok((sender, response))
}

fn expect_code<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code) -> Result<Status> {
    match outcome {
        Err(status) if status.code() == code => Ok(status),
        other => bail!("{other:?} instead of {code:?}"),
    }
}

async fn empty_unary(mut client: Client) -> Result<()> {
    client.empty_call(Empty {}).await?;
    Ok(())
}

async fn large_unary(mut client: Client) -> Result<()> {
    let response = client.unary_call(large()).await?.into_inner();
    let found = response.payload.map_or(0, |payload| payload.body.len());
    ensure!(found == 314159, "{found} bytes");
    Ok(())
}

async fn client_streaming(mut client: Client) -> Result<()> {
    let requests = REQUEST_SIZES.map(|size| StreamingInputCallRequest { payload: payload(size) });
    let response = client.streaming_input_call(tokio_stream::iter(requests)).await?.into_inner();
    ensure!(response.aggregated_payload_size == 74922, "{response:?}");
    Ok(())
}

async fn server_streaming(mut client: Client) -> Result<()> {
    let request = asking_for(&RESPONSE_SIZES, 0);
    let mut responses = client.streaming_output_call(request).await?.into_inner();
    for size in RESPONSE_SIZES {
        expect_size(responses.message().await?, size)?;
    }
    ensure!(responses.message().await?.is_none(), "more than four responses");
    Ok(())
}

async fn ping_pong(mut client: Client) -> Result<()> {
    let mut pairs = RESPONSE_SIZES.into_iter().zip(REQUEST_SIZES);
    let first = asking_for(&RESPONSE_SIZES[..1], REQUEST_SIZES[0]);
    let (requests, response) = full_duplex(&mut client, first, |_| ()).await?;
    let mut responses = response.into_inner();
    pairs.next();
    expect_size(responses.message().await?, RESPONSE_SIZES[0])?;
    for (response_size, request_size) in pairs {
        requests.send(asking_for(&[response_size], request_size)).await?;
        expect_size(responses.message().await?, response_size)?;
    }
    drop(requests);
    ensure!(responses.message().await?.is_none(), "more than four responses");
    Ok(())
}

async fn empty_stream(mut client: Client) -> Result<()> {
    let mut responses = client.full_duplex_call(tokio_stream::empty()).await?.into_inner();
    ensure!(responses.message().await?.is_none(), "a response");
    Ok(())
}

async fn timeout_on_sleeping_server(mut client: Client) -> Result<()> {
    let first = StreamingOutputCallRequest { payload: payload(27182), ..Default::default() };
    let outcome =
        full_duplex(&mut client, first, |request| request.set_timeout(Duration::from_millis(1)));
    let outcome = match outcome.await {
        // The server may have sent its headers in time.
        Ok((_requests, response)) => response.into_inner().message().await,
        Err(error) => Err(error.downcast()?),
    };
    expect_code(outcome, Code::DeadlineExceeded)?;
    Ok(())
}

async fn cancel_after_begin(mut client: Client) -> Result<()> {
    let call = client.streaming_input_call(tokio_stream::pending());
    ensure!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err(), "it has ended");
    // Whoever drops a call learns no status; that the connection has not suffered is shown by this.
    empty_unary(client).await
}

async fn cancel_after_first_response(mut client: Client) -> Result<()> {
    let first = asking_for(&RESPONSE_SIZES[..1], REQUEST_SIZES[0]);
    let (_requests, response) = full_duplex(&mut client, first, |_| ()).await?;
    let mut responses = response.into_inner();
    expect_size(responses.message().await?, RESPONSE_SIZES[0])?;
    drop(responses);
    empty_unary(client).await
}

async fn status(mut client: Client, message: &str) -> Result<()> {
    let asked = Some(EchoStatus { code: Code::Unknown.into(), message: message.to_owned() });
    let request = SimpleRequest { response_status: asked.clone(), ..Default::default() };
    let unary = expect_code(client.unary_call(request).await, Code::Unknown)?;
    ensure!(unary.message() == message, "{unary:?}");
    let first = StreamingOutputCallRequest { response_status: asked, ..Default::default() };
    let outcome = match full_duplex(&mut client, first, |_| ()).await {
        Ok((_requests, response)) => response.into_inner().message().await,
        Err(error) => Err(error.downcast()?),
    };
    let streamed = expect_code(outcome, Code::Unknown)?;
    ensure!(streamed.message() == message, "{streamed:?}");
    Ok(())
}

async fn custom_metadata(mut client: Client) -> Result<()> {
    const INITIAL: &str = "x-grpc-test-echo-initial";
    const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
    let value = MetadataValue::from_bytes(&[0xab, 0xab, 0xab]);
    let expect = |initial: Option<&_>, trailing: Option<&MetadataValue<_>>| {
        ensure!(initial.is_some_and(|found| found == "test_initial_metadata_value"));
        ensure!(trailing.is_some_and(|found| found == value), "{trailing:?}");
        Ok(())
    };
    let mut request = Request::new(large());
    request.metadata_mut().insert(INITIAL, "test_initial_metadata_value".parse()?);
    request.metadata_mut().insert_bin(TRAILING, value.clone());
    let sent = request.metadata().clone();
    let response = client.unary_call(request).await?;
    // tonic gives initial and trailing metadata of a unary call in one map.
    expect(response.metadata().get(INITIAL), response.metadata().get_bin(TRAILING))?;

    let first = asking_for(&[314159], 271828);
    let (requests, response) =
        full_duplex(&mut client, first, |request| *request.metadata_mut() = sent).await?;
    let initial = response.metadata().get(INITIAL).cloned();
    let mut responses = response.into_inner();
    expect_size(responses.message().await?, 314159)?;
    drop(requests);
    ensure!(responses.message().await?.is_none(), "more than one response");
    let trailers = responses.trailers().await?.context("no trailers")?;
    expect(initial.as_ref(), trailers.get_bin(TRAILING))
}

fn unimplemented(outcome: Result<Response<Empty>, Status>) -> Result<()> {
    expect_code(outcome, Code::Unimplemented)?;
    Ok(())
}
