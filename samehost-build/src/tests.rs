//! What the builder does beside generating code. `tests/stubs` checks that the code compiles.

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
fn a_byte_order_mark_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let imported = "\u{feff}syntax = \"proto3\";\npackage b;\nmessage B {}\n";
    write(directory.path(), "b.proto", imported);
    let text =
        "\u{feff}syntax = \"proto3\";\r\nimport \"b.proto\";\r\nmessage A { b.B b = 1; }\r\n";
    let proto = write(directory.path(), "a.proto", text);
    let out = directory.path().join("out");
    let includes = [directory.path()];
    crate::configure().out_dir(&out).compile_protos(&[&proto], &includes).unwrap();
    assert!(fs::read_to_string(out.join("_.rs")).unwrap().contains("pub struct A"));
    assert!(fs::read_to_string(out.join("b.rs")).unwrap().contains("pub struct B"));
    let broken = write(directory.path(), "broken.proto", "\u{feff}message A { strin a = 1; }\n");
    let said = refusal(&[&broken], &includes);
    assert!(said.contains("broken.proto:1:13"), "{said}");
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

/// Returns what is said about protos that cannot be compiled.
fn refusal(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> String {
    let out = tempfile::tempdir().unwrap();
    let builder = crate::configure().out_dir(out.path());
    builder.compile_protos(protos, includes).unwrap_err().to_string()
}

#[test]
fn a_list_without_protos_is_refused() {
    let said = refusal(&[] as &[&str], &["."]);
    assert!(said.contains("no protos are given"), "{said}");
    let set = crate::FileDescriptorSet::default();
    let said = crate::configure().compile_fds(set).unwrap_err().to_string();
    assert!(said.contains("has no files") && said.contains("--include_imports"), "{said}");
}

#[test]
fn include_directories_that_are_not_there_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let proto = write(directory.path(), "a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n");
    let missing = directory.path().join("missing");
    for (said, what) in [
        (refusal(&[&proto], &[&missing]), "add its directory, or one above it, to the includes"),
        (refusal(&[&proto], &[&missing, &directory.path().to_owned()]), "a.proto:2:"),
        (refusal(&[Path::new("b.proto")], &[&missing]), "nor in an include directory"),
    ] {
        assert!(said.contains(what), "{said}");
        let missing = format!("{} (which does not exist)", missing.display());
        assert!(said.contains(&missing), "{said}");
    }
    let said = refusal(&[&proto], &[&proto.join("a.proto"), &proto]);
    assert!(said.contains("a.proto (which is not a directory)"), "{said}");
    let said = refusal(&[&proto], &[] as &[&str]);
    assert!(said.contains("none: the second argument"), "{said}");
}

#[test]
fn a_proto_that_is_written_unlike_its_include_directory_is_said() {
    let root = env!("CARGO_MANIFEST_DIR");
    let directory = tempfile::tempdir_in(root).unwrap();
    let proto = write(directory.path(), "a.proto", "syntax = \"proto3\";\n");
    let relative = directory.path().strip_prefix(root).unwrap();
    let said = refusal(&[&proto], &[relative]);
    assert!(said.contains("both relative or both absolute"), "{said}");
    assert!(said.contains(relative.to_str().unwrap()), "{said}");
}

#[test]
fn editions_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let text = "// A comment.\nedition = \"2023\";\npackage a;\nmessage M {}\n";
    let proto = write(directory.path(), "a.proto", text);
    let said = refusal(&[&proto], &[directory.path()]);
    assert!(said.contains("a.proto:2:1") && said.contains("syntax = \"proto3\""), "{said}");
    let file = prost_types::FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        syntax: Some("editions".to_owned()),
        ..Default::default()
    };
    let set = crate::FileDescriptorSet { file: vec![file] };
    let said = crate::configure().out_dir(directory.path()).compile_fds(set).unwrap_err();
    assert!(said.to_string().contains("a.proto: protobuf editions are not supported"), "{said}");
    // Another mistake at the same word is none of editions.
    let proto = write(directory.path(), "b.proto", "message M { edition a = x; }\n");
    let said = refusal(&[&proto], &[directory.path()]);
    assert!(!said.contains("editions"), "{said}");
}

