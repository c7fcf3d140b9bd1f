//! Streams to a server in a process of its own, whose memory and descriptors are measured.

use bytes::Bytes;
use samehost::Channel;
use samehost::ping::{CollectRequest, PingRequest, PingServiceClient};

use crate::support::{
    Serving, Transport, directory, eventually_async, on_both_transports, open_descriptors,
    socket_in,
};

on_both_transports!(a_gigabyte_is_sent_to_a_server_of_little_memory);

/// The most bytes that can wait between two ends, in all windows and buffers together.
const IN_BETWEEN: usize = 8 << 20;

async fn a_gigabyte_is_sent_to_a_server_of_little_memory(transport: Transport) {
    const EACH: usize = 1 << 20;
    const COUNT: usize = 1 << 10;
    let directory = directory();
    let address = match transport {
        Transport::Unix => socket_in(directory.path()).to_string(),
        Transport::Tcp => "127.0.0.1:0".to_owned(),
    };
    let server = Serving::start(&[&address], &[]);
    let channel = Channel::connect(&server.addresses[0]).await.unwrap();
    let mut client = PingServiceClient::new(channel);
    client.ping(PingRequest::ping()).await.unwrap();
    let before = server.memory("VmHWM");
    let payload = Bytes::from(vec![7; EACH]);
    let message =
        CollectRequest { payload, message: "ping".to_owned(), ..CollectRequest::default() };
    let messages = tokio_stream::iter(std::iter::repeat_n(message, COUNT));
    let collected = client.collect(messages).await.unwrap().into_inner();
    assert_eq!((collected.count, collected.bytes), (COUNT as u64, (COUNT * EACH) as u64));
    let growth = server.memory("VmHWM") - before;
    // The memory is for windows and for the message that is being put together.
    assert!(growth <= IN_BETWEEN + 4 * EACH, "grew by {} KiB", growth >> 10);
}

/// On a runtime of several threads, the connection of a busy stream wakes its task by an eventfd.
#[tokio::test]
async fn a_busy_stream_takes_a_second_descriptor_and_gives_it_back() {
    let directory = directory();
    let server = Serving::start(&[&socket_in(directory.path()).to_string()], &["--threads", "2"]);
    let mut client = PingServiceClient::new(Channel::connect(&server.addresses[0]).await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    let open = || open_descriptors(server.id());
    let before = open();
    let message = CollectRequest {
        payload: Bytes::from_static(&[7; 1024]),
        message: "ping".to_owned(),
        ..CollectRequest::default()
    };
    let mut busy = client.clone();
    let endless = tokio_stream::iter(std::iter::repeat(message));
    let call = tokio::spawn(async move { busy.collect(endless).await });
    eventually_async("the stream takes a descriptor", || open() == before + 1).await;
    call.abort();
    eventually_async("it is given back", || open() == before).await;
    client.ping(PingRequest::ping()).await.unwrap();
}
