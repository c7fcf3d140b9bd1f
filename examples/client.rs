//! A Ping client. The address on the command line picks the transport:
//!
//! ```sh
//! cargo run --example client -- unix:/tmp/ping.sock
//! cargo run --example client -- 127.0.0.1:50051
//! ```

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("unix:/tmp/ping.sock".into());
    let address: Address = address.parse()?;
    let channel = Channel::connect(&address).await?;
    let reply = PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
    println!("{}", reply.into_inner().message);
    Ok(())
}