#[test]
fn a_path_of_messages_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let proto = write(directory.path(), "a.proto", "syntax = \"proto3\";\n");
    let builder = crate::configure().out_dir(directory.path()).proto_path("a.v1");
    let said = builder.compile_protos(&[proto], &[directory.path()]).unwrap_err().to_string();
    assert!(said.contains("proto_path(\"a.v1\")"), "{said}");
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

/// Returns the code for a small proto with these options.
fn generated(options: impl FnOnce(crate::Builder) -> crate::Builder) -> String {
    let directory = tempfile::tempdir().unwrap();
    let text = "syntax = \"proto3\";\npackage a.b;\n\
                message M { N inner = 1; oneof choice { N other = 2; uint32 number = 3; } }\n\
                message N {}\n\
                service S { rpc Do(M) returns (M); }\nservice T { rpc Do(M) returns (N); }\n";
    let proto = write(directory.path(), "a.proto", text);
    let builder = options(crate::configure().out_dir(directory.path()));
    builder.compile_protos(&[proto], &[directory.path()]).unwrap();
    fs::read_to_string(directory.path().join("a.b.rs")).unwrap()
}

/// Counts how often `part` is in the generated code.
fn count(generated: &str, part: &str) -> usize {
    generated.matches(part).count()
}

#[test]
fn fields_are_boxed_where_it_is_asked_for() {
    let boxed = "::boxed::Box<";
    assert_eq!(count(&generated(|it| it), boxed), 0);
    assert_eq!(count(&generated(|it| it.boxed(".a.b.M.inner")), boxed), 1);
    assert_eq!(count(&generated(|it| it.boxed(".a.b.M.choice.other")), boxed), 1);
}

#[test]
fn messages_have_no_debug_where_it_is_asked_for() {
    let without = |paths: &[&str]| generated(|it| it.skip_debug(paths));
    let derived = "#[prost(skip_debug)]";
    assert_eq!(count(&without(&[]), derived), 0);
    assert_eq!(count(&without(&[".a.b.N"]), derived), 1);
    // The message, its oneof, and the other message.
    assert_eq!(count(&without(&["."]), derived), 3);
}

#[test]
fn attributes_are_put_on_clients_and_their_modules() {
    let attribute = "#[doc(alias = \"other\")]";
    let code = generated(|it| it.client_attribute("a.b.S", attribute));
    assert_eq!(count(&code, attribute), 1);
    let place = code.find(attribute).unwrap();
    assert!(code[place..].find("pub struct SClient") < code[place..].find("pub mod"), "{code}");
    assert_eq!(count(&generated(|it| it.client_attribute(".", attribute)), attribute), 2);
    let code = generated(|it| it.client_mod_attribute("a.b", attribute));
    assert_eq!(count(&code, attribute), 2);
    for module in ["s_client", "t_client"] {
        let (before, _) = code.split_once(&format!("pub mod {module}")).unwrap();
        assert!(before[before.len() - 600..].contains(attribute), "{module}: {code}");
    }
    assert_eq!(count(&generated(|it| it.client_mod_attribute("a.c", attribute)), attribute), 0);
}

