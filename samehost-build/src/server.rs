//! The stubs of a service's server: the trait that a service implements, and the server that calls it.
//!
//! The trait is named by its path, since a service may have the name of a type parameter.

use std::fmt::Write;

use prost_build::{Method, Service};

use crate::lints;
use crate::names::{literal, module_name, types};
use crate::options::Options;

const TONIC: &str = "::samehost::tonic";
const RUNTIME: &str = "::samehost::codegen";

pub(crate) fn generate(service: &Service, options: &Options, code: &mut String) {
    let name = &service.name;
    let full_name = options.full_name(service);
    let module = module_name(name, "_server");
    let module_attributes = options.server_mod.of(options.package(service));
    let docs = options.docs(&full_name, &service.comments);
    let attributes = options.server.of(&full_name);
    let service_trait = service_trait(service, options);
    let dispatch = dispatch(service, options);
    let server = server(name);
    let allow = lints::within(&module);
    let service_name = literal(&full_name);
    let _ = write!(
        code,
        "/// The server of `{full_name}`.
        {module_attributes}
        pub mod {module} {{
            {allow}

            {service_trait}

            {docs}
            {attributes}
            #[derive(Debug)]
            pub struct {name}Server<T> {{
                inner: ::std::sync::Arc<T>,
                options: {RUNTIME}::ServerOptions,
            }}

            {server}

            {dispatch}

            /// The service's name, with its package.
            pub const SERVICE_NAME: &str = {service_name};

            impl<T> {TONIC}::server::NamedService for {name}Server<T> {{
                const NAME: &'static str = SERVICE_NAME;
            }}

            impl<T: self::{name}> {RUNTIME}::Mount for {name}Server<T> {{
                fn mount(self) -> {RUNTIME}::Mounted {{
                    {RUNTIME}::mount(self)
                }}
            }}
        }}
        "
    );
}

/// Returns the functions and the tower service of a server.
fn server(name: &str) -> String {
    format!(
        "impl<T> {name}Server<T> {{
            /// Returns a server of this service.
            pub fn new(inner: T) -> Self {{
                Self::from_arc(::std::sync::Arc::new(inner))
            }}

            /// Returns a server of a service that other owners share.
            pub fn from_arc(inner: ::std::sync::Arc<T>) -> Self {{
                Self {{ inner, options: ::core::default::Default::default() }}
            }}

            /// Returns a server whose requests an interceptor sees first.
            pub fn with_interceptor<F>(
                inner: T,
                interceptor: F,
            ) -> {RUNTIME}::InterceptedService<{RUNTIME}::AnyBody<Self>, F>
            where
                F: {TONIC}::service::Interceptor,
            {{
                {RUNTIME}::InterceptedService::new(Self::new(inner).into_service(), interceptor)
            }}

            /// Returns the same as a tower service for requests with any body, such as axum's. On a
            /// server of samehost's it is slower than the plain service, which that server calls
            /// directly.
            pub fn into_service(self) -> {RUNTIME}::AnyBody<Self> {{
                {RUNTIME}::AnyBody::new(self)
            }}

            /// Accepts requests with this compression. Default: only requests without compression.
            #[must_use]
            pub fn accept_compressed(mut self, encoding: {RUNTIME}::CompressionEncoding) -> Self {{
                self.options.accept_compressed(encoding);
                self
            }}

            /// Compresses responses this way for clients that accept it.
            #[must_use]
            pub fn send_compressed(mut self, encoding: {RUNTIME}::CompressionEncoding) -> Self {{
                self.options.send_compressed(encoding);
                self
            }}

            /// Sets the largest size of a received message, in bytes. A larger one gets
            /// RESOURCE_EXHAUSTED. Default: 4 MiB.
            #[must_use]
            pub fn max_decoding_message_size(mut self, limit: usize) -> Self {{
                self.options.max_decoding_message_size(limit);
                self
            }}

            /// Sets the largest size of a sent message, in bytes. Default: no limit.
            #[must_use]
            pub fn max_encoding_message_size(mut self, limit: usize) -> Self {{
                self.options.max_encoding_message_size(limit);
                self
            }}
        }}

        impl<T> ::core::clone::Clone for {name}Server<T> {{
            fn clone(&self) -> Self {{
                Self {{ inner: ::std::sync::Arc::clone(&self.inner), options: self.options.clone() }}
            }}
        }}

        impl<T: self::{name}> {RUNTIME}::Service<{RUNTIME}::http::Request<{TONIC}::body::Body>>
            for {name}Server<T>
        {{
            type Response = {RUNTIME}::http::Response<{TONIC}::body::Body>;
            type Error = ::core::convert::Infallible;
            type Future = {RUNTIME}::BoxFuture<Self::Response, Self::Error>;

            fn poll_ready(
                &mut self,
                _: &mut ::core::task::Context<'_>,
            ) -> ::core::task::Poll<::core::result::Result<(), Self::Error>> {{
                ::core::task::Poll::Ready(::core::result::Result::Ok(()))
            }}

            fn call(
                &mut self,
                request: {RUNTIME}::http::Request<{TONIC}::body::Body>,
            ) -> Self::Future {{
                {RUNTIME}::call(self, request)
            }}
        }}
        "
    )
}

