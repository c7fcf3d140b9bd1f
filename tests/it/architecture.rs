//! Checks the order of the layers: imports go one way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::imports::{Module, circles, graph};

/// The modules from the top down. A module may use only those that come after it.
const LAYERS: [&str; 20] = [
    "ping",
    "blocking",
    "stubs",
    "server",
    "client",
    "policy",
    "grpc",
    "metrics",
    "observer",
    "driver",
    "http2",
    "transport",
    "sealed_memory",
    "socket",
    "descriptors",
    "throttle",
    "address",
    "backoff",
    "runtime",
    "far",
];

#[test]
fn imports_go_one_way() {
    let graph = graph(&library());
    let height = |module: &Module| {
        LAYERS.iter().position(|layer| module.first().is_some_and(|m| m == layer))
    };
    let mut seen = 0;
    for (module, targets) in &graph {
        let Some(own) = height(module) else { continue };
        seen += 1;
        for target in targets {
            let is_below = height(target).is_some_and(|other| own <= other);
            assert!(
                is_below,
                "{} uses {}, which is above it",
                module.join("::"),
                target.join("::")
            );
        }
    }
    assert!(seen > 100, "the layers have moved: {seen} files");
}

/// Modules that have a circle of imports. ARCHITECTURE.md names them.
const CIRCLES: [&str; 4] = ["blocking", "client", "driver", "observer"];

#[test]
fn a_circle_of_imports_stays_in_a_module_and_is_its_only_one() {
    let mut modules = Vec::new();
    for circle in circles(&graph(&library())) {
        let first = circle[0].first().cloned();
        assert!(circle.iter().all(|module| module.first() == first.as_ref()), "{circle:?}");
        assert!(!modules.contains(&first), "{first:?} has another circle: {circle:?}");
        assert!(first.as_ref().is_some_and(|name| CIRCLES.contains(&name.as_str())), "{circle:?}");
        modules.push(first);
    }
    let map = std::fs::read_to_string(package_path("ARCHITECTURE.md")).unwrap();
    let (_, named) = map.split_once("there is at most one: ").unwrap();
    let named = named.split('.').next().unwrap().split('`').skip(1).step_by(2);
    assert!(named.eq(CIRCLES), "ARCHITECTURE.md names other circles");
}

#[test]
fn the_command_and_the_generator_have_no_circle_of_imports() {
    for root in ["samehost-cli/src", "samehost-build/src"] {
        let graph = graph(&modules(root));
        assert!(graph.len() >= 7, "{root} has moved");
        assert_eq!(circles(&graph), Vec::<Vec<Module>>::new(), "{root}");
    }
}

#[test]
fn the_code_map_names_the_layers_in_their_order_and_files_that_exist() {
    let map = std::fs::read_to_string(package_path("ARCHITECTURE.md")).unwrap();
    let rows: Vec<_> =
        map.lines().filter_map(|line| line.strip_prefix("| `src/")?.split_once("` |")).collect();
    let layers: Vec<_> =
        rows.iter().map(|(path, _)| path.trim_end_matches('/').trim_end_matches(".rs")).collect();
    assert_eq!(layers, LAYERS);
    for (folder, text) in rows.into_iter().filter(|(path, _)| path.ends_with('/')) {
        for name in text.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/')) {
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                let path = package_path(&format!("src/{folder}{name}"));
                assert!(
                    path.is_dir() || path.with_extension("rs").is_file(),
                    "src/{folder}: {name}"
                );
            }
        }
    }
}

