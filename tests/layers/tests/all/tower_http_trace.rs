//! tower-http's `TraceLayer::new_for_grpc`.

use samehost::Server;
use samehost_layers::{Lines, on_unix_and_tcp};
use samehost_test_support::{Running, Transport};
use tonic::Code;
use tower::Layer;
use tower_http::trace::TraceLayer;

use crate::calls;

on_unix_and_tcp!(on_the_server, on_the_channel);

async fn on_the_server(transport: Transport) {
    let server = calls::services(Server::new().layer(TraceLayer::new_for_grpc()));
    let server = Running::start(transport, server).await;
    let channel = server.channel().await;
    let (lines, _guard) = Lines::start();
    calls::make(|| channel.clone()).await;
    has_traced(&lines);
}

async fn on_the_channel(transport: Transport) {
    let server = Running::start(transport, calls::services(Server::new())).await;
    let channel = server.channel().await;
    let (lines, _guard) = Lines::start();
    calls::make(|| TraceLayer::new_for_grpc().layer(channel.clone())).await;
    has_traced(&lines);
}

/// Every call has its lines, and the failures among them are known by their status, also where it came in
/// trailers.
fn has_traced(lines: &Lines) {
    assert_eq!(lines.with("finished processing request").len(), calls::MADE.len());
    for (service, method, _) in calls::MADE {
        let uri = format!("{service}/{method} ");
        assert!(!lines.with(&uri).is_empty(), "{uri}");
    }
    let failed = lines.with("response failed");
    let codes = calls::MADE.map(|(.., code)| code).into_iter().filter(|code| *code != Code::Ok);
    assert_eq!(failed.len(), codes.clone().count(), "{failed:?}");
    for (line, code) in failed.iter().zip(codes) {
        assert!(line.contains(&format!("{code:?}")), "{line}");
    }
}
