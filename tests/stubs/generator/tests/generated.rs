//! That what is generated works, and what a broken proto is answered with.
#![allow(missing_docs, clippy::pedantic, clippy::nursery)]

use generator::odd::v1::odds_client::OddsClient;
use generator::odd::v1::odds_server::{Odds, OddsServer};
use generator::odd::v1::{Async, Odd, odd};
use generator::other::{Elsewhere, Thing};
use generator::plain_service_server::SERVICE_NAME;
use samehost::tonic::{self, Request, Response, Status, Streaming};
use samehost::{Address, Channel, Listener, Server};
use tokio_stream::Stream;

struct Service;

type Many<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn same<T>(request: Request<T>) -> Result<Response<T>, Status> {
    Ok(Response::new(request.into_inner()))
}

#[tonic::async_trait]
impl Odds for Service {
    async fn new(&self, request: Request<Odd>) -> Result<Response<Odd>, Status> {
        same(request)
    }

    type ConnectStream = Many<Odd>;

    async fn connect(&self, request: Request<Odd>) -> Result<Response<Many<Odd>>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(request.into_inner())))))
    }

    async fn r#type(&self, request: Request<Odd>) -> Result<Response<Odd>, Status> {
        same(request)
    }

    async fn self_(&self, request: Request<Streaming<Odd>>) -> Result<Response<Odd>, Status> {
        let last = request.into_inner().message().await?;
        Ok(Response::new(last.unwrap_or_default()))
    }

    async fn with_interceptor(&self, request: Request<Odd>) -> Result<Response<Odd>, Status> {
        same(request)
    }

    type CloneStream = Streaming<Odd>;

    async fn clone(
        &self,
        request: Request<Streaming<Odd>>,
    ) -> Result<Response<Streaming<Odd>>, Status> {
        same(request)
    }

    async fn dispatch(&self, request: Request<Async>) -> Result<Response<Async>, Status> {
        same(request)
    }

    async fn old(&self, request: Request<Odd>) -> Result<Response<Odd>, Status> {
        same(request)
    }

    async fn nothing(&self, request: Request<()>) -> Result<Response<()>, Status> {
        same(request)
    }

    async fn wrapped(&self, request: Request<String>) -> Result<Response<bool>, Status> {
        Ok(Response::new(request.into_inner() == "true"))
    }

    async fn known(
        &self,
        request: Request<prost_types::Timestamp>,
    ) -> Result<Response<prost_types::Any>, Status> {
        let value = request.into_inner().seconds.to_string().into_bytes();
        Ok(Response::new(prost_types::Any { type_url: "seconds".to_owned(), value }))
    }

    async fn elsewhere(&self, request: Request<Thing>) -> Result<Response<Elsewhere>, Status> {
        Ok(Response::new(Elsewhere { r#where: request.into_inner().name }))
    }

    type asyncStream = Many<Odd>;

    async fn r#async(&self, request: Request<Odd>) -> Result<Response<Many<Odd>>, Status> {
        self.connect(request).await
    }

    type InnerStream = Many<odd::Nested>;

    async fn inner(
        &self,
        request: Request<odd::Nested>,
    ) -> Result<Response<Many<odd::Nested>>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(request.into_inner())))))
    }
}