#[test]
fn every_module_has_its_layer() {
    let lib = std::fs::read_to_string(package_path("src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    // `fuzzing` is above all layers and compiled for the fuzz targets only.
    for module in modules.filter(|module| *module != "fuzzing") {
        assert!(LAYERS.contains(&module), "{module} is not in the list of layers");
    }
}

/// The files of `socket`, from the top down. A client uses none above `connect`.
const SOCKET: [&str; 30] = [
    "inherit",
    "parts",
    "bind",
    "together",
    "listener",
    "guard",
    "predecessor",
    "successor",
    "listener_state",
    "adopt",
    "published",
    "offer",
    "watched",
    "file",
    "lock",
    "location",
    "bind_error",
    "message",
    "connect_blocking",
    "connect",
    "connect_error",
    "accept",
    "conn",
    "identity",
    "stream",
    "held",
    "underway",
    "rights",
    "unix",
    "sys",
];

#[test]
fn the_files_of_socket_import_only_those_below() {
    let graph = graph(&library());
    let mut seen = 0;
    for (module, targets) in graph.iter().filter(|(module, _)| is_file_of_socket(module)) {
        seen += 1;
        let own = height_in_socket(module);
        let name = &SOCKET[own];
        for target in targets.iter().filter(|target| is_file_of_socket(target)) {
            let other = height_in_socket(target);
            assert!(own <= other, "{name} uses {}, which is above it", SOCKET[other]);
            // Only listeners need `accept`, so what connects must not use it.
            assert!(
                !name.starts_with("connect") || SOCKET[other] != "accept",
                "{name} uses accept"
            );
        }
    }
    assert_eq!(seen, SOCKET.len(), "a file has gone");
}

/// `hand_over` is a folder whose files are in the list.
fn is_file_of_socket(module: &Module) -> bool {
    module[..] != ["socket"]
        && module[..] != ["socket", "hand_over"]
        && module.starts_with(&["socket".to_owned()])
}

fn height_in_socket(module: &Module) -> usize {
    let height = SOCKET.iter().position(|name| module.last().is_some_and(|last| last == name));
    height.unwrap_or_else(|| panic!("{module:?} is not in the list"))
}

#[test]
fn no_layer_knows_hyper_or_h2() {
    // `transport` connects to tonic's own transport and is compiled only with its feature.
    for layer in LAYERS.into_iter().filter(|layer| *layer != "transport") {
        for (file, source) in sources(layer) {
            for engine in ["hyper::", "hyper_util::", "h2::Conn", "h2::client", "h2::server"] {
                assert!(!source.contains(engine), "{file} names {engine}");
            }
        }
    }
}

/// HTTP/2 uses no sockets, no clocks and no tasks.
#[test]
fn http2_and_address_do_no_io() {
    for layer in ["http2", "address", "backoff", "far"] {
        for (file, source) in sources(layer) {
            if file.contains("/tests") {
                continue;
            }
            for io in [
                "tokio::",
                "rustix::",
                "std::net::Tcp",
                "std::os::unix::net",
                "std::fs",
                "std::thread",
                "Time::now",
                "Instant::now",
            ] {
                assert!(!source.contains(io), "{file} names {io}");
            }
        }
    }
}

/// Invariants of ARCHITECTURE.md: what only these files do.
const ONLY_IN: [(&str, &[&str]); 7] = [
    ("unlinkat(", &["socket/file.rs", "socket/lock.rs"]),
    ("renameat_with(", &["socket/file.rs"]),
    ("OFlags::CREATE", &["socket/lock.rs"]),
    ("thread::Builder", &["descriptors/closer.rs", "driver/peak.rs", "socket/underway.rs"]),
    // It panics if no thread can be made.
    ("spawn_blocking", &[]),
    ("Connection::client(", &["blocking/connection.rs", "driver/client.rs"]),
    ("Connection::server(", &["driver/refuse.rs", "driver/server.rs"]),
];

#[test]
fn files_threads_and_connections_are_made_where_the_architecture_says() {
    for (act, files) in ONLY_IN {
        let sources = LAYERS.iter().flat_map(|layer| sources(layer));
        let sources = sources.filter(|(file, _)| !file.contains("/tests"));
        let acting = sources.filter(|(_, source)| {
            source.split("#[cfg(test)]").next().is_some_and(|code| code.contains(act))
        });
        let mut acting: Vec<_> = acting.map(|(file, _)| file).collect();
        acting.sort();
        let expected: Vec<_> = files
            .iter()
            .map(|file| package_path(&format!("src/{file}")).display().to_string())
            .collect();
        assert_eq!(acting, expected, "{act}");
    }
}

#[test]
fn unsafe_code_is_in_small_files_for_it() {
    for layer in LAYERS {
        for (file, source) in sources(layer) {
            let expected = [
                "src/driver/heap.rs",
                "src/stubs/bound.rs",
                "src/stubs/message_parts.rs",
                "src/socket/sys.rs",
                "src/socket/rights.rs",
                "src/sealed_memory/map.rs",
            ]
            .iter()
            .any(|known| file.ends_with(known));
            assert_eq!(source.contains("allow(unsafe_code"), expected, "{file}");
        }
    }
}

fn package_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Names of two types. The blocking client has the same public names as the other one, in a module
/// of its own, so that a caller changes only the path.
const NAMED_TWICE: [&str; 3] = ["Channel", "ChannelBuilder", "Client"];

#[test]
fn a_name_stands_for_one_type() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, text) in library() {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in types(code) {
            homes.entry(name.to_owned()).or_default().push(module.join("::"));
        }
    }
    assert!(homes.len() > 400, "types are no longer found: {}", homes.len());
    for (name, modules) in homes {
        let expected = NAMED_TWICE.contains(&name.as_str());
        assert_eq!(modules.len() > 1, expected, "{name} is a type in {modules:?}");
    }
}

