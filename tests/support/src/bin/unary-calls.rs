//! Makes unary calls of 1 KiB one after the other, and nothing else: what tests/instructions counts.
//!
//! Usage: unary-calls async|blocking COUNT ADDRESS

use std::error::Error;

use bytes::Bytes;
use samehost::Channel;
use samehost::ping::{BlockingPingServiceClient, PingRequest, PingServiceClient};

const PAYLOAD: usize = 1024;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count, address] = &arguments[..] else {
        return Err("usage: unary-calls async|blocking COUNT ADDRESS".into());
    };
    let (count, address) = (count.parse()?, address.clone());
    match &**kind {
        "async" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // In a task: a runtime whose main future is woken asks for events more often.
            runtime.block_on(async { tokio::spawn(make_calls(count, address)).await? })
        }
        "blocking" => make_blocking_calls(count, address),
        kind => Err(format!("{kind} is neither async nor blocking").into()),
    }
}

fn request(payload: &Bytes, sequence: u64) -> PingRequest {
    PingRequest { payload: payload.clone(), sequence, ..PingRequest::ping() }
}

async fn make_calls(count: u64, address: String) -> Result<(), Box<dyn Error + Send + Sync>> {
    let payload = Bytes::from(vec![0; PAYLOAD]);
    let mut client = PingServiceClient::new(Channel::connect(address).await?);
    for sequence in 0..count {
        let response = client.ping(request(&payload, sequence)).await?;
        assert_eq!(response.get_ref().sequence, sequence);
    }
    Ok(())
}

fn make_blocking_calls(count: u64, address: String) -> Result<(), Box<dyn Error + Send + Sync>> {
    let payload = Bytes::from(vec![0; PAYLOAD]);
    let mut client = BlockingPingServiceClient::connect(address)?;
    for sequence in 0..count {
        let response = client.ping(request(&payload, sequence))?;
        assert_eq!(response.get_ref().sequence, sequence);
    }
    Ok(())
}
