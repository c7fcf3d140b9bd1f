//! The cases, called by our channel on a server of any language.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::uri::PathAndQuery;
use prost::Message;
use samehost::Channel;
use samehost::ping::{
    CollectRequest, ConverseRequest, PingRequest, PingServiceClient, WatchRequest,
};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::pb::health::HealthCheckRequest;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::health_client::HealthClient;
use crate::pb::interop::interop_service_client::InteropServiceClient;
use crate::pb::interop::{AnswerRequest, CrashRequest, EndedRequest, HoldRequest, HoldResponse};
use crate::pb::reflection::server_reflection_request::MessageRequest;
use crate::pb::reflection::server_reflection_response::MessageResponse;
use crate::pb::reflection::{ServerReflectionRequest, ServerReflectionResponse};

/// The limit of a message in every implementation.
const LIMIT: usize = 4 << 20;

/// What a call that is to end for another reason may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(case: &str, channel: Channel) -> Result<()> {
    match case {
        "unary" => unary(channel).await,
        "watch" => watch(channel).await,
        "collect" => collect(channel).await,
        "converse" => converse(channel).await,
        "metadata" => metadata(channel).await,
        "status" => status(channel).await,
        "deadline" => deadline(channel).await,
        "cancel" => cancel(channel).await,
        "sizes" => sizes(channel).await,
        "gzip" => gzip(channel).await,
        "parallel" => parallel(channel).await,
        "lost" => lost(channel).await,
        "restart" => restart(channel).await,
        "health" => health(channel).await,
        "reflection" => reflection(channel).await,
        _ => bail!("no such case"),
    }
}

/// A request that fails rather than waits for ever.
fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn ping(payload: Vec<u8>, sequence: u64) -> PingRequest {
    PingRequest { payload: payload.into(), sequence, ..PingRequest::ping() }
}

async fn unary(channel: Channel) -> Result<()> {
    let mut client = PingServiceClient::new(channel);
    let reply = client.ping(patient(ping(vec![0, 1, 255], 7))).await?.into_inner();
    ensure!(reply.message == "pong" && *reply.payload == [0, 1, 255] && reply.sequence == 7);
    Ok(())
}

async fn watch(channel: Channel) -> Result<()> {
    let request = WatchRequest { count: 3, ..WatchRequest::default() };
    let mut client = PingServiceClient::new(channel);
    let mut pongs = client.watch(patient(request)).await?.into_inner();
    let mut sequences = Vec::new();
    while let Some(pong) = pongs.message().await? {
        sequences.push(pong.sequence);
    }
    ensure!(sequences == [0, 1, 2], "{sequences:?}");
    Ok(())
}

async fn collect(channel: Channel) -> Result<()> {
    let pings = vec![CollectRequest { payload: vec![0; 100].into(), ..Default::default() }; 3];
    let mut client = PingServiceClient::new(channel);
    let collected = client.collect(patient(tokio_stream::iter(pings))).await?.into_inner();
    ensure!(collected.count == 3 && collected.bytes == 300, "{collected:?}");
    Ok(())
}

async fn converse(channel: Channel) -> Result<()> {
    let (turns, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let turn = |message: &str, sequence| ConverseRequest {
        message: message.to_owned(),
        sequence,
        ..ConverseRequest::default()
    };
    let mut client = PingServiceClient::new(channel);
    // The first turn goes ahead: a server may send its headers with its first message.
    turns.send(turn("ping", 0)).await?;
    let mut replies = client.converse(patient(requests)).await?.into_inner();
    for sequence in 0..3 {
        let reply = replies.message().await?.context("the conversation ended early")?;
        ensure!(reply.message == "pong" && reply.sequence == sequence, "{reply:?}");
        let next = if sequence < 2 { "ping" } else { "end" };
        turns.send(turn(next, sequence + 1)).await?;
    }
    ensure!(replies.message().await?.is_none(), "a reply after the end");
    Ok(())
}

async fn metadata(channel: Channel) -> Result<()> {
    let (text, bin) = ("some text", MetadataValue::from_bytes(&[0, 127, 128, 255]));
    let mut client = InteropServiceClient::new(channel);
    let mut request = patient(AnswerRequest::default());
    request.metadata_mut().insert("echo-text", text.parse()?);
    request.metadata_mut().insert_bin("echo-bin", bin.clone());
    // tonic gives initial and trailing metadata of a unary call in one map.
    let response = client.answer(request).await?;
    let metadata = response.metadata();
    for name in ["echo-text", "trailing-text"] {
        let found = metadata.get(name);
        ensure!(found.is_some_and(|found| found == text), "{name}: {found:?}");
    }
    for name in ["echo-bin", "trailing-bin"] {
        let found = metadata.get_bin(name);
        ensure!(found.is_some_and(|found| found == bin), "{name}: {found:?}");
    }
    Ok(())
}

async fn status(channel: Channel) -> Result<()> {
    let mut client = InteropServiceClient::new(channel);
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/ping.v1.PingRequest".to_owned(),
        value: ping(vec![0, 255], 7).encode_to_vec(),
    };
    for code in 1..=16 {
        let asked = AnswerRequest {
            code,
            message: "100 % naïve: 鍵がない\n".to_owned(),
            details: vec![detail.clone()],
        };
        let Err(status) = client.answer(patient(asked.clone())).await else {
            bail!("code {code} succeeded");
        };
        ensure!(status.code() == Code::from(code), "{code}: {status:?}");
        ensure!(status.message() == asked.message, "{code}: {:?}", status.message());
        ensure!(AnswerRequest::decode(status.details())? == asked, "{code}: other details");
    }
    Ok(())
}

