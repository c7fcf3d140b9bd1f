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
/// `proto_path` leads from there to the module of the package.
pub(crate) fn types(method: &Method, proto_path: &str) -> (String, String) {
    (from_within(&method.input_type, proto_path), from_within(&method.output_type, proto_path))
}

/// Returns a type of the package's module, as seen from where `proto_path` leads to that module.
/// Types of other crates and of the language are the same everywhere.
fn from_within(rust_type: &str, proto_path: &str) -> String {
    const PRIMITIVE: [&str; 8] = ["()", "bool", "i32", "i64", "u32", "u64", "f32", "f64"];
    let everywhere = rust_type.starts_with("::")
        || rust_type.starts_with("crate::")
        || PRIMITIVE.contains(&rust_type);
    if everywhere {
        return rust_type.to_owned();
    }
    let mut module: Vec<&str> = proto_path.split("::").collect();
    let mut name = rust_type;
    while let Some(outer) = name.strip_prefix("super::") {
        // `super` has no meaning after a module's name, so the name is left out instead.
        match module.as_slice() {
            [.., "", _] | [.., "crate" | "self" | "super"] | [_] => module.push("super"),
            _ => drop(module.pop()),
        }
        name = outer;
    }
    format!("{}::{name}", module.join("::"))
}

/// Returns a path that leads from a module, as seen from a module in it.
pub(crate) fn one_deeper(path: &str) -> String {
    match path.strip_prefix("self::") {
        Some(rest) => format!("super::{rest}"),
        None if path.starts_with("super::") => format!("super::{path}"),
        None => path.to_owned(),
    }
}

/// Returns whether this is the path of a module, such as `super` or `::messages::v1`.
pub(crate) fn is_module_path(path: &str) -> bool {
    path.strip_prefix("::").unwrap_or(path).split("::").all(|name| {
        let name = name.strip_prefix("r#").unwrap_or(name);
        let letter = |letter: char| letter == '_' || letter.is_alphabetic();
        name.starts_with(letter) && name.chars().all(|it| letter(it) || it.is_numeric())
    })
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
        let from = |rust_type| from_within(rust_type, "super");
        assert_eq!(from("HelloRequest"), "super::HelloRequest");
        assert_eq!(from("super::other::Thing"), "super::super::other::Thing");
        assert_eq!(from("outer::Inner"), "super::outer::Inner");
        assert_eq!(from("::prost_types::Timestamp"), "::prost_types::Timestamp");
        assert_eq!(from("crate::Mine"), "crate::Mine");
        assert_eq!(from("()"), "()");
    }

    #[test]
    fn types_of_another_module_are_found_by_its_path() {
        for (path, own, other) in [
            ("crate::pb::v1", "crate::pb::v1::M", "crate::pb::other::M"),
            ("super::pb", "super::pb::M", "super::other::M"),
            ("super::super", "super::super::M", "super::super::super::other::M"),
            ("::messages::v1", "::messages::v1::M", "::messages::other::M"),
            ("messages::v1", "messages::v1::M", "messages::other::M"),
            // The compiler refuses these: nobody knows where the other package is.
            ("crate", "crate::M", "crate::super::other::M"),
            ("::messages", "::messages::M", "::messages::super::other::M"),
            ("messages", "messages::M", "messages::super::other::M"),
        ] {
            assert_eq!(from_within("M", path), own);
            assert_eq!(from_within("super::other::M", path), other);
            assert_eq!(from_within("bool", path), "bool");
        }
    }

    #[test]
    fn a_module_within_sees_relative_paths_one_module_up() {
        assert_eq!(one_deeper("super::M"), "super::super::M");
        assert_eq!(one_deeper("self::M"), "super::M");
        for everywhere in ["crate::M", "::messages::M", "messages::M", "bool"] {
            assert_eq!(one_deeper(everywhere), everywhere);
        }
    }

    #[test]
    fn paths_of_modules_are_names_between_colons() {
        for path in ["super", "crate::a", "::a::b", "r#type::b", "a1::_b"] {
            assert!(is_module_path(path), "{path}");
        }
        for text in ["", "a::", "a.b", "a b", "a:b", "::", "1a"] {
            assert!(!is_module_path(text), "{text}");
        }
    }
}
