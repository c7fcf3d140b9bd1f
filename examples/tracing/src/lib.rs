//! What the server and the client have in common: spans go to an OpenTelemetry collector, and the trace that
//! they belong to goes with each call (W3C Trace Context).

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Exports this program's spans until it is stopped.
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Exports spans by OTLP to `OTEL_EXPORTER_OTLP_ENDPOINT`, such as `http://127.0.0.1:4317` or
    /// `unix:///run/otel/otlp.sock`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, which drives the exporter's connection.
    pub fn start(service: &'static str) -> Result<Self, Error> {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(service).build())
            .with_batch_exporter(SpanExporter::builder().with_tonic().build()?)
            .build();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
        let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(spans);
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(Self(provider))
    }

    /// Sends what is left. It blocks until the collector has it, and so runs on a thread that may.
    pub async fn stop(self) -> Result<(), Error> {
        Ok(tokio::task::spawn_blocking(move || self.0.shutdown()).await??)
    }
}
