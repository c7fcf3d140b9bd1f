//! [`Builder`]: the options, with the names of prost's and tonic's builders.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use prost_build::Config;
use prost_types::FileDescriptorSet;
use protox::prost::Message;

use crate::error::Error;
use crate::generator::Generator;
use crate::names::is_module_path;
use crate::options::Options;
use crate::output::{self, Output};
use crate::{check, collisions, proto};

/// Returns the options for compiling protos. [`compile`](crate::compile) uses the defaults.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     samehost_build::configure()
///         .bytes(".")
///         .build_client(false)
///         .compile_protos(&["proto/greeter.proto"], &["proto"])?;
///     Ok(())
/// }
/// ```
pub fn configure() -> Builder {
    Builder {
        options: Options {
            build_client: true,
            build_server: true,
            build_connect: true,
            emit_package: true,
            proto_path: "super".to_owned(),
            ..Options::default()
        },
        types: Types::default(),
        out_dir: None,
        descriptor_set_path: None,
        include_file: None,
        // Outside of a build script nothing reads what is printed for Cargo.
        emit_rerun_if_changed: env::var_os("CARGO").is_some(),
    }
}

/// The options for compiling protos. [`configure`] returns it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    options: Options,
    types: Types,
    out_dir: Option<PathBuf>,
    descriptor_set_path: Option<PathBuf>,
    include_file: Option<PathBuf>,
    emit_rerun_if_changed: bool,
}

/// The options of the messages, which prost generates.
#[derive(Clone, Debug, Default)]
struct Types {
    extern_paths: Vec<(String, String)>,
    type_attributes: Vec<(String, String)>,
    message_attributes: Vec<(String, String)>,
    enum_attributes: Vec<(String, String)>,
    field_attributes: Vec<(String, String)>,
    boxed: Vec<String>,
    btree_map: Vec<String>,
    bytes: Vec<String>,
    skip_debug: Vec<String>,
    well_known: bool,
}

impl Types {
    /// Refuses attributes that are none.
    fn check(&self) -> Result<(), Error> {
        for (option, given) in [
            ("type_attribute", &self.type_attributes),
            ("message_attribute", &self.message_attributes),
            ("enum_attribute", &self.enum_attributes),
            ("field_attribute", &self.field_attributes),
        ] {
            check::attributes(option, given)?;
        }
        Ok(())
    }

    fn apply(&self, config: &mut Config) {
        for (proto, rust) in &self.extern_paths {
            config.extern_path(proto, rust);
        }
        for (path, attribute) in &self.type_attributes {
            config.type_attribute(path, attribute);
        }
        for (path, attribute) in &self.message_attributes {
            config.message_attribute(path, attribute);
        }
        for (path, attribute) in &self.enum_attributes {
            config.enum_attribute(path, attribute);
        }
        for (path, attribute) in &self.field_attributes {
            config.field_attribute(path, attribute);
        }
        for path in &self.boxed {
            config.boxed(path);
        }
        // Each of these replaces a default, so an empty one must not be set.
        if !self.btree_map.is_empty() {
            config.btree_map(&self.btree_map);
        }
        if !self.bytes.is_empty() {
            config.bytes(&self.bytes);
        }
        if !self.skip_debug.is_empty() {
            config.skip_debug(&self.skip_debug);
        }
        if self.well_known {
            config.compile_well_known_types();
        }
    }
}

fn pair(path: impl AsRef<str>, value: impl AsRef<str>) -> (String, String) {
    (path.as_ref().to_owned(), value.as_ref().to_owned())
}

