//! Interceptors on both ends.

use samehost::Server;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::{Greeter, GreeterServer};
use samehost_tonic_examples::greeter::{HelloReply, HelloRequest};
use tonic::service::Interceptor;
use tonic::{Code, Request, Response, Status};

use crate::connected;

/// What the server's interceptor found out.
#[derive(Clone)]
struct User(String);

struct Personal;

#[tonic::async_trait]
impl Greeter for Personal {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let User(name) = request.extensions().get::<User>().cloned().unwrap();
        Ok(Response::new(HelloReply { message: format!("Hello {name}!") }))
    }
}

fn authenticated(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = request.metadata().get("authorization").and_then(|token| token.to_str().ok());
    let Some(name) = token.and_then(|token| token.strip_prefix("Bearer ")) else {
        return Err(Status::unauthenticated("no token"));
    };
    let user = User(name.to_owned());
    request.extensions_mut().insert(user);
    Ok(request)
}

#[derive(Clone)]
struct Token(&'static str);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.parse().unwrap());
        Ok(request)
    }
}

#[tokio::test]
async fn intercept_on_both_ends() {
    let service = GreeterServer::with_interceptor(Personal, authenticated);
    let channel = connected(Server::new().add_service(service)).await;
    let mut client = GreeterClient::with_interceptor(channel.clone(), Token("Bearer somebody"));
    let response = client.say_hello(HelloRequest::default()).await.unwrap();
    assert_eq!(response.into_inner().message, "Hello somebody!");

    let refuse = |_: Request<()>| Err(Status::permission_denied("not sent"));
    let mut client = GreeterClient::with_interceptor(channel.clone(), refuse);
    let status = client.say_hello(HelloRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not sent"));

    let status = GreeterClient::new(channel).say_hello(HelloRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
