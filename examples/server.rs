//! A Ping server. The address on the command line picks the transport:
//!
//! ```sh
//! cargo run --example server -- unix:/tmp/ping.sock
//! cargo run --example server -- 127.0.0.1:50051
//! ```

use samehost::ping::{Ping, PingServiceServer};
use samehost::{Address, Listener, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("unix:/tmp/ping.sock".into());
    let address: Address = address.parse()?;
    let listener = Listener::bind(&address).await?;
    println!("listening on {}", listener.local_addr());
    Server::new()
        .add_service(PingServiceServer::new(Ping::default()))
        .serve_with_shutdown(listener, async { tokio::signal::ctrl_c().await.unwrap() })
        .await?;
    Ok(())
}
