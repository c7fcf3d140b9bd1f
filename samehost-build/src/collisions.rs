//! Names of a proto that would be one name in the generated code, where rustc would complain about it.

use std::collections::HashMap;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

use crate::error::Error;
use crate::names::module_name;

/// Refuses services of one package, methods of one service, and types of one scope that would have the same name in
/// Rust, such as `rpc Get` and `rpc GET`. What is at `extern_paths` is in another crate.
pub(crate) fn refuse(
    descriptors: &FileDescriptorSet,
    extern_paths: &[(String, String)],
) -> Result<(), Error> {
    refuse_types(descriptors, extern_paths)?;
    let mut services = HashMap::new();
    for file in &descriptors.file {
        for (number, service) in (0..).zip(&file.service) {
            if is_extern(file, service.name(), extern_paths) {
                continue;
            }
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

fn refuse_types(
    descriptors: &FileDescriptorSet,
    extern_paths: &[(String, String)],
) -> Result<(), Error> {
    let mut packages: HashMap<_, HashMap<String, Place<'_>>> = HashMap::new();
    for file in &descriptors.file {
        let names = packages.entry(file.package()).or_default();
        let types = types_of(&[], 4, &file.message_type, &file.enum_type);
        refuse_names(file, types.filter(|(_, name)| !is_extern(file, name, extern_paths)), names)?;
        for (number, message) in (0..).zip(&file.message_type) {
            if !is_extern(file, message.name(), extern_paths) {
                refuse_types_within(file, &[4, number], message.name(), message, extern_paths)?;
            }
        }
    }
    Ok(())
}

fn refuse_types_within(
    file: &FileDescriptorProto,
    path: &[i32],
    name: &str,
    message: &DescriptorProto,
    extern_paths: &[(String, String)],
) -> Result<(), Error> {
    let is_own = |inner: &str| !is_extern(file, &format!("{name}.{inner}"), extern_paths);
    let types = types_of(path, 3, &message.nested_type, &message.enum_type);
    refuse_names(file, types.filter(|(_, inner)| is_own(inner)), &mut HashMap::new())?;
    for (number, inner) in (0..).zip(&message.nested_type) {
        let (path, name) = ([path, &[3, number]].concat(), format!("{name}.{}", inner.name()));
        refuse_types_within(file, &path, &name, inner, extern_paths)?;
    }
    Ok(())
}

/// Returns the paths and names of the messages and enums of a scope. `field` is the messages' number in the scope's
/// descriptor; that of the enums follows it.
fn types_of<'a>(
    path: &'a [i32],
    field: i32,
    messages: &'a [DescriptorProto],
    enums: &'a [EnumDescriptorProto],
) -> impl Iterator<Item = (Vec<i32>, &'a str)> {
    let messages = (0..).zip(messages).filter(|(_, it)| !is_map_entry(it));
    let messages = messages.map(move |(number, it)| (field, number, it.name()));
    let enums = (0..).zip(enums).map(move |(number, it)| (field + 1, number, it.name()));
    messages
        .chain(enums)
        .map(move |(field, number, name)| ([path, &[field, number]].concat(), name))
}

/// Refuses types whose names in Rust are among `names`, and adds those names.
fn refuse_names<'a>(
    file: &'a FileDescriptorProto,
    types: impl Iterator<Item = (Vec<i32>, &'a str)>,
    names: &mut HashMap<String, Place<'a>>,
) -> Result<(), Error> {
    for (path, name) in types {
        let (rust_name, place) = (name.to_upper_camel_case(), Place::new(file, &path, name));
        if let Some(other) = names.insert(rust_name.clone(), place.clone()) {
            return Err(collision("type", &rust_name, &other, &place));
        }
    }
    Ok(())
}

/// Refuses a service named `Box`: `async_trait` writes `Box` for the standard library's, and the trait would be in its
/// place.
pub(crate) fn refuse_box(
    descriptors: &FileDescriptorSet,
    extern_paths: &[(String, String)],
) -> Result<(), Error> {
    for file in &descriptors.file {
        let is_box = |name: &str| name.to_upper_camel_case() == "Box";
        let own = |name: &str| !is_extern(file, name, extern_paths);
        let services = (0..).zip(&file.service);
        let mut boxes = services.filter(|(_, it)| is_box(it.name()) && own(it.name()));
        if let Some((number, service)) = boxes.find(|(_, it)| !it.method.is_empty()) {
            let place = Place::new(file, &[6, number], service.name());
            return Err(Error::usage(format!(
                "{place}: the server of a service named {} cannot be generated, since its trait would hide Rust's own \
                 `Box`: rename it, or leave out servers (build_server)",
                service.name()
            )));
        }
    }
    Ok(())
}

/// Refuses messages whose types within are in a module that has the name of a module of stubs, such as
/// `message GreeterClient` beside `service Greeter`. `suffixes` are the ends of the names of the stubs' modules.
pub(crate) fn refuse_modules(
    descriptors: &FileDescriptorSet,
    extern_paths: &[(String, String)],
    suffixes: &[&str],
) -> Result<(), Error> {
    let mut modules = HashMap::new();
    for file in &descriptors.file {
        for (number, service) in (0..).zip(&file.service) {
            let place = Place::new(file, &[6, number], service.name());
            for suffix in suffixes {
                let module = module_name(&service.name().to_upper_camel_case(), suffix);
                modules.insert((file.package(), module), place.clone());
            }
        }
    }
    for file in &descriptors.file {
        for (number, message) in (0..).zip(&file.message_type) {
            let module = message.name().to_snake_case();
            if let Some(service) = modules.get(&(file.package(), module.clone()))
                && has_module(message)
                && !is_extern(file, message.name(), extern_paths)
            {
                let place = Place::new(file, &[4, number], message.name());
                return Err(Error::usage(format!(
                    "{place}: the types within the message {} are in the module `{module}` in Rust, as the stubs of \
                     the service {} are ({service}): rename one of them",
                    message.name(),
                    service.name
                )));
            }
        }
    }
    Ok(())
}

/// Returns whether prost generates a module for the types within a message. Entries of maps have none, and neither
/// have fields that are `optional`.
fn has_module(message: &DescriptorProto) -> bool {
    let in_oneof =
        |field: &FieldDescriptorProto| field.oneof_index.is_some() && !field.proto3_optional();
    !message.nested_type.iter().all(is_map_entry)
        || !message.enum_type.is_empty()
        || message.field.iter().any(in_oneof)
}

/// Returns whether a message is an entry of a map, which has no type of its own.
fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|it| it.map_entry())
}

/// Returns whether one of these paths leads to a message or a service, or to what it is in.
fn is_extern(file: &FileDescriptorProto, name: &str, extern_paths: &[(String, String)]) -> bool {
    let full_name = match file.package() {
        "" => format!(".{name}"),
        package => format!(".{package}.{name}"),
    };
    extern_paths.iter().any(|(path, _)| {
        let rest = full_name.strip_prefix(path.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
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