#[test]
fn code_in_comments_becomes_no_test_of_the_user() {
    let code = |indentation: &str| {
        let lines = [
            "",
            " A list:",
            "",
            "     is no Rust;",
            "",
            " - one",
            "",
            " \t\tnor this",
            "",
            " ```",
            " nor this",
            " ```",
        ];
        lines.map(|line| format!("{indentation}//{line}\n")).concat()
    };
    let (outer, inner) = (code(""), code("  "));
    let text = format!(
        "syntax = \"proto3\";\npackage a;\n{outer}message M {{\n{inner}uint32 number = 1;\n\
         {inner}oneof choice {{\n{inner}M inner = 2;\n}}\n}}\n{outer}enum E {{\n{inner}NONE = 0;\n}}\n\
         {outer}service S {{\n{inner}rpc Do(M) returns (M);\n}}\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let proto = write(directory.path(), "a.proto", &text);
    let builder = crate::configure().out_dir(directory.path());
    builder.compile_protos(&[proto], &[directory.path()]).unwrap();
    let generated = fs::read_to_string(directory.path().join("a.rs")).unwrap();
    // A oneof has its comment at its field and its type, a service and a method have theirs in server, client and
    // blocking client.
    assert_eq!(
        count(&generated, "#[cfg_attr(not(doctest), doc = \"      is no Rust;\")]"),
        5 + 2 + 6
    );
    for line in generated.lines().filter(|line| line.trim_start().starts_with("///")) {
        assert!(!line.contains("is no Rust") && !line.contains("nor this"), "{line}");
        assert!(!line.contains("```"), "{line}");
    }
}

/// Returns what is said about this set of compiled files.
fn refusal_of(file: impl IntoIterator<Item = prost_types::FileDescriptorProto>) -> Option<String> {
    let out = tempfile::tempdir().unwrap();
    let set = crate::FileDescriptorSet { file: file.into_iter().collect() };
    let compiled = crate::configure().out_dir(out.path()).compile_fds(set);
    compiled.err().map(|error| error.to_string())
}

#[test]
fn a_set_without_the_message_of_a_field_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "b.proto", "syntax = \"proto3\";\npackage b;\nmessage B {}\n");
    let compiled = |text: &str| {
        let imports = "import \"b.proto\";\nimport \"google/protobuf/empty.proto\";\n";
        let text = format!("syntax = \"proto3\";\npackage a.v1;\n{imports}{text}\n");
        let proto = write(directory.path(), "a.proto", &text);
        protox::compile([proto], [directory.path()]).unwrap().file
    };
    let inner = "message A { message Inner { oneof either { b.B other = 1; } } }";
    let files = compiled(inner);
    assert_eq!(refusal_of(files.clone()), None);
    let without = files.into_iter().filter(|file| file.name() != "b.proto");
    let said = refusal_of(without).unwrap();
    for part in
        ["a.proto: the field a.v1.A.Inner.other is a b.B,", "[b.proto]", "--include_imports"]
    {
        assert!(said.contains(part), "{said}");
    }
    // Nobody has to know what these messages are made of.
    let files = compiled(
        "service S { rpc Do(google.protobuf.Empty) returns (b.B); }\n\
         message A { repeated b.B several = 1; map<string, b.B> by_name = 2; }",
    );
    let alone = files.into_iter().filter(|file| file.name() == "a.proto");
    assert_eq!(refusal_of(alone), None);
}

#[test]
fn an_attribute_that_is_none_is_named() {
    type Setter = fn(crate::Builder, &str, &str) -> crate::Builder;
    let directory = tempfile::tempdir().unwrap();
    let proto = write(directory.path(), "a.proto", "syntax = \"proto3\";\nmessage M {}\n");
    let options: [(&str, Setter); 9] = [
        ("type_attribute", |it, path, text| it.type_attribute(path, text)),
        ("message_attribute", |it, path, text| it.message_attribute(path, text)),
        ("enum_attribute", |it, path, text| it.enum_attribute(path, text)),
        ("field_attribute", |it, path, text| it.field_attribute(path, text)),
        ("server_mod_attribute", |it, path, text| it.server_mod_attribute(path, text)),
        ("server_attribute", |it, path, text| it.server_attribute(path, text)),
        ("trait_attribute", |it, path, text| it.trait_attribute(path, text)),
        ("client_mod_attribute", |it, path, text| it.client_mod_attribute(path, text)),
        ("client_attribute", |it, path, text| it.client_attribute(path, text)),
    ];
    for (name, option) in options {
        for text in ["#[derive(Hash]", "derive(Hash)", "#![allow(unused)]", "#[a] pub", "#"] {
            let builder = option(crate::configure().out_dir(directory.path()), ".", text);
            let said = builder.compile_protos(&[&proto], &[directory.path()]).unwrap_err();
            let call = format!("{name}(\".\", {text:?}) is no attribute (");
            assert!(said.to_string().contains(&call), "{said}");
        }
        let several = "/// A doc.\n#[allow(unused)] #[doc(alias = \"x\")] // And a comment.\n";
        for text in ["", several] {
            let builder = option(crate::configure().out_dir(directory.path()), ".", text);
            builder.compile_protos(&[&proto], &[directory.path()]).unwrap();
        }
    }
}

#[test]
fn what_prost_panics_of_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let text = "syntax = \"proto3\";\nenum E { A_B = 0; A__B = 1; }\n";
    let proto = write(directory.path(), "a.proto", text);
    let said = refusal(&[proto], &[directory.path()]);
    assert!(said.contains("variant names overlap") && said.contains("`A__B`"), "{said}");
}

