//! Attributes for generated items, by the proto path of the item.

/// Pairs of a path and an attribute, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<(String, String)>);

impl Attributes {
    pub(crate) fn add(&mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) {
        self.0.push((path.as_ref().to_owned(), attribute.as_ref().to_owned()));
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Returns the attributes whose path matches `name`, one per line.
    pub(crate) fn of(&self, name: &str) -> String {
        let matching = self.0.iter().filter(|(path, _)| matches(path, name));
        matching.map(|(_, attribute)| format!("{attribute}\n")).collect()
    }
}

/// Returns whether a path, in the form of prost's and tonic's builders, matches a full name without
/// a leading dot. `.` matches everything. A path with a leading dot matches names that begin with
/// it. Any other path matches names that end with it. Both match whole segments.
fn matches(path: &str, name: &str) -> bool {
    let segments = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    match path.strip_prefix('.') {
        Some("") => true,
        Some(prefix) => segments(name).starts_with(&segments(prefix)),
        None => !path.is_empty() && segments(name).ends_with(&segments(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_by_whole_segments() {
        for (path, name, expected) in [
            (".", "a.v1.Service", true),
            (".a", "a.v1.Service", true),
            (".a.v1.Service", "a.v1.Service", true),
            (".v1", "a.v1.Service", false),
            (".a.v", "a.v1.Service", false),
            ("Service", "a.v1.Service", true),
            ("v1.Service", "a.v1.Service", true),
            ("vice", "a.v1.Service", false),
            ("a.v1", "a.v1.Service", false),
            ("a.v1", "a.v1", true),
            ("", "a.v1", false),
        ] {
            assert_eq!(matches(path, name), expected, "{path} {name}");
        }
    }

    #[test]
    fn attributes_keep_their_order() {
        let mut attributes = Attributes::default();
        attributes.add(".", "#[first]");
        attributes.add("Other", "#[never]");
        attributes.add("Service", "#[second]");
        assert_eq!(attributes.of("a.Service"), "#[first]\n#[second]\n");
    }
}
