//! Keeps code in a proto's comments from becoming tests. rustdoc compiles each block of code in a doc comment
//! and runs it, but a proto's comments are in no language that it knows.

use std::fmt::Write;

/// Hides from `cargo test` each doc comment of generated code that may have a block of code. rustdoc shows it
/// as before.
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
        let hides = block.iter().filter_map(|line| doc(line)).any(may_have_code);
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
}