/// A held call that has begun.
async fn hold(
    client: &mut InteropServiceClient<Channel>,
    request: Request<HoldRequest>,
) -> Result<Streaming<HoldResponse>> {
    let mut messages = client.hold(request).await?.into_inner();
    messages.message().await?.context("no first message")?;
    Ok(messages)
}

/// An identifier that no other call of this or another process has.
fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{} {:?}", std::process::id(), now)
}

async fn deadline(channel: Channel) -> Result<()> {
    // Connecting is not to take from the deadline.
    unary(channel.clone()).await?;
    let mut client = InteropServiceClient::new(channel);
    let id = unique();
    let mut request = Request::new(HoldRequest { id: id.clone() });
    request.set_timeout(Duration::from_millis(500));
    let mut messages = hold(&mut client, request).await?;
    match messages.message().await {
        Err(status) => ensure!(status.code() == Code::DeadlineExceeded, "{status:?}"),
        Ok(message) => bail!("{message:?} instead of the deadline"),
    }
    client.ended(patient(EndedRequest { id })).await.context("the server did not notice")?;
    Ok(())
}

async fn cancel(channel: Channel) -> Result<()> {
    let mut client = InteropServiceClient::new(channel);
    let id = unique();
    drop(hold(&mut client, Request::new(HoldRequest { id: id.clone() })).await?);
    client.ended(patient(EndedRequest { id })).await.context("the server did not notice")?;
    Ok(())
}

/// The payload that makes a ping, or its pong, `size` bytes: less the message (6) and the payload's
/// tag and length (5).
fn payload_of(size: usize) -> Vec<u8> {
    vec![7; size - 11]
}

async fn sizes(channel: Channel) -> Result<()> {
    let mut client = PingServiceClient::new(channel);
    let payloads = [1, 1 << 10, 1 << 16, 1 << 20].map(|length| vec![7; length]);
    for payload in payloads.into_iter().chain([payload_of(LIMIT - 1)]) {
        let length = payload.len();
        let reply = client.ping(patient(ping(payload.clone(), 0))).await;
        let reply = reply.with_context(|| format!("payload of {length} bytes"))?.into_inner();
        ensure!(reply.payload == payload, "payload of {length} bytes: another came back");
    }
    refused(client.ping(patient(ping(payload_of(LIMIT + 1), 0))).await)?;
    client.ping(patient(ping(Vec::new(), 0))).await.context("after the refusal")?;
    Ok(())
}

/// Too large a message: tonic's servers say OUT_OF_RANGE, all others RESOURCE_EXHAUSTED.
fn refused<T>(outcome: Result<T, Status>) -> Result<()> {
    match outcome {
        Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange) => {
            Ok(())
        }
        Err(status) => bail!("more than 4 MiB: {status:?}"),
        Ok(_) => bail!("more than 4 MiB: accepted"),
    }
}

