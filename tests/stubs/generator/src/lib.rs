//! What is generated for protos with all that is out of the ordinary, under lints that deny almost
//! everything.

/// With the defaults.
pub mod odd {
    /// The package's module.
    pub mod v1 {
        samehost::include_proto!("odd.v1");
    }
}

/// Imported by the others.
pub mod other {
    samehost::include_proto!("other");
}

/// A package that is named by keywords.
pub mod words {
    samehost::include_proto!("r#type.r#match.v1");
}

/// A package whose services have names of the language and of generated code.
pub mod names {
    samehost::include_proto!("names");
}

samehost::include_proto!("_");

pub use other::Elsewhere;

/// With options.
pub mod options {
    include!(concat!(env!("OUT_DIR"), "/options/all.rs"));
}

/// Stubs that use the messages of another module, both of their own package and of another one.
pub mod elsewhere {
    /// As deep as the package's name, for the messages, which nobody uses.
    pub mod stubs {
        include!(concat!(env!("OUT_DIR"), "/elsewhere/odd.v1.rs"));
    }
}
