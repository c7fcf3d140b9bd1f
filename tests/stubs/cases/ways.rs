//! The ways that a call can take: which server, which client, and what is in between.

use std::sync::Mutex;

use bytes::Bytes;
use samehost::{Address, Channel, Connector, Listener, Server};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server as TonicServer};
use tonic::{Code, Request, Status};
use tower::util::{MapRequest, MapRequestLayer};

use cases::stubs::case_service_client::CaseServiceClient;
use cases::stubs::case_service_server::CaseServiceServer;
use cases::{Cases, Marked};

/// Whether the stubs are ours: tonic's get some of gRPC's rules wrong.
pub const OURS: bool = env!("CARGO_PKG_NAME").as_bytes()[9] == b's';

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// samehost's server, the service as it is.
    Samehost,
    /// samehost's server, a tower layer in between.
    Layered,
    /// samehost's server, an interceptor in between.
    Intercepted,
    /// tonic's own server.
    Tonic,
    /// A router of axum's.
    Axum,
}

/// What the client's calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// samehost's channel.
    Samehost,
    /// A tower layer on it.
    Layered,
    /// An interceptor on it.
    Intercepted,
    /// tonic's own channel.
    Tonic,
}

pub const WAYS: [(At, Through); 8] = [
    (At::Samehost, Through::Samehost),
    (At::Samehost, Through::Layered),
    (At::Samehost, Through::Tonic),
    (At::Layered, Through::Samehost),
    (At::Intercepted, Through::Intercepted),
    (At::Tonic, Through::Samehost),
    (At::Tonic, Through::Tonic),
    (At::Axum, Through::Samehost),
];

type StdError = Box<dyn std::error::Error + Send + Sync>;

/// What a client is made of.
pub trait Link:
    GrpcService<
        Body,
        Error: Into<StdError>,
        Future: Send,
        ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                          + Send
                          + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Link for T where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            Future: Send,
            ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                              + Send
                              + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A server and a client of it.
pub struct With<L> {
    pub at: At,
    pub through: Through,
    pub client: CaseServiceClient<L>,
    pub cases: Cases,
    pub ends: mpsc::UnboundedReceiver<Result<(), Code>>,
}

/// What a case sets on the server.
pub type Settings = fn(CaseServiceServer<Cases>) -> CaseServiceServer<Cases>;

/// A server at work, until it is dropped.
pub struct Served {
    pub address: Address,
    path: std::path::PathBuf,
    pub cases: Cases,
    ends: Mutex<Option<mpsc::UnboundedReceiver<Result<(), Code>>>>,
    at: At,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type MapHttp = fn(http::Request<Body>) -> http::Request<Body>;

/// Through a layer, as it is.
fn as_it_is(request: http::Request<Body>) -> http::Request<Body> {
    request
}

/// Remembers what the client's interceptor said.
fn mark(mut request: Request<()>) -> Result<Request<()>, Status> {
    if request.metadata().contains_key("x-refuse") {
        return Err(cases::full_status());
    }
    let by = request.metadata().get("x-by-client").map_or("nobody", |by| by.to_str().unwrap());
    let marked = Marked(format!("the server after {by}"));
    request.extensions_mut().insert(marked);
    Ok(request)
}

fn sign(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("x-by-client", "the client".parse().unwrap());
    Ok(request)
}

pub async fn serve(at: At, settings: Settings) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    let (cases, ends) = Cases::new();
    let service = settings(CaseServiceServer::new(cases.clone()));
    let task = match at {
        At::Samehost | At::Layered | At::Intercepted => {
            let listener = Listener::bind(&address).await.unwrap();
            let server = Server::new();
            let inner = cases.clone();
            tokio::spawn(async move {
                let server = match at {
                    At::Intercepted => {
                        server.add_service(CaseServiceServer::with_interceptor(inner, mark))
                    }
                    At::Layered => {
                        server.add_service(service).layer(MapRequestLayer::new(as_it_is as MapHttp))
                    }
                    _ => server.add_service(service),
                };
                server.serve(listener).await.unwrap();
            })
        }
        At::Tonic => {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let server = TonicServer::builder().add_service(service);
            tokio::spawn(async move {
                server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
            })
        }
        At::Axum => {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let router = Routes::new(service).into_axum_router();
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
        }
    };
    Served { address, path, cases, ends: Mutex::new(Some(ends)), at, task, _directory: directory }
}

impl Served {
    pub async fn channel(&self) -> Channel {
        Channel::connect(&self.address).await.unwrap()
    }

    pub async fn layered(&self) -> MapRequest<Channel, MapHttp> {
        MapRequest::new(self.channel().await, as_it_is as MapHttp)
    }

    pub async fn intercepted(
        &self,
    ) -> InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>> {
        InterceptedService::new(self.channel().await, sign)
    }

    pub async fn tonic(&self) -> tonic::transport::Channel {
        let connector = Connector::new(format!("unix:{}", self.path.display()));
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
    }

    pub fn with<L: Link>(&self, through: Through, link: L) -> With<L> {
        With {
            at: self.at,
            through,
            client: CaseServiceClient::new(link),
            cases: self.cases.clone(),
            ends: self.ends.lock().unwrap().take().unwrap(),
        }
    }
}

/// Runs a case of `calls` on each way.
macro_rules! on_each_way {
    ($($case:ident($settings:expr);)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                for (at, through) in $crate::ways::WAYS {
                    println!("at {at:?}, through {through:?}");
                    let served = $crate::ways::serve(at, $settings).await;
                    let case = async {
                        match through {
                            Through::Samehost => {
                                super::$case(served.with(through, served.channel().await)).await;
                            }
                            Through::Layered => {
                                super::$case(served.with(through, served.layered().await)).await;
                            }
                            Through::Intercepted => {
                                let link = served.intercepted().await;
                                super::$case(served.with(through, link)).await;
                            }
                            Through::Tonic => {
                                super::$case(served.with(through, served.tonic().await)).await;
                            }
                        }
                    };
                    tokio::time::timeout(cases::PATIENCE, case).await.expect("in time");
                }
            }
        )*
    };
}

pub(crate) use on_each_way;
