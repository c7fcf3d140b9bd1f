//! Names and literals in the generated code.

use prost_build::Method;

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
