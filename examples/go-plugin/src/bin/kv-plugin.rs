//! A plugin in Rust for go-plugin's own example host: `KV_PLUGIN=target/debug/kv-plugin ./kv put a b`.
//! As that example's plugins do, it keeps each value in a file in the working directory.

use std::error::Error;

use example_go_plugin::kv::kv_server::{Kv, KvServer};
use example_go_plugin::kv::{Empty, GetRequest, GetResponse, PutRequest};
use example_go_plugin::plugin;
use samehost::Server;
use samehost::tonic::{self, Request, Response, Status};

struct Files;

#[tonic::async_trait]
impl Kv for Files {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let value = std::fs::read(file(&request.get_ref().key)?)?;
        Ok(Response::new(GetResponse { value }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        let PutRequest { key, value } = request.into_inner();
        std::fs::write(file(&key)?, value)?;
        Ok(Response::new(Empty {}))
    }
}

fn file(key: &str) -> Result<String, Status> {
    if key.contains('/') {
        return Err(Status::invalid_argument("a key has no slashes"));
    }
    Ok(format!("kv_{key}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    plugin::serve(Server::new().add_service(KvServer::new(Files))).await?;
    // Standard error is the plugin's log; the host passes it on.
    eprintln!("the plugin has ended");
    Ok(())
}
