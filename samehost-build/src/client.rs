//! The stubs of a service's client.

use std::fmt::Write;

use prost_build::{Method, Service};

use crate::client_parts::{OWN_FUNCTIONS, setters};
use crate::names::{literal, module_name, types};
use crate::options::Options;
use crate::{blocking, lints};

const TONIC: &str = "::samehost::tonic";
const RUNTIME: &str = "::samehost::codegen";

pub(crate) fn generate(service: &Service, options: &Options, code: &mut String) {
    let name = &service.name;
    let full_name = options.full_name(service);
    let module = module_name(name, "_client");
    let module_attributes = options.client_mod.of(options.package(service));
    let docs = options.docs(&full_name, &service.comments);
    let attributes = options.client.of(&full_name);
    let connect = connect(service, options);
    let own = own_functions(name);
    let mut methods = String::new();
    for it in &service.methods {
        method(it, &full_name, options, &mut methods);
    }
    let blocking = blocking::generate(service, options);
    let allow = lints::within(&module);
    let _ = write!(
        code,
        "/// The client of `{full_name}`.
        {module_attributes}
        pub mod {module} {{
            {allow}

            {docs}
            {attributes}
            #[derive(Clone, Debug)]
            pub struct {name}Client<T> {{
                inner: {RUNTIME}::Client<T>,
            }}

            {connect}

            impl<T> {name}Client<T>
            where
                T: {TONIC}::client::GrpcService<{TONIC}::body::Body> + 'static,
                T::Error: ::core::convert::Into<{RUNTIME}::StdError>,
                T::ResponseBody: {RUNTIME}::Body<Data = {RUNTIME}::Bytes>
                    + ::core::marker::Send + 'static,
                <T::ResponseBody as {RUNTIME}::Body>::Error:
                    ::core::convert::Into<{RUNTIME}::StdError> + ::core::marker::Send,
            {{
                {own}

                {methods}
            }}

            {blocking}
        }}
        "
    );
}

/// Generates the constructor that connects, unless a method has its name.
fn connect(service: &Service, options: &Options) -> String {
    if !options.build_connect || service.methods.iter().any(|method| method.name == "connect") {
        return String::new();
    }
    let name = &service.name;
    format!(
        "impl {name}Client<::samehost::Channel> {{
            /// Returns a client that is connected to an address, such as `unix:/run/app.sock`.
            pub async fn connect<A>(
                address: A,
            ) -> ::core::result::Result<Self, ::samehost::ConnectError>
            where
                A: ::core::convert::TryInto<
                    ::samehost::Address,
                    Error: ::core::convert::Into<::samehost::AddressParseError>,
                >,
            {{
                let channel = {RUNTIME}::connect(address).await?;
                ::core::result::Result::Ok(Self::new(channel))
            }}
        }}"
    )
}

fn own_functions(name: &str) -> String {
    let setters = setters();
    format!(
        "/// A client whose calls go through a channel, or through whatever else takes them.
        pub fn new(inner: T) -> Self {{
            Self {{ inner: {RUNTIME}::Client::new(inner) }}
        }}

        /// Returns a client for services that look at the request's URI.
        pub fn with_origin(inner: T, origin: {RUNTIME}::http::Uri) -> Self {{
            Self {{ inner: {RUNTIME}::Client::with_origin(inner, origin) }}
        }}

        /// Returns a client whose requests an interceptor sees first.
        pub fn with_interceptor<F>(
            inner: T,
            interceptor: F,
        ) -> {name}Client<{RUNTIME}::InterceptedService<T, F>>
        where
            F: {TONIC}::service::Interceptor + 'static,
            T::ResponseBody: ::core::default::Default,
            T: {RUNTIME}::Service<
                {RUNTIME}::http::Request<{TONIC}::body::Body>,
                Response = {RUNTIME}::http::Response<
                    <T as {TONIC}::client::GrpcService<{TONIC}::body::Body>>::ResponseBody,
                >,
            >,
            <T as {RUNTIME}::Service<{RUNTIME}::http::Request<{TONIC}::body::Body>>>::Error:
                ::core::convert::Into<{RUNTIME}::StdError>
                + ::core::marker::Send + ::core::marker::Sync,
        {{
            {name}Client::new({RUNTIME}::InterceptedService::new(inner, interceptor))
        }}

        {setters}"
    )
}

fn method(method: &Method, service: &str, options: &Options, code: &mut String) {
    let Method { name, proto_name, .. } = method;
    let docs = options.docs(&format!("{service}.{proto_name}"), &method.comments);
    let deprecated = if method.options.deprecated() { "#[deprecated]" } else { "" };
    let underscore = if OWN_FUNCTIONS.contains(&name.as_str()) { "_" } else { "" };
    let (request, response) = types(method, &options.proto_path);
    let (request, into_request) = if method.client_streaming {
        (
            format!("{TONIC}::IntoStreamingRequest<Message = {request}>"),
            format!("{TONIC}::IntoStreamingRequest::into_streaming_request"),
        )
    } else {
        (format!("{TONIC}::IntoRequest<{request}>"), format!("{TONIC}::IntoRequest::into_request"))
    };
    let response = if method.server_streaming {
        format!("{TONIC}::codec::Streaming<{response}>")
    } else {
        response
    };
    let kind = match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (false, true) => "server_streaming",
        (true, false) => "client_streaming",
        (true, true) => "streaming",
    };
    let path = literal(&format!("/{service}/{proto_name}"));
    let (service, proto_name) = (literal(service), literal(proto_name));
    let _ = write!(
        code,
        "{docs}
        {deprecated}
        pub async fn {name}{underscore}(
            &mut self,
            request: impl {request},
        ) -> ::core::result::Result<{TONIC}::Response<{response}>, {TONIC}::Status> {{
            const METHOD: {RUNTIME}::Method = {RUNTIME}::Method::new({path}, {service}, {proto_name});
            self.inner.{kind}(METHOD, {into_request}(request)).await
        }}
        "
    );
}
