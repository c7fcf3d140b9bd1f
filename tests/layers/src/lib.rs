//! What the tests share: a subscriber of the test's own, for its thread, as a program would install one.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Level};
use tracing_subscriber::layer::SubscriberExt;

/// Makes one test of each function for each transport. All of a test runs in its one thread, which has the
/// test's subscriber.
#[macro_export]
macro_rules! on_unix_and_tcp {
    ($($name:ident),+ $(,)?) => {
        mod unix {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(samehost_test_support::Transport::Unix).await;
                }
            )+
        }
        mod tcp {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(samehost_test_support::Transport::Tcp).await;
                }
            )+
        }
    };
}

/// While there is one subscriber only, a span that another thread meets first is taken to interest nobody.
/// So there are always two.
fn always_two() {
    static OTHER: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&OTHER);
}

/// The spans of a thread, as they would be exported.
pub struct Spans {
    exporter: InMemorySpanExporter,
    /// Exports as long as it lives.
    _provider: SdkTracerProvider,
    _guard: DefaultGuard,
}

impl Spans {
    pub fn start() -> Self {
        always_two();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans));
        Self { exporter, _provider: provider, _guard: guard }
    }

    /// Those that have ended.
    pub fn ended(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }
}

/// An attribute of a span as text.
pub fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

/// The log of a thread, from DEBUG.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn start() -> (Self, DefaultGuard) {
        always_two();
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Those with `part` in them.
    pub fn with(&self, part: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
