//! hashicorp/go-plugin from Rust: a plugin for a host in Go ([`plugin::serve`]), and a host for a
//! plugin in Go ([`host::Plugin::start`]). Each helper is one small file to copy.

pub mod host;
pub mod plugin;

/// What go-plugin itself calls.
pub mod control {
    samehost::include_proto!("plugin");
}

/// The plugin's own service.
pub mod kv {
    samehost::include_proto!("proto");
}

/// Both sides have to agree on this pair, so that a plugin which a person starts by hand says what
/// it is; and on the version of their services. They are those of go-plugin's own example.
pub const COOKIE: (&str, &str) = ("BASIC_PLUGIN", "hello");

/// The version of the plugin's services.
pub const VERSION: u32 = 1;
