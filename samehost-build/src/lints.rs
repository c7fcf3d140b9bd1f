//! The lints from which generated code is exempt, because its user could not mend it.

/// On each generated item. A crate that forbids one of these lints cannot have generated code, so only what generated
/// code needs is here.
pub(crate) const ALLOW: &str = "#[allow(\
    clippy::all, clippy::nursery, clippy::pedantic, \
    dead_code, missing_docs, non_camel_case_types, \
    rustdoc::all, single_use_lifetimes, unnameable_types, unreachable_pub, unused_qualifications, \
    unused_variables)]";

/// Returns the exemption as an attribute within the module of this name. Only the module of a service named `Self`,
/// which is `Self_` in Rust, is not in snake case.
pub(crate) fn within(module: &str) -> String {
    let lints = if module.contains("__") { "#![allow(non_snake_case, " } else { "#![allow(" };
    ALLOW.replacen("#[allow(", lints, 1)
}

/// rustfmt would break the exemption into lines, and put other attributes in another order.
const AS_IT_IS: &str = "#[rustfmt::skip]";

/// Exempts each item of a generated file, from rustfmt as well. prost's builder can put attributes
/// on messages and enums, but not on the modules and `impl` blocks beside them. `deprecates` tells
/// whether any generated code is deprecated.
pub(crate) fn exempt(generated: &str, deprecates: bool) -> String {
    let allow = match deprecates {
        true => &ALLOW.replacen("dead_code, ", "dead_code, deprecated, ", 1),
        false => ALLOW,
    };
    let mut exempted = String::with_capacity(generated.len() * 9 / 8);
    for line in generated.lines() {
        // A line that begins in the first column is an item of the file, or an attribute or comment
        // of it.
        if ["pub struct ", "pub enum ", "pub mod ", "impl "].iter().any(|it| line.starts_with(it)) {
            exempted.push_str(AS_IT_IS);
            exempted.push('\n');
            exempted.push_str(allow);
            exempted.push('\n');
        }
        match separated(line) {
            Some(line) => exempted.push_str(&line),
            None => exempted.push_str(line),
        }
        exempted.push('\n');
    }
    exempted
}

/// Returns the line of an enum's variant with separators in its number, if that is long. What prost derives for
/// the enum has the number, too, and is not exempt from the lint `clippy::unreadable_literal`.
fn separated(line: &str) -> Option<String> {
    let (variant, number) = line.strip_suffix(',')?.split_once(" = ")?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_variant = !variant.trim_start().contains(|it: char| it != '_' && !it.is_alphanumeric());
    if !is_variant || digits.len() <= 5 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut text = format!("{variant} = {}", &number[..number.len() - digits.len()]);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text.push(',');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_of_the_file_is_exempt_and_nothing_within() {
        let generated = "/// A message.\n#[derive(Clone)]\npub struct A {\n    pub b: u32,\n}\n\
                         pub mod a {\n    pub enum B {}\n}\nimpl A {\n}\n";
        let exempted = exempt(generated, false);
        assert_eq!(exempted.matches(ALLOW).count(), 3);
        for item in ["pub struct A", "pub mod a", "impl A"] {
            assert!(exempted.contains(&format!("\n{ALLOW}\n{item}")), "{exempted}");
        }
    }

    #[test]
    fn long_numbers_of_an_enum_have_separators() {
        for (line, expected) in [
            ("    A = 2147483647,", "    A = 2_147_483_647,"),
            ("    B = -100000,", "    B = -100_000,"),
            ("    C = 12345678,", "    C = 12_345_678,"),
        ] {
            assert_eq!(separated(line).as_deref(), Some(expected));
        }
        for line in ["    A = 12345,", "    /// A = 100000,", "    A = 1e300000,", "    a: 100000,"]
        {
            assert_eq!(separated(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_deprecated_may_be_used_only_where_something_is() {
        let item = "pub struct A {}\n";
        assert!(exempt(item, true).contains(" deprecated, "));
        assert!(!exempt(item, false).contains("deprecated"));
    }
}