/// Returns the names of the types that a formatted file defines, without associated types.
fn types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let is_inside = line.starts_with(' ');
        let line = line.trim_start();
        let line = match line.strip_prefix("pub(") {
            Some(line) => line.split_once(") ")?.1,
            None => line.strip_prefix("pub ").unwrap_or(line),
        };
        let (kind, rest) = line.split_once(' ')?;
        let is_type =
            ["struct", "enum", "trait", "union"].contains(&kind) || (kind == "type" && !is_inside);
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        is_type.then_some(&rest[..end])
    })
}

#[test]
fn the_types_of_a_file_are_found() {
    let text = "pub(in crate::a) struct A<T>(T);\n\npin_project! {\n    pub enum B {}\n}\n\ntype C = u8;\n\nimpl D for A {\n    type E = u8;\n}\n";
    assert_eq!(types(text).collect::<Vec<_>>(), ["A", "B", "C"]);
}

/// Lines of a file without its tests, at most.
const MOST_LINES: usize = 500;

#[test]
fn no_file_is_longer_than_500_lines_without_its_tests() {
    for (module, text) in library() {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let file = format!("{}.rs", module.join("/"));
        let lines = code.lines().count();
        assert!(lines <= MOST_LINES, "{file}: {lines} lines");
    }
}

/// Lines of a function, at most.
const MOST_LINES_OF_A_FUNCTION: usize = 60;

#[test]
fn no_function_is_longer_than_60_lines() {
    let mut paths = Vec::new();
    collect(&package_path("src"), &mut paths);
    let mut seen = 0;
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        for (name, lines) in functions(&text) {
            seen += 1;
            let file = path.display();
            assert!(lines <= MOST_LINES_OF_A_FUNCTION, "{file}: {name} has {lines} lines");
        }
    }
    assert!(seen > 1000, "functions are no longer found: {seen}");
}

/// Returns the names of the functions in a formatted file, and how many lines each has.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let is_function = before.split_whitespace().all(|word| {
            ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""]
                .contains(&word)
        });
        let is_first =
            |line: &&str| line.ends_with('{') || line.ends_with(';') || line.ends_with('}');
        let Some(signature) = lines[start..].iter().position(is_first) else { continue };
        if !is_function || !lines[start + signature].ends_with('{') {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_last = |line: &&str| line.strip_prefix(indent) == Some("}");
        let len = lines[start..].iter().position(is_last).map_or(usize::MAX, |last| last + 1);
        functions.push((after.split(['(', '<']).next().unwrap_or_default(), len));
    }
    functions
}

#[test]
fn the_lines_of_a_function_are_counted() {
    let text = "fn a(\n    b: u8,\n) -> u8 {\n    b\n}\n\ntrait T {\n    fn c();\n\n    async fn d() {\n        if e {\n        }\n    }\n}\n";
    assert_eq!(functions(text), [("a", 5), ("d", 4)]);
}

/// Returns the library's modules with their source, without tests.
fn library() -> Vec<(Module, String)> {
    modules("src")
}

/// Returns the modules in a folder of sources, without tests.
fn modules(root: &str) -> Vec<(Module, String)> {
    let root = package_path(root);
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let module = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        let name = path.strip_prefix(&root).ok()?.with_extension("").display().to_string();
        let names = name.split('/').filter(|name| !["mod", "lib", "main"].contains(name));
        Some((names.map(str::to_owned).collect::<Module>(), text))
    };
    let modules = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let modules = modules.filter_map(module);
    modules.filter(|(module, _)| !module.iter().any(|name| name == "tests")).collect()
}

fn sources(layer: &str) -> Vec<(String, String)> {
    let file = package_path(&format!("src/{layer}.rs"));
    let folder = package_path(&format!("src/{layer}"));
    let mut paths = Vec::new();
    if file.exists() {
        paths.push(file);
    }
    collect(&folder, &mut paths);
    assert!(!paths.is_empty(), "{layer} has no source");
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else {
            paths.push(path);
        }
    }
}
