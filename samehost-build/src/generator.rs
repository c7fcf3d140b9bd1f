//! [`Generator`]: generates the stubs of a service when prost's builder asks for them. It also has
//! what the stubs of the server and of the client have in common.

use std::collections::HashSet;

use prost_build::{Comments, Method, Service};

use crate::attributes::Attributes;
use crate::{client, server};

/// The options of the stubs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) build_client: bool,
    pub(crate) build_server: bool,
    pub(crate) build_connect: bool,
    pub(crate) emit_package: bool,
    pub(crate) use_arc_self: bool,
    pub(crate) default_stubs: bool,
    pub(crate) without_comments: HashSet<String>,
    pub(crate) server_mod: Attributes,
    pub(crate) server: Attributes,
    pub(crate) service_trait: Attributes,
    pub(crate) client_mod: Attributes,
    pub(crate) client: Attributes,
}

pub(crate) struct Generator(Options);

impl Generator {
    pub(crate) fn new(options: Options) -> Self {
        Self(options)
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, code: &mut String) {
        let Self(options) = self;
        if options.build_client {
            client::generate(&service, options, code);
        }
        if options.build_server {
            server::generate(&service, options, code);
        }
    }
}

impl Options {
    /// Returns the package's name if it is a part of names.
    pub(crate) fn package<'a>(&self, service: &'a Service) -> &'a str {
        if self.emit_package { &service.package } else { "" }
    }

    /// Returns the service's full name, as in a request's path.
    pub(crate) fn full_name(&self, service: &Service) -> String {
        match self.package(service) {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        }
    }

    /// Returns the comments of a service or of one of its methods as docs.
    pub(crate) fn docs(&self, full_name: &str, comments: &Comments) -> String {
        let mut docs = String::new();
        if !self.without_comments.contains(full_name) {
            let comments = Comments { leading_detached: Vec::new(), ..comments.clone() };
            comments.append_with_indent(0, &mut docs);
        }
        docs
    }
}

/// Returns the name of a module for a service: the service's name in snake case, where each capital
/// letter begins a new word, as in tonic.
pub(crate) fn module_name(service: &str, suffix: &str) -> String {
    let mut name = String::new();
    for letter in service.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name + suffix
}

/// Returns the Rust types of a method's request and response, as the modules of the stubs see them.
pub(crate) fn types(method: &Method) -> (String, String) {
    (from_within(&method.input_type), from_within(&method.output_type))
}

/// Returns a type of the package's module, as seen from a module in it. Types of other crates and
/// of the language are the same everywhere.
pub(crate) fn from_within(rust_type: &str) -> String {
    const PRIMITIVE: [&str; 8] = ["()", "bool", "i32", "i64", "u32", "u64", "f32", "f64"];
    let everywhere = rust_type.starts_with("::")
        || rust_type.starts_with("crate::")
        || PRIMITIVE.contains(&rust_type);
    if everywhere { rust_type.to_owned() } else { format!("super::{rust_type}") }
}

/// Returns a string as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_as_tonic_names_them() {
        assert_eq!(module_name("Greeter", "_server"), "greeter_server");
        assert_eq!(module_name("TwoWords", "_client"), "two_words_client");
        assert_eq!(module_name("Http2Service", "_server"), "http2_service_server");
    }

    #[test]
    fn types_of_the_package_are_one_module_up() {
        assert_eq!(from_within("HelloRequest"), "super::HelloRequest");
        assert_eq!(from_within("super::other::Thing"), "super::super::other::Thing");
        assert_eq!(from_within("outer::Inner"), "super::outer::Inner");
        assert_eq!(from_within("::prost_types::Timestamp"), "::prost_types::Timestamp");
        assert_eq!(from_within("crate::Mine"), "crate::Mine");
        assert_eq!(from_within("()"), "()");
    }
}