#[test]
fn names_that_are_the_same_in_rust_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let header = "syntax = \"proto3\";\npackage a;\n";
    let same = write(directory.path(), "same.proto", &format!("{header}service Two_Words {{}}\n"));
    let said = |text: &str| {
        let text = format!("{header}message M {{}}\n{text}\n");
        let proto = write(directory.path(), "a.proto", &text);
        let builder = crate::configure().out_dir(directory.path());
        let compiled = builder.compile_protos(&[&same, &proto], &[directory.path()]);
        compiled.err().map(|error| error.to_string())
    };
    let methods = |first: &str, second: &str| {
        let method = |name| format!("rpc {name}(M) returns (M);\n");
        said(&format!("service S {{\n{}{}}}", method(first), method(second)))
    };
    for (first, second, name) in [("Get", "GET", "get"), ("GetX", "Get_X", "get_x")] {
        let expected = format!(
            "a.proto:6: the method {second} is `{name}` in Rust, as the method {first} is \
             (a.proto:5): rename one of them"
        );
        assert_eq!(methods(first, second), Some(expected));
    }
    for (text, line, second, name, first, at) in [
        (
            "message FooServer {}\nmessage foo_server {}",
            5,
            "foo_server",
            "FooServer",
            "FooServer",
            4,
        ),
        ("message Foo {}\nenum FOO { A = 0; }", 5, "FOO", "Foo", "Foo", 4),
        ("message O {\nmessage In {}\nenum IN { A = 0; }}", 6, "IN", "In", "In", 5),
    ] {
        let expected = format!(
            "a.proto:{line}: the type {second} is `{name}` in Rust, as the type {first} is \
             (a.proto:{at}): rename one of them"
        );
        assert_eq!(said(text), Some(expected));
    }
    assert_eq!(said("message O { message I {} map<string, I> i = 1; }\nmessage I {}"), None);
    let refusal = |line, second, name, first, place| {
        Some(format!(
            "a.proto:{line}: the service {second} is `{name}` in Rust, as the service {first} is ({place}): \
             rename one of them"
        ))
    };
    let own = said("service S {}\nservice s {}");
    assert_eq!(own, refusal(5, "s", "s", "S", "a.proto:4"));
    let of_another_file = said("service TwoWords {}");
    assert_eq!(of_another_file, refusal(4, "TwoWords", "two_words", "Two_Words", "same.proto:3"));
    assert_eq!(methods("GetX", "Getx"), None);
    assert_eq!(said("service Twowords {}\nservice S { rpc S(M) returns (M); }"), None);
}

#[test]
fn a_server_that_would_hide_box_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "syntax = \"proto3\";\npackage a;\nmessage M {}\nservice box { rpc Get(M) returns (M); }\n";
    let proto = write(directory.path(), "a.proto", text);
    let compile = |builder: crate::Builder| {
        builder.out_dir(directory.path()).compile_protos(&[&proto], &[directory.path()])
    };
    let said = compile(crate::configure()).unwrap_err().to_string();
    assert!(said.starts_with("a.proto:4: the server of a service named box"), "{said}");
    compile(crate::configure().build_server(false)).unwrap();
    compile(crate::configure().extern_path(".a.box", "crate::it")).unwrap();
}

#[test]
fn services_of_another_crate_may_have_names_that_are_the_same_in_rust() {
    let directory = tempfile::tempdir().unwrap();
    let header = "syntax = \"proto3\";\npackage theirs";
    let service = "service S { rpc Get(M) returns (M); rpc GET(M) returns (M); }";
    let theirs = format!("{header}.v1;\nmessage M {{}}\n{service}\n");
    let proto = write(directory.path(), "theirs.proto", &theirs);
    let compile = |path| {
        let builder = crate::configure().out_dir(directory.path()).extern_path(path, "crate::it");
        builder.compile_protos(&[&proto], &[directory.path()])
    };
    compile(".theirs").unwrap();
    compile(".theirs.v1.S").unwrap();
    compile(".theirs.v1.M").unwrap_err();
    compile(".their").unwrap_err();
}

