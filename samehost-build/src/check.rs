//! What is refused before code is generated, because prost's builder would panic or rustc would complain
//! about the generated code, where nobody sees the reason.

use std::collections::HashSet;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use syn::Attribute;
use syn::parse::Parser;

use crate::error::Error;

/// Refuses attributes that are none. `option` is the function that they were given to.
pub(crate) fn attributes(option: &str, pairs: &[(String, String)]) -> Result<(), Error> {
    for (path, attribute) in pairs {
        Attribute::parse_outer.parse_str(attribute).map_err(|error| {
            Error::usage(format!(
                "{option}({path:?}, {attribute:?}) is no attribute ({error}): write it as \"#[derive(Hash)]\""
            ))
        })?;
    }
    Ok(())
}

/// Refuses sets of which no code can be generated.
pub(crate) fn set(descriptors: &FileDescriptorSet) -> Result<(), Error> {
    if descriptors.file.is_empty() {
        return Err(Error::usage(format!("the FileDescriptorSet has no files: {WITH_IMPORTS}")));
    }
    let mut messages = HashSet::new();
    for file in &descriptors.file {
        if !matches!(file.syntax(), "" | "proto2" | "proto3") {
            return Err(Error::editions(file.name()));
        }
        for (name, _) in messages_of(file) {
            messages.insert(name);
        }
    }
    for file in &descriptors.file {
        fields(file, &messages, descriptors)?;
    }
    Ok(())
}

const WITH_IMPORTS: &str = "compile its protos with their imports (protoc --include_imports)";

/// Refuses a field of a message that the set does not have. prost looks into the message, even if
/// it is one of another crate, to know what the field's own message can derive.
fn fields(
    file: &FileDescriptorProto,
    messages: &HashSet<String>,
    set: &FileDescriptorSet,
) -> Result<(), Error> {
    for (name, message) in messages_of(file) {
        let missing = message.field.iter().find(|field| {
            field.r#type() == Type::Message
                && field.label() != Label::Repeated
                && !messages.contains(field.type_name())
        });
        let Some(field) = missing else { continue };
        let is_there = |import: &str| set.file.iter().any(|file| file.name() == import);
        let imports = file.dependency.iter().map(String::as_str);
        let imports: Vec<_> = imports.filter(|import| !is_there(import)).collect();
        return Err(Error::usage(format!(
            "{}: the field {}.{} is a {}, which the FileDescriptorSet does not have, nor has it the imports [{}]: \
             {WITH_IMPORTS}",
            file.name(),
            &name[1..],
            field.name(),
            field.type_name().trim_start_matches('.'),
            imports.join(", "),
        )));
    }
    Ok(())
}

/// Returns the messages of a file and those within them, with their full names, such as `.a.v1.Message.Inner`.
/// Entries of maps are left out.
fn messages_of(file: &FileDescriptorProto) -> Vec<(String, &DescriptorProto)> {
    let package = match file.package() {
        "" => String::new(),
        package => format!(".{package}"),
    };
    let named = |outer: &str, message: &DescriptorProto| format!("{outer}.{}", message.name());
    let mut messages: Vec<_> =
        file.message_type.iter().map(|message| (named(&package, message), message)).collect();
    let mut next = 0;
    while let Some((name, message)) = messages.get(next) {
        let inner = message.nested_type.iter();
        let inner = inner.filter(|inner| !inner.options.as_ref().is_some_and(|it| it.map_entry()));
        let inner: Vec<_> = inner.map(|inner| (named(name, inner), inner)).collect();
        messages.extend(inner);
        next += 1;
    }
    messages
}
