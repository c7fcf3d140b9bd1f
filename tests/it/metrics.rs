//! What the metrics of both ends say, to a recorder of the test's thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use samehost::ping::{Ping, PingRequest, PingResponse, PingServiceClient, PingServiceServer};
use samehost::{Channel, Metrics, PeerPolicy, PeerPolicyLayer, Server};
use tonic::{Code, Request, Status};

use crate::support::{Running, Scripted, Transport, directory, eventually_async, socket_in};

const SERVICE: &str = "ping.v1.PingService";

/// The sums of counters and gauges, and how many values histograms have; by name and labels.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, f64>>>);

struct One {
    name: String,
    all: Recorded,
}

impl Recorded {
    fn one(&self, key: &Key) -> Arc<One> {
        let mut labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(One { name, all: self.clone() })
    }

    /// The value under a name whose labels include these.
    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let all = self.0.lock().unwrap();
        let prefix = format!("{name}{{");
        let matching = all.iter().filter(|(key, _)| {
            key.strip_prefix(&prefix).is_some_and(|rest| {
                let rest: Vec<_> = rest.trim_end_matches('}').split(',').collect();
                labels.iter().all(|label| rest.contains(label))
            })
        });
        matching.map(|(_, value)| value).sum()
    }
}

impl One {
    fn add(&self, value: f64) {
        *self.all.0.lock().unwrap().entry(self.name.clone()).or_default() += value;
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!("counters are incremented");
    }
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        unreachable!("gauges go up and down");
    }
}

impl HistogramFn for One {
    fn record(&self, _: f64) {
        self.add(1.0);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

const PING: &str = "rpc.method=ping.v1.PingService/Ping";

async fn both_ends_count_the_same_calls(transport: Transport) {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let server = Scripted::default().server().observer(Metrics::new());
    let server = Running::start(transport, server).await;
    let builder = Channel::builder(&server.address).observer(Metrics::new());
    let mut client = PingServiceClient::new(builder.connect().await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    let wrong = PingRequest { message: "no".into(), ..Default::default() };
    client.ping(wrong).await.unwrap_err();

    let (kind, address) = match server.address.as_path() {
        Some(path) => ("network.transport=unix", format!("server.address={}", path.display())),
        None => ("network.transport=tcp", "server.address=127.0.0.1".to_owned()),
    };
    let open = || {
        recorded.value("samehost.server.connections", &[kind])
            + recorded.value("grpc.subchannel.open_connections", &[kind, &address])
    };
    assert_eq!(open(), 2.0);
    for (duration, more) in
        [("rpc.server.call.duration", None), ("rpc.client.call.duration", Some(&*address))]
    {
        for labels in [
            &["rpc.response.status_code=OK"][..],
            &["rpc.response.status_code=INVALID_ARGUMENT", "error.type=INVALID_ARGUMENT"],
        ] {
            let labels: Vec<_> = labels.iter().copied().chain([PING]).chain(more).collect();
            assert_eq!(recorded.value(duration, &labels), 1.0, "{duration} {labels:?}");
        }
    }
    assert_eq!(recorded.value("grpc.server.call.started", &[]), 2.0);
    assert_eq!(recorded.value("grpc.client.attempt.started", &[PING]), 2.0);
    assert_eq!(recorded.value("samehost.client.call.waited", &[PING]), 2.0);
    assert_eq!(recorded.value("grpc.subchannel.connection_attempts_succeeded", &[&address]), 1.0);
    assert_eq!(recorded.value("samehost.server.calls", &[]), 0.0);
    assert_eq!(recorded.value("samehost.client.calls", &[]), 0.0);
    drop(client);
    eventually_async("both ends have closed", || open() == 0.0).await;
    assert_eq!(recorded.value("grpc.subchannel.disconnections", &[kind]), 1.0);
    assert_eq!(recorded.value("samehost.server.connections.closed", &[kind]), 1.0);
}

#[tokio::test]
async fn both_ends_count_the_same_calls_over_unix_sockets() {
    both_ends_count_the_same_calls(Transport::Unix).await;
}

#[tokio::test]
async fn both_ends_count_the_same_calls_over_tcp() {
    both_ends_count_the_same_calls(Transport::Tcp).await;
}

#[tokio::test]
async fn a_failure_to_connect_is_counted() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let folder = directory();
    let builder = Channel::builder(socket_in(folder.path())).observer(Metrics::new());
    let mut client = PingServiceClient::new(builder.connect_lazy());
    client.ping(PingRequest::ping()).await.unwrap_err();
    let failed = "grpc.subchannel.connection_attempts_failed";
    assert_eq!(recorded.value(failed, &["error.type=NoServer"]), 1.0);
}

#[tokio::test]
async fn methods_that_clients_make_up_take_no_values_from_others() {
    let check = |request: Request<()>| match request.metadata().contains_key("token") {
        true => Ok(request),
        false => Err(Status::unauthenticated("no token")),
    };
    let with_interceptor =
        Server::new().add_service(PingServiceServer::with_interceptor(Ping::default(), check));
    let policy = PeerPolicyLayer::new().method_named(SERVICE, "Ping", PeerPolicy::anyone());
    let with_policy = Scripted::default().server().method_policy(policy);
    for server in [with_interceptor, with_policy] {
        let recorded = Recorded::default();
        let _guard = metrics::set_default_local_recorder(&recorded);
        let server = Running::start(Transport::Unix, server.observer(Metrics::new())).await;
        let mut client = tonic::client::Grpc::new(server.channel().await);
        for number in 0..1_001 {
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
            let path = format!("/{SERVICE}/M{number}").parse().unwrap();
            client.unary(Request::new(PingRequest::ping()), path, codec).await.unwrap_err();
        }
        let mut request = Request::new(PingRequest::ping());
        request.metadata_mut().insert("token", "a".parse().unwrap());
        PingServiceClient::new(server.channel().await).ping(request).await.unwrap();
        let duration = "rpc.server.call.duration";
        assert_eq!(recorded.value(duration, &["rpc.method=_OTHER"]), 1_001.0);
        assert_eq!(recorded.value(duration, &["rpc.method=ping.v1.PingService/Ping"]), 1.0);
    }
}

#[tokio::test]
async fn clients_cannot_make_values_without_end() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let server = Scripted::default().server().observer(Metrics::new());
    let server = Running::start(Transport::Unix, server).await;
    let mut client = tonic::client::Grpc::new(server.channel().await);
    for number in 0..50 {
        for path in [format!("/no.Service/M{number}"), format!("/ping.v1.PingService/M{number}")] {
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
            let call =
                client.unary(Request::new(PingRequest::ping()), path.parse().unwrap(), codec);
            assert_eq!(call.await.unwrap_err().code(), Code::Unimplemented);
        }
    }
    assert_eq!(recorded.value("rpc.server.call.duration", &["rpc.method=_OTHER"]), 100.0);
    let all = recorded.0.lock().unwrap();
    assert_eq!(all.keys().filter(|key| key.starts_with("rpc.server.call.duration")).count(), 1);
}
