//! The stubs of a service's client whose calls block.

use std::fmt::Write;

use prost_build::{Method, Service};

use crate::client_parts::{OWN_FUNCTIONS, setters};
use crate::names::{literal, one_deeper, types};
use crate::options::Options;

const TONIC: &str = "::samehost::tonic";
const RUNTIME: &str = "::samehost::codegen";
const BLOCKING: &str = "::samehost::blocking";

/// Generates a module within the client's module.
pub(crate) fn generate(service: &Service, options: &Options) -> String {
    let name = &service.name;
    let full_name = options.full_name(service);
    let docs = options.docs(&full_name, &service.comments);
    let connect = connect(service, options);
    let setters = setters();
    let mut methods = String::new();
    for it in &service.methods {
        method(it, &full_name, options, &mut methods);
    }
    format!(
        "/// The client of `{full_name}` whose calls block the thread that makes them.
        pub mod blocking {{
            {docs}
            #[derive(Clone, Debug)]
            pub struct {name}Client {{
                inner: {BLOCKING}::Client,
            }}

            impl {name}Client {{
                /// Returns a client whose calls go through a channel.
                pub fn new(channel: {BLOCKING}::Channel) -> Self {{
                    Self {{ inner: {BLOCKING}::Client::new(channel) }}
                }}

                /// Returns a client whose requests an interceptor sees first.
                pub fn with_interceptor<F>(channel: {BLOCKING}::Channel, interceptor: F) -> Self
                where
                    F: {TONIC}::service::Interceptor
                        + ::core::clone::Clone + ::core::marker::Send + ::core::marker::Sync + 'static,
                {{
                    Self {{ inner: {BLOCKING}::Client::with_interceptor(channel, interceptor) }}
                }}

                {connect}

                {setters}

                {methods}
            }}
        }}"
    )
}

/// Generates the constructor that connects, unless a method has its name.
fn connect(service: &Service, options: &Options) -> String {
    if !options.build_connect || service.methods.iter().any(|method| method.name == "connect") {
        return String::new();
    }
    format!(
        "/// A client that is connected to an address, such as `unix:/run/app.sock`.
        pub fn connect<A>(address: A) -> ::core::result::Result<Self, ::samehost::ConnectError>
        where
            A: ::core::convert::TryInto<
                ::samehost::Address,
                Error: ::core::convert::Into<::samehost::AddressParseError>,
            >,
        {{
            let channel = {BLOCKING}::Channel::connect(address)?;
            ::core::result::Result::Ok(Self::new(channel))
        }}"
    )
}

fn method(method: &Method, service: &str, options: &Options, code: &mut String) {
    let Method { name, proto_name, .. } = method;
    let docs = options.docs(&format!("{service}.{proto_name}"), &method.comments);
    let deprecated = if method.options.deprecated() { "#[deprecated]" } else { "" };
    let underscore = if OWN_FUNCTIONS.contains(&name.as_str()) { "_" } else { "" };
    let (request, response) = types(method, &options.proto_path);
    let (request, response) = (one_deeper(&request), one_deeper(&response));
    let (streams, is_streamed) = (method.client_streaming, method.server_streaming);
    let (kind, argument, into_request, answer) = match (streams, is_streamed) {
        (false, false) => (
            "unary",
            format!("impl {TONIC}::IntoRequest<{request}>"),
            format!("{TONIC}::IntoRequest::into_request(request)"),
            format!("{TONIC}::Response<{response}>"),
        ),
        (false, true) => (
            "server_streaming",
            format!("impl {TONIC}::IntoRequest<{request}>"),
            format!("{TONIC}::IntoRequest::into_request(request)"),
            format!("{TONIC}::Response<{BLOCKING}::Streaming<{response}>>"),
        ),
        (true, false) => (
            "client_streaming",
            format!("{TONIC}::Request<impl ::core::iter::IntoIterator<Item = {request}>>"),
            "request".to_owned(),
            format!("{TONIC}::Response<{response}>"),
        ),
        (true, true) => (
            "streaming",
            format!("impl {TONIC}::IntoRequest<()>"),
            format!("{TONIC}::IntoRequest::into_request(request)"),
            format!("{BLOCKING}::Conversation<{request}, {response}>"),
        ),
    };
    let path = literal(&format!("/{service}/{proto_name}"));
    let (service, proto_name) = (literal(service), literal(proto_name));
    let _ = write!(
        code,
        "{docs}
        {deprecated}
        pub fn {name}{underscore}(
            &mut self,
            request: {argument},
        ) -> ::core::result::Result<{answer}, {TONIC}::Status> {{
            const METHOD: {RUNTIME}::Method = {RUNTIME}::Method::new({path}, {service}, {proto_name});
            self.inner.{kind}(METHOD, {into_request})
        }}
        "
    );
}
