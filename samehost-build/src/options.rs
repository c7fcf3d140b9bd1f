//! [`Options`]: what the user asked of the stubs, and what follows from it for a service.

use std::collections::HashSet;

use prost_build::{Comments, Service};

use crate::attributes::Attributes;
use crate::check;
use crate::doctests;
use crate::error::Error;

/// The options of the stubs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) build_client: bool,
    pub(crate) build_server: bool,
    pub(crate) build_connect: bool,
    pub(crate) emit_package: bool,
    /// The path from the modules of the stubs to the module of the messages.
    pub(crate) proto_path: String,
    pub(crate) use_arc_self: bool,
    pub(crate) default_stubs: bool,
    pub(crate) without_comments: HashSet<String>,
    pub(crate) server_mod: Attributes,
    pub(crate) server: Attributes,
    pub(crate) service_trait: Attributes,
    pub(crate) client_mod: Attributes,
    pub(crate) client: Attributes,
}

impl Options {
    /// Refuses attributes that are none.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (option, given) in [
            ("server_mod_attribute", &self.server_mod),
            ("server_attribute", &self.server),
            ("trait_attribute", &self.service_trait),
            ("client_mod_attribute", &self.client_mod),
            ("client_attribute", &self.client),
        ] {
            check::attributes(option, given.pairs())?;
        }
        Ok(())
    }

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
        doctests::prevent(&docs)
    }
}
