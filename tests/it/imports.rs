//! The imports of the library's files, read from their source.

use std::collections::BTreeMap;

/// The path of a module within the crate, such as `["driver", "pass"]`.
pub(crate) type Module = Vec<String>;

/// Returns which modules each module uses, in its imports and in paths in its code. It leaves out tests, a
/// module's re-exports of its own children, and the root.
pub(crate) fn graph(files: &[(Module, String)]) -> BTreeMap<Module, Vec<Module>> {
    let modules: BTreeMap<Module, Source> =
        files.iter().map(|(module, text)| (module.clone(), Source::read(text))).collect();
    let targets = |module: &Module, source: &Source| {
        let mut targets = Vec::new();
        for Import { path, is_public } in &source.imports {
            let Some(path) = absolute(path, module, &modules) else { continue };
            let target = resolve(&path, &modules, 0);
            let is_own_child = *is_public && target.starts_with(module);
            let is_other = !target.is_empty() && target != *module;
            if is_other && !is_own_child && !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    };
    modules.iter().map(|(module, source)| (module.clone(), targets(module, source))).collect()
}

/// Returns the circles of a graph: the largest groups of modules that all use each other, directly or not.
pub(crate) fn circles(graph: &BTreeMap<Module, Vec<Module>>) -> Vec<Vec<Module>> {
    let reached: BTreeMap<&Module, Vec<&Module>> = graph
        .keys()
        .map(|start| {
            let (mut reached, mut next) = (Vec::new(), vec![start]);
            while let Some(module) = next.pop() {
                for target in graph.get(module).into_iter().flatten() {
                    if !reached.contains(&target) {
                        reached.push(target);
                        next.push(target);
                    }
                }
            }
            (start, reached)
        })
        .collect();
    let mut circles: Vec<Vec<Module>> = Vec::new();
    for (module, reaches) in &reached {
        let mut circle: Vec<Module> = reaches
            .iter()
            .filter(|other| reached[**other].contains(module))
            .map(|other| (*other).clone())
            .collect();
        circle.sort();
        let is_known = circles.iter().any(|known| known.contains(module));
        if circle.len() > 1 && !is_known {
            circles.push(circle);
        }
    }
    circles
}

struct Source {
    imports: Vec<Import>,
}

struct Import {
    path: Vec<String>,
    is_public: bool,
}

impl Source {
    fn read(text: &str) -> Self {
        let text = text.split("mod tests {").next().unwrap_or_default();
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = lines.collect::<Vec<_>>().join("\n");
        let mut imports = Vec::new();
        for statement in code.split(';') {
            let (before, tree) = match use_at(statement) {
                Some((at, tree)) => {
                    (&statement[..at], Some((tree, statement[at..].starts_with("pub"))))
                }
                None => (statement, None),
            };
            for path in paths(before) {
                imports.push(Import { path, is_public: false });
            }
            if let Some((tree, is_public)) = tree {
                let expanded = expand(&[], tree);
                imports.extend(expanded.into_iter().map(|path| Import { path, is_public }));
            }
        }
        Self { imports }
    }
}

/// Returns where a `use` declaration starts in a statement, and its tree.
fn use_at(statement: &str) -> Option<(usize, &str)> {
    let mut at = 0;
    for line in statement.split_inclusive('\n') {
        let start = at + line.len() - line.trim_start().len();
        at += line.len();
        for keyword in ["use ", "pub use ", "pub(crate) use ", "pub(super) use "] {
            if let Some(tree) = statement[start..].strip_prefix(keyword) {
                return Some((start, tree));
            }
        }
    }
    None
}

/// Returns the paths of a tree such as `crate::a::{b, c::{self, d}}`.
fn expand(prefix: &[String], tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let (head, group) = match tree.split_once('{') {
        Some((head, rest)) => (head, rest.rsplit_once('}').map(|(group, _)| group)),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let names = head.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "self");
    let path: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
    let Some(group) = group else { return vec![path] };
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    all.extend(expand(&path, &group[start..at]));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    all
}

/// Returns the paths in code that start with `crate` or `super`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let paths = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths
        .map(|path| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect())
        .collect()
}

/// Returns a path from the root of the crate, or `None` if it leads to another crate.
fn absolute(
    path: &[String],
    module: &Module,
    modules: &BTreeMap<Module, Source>,
) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let child = [module.as_slice(), std::slice::from_ref(first)].concat();
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let base = &module[..module.len().checked_sub(ups)?];
            Some([base, &path[ups..]].concat())
        }
        _ if modules.contains_key(&child) => Some([module, path].concat()),
        _ => None,
    }
}

/// Returns the module that defines what a path names: re-exports are followed.
fn resolve(path: &[String], modules: &BTreeMap<Module, Source>, depth: usize) -> Module {
    let is_module = |len: &usize| modules.contains_key(&path[..*len]);
    let len = (0..=path.len()).rev().find(is_module).unwrap_or(0);
    let module = path[..len].to_vec();
    let Some(name) = path.get(len).filter(|_| depth < 10) else { return module };
    let reexport = modules.get(&module).and_then(|source| {
        let mut public = source.imports.iter().filter(|import| import.is_public);
        public.find(|import| import.path.last() == Some(name))
    });
    match reexport.and_then(|import| absolute(&import.path, &module, modules)) {
        Some(target) => resolve(&target, modules, depth + 1),
        None => module,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        path.split("::").map(str::to_owned).collect()
    }

    #[test]
    fn imports_are_found_in_every_form() {
        let files = [
            (Vec::new(), "mod a;\npub use a::Reexported;"),
            (module("a"), "mod c;\nmod d;\npub(crate) use c::Deep;\npub struct Reexported;"),
            (
                module("a::c"),
                "use super::d::{self, Other};\nfn f() { crate::Reexported; } // crate::b",
            ),
            (module("a::d"), "use crate::b::{\n    One, inner::{Two as Renamed},\n};"),
            (
                module("b"),
                "use crate::a::Deep;\n#[cfg(test)]\nmod tests {\n    use crate::a::d::X;\n}",
            ),
        ];
        let files = files.map(|(module, text)| (module, text.to_owned()));
        let graph = graph(&files);
        assert_eq!(graph[&module("a::c")], [module("a::d"), module("a")]);
        assert_eq!(graph[&module("a::d")], [module("b")]);
        assert_eq!(graph[&module("b")], [module("a::c")]);
        assert!(graph[&module("a")].is_empty());
        let circles = circles(&graph);
        assert_eq!(circles, [[module("a::c"), module("a::d"), module("b")]]);
    }
}
