//! A Ping client without a runtime. The address on the command line picks the transport:
//!
//! ```sh
//! cargo run --example blocking -- unix:/tmp/ping.sock
//! ```

use samehost::ping::{BlockingPingServiceClient, PingRequest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("unix:/tmp/ping.sock".into());
    let mut client = BlockingPingServiceClient::connect(address)?;
    println!("{}", client.ping(PingRequest::ping())?.into_inner().message);
    Ok(())
}