#[tokio::test]
async fn odd_names_are_called_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd.sock");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    tokio::spawn(Server::new().add_service(OddsServer::new(Service)).serve(listener));
    let mut client = OddsClient::new(Channel::connect(&address).await.unwrap());

    let odd = Odd {
        r#type: "odd".to_owned(),
        maybe: Some(0),
        numbers: [("one".to_owned(), 1)].into(),
        r#match: Some(odd::Match::Thing(Thing { name: "thing".to_owned() })),
        raw: vec![1, 2, 3],
        wrapped: Some("wrapped".to_owned()),
        span: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..Odd::default()
    };
    assert_eq!(client.new_(odd.clone()).await.unwrap().into_inner(), odd);
    assert_eq!(client.r#type(odd.clone()).await.unwrap().into_inner(), odd);
    assert_eq!(client.with_interceptor_(odd.clone()).await.unwrap().into_inner(), odd);
    let mut stream = client.connect(odd.clone()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), Some(odd.clone()));
    let mut stream = client.r#async(odd.clone()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), Some(odd.clone()));
    let one = client.self_(tokio_stream::once(odd.clone())).await.unwrap();
    assert_eq!(one.into_inner(), odd);
    let mut both = client.clone_(tokio_stream::once(odd.clone())).await.unwrap().into_inner();
    assert_eq!(both.message().await.unwrap(), Some(odd.clone()));
    assert_eq!(client.dispatch(Async { self_: 7 }).await.unwrap().into_inner().self_, 7);
    #[allow(deprecated)]
    let old = client.old(odd.clone()).await.unwrap();
    assert_eq!(old.into_inner(), odd);
    client.nothing(()).await.unwrap();
    assert!(client.wrapped("true".to_owned()).await.unwrap().into_inner());
    let known = prost_types::Timestamp { seconds: 9, nanos: 0 };
    assert_eq!(client.known(known).await.unwrap().into_inner().value, b"9");
    let thing = Thing { name: "there".to_owned() };
    assert_eq!(client.elsewhere(thing).await.unwrap().into_inner().r#where, "there");
    let mut inner = client.inner(odd::Nested::default()).await.unwrap().into_inner();
    assert!(inner.message().await.unwrap().is_some());

    // Stubs for which `proto_path` says where the messages are.
    let mut client = generator::elsewhere::stubs::odds_client::OddsClient::new(
        Channel::connect(&address).await.unwrap(),
    );
    assert_eq!(client.r#type(odd.clone()).await.unwrap().into_inner(), odd);
    let thing = Thing { name: "there".to_owned() };
    assert_eq!(client.elsewhere(thing).await.unwrap().into_inner().r#where, "there");
}

/// Rust's prelude has a `clone_into` of its own, which would be called instead.
#[tokio::test]
async fn a_method_has_an_underscore_where_the_prelude_has_one_of_its_name() {
    use generator::names::T;
    use generator::names::self__client::{Self_Client, blocking};

    let directory = tempfile::tempdir().unwrap();
    let address = Address::unix(directory.path().join("none.sock")).unwrap();
    let channel = Channel::builder(&address).connect_lazy();
    let status = Self_Client::new(channel).clone_into_(T {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let _: fn(&mut blocking::Self_Client, T) -> Result<Response<T>, Status> =
        |client, request| client.clone_into_(request);
}

#[test]
fn a_service_without_a_package_has_its_own_name_alone() {
    assert_eq!(SERVICE_NAME, "PlainService");
    assert_eq!(generator::odd::v1::odds_server::SERVICE_NAME, "odd.v1.Odds");
    assert_eq!(generator::words::words_server::SERVICE_NAME, "type.match.v1.Words");
}

fn generated(file: &str) -> String {
    std::fs::read_to_string(format!("{}/{file}", env!("OUT_DIR"))).unwrap()
}

#[test]
fn comments_are_docs_and_options_take_effect() {
    let odd = generated("odd.v1.rs");
    assert!(odd.contains("doc = \" Has the name of the constructor"), "{odd}");
    assert!(odd.contains("/// Nobody calls it any more."));
    assert!(odd.contains("#[deprecated]"));
    for foreign in ["use tonic", " tonic::", "<tonic::", "use std", "tonic_prost"] {
        assert!(!odd.contains(foreign), "generated code names {foreign}");
    }
    let options = generated("options/odd.v1.rs");
    assert!(options.contains("::prost::bytes::Bytes"));
    assert!(options.contains("BTreeMap"));
    assert!(options.contains("self: ::std::sync::Arc<Self>"));
    assert!(options.contains("#[doc(alias = \"strange\")]"));
    assert!(!options.contains("pub mod odds_client"));
    assert!(!options.contains("Methods that are named like words"));
    assert!(!std::fs::read(format!("{}/all.bin", env!("OUT_DIR"))).unwrap().is_empty());
}

#[test]
fn rustfmt_changes_nothing() {
    for edition in ["2021", "2024"] {
        for file in ["odd.v1.rs", "_.rs", "other.rs", "options/odd.v1.rs", "elsewhere/odd.v1.rs"] {
            let path = format!("{}/{file}", env!("OUT_DIR"));
            let rustfmt = std::process::Command::new("rustfmt")
                .args(["--check", "--edition", edition, &path])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&rustfmt.stdout);
            assert!(rustfmt.status.success(), "{file}, edition {edition}: {said}");
        }
    }
}