async fn gzip(channel: Channel) -> Result<()> {
    let mut client = PingServiceClient::new(channel)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let mut request = patient(ping(vec![7; 1 << 16], 0));
    // For servers that would not know by themselves.
    request.metadata_mut().insert("answer-encoding", "gzip".parse()?);
    let response = client.ping(request).await?;
    let encoding = response.metadata().get("grpc-encoding");
    ensure!(encoding.is_some_and(|encoding| encoding == "gzip"), "response: {encoding:?}");
    ensure!(response.get_ref().payload == vec![7; 1 << 16], "another payload came back");
    Ok(())
}

async fn parallel(channel: Channel) -> Result<()> {
    let calls = (0..100).map(|sequence| {
        let mut client = PingServiceClient::new(channel.clone());
        tokio::spawn(async move { client.ping(patient(ping(vec![7; 1000], sequence))).await })
    });
    for (sequence, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let reply = call.await??.into_inner();
        ensure!(reply.sequence == sequence as u64, "{} for {sequence}", reply.sequence);
    }
    Ok(())
}

/// Makes the server end; that this call fails is what it is for.
async fn crash(channel: &Channel) {
    let _ = InteropServiceClient::new(channel.clone()).crash(patient(CrashRequest {})).await;
}

async fn lost(channel: Channel) -> Result<()> {
    let mut client = InteropServiceClient::new(channel.clone());
    let mut messages = hold(&mut client, patient(HoldRequest { id: unique() })).await?;
    crash(&channel).await;
    match messages.message().await {
        Err(status) => ensure!(status.code() == Code::Unavailable, "{status:?}"),
        Ok(message) => bail!("{message:?} from a server that is gone"),
    }
    Ok(())
}

async fn restart(channel: Channel) -> Result<()> {
    let mut client = PingServiceClient::new(channel.clone());
    client.ping(patient(PingRequest::ping())).await.context("before the restart")?;
    crash(&channel).await;
    let mut tries = 0;
    loop {
        tries += 1;
        match client.ping(patient(PingRequest::ping())).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() != Code::Unavailable || tries == 300 => {
                bail!("after the restart: {status:?}")
            }
            Err(_) => tokio::time::sleep(PATIENCE / 300).await,
        }
    }
}

async fn health(channel: Channel) -> Result<()> {
    let mut client = HealthClient::new(channel);
    let asked = |service: &str| patient(HealthCheckRequest { service: service.to_owned() });
    for service in ["", "ping.v1.PingService"] {
        let status = client.check(asked(service)).await?.into_inner().status();
        ensure!(status == ServingStatus::Serving, "{service:?}: {status:?}");
    }
    match client.check(asked("no.such.Service")).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => bail!("a service that is not there: {other:?}"),
    }
}

/// The protocol's two names; grpcio and older servers know the second one alone.
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

async fn ask(
    channel: Channel,
    question: MessageRequest,
) -> Result<Option<MessageResponse>, Status> {
    let question =
        ServerReflectionRequest { message_request: Some(question), ..Default::default() };
    let mut client = tonic::client::Grpc::new(channel);
    let mut outcome = Err(Status::unimplemented(""));
    for path in REFLECTION.map(PathAndQuery::from_static) {
        let request = patient(tokio_stream::once(question.clone()));
        let codec = tonic_prost::ProstCodec::<_, ServerReflectionResponse>::default();
        outcome = match client.streaming(request, path, codec).await {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        if !matches!(&outcome, Err(status) if status.code() == Code::Unimplemented) {
            break;
        }
    }
    outcome.map(|answer| answer.and_then(|answer| answer.message_response))
}

async fn reflection(channel: Channel) -> Result<()> {
    let service = "ping.v1.PingService";
    match ask(channel.clone(), MessageRequest::ListServices(String::new())).await? {
        Some(MessageResponse::ListServicesResponse(listed)) => {
            let listed = listed.service.iter().map(|service| &*service.name).collect::<Vec<_>>();
            ensure!(listed.contains(&service), "not listed: {listed:?}");
        }
        other => bail!("services: {other:?}"),
    }
    match ask(channel, MessageRequest::FileContainingSymbol(service.to_owned())).await? {
        Some(MessageResponse::FileDescriptorResponse(files)) => {
            for file in &files.file_descriptor_proto {
                let file = prost_types::FileDescriptorProto::decode(&**file)?;
                if file.package() == "ping.v1" && file.service[0].method.len() == 4 {
                    return Ok(());
                }
            }
            bail!("no file of the service's")
        }
        other => bail!("file: {other:?}"),
    }
}
