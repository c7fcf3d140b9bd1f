//! Names of a proto that would be one name in the generated code, where rustc would complain about it.

use std::collections::HashMap;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::error::Error;
use crate::names::module_name;

/// Refuses services of one package, and methods of one service, that would have the same name in
/// Rust, such as `rpc Get` and `rpc GET`.
pub(crate) fn refuse(descriptors: &FileDescriptorSet) -> Result<(), Error> {
    let mut services = HashMap::new();
    for file in &descriptors.file {
        for (number, service) in (0..).zip(&file.service) {
            let place = Place::new(file, &[6, number], service.name());
            let rust_name = module_name(&service.name().to_upper_camel_case(), "");
            if let Some(other) = services.insert((file.package(), rust_name.clone()), place.clone())
            {
                return Err(collision("service", &rust_name, &other, &place));
            }
            let mut methods = HashMap::new();
            for (method_number, method) in (0..).zip(&service.method) {
                let place = Place::new(file, &[6, number, 2, method_number], method.name());
                let rust_name = method.name().to_snake_case();
                if let Some(other) = methods.insert(rust_name.clone(), place.clone()) {
                    return Err(collision("method", &rust_name, &other, &place));
                }
            }
        }
    }
    Ok(())
}

fn collision(what: &str, rust_name: &str, first: &Place<'_>, second: &Place<'_>) -> Error {
    Error::usage(format!(
        "{second}: the {what} {} is `{rust_name}` in Rust, as the {what} {} is ({first}): rename one of them",
        second.name, first.name
    ))
}

/// Where a name is.
#[derive(Clone)]
struct Place<'a> {
    file: &'a str,
    /// `None` if the set has no information about the source.
    line: Option<i32>,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// `path` leads to the named item, by the numbers of fields in `descriptor.proto`.
    fn new(file: &'a FileDescriptorProto, path: &[i32], name: &'a str) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let mut spans = locations.filter(|location| location.path == path).map(|it| &it.span);
        let line = spans.next().and_then(|span| span.first()).map(|line| line + 1);
        Self { file: file.name(), line, name }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(self.file),
        }
    }
}
