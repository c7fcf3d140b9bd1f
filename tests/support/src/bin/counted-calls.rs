//! Makes calls of 1 KiB, or answers them, and does nothing else: what `tests/instructions/run` counts.
//!
//! Usage: counted-calls async|many|blocking|stream COUNT ADDRESS
//!        counted-calls serve ADDRESS

use std::error::Error;

use bytes::Bytes;
use samehost::ping::{
    BlockingPingServiceClient, ConverseRequest, Ping, PingRequest, PingServiceClient,
    PingServiceServer,
};
use samehost::{Channel, Listener, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const PAYLOAD: usize = 1024;

/// How many messages the stream has in flight.
const WINDOW: u64 = 256;

/// How many tasks make calls at the same time.
const TASKS: u64 = 64;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (kind, count, address) = match &arguments[..] {
        [kind, address] if kind == "serve" => return serve(address),
        [kind, count, address] => (kind, count.parse()?, address.clone()),
        _ => {
            return Err(
                "usage: counted-calls async|many|blocking|stream COUNT ADDRESS, or serve ADDRESS"
                    .into(),
            );
        }
    };
    match &**kind {
        "async" => in_a_task(make_calls(count, address)),
        "many" => in_a_task(make_calls_at_once(count, address)),
        "blocking" => make_blocking_calls(count, address),
        "stream" => in_a_task(stream_messages(count, address)),
        kind => Err(format!("{kind} is none of the kinds").into()),
    }
}

/// Serves until SIGTERM comes, as `samehost serve` does with its defaults.
fn serve(address: &str) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = Listener::bind(address).await?;
        println!("listening on {}", listener.local_addr());
        let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
        let terminated = async move {
            terminated.recv().await;
        };
        Ok(server.serve_with_shutdown(listener, terminated).await?)
    })
}

/// Runs it in a task: a runtime whose main future is woken asks for events more often.
fn in_a_task(calls: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::spawn(calls).await? })
}

fn payload() -> Bytes {
    Bytes::from(vec![0; PAYLOAD])
}

fn request(payload: &Bytes, sequence: u64) -> PingRequest {
    PingRequest { payload: payload.clone(), sequence, ..PingRequest::ping() }
}

/// Makes unary calls one after the other.
async fn make_calls(count: u64, address: String) -> Outcome {
    call(Channel::connect(address).await?, count).await
}

/// Has many unary calls in flight.
async fn make_calls_at_once(count: u64, address: String) -> Outcome {
    let channel = Channel::connect(address).await?;
    let tasks: JoinSet<_> = (0..TASKS).map(|_| call(channel.clone(), count / TASKS)).collect();
    tasks.join_all().await.into_iter().collect()
}

async fn call(channel: Channel, count: u64) -> Outcome {
    let payload = payload();
    let mut client = PingServiceClient::new(channel);
    for sequence in 0..count {
        let response = client.ping(request(&payload, sequence)).await?;
        assert_eq!(response.get_ref().sequence, sequence);
    }
    Ok(())
}

/// Does the same without a runtime.
fn make_blocking_calls(count: u64, address: String) -> Outcome {
    let payload = payload();
    let mut client = BlockingPingServiceClient::connect(address)?;
    for sequence in 0..count {
        let response = client.ping(request(&payload, sequence))?;
        assert_eq!(response.get_ref().sequence, sequence);
    }
    Ok(())
}

/// Has messages of one stream echoed.
async fn stream_messages(count: u64, address: String) -> Outcome {
    let payload = payload();
    let mut client = PingServiceClient::new(Channel::connect(address).await?);
    let (requests, outgoing) = mpsc::channel(WINDOW as usize);
    let send = |sequence| {
        let (message, payload) = ("ping".to_owned(), payload.clone());
        requests.try_send(ConverseRequest { message, payload, sequence })
    };
    (0..WINDOW).try_for_each(send)?;
    let mut replies = client.converse(ReceiverStream::new(outgoing)).await?.into_inner();
    for sequence in 0..count {
        let reply = replies.message().await?.ok_or("the stream ended early")?;
        assert_eq!(reply.sequence, sequence);
        send(sequence + WINDOW)?;
    }
    Ok(())
}
