//! What the builder does beside generating code that compiles, which `tests/stubs` holds.

use std::fs;
use std::path::Path;

fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_broken_proto_is_said_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let text = "syntax = \"proto3\";\n\nmessage A {\n  strin name = 1;\n}\n";
    let proto = write(directory.path(), "broken.proto", text);
    let error = crate::configure()
        .out_dir(directory.path().join("out"))
        .compile_protos(&[&proto], &[&directory.path().to_owned()])
        .unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("broken.proto:4:"), "{said}");
    assert!(said.contains("strin"), "{said}");
    assert_eq!(said, error.to_string());
}

#[test]
fn a_proto_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.proto");
    let error = crate::configure()
        .out_dir(directory.path())
        .compile_protos(&[&missing], &[&directory.path().to_owned()])
        .unwrap_err();
    assert!(error.to_string().contains("missing.proto"), "{error}");
}

#[test]
fn a_compiled_set_of_files_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let text = "syntax = \"proto3\";\npackage a.b;\nmessage M {}\n\
                service S { rpc Do(M) returns (M); }\n";
    let proto = write(directory.path(), "a.proto", text);
    let set = protox::compile([proto], [directory.path()]).unwrap();
    let out = directory.path().join("made/here");
    let bytes = directory.path().join("set.bin");
    crate::configure()
        .out_dir(&out)
        .file_descriptor_set_path(&bytes)
        .build_server(false)
        .compile_fds(set)
        .unwrap();
    let generated = fs::read_to_string(out.join("a.b.rs")).unwrap();
    assert!(generated.contains("pub mod s_client"));
    assert!(!generated.contains("pub mod s_server"));
    assert!(!fs::read(bytes).unwrap().is_empty());
}
