use greeter::{HelloReply, HelloRequest, greeter_client::GreeterClient, greeter_server};
use samehost::tonic::{Request, Response, Status, async_trait};

mod greeter {
    samehost::include_proto!("greeter.v1");
}

struct Hello;
#[async_trait]
impl greeter_server::Greeter for Hello {
    async fn say_hello(&self, r: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("Hello, {}!", r.into_inner().name) }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = samehost::Listener::bind("unix:/tmp/g.sock").await?;
    let server = samehost::Server::new().add_service(greeter_server::GreeterServer::new(Hello));
    tokio::spawn(server.serve(listener));
    let mut client = GreeterClient::connect("unix:/tmp/g.sock").await?;
    let reply = client.say_hello(HelloRequest { name: "world".into() }).await?.into_inner();
    println!("{}", reply.message);
    Ok(())
}