#[test]
fn a_module_of_messages_that_has_the_name_of_a_module_of_stubs_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let said = |text: &str, options: fn(crate::Builder) -> crate::Builder| {
        let text = format!("syntax = \"proto3\";\npackage a;\nservice Greeter {{}}\n{text}\n");
        let proto = write(directory.path(), "a.proto", &text);
        let builder = options(crate::configure().out_dir(directory.path()));
        let compiled = builder.compile_protos(&[&proto], &[directory.path()]);
        compiled.err().map(|error| error.to_string())
    };
    for within in ["message Inner {}", "enum E { X = 0; }", "oneof o { bool b = 1; }"] {
        let text = format!("message GreeterClient {{ {within} }}");
        let expected = "a.proto:4: the types within the message GreeterClient are in the module `greeter_client` in \
                        Rust, as the stubs of the service Greeter are (a.proto:3): rename one of them";
        assert_eq!(said(&text, |it| it).as_deref(), Some(expected));
        assert_eq!(said(&text, |it| it.build_client(false)), None);
        assert_eq!(said(&text, |it| it.extern_path(".a.GreeterClient", "crate::It")), None);
    }
    assert!(said("message GreeterServer { enum E { X = 0; } }", |it| it).is_some());
    let without = "message GreeterClient { map<int32, bool> m = 1; optional bool b = 2; }";
    assert_eq!(said(without, |it| it), None);
}

/// Writes a proto and one that it imports, and returns the first.
fn importing(directory: &Path) -> std::path::PathBuf {
    let header = "syntax = \"proto3\";\npackage";
    write(directory, "money.proto", &format!("{header} money;\nmessage Money {{}}\n"));
    let text = "import \"money.proto\";\nmessage Cart { money.Money total = 1; }\n";
    write(directory, "shop.proto", &format!("{header} shop;\n{text}"))
}

#[test]
fn only_files_with_generated_code_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let proto = importing(directory.path());
    let source = "pub struct Money;\n";
    let own = write(directory.path(), "money.rs", source);
    let builder =
        crate::configure().out_dir(directory.path()).extern_path(".money", "crate::money");
    builder.compile_protos(&[&proto], &[directory.path()]).unwrap();
    assert_eq!(fs::read_to_string(own).unwrap(), source);
    assert!(fs::exists(directory.path().join("shop.rs")).unwrap());
}

#[test]
fn a_file_that_would_not_change_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let proto = importing(directory.path());
    let compile = || {
        let set = directory.path().join("set.bin");
        let builder = crate::configure().out_dir(directory.path()).include_file("mod.rs");
        let builder = builder.file_descriptor_set_path(set);
        builder.compile_protos(&[&proto], &[directory.path()]).unwrap();
    };
    compile();
    let written = ["shop.rs", "money.rs", "mod.rs", "set.bin"].map(|it| directory.path().join(it));
    let long_ago = std::time::UNIX_EPOCH;
    for file in &written {
        fs::File::options().append(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    fs::write(&written[1], "Not what is generated.").unwrap();
    compile();
    let unchanged = |path| fs::metadata(path).unwrap().modified().unwrap() == long_ago;
    assert_eq!(written.each_ref().map(unchanged), [true, false, true, true]);
    assert!(fs::read_to_string(&written[1]).unwrap().contains("pub struct Money"));
}

#[test]
fn files_have_the_names_that_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let proto = write(directory.path(), "a.proto", "syntax = \"proto3\";\nmessage M {}\n");
    let out = directory.path().join("out");
    let mut config = crate::Config::new();
    config.default_package_filename("root").out_dir(directory.path().join("elsewhere"));
    let builder = crate::configure().out_dir(&out).include_file("mod.rs");
    builder.compile_with_config(config, &[proto], &[directory.path()]).unwrap();
    let read = |name| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    assert!(read("root.rs").contains(crate::lints::ALLOW), "{}", read("root.rs"));
    assert!(read("mod.rs").contains("\ninclude!(\"root.rs\");"), "{}", read("mod.rs"));
}

#[test]
fn the_file_that_includes_the_others_finds_them_in_the_directory_of_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let proto = importing(directory.path());
    let includes = directory.path().join("mod.rs");
    let output = crate::output::Output {
        directory: directory.path().to_owned(),
        is_out_dir: true,
        include_file: Some(includes.clone()),
    };
    let set = protox::compile([proto], [directory.path()]).unwrap();
    output.generate(crate::Config::new(), set).unwrap();
    let text = fs::read_to_string(includes).unwrap();
    for package in ["money", "shop"] {
        let module = format!(
            "{}\npub mod {package} {{\n    include!(concat!(env!(\"OUT_DIR\"), \"/{package}.rs\"));\n}}\n",
            crate::lints::ALLOW
        );
        assert!(text.contains(&module), "{text}");
    }
}
