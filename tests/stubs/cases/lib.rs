//! A service that does what its requests say, on the stubs of whichever generator `build.rs` called.

#[allow(missing_docs)]
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/stubs.v1.rs"));
}

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{BinaryMetadataValue, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};

use stubs::Message;
use stubs::case_service_server::CaseService;

pub type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// What an interceptor of the server puts among the extensions.
#[derive(Clone, Debug)]
pub struct Marked(pub String);

/// Counts the calls at work, and what a stream of requests that ended badly ended with.
#[derive(Clone, Debug)]
pub struct Cases {
    pub running: Arc<watch::Sender<usize>>,
    pub ends: mpsc::UnboundedSender<Result<(), Code>>,
}

impl Cases {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Result<(), Code>>) {
        let (ends, ended) = mpsc::unbounded_channel();
        (Self { running: Arc::new(watch::Sender::new(0)), ends }, ended)
    }

    fn run(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(Arc::clone(&self.running))
    }

    /// Waits until so many calls are at work.
    pub async fn at_work(&self, count: usize) {
        self.running.subscribe().wait_for(|running| *running == count).await.unwrap();
    }
}

struct Running(Arc<watch::Sender<usize>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// A status with all that one can have.
pub fn full_status() -> Status {
    let mut status =
        Status::with_details(Code::DataLoss, "lost: 100 % – ünïcode\n", vec![8, 15, 0, 255].into());
    status.metadata_mut().insert("x-why", "because".parse().unwrap());
    status.metadata_mut().insert_bin("x-raw-bin", BinaryMetadataValue::from_bytes(&[0, 1, 254]));
    status
}

/// The answer to one message.
async fn answer(request: &Request<Message>) -> Result<Response<Message>, Status> {
    let message = request.get_ref();
    match message.command.as_str() {
        "echo" => Ok(Response::new(message.clone())),
        "plain" => {
            let mut response = Response::new(message.clone());
            response.disable_compression();
            Ok(response)
        }
        "fail" => Err(full_status()),
        "panic" => panic!("as it was asked to"),
        "hang" => std::future::pending().await,
        "yield" => {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok(Response::new(message.clone()))
        }
        "large" => Ok(Response::new(Message {
            payload: vec![7; message.count as usize].into(),
            ..Message::default()
        })),
        "metadata" => {
            let mut response = Response::new(Message::default());
            let given = request.metadata();
            let text = given.get("x-text").cloned().unwrap_or(MetadataValue::from_static("none"));
            response.metadata_mut().insert("x-text", text);
            if let Some(raw) = given.get_bin("x-raw-bin") {
                response.metadata_mut().insert_bin("x-raw-bin", raw.clone());
            }
            for value in given.get_all("x-list") {
                response.metadata_mut().append("x-list", value.clone());
            }
            response.metadata_mut().insert("grpc-status", "13".parse().unwrap());
            Ok(response)
        }
        "marked" => {
            let marked = request.extensions().get::<Marked>().map(|it| it.0.clone());
            Ok(Response::new(Message { command: marked.unwrap_or_default(), ..Message::default() }))
        }
        "peer" => {
            let peer = request.extensions().get::<samehost::PeerIdentity>();
            Ok(Response::new(Message {
                count: peer.map_or(0, |peer| peer.uid() + 1),
                ..Message::default()
            }))
        }
        other => Err(Status::invalid_argument(format!("no command {other:?}"))),
    }
}

#[tonic::async_trait]
impl CaseService for Cases {
    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let _running = self.run();
        answer(&request).await
    }

    type DownStream = Messages;

    async fn down(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        let running = self.run();
        let message = request.into_inner();
        let count = message.count;
        match message.command.as_str() {
            "fail" => return Err(full_status()),
            "panic" => panic!("as it was asked to"),
            _ => {}
        }
        let (sender, messages) = mpsc::channel(16);
        tokio::spawn(async move {
            let _running = running;
            for number in 0..count {
                let message = Message { count: number, ..message.clone() };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            match message.command.as_str() {
                "then fail" => drop(sender.send(Err(full_status())).await),
                "then hang" => sender.closed().await,
                _ => {}
            }
        });
        let mut response = Response::new(Box::pin(ReceiverStream::new(messages)) as Messages);
        response.metadata_mut().insert("x-head", "here".parse().unwrap());
        Ok(response)
    }

    async fn up(&self, request: Request<Streaming<Message>>) -> Result<Response<Message>, Status> {
        let _running = self.run();
        let mut messages = request.into_inner();
        let mut sum = Message::default();
        loop {
            match messages.message().await {
                Ok(Some(message)) if message.command == "stop" => break,
                Ok(Some(message)) => {
                    sum.count += message.count;
                    sum.payload = [sum.payload, message.payload].concat().into();
                }
                Ok(None) => {
                    let _ = self.ends.send(Ok(()));
                    break;
                }
                Err(status) => {
                    let _ = self.ends.send(Err(status.code()));
                    return Err(status);
                }
            }
        }
        Ok(Response::new(sum))
    }

    type BothStream = Messages;

    async fn both(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Messages>, Status> {
        let running = self.run();
        if request.metadata().contains_key("x-through") {
            // As it is.
            return Ok(Response::new(Box::pin(request.into_inner())));
        }
        let messages = request.into_inner().map(move |message| {
            let _running = &running;
            let message = message?;
            if message.command == "fail" { Err(full_status()) } else { Ok(message) }
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// A message that says what to do.
pub fn command(command: &str) -> Message {
    Message { command: command.to_owned(), ..Message::default() }
}

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