fn service_trait(service: &Service, options: &Options) -> String {
    let name = &service.name;
    let full_name = options.full_name(service);
    let attributes = options.service_trait.of(name);
    let mut methods = String::new();
    for method in &service.methods {
        trait_method(method, &full_name, options, &mut methods);
    }
    format!(
        "/// The methods of `{full_name}`, for [`{name}Server`] to call.
        {attributes}
        #[{TONIC}::async_trait]
        pub trait {name}: ::core::marker::Send + ::core::marker::Sync + 'static {{
            {methods}
        }}"
    )
}

fn trait_method(method: &Method, service: &str, options: &Options, code: &mut String) {
    let Method { name, proto_name, .. } = method;
    let (request, response) = types(method, &options.proto_path);
    let request =
        if method.client_streaming { format!("{TONIC}::Streaming<{request}>") } else { request };
    let response = match (method.server_streaming, options.default_stubs) {
        (false, _) => response,
        (true, true) => format!("{RUNTIME}::BoxStream<{response}>"),
        (true, false) => {
            let _ = write!(
                code,
                "/// What the method {proto_name} streams.
                type {proto_name}Stream: {RUNTIME}::Stream<
                        Item = ::core::result::Result<{response}, {TONIC}::Status>,
                    > + ::core::marker::Send + 'static;
                "
            );
            format!("Self::{proto_name}Stream")
        }
    };
    let docs = options.docs(&format!("{service}.{proto_name}"), &method.comments);
    let this = if options.use_arc_self { "self: ::std::sync::Arc<Self>" } else { "&self" };
    let body = if options.default_stubs {
        format!(
            "{{ ::core::result::Result::Err({TONIC}::Status::unimplemented(\
             \"this service does not implement the method\")) }}"
        )
    } else {
        ";".to_owned()
    };
    let _ = write!(
        code,
        "{docs}
        async fn {name}(
            {this},
            request: {TONIC}::Request<{request}>,
        ) -> ::core::result::Result<{TONIC}::Response<{response}>, {TONIC}::Status>{body}
        "
    );
}

/// Generates the code by which a server finds the method of a request and calls it.
fn dispatch(service: &Service, options: &Options) -> String {
    let name = &service.name;
    let mut arms = String::new();
    let names = service.methods.iter().map(|method| literal(&method.proto_name));
    let names = names.collect::<Vec<_>>().join(", ");
    for method in &service.methods {
        let (request, _) = types(method, &options.proto_path);
        let request = if method.client_streaming {
            format!("{TONIC}::Streaming<{request}>")
        } else {
            request
        };
        let kind = match (method.client_streaming, method.server_streaming) {
            (false, false) => "unary",
            (false, true) => "server_streaming",
            (true, false) => "client_streaming",
            (true, true) => "streaming",
        };
        let call = match kind {
            "unary" => call_unary(name, method, &request, options),
            kind => call_of_streams(name, method, kind, &request, options),
        };
        let method = literal(&method.proto_name);
        let _ = writeln!(arms, "{method} => {{ {call} }}");
    }
    format!(
        "impl<T: self::{name}> {RUNTIME}::Methods for {name}Server<T> {{
            const NAMES: &'static [&'static str] = &[{names}];

            fn answer<C: {RUNTIME}::Call>(&self, method: &str, call: C) -> C::Answer {{
                match method {{
                    {arms}
                    _ => call.unimplemented(),
                }}
            }}
        }}"
    )
}

/// Generates the code that calls a method with one request and one response. The method borrows the service,
/// and gets a reference of its own only if it is not ready at once.
fn call_unary(service: &str, method: &Method, request: &str, options: &Options) -> String {
    let function = &method.name;
    let bound = if options.use_arc_self {
        format!(
            "owned(inner, <T as self::{service}>::{function}(::std::sync::Arc::clone(inner), request))"
        )
    } else {
        format!("new(inner, |inner| <T as self::{service}>::{function}(inner, request))")
    };
    format!(
        "call.unary(&self.options, &self.inner, |inner, request: {TONIC}::Request<{request}>| {{
            {RUNTIME}::Bound::{bound}
        }})"
    )
}

/// Generates the code that calls a method of another kind.
fn call_of_streams(
    service: &str,
    method: &Method,
    kind: &str,
    request: &str,
    options: &Options,
) -> String {
    let function = &method.name;
    let inner = if options.use_arc_self { "inner" } else { "&inner" };
    format!(
        "let inner = ::std::sync::Arc::clone(&self.inner);
        call.{kind}(&self.options, move |request: {TONIC}::Request<{request}>| {{
            async move {{ <T as self::{service}>::{function}({inner}, request).await }}
        }})"
    )
}
