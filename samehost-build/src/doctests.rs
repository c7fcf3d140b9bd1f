//! Keeps code in a proto's comments from becoming tests. rustdoc compiles each block of code in a doc comment
//! and runs it, but a proto's comments are in no language that it knows. Keeps marks of the text's direction out of
//! doc comments as well, since rustc refuses them there.

use std::fmt::Write;

/// Hides from `cargo test` each doc comment of generated code that may have a block of code, and writes one with
/// marks of the text's direction as an attribute, which has them as escapes. rustdoc shows both as before.
pub(crate) fn prevent(generated: &str) -> String {
    let mut prevented = String::with_capacity(generated.len());
    let mut lines = generated.lines().peekable();
    while let Some(first) = lines.next() {
        let mut block = vec![first];
        while doc(first).is_some()
            && let Some(line) = lines.next_if(|line| doc(line).is_some())
        {
            block.push(line);
        }
        let mut docs = block.iter().filter_map(|line| doc(line));
        let hides = docs.any(|text| may_have_code(text) || has_direction_marks(text));
        for line in block {
            match doc(line).filter(|_| hides) {
                // rustdoc sets `doctest` where it looks for tests, and only there.
                Some(text) => {
                    let indentation = &line[..line.len() - line.trim_start().len()];
                    let _ =
                        write!(prevented, "{indentation}#[cfg_attr(not(doctest), doc = {text:?})]");
                }
                None => prevented.push_str(line),
            }
            prevented.push('\n');
        }
    }
    prevented
}

/// Returns the text of a doc comment's line.
fn doc(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("///")
}

/// Returns whether Markdown may have a block of code here: there is none without a fence or an indentation of
/// four columns, wherever that begins.
fn may_have_code(line: &str) -> bool {
    ["```", "~~~", "    ", "\t"].iter().any(|mark| line.contains(mark))
}

/// Returns whether a text has one of the characters of rustc's lint `text_direction_codepoint_in_comment`, as
/// comments in Arabic or Hebrew may have.
fn has_direction_marks(line: &str) -> bool {
    line.contains(['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}'])
        || line.contains(['\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_without_code_stays_as_it_is() {
        let plain = "    /// A comment with `code`.\n    ///\n    /// - A list\n    ///   of two lines.\n\
                     pub struct A {\n    // ``` is no doc here.\n}\n";
        assert_eq!(prevent(plain), plain);
    }

    #[test]
    fn a_comment_with_code_is_hidden_from_tests_as_a_whole() {
        for code in ["     x + \"y\"", "\tx", " ```", " > ~~~sh", " -     x", " 1.\tx"] {
            let generated =
                format!("    /// A.\n    ///{code}\n    fn a() {{}}\n/// B.\nfn b() {{}}\n");
            let hidden = format!(
                "    #[cfg_attr(not(doctest), doc = \" A.\")]\n    #[cfg_attr(not(doctest), doc = {code:?})]\n    \
                 fn a() {{}}\n/// B.\nfn b() {{}}\n"
            );
            assert_eq!(prevent(&generated), hidden);
            assert_eq!(prevent(&hidden), hidden);
        }
    }

    #[test]
    fn marks_of_the_direction_are_escapes() {
        let generated = "/// \u{2067}\u{05d0}\u{2069} and \u{202e}x\u{202c}\nfn a() {}\n";
        let escaped = prevent(generated);
        assert!(
            escaped.contains("\\u{2067}\u{05d0}\\u{2069} and \\u{202e}x\\u{202c}"),
            "{escaped}"
        );
        assert!(!has_direction_marks(&escaped), "{escaped}");
    }
}