impl Builder {
    /// Sets whether clients are generated. Default: yes.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.options.build_client = enable;
        self
    }

    /// Sets whether servers are generated. Default: yes.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.options.build_server = enable;
        self
    }

    /// Sets whether clients have the constructor `connect`, which connects a channel of samehost's.
    /// Default: yes.
    pub fn build_transport(mut self, enable: bool) -> Self {
        self.options.build_connect = enable;
        self
    }

    /// Sets the directory of the generated files. It is made if it does not exist. Only files with generated code are
    /// written, and only those that change. Default: `OUT_DIR` of the environment, which Cargo sets for build scripts.
    pub fn out_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.out_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// Uses existing Rust types for everything at a proto path, such as `extern_path(".other.v1",
    /// "::other::v1")`.
    pub fn extern_path(mut self, proto_path: impl AsRef<str>, rust_path: impl AsRef<str>) -> Self {
        self.types.extern_paths.push(pair(proto_path, rust_path));
        self
    }

    /// Puts an attribute on messages, enums and oneofs.
    pub fn type_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.types.type_attributes.push(pair(path, attribute));
        self
    }

    /// Puts an attribute on messages.
    pub fn message_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.types.message_attributes.push(pair(path, attribute));
        self
    }

    /// Puts an attribute on enums and oneofs.
    pub fn enum_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.types.enum_attributes.push(pair(path, attribute));
        self
    }

    /// Puts an attribute on fields.
    pub fn field_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.types.field_attributes.push(pair(path, attribute));
        self
    }

    /// Boxes the fields at a path.
    pub fn boxed(mut self, path: impl AsRef<str>) -> Self {
        self.types.boxed.push(path.as_ref().to_owned());
        self
    }

    /// Generates `BTreeMap` for the map fields at a path, rather than `HashMap`.
    pub fn btree_map(mut self, path: impl AsRef<str>) -> Self {
        self.types.btree_map.push(path.as_ref().to_owned());
        self
    }

    /// Generates `bytes::Bytes` for the `bytes` fields at a path, rather than `Vec<u8>`. Large ones
    /// are then not copied when they are received.
    pub fn bytes(mut self, path: impl AsRef<str>) -> Self {
        self.types.bytes.push(path.as_ref().to_owned());
        self
    }

    /// Does not derive `Debug` for the messages at these paths.
    pub fn skip_debug<I>(mut self, paths: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        self.types.skip_debug.extend(paths.into_iter().map(|path| path.as_ref().to_owned()));
        self
    }

    /// Sets whether the well-known types are generated too, rather than taken from `prost-types`.
    /// Default: no.
    pub fn compile_well_known_types(mut self, enable: bool) -> Self {
        self.types.well_known = enable;
        self
    }

    /// Puts an attribute on the server modules of the packages at a path.
    pub fn server_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        self.options.server_mod.add(path, attribute);
        self
    }

    /// Puts an attribute on the servers of the services at a path.
    pub fn server_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.options.server.add(path, attribute);
        self
    }

    /// Puts an attribute on the traits of the services whose name matches.
    pub fn trait_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.options.service_trait.add(path, attribute);
        self
    }

    /// Puts an attribute on the client modules of the packages at a path.
    pub fn client_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        self.options.client_mod.add(path, attribute);
        self
    }

    /// Puts an attribute on the clients of the services at a path.
    pub fn client_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.options.client.add(path, attribute);
        self
    }

    /// Leaves the comments of these services and methods (`package.Service`,
    /// `package.Service.Method`) out of the stubs.
    pub fn disable_comments<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let names = names.into_iter().map(|name| name.as_ref().to_owned());
        self.options.without_comments.extend(names.collect::<HashSet<_>>());
        self
    }

    /// Sets whether a service's name begins with its package. Default: yes.
    pub fn emit_package(mut self, enable: bool) -> Self {
        self.options.emit_package = enable;
        self
    }

    /// Sets the path by which the stubs name the module with their package's messages, for stubs
    /// and messages that are included in different places: `proto_path("crate::pb::greeter::v1")`.
    /// Messages of other packages are named relative to that module. A path that begins with
    /// `super` is seen from the stubs' modules, such as `greeter_client`. Default: `super`.
    ///
    /// To leave out the messages and use those of another crate, see [`Builder::extern_path`].
    pub fn proto_path(mut self, path: impl AsRef<str>) -> Self {
        path.as_ref().clone_into(&mut self.options.proto_path);
        self
    }

    /// Sets whether the methods of a service's trait take `self: Arc<Self>`. Default: no, they take
    /// `&self`.
    pub fn use_arc_self(mut self, enable: bool) -> Self {
        self.options.use_arc_self = enable;
        self
    }

    /// Sets whether the methods of a service's trait have a body that answers UNIMPLEMENTED.
    /// Methods then return streams as boxed streams, rather than as associated types. Default: no.
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.options.default_stubs = enable;
        self
    }

    /// Also writes the encoded `FileDescriptorSet` of the protos and their imports to a file, for
    /// gRPC server reflection.
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.descriptor_set_path = Some(path.as_ref().to_owned());
        self
    }

    /// Also writes a file that includes all others, with their packages as nested modules.
    pub fn include_file(mut self, path: impl AsRef<Path>) -> Self {
        self.include_file = Some(path.as_ref().to_owned());
        self
    }

    /// Sets whether Cargo is told to run the build script again when one of the protos changes, one of
    /// their imports, or anything in a directory that a given proto is in, such as a new proto. A
    /// directory that has the package or `OUT_DIR` in it is left out, since Cargo writes there itself: a
    /// new proto there is not noticed. Default: yes if Cargo runs it.
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }

    /// Compiles protos and all that they import. See [`compile`](crate::compile) for the arguments.
    ///
    /// # Errors
    ///
    /// An [`Error`] that names the proto file and the line where the proto is broken, or the file
    /// that could not be read or written.
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        self.compile_with_config(Config::new(), protos, includes)
    }

    /// Compiles protos with options of prost's own builder that this one does not have. Where files are written to is
    /// for this builder alone to say: [`Config::out_dir`] and [`Config::file_descriptor_set_path`] have no effect, so
    /// call [`Builder::out_dir`] and [`Builder::file_descriptor_set_path`], and [`Builder::include_file`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::compile_protos`].
    pub fn compile_with_config(
        self,
        config: Config,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let compiled = proto::compile(protos, includes, self.emit_rerun_if_changed)?;
        self.generate(compiled.descriptors, &compiled.encoded, config)
    }

    /// Generates code for protos that another compiler has compiled already, such as `protoc` or
    /// `buf build`:
    ///
    /// ```no_run
    /// use prost::Message; // `prost` is a build dependency then.
    /// # use protox::prost;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let set = std::fs::read("descriptors.bin")?;
    ///     let set = samehost_build::FileDescriptorSet::decode(&*set)?;
    ///     Ok(samehost_build::configure().compile_fds(set)?)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Error`] if a file cannot be written, if the set is empty or uses editions, or if it does
    /// not have the message of a field, because an import is missing.
    pub fn compile_fds(self, descriptors: FileDescriptorSet) -> Result<(), Error> {
        self.compile_fds_with_config(descriptors, Config::new())
    }

    /// Generates code for compiled protos with options of prost's own builder that this one does
    /// not have, with the exceptions of [`Builder::compile_with_config`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::compile_fds`].
    pub fn compile_fds_with_config(
        self,
        descriptors: FileDescriptorSet,
        config: Config,
    ) -> Result<(), Error> {
        let encoded = descriptors.encode_to_vec();
        self.generate(descriptors, &encoded, config)
    }

    /// Returns the generator of the stubs alone, for `prost_build::Config::service_generator`.
    pub fn service_generator(self) -> Box<dyn prost_build::ServiceGenerator> {
        Box::new(Generator::new(self.options))
    }

    /// Returns the directory to write to, which exists.
    fn directory(&self) -> Result<PathBuf, Error> {
        let Some(directory) = &self.out_dir else {
            return env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| {
                Error::usage(
                    "no directory to write to, since OUT_DIR is not set: call out_dir, or run in \
                     a build script",
                )
            });
        };
        fs::create_dir_all(directory).map_err(|error| Error::write(directory, error))?;
        Ok(directory.clone())
    }

    fn generate(
        self,
        descriptors: FileDescriptorSet,
        encoded: &[u8],
        mut config: Config,
    ) -> Result<(), Error> {
        check::set(&descriptors)?;
        self.types.check()?;
        self.options.check()?;
        let path = &self.options.proto_path;
        if !is_module_path(path) {
            return Err(Error::usage(format!(
                "proto_path({path:?}) is not the path of a module: write it as \"crate::pb::v1\""
            )));
        }
        let output = Output {
            directory: self.directory()?,
            is_out_dir: self.out_dir.is_none(),
            include_file: self.include_file,
        };
        self.types.apply(&mut config);
        if self.options.build_client || self.options.build_server {
            let Types { extern_paths, .. } = &self.types;
            collisions::refuse(&descriptors, extern_paths)?;
            if self.options.build_server {
                collisions::refuse_box(&descriptors, extern_paths)?;
            }
            let stubs =
                [(self.options.build_client, "_client"), (self.options.build_server, "_server")];
            let suffixes =
                stubs.iter().filter(|(is_built, _)| *is_built).map(|(_, suffix)| *suffix);
            collisions::refuse_modules(&descriptors, extern_paths, &suffixes.collect::<Vec<_>>())?;
            config.service_generator(Box::new(Generator::new(self.options)));
        }
        output.generate(config, descriptors)?;
        if let Some(path) = &self.descriptor_set_path {
            output::write(path, encoded)?;
        }
        Ok(())
    }
}
